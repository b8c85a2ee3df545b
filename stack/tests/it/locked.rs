//! Services and operators need tokens: nobody else gets anywhere, and everything else is as it was.

use std::path::Path;
use std::{fs, io};

use futures_util::future::join_all;
use serde_json::json;
use service::testing::network::Act;
use service::testing::{Call, Client, assert_envelope, until};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use uuid::Uuid;

use crate::purchase::purchase_list_claim_and_refund;
use crate::world::shop::{MODEL, Promise as _, SIZE};
use crate::world::{MANAGEMENT_TOKEN, Part, RECOVERY, SERVICE_TOKEN, World, met};

/// What a path takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lock {
    Open,
    Service,
    Management,
}

impl Lock {
    /// As the promise has it, and not as the services do.
    fn of(part: Part, path: &str) -> Self {
        let path = path.trim_end_matches('/');
        let below = |top: &str| path == top || path.starts_with(&format!("{top}/"));
        if ["/manage/health", "/manage/health/live", "/manage/health/ready"].contains(&path) {
            Self::Open
        } else if below("/manage") || below("/metrics") {
            Self::Management
        } else if part == Part::Store {
            Self::Open
        } else {
            Self::Service
        }
    }

    fn key(self) -> Option<&'static str> {
        match self {
            Self::Open => None,
            Self::Service => Some(SERVICE_TOKEN),
            Self::Management => Some(MANAGEMENT_TOKEN),
        }
    }
}

/// Every route of the service's own document, and many that it hasn't got.
async fn targets(client: &Client, part: Part) -> Vec<(String, String)> {
    let document = client.with_token(SERVICE_TOKEN).get("/api-docs/openapi.json").send().await.ok();
    let mut targets = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        let mut path = path.clone();
        while let (Some(start), Some(end)) = (path.find('{'), path.find('}')) {
            path.replace_range(start..=end, &Uuid::new_v4().to_string());
        }
        for method in item.as_object().unwrap().keys().filter(|key| *key != "parameters") {
            targets.push((method.to_uppercase(), path.clone()));
        }
        for method in ["PATCH", "OPTIONS", "BREW"] {
            targets.push((method.to_owned(), path.clone()));
        }
        targets.push(("GET".to_owned(), format!("{path}/")));
        targets.push(("GET".to_owned(), format!("{path}/more")));
    }
    assert!(targets.len() > 30, "{part:?} has a document: {targets:?}");
    let made_up = [
        "/",
        "/nowhere",
        "/api",
        "/api/v1",
        "/api/v2/orders",
        "/docs",
        "/docs/",
        "/docs/swagger-ui.css",
        "/api-docs",
        "/api-docs/openapi.json",
        "/metrics",
        "/metrics/",
        "/metrics/more",
        "/manage",
        "/manage/",
        "/manage/nothing",
        "/manage/health/more",
        "/manage/healthy",
        "/manage/health%2Flive",
        "/manage/deferred",
        "/manage/sagas",
        "/managed",
        "/%6danage/resilience",
        "//manage/resilience",
        "/manage//resilience",
        "/manage/../api/v1",
        "/MANAGE/resilience",
    ];
    targets.extend(made_up.map(|path| ("GET".to_owned(), path.to_owned())));
    targets
}

/// `Authorization` that lets nobody in where `key` would.
fn wrong(key: &str) -> Vec<Vec<&'static [u8]>> {
    let other = if key == SERVICE_TOKEN { MANAGEMENT_TOKEN } else { SERVICE_TOKEN };
    let [changed, cut, longer, upper] = [
        format!("Bearer {}x", &key[..key.len() - 1]),
        format!("Bearer {}", &key[..32]),
        format!("Bearer {key}x"),
        format!("Bearer {}", key.to_uppercase()),
    ];
    let [bare, basic, tail] =
        [key.to_owned(), format!("Basic {key}"), format!("Bearer {key} {key}")];
    let mut all: Vec<Vec<&'static [u8]>> = vec![
        vec![],
        vec![b""],
        vec![b"Bearer"],
        vec![b"Bearer "],
        vec![b"Bearer \xff\xfe"],
        vec![b"Bearer null"],
    ];
    for header in [changed, cut, longer, upper, bare, basic, tail, format!("Bearer {other}")] {
        all.push(vec![header.leak().as_bytes()]);
    }
    let right: &'static [u8] = format!("Bearer {key}").leak().as_bytes();
    all.push(vec![right, right]);
    all
}

