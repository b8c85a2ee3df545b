use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::net::TcpStream;
use tokio::sync::watch;

use super::fault::{Fault, Faults};
use super::line::Line;
use super::pipe::{Broken, Direction, copy, swallow};
use crate::clock::{Clock, SystemClock};

/// A TCP proxy on loopback that breaks what passes through it, as a test tells it to.
///
/// It knows no protocol: it serves HTTP, PostgreSQL or AMQP alike. What is set applies to open
/// connections as well, so that a client's pool doesn't hide it. [`HttpProxy`](super::HttpProxy)
/// goes by requests instead.
///
/// Dropped, it ends its connections and gives its port back.
///
/// ```
/// use resilience::testkit::{Fault, Proxy};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let proxy = Proxy::new("127.0.0.1:5432");
/// // The first connection is reset, the second one loses its reply; then all is well.
/// proxy.once(Fault::Reset);
/// proxy.once(Fault::CutReply { after: 0 });
/// // … what is tested connects to `proxy.address()` …
/// # }
/// ```
#[derive(Debug)]
pub struct Proxy {
    line: Line,
    shared: Arc<Shared>,
}

/// What has passed through a [`Proxy`] since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Connections that were accepted. One that was refused never got here.
    pub accepted: u64,
    /// Connections that are open now.
    pub open: u64,
    /// Bytes that went from clients to upstream.
    pub sent: u64,
    /// Bytes that went from upstream to clients.
    pub received: u64,
}

pub(super) struct Shared {
    upstream: String,
    pub(super) clock: Box<dyn Clock>,
    fault: watch::Sender<Fault>,
    /// Of the next connections.
    next: Mutex<VecDeque<Fault>>,
    counts: watch::Sender<Counts>,
}

impl Proxy {
    /// A proxy on a free port of 127.0.0.1, in front of this `host:port`.
    ///
    /// # Panics
    ///
    /// Outside of a Tokio runtime, or when there is no free port.
    pub fn new(upstream: impl Into<String>) -> Self {
        Self::with_clock(upstream, SystemClock)
    }

    /// Delays and rates go by this clock: with a [`ManualClock`](crate::testkit::ManualClock) they
    /// cost a test no time.
    ///
    /// # Panics
    ///
    /// As for [`new`](Self::new).
    pub fn with_clock(upstream: impl Into<String>, clock: impl Clock) -> Self {
        let shared = Arc::new(Shared {
            upstream: upstream.into(),
            clock: Box::new(clock),
            fault: watch::Sender::new(Fault::Pass),
            next: Mutex::default(),
            counts: watch::Sender::default(),
        });
        let serving = Arc::clone(&shared);
        let line = Line::new(move |client| {
            let connection = Connection::new(Arc::clone(&serving));
            Box::pin(connection.serve(client))
        });
        Self { line, shared }
    }

    /// Where clients connect to.
    pub fn address(&self) -> SocketAddr {
        self.line.address()
    }

    /// What becomes of all connections from now on, open ones included.
    pub fn set(&self, fault: Fault) {
        self.shared.fault.send_replace(fault);
    }

    /// What becomes of the next connection, until something else is [`set`](Self::set). Called
    /// several times, it is for several connections.
    pub fn once(&self, fault: Fault) {
        self.shared.next.lock().unwrap_or_else(PoisonError::into_inner).push_back(fault);
    }

    /// Everything passes again; what was held goes on. A proxy that is [`down`](Self::down) stays
    /// down.
    pub fn heal(&self) {
        self.shared.next.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.set(Fault::Pass);
    }

    /// Ends all connections, and refuses new ones from when it returns. The port stays taken.
    pub async fn down(&self) {
        self.line.down().await;
    }

    /// Accepts connections again, on the same port.
    ///
    /// # Panics
    ///
    /// As for [`new`](Self::new).
    pub fn up(&self) {
        self.line.up();
    }

    /// What has passed.
    pub fn counts(&self) -> Counts {
        *self.shared.counts.borrow()
    }

    /// Waits until this is true of what has passed. Bound it with a timeout of your own.
    pub async fn until(&self, holds: impl FnMut(&Counts) -> bool) -> Counts {
        let mut counts = self.shared.counts.subscribe();
        // The sender lives as long as this proxy.
        counts.wait_for(holds).await.map_or_else(|_| self.counts(), |counts| *counts)
    }
}

impl Shared {
    pub(super) fn count_bytes(&self, direction: Direction, length: usize) {
        let length = u64::try_from(length).unwrap_or(u64::MAX);
        self.counts.send_modify(|counts| match direction {
            Direction::ToUpstream => counts.sent += length,
            Direction::ToClient => counts.received += length,
        });
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("upstream", &self.upstream)
            .field("fault", &*self.fault.borrow())
            .field("counts", &*self.counts.borrow())
            .finish_non_exhaustive()
    }
}

/// One that was accepted, and counts as open for as long as it is there.
struct Connection {
    faults: Faults,
    shared: Arc<Shared>,
}

impl Connection {
    fn new(shared: Arc<Shared>) -> Self {
        let own = shared.next.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let faults = Faults::new(own, shared.fault.subscribe());
        shared.counts.send_modify(|counts| {
            counts.accepted += 1;
            counts.open += 1;
        });
        Self { faults, shared }
    }

    async fn serve(self, mut client: TcpStream) {
        let ended = tokio::select! {
            biased;
            () = self.faults.clone().reset() => Err(Broken::Failed),
            ended = relay(&mut client, &self.faults, &self.shared) => ended,
        };
        if let Err(Broken::Failed) = ended {
            // A socket that is gone already can't be reset.
            let _ = client.set_zero_linger();
        }
        drop(client);
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.shared.counts.send_modify(|counts| counts.open -= 1);
    }
}

async fn relay(client: &mut TcpStream, faults: &Faults, shared: &Shared) -> Result<(), Broken> {
    let (from_client, to_client) = client.split();
    if faults.current() == Fault::BlackHole {
        return swallow(from_client, Direction::ToUpstream).await;
    }
    let mut upstream = TcpStream::connect(&shared.upstream).await?;
    // What is delayed here is delayed on purpose.
    upstream.set_nodelay(true)?;
    to_client.as_ref().set_nodelay(true)?;
    let (from_upstream, to_upstream) = upstream.split();
    tokio::try_join!(
        copy(from_client, to_upstream, Direction::ToUpstream, faults.clone(), shared),
        copy(from_upstream, to_client, Direction::ToClient, faults.clone(), shared),
    )?;
    Ok(())
}
