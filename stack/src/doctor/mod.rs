//! `doctor`: what is wrong, in one line each, and nothing is touched.
//!
//! - [`Options`]: a deployed store, by its addresses, or this machine.
//! - [`local`]: this machine, whether the launcher runs or not.
//!
//! What is known of services is in `service::doctor`, which `<service> doctor` uses too.

mod local;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use futures_util::future::join_all;
use service::access::Callers;
use service::doctor::visit::{Credential, Visit};
use service::doctor::{self, Finding};
use service::probe::Probe;
use url::Url;

use crate::names::Service;
use crate::tokens::{self, Kind};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Where a deployed Store is
    #[arg(long, value_name = "URL")]
    store: Option<String>,
    /// Where its Order is
    #[arg(long, value_name = "URL")]
    order: Option<String>,
    /// Where its Warehouse is
    #[arg(long, value_name = "URL")]
    warehouse: Option<String>,
    /// Where its Warranty is
    #[arg(long, value_name = "URL")]
    warranty: Option<String>,
    /// The token that services show each other, or a whole header with it
    #[arg(long, value_name = "FILE")]
    service_token: Option<PathBuf>,
    /// The token of operators, likewise
    #[arg(long, value_name = "FILE")]
    management_token: Option<PathBuf>,
}

impl Options {
    pub(crate) fn run(self) -> Result<ExitCode> {
        let sites = self.sites()?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .context("could not start the runtime")?;
        let findings = if sites.is_empty() {
            if self.service_token.is_some() || self.management_token.is_some() {
                bail!("tokens are for addresses: give --store, --order, --warehouse or --warranty");
            }
            runtime.block_on(local::look())
        } else {
            let service = credential(Kind::Service, self.service_token)?;
            let management = credential(Kind::Management, self.management_token)?;
            let visits = sites.into_iter().map(|(service_there, url)| {
                let (name, probe) = (service_there, Probe::new(url));
                let remedy = format!("look at its process, and at --{}", name.name());
                visit(name, probe, remedy, service.clone(), management.clone())
            });
            runtime.block_on(all(visits))
        };
        // What hangs is not waited for.
        runtime.shutdown_background();
        Ok(doctor::report(&findings))
    }

    fn sites(&self) -> Result<Vec<(Service, Url)>> {
        let given = [&self.store, &self.order, &self.warehouse, &self.warranty];
        let given = Service::ALL.into_iter().zip(given);
        let given = given.filter_map(|(service, text)| Some((service, text.as_deref()?)));
        let sites = given.map(|(service, text)| {
            // What is wrong with it may be a password in it, so it isn't repeated.
            let url = address(text).with_context(|| {
                let (name, port) = (service.name(), service.default_port());
                format!(
                    "--{name} must be an http or https address without a password, such as \
                     https://{name}.example.com or http://127.0.0.1:{port}"
                )
            })?;
            Ok((service, url))
        });
        sites.collect()
    }
}

fn address(text: &str) -> Option<Url> {
    let url = Url::parse(text).ok()?;
    let usable = matches!(url.scheme(), "http" | "https")
        && url.has_host()
        && url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none();
    usable.then_some(url)
}

/// The token in the file, else the first of the variable: the one that a service would send.
fn credential(kind: Kind, file: Option<PathBuf>) -> Result<Option<Credential>> {
    if let Some(file) = file {
        let origin = file.display().to_string();
        return Ok(Some(Credential::new(&tokens::read(&file)?, origin)));
    }
    let variable = kind.variable();
    let Some(text) = std::env::var(variable).ok().filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    let first = text.split(',').next().unwrap_or_default().trim();
    if first.is_empty() || !first.bytes().all(|byte| byte.is_ascii_graphic()) {
        bail!("{variable} must hold one or two tokens, comma-separated");
    }
    Ok(Some(Credential::new(first, variable)))
}

fn visit(
    service: Service,
    probe: Probe,
    remedy: String,
    token: Option<Credential>,
    management: Option<Credential>,
) -> Visit {
    let callers = if service == Service::Store { Callers::Users } else { Callers::Services };
    let name = service.name().as_str();
    Visit { name, callers, probe, remedy, service: token, management, operator: true }
}

/// All at once.
async fn all(visits: impl IntoIterator<Item = Visit>) -> Vec<Finding> {
    let visits = visits.into_iter().map(async |visit| visit.make().await);
    join_all(visits).await.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_http_and_has_no_password() {
        for good in ["https://store.example.com", "http://127.0.0.1:8480/shop/", "http://[::1]:1"] {
            assert!(address(good).is_some(), "{good}");
        }
        for bad in [
            "store.example.com",
            "ftp://h",
            "https://u:geheim@h",
            "https://h?token=geheim",
            "http://",
        ] {
            assert!(address(bad).is_none(), "{bad}");
        }
    }
}
