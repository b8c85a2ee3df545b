//! Paths, queries and bodies, checked field by field: all that is wrong is said at once.

use std::sync::{Arc, OnceLock};

use axum::body::{Body, to_bytes};
use axum::extract::{FromRequest, FromRequestParts, RawPathParams, Request};
use http::request::Parts;
use http::{HeaderMap, HeaderName, StatusCode};
use regex::Regex;
use serde_json::{Map, Value};
use url::form_urlencoded;
use uuid::Uuid;

use crate::failure::{Detail, Failure, code};
use crate::observe::Caller;
use crate::pipeline::{BODY_LIMIT, BodyKind};

/// Reads a UUID in its 36-character form, either case; braces, `urn:` and the form without
/// hyphens are refused.
pub fn uuid(text: &str) -> Option<Uuid> {
    (text.len() == 36).then(|| Uuid::try_parse(text).ok()).flatten()
}

const NOT_A_UUID: &str = "must be a UUID of 36 characters";

/// The ids of a path, in their order; checks the type of an unneeded body on the way.
#[derive(Clone, Copy, Debug)]
pub struct Ids<const N: usize>(pub [Uuid; N]);

impl<S: Send + Sync, const N: usize> FromRequestParts<S> for Ids<N> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        check_kind(parts)?;
        let params = RawPathParams::from_request_parts(parts, state)
            .await
            .map_err(|_| Failure::bad_request("the path is not valid UTF-8"))?;
        let mut ids = Vec::with_capacity(N);
        let mut wrong = Vec::new();
        for (field, value) in &params {
            match uuid(value) {
                Some(id) => ids.push(id),
                None => {
                    wrong.push(Detail { field: field.to_owned(), message: NOT_A_UUID.to_owned() });
                }
            }
        }
        refuse(wrong)?;
        ids.try_into().map(Self).map_err(|_| Failure::internal("a route with other parameters"))
    }
}

/// 400 if anything was wrong.
pub(crate) fn refuse(wrong: Vec<Detail>) -> Result<(), Failure> {
    if wrong.is_empty() {
        return Ok(());
    }
    let text: Vec<_> = wrong.iter().map(|d| format!("{}: {}", d.field, d.message)).collect();
    Err(Failure::bad_request(text.join("; ")).with_details(wrong))
}

/// Who asks, and until when. Only in routes below `/api`.
impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        let found = parts.extensions.get::<Arc<Self>>().map(|caller| Self::clone(caller));
        found.ok_or_else(|| Failure::internal("a route outside of the pipeline"))
    }
}

/// What a text must look like.
#[derive(Debug)]
pub struct Pattern {
    regex: &'static str,
    longest: usize,
    looks_like: &'static str,
    compiled: OnceLock<Option<Regex>>,
}

impl Pattern {
    /// `regex` without a bound on the length, which is `longest` characters: a bound of hundreds on
    /// a Unicode class would compile to megabytes. It is compiled once, at the first use.
    pub const fn new((regex, longest, looks_like): (&'static str, usize, &'static str)) -> Self {
        Self { regex, longest, looks_like, compiled: OnceLock::new() }
    }

    /// The text, or what it must be instead.
    pub(crate) fn check(&self, text: String) -> Result<String, String> {
        let regex = self.compiled.get_or_init(|| Regex::new(self.regex).ok());
        let fits = text.chars().count() <= self.longest
            && regex.as_ref().is_some_and(|regex| regex.is_match(&text));
        if fits { Ok(text) } else { Err(format!("must be {}", self.looks_like)) }
    }
}

/// The fields of a JSON object, taken one by one. Fields that nobody asks for are ignored.
#[derive(Debug, Default)]
pub struct Fields {
    map: Map<String, Value>,
    wrong: Vec<Detail>,
}

impl Fields {
    /// A text that must be there.
    pub fn text(&mut self, field: &str, pattern: &Pattern) -> Option<String> {
        let text = self.required(field)?;
        self.checked(field, text, |value| match value {
            Value::String(text) => pattern.check(text),
            _ => Err("must be a string".to_owned()),
        })
    }

