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
use service::config::{Reader, http_address};
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
            let url = http_address(text).with_context(|| {
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

/// The token in the file, else that of the variable.
fn credential(kind: Kind, file: Option<PathBuf>) -> Result<Option<Credential>> {
    if let Some(file) = file {
        let origin = file.display().to_string();
        return Ok(Some(Credential::new(&tokens::read(&file)?, origin)));
    }
    let mut reader = Reader::from_env()?;
    let credential = Credential::read(&mut reader, kind.variable());
    Ok(reader.finish(Some(credential))?)
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
