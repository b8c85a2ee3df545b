//! HTTP in, HTTP out: every route is in this list.

mod claims;
mod explain;
mod warranties;

use service::access::Callers;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::App;

/// All routes, without their state.
pub fn table() -> OpenApiRouter<App> {
    let document = service::openapi::document(
        "Warranty",
        "Warranties of items, and claims on them",
        Callers::Services,
    );
    OpenApiRouter::with_openapi(document)
        .routes(routes!(warranties::list))
        .routes(routes!(warranties::get, warranties::start_or_restore, warranties::close))
        .routes(routes!(claims::claim))
        .routes(routes!(explain::item))
}
