use std::time::Duration;

use tokio::sync::watch;

/// What is wrong with the network behind a [`Proxy`](super::Proxy).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// Nothing: every byte passes, and so does the end of a stream.
    #[default]
    Pass,
    /// Connections are accepted and reset at once; open ones are reset.
    Reset,
    /// Connections are accepted, what they send disappears, and nothing ever comes back. A
    /// connection that has lost a byte in this way stays silent when the fault is over; it ends
    /// when its client gives up.
    BlackHole,
    /// Everything arrives this much later. It is applied in both directions: a request and its
    /// reply take twice as long.
    Delay(Duration),
    /// No more than this many bytes a second pass in each direction of each connection; 0 counts
    /// as 1.
    Throttle {
        /// The rate of each direction.
        bytes_per_second: u32,
    },
    /// The connection is closed in place of what follows the first `after` bytes from the client.
    CutRequest {
        /// How many bytes pass, counted from when the fault began.
        after: usize,
    },
    /// The connection is closed in place of what follows the first `after` bytes from upstream.
    /// With 0 the request is carried out, and its reply is lost.
    CutReply {
        /// How many bytes pass, counted from when the fault began.
        after: usize,
    },
    /// Bytes wait, in both directions, and go on when another fault is set.
    Hold,
}

/// The fault of the moment, as one connection sees it.
#[derive(Clone)]
pub(super) struct Faults {
    /// The connection's own, until the proxy's changes.
    own: Option<Fault>,
    common: watch::Receiver<Fault>,
}

impl Faults {
    pub(super) fn new(own: Option<Fault>, common: watch::Receiver<Fault>) -> Self {
        Self { own, common }
    }

    pub(super) fn current(&self) -> Fault {
        self.own.unwrap_or_else(|| *self.common.borrow())
    }

    /// Waits until another fault is set, even the same one once more.
    pub(super) async fn changed(&mut self) {
        if self.common.changed().await.is_err() {
            // The proxy is gone, and its connections end with it.
            std::future::pending::<()>().await;
        }
        self.own = None;
    }

    /// Waits until connections are to be reset.
    pub(super) async fn reset(mut self) {
        while self.current() != Fault::Reset {
            self.changed().await;
        }
    }
}
