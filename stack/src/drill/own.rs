//! A store of the drill's own: a launcher like any other, in a folder of its own, that ends with it.

use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::process::Stdio;

use anyhow::{Context as _, Result, bail};
use tokio::process::{Child, Command};
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use crate::control::{self, Answer, Request};
use crate::names::{Name, Service};
use crate::signals::Signals;
use crate::state::{LOOK, Paths};
use crate::terminal::say;

/// Running, and ready. Its standard input is held: when that ends, so does it, whatever became of us.
pub(super) struct Own {
    launcher: Child,
    paths: Paths,
}

impl Own {
    /// Beside the data of the one that doesn't run.
    pub(super) async fn start(beside: &Paths, signals: &mut Signals) -> Result<Self> {
        let paths = Paths::new(beside.folder().join("drill"));
        if control::ask(&paths, &Request::Status)?.is_some() {
            bail!("a drill is going on already");
        }
        say(&format!(
            "no store is running: starting one for the drill alone, in {}",
            paths.folder().display()
        ));
        fs::create_dir_all(beside.folder()).context("could not create a folder")?;
        paths.create()?;
        let log = paths.folder().join("launcher.log");
        let output = File::create(&log);
        let output = output.with_context(|| format!("could not write {}", log.display()))?;
        let program = std::env::current_exe().context("could not find this program")?;
        let mut command = std::process::Command::new(program);
        command.arg("--attached").env("STACK_DIR", paths.folder());
        for service in Service::ALL {
            command.env(service.variable("PORT"), "0").env_remove(service.variable("DATABASE_URL"));
        }
        command.env_remove("POSTGRES_PORT").env_remove("RABBITMQ_PORT");
        // None, or one of its own: nobody else's is to be broken.
        if std::env::var("AMQP_URL").is_ok_and(|url| url != "none") {
            command.env_remove("AMQP_URL");
        }
        // Out of reach of the terminal's Ctrl-C: that is the drill's.
        command.stdin(Stdio::piped()).stdout(output).process_group(0);
        let launcher = Command::from(command).spawn().context("could not start a launcher")?;
        let mut own = Self { launcher, paths };
        let ready = tokio::select! {
            ready = own.ready() => ready,
            () = signals.next() => Err(anyhow::anyhow!("ended before the store was ready")),
        };
        match ready {
            Ok(()) => Ok(own),
            Err(error) => {
                own.end().await?;
                Err(error)
            }
        }
    }

    pub(super) fn paths(&self) -> &Paths {
        &self.paths
    }

    async fn ready(&mut self) -> Result<()> {
        loop {
            let paths = self.paths.clone();
            let asked =
                spawn_blocking(move || control::ask(&paths, &Request::Start { part: Name::Store }));
            match asked.await?? {
                Some(Answer::Done { .. }) => return Ok(()),
                Some(Answer::Failed { message }) => bail!(message),
                Some(Answer::Status(_)) => bail!("the launcher answered something else"),
                None => {}
            }
            if let Some(status) = self.launcher.try_wait()? {
                bail!("the drill's store did not start: {status}");
            }
            sleep(LOOK).await;
        }
    }

    /// Returns when nothing of it runs any more.
    pub(super) async fn end(mut self) -> Result<()> {
        drop(self.launcher.stdin.take());
        self.launcher.wait().await.context("could not wait for the drill's store")?;
        let folder = self.paths.folder().display();
        say(&format!("the drill's store has ended; its data and logs stay in {folder}"));
        Ok(())
    }
}
