//! `heroku/deploy`: what it releases, and that it takes back what the store doesn't sell with.

use std::process::Output;

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use super::platform::{Fault, KEY, PREFIX, Platform};
use crate::world::Part;

const DEPLOYED: i32 = 0;
const TAKEN_BACK: i32 = 1;
const NOTHING_TOUCHED: i32 = 2;
const SOMEBODY_HAS_TO_LOOK: i32 = 3;

/// A build that starts, is healthy, and lets nobody in who hasn't a token that nobody has.
const SELLS_NOTHING: [(Part, Fault); 3] = [
    (Part::Store, Fault::Variable("USER_JWT_SECRET", "geheim-geheim-geheim-geheim-geheim-")),
    (Part::Store, Fault::Variable("USER_JWT_ISSUER", "https://issuer.test")),
    (Part::Store, Fault::Variable("USER_JWT_AUDIENCE", "store")),
];

/// A good build may be slow on a crowded machine.
const PATIENT: &[(&str, &str)] = &[("HEALTH_SECONDS", "60"), ("SMOKE_SECONDS", "60")];

async fn deploy(platform: &Platform, tag: &str, seconds: &[(&str, &str)]) -> Output {
    platform.script(&["heroku/deploy", tag], seconds).await
}

#[track_caller]
fn ended(output: &Output, code: i32) -> String {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert!(!said.contains(KEY) && output.stdout.is_empty(), "{said}");
    said
}

/// The store sells, as `scripts/smoke` finds by itself.
async fn sells(platform: &Platform) {
    let url = platform.store_url();
    let smoke = platform.script(&["scripts/smoke", &url], PATIENT).await;
    assert!(smoke.status.success(), "{}", String::from_utf8_lossy(&smoke.stderr));
}

