//! What the launcher is told by its environment.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::names::Service;

/// Read before anything is started.
///
/// | variable | what | default |
/// |---|---|---|
/// | `STACK_DIR` | folder of the private cluster, logs and state | `.stack` in the workspace |
/// | `STORE_PORT`, `ORDER_PORT`, `WAREHOUSE_PORT`, `WARRANTY_PORT` | ports; 0: any free one | 8480, 8380, 8280, 8180 |
/// | `POSTGRES_PORT` | port of the private PostgreSQL; 0: any free one | the last one, if free |
/// | `RABBITMQ_PORT` | port of the private RabbitMQ; 0: any free one | the last one, if free |
/// | `STORE_DATABASE_URL`, `ORDER_…`, `WAREHOUSE_…`, `WARRANTY_DATABASE_URL` | existing databases: all four, or none | a private cluster |
/// | `AMQP_URL` | an existing RabbitMQ; `none`: none at all | a private node, where the programs are found |
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) folder: PathBuf,
    /// In the order of [`Service::ALL`], as are the databases. 0 means any.
    pub(crate) ports: [u16; 4],
    pub(crate) postgres_port: Option<u16>,
    /// `None`: a private cluster.
    pub(crate) databases: Option<[String; 4]>,
    pub(crate) rabbitmq_port: Option<u16>,
    pub(crate) broker: Broker,
}

/// Whose RabbitMQ carries the deferred calls. Without one the databases alone carry them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Broker {
    /// The launcher's own, where the programs are found.
    Private,
    /// That of this address.
    Given(String),
    /// Nobody's.
    Unwanted,
}

impl Config {
    pub(crate) fn from_env() -> Result<Self> {
        let here = std::env::current_dir().context("could not find the current folder")?;
        Self::read(&here, |name| std::env::var(name).ok().filter(|value| !value.is_empty()))
    }

    fn read(here: &Path, variable: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let port = |name: &str| {
            let Some(value) = variable(name) else {
                return Ok(None);
            };
            let Ok(port) = value.parse::<u16>() else {
                bail!("{name} must be a port from 0 (any free one) to 65535, and is `{value}`");
            };
            Ok(Some(port))
        };
        let mut ports = Service::ALL.map(Service::default_port);
        for (chosen, service) in ports.iter_mut().zip(Service::ALL) {
            if let Some(port) = port(&service.variable("PORT"))? {
                *chosen = port;
            }
        }
        for (at, service) in Service::ALL.into_iter().enumerate() {
            let other = ports[..at].iter().position(|port| *port != 0 && *port == ports[at]);
            if let Some(other) = other {
                let other = Service::ALL[other].variable("PORT");
                bail!("{} and {other} are both {}", service.variable("PORT"), ports[at]);
            }
        }
        Ok(Self {
            folder: folder(here, &variable)?,
            ports,
            postgres_port: port("POSTGRES_PORT")?,
            databases: databases(&variable)?,
            rabbitmq_port: port("RABBITMQ_PORT")?,
            broker: broker(variable("AMQP_URL"))?,
        })
    }
}

/// `cargo run` sets `CARGO_MANIFEST_DIR`: with it the workspace is found from any folder in it.
fn folder(here: &Path, variable: &impl Fn(&str) -> Option<String>) -> Result<PathBuf> {
    let workspace = variable("CARGO_MANIFEST_DIR")
        .filter(|_| variable("CARGO_PKG_NAME").as_deref() == Some(env!("CARGO_PKG_NAME")))
        .and_then(|package| Some(Path::new(&package).parent()?.to_owned()))
        .filter(|workspace| workspace.join("Cargo.toml").is_file());
    let folder = match (variable("STACK_DIR"), workspace) {
        (Some(folder), _) => here.join(folder),
        (None, Some(workspace)) => workspace.join(".stack"),
        (None, None) => here.join(".stack"),
    };
    std::path::absolute(&folder).with_context(|| format!("could not resolve {}", folder.display()))
}

