//! What an operation answers, in a form that can be written down and repeated.

use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, HeaderValue, LOCATION};
use http::{HeaderName, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::failure::{Detail, Failure};

/// The total number of elements of a list, of which a page is shown.
pub const TOTAL_COUNT: HeaderName = HeaderName::from_static("x-total-count");

/// A 2xx answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    status: StatusCode,
    /// JSON, as it goes out.
    body: Option<String>,
    location: Option<String>,
    total: Option<i64>,
}

impl Answer {
    /// 200 with `body`.
    ///
    /// # Errors
    /// 500 when `body` can't be written as JSON.
    pub fn ok(body: &impl Serialize) -> Result<Self, Failure> {
        let body = serde_json::to_string(body).map_err(Failure::internal)?;
        Ok(Self { status: StatusCode::OK, body: Some(body), location: None, total: None })
    }

    /// 201 with `body`, found at `location`.
    ///
    /// # Errors
    /// 500 when `body` can't be written as JSON.
    pub fn created(body: &impl Serialize, location: String) -> Result<Self, Failure> {
        let made = Self::ok(body)?;
        Ok(Self { status: StatusCode::CREATED, location: Some(location), ..made })
    }

    /// 202 with `body`: it will be done; what has become of it is told at `location`.
    ///
    /// # Errors
    /// 500 when `body` can't be written as JSON.
    pub fn accepted(body: &impl Serialize, location: String) -> Result<Self, Failure> {
        let made = Self::ok(body)?;
        Ok(Self { status: StatusCode::ACCEPTED, location: Some(location), ..made })
    }

    /// 204.
    pub fn no_content() -> Self {
        Self { status: StatusCode::NO_CONTENT, body: None, location: None, total: None }
    }

    /// Adds `X-Total-Count`.
    #[must_use]
    pub fn with_total(mut self, total: i64) -> Self {
        self.total = Some(total);
        self
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let mut response = match self.body {
            Some(body) => (self.status, body).into_response(),
            None => self.status.into_response(),
        };
        let has_body = response.status() != StatusCode::NO_CONTENT;
        let headers = response.headers_mut();
        if has_body {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        if let Some(location) = self.location.and_then(|l| HeaderValue::from_str(&l).ok()) {
            headers.insert(LOCATION, location);
        }
        if let Some(total) = self.total {
            headers.insert(TOTAL_COUNT, HeaderValue::from(total));
        }
        response
    }
}

/// An answer as it is kept under an idempotency key: a success, or a final refusal.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Memo {
    status: u16,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    body: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    location: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    refusal: Option<Refusal>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Refusal {
    code: String,
    message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    dependency: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    details: Vec<Detail>,
}

impl Memo {
    /// What is worth remembering of an outcome: nothing, if repeating may bring another one.
    ///
    /// # Errors
    /// 500 for a body that isn't JSON: a defect.
    pub(crate) fn of(outcome: &Result<Answer, Failure>) -> Result<Option<Self>, Failure> {
        Ok(match outcome {
            Ok(answer) => Some(Self::success(answer)?),
            Err(failure) if failure.is_final() => Some(Self {
                status: failure.status().as_u16(),
                body: None,
                location: None,
                refusal: Some(Refusal {
                    code: failure.code().to_owned(),
                    message: failure.message().to_owned(),
                    dependency: failure.dependency().map(str::to_owned),
                    details: failure.details().to_vec(),
                }),
            }),
            Err(_) => None,
        })
    }

    /// A success.
    ///
    /// # Errors
    /// As for [`Memo::of`].
    pub(crate) fn success(answer: &Answer) -> Result<Self, Failure> {
        let body = answer.body.as_deref().map(serde_json::from_str);
        Ok(Self {
            status: answer.status.as_u16(),
            body: body.transpose().map_err(Failure::internal)?,
            location: answer.location.clone(),
            refusal: None,
        })
    }

    /// The remembered outcome again.
    pub(crate) fn replay(self) -> Result<Answer, Failure> {
        let status = StatusCode::from_u16(self.status).map_err(Failure::internal)?;
        match self.refusal {
            None => {
                let body = self.body.map(|body| body.to_string());
                Ok(Answer { status, body, location: self.location, total: None })
            }
            Some(refusal) => {
                let mut failure = Failure::new(status, refusal.code, refusal.message)
                    .with_details(refusal.details);
                if let Some(dependency) = refusal.dependency {
                    failure = failure.with_dependency(dependency);
                }
                Err(failure)
            }
        }
    }
}
