//! `deferred`: an operator's hand on the calls that Store makes later.
//!
//! Store does it: this is `/manage/deferred` for a terminal.

use std::fmt::Write as _;

use anyhow::{Context as _, Result, bail};
use clap::{Subcommand, ValueEnum};
use serde_json::Value;
use uuid::Uuid;

use crate::control::{self, Answer, Request};
use crate::http;
use crate::names::Name;
use crate::state::Paths;
use crate::status::PartState;
use crate::terminal::say;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Lists calls, the newest first: those that have not ended or are parked
    List {
        /// Only those that are here
        #[arg(long)]
        state: Option<State>,
        /// Only those of this kind
        #[arg(long, value_parser = name)]
        kind: Option<String>,
        /// So many at the most
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
        /// For programs: Store's own answer
        #[arg(long)]
        json: bool,
    },
    /// Shows all that is known of one call
    Show { id: Uuid },
    /// Has a parked call made again, or one that waits made now
    Retry { id: Uuid },
    /// Gives a call up that waits, or marks a parked one as seen to
    Discard { id: Uuid },
}

impl Default for Command {
    fn default() -> Self {
        Self::List { state: None, kind: None, limit: 100, json: false }
    }
}

/// Where a call may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum State {
    Pending,
    Sent,
    Running,
    Done,
    Parked,
}

impl State {
    fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Sent => "sent",
            Self::Running => "running",
            Self::Done => "done",
            Self::Parked => "parked",
        }
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

impl Command {
    pub(crate) fn run(self, paths: &Paths) -> Result<()> {
        let store = store(paths)?;
        match self {
            Self::List { state, kind, limit, json } => {
                let mut target = format!("/manage/deferred?limit={limit}");
                if let Some(state) = state {
                    let _ = write!(target, "&state={}", state.as_str());
                }
                if let Some(kind) = kind {
                    let _ = write!(target, "&kind={kind}");
                }
                let answer = ask(&store, "GET", &target)?;
                say(if json { pretty(&answer)? } else { table(&answer) }.trim_end());
            }
            Self::Show { id } => {
                say(&pretty(&ask(&store, "GET", &format!("/manage/deferred/{id}"))?)?);
            }
            Self::Retry { id } => {
                let call = ask(&store, "POST", &format!("/manage/deferred/{id}/retry"))?;
                say(&format!(
                    "{} {id} is on its way: {}",
                    text(&call, "kind"),
                    text(&call, "state")
                ));
            }
            Self::Discard { id } => {
                let call = ask(&store, "POST", &format!("/manage/deferred/{id}/discard"))?;
                say(&format!("{} {id} is discarded", text(&call, "kind")));
            }
        }
        Ok(())
    }
}

/// The address of the running Store.
fn store(paths: &Paths) -> Result<String> {
    let Some(Answer::Status(status)) = control::ask(paths, &Request::Status)? else {
        bail!(
            "no launcher is running in {}; start everything with: cargo run",
            paths.folder().display()
        );
    };
    let store = status.parts.into_iter().find(|part| part.name == Name::Store);
    let running = store.filter(|store| store.state == PartState::Running);
    let url = running.and_then(|store| store.url);
    let url = url.context("store is not running; start it with: cargo run -- start store")?;
    Ok(url.trim_start_matches("http://").to_owned())
}

fn ask(store: &str, method: &str, target: &str) -> Result<Value> {
    let (status, body) = http::exchange(store, method, target)?;
    let answer: Value = serde_json::from_str(&body).context("store answered something else")?;
    if status == 200 {
        return Ok(answer);
    }
    bail!("{} ({status} {})", text(&answer, "message"), text(&answer, "code"))
}

fn pretty(answer: &Value) -> Result<String> {
    serde_json::to_string_pretty(answer).context("could not write JSON")
}

fn text<'a>(of: &'a Value, field: &str) -> &'a str {
    of[field].as_str().unwrap_or_default()
}

/// How many there are of each kind, and the calls.
fn table(answer: &Value) -> String {
    let list = |field: &str| answer[field].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut out = format!("broker: {}\n", text(answer, "broker"));
    for kind in list("kinds") {
        let _ = write!(out, "{}:", text(kind, "kind"));
        for state in ["pending", "sent", "running", "parked"] {
            let _ = write!(out, " {} {state}", kind[state].as_u64().unwrap_or_default());
        }
        if let Some(oldest) = kind["oldestMs"].as_u64() {
            let _ = write!(out, ", the oldest for {} s", oldest / 1000);
        }
        out.push('\n');
    }
    for call in list("calls") {
        // One line each: what went wrong may be several.
        let why = text(call, "lastError").replace('\n', "; ");
        let line = format!(
            "{}  {:<14} {:<9} {:>3}  {}  {why}",
            text(call, "id"),
            text(call, "kind"),
            if call["discardedAt"].is_null() { text(call, "state") } else { "discarded" },
            call["attempts"].as_u64().unwrap_or_default(),
            text(call, "createdAt"),
        );
        let _ = writeln!(out, "{}", line.trim_end());
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn calls_are_a_line_each() {
        let id = Uuid::nil();
        let call = json!({
            "id": id, "kind": "claim", "state": "parked", "attempts": 12, "strikes": 10,
            "createdAt": "2026-01-01T00:00:00Z", "lastError": "given up\nafter 10"
        });
        let mut discarded = call.clone();
        discarded["discardedAt"] = json!("2026-01-02T00:00:00Z");
        let answer = json!({
            "broker": "Work",
            "kinds": [{"kind": "claim", "pending": 2, "sent": 1, "running": 0, "parked": 2,
                       "oldestMs": 61_500}],
            "calls": [call, discarded]
        });
        assert_eq!(
            table(&answer),
            format!(
                "broker: Work\n\
                 claim: 2 pending 1 sent 0 running 2 parked, the oldest for 61 s\n\
                 {id}  claim          parked     12  2026-01-01T00:00:00Z  given up; after 10\n\
                 {id}  claim          discarded  12  2026-01-01T00:00:00Z  given up; after 10\n"
            )
        );
    }

    #[test]
    fn kind_is_no_part_of_another_address() {
        assert_eq!(name("undo-purchase").unwrap(), "undo-purchase");
        for wrong in ["", "a&limit=1", "a b", "a\r\nX: y", "Claim"] {
            assert!(name(wrong).is_err(), "{wrong:?}");
        }
    }
}
