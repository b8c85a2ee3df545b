//! `doctor` names what is wrong, in exactly the lines that it takes, and ends in time whatever hangs.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use backing::certificate::Authority;
use backing::postgres::testing::TestDatabase;
use service::testing::jwt::SigningKey;
use service::testing::operator::command;
use service::testing::{sql, until};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::block_in_place;

use crate::world::{MANAGEMENT_TOKEN, Part, SERVICE_TOKEN, World};

/// A crowded machine is given as much again as what is promised.
const BOUND: Duration = Duration::from_secs(30);

/// What it has said.
struct Said {
    code: Option<i32>,
    lines: Vec<String>,
}

impl Said {
    fn of(output: &Output) -> Self {
        let text = String::from_utf8(output.stdout.clone()).unwrap();
        let errors = String::from_utf8(output.stderr.clone()).unwrap();
        for secret in ["geheim", SERVICE_TOKEN, MANAGEMENT_TOKEN] {
            assert!(!text.contains(secret) && !errors.contains(secret), "{secret}: {text}{errors}");
        }
        assert_eq!(errors, "", "{text}");
        Self { code: output.status.code(), lines: text.lines().map(str::to_owned).collect() }
    }

    fn at(&self, level: &str) -> Vec<&str> {
        let found = self.lines.iter().filter(|line| line.starts_with(level));
        found.map(|line| line[9..].trim()).collect()
    }

    /// Exactly these errors: each a service's name, and something of what is said of it.
    #[track_caller]
    fn errors_are(&self, expected: &[(&str, &str)]) {
        let errors = self.at("error");
        let all = errors.len() == expected.len()
            && errors.iter().zip(expected).all(|(line, (thing, said))| {
                line.starts_with(&format!("{thing} ")) && line.contains(said)
            });
        assert!(all, "expected {expected:?}: {:#?}", self.lines);
        assert_eq!(self.code, Some(i32::from(!expected.is_empty())), "{:#?}", self.lines);
    }

    #[track_caller]
    fn is_all_ok(&self) {
        self.errors_are(&[]);
        assert_eq!(self.at("warning"), Vec::<&str>::new());
        assert!(self.at("ok").len() > 3, "{:#?}", self.lines);
    }
}

/// The program, with nothing of what this test was started with.
fn doctor(arguments: &[&str], variables: &[(&str, &str)]) -> Said {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stack"));
    command.args(arguments).env_clear().envs(variables.iter().copied());
    let begin = Instant::now();
    let said = Said::of(&block_in_place(|| command.output().unwrap()));
    assert!(begin.elapsed() < BOUND, "{:?}: {:#?}", begin.elapsed(), said.lines);
    said
}

/// Each service's option, with the address of the one that is given for it.
fn addresses(world: &World, parts: &[(Part, Part)]) -> Vec<String> {
    let option =
        |(part, at): &(Part, Part)| [format!("--{}", part.name()), world.replica(*at, 0).url()];
    parts.iter().flat_map(option).collect()
}

const TOKENS: [(&str, &str); 2] =
    [("SERVICE_TOKENS", SERVICE_TOKEN), ("MANAGEMENT_TOKENS", MANAGEMENT_TOKEN)];

fn visit(world: &World, variables: &[(&str, &str)]) -> Said {
    let addresses = addresses(world, &Part::ALL.map(|part| (part, part)));
    let mut arguments = vec!["doctor"];
    arguments.extend(addresses.iter().map(String::as_str));
    doctor(&arguments, variables)
}

