//! What the page shows: what each service says of itself, asked while somebody looks and not otherwise.
//!
//! One question at a time goes to each of them, however many pages are open, round all breakers: what
//! is asked here must be asked all the more when calls fail, and says nothing about them. What a
//! service that is away has said last stays, with since when it is away, and why.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use axum::body::Bytes;
use resilience::http::{CallError, Client, Context, ErrorKind};
use serde::Serialize;
use serde_json::Value;
use service::manage::{overview::Overview, rfc3339};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

/// How often each service is asked.
const PERIOD: Duration = Duration::from_millis(500);

/// How long it may take to answer: it does within 300 ms, whatever is away behind it.
pub(super) const TIMEOUT: Duration = Duration::from_secs(1);

/// What was asked longer ago than this is not known any more.
const LAPSE: Duration = Duration::from_secs(2);

/// How long an operator's command may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// Another service, as operators reach it.
#[derive(Debug)]
pub(super) struct Other {
    pub(super) name: &'static str,
    pub(super) client: Client,
}

/// What is known of all services.
#[derive(Debug)]
pub(super) struct Watch {
    own: Overview,
    others: [Other; 3],
    seen: Mutex<[Seen; 4]>,
    /// Whether each of them is being asked.
    asking: Mutex<[bool; 4]>,
    told: watch::Sender<Bytes>,
    draining: CancellationToken,
}

/// What is known of one of them.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Seen {
    name: &'static str,
    /// `here`, `away`, `refusing` (it answers, and doesn't let us in) or `unknown`.
    state: &'static str,
    /// Since when; where nobody looked when that began, since when at least.
    since: String,
    at_least: bool,
    /// When that was asked last.
    #[serde(skip)]
    asked: Instant,
    /// Why it is away or refuses.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// What it said last.
    #[serde(skip_serializing_if = "Option::is_none")]
    overview: Option<Value>,
}

/// What is pushed.
#[derive(Serialize)]
struct Told<'a> {
    at: String,
    services: &'a [Seen],
}

impl Watch {
    pub(super) fn new(own: Overview, others: [Other; 3], draining: CancellationToken) -> Arc<Self> {
        let now = rfc3339(SystemTime::now());
        let [a, b, c] = others.each_ref().map(|other| other.name);
        let seen = [own.name(), a, b, c].map(|name| Seen {
            name,
            state: "unknown",
            since: now.clone(),
            at_least: true,
            asked: Instant::now(),
            reason: None,
            overview: None,
        });
        Arc::new(Self {
            own,
            others,
            seen: Mutex::new(seen),
            asking: Mutex::default(),
            told: watch::Sender::default(),
            draining,
        })
    }

    pub(super) fn own(&self) -> &Overview {
        &self.own
    }

    pub(super) fn others(&self) -> &[Other] {
        &self.others
    }

    /// The service of this name, but for this one itself.
    pub(super) fn other(&self, name: &str) -> Option<&Other> {
        self.others.iter().find(|other| other.name == name)
    }

    /// What is known from now on, as long as this is held.
    pub(super) fn look(self: &Arc<Self>) -> watch::Receiver<Bytes> {
        let mut asking = lock(&self.asking);
        let mut looks = self.told.subscribe();
        // What was told to somebody else may be long ago.
        looks.borrow_and_update();
        for (number, asks) in asking.iter_mut().enumerate() {
            if !std::mem::replace(asks, true) {
                lock(&self.seen)[number].lapses();
                tokio::spawn(Arc::clone(self).ask(number));
            }
        }
        looks
    }

    /// Asks one of them, as long as somebody looks.
    async fn ask(self: Arc<Self>, number: usize) {
        let mut tick = interval(PERIOD);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut changes = self.own.changes();
        loop {
            tokio::select! {
                () = self.draining.cancelled() => break,
                _ = tick.tick() => {}
                // Our own breakers are shown as soon as they change.
                Ok(()) = changes.changed(), if number == 0 => {}
            }
            {
                let mut asking = lock(&self.asking);
                if self.told.receiver_count() == 0 {
                    asking[number] = false;
                    return;
                }
            }
            let said = match number.checked_sub(1) {
                None => self.own.now().await.map_err(|failure| ("away", failure.to_string())),
                Some(other) => self.others[other].overview().await,
            };
            self.note(number, said);
        }
    }

    fn note(&self, number: usize, said: Result<Value, (&'static str, String)>) {
        let mut all = lock(&self.seen);
        let seen = &mut all[number];
        let (state, reason) = match said {
            Ok(overview) => {
                seen.overview = Some(overview);
                ("here", None)
            }
            Err((state, reason)) => (state, Some(reason)),
        };
        seen.is(state);
        seen.asked = Instant::now();
        seen.reason = reason;
        let told = Told { at: rfc3339(SystemTime::now()), services: &*all };
        // As an event: whoever looks is sent the same bytes.
        let mut event = b"data: ".to_vec();
        match serde_json::to_writer(&mut event, &told) {
            Ok(()) => {
                event.extend_from_slice(b"\n\n");
                drop(self.told.send_replace(event.into()));
            }
            Err(error) => tracing::error!(%error, "what is known can't be told"),
        }
    }
}

impl Seen {
    /// What became of it while nobody looked, nobody has seen. A page that begins its stream anew has
    /// looked all the while.
    fn lapses(&mut self) {
        if self.asked.elapsed() > LAPSE {
            self.is("unknown");
        }
    }

    /// It is so now.
    fn is(&mut self, state: &'static str) {
        if self.state != state {
            self.at_least = self.state == "unknown";
            (self.state, self.since) = (state, rfc3339(SystemTime::now()));
        }
    }
}

impl Other {
    async fn overview(&self) -> Result<Value, (&'static str, String)> {
        let reply = self.client.get("/manage/overview").fetch(&Context::new()).await;
        reply.map(|reply| reply.body).map_err(|error| why(&error))
    }
}

/// What of a failure is of use to whoever looks for its cause.
pub(super) fn why(error: &CallError) -> (&'static str, String) {
    match error.kind() {
        ErrorKind::Connect(reason) | ErrorKind::Lost(reason) | ErrorKind::Unreadable(reason) => {
            ("away", reason.clone())
        }
        ErrorKind::TimedOut { limit, .. } => {
            ("away", format!("no answer within {} ms", limit.as_millis()))
        }
        _ => match error.refusal() {
            Some(said) if said.status.is_client_error() => {
                let message = said.message.clone().unwrap_or_default();
                ("refusing", format!("it answers {}: {message}", said.status.as_u16()))
            }
            _ => ("away", error.to_string()),
        },
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