    /// A text that may be missing or `null`.
    pub fn optional_text(&mut self, field: &str, pattern: &Pattern) -> Option<String> {
        self.optional(field)?;
        self.text(field, pattern)
    }

    /// A UUID that may be missing.
    pub fn optional_uuid(&mut self, field: &str) -> Option<Uuid> {
        let value = self.optional(field)?;
        self.checked(field, value, uuid_value)
    }

    /// A UUID that must be there.
    pub fn uuid(&mut self, field: &str) -> Option<Uuid> {
        let value = self.required(field)?;
        self.checked(field, value, uuid_value)
    }

    /// A whole number that must be there, within bounds.
    pub fn integer(&mut self, field: &str, bounds: std::ops::RangeInclusive<i64>) -> Option<i64> {
        let value = self.required(field)?;
        self.checked(field, value, |value| {
            whole(&value).filter(|n| bounds.contains(n)).ok_or_else(|| {
                format!("must be a whole number from {} to {}", bounds.start(), bounds.end())
            })
        })
    }

    /// Anything that `parse` makes of a string that must be there; else `looks_like` is said.
    pub fn parsed<T>(
        &mut self,
        field: &str,
        looks_like: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let value = self.required(field)?;
        self.checked(field, value, |value| {
            value.as_str().and_then(parse).ok_or_else(|| format!("must be {looks_like}"))
        })
    }

    /// As [`Fields::parsed`], for a string that may be missing or `null`.
    pub fn optional_parsed<T>(
        &mut self,
        field: &str,
        looks_like: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        self.optional(field)?;
        self.parsed(field, looks_like, parse)
    }

    /// Whether any of these fields is there, and not `null`.
    pub fn has_any(&self, fields: &[&str]) -> bool {
        fields.iter().any(|field| self.map.get(*field).is_some_and(|value| !value.is_null()))
    }

    /// What the fields make together.
    ///
    /// # Errors
    /// 400 with a detail for each field that was wrong.
    pub fn finish<T>(self, whole: Option<T>) -> Result<T, Failure> {
        refuse(self.wrong)?;
        whole.ok_or_else(|| Failure::bad_request("the body is incomplete"))
    }

    fn optional(&mut self, field: &str) -> Option<Value> {
        self.map.get(field).filter(|value| !value.is_null()).cloned()
    }

    fn required(&mut self, field: &str) -> Option<Value> {
        let value = self.optional(field);
        if value.is_none() {
            self.wrong.push(Detail { field: field.to_owned(), message: "is required".to_owned() });
        }
        value
    }

    fn checked<T>(
        &mut self,
        field: &str,
        value: Value,
        check: impl FnOnce(Value) -> Result<T, String>,
    ) -> Option<T> {
        let field = field.to_owned();
        check(value).map_err(|message| self.wrong.push(Detail { field, message })).ok()
    }
}

/// To JSON 7.0 is a whole number, and some languages have no other way to write one.
fn whole(value: &Value) -> Option<i64> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    let exact = |number: f64| {
        let is_whole = number.fract() == 0.0 && number.abs() <= EXACT;
        #[expect(clippy::cast_possible_truncation, reason = "it is whole, and small enough")]
        is_whole.then_some(number as i64)
    };
    value.as_i64().or_else(|| value.as_f64().and_then(exact))
}

#[expect(clippy::needless_pass_by_value, reason = "the shape of a check")]
fn uuid_value(value: Value) -> Result<Uuid, String> {
    value.as_str().and_then(uuid).ok_or_else(|| NOT_A_UUID.to_owned())
}

/// A body that must be there.
impl<S: Send + Sync> FromRequest<S> for Fields {
    type Rejection = Failure;

    async fn from_request(request: Request, _: &S) -> Result<Self, Failure> {
        object(request).await?.ok_or_else(|| Failure::bad_request("a body is required"))
    }
}

/// A body that may be missing.
#[derive(Debug)]
pub struct OptionalFields(pub Option<Fields>);

impl<S: Send + Sync> FromRequest<S> for OptionalFields {
    type Rejection = Failure;

