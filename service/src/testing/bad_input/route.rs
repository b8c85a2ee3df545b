//! A route, with what it takes to misuse it.

use serde_json::{Map, Value, json};
use url::form_urlencoded;
use uuid::Uuid;

use crate::testing::{Call, Client};

/// A field of a body.
#[derive(Clone, Debug)]
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) required: bool,
    pub(super) bad: Vec<Value>,
}

/// What a route does with a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Body {
    None,
    Optional,
    Required,
}

/// A route, with what it takes to misuse it.
#[derive(Clone, Debug)]
pub struct Route {
    pub(super) method: &'static str,
    pub(super) target: &'static str,
    pub(super) ids: Vec<String>,
    pub(super) body: Body,
    pub(super) valid: Value,
    pub(super) fields: Vec<Field>,
    pub(super) bad_headers: Vec<(&'static str, Vec<u8>)>,
    pub(super) bad_queries: Vec<String>,
}

impl Route {
    /// `target` is the path, or path and query, with `{}` in place of each id.
    pub fn new(method: &'static str, target: &'static str) -> Self {
        let route = Self {
            method,
            target,
            ids: target.matches("{}").map(|_| Uuid::new_v4().to_string()).collect(),
            body: Body::None,
            valid: json!({}),
            fields: Vec::new(),
            bad_headers: Vec::new(),
            bad_queries: Vec::new(),
        };
        if method == "GET" { route } else { route.bad_keys() }
    }

    /// Every route with an effect takes an `Idempotency-Key`.
    fn bad_keys(self) -> Self {
        let long = "x".repeat(256);
        ["", "a b", "\u{e4}", "a\tb", &long]
            .into_iter()
            .fold(self, |route, key| route.bad_header("Idempotency-Key", key))
    }

    /// Valid ids, in place of random ones.
    #[must_use]
    pub fn ids<T: ToString>(mut self, ids: impl IntoIterator<Item = T>) -> Self {
        self.ids = ids.into_iter().map(|id| id.to_string()).collect();
        self
    }

    /// It requires a body such as this one.
    #[must_use]
    pub fn requires(mut self, valid: Value) -> Self {
        (self.body, self.valid) = (Body::Required, valid);
        self
    }

    /// It takes a body such as this one, or none.
    #[must_use]
    pub fn accepts(mut self, valid: Value) -> Self {
        (self.body, self.valid) = (Body::Optional, valid);
        self
    }

    /// A field that must be there, with values that are refused.
    #[must_use]
    pub fn required(mut self, name: &'static str, bad: Vec<Value>) -> Self {
        self.fields.push(Field { name, required: true, bad });
        self
    }

    /// A field that may be missing or `null`, with values that are refused.
    #[must_use]
    pub fn optional(mut self, name: &'static str, bad: Vec<Value>) -> Self {
        self.fields.push(Field { name, required: false, bad });
        self
    }

    /// A header that is refused with 400.
    #[must_use]
    pub fn bad_header(mut self, name: &'static str, value: impl AsRef<[u8]>) -> Self {
        self.bad_headers.push((name, value.as_ref().to_owned()));
        self
    }

    /// A query, percent-encoded, that is refused with 400.
    #[must_use]
    pub fn bad_query(mut self, query: impl Into<String>) -> Self {
        self.bad_queries.push(query.into());
        self
    }

    pub(super) fn target(&self) -> String {
        self.target_with(&self.ids)
    }

    pub(super) fn target_with(&self, ids: &[String]) -> String {
        ids.iter().fold(self.target.to_owned(), |target, id| {
            let id: String = form_urlencoded::byte_serialize(id.as_bytes()).collect();
            target.replacen("{}", &id, 1)
        })
    }

    pub(super) fn path(&self) -> String {
        self.target().split('?').next().unwrap_or_default().to_owned()
    }

    /// A request that is all right, at another address.
    pub(super) fn valid_at(&self, client: &Client, target: String) -> Call {
        let call = client.call(self.method, target);
        if self.body == Body::Required { call.json(&self.valid) } else { call }
    }

    pub(super) fn valid_call(&self, client: &Client) -> Call {
        self.valid_at(client, self.target())
    }

    /// The valid body with one field replaced, or taken out.
    pub(super) fn with_field(&self, name: &str, value: Option<&Value>) -> Value {
        let mut map: Map<String, Value> = self.valid.as_object().cloned().unwrap_or_default();
        match value {
            Some(value) => map.insert(name.to_owned(), value.clone()),
            None => map.remove(name),
        };
        Value::Object(map)
    }
}
