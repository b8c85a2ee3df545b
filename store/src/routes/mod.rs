//! HTTP in, HTTP out: every route is in this list.

mod orders;
mod purchase;
mod warranty;

use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::App;

/// All routes, without their state.
pub fn table() -> OpenApiRouter<App> {
    let document = service::openapi::document("Store", "The gateway on a user's behalf");
    OpenApiRouter::with_openapi(document)
        .routes(routes!(orders::list))
        .routes(routes!(orders::get))
        .routes(routes!(purchase::purchase))
        .routes(routes!(purchase::refund))
        .routes(routes!(warranty::list, warranty::claim))
}