fn call(client: &Client, method: &str, target: &str, authorization: &[&[u8]]) -> Call {
    let call =
        client.call(method, target).json(&json!({"model": MODEL, "size": SIZE, "reason": "r"}));
    authorization.iter().fold(call, |call, value| call.header("Authorization", value))
}

#[tokio::test]
async fn nobody_gets_anywhere_but_to_health_without_the_right_token() {
    let world = World::plan().locked().start().await;
    join_all(Part::ALL.map(async |part| {
        let client = world.client(part);
        for (number, (method, target)) in targets(&client, part).await.into_iter().enumerate() {
            match Lock::of(part, &target).key() {
                Some(key) => is_refused(&client, &method, &target, key, number).await,
                None => is_open(&client, &method, &target).await,
            }
        }
    }))
    .await;
    world.settles_with(&[]).await;
    join_all(Part::ALL.map(async |part| {
        let client = world.client(part);
        for (method, target) in targets(&client, part).await {
            if let Some(key) = Lock::of(part, &target).key() {
                let right = format!("Bearer {key}");
                let answer = call(&client, &method, &target, &[right.as_bytes()]).send().await;
                assert_ne!(answer.status, 401, "{part:?} {method} {target}: {answer:?}");
            }
        }
    }))
    .await;
    world.settles().await;
}

/// The way of each is the same: all that is wrong on some, and some of it on all.
async fn is_refused(client: &Client, method: &str, target: &str, key: &str, number: usize) {
    let realm = if key == SERVICE_TOKEN { "service" } else { "management" };
    let step = if number.is_multiple_of(8) { 1 } else { 4 };
    for header in wrong(key).iter().skip(number % step).step_by(step) {
        let what = format!("{method} {target} {header:?}");
        let answer = call(client, method, target, header).send().await;
        assert_eq!(answer.status, 401, "{what}: {answer:?}");
        assert_envelope(&answer, 401, "unauthorized");
        let challenge = answer.header("www-authenticate").unwrap();
        assert!(challenge.starts_with(&format!("Bearer realm=\"{realm}\"")), "{what}: {challenge}");
        let sent = header.iter().any(|value| value.starts_with(b"Bearer"));
        assert_eq!(challenge.ends_with(", error=\"invalid_token\""), sent, "{what}: {challenge}");
    }
}

async fn is_open(client: &Client, method: &str, target: &str) {
    for header in [&b"Bearer nonsense"[..], b"Basic x", b""] {
        let answer = call(client, method, target, &[header]).send().await;
        assert_ne!(answer.status, 401, "{method} {target}: {answer:?}");
    }
}

#[tokio::test]
async fn a_refusal_is_seen_by_who_writes_before_reading() {
    let world = World::plan().locked().start().await;
    let client = world.client(Part::Warehouse);
    for size in [0, 1, 1024, 64 * 1024] {
        for chunked in [false, true] {
            let call =
                client.post("/api/v1/warehouse").body(Some("application/json"), vec![b' '; size]);
            let call = if chunked { call.chunked() } else { call };
            assert_envelope(&call.send().await, 401, "unauthorized");
        }
    }
}

/// One request on a connection that goes on, in two pieces, the second once the first was refused.
/// Whether the connection still is any good for another one.
async fn goes_on_after_a_refusal(world: &World) -> io::Result<bool> {
    let (client, size) = (world.client(Part::Warehouse), 64 * 1024);
    let operator = client.with_token(MANAGEMENT_TOKEN);
    let refused = async || {
        operator.metric("access_tokens_total", &[("kind", "service"), ("token", "none")]).await
    };
    let before = refused().await;
    let url = world.replica(Part::Warehouse, 0).url();
    let mut stream = TcpStream::connect(url.trim_start_matches("http://")).await?;
    let head = |size| {
        format!("POST /api/v1/warehouse HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n")
    };
    stream.write_all(head(size).as_bytes()).await?;
    until(RECOVERY, "it is refused", async || (refused().await > before).then_some(())).await;
    stream.write_all(&vec![b' '; size]).await?;
    stream.write_all(head(0).as_bytes()).await?;
    let mut answers = String::new();
    let mut piece = [0; 4096];
    while answers.matches("HTTP/1.1 401 ").count() < 2 {
        match stream.read(&mut piece).await? {
            0 => return Ok(false),
            read => answers += &String::from_utf8_lossy(&piece[..read]),
        }
    }
    Ok(true)
}

