//! What a user does at Store, and the answers that the contract promises.

use serde_json::json;
use service::client::{Call, Client, Response};
use uuid::Uuid;

/// The size of everything that is bought.
pub const SIZE: &str = "M";

/// The address of an order.
pub fn path(user: Uuid, order: Uuid) -> String {
    format!("/api/v1/store/{user}/{order}")
}

/// A purchase.
pub fn buy(store: &Client, user: Uuid, model: &str) -> Call {
    let wish = json!({"model": model, "size": SIZE});
    store.post(format!("/api/v1/store/{user}/purchase")).json(&wish)
}

/// All orders of a user, up to a hundred.
pub fn list(store: &Client, user: Uuid) -> Call {
    store.get(format!("/api/v1/store/{user}/orders?limit=100"))
}

/// A claim on the warranty.
pub fn claim(store: &Client, user: Uuid, order: Uuid) -> Call {
    let reason = json!({"reason": "a brick is missing"});
    store.post(format!("{}/warranty", path(user, order))).json(&reason)
}

/// What has become of the claims on an order.
pub fn claims(store: &Client, user: Uuid, order: Uuid) -> Call {
    store.get(format!("{}/warranty", path(user, order)))
}

/// A refund.
pub fn refund(store: &Client, user: Uuid, order: Uuid) -> Call {
    store.delete(format!("{}/refund", path(user, order)))
}

/// The order of a 201 as promised.
pub fn bought(answer: &Response) -> Result<Uuid, String> {
    let wrong = || format!("not a purchase: {answer:?}");
    let body = answer.json();
    let uid = body["orderUid"].as_str().unwrap_or_default();
    let location = answer.header("location").unwrap_or_default();
    let fits = location.strip_suffix(uid).is_some_and(|place| place.contains("/store/"));
    let uid = uid.parse().map_err(|_| wrong())?;
    if answer.status == 201 && fits { Ok(uid) } else { Err(wrong()) }
}

/// The claim of a 202 as promised, for a claim on this order.
pub fn queued(answer: &Response, order: Uuid) -> Result<Uuid, String> {
    let wrong = || format!("not a claim that is accepted: {answer:?}");
    let body = answer.json();
    let claim: Uuid = body["claimUid"].as_str().unwrap_or_default().parse().map_err(|_| wrong())?;
    let location = answer.header("location").unwrap_or_default();
    let fits = answer.status == 202
        && body == json!({"orderUid": order, "claimUid": claim, "status": "QUEUED"})
        && location.ends_with(&format!("/{order}/warranty"));
    if fits { Ok(claim) } else { Err(wrong()) }
}
