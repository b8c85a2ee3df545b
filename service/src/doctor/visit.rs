//! A service, by its address.

#[cfg(test)]
mod tests;
mod waiting;

use std::time::{SystemTime, UNIX_EPOCH};

use http::StatusCode;
use serde_json::Value;
use tokio::time::timeout;

use super::{Cause, Finding, LIMIT};
use crate::access::{Callers, Tokens};
use crate::config::Reader;
use crate::probe::{Heard, Probe, Unheard};

use waiting::{DEFERRED, SAGAS};

/// A clock that is wrong by more than this many seconds: tokens of users are too early then, or too late.
const CLOCK: i64 = 10;

/// A certificate that expires within so many days should be renewed by now.
const CERTIFICATE: i32 = 14;

/// Whom to visit.
#[derive(Clone, Debug)]
pub struct Visit {
    /// Who should be there.
    pub name: &'static str,
    /// Who calls it.
    pub callers: Callers,
    /// Where.
    pub probe: Probe,
    /// Where that address is from, and what to do when nobody is there.
    pub remedy: String,
    /// By which other services are let in.
    pub service: Option<Credential>,
    /// By which operators are let in.
    pub management: Option<Credential>,
    /// Whether what operators see is looked at: a service that only calls it has no token for that.
    pub operator: bool,
}

/// A token, and where it is from. It shows only that.
#[derive(Clone)]
pub struct Credential {
    authorization: String,
    origin: String,
}

impl Credential {
    /// This token, of that file or variable.
    pub fn new(token: &str, origin: impl Into<String>) -> Self {
        Self { authorization: format!("Bearer {token}"), origin: origin.into() }
    }

    /// That of a variable with one or two: the one that a service would send.
    pub fn read(reader: &mut Reader, variable: &'static str) -> Option<Self> {
        Self::first(&Tokens::read(reader, variable)?, variable)
    }

    /// The one to send of those.
    pub(super) fn first(tokens: &Tokens, variable: &'static str) -> Option<Self> {
        Some(Self::new(tokens.first()?, variable))
    }
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Credential").field(&self.origin).finish()
    }
}

impl Visit {
    /// Looks at all that can be seen from outside. Ends within [`LIMIT`].
    pub async fn make(&self) -> Vec<Finding> {
        match timeout(LIMIT, self.look()).await {
            Ok(findings) => findings,
            Err(_) => vec![self.error(format!(
                "{} takes longer than {} s to be looked at; {}",
                self.probe,
                LIMIT.as_secs(),
                self.remedy
            ))],
        }
    }

    async fn look(&self) -> Vec<Finding> {
        let asked = SystemTime::now();
        let heard = match self.probe.get("/manage/health", None).await {
            Ok(heard) => heard,
            Err(unheard) => return vec![self.unheard(&unheard)],
        };
        let Some((health, found)) = read(&heard) else {
            return vec![self.error(format!(
                "{} answers {} to /manage/health, and not as a service does: the address is another's, or what \
                 is in front of it can't reach it; {}",
                self.probe,
                heard.status.as_u16(),
                self.remedy
            ))];
        };
        // Nobody else is shown a token.
        if found != self.name {
            return vec![self.error(format!(
                "{} is {found}, not {}: the addresses are mixed up; {}",
                self.probe, self.name, self.remedy
            ))];
        }
        let mut findings = vec![self.readiness(&health).await];
        findings.extend(self.broker(&health));
        findings.extend(self.clock(&health, asked));
        findings.extend(self.certificate(&heard));
        let exposed = !heard.loopback;
        let (services, operators) =
            tokio::join!(self.services(exposed), self.operators(exposed, &health));
        findings.extend(services);
        findings.extend(operators);
        findings
    }

    fn ok(&self, said: String) -> Finding {
        Finding::ok(self.name, said)
    }

    fn warning(&self, said: String) -> Finding {
        Finding::warning(self.name, said)
    }

    fn error(&self, said: String) -> Finding {
        Finding::error(self.name, said)
    }

    fn unheard(&self, unheard: &Unheard) -> Finding {
        let certificate = match unheard {
            Unheard::Tls(why) if why.contains("certificate") => {
                " (SSL_CERT_FILE names an authority of your own)"
            }
            Unheard::Silent(_) => " (it hangs, or is stopped)",
            _ => "",
        };
        self.error(format!("{}: {unheard}{certificate}; {}", self.probe, self.remedy))
    }

