//! What a test asks of the client: an answer that must be there, and be right.

use serde_json::Value;

use crate::client::{Call, Client, Response};

impl Client {
    /// The sum of all samples of a metric that have these labels.
    ///
    /// # Panics
    /// When `/metrics` can't be read.
    pub async fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let answer = self.get("/metrics").send().await;
        assert_eq!(answer.status, 200);
        let text = answer.text();
        let samples = text.lines().filter(|line| {
            let rest = line.strip_prefix(name);
            rest.is_some_and(|rest| rest.starts_with(['{', ' ']))
                && labels
                    .iter()
                    .all(|(label, value)| line.contains(&format!("{label}=\"{value}\"")))
        });
        samples.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }
}

impl Call {
    /// The answer.
    ///
    /// # Panics
    /// When there is none, or it isn't HTTP.
    pub async fn send(self) -> Response {
        let line: String = self.line().chars().take(200).collect();
        self.try_send().await.unwrap_or_else(|error| panic!("no answer to {line}: {error}"))
    }
}

impl Response {
    /// The JSON of an answer that must be 200.
    ///
    /// # Panics
    /// When it is anything else, or no JSON of exactly that type.
    #[track_caller]
    pub fn ok(self) -> Value {
        assert_eq!(self.status, 200, "{self:?}");
        assert_eq!(self.header("content-type"), Some("application/json"), "{self:?}");
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// # Panics
    /// Unless it is 204, with no body.
    #[track_caller]
    pub fn no_content(self) {
        assert_eq!(self.status, 204, "{self:?}");
        assert!(self.body.is_empty() && self.header("content-type").is_none(), "{self:?}");
    }
}
