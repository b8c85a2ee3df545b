//! `sagas`: an operator's hand on what reaches into several systems.
//!
//! Order does it: this is its `/manage/sagas` for a terminal.

use std::fmt::Write as _;

use anyhow::Result;
use clap::{Subcommand, ValueEnum};
use serde_json::Value;
use uuid::Uuid;

use crate::names::Name;
use crate::operator::{Shown, Site, depths, list, pretty, text};
use crate::state::Paths;
use crate::terminal::say;

const PATH: &str = "/manage/sagas";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Lists sagas, the newest first: those that have not ended
    List {
        /// Only those that are here
        #[arg(long)]
        state: Option<State>,
        #[command(flatten)]
        shown: Shown,
    },
    /// Shows all that is known of one saga, with its steps
    Show { id: Uuid },
    /// Has repeated what was given up of a saga, or what waits of it, now
    Retry { id: Uuid },
}

impl Default for Command {
    fn default() -> Self {
        Self::List { state: None, shown: Shown::default() }
    }
}

/// Where a saga may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum State {
    Running,
    Compensating,
    Stuck,
    Committed,
    Compensated,
}

impl State {
    fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Compensating => "compensating",
            Self::Stuck => "stuck",
            Self::Committed => "committed",
            Self::Compensated => "compensated",
        }
    }
}

impl Command {
    pub(crate) fn run(self, paths: &Paths) -> Result<()> {
        let [order] = Site::all(paths, [Name::Order])?;
        match self {
            Self::List { state, shown } => {
                let answer = order.ask("GET", &shown.of(PATH, state.map(State::as_str)))?;
                say(if shown.json { pretty(&answer)? } else { table(&answer) }.trim_end());
            }
            Self::Show { id } => say(&pretty(&order.ask("GET", &format!("{PATH}/{id}"))?)?),
            Self::Retry { id } => {
                let saga = order.ask("POST", &format!("{PATH}/{id}/retry"))?;
                let (kind, state) = (text(&saga, "kind"), text(&saga, "state"));
                say(&format!("{kind} {id} is on its way: {state}"));
            }
        }
        Ok(())
    }
}

/// How many there are of each kind, and the sagas.
fn table(answer: &Value) -> String {
    let mut out = depths(answer, &["running", "compensating", "stuck"]);
    for saga in list(answer, "sagas") {
        // One line each: why may be several.
        let why = text(saga, "reason").replace('\n', "; ");
        let line = format!(
            "{}  {:<10} {:<12}  {}  {}  {why}",
            text(saga, "id"),
            text(saga, "kind"),
            text(saga, "state"),
            text(saga, "begunAt"),
            text(saga, "key"),
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
    fn sagas_are_a_line_each() {
        let id = Uuid::nil();
        let answer = json!({
            "kinds": [{"kind": "place", "running": 1, "compensating": 0, "stuck": 1, "oldestMs": 61_500},
                      {"kind": "return", "running": 0, "compensating": 0, "stuck": 0}],
            "sagas": [
                {"id": id, "kind": "place", "key": "k", "state": "running", "forward": false,
                 "begunAt": "2026-01-02T00:00:00Z"},
                {"id": id, "kind": "place", "key": "l", "state": "stuck", "forward": false,
                 "begunAt": "2026-01-01T00:00:00Z", "reason": "given up\nafter 20"}
            ]
        });
        assert_eq!(
            table(&answer),
            format!(
                "place: 1 running 0 compensating 1 stuck, the oldest for 61 s\n\
                 return: 0 running 0 compensating 0 stuck\n\
                 {id}  place      running       2026-01-02T00:00:00Z  k\n\
                 {id}  place      stuck         2026-01-01T00:00:00Z  l  given up; after 20\n"
            )
        );
    }
}