fn databases(variable: &impl Fn(&str) -> Option<String>) -> Result<Option<[String; 4]>> {
    let found = Service::ALL.map(|service| {
        let name = service.variable("DATABASE_URL");
        variable(&name).ok_or(name)
    });
    let missing: Vec<&str> =
        found.iter().filter_map(|found| found.as_ref().err()).map(String::as_str).collect();
    match missing.len() {
        0 => Ok(Some(found.map(Result::unwrap_or_default))),
        4 => Ok(None),
        _ => bail!(
            "databases are given for some services and not for all: set {} too, or none",
            missing.join(", ")
        ),
    }
}

fn broker(url: Option<String>) -> Result<Broker> {
    match url {
        None => Ok(Broker::Private),
        Some(url) if url == "none" => Ok(Broker::Unwanted),
        Some(url) if url.starts_with("amqp://") || url.starts_with("amqps://") => {
            Ok(Broker::Given(url))
        }
        // There may be a password in it.
        Some(_) => bail!(
            "AMQP_URL must be like amqp://user:password@host:5672/vhost, or `none` to run without RabbitMQ"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Config> {
        Config::read(Path::new("/here"), |name| {
            let found = variables.iter().find(|(variable, _)| *variable == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    fn refusal(variables: &[(&str, &str)]) -> String {
        read(variables).unwrap_err().to_string()
    }

    #[test]
    fn defaults_are_the_documented_ones() {
        let config = read(&[]).unwrap();
        assert_eq!(config.ports, [8480, 8380, 8280, 8180]);
        assert_eq!(config.folder, Path::new("/here/.stack"));
        assert!(config.postgres_port.is_none() && config.databases.is_none());
        assert!(config.rabbitmq_port.is_none() && config.broker == Broker::Private);
    }

    #[test]
    fn folder_is_the_workspace_s_unless_named() {
        let package = env!("CARGO_MANIFEST_DIR");
        let cargo = [("CARGO_MANIFEST_DIR", package), ("CARGO_PKG_NAME", "stack")];
        let workspace = Path::new(package).parent().unwrap();
        assert_eq!(read(&cargo).unwrap().folder, workspace.join(".stack"));
        // Somebody else's build that runs our program.
        let foreign = [("CARGO_MANIFEST_DIR", package), ("CARGO_PKG_NAME", "other")];
        assert_eq!(read(&foreign).unwrap().folder, Path::new("/here/.stack"));
        assert_eq!(read(&[("STACK_DIR", "x")]).unwrap().folder, Path::new("/here/x"));
    }

    #[test]
    fn errors_name_the_variable() {
        assert!(refusal(&[("ORDER_PORT", "99999")]).contains("ORDER_PORT must be a port"));
        let same = refusal(&[("WARRANTY_PORT", "8480")]);
        assert_eq!(same, "WARRANTY_PORT and STORE_PORT are both 8480");
        let some = refusal(&[("STORE_DATABASE_URL", "x"), ("WARRANTY_DATABASE_URL", "y")]);
        assert!(some.contains("set ORDER_DATABASE_URL, WAREHOUSE_DATABASE_URL too"), "{some}");
    }

    #[test]
    fn all_four_databases_or_none() {
        let all = Service::ALL.map(|service| (service.variable("DATABASE_URL"), "postgres://x"));
        let all: Vec<(&str, &str)> = all.iter().map(|(name, url)| (name.as_str(), *url)).collect();
        assert!(read(&all).unwrap().databases.is_some());
    }

    #[test]
    fn broker_is_private_given_or_unwanted() {
        let given = "amqps://user:secret@host/vhost";
        let broker = |url| read(&[("AMQP_URL", url)]).unwrap().broker;
        assert_eq!(broker(given), Broker::Given(given.to_owned()));
        assert_eq!(broker("none"), Broker::Unwanted);
        let error = refusal(&[("AMQP_URL", "http://user:secret@host")]);
        assert!(error.starts_with("AMQP_URL must be like amqp://"), "{error}");
        assert!(!error.contains("secret"), "{error}");
    }

    #[test]
    fn port_zero_may_be_given_to_all() {
        let any = [("STORE_PORT", "0"), ("ORDER_PORT", "0"), ("WAREHOUSE_PORT", "0")];
        assert_eq!(read(&any).unwrap().ports, [0, 0, 0, 8180]);
    }
}
