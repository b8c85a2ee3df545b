//! Who is let in, and who isn't.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use service::testing::network::Act;
use service::testing::{assert_envelope, operator};

use crate::world::{PATIENT, World, bought, met};

/// One place for reads, one for requests with an effect, and nobody waits.
const ONE: [(&str, &str); 2] = [("MAX_IN_FLIGHT", "2"), ("MAX_WAITING", "0")];

#[tokio::test]
async fn what_is_shed_reaches_nobody_and_neither_class_keeps_the_other_out() {
    let world = World::with(&[PATIENT, &ONE].concat()).await;
    let order = world.bought().await;
    let proxy = &world.behind.order.proxy;
    let held = proxy.on("GET", Act::Hold);
    let (read, ()) = tokio::join!(world.get(order).send(), async {
        met(&held).await;
        let asked = world.asked();
        for call in [world.get(order), world.list(), world.claims(order)] {
            assert_envelope(&call.send().await, 503, "overloaded");
        }
        assert_eq!(world.asked(), asked);
        let health = world.client.get("/manage/health").send().await.ok();
        assert_eq!(health["status"], "Work");
        assert_eq!(world.client.get("/metrics").send().await.status, 200);
        // Nobody reads meanwhile, and everybody buys.
        bought(&world.purchase().send().await);
        proxy.heal();
    });
    read.ok();
    let held = proxy.on("POST", Act::Hold);
    let (first, ()) = tokio::join!(world.purchase().send(), async {
        met(&held).await;
        for call in [world.purchase(), world.claim(order, "broken"), world.refund(order)] {
            assert_envelope(&call.key("k").send().await, 503, "overloaded");
        }
        world.get(order).send().await.ok();
        proxy.heal();
    });
    bought(&first);
    for name in ["order/read", "order/write"] {
        let breaker = operator::breaker(&world.client, name).await;
        assert_eq!((&breaker["state"], &breaker["failures"]), (&"closed".into(), &0.into()));
    }
    // Nothing of it is remembered: the same key begins anew.
    bought(&world.purchase().key("k").send().await);
    assert_eq!(world.behind.effects(), (4, 4, 4));
}

#[tokio::test]
async fn a_burst_is_waited_out() {
    let few = [("MAX_IN_FLIGHT", "4"), ("MAX_WAITING", "40")];
    let world = World::with(&[PATIENT, &few].concat()).await;
    let order = world.bought().await;
    for answer in join_all((0..20).map(|_| world.get(order).send())).await {
        answer.ok();
    }
}

#[tokio::test]
async fn nobody_waits_for_longer_than_half_of_the_time_that_he_has() {
    let few = [("MAX_IN_FLIGHT", "2"), ("MAX_WAITING", "40"), ("REQUEST_BUDGET_MS", "100000")];
    let world = World::with(&[PATIENT, &few].concat()).await;
    let order = world.bought().await;
    let proxy = &world.behind.order.proxy;
    let held = proxy.on("GET", Act::Hold);
    let (read, ()) = tokio::join!(world.get(order).send(), async {
        met(&held).await;
        let (begin, time) = (Instant::now(), Duration::from_secs(8));
        let late = world.get(order).header("X-Request-Timeout", "8000").send().await;
        assert_envelope(&late, 503, "overloaded");
        let waited = begin.elapsed();
        assert!(waited > time / 4 && waited < time * 3 / 4, "{waited:?}");
        proxy.heal();
    });
    read.ok();
}

#[tokio::test]
async fn a_user_has_so_many_requests_and_no_other_user_pays_for_them() {
    let rate = [("RATE_LIMIT_PER_SECOND", "1"), ("RATE_LIMIT_BURST", "3")];
    let world = World::with(&[PATIENT, &rate].concat()).await;
    let calls = || join_all((0..20).map(|_| world.list().send()));
    let refused = calls().await.into_iter().filter(|answer| answer.status != 200);
    let refused: Vec<_> = refused.collect();
    // A slow machine gives one more each second.
    assert!(refused.len() >= 10, "{} of 20", refused.len());
    for answer in &refused {
        assert_envelope(answer, 429, "too_many_requests");
    }
    let other = world.new_user("Kim");
    bought(&world.purchase_by(other, &crate::world::wish()).send().await);
    world.client.get("/manage/health").send().await.ok();
}
