//! Puts a runtime together.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tracing::Span;

use super::database::{Database, Door};
use super::handler::Handler;
use super::kind::Kind;
#[cfg(feature = "rabbitmq")]
use super::rabbitmq::Address;
use super::runtime::{Runtime, Times};
use super::settings::Settings;
use super::shared::{Broker, OnAttempt, Shared};
#[cfg(feature = "saga")]
use crate::saga;

/// The longest name, in bytes.
const LONGEST_NAME: usize = 100;

/// In a broker, in the place of a kind: where messages end that can't be read, or were delivered too
/// often.
pub(super) const PARKED: &str = "parked";

/// Puts a [`Runtime`] together; made by [`Deferred::builder`](super::Deferred::builder).
#[derive(Debug)]
#[must_use]
pub struct Builder {
    door: Door,
    app: String,
    kinds: BTreeMap<&'static str, Arc<Kind>>,
    times: Times,
    on_attempt: Option<OnAttempt>,
    error: Option<BuildError>,
    #[cfg(feature = "saga")]
    sagas: saga::Definitions,
    #[cfg(feature = "rabbitmq")]
    broker: Option<Address>,
}

/// Why a [`Runtime`] can't be put together.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BuildError {
    /// A name that can't be one: of the app, or of a kind.
    Name(String),
    /// Two handlers for the same kind.
    Twice(&'static str),
    /// A kind with this name would share the queue of what can't be read.
    Reserved(&'static str),
    /// A time that is nothing, or for ever: of a kind, or the retention.
    Time(String),
    /// The broker's address isn't one. It is not repeated: it holds a password.
    Address(String),
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => write!(
                f,
                "{name:?} is no name: lower case letters, digits, `-`, `_` and `.`, at most 100, and \
                 an app's doesn't begin with `amq.`"
            ),
            Self::Twice(kind) => write!(f, "there are two handlers for the kind {kind:?}"),
            Self::Reserved(kind) => write!(f, "no kind can have the name {kind:?}"),
            Self::Time(what) => {
                write!(f, "{what} must be more than nothing, and at most a thousand years")
            }
            Self::Address(why) => write!(f, "the broker's address can't be used: {why}"),
        }
    }
}

impl std::error::Error for BuildError {}

impl Builder {
    pub(super) fn new(database: impl Database) -> Self {
        let door = Door::new(database);
        Self {
            #[cfg(feature = "saga")]
            sagas: saga::Definitions::new(door.clone()),
            door,
            app: "deferred".to_owned(),
            kinds: BTreeMap::new(),
            times: Times::default(),
            on_attempt: None,
            error: None,
            #[cfg(feature = "rabbitmq")]
            broker: None,
        }
    }

    /// Names what belongs to this service in a broker: its exchange and its queues begin with it.
    /// All replicas have the same. As a kind's name: lower case letters, digits, `-`, `_` and `.`;
    /// not beginning with `amq.`, which is RabbitMQ's own. The default is `deferred`.
    pub fn app(mut self, app: impl Into<String>) -> Self {
        self.app = app.into();
        self
    }

    /// Carries out the calls of this handler's kind.
    pub fn handler<H: Handler>(mut self, handler: H, settings: Settings) -> Self {
        if let Some(time) = settings.impossible() {
            let what = format!("the {time} of the kind {:?}", H::KIND);
            self.error.get_or_insert(BuildError::Time(what));
        }
        let kind = Arc::new(Kind::new(handler, settings));
        if !is_name(H::KIND) {
            self.error.get_or_insert_with(|| BuildError::Name(H::KIND.to_owned()));
        }
        if H::KIND == PARKED {
            self.error.get_or_insert(BuildError::Reserved(PARKED));
        }
        if self.kinds.insert(H::KIND, kind).is_some() {
            self.error.get_or_insert(BuildError::Twice(H::KIND));
        }
        self
    }

    /// Runs sagas of this kind, and takes over those of a process that died.
    #[cfg(feature = "saga")]
    pub fn saga<S: saga::Saga>(mut self, saga: S) -> Self {
        if !is_name(S::KIND) {
            self.error.get_or_insert_with(|| BuildError::Name(S::KIND.to_owned()));
        }
        if let Err(twice) = self.sagas.add(saga) {
            self.error.get_or_insert(BuildError::Twice(twice));
        }
        self
    }

    #[cfg(all(feature = "saga", feature = "testkit"))]
    pub(crate) fn trial(mut self, trial: Arc<crate::testkit::saga::Trial>) -> Self {
        self.sagas.try_out(trial);
        self
    }

    /// How the sagas are carried out. The default is [`Settings::new`](saga::Settings::new).
    #[cfg(feature = "saga")]
    pub fn saga_settings(mut self, settings: saga::Settings) -> Self {
        self.sagas.set(settings);
        self
    }

    /// How long calls that are done or discarded stay in the ledger for inspection. Those that are
    /// parked stay until somebody looks after them. More than nothing: who asks how a call ended, or
    /// defers it again, must find it. Of more than a thousand years none is ever over. The default is
    /// 30 days.
    pub fn retention(mut self, retention: Duration) -> Self {
        if retention.is_zero() {
            self.error.get_or_insert_with(|| BuildError::Time("the retention".to_owned()));
        }
        self.times.retention = retention;
        self
    }

    /// How long a shutdown waits for the calls that are being made; those that aren't over then are
    /// cut off, and made again later. The default is 10 s.
    pub fn drain(mut self, drain: Duration) -> Self {
        self.times.drain = drain;
        self
    }