    async fn readiness(&self, health: &Value) -> Finding {
        if health["components"]["db"]["status"] != "Work" {
            return self.error(format!(
                "{} can't use its database: look at PostgreSQL and DATABASE_URL; `{} doctor` with its variables \
                 says why",
                self.probe, self.name
            )).because(Cause::Database);
        }
        match self.probe.get("/manage/health/ready", None).await {
            Ok(heard) if heard.status == StatusCode::OK => {
                self.ok(format!("{} is {}, ready", self.probe, self.name))
            }
            Ok(_) => self.error(format!(
                "{} is not ready: it ends, or its schema isn't up to date; its log says which",
                self.probe
            )),
            Err(unheard) => self.unheard(&unheard),
        }
    }

    fn broker(&self, health: &Value) -> Option<Finding> {
        match health["components"]["broker"]["status"].as_str()? {
            "Work" => Some(self.ok("its deferred calls go by RabbitMQ".to_owned())),
            "Down" => {
                let said = "it has no connection to its RabbitMQ, and does without: look at RabbitMQ and \
                            AMQP_URL; its log says why";
                Some(self.error(said.to_owned()).because(Cause::Broker))
            }
            _ => None,
        }
    }

    fn clock(&self, health: &Value, asked: SystemTime) -> Option<Finding> {
        let epoch = health["components"]["time"]["epoch"].as_i64()?;
        let ours = |time: SystemTime| {
            let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
            i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
        };
        // It has answered at some time in between.
        let (earliest, latest) = (ours(asked), ours(SystemTime::now()));
        let (by, which) = if epoch > latest {
            (epoch - latest, "ahead of")
        } else {
            (earliest - epoch, "behind")
        };
        (by > CLOCK).then(|| {
            self.warning(format!("its clock is {by} s {which} the one here: one of them is wrong"))
        })
    }

    fn certificate(&self, heard: &Heard) -> Option<Finding> {
        let days = heard.certificate_days?;
        Some(if days < CERTIFICATE {
            self.warning(format!("the certificate of {} expires in {days} days", self.probe))
        } else {
            self.ok(format!("the certificate of {} is good for {days} days", self.probe))
        })
    }

    /// The routes that other services call. Asking for their description has no effect.
    async fn services(&self, exposed: bool) -> Vec<Finding> {
        const TARGET: &str = "/api-docs/openapi.json";
        if self.callers == Callers::Users {
            return Vec::new();
        }
        let lock = Lock {
            target: TARGET,
            what: "its own routes",
            kind: "service",
            variable: "SERVICE_TOKENS",
            credential: self.service.as_ref(),
        };
        self.lock(&lock, exposed).await.into_iter().collect()
    }

    /// The routes of operators, and what they show.
    async fn operators(&self, exposed: bool, health: &Value) -> Vec<Finding> {
        if !self.operator {
            return Vec::new();
        }
        let lock = Lock {
            target: "/manage/access",
            what: "its management routes",
            kind: "management",
            variable: "MANAGEMENT_TOKENS",
            credential: self.management.as_ref(),
        };
        let (access, breakers, deferred, sagas) = tokio::join!(
            self.lock(&lock, exposed),
            self.shown("/manage/resilience"),
            self.shown("/manage/deferred?limit=1"),
            self.shown("/manage/sagas?limit=1"),
        );
        let mut findings: Vec<_> = access.into_iter().collect();
        findings.extend(self.breakers(breakers.as_ref(), health));
        findings.extend(deferred.iter().flat_map(|seen| DEFERRED.look(self, seen)));
        findings.extend(sagas.iter().flat_map(|seen| SAGAS.look(self, seen)));
        if let Some(access) = self.shown("/manage/access").await {
            findings.extend(self.access(&access, exposed));
        }
        findings
    }

    /// What operators are shown, with the token where there is one.
    async fn shown(&self, target: &str) -> Option<Value> {
        let token = self.management.as_ref().map(|token| token.authorization.as_str());
        let heard = self.probe.get(target, token).await;
        let heard = heard.ok().filter(|heard| heard.status == StatusCode::OK)?;
        serde_json::from_slice(&heard.body).ok()
    }

