//! What the operator's commands have in common: they are `/manage` of the services for a terminal.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use clap::Args;
use serde_json::Value;
use service::probe::Probe;
use url::Url;

use crate::control::{self, Answer, Request};
use crate::names::Name;
use crate::state::Paths;
use crate::status::PartState;
use crate::tokens;

/// A service answers within its own budget, which is shorter.
const LIMIT: Duration = Duration::from_secs(10);

/// What of a list is shown, and how.
#[derive(Debug, Args)]
pub(crate) struct Shown {
    /// Only those of this kind
    #[arg(long, value_parser = name)]
    kind: Option<String>,
    /// So many at the most
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
    /// For programs: what the services answer
    #[arg(long)]
    pub(crate) json: bool,
}

impl Default for Shown {
    fn default() -> Self {
        Self { kind: None, limit: 100, json: false }
    }
}

impl Shown {
    /// The address of that much of a list.
    pub(crate) fn of(&self, path: &str, state: Option<&str>) -> String {
        let mut target = format!("{path}?limit={}", self.limit);
        for (name, value) in [("state", state), ("kind", self.kind.as_deref())] {
            if let Some(value) = value {
                let _ = write!(target, "&{name}={value}");
            }
        }
        target
    }
}

/// It becomes a part of an address as it is.
fn name(text: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c);
    if !text.is_empty() && text.chars().all(fits) {
        Ok(text.to_owned())
    } else {
        Err("a kind is lower-case letters, digits, `-`, `_` and `.`".to_owned())
    }
}

/// A service of the running launcher.
pub(crate) struct Site {
    pub(crate) name: Name,
    /// While it runs.
    probe: Option<Probe>,
    /// By which it lets an operator in, where it is locked.
    authorization: Option<String>,
}

impl Site {
    /// These services, in this order.
    pub(crate) fn all<const N: usize>(paths: &Paths, names: [Name; N]) -> Result<[Self; N]> {
        let Some(Answer::Status(status)) = control::ask(paths, &Request::Status)? else {
            bail!(
                "no launcher is running in {}; start everything with: cargo run",
                paths.folder().display()
            );
        };
        let token = tokens::minted(tokens::Kind::Management, paths)?;
        let authorization = token.map(|token| format!("Bearer {token}"));
        Ok(names.map(|name| {
            let part = status.parts.iter().find(|part| part.name == name);
            let running = part.filter(|part| part.state == PartState::Running);
            let url = running.and_then(|part| part.url.as_deref());
            let probe = url.and_then(|url| Some(Probe::new(Url::parse(url).ok()?).patient(LIMIT)));
            Self { name, probe, authorization: authorization.clone() }
        }))
    }

    /// What it answers.
    pub(crate) fn ask(&self, method: &str, target: &str) -> Result<Value> {
        let (status, answer) = self.exchange(method, target)?;
        if status == 200 { Ok(answer) } else { Err(refusal(status, &answer)) }
    }

    fn exchange(&self, method: &str, target: &str) -> Result<(u16, Value)> {
        let name = self.name;
        let probe = self.probe.as_ref().with_context(|| {
            format!("{name} is not running; start it with: cargo run -- start {name}")
        })?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.context("could not start the runtime")?;
        let heard = runtime.block_on(probe.ask(method, target, self.authorization.as_deref()));
        let heard = heard.with_context(|| format!("could not ask {probe}"))?;
        let answer = serde_json::from_slice(&heard.body);
        let answer = answer.with_context(|| format!("{name} answered something else"))?;
        Ok((heard.status.as_u16(), answer))
    }
}

/// What the one of them answers that knows this id, and who that is.
pub(crate) fn whoever_knows<'a>(
    sites: &'a [Site],
    method: &str,
    target: &str,
) -> Result<(&'a Site, Value)> {
    let mut nobody = None;
    for site in sites {
        match site.exchange(method, target) {
            Ok((200, answer)) => return Ok((site, answer)),
            // Not what the others don't know matters, but that one could not be asked.
            Ok((404, answer)) => nobody = nobody.or_else(|| Some(refusal(404, &answer))),
            Ok((status, answer)) => return Err(refusal(status, &answer)),
            Err(error) => nobody = Some(error),
        }
    }
    Err(nobody.unwrap_or_else(|| anyhow!("there is nobody to ask")))
}

fn refusal(status: u16, answer: &Value) -> anyhow::Error {
    anyhow!("{} ({status} {})", text(answer, "message"), text(answer, "code"))
}

pub(crate) fn pretty(answer: &Value) -> Result<String> {
    serde_json::to_string_pretty(answer).context("could not write JSON")
}

pub(crate) fn text<'a>(of: &'a Value, field: &str) -> &'a str {
    of[field].as_str().unwrap_or_default()
}

pub(crate) fn list<'a>(of: &'a Value, field: &str) -> &'a [Value] {
    of[field].as_array().map(Vec::as_slice).unwrap_or_default()
}

/// How many there are of each kind in these states, a line each.
pub(crate) fn depths(answer: &Value, states: &[&str]) -> String {
    let mut out = String::new();
    for kind in list(answer, "kinds") {
        let _ = write!(out, "{}:", text(kind, "kind"));
        for state in states {
            let _ = write!(out, " {} {state}", kind[state].as_u64().unwrap_or_default());
        }
        if let Some(oldest) = kind["oldestMs"].as_u64() {
            let _ = write!(out, ", the oldest for {} s", oldest / 1000);
        }
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kind_is_no_part_of_another_address() {
        assert_eq!(name("undo-purchase").unwrap(), "undo-purchase");
        for wrong in ["", "a&limit=1", "a b", "a\r\nX: y", "Claim"] {
            assert!(name(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn list_is_asked_for_as_it_is_to_be_shown() {
        let shown = Shown { kind: Some("place".to_owned()), limit: 7, json: false };
        assert_eq!(shown.of("/x", Some("stuck")), "/x?limit=7&state=stuck&kind=place");
        assert_eq!(Shown::default().of("/x", None), "/x?limit=100");
    }
}
