//! What is wrong, in one line each: for `<service> doctor`, and for the launcher's.
//!
//! | module | what it is |
//! |---|---|
//! | [`visit`] | a service by its address: reach, health, readiness, tokens, clock, what waits |
//! | [`own`] | what a service needs before it can start: its database, its RabbitMQ, its port, its users' keys, the others |
//!
//! It only looks: nothing is written, and nothing but `GET` is sent. Everything is asked at once and is
//! bounded in time, so that it ends within [`LIMIT`] whatever hangs. No line has a secret in it.

pub mod own;
pub mod visit;

use std::fmt;
use std::io::{self, Write as _};
use std::process::ExitCode;
use std::time::Duration;

/// Nothing that is looked at takes longer: what does is a finding.
pub const LIMIT: Duration = Duration::from_secs(12);

/// What all databases are in.
pub const POSTGRES: &str = "postgres";

/// What carries deferred calls.
pub const RABBITMQ: &str = "rabbitmq";

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// As it should be.
    Ok,
    /// It works, and somebody should know; or it could not be looked at.
    Warning,
    /// It doesn't work, or lets in who should stay out.
    Error,
}

impl Level {
    fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// What was found: a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub level: Level,
    /// What it is about: a service's name, `postgres`, `rabbitmq`.
    pub thing: String,
    /// What is wrong, and what to do about it.
    pub said: String,
    /// What it follows from: where that was found out, it is no news.
    pub cause: Option<Cause>,
}

/// What others suffer from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// PostgreSQL, or a service's database in it.
    Database,
    /// RabbitMQ.
    Broker,
}

impl Finding {
    fn new(level: Level, thing: impl Into<String>, said: impl Into<String>) -> Self {
        Self { level, thing: thing.into(), said: said.into(), cause: None }
    }

    /// It is as it should be.
    pub fn ok(thing: impl Into<String>, said: impl Into<String>) -> Self {
        Self::new(Level::Ok, thing, said)
    }

    /// Others suffer from the same.
    #[must_use]
    pub fn because(self, cause: Cause) -> Self {
        Self { cause: Some(cause), ..self }
    }

    /// It works, and somebody should know.
    pub fn warning(thing: impl Into<String>, said: impl Into<String>) -> Self {
        Self::new(Level::Warning, thing, said)
    }

    /// It doesn't work.
    pub fn error(thing: impl Into<String>, said: impl Into<String>) -> Self {
        Self::new(Level::Error, thing, said)
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<8} {:<10} {}", self.level.as_str(), self.thing, one_line(&self.said))
    }
}

/// Some errors have several lines, and what somebody else has answered may be meant for a terminal.
fn one_line(text: &str) -> String {
    let lines = text.trim().lines().map(str::trim).filter(|line| !line.is_empty());
    let text = lines.collect::<Vec<_>>().join("; ");
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Prints them, and says how to end: with 1 if one of them is an error.
pub fn report(findings: &[Finding]) -> ExitCode {
    let mut out = io::stdout().lock();
    for finding in findings {
        // That nobody reads it any more changes nothing.
        let _ = writeln!(out, "{finding}");
    }
    match worst(findings) {
        Level::Error => ExitCode::FAILURE,
        Level::Ok | Level::Warning => ExitCode::SUCCESS,
    }
}

/// Leaves out what is known already, by these: a stopped PostgreSQL is one line, and not one for each
/// service besides.
pub fn without_news(findings: Vec<Finding>, known: &[Finding]) -> Vec<Finding> {
    let is_known = |finding: &Finding| {
        let explains = |other: &Finding| {
            let shared = [POSTGRES, RABBITMQ].contains(&other.thing.as_str());
            other.level == Level::Error
                && other.cause == finding.cause
                && (shared || other.thing == finding.thing)
        };
        finding.cause.is_some() && known.iter().any(explains)
    };
    findings.into_iter().filter(|finding| !is_known(finding)).collect()
}

/// The worst of them.
fn worst(findings: &[Finding]) -> Level {
    findings.iter().map(|finding| finding.level).max().unwrap_or(Level::Ok)
}

/// How long ago, for people.
fn ago(millis: u64) -> String {
    let seconds = millis / 1000;
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        _ => format!("{} h", seconds / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_one_line_whatever_somebody_has_answered() {
        let finding = Finding::error("store", "a\n  b\r\n\n\x1b[31mred\u{9b}0m\n");
        assert_eq!(finding.to_string(), "error    store      a; b;  [31mred 0m");
    }

    #[test]
    fn the_worst_decides() {
        let of = |levels: &[Level]| {
            let findings = levels.iter().map(|level| Finding::new(*level, "", ""));
            worst(&findings.collect::<Vec<_>>())
        };
        assert_eq!(of(&[]), Level::Ok);
        assert_eq!(of(&[Level::Ok, Level::Warning]), Level::Warning);
        assert_eq!(of(&[Level::Error, Level::Warning, Level::Ok]), Level::Error);
    }
}