    /// Whether it keeps those out who have no token, and lets those in who have one.
    async fn lock(&self, lock: &Lock<'_>, exposed: bool) -> Option<Finding> {
        let Lock { target, what, kind, variable, credential } = *lock;
        let wrong = |unheard: Unheard| Some(self.unheard(&unheard));
        let without = match self.probe.get(target, None).await {
            Ok(heard) => heard.status,
            Err(unheard) => return wrong(unheard),
        };
        if without != StatusCode::UNAUTHORIZED {
            return Some(match (without.is_success(), exposed) {
                (true, true) => self.error(format!(
                    "anyone who can reach {} can use {what}: set {variable}",
                    self.probe
                )),
                (true, false) => match credential {
                    Some(credential) => self.warning(format!(
                        "{what} take no token, and {} has one: it was started without {variable}",
                        credential.origin
                    )),
                    None => self.ok(format!("{what} are open, as seen from this machine")),
                },
                (false, _) => self.warning(format!(
                    "{} answers {} to {target}: it is busy, or another build",
                    self.probe,
                    without.as_u16()
                )),
            });
        }
        let Some(credential) = credential else {
            return Some(if self.operator {
                self.warning(format!(
                    "{what} take a {kind} token, and none was given: not looked at; give it in {variable} or a file"
                ))
            } else {
                self.error(format!("{what} take a {kind} token, and {variable} is not set here"))
            });
        };
        match self.probe.get(target, Some(&credential.authorization)).await {
            Ok(heard) if heard.status == StatusCode::UNAUTHORIZED => Some(self.error(format!(
                "it doesn't take the {kind} token of {}: its own {variable} has another one",
                credential.origin
            ))),
            Ok(_) if exposed && self.probe.is_plain() => Some(self.warning(format!(
                "{what} take the {kind} token of {}; on the way there, by http, anyone can read it",
                credential.origin
            ))),
            Ok(_) => Some(self.ok(format!(
                "{what} take the {kind} token of {}, and none else",
                credential.origin
            ))),
            Err(unheard) => wrong(unheard),
        }
    }

    /// What it says of its own locks that can't be told from here.
    fn access(&self, access: &Value, exposed: bool) -> Vec<Finding> {
        let mut findings = Vec::new();
        // From this machine nothing else tells that others can connect.
        if access["allowedOpen"] == true && !exposed {
            findings.push(self.error(
                "anyone who can reach this machine can use it, by ALLOW_OPEN: set SERVICE_TOKENS and \
                 MANAGEMENT_TOKENS instead"
                    .to_owned(),
            ));
        }
        if self.callers == Callers::Users && access["api"] == "open" && exposed {
            findings.push(self.warning(
                "users are not asked who they are: anyone can act as anyone; USER_JWT_SECRET or USER_JWKS_URL \
                 has them asked"
                    .to_owned(),
            ));
        }
        findings
    }

    /// Breakers that are not closed. Without a token, health tells the worst for each dependency.
    fn breakers(&self, shown: Option<&Value>, health: &Value) -> Vec<Finding> {
        let list = shown
            .map_or(&health["components"]["dependencies"], |shown| &shown["breakers"])
            .as_array();
        let finding = |breaker: &Value| {
            let (name, since) = (text(&breaker["name"]), text(&breaker["since"]));
            match text(&breaker["state"]) {
                "closed" => None,
                "forced_open" | "forced_closed" => Some(self.warning(format!(
                    "its breaker {name} is held by an operator since {since}: reset it at \
                     /manage/resilience/{name}"
                ))),
                state => Some(self.warning(format!(
                    "its breaker {name} is {state} since {since}: what is behind it fails, or did; {}",
                    breaker["reason"].as_str().unwrap_or("it is tried again within seconds")
                ))),
            }
        };
        list.into_iter().flatten().filter_map(finding).collect()
    }
}

/// Routes that take a token.
struct Lock<'a> {
    target: &'static str,
    what: &'static str,
    kind: &'static str,
    variable: &'static str,
    credential: Option<&'a Credential>,
}

/// Health, and whose it is.
fn read(heard: &Heard) -> Option<(Value, String)> {
    let health: Value = serde_json::from_slice(&heard.body).ok()?;
    let name = health["components"]["db"]["name"].as_str()?.to_owned();
    Some((health, name))
}

/// Who answers there.
pub(super) fn whose(heard: &Heard) -> Option<String> {
    read(heard).map(|(_, name)| name)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
