//! `kubernetes/`, on a stand-in for the cluster's command line that keeps its replica sets. The store
//! that `deploy` tries is a real one.

use std::path::Path;
use std::process::Output;

use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;

use super::file;
use crate::world::{Part, World};

/// A cluster: what it remembers is in this folder.
fn cluster() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let stand_in = file("stack/tests/it/ship/kubectl").canonicalize().unwrap();
    std::os::unix::fs::symlink(stand_in, folder.path().join("kubectl")).unwrap();
    folder
}

fn script(state: &Path, words: &[&str]) -> Command {
    let path = format!("{}:{}", state.display(), std::env::var("PATH").unwrap());
    let mut command = Command::new(file(words[0]));
    command.args(&words[1..]).env("PATH", path).env("KUBECTL_STATE", state).kill_on_drop(true);
    command
}

async fn deploy(state: &Path, tag: &str, store: &str) -> Output {
    script(state, &["kubernetes/deploy", tag])
        .env("IMAGES", "images.test/Shop")
        .env("HOST", "shop.test")
        .env("STORE_ADDRESS", store)
        .env("WAIT_STEP", "0.05")
        .env("SMOKE_SECONDS", if store.ends_with(":1") { "1" } else { "60" })
        .output()
        .await
        .unwrap()
}

async fn write_secrets(state: &Path, variables: &[(&str, &str)]) -> Output {
    let mut command = script(state, &["kubernetes/secrets"]);
    for part in Part::ALL {
        let name = part.name();
        let url = format!("postgres://{name}:geheim@db.test/{name}?sslmode=require");
        command.env(format!("{}_DATABASE_URL", name.to_uppercase()), url);
    }
    command.envs(variables.iter().copied()).output().await.unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test]
async fn tokens_are_minted_once_and_each_service_is_given_its_own_secrets() {
    let cluster = cluster();
    let state = cluster.path();
    let secret = |name: &str| -> Value {
        let text = std::fs::read_to_string(state.join(format!("secret-{name}"))).unwrap();
        serde_json::from_str(&text).unwrap()
    };
    let output = write_secrets(state, &[("AMQP_URL", "amqps://u:geheim@broker.test")]).await;
    assert!(output.status.success(), "{}", said(&output));
    let minted = secret("tokens");
    for token in ["SERVICE_TOKENS", "MANAGEMENT_TOKENS"] {
        assert_eq!(minted[token].as_str().unwrap().len(), 64);
    }
    for part in Part::ALL {
        let given = secret(part.name());
        assert!(given["DATABASE_URL"].as_str().unwrap().ends_with("sslmode=require"));
        assert_eq!(given["AMQP_URL"].is_string(), part.defers(), "{given}");
        assert!(given["DATABASE_CA"].is_null());
    }

    let unanswered = write_secrets(state, &[("KUBECTL_FAILS", "get secret")]).await;
    assert!(!unanswered.status.success(), "whether there are tokens can't be told");
    assert_eq!(secret("tokens"), minted);
    let again = write_secrets(state, &[("DATABASE_CA", "PEM")]).await;
    assert!(again.status.success(), "{}", said(&again));
    assert_eq!(secret("tokens"), minted);
    assert_eq!(secret("order")["DATABASE_CA"], "PEM");
    for output in [output, unanswered, again] {
        assert!(output.stdout.is_empty() && !said(&output).contains("geheim"), "{output:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_that_does_not_end_is_undone_callers_first() {
    let world = World::start().await;
    let store = world.replica(Part::Store, 0).url();
    let cluster = cluster();
    let state = cluster.path();
    let events = || {
        let events = std::fs::read_to_string(state.join("events")).unwrap_or_default();
        let _ = std::fs::remove_file(state.join("events"));
        events.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let output = deploy(state, "v1", &store).await;
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    assert!(events().is_empty(), "without secrets nothing is touched");
    assert!(write_secrets(state, &[]).await.status.success());

    // Nothing ran before: there is nothing to go back to, and nothing in the way of the next one.
    let output = deploy(state, "bad", &store).await;
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    events();

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

    let output = deploy(state, "unmigrated", &store).await;
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("the database refuses"), "{}", said(&output));
    assert_eq!(events(), ["migrate warranty"]);

    // Nobody answers there: all of it is undone, and somebody has to look.
    let output = deploy(state, "v2", "http://127.0.0.1:1").await;
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    let rolled_back =
        ["store", "order", "warehouse", "warranty"].map(|name| format!("rollback {name} v1"));
    assert_eq!(events()[8..], rolled_back);
    assert!(state.join("unfinished").exists(), "the next run goes back first");

    // It is back already. A job that has failed, of the same build, is tried again.
    std::fs::write(state.join("mended"), "").unwrap();
    let output = deploy(state, "unmigrated", &store).await;
    assert!(output.status.success(), "{}", said(&output));
    assert!(!events().iter().any(|event| event.starts_with("rollback")), "{}", said(&output));
}
