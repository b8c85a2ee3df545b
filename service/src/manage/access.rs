//! `/manage/access`: who is let in.

use axum::Json;
use axum::extract::State;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::access::{Access, AccessView};

/// Its routes, with their state.
pub(crate) fn routes(access: Access) -> OpenApiRouter {
    OpenApiRouter::new().routes(routes!(show)).with_state(access)
}

/// Who is let in, and whether a service is open that others can connect to.
#[utoipa::path(get, path = "/manage/access", tag = "manage", responses(
    (status = 200, description = "What is locked, and what isn't", body = AccessView),
))]
async fn show(State(access): State<Access>) -> Json<AccessView> {
    Json(access.view())
}