#[tokio::test]
async fn what_comes_with_a_refused_request_is_read_so_that_its_connection_goes_on() {
    let world = World::plan().locked().start().await;
    // It waits for a second: on a crowded machine that may be over.
    for _ in 0..5 {
        if goes_on_after_a_refusal(&world).await.is_ok_and(|goes_on| goes_on) {
            return;
        }
    }
    panic!("the connection is closed while its client writes");
}

#[tokio::test]
async fn everything_a_user_does_works_in_a_locked_store() {
    purchase_list_claim_and_refund(&World::plan().locked().patient().start().await).await;
}

#[tokio::test]
async fn what_is_made_up_for_later_by_another_process_is_let_in_too() {
    let world = World::plan().locked().impatient().proxied(Part::Warranty).start().await;
    // A claim that waits in Store.
    let order = world.bought().await;
    world.kill(Part::Warehouse).await;
    let claim = world.claim(order).send().await.queued(order);
    world.kill(Part::Store).await;
    world.restart(Part::Warehouse).await;
    world.restart(Part::Store).await;
    let claim = world.settled_claim(RECOVERY * 2, order, claim).await;
    assert_eq!(claim["status"], "DECIDED", "{claim}");

    // A purchase that dies with Order, once all breakers let it get that far.
    let another = world.bought().await;
    let held = world.proxy(Part::Warranty).once("POST /api/v1/warranty/", Act::Hold);
    let dies = async {
        met(&held).await;
        world.kill(Part::Order).await;
    };
    let (refused, ()) = tokio::join!(world.buy().send(), dies);
    assert_eq!(refused.status, 503, "{refused:?}");
    world.proxy(Part::Warranty).heal();
    world.restart(Part::Order).await;
    world.owes_nothing().await;
    world.settles_with(&[order, another]).await;
}

#[tokio::test]
async fn operators_reach_it_from_anywhere_with_their_token_and_with_no_other() {
    let world = World::plan().locked().start().await;
    let far = |call: Call| {
        call.header("X-Forwarded-For", "203.0.113.7").header("Origin", "https://x.example")
    };
    for part in [Part::Store, Part::Order] {
        let client = world.client(part).with_token(MANAGEMENT_TOKEN);
        let command = client.post("/manage/resilience/warehouse").json(&json!({"action": "reset"}));
        assert_eq!(far(command).send().await.ok()["scope"], "replica");
        far(client.get("/manage/deferred")).send().await.ok();
        let access = client.get("/manage/access").send().await.ok();
        let api = if part == Part::Store { "open" } else { "token" };
        assert_eq!(
            access,
            json!({"service": part.name(), "api": api, "management": "token", "serviceTokens": 1,
                   "managementTokens": 1, "allowedOpen": false})
        );
    }
}

/// Restarts one with these tokens, as a platform does with changed variables.
async fn restart_with(world: &World, part: Part, service: &str, management: &str) {
    let process = world.replica(part, 0);
    assert!(process.terminate().await.success());
    process.spawn_with(&[("SERVICE_TOKENS", service), ("MANAGEMENT_TOKENS", management)]);
    process.ready().await;
}

