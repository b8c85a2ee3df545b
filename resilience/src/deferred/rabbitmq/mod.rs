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

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::sleep;

pub(super) use address::Address;

use self::line::{Fault, Line};
use self::session::Session;
use self::topology::Names;
use super::builder::PARKED;
use super::shared::Shared;
use crate::retry::Backoff;

/// A connection that lasted for so long was a good one: the next wait is a short one again.
const LASTED: Duration = Duration::from_secs(10);

/// So many connections in a row end because of a queue, before it is declared anew.
const BROKEN: u32 = 2;

/// The kinds whose queues, or the [parked](PARKED) one, have ended the last connections, and how many
/// these were.
#[derive(Default)]
struct Trouble {
    kinds: BTreeSet<&'static str>,
    times: u32,
}

impl Trouble {
    fn note(&mut self, fault: &Fault, kinds: Vec<&'static str>) {
        match fault {
            Fault::Queue(kind) => self.kinds.extend([*kind]),
            // It doesn't say of which.
            fault if fault.is_internal() => self.kinds.extend(kinds.into_iter().chain([PARKED])),
            _ => return *self = Self::default(),
        }
        self.times += 1;
    }

    /// The kinds whose queues are to be declared anew.
    fn broken(&self) -> Vec<&'static str> {
        if self.times < BROKEN { Vec::new() } else { self.kinds.iter().copied().collect() }
    }
}

/// Can the broker at this address be used? Connects as the runtime does, opens a channel, and ends both:
/// nothing is declared. It takes 10 s at most.
///
/// # Errors
///
/// Why not, in words that don't hold the address's password.
pub async fn reach(address: &str) -> Result<(), String> {
    let address = Address::parse(address)?;
    let reached = async {
        let line = Line::open(&address, "looks whether it can connect").await?;
        let opened = line.channel().await;
        line.close().await;
        opened.map(drop)
    };
    reached.await.map_err(|fault: Fault| fault.to_string())
}

/// Has the broker carry the calls whenever it is there: the one owner of the connections, of what is
/// declared, of the relay, the consumers and the reconciler. Whatever goes wrong ends all of it; the
/// runtime does without the broker then, and it is built up again from nothing. Ends when the
/// runtime stops, after what runs was acked.
pub(super) async fn supervise(shared: Arc<Shared>, address: Address) {
    let backoff = Backoff::new();
    let mut delays = backoff.delays();
    let names = Names::new(&shared.app);
    let mut trouble = Trouble::default();
    while !shared.stop.is_cancelled() {
        let began = Instant::now();
        let opened = tokio::select! {
            opened = Session::open(&shared, &address, &names, trouble.broken()) => opened,
            () = shared.stop.cancelled() => return,
        };
        let ended = match opened {
            Ok(session) => session.run().await,
            Err(fault) => Err(fault),
        };
        let Err(fault) = ended else { return };
        trouble.note(&fault, shared.names());
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
