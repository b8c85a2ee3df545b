//! `explain`: the story of one order, across the four services.
//!
//! Store tells it: this is its `/manage/explain/{orderUid}` for a terminal.

use std::fmt::Write as _;

use anyhow::Result;
use clap::Args;
use serde_json::Value;
use uuid::Uuid;

use crate::names::Name;
use crate::operator::{Site, list, pretty, text};
use crate::state::Paths;
use crate::terminal::say;

#[derive(Debug, Args)]
pub(crate) struct Command {
    /// The order, or a claim on it
    id: Uuid,
    /// For programs: what Store answers
    #[arg(long)]
    json: bool,
}

impl Command {
    pub(crate) fn run(self, paths: &Paths) -> Result<()> {
        let [store] = Site::all(paths, [Name::Store])?;
        let answer = store.ask("GET", &format!("/manage/explain/{}", self.id))?;
        say(if self.json { pretty(&answer)? } else { story(&answer) }.trim_end());
        Ok(())
    }
}

/// A line for each thing that happened, is so, or is still to happen.
fn story(answer: &Value) -> String {
    let mut out = format!("order {}: {}\n", text(answer, "orderUid"), text(answer, "outcome"));
    let why = |of: &Value| match text(of, "reason") {
        "" => String::new(),
        reason => format!(" ({})", reason.replace('\n', "; ")),
    };
    for event in list(answer, "events") {
        let (at, service) = (text(event, "at"), text(event, "service"));
        let _ = writeln!(out, "  {at}  {service:<9}  {}{}", text(event, "text"), why(event));
    }
    let parts = [("facts", "now"), ("waits", "still to happen"), ("gaps", "not told by")];
    for (field, title) in parts {
        let all = list(answer, field);
        if !all.is_empty() {
            let _ = writeln!(out, "{title}:");
        }
        for one in all {
            let mut line = format!("  {:<9}  {}", text(one, "service"), text(one, "text"));
            for (field, word) in [("on", "for"), ("until", "not before")] {
                match text(one, field) {
                    "" => {}
                    value => drop(write!(line, ", {word} {value}")),
                }
            }
            let _ = writeln!(out, "{}{}", line.trim_end(), why(one));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_story_is_a_line_for_each_thing() {
        let answer = json!({
            "orderUid": Uuid::nil(), "outcome": "paid; one thing is still to happen; with gaps",
            "events": [{"at": "2026-01-01T00:00:00+00:00", "service": "order", "text": "place is begun"}],
            "facts": [{"service": "warehouse", "text": "it is held"}],
            "waits": [{"service": "order", "text": "return waits", "on": "warranty",
                       "until": "2026-01-02T00:00:00+00:00", "reason": "no\nanswer"}],
            "gaps": [{"service": "warranty", "reason": "connection refused"}]
        });
        assert_eq!(
            story(&answer),
            format!(
                "order {}: paid; one thing is still to happen; with gaps\n  \
                   2026-01-01T00:00:00+00:00  order      place is begun\n\
                 now:\n  warehouse  it is held\n\
                 still to happen:\n  order      return waits, for warranty, not before \
                   2026-01-02T00:00:00+00:00 (no; answer)\n\
                 not told by:\n  warranty (connection refused)\n",
                Uuid::nil()
            )
        );
    }
}