fn nothing_unfinished(platform: &Platform) -> bool {
    platform.variable(&format!("{PREFIX}-deploys"), "UNFINISHED").is_none()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_good_build_is_deployed_called_before_caller() {
    let platform = Platform::selling().await;
    platform.build("v2", &[]);
    ended(&deploy(&platform, "v2", PATIENT).await, DEPLOYED);
    let expected =
        ["warranty", "warehouse", "order", "store"].map(|name| format!("release {name} v2"));
    assert_eq!(platform.events(), expected);
    assert_eq!(platform.runs(), ["v2"; 4]);
    assert!(nothing_unfinished(&platform));
    assert!(!platform.said().contains(KEY), "a key on a command line");

    ended(&deploy(&platform, "v3", PATIENT).await, NOTHING_TOUCHED);
    ended(&deploy(&platform, "v2:latest", PATIENT).await, NOTHING_TOUCHED);
    ended(&deploy(&platform, "v2", &[("HEALTH_SECONDS", "2m")]).await, NOTHING_TOUCHED);
    assert!(platform.events().is_empty(), "a build that isn't there touches nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_that_is_healthy_and_does_not_sell_is_taken_back_callers_first() {
    let platform = Platform::selling().await;
    platform.build("v2", &SELLS_NOTHING);
    let said = ended(&deploy(&platform, "v2", PATIENT).await, TAKEN_BACK);
    assert!(said.contains("the purchase answered 401"), "{said}");
    let released =
        ["warranty", "warehouse", "order", "store"].map(|name| format!("release {name} v2"));
    let taken_back =
        ["store", "order", "warehouse", "warranty"].map(|name| format!("rollback {name} v1"));
    assert_eq!(platform.events(), [released, taken_back].concat());
    assert_eq!(platform.runs(), ["v1"; 4]);
    assert!(nothing_unfinished(&platform));
    sells(&platform).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_that_does_not_come_up_is_taken_back() {
    let platform = Platform::selling().await;
    let back = ["rollback warehouse v1", "rollback warranty v1"];
    for (tag, fault, reason, taken_back) in [
        ("crashes", Fault::Web(&["false"]), "crashes at its start", &back[..]),
        ("hangs", Fault::Web(&["sleep", "60"]), "isn't healthy after 6 s", &back[..]),
        // A release whose migrations fail never becomes current: there is nothing to take back of it.
        ("migrates-not", Fault::Release(&["false"]), "could not be released", &back[1..]),
    ] {
        platform.build(tag, &[(Part::Warehouse, fault)]);
        let seconds = [("HEALTH_SECONDS", if tag == "hangs" { "6" } else { "60" })];
        let output = platform.script(&["heroku/deploy", tag], &seconds).await;
        let said = ended(&output, TAKEN_BACK);
        assert!(said.contains(reason), "{said}");
        let events = platform.events();
        let released = ["warranty", "warehouse"].map(|name| format!("release {name} {tag}"));
        assert_eq!(events[..2], released);
        assert_eq!(events[2..], *taken_back, "{said}");
        assert_eq!(platform.runs(), ["v1"; 4]);
        assert!(nothing_unfinished(&platform));
    }
    sells(&platform).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_deployment_at_a_time_and_what_a_killed_one_has_left_is_never_gone_back_to() {
    let platform = Platform::selling().await;
    platform.build("v2", &[]);
    platform.build("v3", &SELLS_NOTHING);
    let (reached, go) = platform.hold(Part::Order);
    let mut killed = platform.spawn(&["heroku/deploy", "v2"], PATIENT);
    tokio::task::spawn_blocking(move || reached.recv()).await.unwrap().unwrap();

    let events = platform.events();
    let said = ended(&deploy(&platform, "v3", PATIENT).await, NOTHING_TOUCHED);
    assert!(said.contains("another deployment may be under way"), "{said}");
    assert!(platform.events().is_empty(), "{events:?}: one at a time");

    let group = Pid::from_raw(killed.id().unwrap().cast_signed());
    killpg(group, Signal::SIGKILL).unwrap();
    killed.wait().await.unwrap();
    drop(go);
    // In the order of `Part::ALL`: half of it is new, and nobody has tried it.
    assert_eq!(platform.runs(), ["v1", "v1", "v2", "v2"]);
    assert!(!nothing_unfinished(&platform));
    platform.events();

    let said = ended(&deploy(&platform, "v3", PATIENT).await, TAKEN_BACK);
    assert!(said.contains("an earlier run has not ended"), "{said}");
    assert_eq!(platform.events()[..2], ["rollback warehouse v1", "rollback warranty v1"]);
    assert_eq!(platform.runs(), ["v1"; 4], "v2 was never found to be good");
    assert!(nothing_unfinished(&platform));

    ended(&deploy(&platform, "v2", PATIENT).await, DEPLOYED);
    assert_eq!(platform.runs(), ["v2"; 4]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_deployment_that_fails_or_is_interrupted_is_run_again() {
    let platform = Platform::configured().await;
    platform.build("v1", &[(Part::Warehouse, Fault::Web(&["false"]))]);
    platform.build("v2", &[]);
    let said = ended(&deploy(&platform, "v1", PATIENT).await, SOMEBODY_HAS_TO_LOOK);
    assert!(said.contains("there was no store before"), "{said}");

    let (reached, go) = platform.hold(Part::Order);
    let mut interrupted = platform.spawn(&["heroku/deploy", "v2"], PATIENT);
    tokio::task::spawn_blocking(move || reached.recv()).await.unwrap().unwrap();
    kill(Pid::from_raw(interrupted.id().unwrap().cast_signed()), Signal::SIGTERM).unwrap();
    drop(go);
    assert_eq!(interrupted.wait().await.unwrap().code(), Some(SOMEBODY_HAS_TO_LOOK));
    assert!(!nothing_unfinished(&platform));
    platform.events();

    ended(&deploy(&platform, "v2", PATIENT).await, DEPLOYED);
    assert_eq!(platform.runs(), ["v2"; 4]);
    assert!(nothing_unfinished(&platform));
}