    async fn from_request(request: Request, _: &S) -> Result<Self, Failure> {
        object(request).await.map(Self)
    }
}

async fn object(request: Request) -> Result<Option<Fields>, Failure> {
    let (parts, body) = request.into_parts();
    if check_kind(&parts)? == BodyKind::Empty {
        return Ok(None);
    }
    let bytes = to_bytes(body, BODY_LIMIT).await.map_err(Failure::internal)?;
    // A struct's derived reader would take an array for an object.
    match serde_json::from_slice(&bytes) {
        Ok(Value::Object(map)) => Ok(Some(Fields { map, wrong: Vec::new() })),
        Ok(_) => Err(Failure::bad_request("the body must be a JSON object")),
        Err(error) => Err(Failure::bad_request(format!("the body is not valid JSON: {error}"))),
    }
}

/// 415 for a body that isn't JSON, also where none is needed.
pub(crate) fn check_kind(parts: &Parts) -> Result<BodyKind, Failure> {
    let kind = parts.extensions.get::<BodyKind>().copied().unwrap_or(BodyKind::Empty);
    if kind == BodyKind::Other {
        return Err(Failure::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            code::UNSUPPORTED_MEDIA_TYPE,
            "the body must be of type application/json",
        ));
    }
    Ok(kind)
}

/// Marks a `DELETE` as the undo of a call whose outcome is unknown.
const COMPENSATE: HeaderName = HeaderName::from_static("x-compensate");

/// Whether a `DELETE` carries `X-Compensate: true`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compensate(pub bool);

impl<S: Send + Sync> FromRequestParts<S> for Compensate {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        Self::of(&parts.headers)
    }
}

impl Compensate {
    pub(crate) fn of(headers: &HeaderMap) -> Result<Self, Failure> {
        let sent: Vec<_> = headers.get_all(COMPENSATE).iter().collect();
        match sent[..] {
            [] => Ok(Self(false)),
            [value] if value.as_bytes().eq_ignore_ascii_case(b"true") => Ok(Self(true)),
            [value] if value.as_bytes().eq_ignore_ascii_case(b"false") => Ok(Self(false)),
            _ => Err(Failure::invalid("X-Compensate", "must be true or false, once")),
        }
    }
}

/// The page of a list: `limit` from 1 to 100 (50 when missing), `offset` from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// Elements at most.
    pub limit: i64,
    /// Elements skipped.
    pub offset: i64,
}

impl<S: Send + Sync> FromRequestParts<S> for Page {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        let mut page = Self { limit: 50, offset: 0 };
        let mut wrong = Vec::new();
        for (name, value) in pairs(parts) {
            let (target, bounds) = match name.as_str() {
                "limit" => (&mut page.limit, 1..=100),
                "offset" => (&mut page.offset, 0..=i64::from(i32::MAX)),
                _ => continue,
            };
            let digits = value.bytes().all(|b| b.is_ascii_digit());
            match value.parse().ok().filter(|n| digits && bounds.contains(n)) {
                Some(number) => *target = number,
                None => wrong.push(Detail {
                    field: name,
                    message: format!(
                        "must be a whole number from {} to {}",
                        bounds.start(),
                        bounds.end()
                    ),
                }),
            }
        }
        refuse(wrong)?;
        Ok(page)
    }
}

/// The ids of `itemUid=a,b,c`, also repeated: 1 to 100, each once, in the order asked for; checks
/// the type of an unneeded body on the way.
#[derive(Clone, Debug)]
pub struct ItemUids(pub Vec<Uuid>);

impl<S: Send + Sync> FromRequestParts<S> for ItemUids {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        const FIELD: &str = "itemUid";

        check_kind(parts)?;
        let mut ids = Vec::new();
        for (_, value) in pairs(parts).filter(|(name, _)| name == FIELD) {
            for text in value.split(',') {
                let id = uuid(text).ok_or_else(|| Failure::invalid(FIELD, NOT_A_UUID))?;
                if !ids.contains(&id) {
                    ids.push(id);
                }
                if ids.len() > 100 {
                    return Err(Failure::invalid(FIELD, "at most 100 ids"));
                }
            }
        }
        if ids.is_empty() {
            return Err(Failure::invalid(FIELD, "is required"));
        }
        Ok(Self(ids))
    }
}

