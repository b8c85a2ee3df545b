//! `kubernetes/deploy`, on a stand-in for the cluster's command line that keeps its revisions. The store
//! that it tries is a real one.

use std::path::Path;
use std::process::Output;

use tokio::process::Command;

use super::file;
use crate::world::{Part, World};

async fn deploy(state: &Path, tag: &str, store: &str) -> Output {
    let path = format!("{}:{}", state.display(), std::env::var("PATH").unwrap());
    Command::new(file("kubernetes/deploy"))
        .arg(tag)
        .env("PATH", path)
        .env("KUBECTL_STATE", state)
        .env("IMAGES", "images.test/shop")
        .env("HOST", "shop.test")
        .env("STORE_ADDRESS", store)
        .env("SMOKE_SECONDS", if store.ends_with(":1") { "1" } else { "60" })
        .output()
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_that_does_not_end_is_undone_callers_first() {
    let world = World::start().await;
    let store = world.replica(Part::Store, 0).url();
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path();
    let stand_in = file("stack/tests/it/ship/kubectl").canonicalize().unwrap();
    std::os::unix::fs::symlink(stand_in, state.join("kubectl")).unwrap();
    let events = || {
        let events = std::fs::read_to_string(state.join("events")).unwrap();
        std::fs::remove_file(state.join("events")).unwrap();
        events.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let said = |output: &Output| String::from_utf8_lossy(&output.stderr).into_owned();

    let output = deploy(state, "v1", &store).await;
    assert!(output.status.success(), "{}", said(&output));
    let released = ["warranty", "warehouse", "order", "store"]
        .map(|name| [format!("migrate {name}"), format!("release {name} v1")]);
    assert_eq!(events(), released.concat());

    // Warranty is the first one, so nothing of others is touched.
    let output = deploy(state, "bad", &store).await;
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert_eq!(events(), ["migrate warranty", "release warranty bad", "rollback warranty v1"]);
    assert!(!state.join("unfinished").exists());

    // Nobody answers there: all of it is undone, and somebody has to look.
    let output = deploy(state, "v2", "http://127.0.0.1:1").await;
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    let rolled_back =
        ["store", "order", "warehouse", "warranty"].map(|name| format!("rollback {name} v1"));
    assert_eq!(events()[8..], rolled_back);
    assert!(state.join("unfinished").exists(), "the next run goes back first");
}
