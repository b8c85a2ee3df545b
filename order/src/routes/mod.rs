//! HTTP in, HTTP out: every route is in this list.

mod explain;
mod orders;
mod warranty;

use service::access::Callers;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::App;

/// All routes, without their state.
pub fn table() -> OpenApiRouter<App> {
    let document = service::openapi::document("Order", "Who bought what", Callers::Services);
    OpenApiRouter::with_openapi(document)
        .routes(routes!(orders::list, orders::place, orders::give_back))
        .routes(routes!(orders::get))
        .routes(routes!(warranty::claim))
        .routes(routes!(explain::order))
}