#[tokio::test]
async fn tokens_are_rotated_one_service_after_the_other_and_no_request_fails() {
    const NEW: &str = "another-service-token-that-is-as-long";
    const NEW_MANAGEMENT: &str = "another-management-token-that-is-as-long";
    let world = World::plan().locked().patient().start().await;
    let kept = [(SERVICE_TOKEN, NEW), (MANAGEMENT_TOKEN, NEW_MANAGEMENT)];
    let both = kept.map(|(old, new)| format!("{old},{new}"));
    let swapped = kept.map(|(old, new)| format!("{new},{old}"));
    let alone = kept.map(|(_, new)| new.to_owned());
    let mut orders = Vec::new();
    // Accepted everywhere, then sent everywhere, then the old one taken away.
    for [service, management] in [both, swapped, alone] {
        for part in Part::ALL {
            restart_with(&world, part, &service, &management).await;
            let order = world.buy().send().await.bought();
            assert_eq!(world.claim(order).send().await.ok()["decision"], "RETURN");
            let shown = world.get(order).send().await.ok();
            assert!(shown.get("degraded").is_none(), "{part:?} with {service}: {shown}");
            world.refund(order).send().await.no_content();
            orders.push(order);
        }
    }
    for part in [Part::Order, Part::Warehouse, Part::Warranty] {
        let client = world.client(part);
        let old = client.with_token(SERVICE_TOKEN).get("/api-docs/openapi.json").send().await;
        assert_envelope(&old, 401, "unauthorized");
        client.with_token(NEW).get("/api-docs/openapi.json").send().await.ok();
        let old = client.with_token(MANAGEMENT_TOKEN).get("/metrics").send().await;
        assert_envelope(&old, 401, "unauthorized");
        // Which of them is in use is what tells when the old one may go.
        let operator = client.with_token(NEW_MANAGEMENT);
        let first = [("kind", "service"), ("token", "first")];
        assert!(operator.metric("access_tokens_total", &first).await >= 1.0);
    }
    assert_eq!(orders.len(), 12);
    world.settles_with(&[]).await;
}

#[tokio::test]
async fn a_peer_that_refuses_the_token_is_unavailable_and_nothing_is_left_behind() {
    let world = World::plan().locked().impatient().start().await;
    let order = world.bought().await;
    let other = "a-token-that-nobody-else-has-heard-of";
    restart_with(&world, Part::Warranty, other, MANAGEMENT_TOKEN).await;
    let refused = world.buy().send().await;
    assert_eq!(refused.status, 503, "{refused:?}");
    refused.blames("rolled_back", Part::Warranty);
    let claim = world.claim(order).send().await.queued(order);
    world.settles_with(&[order]).await;
    restart_with(&world, Part::Warranty, SERVICE_TOKEN, MANAGEMENT_TOKEN).await;
    let claim = world.settled_claim(RECOVERY * 2, order, claim).await;
    assert_eq!(claim["status"], "DECIDED", "{claim}");
}

#[test]
fn a_service_that_others_can_reach_does_not_start_without_tokens() {
    let start = |variables: &[(&str, &str)]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_stack"));
        command.args(["service", "warranty", "serve"]).env_clear();
        // Nobody is there: whoever gets as far as that waits for its database.
        command.env("DATABASE_URL", "postgres://u:geheim@127.0.0.1:1/d").env("PORT", "0");
        command.envs(variables.iter().copied()).env("BIND", "0.0.0.0");
        command
    };
    for short in [&[][..], &[("SERVICE_TOKENS", "geheim"), ("MANAGEMENT_TOKENS", "geheim")]] {
        let output = start(short).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("SERVICE_TOKENS") && said.contains("MANAGEMENT_TOKENS"), "{said}");
        assert!(!said.contains("geheim"), "{said}");
    }
    let log = tempfile::NamedTempFile::new().unwrap();
    let mut open = start(&[("ALLOW_OPEN", "1")]).stderr(log.reopen().unwrap()).spawn().unwrap();
    let said = || fs::read_to_string(log.path()).unwrap();
    let warned = backing::process::wait_until(std::time::Duration::from_secs(20), || {
        said().contains("listening")
    });
    open.kill().unwrap();
    open.wait().unwrap();
    let said = said();
    assert!(
        warned && said.contains("WARN") && said.contains("ALLOW_OPEN: others can connect"),
        "{said}"
    );
}

/// What [SECURITY.md](../../../SECURITY.md) promises, it promises by these.
#[test]
fn each_test_that_the_threat_model_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut sources = String::new();
    let mut folders: Vec<_> =
        ["resilience", "service", "stack", "store"].map(|name| root.join(name)).into();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                sources += &fs::read_to_string(path).unwrap();
            }
        }
    }
    let text = fs::read_to_string(root.join("SECURITY.md")).unwrap();
    let named: Vec<_> = text.split('`').skip(1).step_by(2).collect();
    let tests = |name: &&&str| name.matches('_').count() >= 3 && !name.contains([' ', '/', '{']);
    let tests: Vec<_> = named.iter().filter(tests).collect();
    assert!(tests.len() > 25, "{tests:?}");
    for name in tests {
        assert!(sources.contains(&format!("fn {name}(")), "SECURITY.md names {name}");
    }
}
