//! Calls that a service makes later: from configuration to a runtime, what travels with a call, and
//! what the failure of a peer means for one.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use http::{HeaderName, HeaderValue, StatusCode};
use resilience::Breaker;
use resilience::deferred::{Attempt, Builder, Deferral, Deferred, Handler, HandlerError};
use resilience::http::{CallError, Context, ErrorKind};
use resilience::registry::{Key, RegistryFull};
use tracing::Span;
use url::Url;
use uuid::Uuid;

use crate::boot::Base;
use crate::config::Reader;
use crate::failure::{Failure, Result, code};
use crate::observe::{Caller, Ids, REQUEST_ID, TRACEPARENT};
use crate::telemetry;

/// What the breakers of kinds are a class of: they stand before work, not before a system.
pub(crate) const KINDS: &str = "deferred";

/// How deferred calls are carried.
///
/// | variable | default | meaning |
/// |---|---|---|
/// | `AMQP_URL` | none | RabbitMQ: `amqp://user:password@host:port/vhost`, or `amqps://…`; without it the database alone does the work |
/// | `CLOUDAMQP_URL` | none | the same where there is no `AMQP_URL`, as a platform's add-on sets it: `amqps://…` alone |
/// | `BREAKER_FAILURES` | 3 | failures in a row that open a kind's breaker |
/// | `BREAKER_OPEN_MS` | 6000 | how long the breakers of peers wait; a kind's waits a twelfth of it until one call probes |
#[derive(Clone)]
pub struct DeferredConfig {
    /// Where RabbitMQ is. It holds a password.
    amqp_url: Option<String>,
    failures: u32,
    open_for: Duration,
}

impl fmt::Debug for DeferredConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeferredConfig")
            .field("has_broker", &self.amqp_url.is_some())
            .field("failures", &self.failures)
            .field("open_for", &self.open_for)
            .finish_non_exhaustive()
    }
}

impl DeferredConfig {
    /// Where RabbitMQ is, if there is to be one. It holds a password.
    pub(crate) fn amqp_url(&self) -> Option<&str> {
        self.amqp_url.as_deref()
    }

    /// Reads the variables of the table above.
    pub fn read(reader: &mut Reader) -> Self {
        let looks_like = "an address such as amqp://user:password@127.0.0.1:5672/vhost";
        let given =
            reader.optional("AMQP_URL", looks_like, |text| broker(text, &["amqp", "amqps"]));
        // An add-on is reached over a network that belongs to others.
        let looks_like = "an address such as amqps://user:password@host/vhost";
        let added = reader.optional("CLOUDAMQP_URL", looks_like, |text| broker(text, &["amqps"]));
        Self {
            amqp_url: given.or(added),
            failures: reader.number("BREAKER_FAILURES", 3, 1..=1000),
            open_for: reader.millis("BREAKER_OPEN_MS", 6000),
        }
    }
}

/// The address of a broker, of one of these schemes.
fn broker(text: &str, schemes: &[&str]) -> Option<String> {
    let url = Url::parse(text).ok()?;
    (schemes.contains(&url.scheme()) && url.has_host()).then(|| text.to_owned())
}

/// How often a kind's calls are tried while a breaker further down waits once.
const PROBES_PER_WAIT: u32 = 12;

impl Base {
    /// Begins to put the runtime of this service's deferred calls together. It is named as the
    /// service is, and ends within the time that a shutdown waits.
    pub fn deferred(&self, config: &DeferredConfig) -> Builder {
        let builder = Deferred::builder(self.db.clone())
            .app(self.config.name)
            .drain(self.config.shutdown_timeout)
            .on_attempt(resumed);
        match &config.amqp_url {
            Some(address) => builder.amqp(address),
            None => builder,
        }
    }

    /// The breaker of a kind, whose calls take so long at most. It is shown and operated with those
    /// of the peers, as `deferred/<kind>`.
    ///
    /// # Errors
    /// When there are more breakers than a process should have.
    pub fn kind_breaker<H: Handler>(
        &self,
        config: &DeferredConfig,
        timeout: Duration,
    ) -> std::result::Result<Breaker, RegistryFull> {
        self.registry.breaker(&Key::new(KINDS).class(H::KIND), |breaker| {
            breaker
                .consecutive_failures(config.failures)
                // A probe may meet with a breaker further down that is still open, and must not wait
                // for another whole round then: asking it costs next to nothing.
                .open_for(config.open_for / PROBES_PER_WAIT)
                // As for peers: what has healed is found out about soon.
                .longest_open(config.open_for / PROBES_PER_WAIT)
                .probe_lease(timeout * 2)
                .slow_call(timeout)
        })
    }
}

/// A call on behalf of a request, with the ids that travel with it.
///
/// # Errors
/// 500 when the payload can't be written as JSON.
pub fn call<H: Handler>(caller: &Caller, id: Uuid, payload: &H::Payload) -> Result<Deferral> {
    let call = Deferral::new::<H>(id, payload).map_err(Failure::internal)?;
    Ok(travelling(caller).into_iter().fold(call, |call, (name, id)| call.with_context(name, id)))
}

