//! HTTP in, HTTP out: every route is in this list.

mod explain;
mod items;
mod warranty;

use service::access::Callers;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::App;

/// All routes, without their state.
pub fn table() -> OpenApiRouter<App> {
    let document = service::openapi::document(
        "Warehouse",
        "Items, and the orders that hold them",
        Callers::Services,
    );
    OpenApiRouter::with_openapi(document)
        .routes(routes!(items::list, items::take))
        .routes(routes!(items::get, items::give_back))
        .routes(routes!(warranty::claim))
        .routes(routes!(explain::item))
}
