//! HTTP in, HTTP out: every route is in this list, and none is for anybody but the user in its path.

mod orders;
mod purchase;
mod warranty;

use std::sync::Arc;

use axum::extract::rejection::RawPathParamsRejection;
use axum::extract::{Extension, RawPathParams, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use order_api::ORDER_NOT_FOUND;
use service::access::Callers;
use service::identity::Subject;
use service::observe::Caller;
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

/// All routes, as they are served.
pub(crate) fn served(admission: Admission) -> OpenApiRouter<Arc<App>> {
    table().route_layer(from_fn_with_state(admission, let_in))
}

/// Whose they are is seen before anything is counted against the user in the path.
async fn let_in(
    State(admission): State<Admission>,
    subject: Option<Extension<Subject>>,
    path: Result<RawPathParams, RawPathParamsRejection>,
    request: Request,
    next: Next,
) -> Result<Response> {
    // What is no id is nobody's: the route says what is wrong with it.
    let ids = path.as_ref().map_or_else(|_| Ids::default(), Ids::of);
    if let Some(Extension(subject)) = subject {
        ids.belong_to(&subject)?;
    }
    let effect = !request.method().is_safe();
    let deadline = request.extensions().get::<Arc<Caller>>().and_then(|caller| caller.deadline());
    // Held until the answer is there.
    let _place = admission.admit(ids.user, effect, deadline).await?;
    Ok(next.run(request).await)
}

/// Of a path, where they are some.
#[derive(Clone, Copy, Default)]
struct Ids {
    user: Option<Uuid>,
    order: Option<Uuid>,
}

impl Ids {
    fn of(path: &RawPathParams) -> Self {
        let named = |wanted: &str| {
            let (_, text) = path.iter().find(|(name, _)| *name == wanted)?;
            text.parse().ok()
        };
        Self { user: named("userUid"), order: named("orderUid") }
    }

    /// Where users have an identity, somebody else is told what is told of what isn't there, whether it
    /// is there or not, before anything is looked up.
    fn belong_to(self, subject: &Subject) -> Result<()> {
        match (self.user, self.order) {
            (Some(user), Some(order)) if !subject.is(user) => {
                Err(Failure::not_found(ORDER_NOT_FOUND, format!("there is no order {order}")))
            }
            (Some(user), None) if !subject.is(user) => {
                Err(Failure::not_found(USER_NOT_FOUND, format!("there is no user {user}")))
            }
            _ => Ok(()),
        }
    }
}