/// The parameters of the query, decoded.
pub(crate) fn pairs(parts: &Parts) -> impl Iterator<Item = (String, String)> {
    let query = parts.uri.query().unwrap_or_default();
    form_urlencoded::parse(query.as_bytes()).map(|(n, v)| (n.into_owned(), v.into_owned()))
}

/// A request whose body is `body`, as a handler sees it: for tests of extractors.
#[doc(hidden)]
pub fn request(body: impl Into<Body>, content_type: &str) -> Request {
    let mut request = Request::new(body.into());
    let kind =
        if content_type.starts_with("application/json") { BodyKind::Json } else { BodyKind::Other };
    request.extensions_mut().insert(kind);
    request
}

#[cfg(test)]
mod tests {
    use super::*;

    static NAME: Pattern = Pattern::new(("^[a-z]+$", 3, "one to three letters"));

    fn fields(json: &str) -> Fields {
        Fields { map: serde_json::from_str(json).unwrap(), wrong: Vec::new() }
    }

    #[test]
    fn a_uuid_has_exactly_one_form() {
        let good = "6d2cb5a0-943c-4b96-9aa6-89eac7bdfd2b";
        assert!(uuid(good).is_some());
        assert_eq!(uuid(&good.to_uppercase()).unwrap().to_string(), good);
        let simple = good.replace('-', "");
        let odd = format!("{}zz", &good[..34]);
        for bad in ["", &simple, &format!("{{{good}}}"), &format!("urn:uuid:{good}"), &odd] {
            assert!(uuid(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn everything_wrong_is_said_at_once() {
        let mut f = fields(r#"{"a":"toolong","b":3,"c":"x"}"#);
        let (a, b, d) = (f.text("a", &NAME), f.text("b", &NAME), f.uuid("d"));
        let failure = f.finish(a.zip(b).zip(d)).unwrap_err();
        let named: Vec<_> = failure.details().iter().map(|d| d.field.as_str()).collect();
        assert_eq!(named, ["a", "b", "d"]);
    }

    #[test]
    fn a_whole_number_may_be_written_with_a_point() {
        for (json, read) in [
            ("7", Some(7)),
            ("7.0", Some(7)),
            ("7e0", Some(7)),
            ("7.5", None),
            ("-0.0", Some(0)),
            ("1e300", None),
            ("\"7\"", None),
        ] {
            let mut f = fields(&format!(r#"{{"a":{json}}}"#));
            assert_eq!(f.integer("a", 0..=10), read, "{json}");
        }
    }

    #[test]
    fn null_is_missing() {
        let mut f = fields(r#"{"a":null,"b":null}"#);
        assert_eq!(f.optional_uuid("a"), None);
        assert_eq!(f.text("b", &NAME), None);
        assert_eq!(f.finish(Some(())).unwrap_err().details().len(), 1);
    }

    #[tokio::test]
    async fn only_an_object_is_a_body() {
        for text in ["[]", "3", "\"x\"", "null", "{", "{\"a\":\"\\ud800\"}"] {
            let refused = Fields::from_request(request(text, "application/json"), &()).await;
            assert_eq!(refused.unwrap_err().status(), StatusCode::BAD_REQUEST, "{text}");
        }
    }

    #[tokio::test]
    async fn a_page_is_held_to_its_bounds() {
        for (query, page) in [
            ("", Some((50, 0))),
            ("limit=100&offset=7", Some((100, 7))),
            ("limit=0", None),
            ("limit=101", None),
            ("limit=%2B5", None),
            ("limit=", None),
            ("offset=-1", None),
            ("offset=x", None),
        ] {
            let request = Request::builder().uri(format!("/?{query}")).body(Body::empty()).unwrap();
            let (mut parts, _) = request.into_parts();
            let read = Page::from_request_parts(&mut parts, &()).await.ok();
            assert_eq!(read.map(|p| (p.limit, p.offset)), page, "{query}");
        }
    }
}
