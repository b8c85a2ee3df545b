//! What runs, and where.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use backing::rabbitmq::Node;

use crate::config::{Broker, Config};
use crate::names::{Name, Service};
use crate::parts::Part;
use crate::state::Paths;

/// What `status --json` prints. Every key is always there.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Status {
    /// Whether it takes tokens.
    pub(crate) locked: bool,
    pub(crate) parts: Vec<PartStatus>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct PartStatus {
    pub(crate) name: Name,
    pub(crate) state: PartState,
    pub(crate) pid: Option<i32>,
    pub(crate) url: Option<String>,
    pub(crate) database: Option<String>,
    pub(crate) log: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum PartState {
    Running,
    Stopped,
    /// Not of this launcher's making.
    Absent,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in &self.parts {
            let state = match part.state {
                PartState::Running => "running",
                PartState::Stopped => "stopped",
                PartState::Absent => "absent",
            };
            let pid = part.pid.map(|pid| format!("pid {pid}")).unwrap_or_default();
            let url = part.url.as_deref().unwrap_or_default();
            let line = format!("{:<10} {state:<8} {pid:<12} {url}", part.name);
            writeln!(f, "{}", line.trim_end())?;
        }
        if self.locked {
            writeln!(f, "locked: services and operators need tokens")?;
        }
        Ok(())
    }
}

impl Status {
    /// Without a launcher nothing runs, and a port that is any one is not known.
    pub(crate) fn offline(config: &Config, paths: &Paths) -> Self {
        let url = |port: u16| (port != 0).then(|| format!("http://127.0.0.1:{port}"));
        let service = |(at, service): (usize, Service)| PartStatus {
            name: service.name(),
            state: PartState::Stopped,
            pid: None,
            url: url(config.ports[at]),
            database: config.databases.as_ref().map(|databases| databases[at].clone()),
            log: Some(paths.log(service.name())),
        };
        let mut parts: Vec<PartStatus> =
            Service::ALL.into_iter().enumerate().map(service).collect();
        let broker = config.broker == Broker::Private && Node::check(&paths.node()).is_ok();
        for (name, private) in
            [(Name::Postgres, config.databases.is_none()), (Name::Rabbitmq, broker)]
        {
            let part = PartStatus::absent(name);
            parts.push(if private {
                PartStatus { state: PartState::Stopped, log: Some(paths.log(name)), ..part }
            } else {
                part
            });
        }
        Self { locked: false, parts }
    }

    /// Of the running launcher's parts; those that it has not are absent.
    pub(crate) fn live<'a>(parts: impl IntoIterator<Item = &'a Part>, locked: bool) -> Self {
        let mut parts: Vec<PartStatus> = parts.into_iter().map(PartStatus::of).collect();
        for name in [Name::Postgres, Name::Rabbitmq] {
            if !parts.iter().any(|part| part.name == name) {
                parts.push(PartStatus::absent(name));
            }
        }
        Self { locked, parts }
    }
}

impl PartStatus {
    fn of(part: &Part) -> Self {
        let process = part.process();
        Self {
            name: part.name(),
            state: if process.is_some() { PartState::Running } else { PartState::Stopped },
            pid: process.map(|process| process.pid),
            url: Some(part.url()),
            database: part.database().map(str::to_owned),
            log: Some(part.log().to_owned()),
        }
    }

    fn absent(name: Name) -> Self {
        Self { name, state: PartState::Absent, pid: None, url: None, database: None, log: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_has_every_key() {
        let status = Status { locked: false, parts: vec![PartStatus::absent(Name::Rabbitmq)] };
        assert_eq!(
            serde_json::to_string(&status).unwrap(),
            r#"{"locked":false,"parts":[{"name":"rabbitmq","state":"absent","pid":null,"url":null,"database":null,"log":null}]}"#
        );
    }
}
