//! What ends the launcher, or a drill.

use std::io;

use anyhow::{Context as _, Result};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

/// Returns when an attached launcher's standard input ends.
pub(crate) async fn left_alone(attached: bool) {
    if !attached {
        return std::future::pending().await;
    }
    let (sender, ended) = oneshot::channel();
    // A thread of its own: nobody waits for it at the end.
    std::thread::spawn(move || {
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        let _ = sender.send(());
    });
    let _ = ended.await;
}

/// Ctrl-C, SIGTERM, a closed terminal.
pub(crate) struct Signals([Signal; 3]);

impl Signals {
    pub(crate) fn new() -> Result<Self> {
        let listen = |kind| signal(kind).context("could not listen for signals");
        Ok(Self([
            listen(SignalKind::interrupt())?,
            listen(SignalKind::terminate())?,
            listen(SignalKind::hangup())?,
        ]))
    }

    pub(crate) async fn next(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}
