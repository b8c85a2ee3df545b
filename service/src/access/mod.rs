//! Who is let in: service tokens, management tokens, and users' identities.
//!
//! | module | what it is |
//! |---|---|
//! | `config` | the variables, and when a service refuses to start |
//! | `secret` | tokens: read, compared, and never shown |
//! | `bearer` | what `Authorization` says |
//! | [`crate::identity`] | who a user is |
//!
//! The guard decides by the path alone, before anything is read or routed, so that a route that
//! does not exist, or not yet, is guarded as those that do.

mod bearer;
mod config;
mod secret;

use std::sync::Arc;

use axum::extract::Request;
use serde::Serialize;
use utoipa::ToSchema;

pub(crate) use bearer::Bearer;
pub(crate) use config::SERVICE_TOKENS;
pub use config::{AccessConfig, Callers};
pub(crate) use secret::Tokens;

use crate::failure::Failure;
use crate::identity::Identity;
use crate::pipeline::is_below;

/// Open to everyone, whatever their `Authorization`.
const HEALTH: [&str; 3] = ["/manage/health", "/manage/health/live", "/manage/health/ready"];

/// Who is let in, and to what. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Access(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    service: &'static str,
    config: AccessConfig,
    identity: Option<Identity>,
    /// Paths that are open to everyone as health is: a page that says nothing by itself.
    open: &'static [&'static str],
}

/// The request has a management token.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Operator;

/// What a request has to have.
#[derive(Debug)]
enum Wanted<'a> {
    Nothing,
    Token(Kind, &'a Tokens),
    User(&'a Identity),
}

impl<'a> Wanted<'a> {
    fn token(kind: Kind, tokens: Option<&'a Tokens>) -> Self {
        tokens.map_or(Self::Nothing, |tokens| Self::Token(kind, tokens))
    }
}

/// Which token it is: its realm, and its label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Service,
    Management,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Service => "service",
            Self::Management => "management",
        }
    }
}

impl Access {
    pub(crate) fn new(
        service: &'static str,
        config: AccessConfig,
        identity: Option<Identity>,
        open: &'static [&'static str],
    ) -> Self {
        Self(Arc::new(Inner { service, config, identity, open }))
    }

    /// Everyone is let in.
    #[cfg(test)]
    pub(crate) fn open(service: &'static str, callers: Callers) -> Self {
        let config = AccessConfig {
            callers,
            service: None,
            management: None,
            identity: None,
            allowed_open: false,
        };
        Self::new(service, config, None, &[])
    }

    /// Whether what it has done is taken back by those who call it. A user takes nothing back.
    pub(crate) fn has_undos(&self) -> bool {
        self.0.config.callers == Callers::Services
    }

    fn wanted(&self, path: &str) -> Wanted<'_> {
        let Inner { config, identity, open, .. } = &*self.0;
        if is_health(path) || open.contains(&path) {
            Wanted::Nothing
        } else if is_below(path, "/manage") || is_below(path, "/metrics") {
            Wanted::token(Kind::Management, config.management.as_ref())
        } else {
            match (config.callers, identity) {
                (Callers::Services, _) => Wanted::token(Kind::Service, config.service.as_ref()),
                (Callers::Users, Some(identity)) if is_below(path, "/api") => {
                    Wanted::User(identity)
                }
                (Callers::Users, _) => Wanted::Nothing,
            }
        }
    }

    /// Lets a request in, or says what it lacks.
    pub(crate) async fn admit(&self, request: &mut Request) -> Result<(), Failure> {
        let bearer = Bearer::of(request.headers());
        match self.wanted(request.uri().path()) {
            Wanted::Nothing => {}
            Wanted::Token(kind, tokens) => {
                let found = match bearer {
                    Bearer::Presented(token) => tokens.find(token),
                    Bearer::Absent | Bearer::Malformed => None,
                };
                let sent = bearer != Bearer::Absent;
                self.count(kind.as_str(), found);
                let Some(_) = found else {
                    let message = format!("this takes a valid {} token", kind.as_str());
                    return Err(Failure::unauthorized(kind.as_str(), sent, message));
                };
                if kind == Kind::Management {
                    request.extensions_mut().insert(Operator);
                }
            }
            Wanted::User(identity) => {
                let subject = identity.verify(bearer).await?;
                request.extensions_mut().insert(subject);
            }
        }
        Ok(())
    }

    /// Which token is used: before one is taken away, nobody should be using it any more.
    fn count(&self, kind: &'static str, found: Option<usize>) {
        let token = match found {
            None => "none",
            Some(1) => "first",
            Some(_) => "second",
        };
        let labels = [("service", self.0.service), ("kind", kind), ("token", token)];
        metrics::counter!("access_tokens_total", &labels).increment(1);
    }

    /// For an operator: what is locked, and what isn't.
    pub(crate) fn view(&self) -> AccessView {
        let Inner { service, config, identity, .. } = &*self.0;
        let count = |tokens: &Option<Tokens>| tokens.as_ref().map_or(0, Tokens::count);
        let tokens = |tokens: &Option<Tokens>| match tokens {
            Some(_) => Lock::Token,
            None => Lock::Open,
        };
        AccessView {
            service,
            api: match (config.callers, identity) {
                (Callers::Services, _) => tokens(&config.service),
                (Callers::Users, Some(_)) => Lock::User,
                (Callers::Users, None) => Lock::Open,
            },
            management: tokens(&config.management),
            service_tokens: count(&config.service),
            management_tokens: count(&config.management),
            allowed_open: config.allowed_open,
        }
    }

    /// Says at the start what should not be forgotten.
    pub(crate) fn warn(&self) {
        if self.0.config.allowed_open {
            tracing::warn!(
                service = self.0.service,
                access = ?self.view(),
                "ALLOW_OPEN: others can connect, and no tokens keep them out"
            );
        }
    }

    /// The same for whoever watches the metrics.
    pub(crate) fn publish(&self) {
        let view = self.view();
        let labels = [("service", self.0.service)];
        let open = if view.allowed_open { 1.0 } else { 0.0 };
        metrics::gauge!("access_allowed_open", &labels).set(open);
    }
}

/// Who is let in. Tokens are counted, and not shown.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AccessView {
    service: &'static str,
    /// What the service's own routes take.
    api: Lock,
    /// What `/manage`, but health, and `/metrics` take; `open`: what writes, and what shows users'
    /// data, is for this machine only.
    management: Lock,
    /// Service tokens: 2 while they are rotated.
    service_tokens: usize,
    /// Management tokens, likewise.
    management_tokens: usize,
    /// Others can connect, and `ALLOW_OPEN` alone let it start.
    allowed_open: bool,
}

/// What it takes to be let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Lock {
    /// Nothing.
    Open,
    /// A bearer token of the right kind.
    Token,
    /// A JWT of the user that the path names.
    User,
}

/// Whether it is open to everyone.
pub(crate) fn is_health(path: &str) -> bool {
    HEALTH.contains(&path)
}
