//! `/manage/resilience`: what protects this service's calls, and an operator's hand on it;
//! `/manage/access`: who is let in; `/manage/deferred`: the calls that it makes
//! later; `/manage/sagas`: its operations that reach into several systems; and
//! [`/manage/overview`](overview): all of it at a glance.
//!
//! Every replica has breakers of its own: what is shown and what is done concerns the one that
//! answers, and it says which one that is.

pub(crate) mod access;
pub(crate) mod deferred;
pub mod explain;
pub(crate) mod history;
pub mod overview;
mod rows;
pub(crate) mod sagas;
mod view;

use std::net::SocketAddr;

use axum::Json;
use axum::extract::{ConnectInfo, FromRequestParts, Path, State};
use http::request::Parts;
use http::{HeaderName, HeaderValue, StatusCode, Version, header};
use resilience::registry::Registry;
use serde::Serialize;
use url::{Host, Url};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

pub use view::rfc3339;
use view::{Breaker, Resilience};

use crate::access::Operator;
use crate::failure::{Failure, Result, code};
use crate::input::Fields;

/// What these routes work with.
#[derive(Clone, Debug)]
pub(crate) struct Panel {
    service: &'static str,
    /// Minted at the start of this process.
    replica: Uuid,
    registry: Registry,
}

impl Panel {
    pub(crate) fn new(service: &'static str, registry: Registry) -> Self {
        Self { service, replica: Uuid::new_v4(), registry }
    }

    fn view(&self) -> Resilience {
        Resilience::new(self.service, self.replica, self.registry.snapshot())
    }
}

/// Its routes, with their state.
pub(crate) fn routes(panel: Panel) -> OpenApiRouter {
    OpenApiRouter::new().routes(routes!(show)).routes(routes!(command)).with_state(panel)
}

/// What protects this replica's calls.
#[utoipa::path(get, path = "/manage/resilience", tag = "manage", responses(
    (status = 200, description = "Everything, each kind sorted by name", body = Resilience),
))]
async fn show(State(panel): State<Panel>) -> Json<Resilience> {
    Json(panel.view())
}

/// What an operator asks of a breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ToSchema)]
#[schema(rename_all = "snake_case")]
enum Action {
    /// Rejects every call, until it is reset.
    ForceOpen,
    /// Lets every call through, until it is reset.
    ForceClosed,
    /// Closes it, and has it forget what it has seen.
    Reset,
}

impl Action {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "force_open" => Some(Self::ForceOpen),
            "force_closed" => Some(Self::ForceClosed),
            "reset" => Some(Self::Reset),
            _ => None,
        }
    }
}

/// A command to a breaker.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "the shape of a body that is read field by field")]
struct Command {
    action: Action,
}

/// What has become of a command.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Commanded {
    service: &'static str,
    /// The replica that carried it out.
    replica: Uuid,
    /// `replica`: no other replica has heard of it.
    scope: &'static str,
    breaker: Breaker,
}

/// Forces a breaker of this replica open or closed, or resets it. With a management token; where the
/// service has none, from this machine only.
#[utoipa::path(
    post, path = "/manage/resilience/{*name}", tag = "manage",
    params(("name" = String, Path, description = "A breaker's name, as `GET` tells it")),
    request_body = Command,
    responses(
        (status = 200, description = "Done, in this replica only", body = Commanded),
        (status = 400, description = "No such action", body = crate::failure::ErrorBody),
        (status = 403, description = "From another machine, where there are no tokens", body = crate::failure::ErrorBody),
        (status = 404, description = "No such breaker", body = crate::failure::ErrorBody),
    ),
)]
async fn command(
    _: Trusted,
    State(panel): State<Panel>,
    Name(name): Name,
    mut fields: Fields,
) -> Result<Json<Commanded>> {
    let looks_like = "force_open, force_closed or reset";
    let action = fields.parsed("action", looks_like, Action::parse);
    let action = fields.finish(action)?;
    let breaker = panel.registry.find_breaker(&name).ok_or_else(|| {
        Failure::not_found(code::NOT_FOUND, "there is no breaker of that name in this service")
    })?;
    match action {
        Action::ForceOpen => breaker.force_open(),
        Action::ForceClosed => breaker.force_closed(),
        Action::Reset => breaker.reset(),
    }
    tracing::warn!(service = panel.service, breaker = name, ?action, "an operator's command");
    Ok(Json(Commanded {
        service: panel.service,
        replica: panel.replica,
        scope: "replica",
        breaker: breaker.snapshot().into(),
    }))
}

/// The rest of the path, decoded.
struct Name(String);

impl<S: Send + Sync> FromRequestParts<S> for Name {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        match Path::from_request_parts(parts, state).await {
            Ok(Path(name)) => Ok(Self(name)),
            Err(_) => Err(Failure::bad_request("the path is not valid UTF-8")),
        }
    }
}

/// What a proxy adds to a request that it passes on, besides `X-Forwarded-…`.
const PASSED_ON: [HeaderName; 3] =
    [header::FORWARDED, HeaderName::from_static("x-real-ip"), header::VIA];

/// Whether it looks as if a proxy passed it on. nginx adds nothing unless it is told to, and asks in
/// the words of 1996, which nobody else does.
fn is_passed_on(parts: &Parts) -> bool {
    parts.version < Version::HTTP_11
        || parts
            .headers
            .keys()
            .any(|name| PASSED_ON.contains(name) || name.as_str().starts_with("x-forwarded-"))
}

