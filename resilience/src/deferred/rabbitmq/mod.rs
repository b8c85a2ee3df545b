//! RabbitMQ carries the deferred calls to whoever is free. The only module that knows lapin.
#![doc = include_str!("../../../docs/rabbitmq.md")]

mod address;
mod consumer;
mod line;
mod message;
mod reconciler;
mod relay;
mod session;
mod topology;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::sleep;

pub(super) use address::Address;

use self::line::Fault;
use self::session::Session;
use self::topology::Names;
use super::shared::Shared;
use crate::retry::Backoff;

/// A connection that lasted for so long was a good one: the next wait is a short one again.
const LASTED: Duration = Duration::from_secs(10);

/// So many connections in a row end because a queue doesn't answer, before it is declared anew.
const SILENT: u32 = 2;

/// The kind whose queue has ended connections by its silence, and how many in a row.
#[derive(Default)]
struct Silence(Option<(&'static str, u32)>);

impl Silence {
    fn note(&mut self, fault: &Fault) {
        self.0 = match (fault, self.0) {
            (Fault::Queue(kind), Some((same, times))) if *kind == same => Some((same, times + 1)),
            (Fault::Queue(kind), _) => Some((kind, 1)),
            _ => None,
        };
    }

    fn long(&self) -> Option<&'static str> {
        self.0.filter(|(_, times)| *times >= SILENT).map(|(kind, _)| kind)
    }
}

/// Has the broker carry the calls whenever it is there: the one owner of the connections, of what is
/// declared, of the relay, the consumers and the reconciler. Whatever goes wrong ends all of it; the
/// runtime does without the broker then, and it is built up again from nothing. Ends when the
/// runtime stops, after what runs was acked.
pub(super) async fn supervise(shared: Arc<Shared>, address: Address) {
    let backoff = Backoff::new();
    let mut delays = backoff.delays();
    let names = Names::new(&shared.app);
    let mut silence = Silence::default();
    while !shared.stop.is_cancelled() {
        let began = Instant::now();
        let opened = tokio::select! {
            opened = Session::open(&shared, &address, &names, silence.long()) => opened,
            () = shared.stop.cancelled() => return,
        };
        let ended = match opened {
            Ok(session) => session.run().await,
            Err(fault) => Err(fault),
        };
        let Err(fault) = ended else { return };
        silence.note(&fault);
        if began.elapsed() > LASTED {
            delays = backoff.delays();
        }
        let wait = delays.next().unwrap_or_default();
        let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        tracing::warn!(broker = %address, %fault, wait_ms, "no broker");
        tokio::select! {
            () = shared.stop.cancelled() => return,
            () = sleep(wait) => {}
        }
    }
}
