//! The OpenAPI 3.1 document of a service, made from its routes, and the page that shows it.

use std::borrow::Cow;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::Path;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use axum::{Json, Router};
use http::header::CONTENT_TYPE;
use serde_json::Value;
use utoipa::openapi::path::{Operation, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{ComponentsBuilder, ObjectBuilder, Schema, SchemaType, Type};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{Content, InfoBuilder, OpenApi, OpenApiBuilder, PathItem, Ref};
use utoipa::openapi::{HeaderBuilder, Required, ResponseBuilder};
use utoipa::{PartialSchema, ToSchema};
use utoipa_swagger_ui::Config;

use crate::access::{Callers, is_health};
use crate::failure::{Detail, ErrorBody, Failure, code};

/// How a service's own routes, and `/manage`, are locked.
const USER: &str = "userToken";
const SERVICE: &str = "serviceToken";
const MANAGEMENT: &str = "managementToken";

/// The document to which a service's routes are added, which these call.
pub fn document(title: &str, description: &str, callers: Callers) -> OpenApi {
    let (scheme, what, format) = match callers {
        Callers::Users => (USER, "A JWT whose `sub` is the user of the path", "JWT"),
        Callers::Services => (SERVICE, "One of `SERVICE_TOKENS`", "opaque"),
    };
    OpenApiBuilder::new()
        .info(
            InfoBuilder::new()
                .title(title)
                .description(Some(description))
                .version(env!("CARGO_PKG_VERSION"))
                .build(),
        )
        .components(Some(
            ComponentsBuilder::new()
                .schema(ErrorBody::name(), ErrorBody::schema())
                .schema(Detail::name(), Detail::schema())
                .security_scheme(scheme, bearer(what, format))
                .security_scheme(MANAGEMENT, bearer("One of `MANAGEMENT_TOKENS`", "opaque"))
                .build(),
        ))
        .build()
}

fn bearer(description: &str, format: &str) -> SecurityScheme {
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format(format);
    SecurityScheme::Http(bearer.description(Some(description)).build())
}

/// The 36-character form, either case.
const UUID: &str = "^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$";

/// Adds what holds for every route: the error envelope, the headers that any request may carry, and
/// what a UUID looks like.
///
/// # Errors
/// When the document isn't JSON: a defect.
pub(crate) fn complete(mut document: OpenApi) -> serde_json::Result<Value> {
    // How a router takes a rest of several segments is its own affair.
    document.paths.paths = std::mem::take(&mut document.paths.paths)
        .into_iter()
        .map(|(path, item)| (path.replace("{*", "{"), item))
        .collect();
    let schemes = document.components.iter().flat_map(|parts| parts.security_schemes.keys());
    let own =
        schemes.map(String::as_str).find(|name| *name != MANAGEMENT).unwrap_or(SERVICE).to_owned();
    for (path, item) in &mut document.paths.paths {
        let api = path.starts_with("/api/");
        let PathItem { get, post, delete, .. } = item;
        for (operation, effect) in [(get, false), (post, true), (delete, true)] {
            let Some(operation) = operation else { continue };
            // Health answers in a shape of its own, whatever it has to say.
            if !path.starts_with("/manage/health") {
                add_error(operation);
            }
            if api {
                add_headers(operation, effect);
            }
            if !is_health(path) {
                lock(operation, if api { &own } else { MANAGEMENT });
            }
        }
    }
    let mut document = serde_json::to_value(document)?;
    make_precise(&mut document);
    Ok(document)
}

/// Says what it takes, where the deployment asks for it.
fn lock(operation: &mut Operation, scheme: &str) {
    let token = SecurityRequirement::new(scheme, Vec::<String>::new());
    operation.security = Some(vec![token, SecurityRequirement::default()]);
    let refused = ResponseBuilder::new()
        .description("No valid token, where one is asked for")
        .header(
            "WWW-Authenticate",
            HeaderBuilder::new().description(Some("What it takes, by RFC 6750")).build(),
        )
        .content("application/json", envelope())
        .build();
    operation.responses.responses.insert("401".to_owned(), refused.into());
}

fn envelope() -> Content {
    Content::new(Some(Ref::from_schema_name(ErrorBody::name())))
}

/// Says what the derived document leaves open: a UUID of another form is refused, and a parameter or
/// a body can be left out, but not be `null`.
fn make_precise(value: &mut Value) {
    match value {
        Value::Object(map) => {
            if map.get("format").is_some_and(|format| format == "uuid") {
                map.insert("pattern".to_owned(), UUID.into());
            }
            let is_parameter = map.contains_key("in") && map.contains_key("name");
            if let (true, Some(kind)) = (is_parameter, map.get_mut("schema").and_then(kind_of))
                && let Some(some) = kind.as_array().and_then(|kinds| kinds.first()).cloned()
            {
                *kind = some;
            }
            if let Some(body) = map.get_mut("requestBody") {
                make_object(body);
            }
            map.values_mut().for_each(make_precise);
        }
        Value::Array(values) => values.iter_mut().for_each(make_precise),
        _ => {}
    }
}

/// Of the alternatives to nothing at all there is one.
fn make_object(body: &mut Value) {
    let Some(schema) = body.pointer_mut("/content/application~1json/schema") else { return };
    let some = schema.get("oneOf").and_then(Value::as_array).and_then(|one_of| {
        one_of.iter().find(|one| one.get("type").is_none_or(|kind| kind != "null")).cloned()
    });
    if let Some(some) = some {
        *schema = some;
    }
}

fn kind_of(schema: &mut Value) -> Option<&mut Value> {
    schema.get_mut("type")
}

fn add_error(operation: &mut Operation) {
    let error = ResponseBuilder::new()
        .description("Refused or failed; `code` says why")
        .content("application/json", envelope())
        .build();
    operation.responses.responses.insert("default".to_owned(), error.into());
}

fn add_headers(operation: &mut Operation, effect: bool) {
    let parameters = operation.parameters.get_or_insert_default();
    let mut header = |name: &str, description: &str, schema: ObjectBuilder| {
        parameters.push(
            ParameterBuilder::new()
                .name(name)
                .parameter_in(ParameterIn::Header)
                .required(Required::False)
                .description(Some(description))
                .schema(Some(Schema::Object(schema.build())))
                .build()
                .into(),
        );
    };
    let text = || ObjectBuilder::new().schema_type(SchemaType::Type(Type::String));
    header(
        "X-Request-Id",
        "Accepted when it is 1 to 128 visible ASCII characters, else minted; echoed",
        text(),
    );
    header(
        "X-Request-Timeout",
        "Milliseconds that the caller waits; too few, such as 0, get a 503 `deadline_exceeded`",
        ObjectBuilder::new().schema_type(SchemaType::Type(Type::Integer)).minimum(Some(0)),
    );
    if effect {
        header(
            "Idempotency-Key",
            "Names the retries of one intent: one effect, and the same answer again, for 30 days",
            text().min_length(Some(1)).max_length(Some(255)).pattern(Some("^[!-~]{1,255}$")),
        );
    }
}

/// `/api-docs/openapi.json`, and Swagger UI at `/docs`.
pub(crate) fn routes(document: Value) -> Router {
    let config = Arc::new(Config::from("/api-docs/openapi.json"));
    let document = Arc::new(document);
    let file = move |name: String| {
        let config = Arc::clone(&config);
        async move { swagger(&name, config) }
    };
    let index = file.clone();
    Router::new()
        .route(
            "/api-docs/openapi.json",
            get(async move || Json(Arc::clone(&document)).into_response()),
        )
        .route("/docs", get(async || Redirect::to("/docs/")))
        .route("/docs/", get(move || index(String::new())))
        .route("/docs/{*file}", get(move |Path(name): Path<String>| file(name)))
}

fn swagger(name: &str, config: Arc<Config<'static>>) -> Response {
    match utoipa_swagger_ui::serve(name, config) {
        Ok(Some(file)) => {
            let bytes = match file.bytes {
                // The program's own memory: however many read it, and however slowly.
                Cow::Borrowed(bytes) => Bytes::from_static(bytes),
                Cow::Owned(bytes) => bytes.into(),
            };
            ([(CONTENT_TYPE, file.content_type)], bytes).into_response()
        }
        Ok(None) => Failure::not_found(code::NOT_FOUND, "there is no such page").into_response(),
        Err(error) => Failure::internal(error.to_string()).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_refused_is_not_described_as_allowed() {
        let mut document = json!({
            "parameters": [{"name": "X-Compensate", "in": "header",
                "schema": {"type": ["boolean", "null"]}}],
            "requestBody": {"content": {"application/json": {"schema":
                {"oneOf": [{"type": "null"}, {"$ref": "#/components/schemas/Restore"}]}}}},
            "schema": {"properties": {"uid": {"type": ["string", "null"], "format": "uuid"}}},
        });
        make_precise(&mut document);
        let schema = &document["parameters"][0]["schema"];
        assert_eq!(schema["type"], "boolean");
        let body = &document["requestBody"]["content"]["application/json"]["schema"];
        assert_eq!(body, &json!({"$ref": "#/components/schemas/Restore"}));
        let uid = &document["schema"]["properties"]["uid"];
        assert_eq!((&uid["type"], &uid["pattern"]), (&json!(["string", "null"]), &json!(UUID)));
    }
}