/// The request has a management token. Where the service has none, it comes from this machine itself,
/// through no proxy on it, and not from a page of another site in its browser.
#[derive(Debug)]
pub struct Trusted;

/// Whether it is no page's, or a page's of this machine. A foreign name can be made to lead here
/// after its page was loaded: to the browser the two are one site. What tells is the origin, and, as
/// none is said of what a page reads from its own site, the name that it asks for.
fn is_own_page(parts: &Parts) -> bool {
    let text = |value: &HeaderValue| value.to_str().ok().map(str::to_owned);
    let origins = parts.headers.get_all(header::ORIGIN).iter().map(text);
    let hosts = parts.headers.get_all(header::HOST).iter().map(text);
    let hosts = hosts.map(|host| host.map(|host| format!("http://{host}")));
    origins.chain(hosts).all(|from| {
        let from = from.and_then(|from| Url::parse(&from).ok());
        match from.as_ref().and_then(Url::host) {
            Some(Host::Domain(name)) => name == "localhost",
            Some(Host::Ipv4(address)) => address.is_loopback(),
            Some(Host::Ipv6(address)) => address.is_loopback(),
            None => false,
        }
    })
}

impl<S: Send + Sync> FromRequestParts<S> for Trusted {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self> {
        if parts.extensions.get::<Operator>().is_some() {
            return Ok(Self);
        }
        let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>();
        let near = peer.is_some_and(|ConnectInfo(peer)| peer.ip().to_canonical().is_loopback());
        if near && !is_passed_on(parts) && is_own_page(parts) {
            return Ok(Self);
        }
        Err(Failure::new(
            StatusCode::FORBIDDEN,
            code::FORBIDDEN,
            "without management tokens, a service is operated from the machine that it runs on",
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(peer: Option<&str>, headers: &[(&'static str, &str)]) -> Parts {
        let mut request = http::Request::builder();
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (mut parts, ()) = request.body(()).unwrap().into_parts();
        if let Some(peer) = peer {
            parts.extensions.insert(ConnectInfo::<SocketAddr>(peer.parse().unwrap()));
        }
        parts
    }

    async fn admitted(peer: Option<&str>, headers: &[(&'static str, &str)]) -> bool {
        let mut parts = parts(peer, headers);
        match Trusted::from_request_parts(&mut parts, &()).await {
            Ok(Trusted) => true,
            Err(failure) => {
                assert_eq!((failure.status().as_u16(), failure.code()), (403, "forbidden"));
                false
            }
        }
    }

    #[tokio::test]
    async fn commands_are_taken_from_this_machine_only() {
        for near in ["127.0.0.1:4000", "127.8.8.8:1", "[::1]:4000", "[::ffff:127.0.0.1]:4000"] {
            assert!(admitted(Some(near), &[]).await, "{near}");
        }
        for far in ["10.0.0.1:4000", "[::ffff:10.0.0.1]:4000", "[fe80::1]:4000", "0.0.0.0:1"] {
            assert!(!admitted(Some(far), &[]).await, "{far}");
        }
        assert!(!admitted(None, &[]).await, "nobody knows from where");
    }

    #[tokio::test]
    async fn commands_that_a_proxy_passes_on_are_not_from_this_machine() {
        for name in ["forwarded", "x-forwarded-for", "x-forwarded-proto", "x-real-ip", "via"] {
            assert!(!admitted(Some("127.0.0.1:4000"), &[(name, "x")]).await, "{name}");
        }
        let mut parts = parts(Some("127.0.0.1:4000"), &[("host", "127.0.0.1:8480")]);
        parts.version = Version::HTTP_10;
        assert!(Trusted::from_request_parts(&mut parts, &()).await.is_err(), "as nginx asks");
    }

    #[tokio::test]
    async fn what_a_page_reads_is_shown_to_a_page_of_this_machine_only() {
        // A browser says no origin when a page reads from where it is from, or seems to be.
        for own in ["localhost:8480", "127.0.0.1", "127.8.8.8:1", "[::1]:8480", "LOCALHOST:1"] {
            assert!(admitted(Some("127.0.0.1:4000"), &[("host", own)]).await, "{own}");
        }
        for other in [
            "evil.example:8480",
            "localhost.evil.example",
            "10.0.0.1",
            "",
            "@",
            "localhost@evil.example",
        ] {
            assert!(!admitted(Some("127.0.0.1:4000"), &[("host", other)]).await, "{other}");
        }
        let both = [("host", "localhost"), ("host", "evil.example")];
        assert!(!admitted(Some("127.0.0.1:4000"), &both).await);
    }

    #[tokio::test]
    async fn commands_of_a_page_are_taken_from_a_page_of_this_machine_only() {
        for own in ["http://localhost:8480", "http://127.0.0.1:8480", "http://[::1]:8480"] {
            assert!(admitted(Some("127.0.0.1:4000"), &[("origin", own)]).await, "{own}");
        }
        for other in ["http://evil.example:8480", "http://localhost.evil.example", "null", ""] {
            assert!(!admitted(Some("127.0.0.1:4000"), &[("origin", other)]).await, "{other}");
        }
    }
}
