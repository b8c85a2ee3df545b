//! `deferred`: an operator's hand on the calls that services make later.
//!
//! The services do it: this is `/manage/deferred` of Store and of Order for a terminal.

use std::fmt::Write as _;

use anyhow::Result;
use clap::{Subcommand, ValueEnum};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::names::Name;
use crate::operator::{Shown, Site, depths, list, pretty, text, whoever_knows};
use crate::state::Paths;
use crate::terminal::say;

const PATH: &str = "/manage/deferred";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Lists calls, the newest first: those that have not ended or are parked
    List {
        /// Only those that are here
        #[arg(long)]
        state: Option<State>,
        #[command(flatten)]
        shown: Shown,
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
        Self::List { state: None, shown: Shown::default() }
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

impl Command {
    pub(crate) fn run(self, paths: &Paths) -> Result<()> {
        let sites = Site::all(paths, [Name::Store, Name::Order])?;
        match self {
            Self::List { state, shown } => {
                let target = shown.of(PATH, state.map(State::as_str));
                return show(&sites, &target, shown.json);
            }
            Self::Show { id } => {
                let (_, call) = whoever_knows(&sites, "GET", &format!("{PATH}/{id}"))?;
                say(&pretty(&call)?);
            }
            Self::Retry { id } => {
                let (site, call) = whoever_knows(&sites, "POST", &format!("{PATH}/{id}/retry"))?;
                let (kind, state) = (text(&call, "kind"), text(&call, "state"));
                say(&format!("{kind} {id} of {} is on its way: {state}", site.name));
            }
            Self::Discard { id } => {
                let (site, call) = whoever_knows(&sites, "POST", &format!("{PATH}/{id}/discard"))?;
                say(&format!("{} {id} of {} is discarded", text(&call, "kind"), site.name));
            }
        }
        Ok(())
    }
}

/// Shows those that can be asked, before it fails for those that can't.
fn show(sites: &[Site], target: &str, json: bool) -> Result<()> {
    let mut failed = None;
    let mut answers = Vec::new();
    for site in sites {
        match site.ask("GET", target) {
            Ok(answer) => answers.push((site.name, answer)),
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    if json {
        let answers = answers.into_iter().map(|(name, answer)| (name.to_string(), answer));
        say(&pretty(&Value::Object(answers.collect::<Map<_, _>>()))?);
    } else {
        let tables = answers.iter().map(|(name, answer)| table(*name, answer));
        say(tables.collect::<Vec<_>>().join("\n").trim_end());
    }
    failed.map_or(Ok(()), Err)
}

/// How many of a service's calls there are of each kind, and the calls.
fn table(name: Name, answer: &Value) -> String {
    let mut out = format!("{name}, broker: {}\n", text(answer, "broker"));
    out += &depths(answer, &["pending", "sent", "running", "parked"]);
    for call in list(answer, "calls") {
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
            table(Name::Store, &answer),
            format!(
                "store, broker: Work\n\
                 claim: 2 pending 1 sent 0 running 2 parked, the oldest for 61 s\n\
                 {id}  claim          parked     12  2026-01-01T00:00:00Z  given up; after 10\n\
                 {id}  claim          discarded  12  2026-01-01T00:00:00Z  given up; after 10\n"
            )
        );
    }
}