/// An attempt in the background is in the trace, and in the log, of the request that it is from.
fn resumed(span: &Span, travelling: &BTreeMap<String, String>) {
    let of = |name: HeaderName| travelling.get(name.as_str()).map(String::as_str);
    telemetry::traces::resume(span, travelling);
    telemetry::logs::identify(span, Ids::new(of(REQUEST_ID), of(TRACEPARENT)));
}

/// The ids of a request, as they travel with what is done later.
pub(crate) fn travelling(caller: &Caller) -> Vec<(String, String)> {
    let text = |(name, value): (HeaderName, HeaderValue)| {
        value.to_str().ok().map(|value| (name.to_string(), value.to_owned()))
    };
    caller.ids().into_iter().filter_map(text).collect()
}

/// For the calls of an attempt: with the ids of the request that it is from, and within its time.
pub fn context<P>(attempt: &Attempt<P>) -> Context {
    let context = Context::new().with_deadline(attempt.deadline);
    attempt.context.iter().fold(context, |context, (name, value)| {
        match (name.parse::<HeaderName>(), HeaderValue::from_str(value)) {
            (Ok(name), Ok(value)) => context.with_header(name, value),
            _ => context,
        }
    })
}

/// What follows from the failure of a call to a peer for the call that was deferred.
///
/// A business answer is final, and is written down as [`Failure::read`] reads it. A 500 that the
/// peer itself calls a defect may be about this one call, and counts against it. Everything else,
/// rubbish of something in between included, passes when the system is back.
pub fn failed(error: &CallError) -> HandlerError {
    let (reason, retry_after) = (error.to_string(), error.retry_after());
    match error.kind() {
        ErrorKind::Refused(_) => {
            HandlerError::Permanent { reason: Failure::from(error.clone()).to_string() }
        }
        ErrorKind::Unavailable(said)
            if said.status == StatusCode::INTERNAL_SERVER_ERROR
                && said.code.as_deref() == Some(code::INTERNAL) =>
        {
            HandlerError::Failed { reason }
        }
        ErrorKind::Invalid(_) => HandlerError::Failed { reason },
        ErrorKind::Busy(_)
        | ErrorKind::BulkheadFull(_)
        | ErrorKind::DeadlineExceeded
        | ErrorKind::TimedOut { inherited: true, .. } => {
            HandlerError::NotYet { reason, retry_after }
        }
        ErrorKind::Unavailable(said) if said.code.as_deref() == Some(code::DEADLINE_EXCEEDED) => {
            HandlerError::NotYet { reason, retry_after }
        }
        ErrorKind::Rejected(_)
        | ErrorKind::Connect(_)
        | ErrorKind::TimedOut { .. }
        | ErrorKind::Lost(_)
        | ErrorKind::Unreadable(_)
        | ErrorKind::Downstream(_)
        | ErrorKind::Unavailable(_) => HandlerError::Unavailable { reason, retry_after },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(url: &str) -> std::result::Result<DeferredConfig, String> {
        let variables = [("AMQP_URL".to_owned(), url.to_owned())];
        let mut reader = Reader::from_variables(variables).unwrap();
        let config = DeferredConfig::read(&mut reader);
        reader.finish(Some(config)).map_err(|error| error.to_string())
    }

    #[test]
    fn a_brokers_address_is_optional_and_a_wrong_one_is_named_and_not_repeated() {
        assert!(read("").unwrap().amqp_url.is_none());
        for good in ["amqp://u:geheim@127.0.0.1:5672/v", "amqps://host/%2f", "amqp://[::1]:5672"] {
            let config = read(good).unwrap();
            assert_eq!(config.amqp_url.as_deref(), Some(good));
            assert!(!format!("{config:?}").contains("geheim"));
        }
        for bad in ["geheim", "http://u:geheim@host", "amqp:///geheim", "amqp://u:geheim@:5672"] {
            let error = read(bad).unwrap_err();
            assert!(error.contains("AMQP_URL should be an address such as amqp://"), "{error}");
            assert!(!error.contains("geheim"), "{error}");
        }
    }

    #[test]
    fn an_add_ons_broker_is_asked_in_private_and_only_where_no_other_is_named() {
        let read = |variables: &[(&str, &str)]| {
            let owned = variables.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned()));
            let mut reader = Reader::from_variables(owned).unwrap();
            let config = DeferredConfig::read(&mut reader);
            reader.finish(Some(config)).map_err(|error| error.to_string())
        };
        let added = ("CLOUDAMQP_URL", "amqps://u:geheim@cloud/v");
        assert_eq!(read(&[added]).unwrap().amqp_url.as_deref(), Some(added.1));
        let both = read(&[added, ("AMQP_URL", "amqp://127.0.0.1")]).unwrap();
        assert_eq!(both.amqp_url.as_deref(), Some("amqp://127.0.0.1"));
        let error = read(&[("CLOUDAMQP_URL", "amqp://u:geheim@cloud/v")]).unwrap_err();
        assert!(error.contains("amqps://") && !error.contains("geheim"), "{error}");
    }
}
