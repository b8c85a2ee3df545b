use std::borrow::Cow;
use std::sync::Arc;

use tokio::sync::watch;

/// What becomes of a request at an [`HttpProxy`](super::HttpProxy).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Act {
    /// It is carried out and answered.
    Pass,
    /// It doesn't arrive, and its connection is reset.
    Reset,
    /// It doesn't arrive, and nothing ever comes back.
    Hang,
    /// It is carried out, and nothing of its answer comes back: the connection is closed.
    LoseAnswer,
    /// It is carried out, and so many bytes of its answer come back: then the connection is closed.
    CutAnswer(usize),
    /// It is carried out once it is [released](Rule::release).
    Hold,
    /// It is carried out, and its answer comes back once it is [released](Rule::release).
    HoldAnswer,
    /// It is carried out once it is [released](Rule::release), and its answer is lost: a dependency
    /// that hangs, and did the work after all.
    Late,
    /// It doesn't arrive, and this is its answer.
    Answer {
        /// Status, reason and headers, without those that say where the answer ends:
        /// `200 OK\r\nContent-Type: text/html`.
        head: Cow<'static, str>,
        /// The body.
        body: Cow<'static, str>,
    },
}

/// What an [`HttpProxy`](super::HttpProxy) was told to do, and how often it has. Clones are the same
/// rule.
#[derive(Clone, Debug)]
pub struct Rule {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    start: String,
    act: Act,
    progress: watch::Sender<Progress>,
}

#[derive(Debug)]
struct Progress {
    /// How many more requests it is for; `None` is all.
    left: Option<usize>,
    hits: usize,
    served: usize,
    released: bool,
}

impl Rule {
    pub(super) fn new(start: &str, act: Act, left: Option<usize>) -> Self {
        let progress = watch::Sender::new(Progress { left, hits: 0, served: 0, released: false });
        Self { inner: Arc::new(Inner { start: start.to_owned(), act, progress }) }
    }

    /// How many requests it has met.
    pub fn hits(&self) -> usize {
        self.inner.progress.borrow().hits
    }

    /// How many of them upstream has answered, whether or not the answer came back.
    pub fn served(&self) -> usize {
        self.inner.progress.borrow().served
    }

    /// Waits until it has met so many requests. Bound it with a timeout of your own.
    pub async fn until_hits(&self, count: usize) {
        self.until(|progress| progress.hits >= count).await;
    }

    /// Waits until upstream has answered so many of them. Bound it with a timeout of your own.
    pub async fn until_served(&self, count: usize) {
        self.until(|progress| progress.served >= count).await;
    }

    /// Lets go of what is held, now and in future.
    pub fn release(&self) {
        self.inner.progress.send_modify(|progress| progress.released = true);
    }

    /// What it does to this request, if it is for it.
    pub(super) fn meet(&self, request: &str) -> Option<Act> {
        if !fits(&self.inner.start, request) {
            return None;
        }
        let met = self.inner.progress.send_if_modified(|progress| {
            let due = progress.left != Some(0);
            if due {
                progress.left = progress.left.map(|left| left - 1);
                progress.hits += 1;
            }
            due
        });
        met.then(|| self.inner.act.clone())
    }

    pub(super) fn count_served(&self) {
        self.inner.progress.send_modify(|progress| progress.served += 1);
    }

    pub(super) async fn released(&self) {
        self.until(|progress| progress.released).await;
    }

    async fn until(&self, holds: impl Fn(&Progress) -> bool) {
        // The sender lives as long as this handle: the wait can't fail.
        let _ = self.inner.progress.subscribe().wait_for(|progress| holds(progress)).await;
    }
}

/// Whether a request, `POST /orders HTTP/1.1` and so on, begins like this; `*` is any.
pub(super) fn fits(start: &str, request: &str) -> bool {
    start == "*" || request.starts_with(start)
}
