//! `scripts/smoke`, at a store behind a network that loses answers.

use std::process::Stdio;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use resilience::testkit::Act;
use tokio::process::{Child, Command};

use super::file;
use crate::world::{Part, World, met};

const STILL_AT_IT: Act = Act::Answer {
    head: std::borrow::Cow::Borrowed("409 Conflict\r\nContent-Type: application/json"),
    body: std::borrow::Cow::Borrowed(r#"{"code": "idempotency_in_progress"}"#),
};

fn smoke(world: &World, seconds: &str) -> Child {
    Command::new(file("scripts/smoke"))
        .arg(world.proxy(Part::Store).url())
        .env("SMOKE_SECONDS", seconds)
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

async fn ended(smoke: Child) -> (bool, String) {
    let output = smoke.wait_with_output().await.unwrap();
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_bought_is_given_back_whatever_is_lost_and_whoever_is_ended() {
    let world = World::plan().proxied(Part::Store).start().await;
    let proxy = world.proxy(Part::Store);
    let orders = |status: &str| {
        world.number(Part::Order, &format!("SELECT count(*) FROM orders WHERE status = '{status}'"))
    };

    // An attempt whose answer was lost may still be at work: that passes.
    proxy.once("POST", Act::Reset);
    proxy.once("POST", STILL_AT_IT);
    let (sells, said) = ended(smoke(&world, "60")).await;
    assert!(sells, "{said}");
    assert_eq!((orders("PAID"), orders("CANCELED")), (0, 1));

    // There is no time to ask again, and nobody has said what was bought; nor then that it is given back.
    proxy.once("POST", Act::LoseAnswer);
    proxy.once("DELETE", Act::Reset);
    let (sells, said) = ended(smoke(&world, "0")).await;
    assert!(!sells && said.contains("the purchase answered 000"), "{said}");
    assert_eq!((orders("PAID"), orders("CANCELED")), (0, 2));

    let held = proxy.once("GET", Act::HoldAnswer);
    let interrupted = smoke(&world, "60");
    met(&held).await;
    kill(Pid::from_raw(interrupted.id().unwrap().cast_signed()), Signal::SIGTERM).unwrap();
    proxy.heal();
    let (sells, said) = ended(interrupted).await;
    assert!(!sells, "{said}");
    assert_eq!((orders("PAID"), orders("CANCELED")), (0, 3), "{said}");
}
