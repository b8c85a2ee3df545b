//! Users with an identity: each sees what is theirs, and of the rest not even that it is there.

use serde_json::{Value, json};
use service::testing::jwt::{SigningKey, claims, unsigned};
use service::testing::{Call, Response, assert_envelope};
use uuid::Uuid;

use crate::world::{PATIENT, STORE, World, bought, wish};

const SECRET: &str = "a secret of more than thirty-two bytes";
const ISSUER: &str = "https://id.example.com";
const AUDIENCE: &str = "store";

async fn world() -> World {
    let identity =
        [("USER_JWT_SECRET", SECRET), ("USER_JWT_ISSUER", ISSUER), ("USER_JWT_AUDIENCE", AUDIENCE)];
    World::with(&[PATIENT, &identity].concat()).await
}

fn token(subject: &impl ToString) -> String {
    SigningKey::secret(SECRET).sign(None, &claims(ISSUER, AUDIENCE, subject))
}

/// Every route, on this user and this order.
fn all(world: &World, user: Uuid, order: Uuid) -> Vec<Call> {
    let mut calls = Vec::from(world.all_on(user, order));
    calls.push(world.client.get(format!("{STORE}/{user}/orders")));
    calls.push(world.purchase_by(user, &wish()));
    calls
}

fn with_token(call: Call, token: &str) -> Call {
    call.header("Authorization", format!("Bearer {token}"))
}

/// What an answer tells, but for the ids that it is asked about and its own.
fn told(answer: &Response, ids: [Uuid; 2]) -> (u16, Value) {
    let mut body = answer.json();
    body["requestId"] = Value::Null;
    let text = ids.iter().fold(body.to_string(), |text, id| text.replace(&id.to_string(), "?"));
    (answer.status, json!(text))
}

#[tokio::test]
async fn a_user_does_everything_with_a_token_of_theirs_in_either_case() {
    let mut world = world().await;
    let bare = world.client.clone();
    world.client = bare.with_token(&token(&world.user));
    let order = world.bought().await;
    world.client = bare.with_token(&token(&world.user.to_string().to_uppercase()));
    world.get(order).send().await.ok();
    assert_eq!(world.list().send().await.ok().as_array().unwrap().len(), 1);
    world.claim(order, "broken").send().await.ok();
    world.claims(order).send().await.ok();
    let upper = format!("{STORE}/{}/{order}", world.user.to_string().to_uppercase());
    world.client.get(upper).send().await.ok();
    world.refund(order).send().await.no_content();
    // Pages and probes are nobody's.
    for open in ["/manage/health", "/docs/", "/api-docs/openapi.json", "/manage/access"] {
        assert_eq!(bare.get(open).send().await.status, 200, "{open}");
    }
    assert_eq!(bare.get("/manage/access").send().await.ok()["api"], "user");
}

#[tokio::test]
async fn without_a_valid_token_every_route_is_401_and_nobody_is_asked() {
    let mut world = world().await;
    let bare = world.client.clone();
    world.client = bare.with_token(&token(&world.user));
    let order = world.bought().await;
    let (asked, user) = (world.asked(), world.user);
    world.client = bare;
    for call in all(&world, user, order) {
        let refused = call.send().await;
        assert_envelope(&refused, 401, "unauthorized");
        assert_eq!(refused.header("www-authenticate"), Some(r#"Bearer realm="user""#));
    }
    let mut expired = claims(ISSUER, AUDIENCE, &user);
    expired["exp"] = json!(1);
    let wrong = [
        SigningKey::secret(SECRET).sign(None, &expired),
        SigningKey::secret("some other secret of 32 or more bytes")
            .sign(None, &claims(ISSUER, AUDIENCE, &user)),
        unsigned(&json!({"alg": "none"}), &claims(ISSUER, AUDIENCE, &user)),
        SigningKey::secret(SECRET)
            .sign(None, &claims("https://other.example.com", AUDIENCE, &user)),
        "nonsense".to_owned(),
    ];
    for wrong in wrong {
        for call in all(&world, user, order) {
            let refused = with_token(call, &wrong).send().await;
            assert_envelope(&refused, 401, "unauthorized");
            let challenge = refused.header("www-authenticate").unwrap();
            assert!(challenge.ends_with(r#"error="invalid_token""#), "{challenge}");
        }
    }
    for made_up in ["/api", "/api/v1/nothing", "/api/v2/store"] {
        assert_envelope(&world.client.get(made_up).send().await, 401, "unauthorized");
        let known = world.client.with_token(&token(&user));
        assert_envelope(&known.get(made_up).send().await, 404, "not_found");
    }
    assert_eq!(world.asked(), asked);
}

#[tokio::test]
async fn somebody_else_s_token_is_told_that_there_is_nothing_whether_there_is_or_not() {
    let mut world = world().await;
    let bare = world.client.clone();
    world.client = bare.with_token(&token(&world.user));
    let (user, order) = (world.user, world.bought().await);
    let other = world.new_user("Robin");
    let asked = world.asked();
    world.client = bare.clone();
    let nothing = [Uuid::new_v4(), Uuid::new_v4()];
    for thief in [token(&other), token(&Uuid::new_v4()), token(&"robin@example.com")] {
        let there = all(&world, user, order);
        let absent = all(&world, nothing[0], nothing[1]);
        for (there, absent) in there.into_iter().zip(absent) {
            let [there, absent] = [with_token(there, &thief), with_token(absent, &thief)];
            let [there, absent] = [there.send().await, absent.send().await];
            assert_eq!(there.status, 404, "{there:?}");
            assert_eq!(told(&there, [user, order]), told(&absent, nothing));
        }
    }
    assert_eq!(world.asked(), asked, "no other system is called");

    // On their own page it is what it is for an order that nobody has, or somebody else has.
    world.client = bare.with_token(&token(&other));
    world.user = other;
    for wanted in [order, Uuid::new_v4()] {
        assert_envelope(&world.get(wanted).send().await, 404, "order_not_found");
    }
    let own = world.get(order).send().await;
    let theirs = world.client.get(format!("{STORE}/{user}/{order}")).send().await;
    assert_eq!(told(&own, [other, order]), told(&theirs, [user, order]));

    world.user = user;
    world.client = bare.with_token(&token(&user));
    assert_eq!(world.get(order).send().await.ok()["status"], "PAID", "nothing was done to it");
    bought(&world.purchase().send().await);
}