/// Asks until the errors are these: what happens to a server is noticed a little later.
async fn comes_to(world: &World, expected: &[(&str, &str)]) {
    let count = expected.len();
    let what = format!("doctor says {expected:?}");
    let said = until(Duration::from_mins(1), &what, async || {
        let said = visit(world, &TOKENS);
        (said.at("error").len() == count).then_some(said)
    });
    said.await.errors_are(expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_names_what_is_wrong_with_a_deployed_store_and_nothing_else() {
    let world = World::plan().locked().own_postgres().broker().start().await;
    comes_to(&world, &[]).await;
    visit(&world, &TOKENS).is_all_ok();

    // Tokens: of files too, none, the wrong ones.
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let service = file("service", SERVICE_TOKEN);
    let management = file("management", &format!("Authorization: Bearer {MANAGEMENT_TOKEN}\n"));
    let order = world.replica(Part::Order, 0).url();
    let one = ["doctor", "--order", &order];
    let given = [&one[..], &["--service-token", &service, "--management-token", &management]];
    // Nothing else is needed then.
    doctor(&given.concat(), &[("CONFIG_PATH", "/nowhere")]).is_all_ok();
    let none = doctor(&one, &[]);
    none.errors_are(&[]);
    assert_eq!(none.at("warning").len(), 2, "{:#?}", none.lines);
    let wrong = "a-token-that-nobody-has-heard-of-geheim";
    let refused = "doesn't take the management token of MANAGEMENT_TOKENS";
    doctor(&one, &[TOKENS[0], ("MANAGEMENT_TOKENS", wrong)]).errors_are(&[("order", refused)]);
    doctor(&one, &[TOKENS[1], ("SERVICE_TOKENS", wrong)])
        .errors_are(&[("order", "doesn't take the service token of SERVICE_TOKENS")]);

    // Addresses.
    let swapped = [(Part::Store, Part::Store), (Part::Order, Part::Warehouse)];
    let addresses = addresses(&world, &swapped);
    let arguments: Vec<_> =
        ["doctor"].into_iter().chain(addresses.iter().map(String::as_str)).collect();
    doctor(&arguments, &TOKENS).errors_are(&[("order", "is warehouse, not order")]);

    // What waits for somebody, and breakers.
    let operator = world.client(Part::Store).with_token(MANAGEMENT_TOKEN);
    command(&operator, "warranty", "force_open").send().await.ok();
    let held = visit(&world, &TOKENS);
    held.errors_are(&[]);
    let warnings = held.at("warning");
    assert!(
        warnings.len() == 1 && warnings[0].contains("breaker warranty is held"),
        "{warnings:?}"
    );
    command(&operator, "warranty", "reset").send().await.ok();
    world.bought().await;
    world.execute(
        Part::Store,
        "INSERT INTO deferred (id, kind, payload, state, not_before, ended_at)
         VALUES (gen_random_uuid(), 'claim', '{}', 'parked', now(), now())",
    );
    world.execute(
        Part::Order,
        "INSERT INTO saga (id, kind, input, state) VALUES (gen_random_uuid(), 'place', '{}', 'stuck')",
    );
    visit(&world, &TOKENS).errors_are(&[
        ("store", "1 deferred calls of the kind claim are parked"),
        ("order", "1 sagas of the kind place are stuck"),
    ]);
    world.execute(Part::Store, "UPDATE deferred SET discarded_at = now()");
    world.execute(Part::Order, "DELETE FROM saga WHERE state = 'stuck'");
    visit(&world, &TOKENS).is_all_ok();

    // What dies, and what hangs.
    world.kill(Part::Warranty).await;
    visit(&world, &TOKENS).errors_are(&[("warranty", "no connection: connection refused")]);
    world.restart(Part::Warranty).await;
    world.freeze(Part::Order);
    visit(&world, &TOKENS).errors_are(&[("order", "takes connections and doesn't answer")]);
    world.thaw(Part::Order);
    comes_to(&world, &[]).await;
    block_in_place(|| world.postgres().stop());
    visit(&world, &TOKENS).errors_are(&Part::ALL.map(|part| (part.name(), "use its database")));
    block_in_place(|| world.postgres().start());
    comes_to(&world, &[]).await;
    block_in_place(|| world.broker().stop());
    let lost = "no connection to its RabbitMQ";
    comes_to(&world, &[("store", lost), ("order", lost)]).await;
}

/// An address of this machine that is no loopback one, where it has any. Nothing is sent.
fn outside() -> Option<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    let ip = socket.local_addr().ok()?.ip();
    (!ip.is_loopback() && !ip.is_unspecified()).then_some(ip)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_says_what_it_lacks_and_an_open_one_is_an_error() {
    let world = World::start().await;
    visit(&world, &[]).is_all_ok();
    let [warehouse, warranty] =
        [Part::Warehouse, Part::Warranty].map(|part| world.replica(part, 0).url());
    let given = [
        ("DATABASE_URL", world.database(Part::Order)),
        ("WAREHOUSE_URL", warehouse.as_str()),
        ("WARRANTY_URL", warranty.as_str()),
        ("PORT", "0"),
    ];
    let order = |changed: &[(&str, &str)]| {
        doctor(&["service", "order", "doctor"], &[&given[..], changed].concat())
    };
    order(&[]).is_all_ok();
    order(&[("WARRANTY_URL", &warehouse)])
        .errors_are(&[("warranty", "is warehouse, not warranty")]);
    // Where it runs already it says so; somebody else's port is an error.
    let own = world.replica(Part::Order, 0).url();
    order(&[("PORT", own.rsplit(':').next().unwrap())]).is_all_ok();
    order(&[("PORT", warranty.rsplit(':').next().unwrap())])
        .errors_are(&[("order", "is taken by warranty")]);
    let nowhere = "postgres://u:geheim@127.0.0.1:1/d";
    let wrong = [("DATABASE_URL", nowhere), ("AMQP_URL", "amqp://u:geheim@127.0.0.1:1/v")];
    order(&wrong)
        .errors_are(&[("order", "its database can't be used"), ("rabbitmq", "can't be used")]);
    order(&[("PORT", "x"), ("BIND", "y")]).errors_are(&[("order", "BIND"), ("order", "PORT")]);
    for tricky in ["p%zzgeheim", "p@geheim", "p@geheim:1@h"] {
        let tricky = format!("postgres://u:{tricky}@127.0.0.1:1/d");
        order(&[("DATABASE_URL", &tricky)]).errors_are(&[("order", "as %XX")]);
    }

    // Keys that somebody publishes, or doesn't.
    let set = serde_json::json!({"keys": [SigningKey::ec().jwk("k")]});
    let routes = axum::Router::new().route("/keys", axum::routing::get(axum::Json(set)));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let published = format!("http://{}", listener.local_addr().unwrap());
    let publisher = tokio::spawn(async move { axum::serve(listener, routes).await });
    let store = |keys: &str| {
        let urls = [("ORDER_URL", own.as_str()), ("DATABASE_URL", world.database(Part::Store))];
        let issued = [("USER_JWT_ISSUER", "i"), ("USER_JWT_AUDIENCE", "a")];
        let keys = [("USER_JWKS_URL", keys)];
        doctor(&["service", "store", "doctor"], &[&given[1..], &urls, &issued, &keys].concat())
    };
    store(&format!("{published}/keys?of=store")).is_all_ok();
    store(&published).errors_are(&[("store", "answers 404: look at USER_JWKS_URL")]);
    store(&format!("{warranty}/api-docs/openapi.json")).errors_are(&[("store", "has no key")]);
    publisher.abort();

    // It only looks.
    let empty = TestDatabase::new("e2e_empty", |_| Ok::<_, String>(()));
    let lacking = [("DATABASE_URL", empty.url()), ("MIGRATE_ON_START", "false")];
    order(&lacking).errors_are(&[("order", "run `order migrate`")]);
    let tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'";
    assert_eq!(sql::number(empty.url(), tables), 0);

    // Open to others: they can be told apart from this machine, or Warranty says so itself.
    let process = world.replica(Part::Warranty, 0);
    world.kill(Part::Warranty).await;
    process.spawn_with(&[("BIND", "0.0.0.0"), ("ALLOW_OPEN", "1")]);
    process.ready().await;
    let open = doctor(&["doctor", "--warranty", &warranty], &[]);
    open.errors_are(&[("warranty", "by ALLOW_OPEN")]);
    if let Some(ip) = outside() {
        let far = format!("http://{ip}:{}", warranty.rsplit(':').next().unwrap());
        let open = doctor(&["doctor", "--warranty", &far], &[]);
        let anyone = "anyone who can reach";
        open.errors_are(&[("warranty", anyone), ("warranty", anyone)]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn https_is_verified_and_a_certificate_that_ends_soon_is_named() {
    let world = World::start().await;
    let authority = Authority::new();
    let identity = authority.vouch_for("localhost");
    let key =
        native_tls::Identity::from_pkcs8(identity.certificate.as_bytes(), identity.key.as_bytes());
    let acceptor = native_tls::TlsAcceptor::new(key.unwrap()).unwrap();
    let acceptor = tokio_native_tls::TlsAcceptor::from(acceptor);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let behind = world.replica(Part::Warranty, 0).url().replace("http://", "");
    let front = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut behind = TcpStream::connect(&behind).await.unwrap();
            tokio::spawn(async move { copy_bidirectional(&mut stream, &mut behind).await });
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("authority.pem");
    std::fs::write(&file, authority.pem()).unwrap();
    let trust = |file: &Path| [("SSL_CERT_FILE".to_owned(), file.to_str().unwrap().to_owned())];
    let trust = trust(&file);
    let trust: Vec<_> = trust.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let at = |host: &str| format!("https://{host}:{port}");

    let trusted = doctor(&["doctor", "--warranty", &at("localhost")], &trust);
    trusted.errors_are(&[]);
    let warnings = trusted.at("warning");
    // It is good for a day.
    assert!(warnings.len() == 1 && warnings[0].contains("expires in"), "{warnings:?}");
    let failed = [("warranty", "certificate verify failed")];
    doctor(&["doctor", "--warranty", &at("localhost")], &[]).errors_are(&failed);
    // The name counts too.
    doctor(&["doctor", "--warranty", &at("127.0.0.1")], &trust).errors_are(&failed);
    front.abort();
}