    /// Is told of each attempt in the background before it is made: its span, `deferred`, and what
    /// [travels with the call](super::Deferral::with_context). So a tracer can go on with the trace of
    /// whoever deferred it. A first attempt, which whoever submits the call waits for, is in his span.
    pub fn on_attempt(mut self, told: fn(&Span, &BTreeMap<String, String>)) -> Self {
        self.on_attempt = Some(told);
        self
    }

    /// RabbitMQ carries the calls: `amqp://user:password@host:port/vhost`, or `amqps://…` with TLS.
    /// While it is away, the runtime does without.
    #[cfg(feature = "rabbitmq")]
    pub fn amqp(mut self, address: &str) -> Self {
        match Address::parse(address) {
            Ok(address) => self.broker = Some(address),
            Err(why) => {
                self.error.get_or_insert(BuildError::Address(why));
            }
        }
        self
    }

    /// Puts it together. Nothing is connected to before [`Runtime::run`].
    ///
    /// # Errors
    ///
    /// When a name, a time or the broker's address can't be used.
    #[cfg_attr(not(feature = "saga"), expect(unused_mut, reason = "sagas bring handlers"))]
    pub fn build(mut self) -> Result<Runtime, BuildError> {
        #[cfg(feature = "saga")]
        let sagas =
            Arc::new(std::mem::replace(&mut self.sagas, saga::Definitions::new(self.door.clone())));
        #[cfg(feature = "saga")]
        if !sagas.is_empty() {
            self = saga::handlers(self, &sagas);
        }
        if let Some(error) = self.error {
            return Err(error);
        }
        // What begins with that is RabbitMQ's own, and declared by nobody else.
        if !is_name(&self.app) || self.app.starts_with("amq.") {
            return Err(BuildError::Name(self.app));
        }
        #[cfg(feature = "rabbitmq")]
        let broker = if self.broker.is_some() { Broker::Down } else { Broker::Absent };
        #[cfg(not(feature = "rabbitmq"))]
        let broker = Broker::Absent;
        let shared =
            Arc::new(Shared::new(self.app, self.door, (self.kinds, self.on_attempt), broker));
        #[cfg(feature = "saga")]
        sagas.join(&shared);
        Ok(Runtime {
            shared,
            times: self.times,
            #[cfg(feature = "saga")]
            sagas,
            #[cfg(feature = "rabbitmq")]
            broker: self.broker,
        })
    }
}

fn is_name(name: &str) -> bool {
    let fits = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || b"-_.".contains(&c);
    (1..=LONGEST_NAME).contains(&name.len()) && name.bytes().all(fits)
}

#[cfg(test)]
mod tests {
    use diesel::r2d2::{ConnectionManager, Pool};

    use super::*;
    use crate::deferred::handler::{Attempt, HandlerError};

    struct Named<const WHICH: usize>;

    impl<const WHICH: usize> Handler for Named<WHICH> {
        const KIND: &'static str = ["mail", "parked", "Mail", ""][WHICH];
        type Payload = ();
        type Output = ();

        async fn run(&self, _: Attempt<()>) -> Result<(), HandlerError> {
            Ok(())
        }
    }

    fn builder() -> Builder {
        Builder::new(Pool::builder().build_unchecked(ConnectionManager::new("postgres://nowhere")))
    }

    #[test]
    fn names_that_cannot_be_used_are_refused_with_the_reason() {
        let handler = || builder().handler(Named::<0>, Settings::new());
        let refused = |builder: Builder| builder.build().unwrap_err();
        let name = |name: &str| BuildError::Name(name.to_owned());
        assert!(handler().build().is_ok());
        assert_eq!(
            refused(handler().handler(Named::<0>, Settings::new())),
            BuildError::Twice("mail")
        );
        // It would share the queue of what can't be read.
        let reserved = refused(handler().handler(Named::<1>, Settings::new()));
        assert_eq!(reserved.to_string(), r#"no kind can have the name "parked""#);
        assert_eq!(refused(handler().handler(Named::<2>, Settings::new())), name("Mail"));
        assert_eq!(refused(handler().handler(Named::<3>, Settings::new())), name(""));
        assert_eq!(refused(handler().app("my shop")), name("my shop"));
        // The broker would refuse it, for good and in its log alone.
        assert_eq!(refused(handler().app("amq.shop")), name("amq.shop"));
        assert_eq!(refused(handler().app("x".repeat(101))), name(&"x".repeat(101)));
    }
    #[test]
    fn times_of_nothing_and_for_ever_are_refused_where_they_can_not_be() {
        let refused = |settings: Settings| {
            let built = builder().handler(Named::<0>, settings).build();
            built.err().map(|error| error.to_string())
        };
        let must = "must be more than nothing, and at most a thousand years";
        for (settings, what) in [
            (Settings::new().timeout(Duration::ZERO), "timeout"),
            (Settings::new().timeout(Duration::MAX), "timeout"),
            (Settings::new().lease(Duration::MAX), "lease"),
        ] {
            assert_eq!(refused(settings), Some(format!("the {what} of the kind \"mail\" {must}")));
        }
        let none = builder().retention(Duration::ZERO).build().unwrap_err();
        assert_eq!(none.to_string(), format!("the retention {must}"));
        // Nothing at all, and as long as anybody asks for.
        assert_eq!(refused(Settings::new().longest_retry_after(Duration::MAX)), None);
        for drain in [Duration::ZERO, Duration::MAX] {
            assert!(builder().retention(Duration::MAX).drain(drain).build().is_ok());
        }
    }
}
