//! HTTP in, HTTP out: every route is in this list, and none is for anybody but the user in its path.

mod orders;
mod purchase;
mod warranty;

use std::sync::Arc;

use axum::extract::rejection::RawPathParamsRejection;
use axum::extract::{Extension, RawPathParams, Request};
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use order_api::ORDER_NOT_FOUND;
use service::access::Callers;
use service::identity::Subject;
use service::{Failure, Result};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::admission::Admission;
use crate::{App, USER_NOT_FOUND};

/// All routes, without their state.
pub fn table() -> OpenApiRouter<Arc<App>> {
    let document =
        service::openapi::document("Store", "The gateway on a user's behalf", Callers::Users);
    OpenApiRouter::with_openapi(document)
        .routes(routes!(orders::list))
        .routes(routes!(orders::get))
        .routes(routes!(purchase::purchase))
        .routes(routes!(purchase::refund))
        .routes(routes!(warranty::list, warranty::claim))
}

/// All routes, as they are served: whose they are is seen before anything is counted against the user
/// in the path.
pub(crate) fn served(admission: Admission) -> OpenApiRouter<Arc<App>> {
    admission.guard(table()).route_layer(from_fn(own))
}

/// Where users have an identity, somebody else is told what is told of what isn't there, whether it is
/// there or not, before anything is looked up.
async fn own(
    subject: Option<Extension<Subject>>,
    path: std::result::Result<RawPathParams, RawPathParamsRejection>,
    request: Request,
    next: Next,
) -> Result<Response> {
    let (Some(Extension(subject)), Ok(path)) = (subject, path) else {
        return Ok(next.run(request).await);
    };
    let named = |wanted: &str| path.iter().find(|(name, _)| *name == wanted).map(|(_, text)| text);
    let Some(user) = named("userUid").and_then(|text| Uuid::try_parse(text).ok()) else {
        // What is no id is nobody's: the route says what is wrong with it.
        return Ok(next.run(request).await);
    };
    if subject.is(user) {
        return Ok(next.run(request).await);
    }
    let order = named("orderUid").and_then(|text| Uuid::try_parse(text).ok());
    Err(match order {
        Some(order) => Failure::not_found(ORDER_NOT_FOUND, format!("there is no order {order}")),
        None => Failure::not_found(USER_NOT_FOUND, format!("there is no user {user}")),
    })
}
