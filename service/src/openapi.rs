//! The OpenAPI 3.1 document of a service, made from its routes, and the page that shows it.

use std::borrow::Cow;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::Path;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use axum::{Json, Router};
use http::header::CONTENT_TYPE;
use utoipa::openapi::path::{Operation, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{ComponentsBuilder, ObjectBuilder, Schema, SchemaType, Type};
use utoipa::openapi::{Content, InfoBuilder, OpenApi, OpenApiBuilder, PathItem, Ref};
use utoipa::openapi::{Required, ResponseBuilder};
use utoipa::{PartialSchema, ToSchema};
use utoipa_swagger_ui::Config;

use crate::failure::{Detail, ErrorBody, Failure, code};

/// The document to which a service's routes are added.
pub fn document(title: &str, description: &str) -> OpenApi {
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
                .build(),
        ))
        .build()
}

/// Adds what holds for every route: the error envelope, and the headers that any request may carry.
pub(crate) fn complete(mut document: OpenApi) -> OpenApi {
    // How a router takes a rest of several segments is its own affair.
    document.paths.paths = std::mem::take(&mut document.paths.paths)
        .into_iter()
        .map(|(path, item)| (path.replace("{*", "{"), item))
        .collect();
    for (path, item) in &mut document.paths.paths {
        let api = path.starts_with("/api/");
        let PathItem { get, post, delete, .. } = item;
        for (operation, effect) in [(get, false), (post, true), (delete, true)] {
            if let (Some(operation), true) = (operation, api) {
                describe(operation, effect);
            }
        }
    }
    document
}

fn describe(operation: &mut Operation, effect: bool) {
    let error = ResponseBuilder::new()
        .description("Refused or failed; `code` says why")
        .content("application/json", Content::new(Some(Ref::from_schema_name(ErrorBody::name()))))
        .build();
    operation.responses.responses.insert("default".to_owned(), error.into());
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
        "Milliseconds that the caller waits",
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
pub(crate) fn routes(document: OpenApi) -> Router {
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
