//! A platform of apps, images and releases that does what Heroku says it does, in the place of its
//! command line: the scripts' `heroku` and `docker` ask it. What it runs are real processes.

mod commands;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::patch;
use axum::{Json, Router};
use backing::port;
use backing::postgres::testing::{TestCluster, TestDatabase};
use backing::rabbitmq::testing::{TestBroker, TestVhost};
use serde_json::{Value, json};
use service::testing::sql;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio::sync::SemaphorePermit;

use super::dyno::{Dyno, Variables};
use super::{file, instruction, read};
use crate::world::{self, Part};

pub(crate) const PREFIX: &str = "acme-shop";
const IMAGES: &str = "images.test/acme";
const REGISTRY: &str = "registry.heroku.com";
/// Who may do anything here. It must show nowhere.
pub(crate) const KEY: &str = "the-key-of-the-platform";

/// Longest that a script may take, on a crowded machine.
const LIMIT: Duration = Duration::from_mins(4);

/// What is wrong with a build.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// A variable of the image, which an app's own would win over.
    Variable(&'static str, &'static str),
    /// What it serves with instead.
    Web(&'static [&'static str]),
    /// What it migrates with instead.
    Release(&'static [&'static str]),
}

#[derive(Clone, Debug)]
struct Image {
    part: Part,
    tag: String,
    faults: Vec<Fault>,
}

struct Release {
    number: u64,
    image: Option<Image>,
    variables: Variables,
    status: Status,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Status {
    /// Its command has not ended: it does when somebody has asked so many times more.
    Pending(u32),
    Failed,
    Succeeded,
}

#[derive(Default)]
struct App {
    port: u16,
    variables: Variables,
    releases: Vec<Release>,
    dyno: Option<Dyno>,
    add_ons: Vec<String>,
}

/// Where add-ons are from.
pub(crate) struct AddOns {
    pub(crate) postgres: TestCluster,
    pub(crate) broker: TestBroker,
}

#[derive(Default)]
struct Inner {
    builds: BTreeMap<String, Vec<(Part, Fault)>>,
    tags: BTreeMap<String, String>,
    pushed: BTreeMap<String, Image>,
    apps: BTreeMap<String, App>,
    events: Vec<String>,
    said: String,
    system: Variables,
    add_ons: Option<AddOns>,
    vhosts: Vec<TestVhost>,
    held: Option<(Part, Sender<()>, Receiver<()>)>,
    logs: PathBuf,
}

/// Dropped, it and all that it runs is gone.
pub(crate) struct Platform {
    url: String,
    stand_in_port: u16,
    shared: Arc<Mutex<Inner>>,
    folder: TempDir,
    databases: Vec<TestDatabase>,
    _turn: SemaphorePermit<'static>,
}

impl Platform {
    /// Without any app.
    pub(crate) async fn start() -> Self {
        let turn = world::room(8).await;
        let folder = tempfile::tempdir().unwrap();
        for name in ["heroku", "docker"] {
            let stand_in = file("stack/tests/it/ship/stand-in").canonicalize().unwrap();
            std::os::unix::fs::symlink(stand_in, folder.path().join(name)).unwrap();
        }
        let logs = folder.path().to_owned();
        let shared = Arc::new(Mutex::new(Inner { logs, ..Inner::default() }));
        let routes = Router::new()
            .route("/apps/{app}/config-vars", patch(configure))
            .with_state(Arc::clone(&shared));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stand_in_port = listener.local_addr().unwrap().port();
        let asked = Arc::clone(&shared);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(Arc::clone(&asked), stream));
            }
        });
        Self { url, stand_in_port, shared, folder, databases: Vec::new(), _turn: turn }
    }

    /// With the four apps, on databases that are migrated and seeded, running the build `v1`.
    pub(crate) async fn selling() -> Self {
        let platform = Self::configured().await;
        platform.build("v1", &[]);
        {
            let mut inner = platform.lock();
            for part in Part::ALL {
                let image = Image { part, tag: "v1".to_owned(), faults: Vec::new() };
                assert!(inner.release(&name(part), Some(image)), "v1 is released");
            }
            inner.events.clear();
        }
        platform
    }

    /// With the four apps, on databases that are migrated and seeded, and nothing that runs.
    pub(crate) async fn configured() -> Self {
        let mut platform = Self::start().await;
        let databases = Part::ALL.map(|part| {
            let template = format!("e2e_{}", part.name());
            TestCluster::shared().database(&template, |url| world::prepare(part, url))
        });
        {
            let mut inner = platform.lock();
            inner.create(&format!("{PREFIX}-deploys"));
            for part in Part::ALL {
                inner.create(&name(part));
            }
            for (part, database) in Part::ALL.into_iter().zip(&databases) {
                let mut variables = manifest_variables(part);
                let mut set = |name: &str, value: &str| {
                    variables.insert(name.to_owned(), value.to_owned());
                };
                set("DATABASE_URL", database.url());
                set("SERVICE_TOKENS", "0123456789abcdef0123456789abcdef");
                set("MANAGEMENT_TOKENS", "fedcba9876543210fedcba9876543210");
                // What a test may wait for is not the breakers' patience.
                set("BREAKER_OPEN_MS", "300");
                for other in Part::ALL.into_iter().filter(|other| part.calls(*other)) {
                    let url = inner.app(&name(other)).url();
                    set(&format!("{}_URL", other.name().to_uppercase()), &url);
                }
                let app = inner.app(&name(part));
                app.variables = variables;
                app.add_ons = ["heroku-postgresql", "cloudamqp"].map(str::to_owned).to_vec();
                inner.change(&name(part));
            }
        }
        platform.databases.extend(databases);
        platform
    }

    /// From now on databases and brokers are had here, and images trust this authority for others.
    pub(crate) fn sell_add_ons(&self, add_ons: AddOns, authority: &str) {
        let path = self.folder.path().join("authorities.pem");
        std::fs::write(&path, authority).unwrap();
        let mut inner = self.lock();
        inner.system.insert("SSL_CERT_FILE".to_owned(), path.to_str().unwrap().to_owned());
        inner.add_ons = Some(add_ons);
    }

    /// There is a build of this tag now.
    pub(crate) fn build(&self, tag: &str, faults: &[(Part, Fault)]) {
        self.lock().builds.insert(tag.to_owned(), faults.to_vec());
    }

    /// A script of `heroku/` or `scripts/`, to its end.
    pub(crate) async fn script(&self, words: &[&str], variables: &[(&str, &str)]) -> Output {
        let child = self.spawn(words, variables);
        tokio::time::timeout(LIMIT, child.wait_with_output()).await.expect("it ends").unwrap()
    }

    /// The same, running, in a process group of its own.
    pub(crate) fn spawn(
        &self,
        words: &[&str],
        variables: &[(&str, &str)],
    ) -> tokio::process::Child {
        let path = std::env::var("PATH").unwrap();
        Command::new(file(words[0]))
            .args(&words[1..])
            .env_clear()
            .env("PATH", format!("{}:{path}", self.folder.path().display()))
            .env("HEROKU_PREFIX", PREFIX)
            .env("HEROKU_API_KEY", KEY)
            .env("HEROKU_API_URL", &self.url)
            .env("STAND_IN_PORT", self.stand_in_port.to_string())
            .env("IMAGES", IMAGES)
            // Each look is some processes.
            .env("WAIT_STEP", "0.25")
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .unwrap()
    }

    /// From now on whoever releases this waits. What is returned tells when somebody does; dropped, the
    /// release fails.
    pub(crate) fn hold(&self, part: Part) -> (Receiver<()>, Sender<()>) {
        let (reached, is_reached) = channel();
        let (go, going) = channel();
        self.lock().held = Some((part, reached, going));
        (is_reached, go)
    }

    /// What was released and rolled back since this was asked last.
    pub(crate) fn events(&self) -> Vec<String> {
        std::mem::take(&mut self.lock().events)
    }

    /// The tags of what the four run, in the order of [`Part::ALL`].
    pub(crate) fn runs(&self) -> [String; 4] {
        let mut inner = self.lock();
        Part::ALL.map(|part| {
            let app = inner.app(&name(part));
            let image = app.current().and_then(|release| release.image.clone());
            image.map_or_else(String::new, |image| image.tag)
        })
    }

    pub(crate) fn apps(&self) -> Vec<String> {
        self.lock().apps.keys().cloned().collect()
    }

    pub(crate) fn variable(&self, app: &str, variable: &str) -> Option<String> {
        self.lock().app(app).variables.get(variable).cloned()
    }

    /// Sets a variable of an app in which nothing runs.
    pub(crate) fn set_variable(&self, app: &str, variable: &str, value: &str) {
        self.lock().app(app).variables.insert(variable.to_owned(), value.to_owned());
    }

    /// Everything that a command line was given or has said.
    pub(crate) fn said(&self) -> String {
        self.lock().said.clone()
    }

    pub(crate) fn store_url(&self) -> String {
        self.lock().app(&name(Part::Store)).url()
    }

    pub(crate) fn log(&self, part: Part) -> String {
        std::fs::read_to_string(self.folder.path().join(name(part))).unwrap_or_default()
    }

    /// How many connections the role of each app has to its database at most, of those there are.
    pub(crate) fn connections(&self) -> Vec<i64> {
        let inner = self.lock();
        let admin = inner.add_ons.as_ref().unwrap().postgres.url("postgres");
        let of = |app: String| {
            let count = format!("SELECT count(*) FROM pg_stat_activity WHERE usename = '{app}'");
            sql::number(&admin, &count)
        };
        Part::ALL.map(|part| of(name(part))).to_vec()
    }

    /// How many connections of apps to their databases are not encrypted.
    pub(crate) fn unencrypted(&self) -> i64 {
        let inner = self.lock();
        let admin = inner.add_ons.as_ref().unwrap().postgres.url("postgres");
        let count = format!(
            "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
             WHERE usename LIKE '{PREFIX}%' AND NOT ssl"
        );
        sql::number(&admin, &count)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        lock(&self.shared)
    }
}

impl Drop for Platform {
    fn drop(&mut self) {
        // Before their databases.
        self.lock().apps.clear();
    }
}

/// The app of a service.
pub(crate) fn name(part: Part) -> String {
    format!("{PREFIX}-{}", part.name())
}

/// The variables to which a service's manifest gives a value.
fn manifest_variables(part: Part) -> Variables {
    let manifest = read(&format!("heroku/{}/app.json", part.name()));
    let manifest: Value = serde_json::from_str(&manifest).unwrap();
    let env = manifest["env"].as_object().unwrap().iter();
    env.filter_map(|(name, given)| Some((name.clone(), given["value"].as_str()?.to_owned())))
        .collect()
}

fn lock(shared: &Mutex<Inner>) -> MutexGuard<'_, Inner> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Answers one stand-in: it says its name, what it read, how many arguments it has, and those; it is told
/// how to end, and what to say.
async fn answer(shared: Arc<Mutex<Inner>>, mut stream: TcpStream) -> io::Result<()> {
    let (reader, mut writer) = stream.split();
    let mut lines = BufReader::new(reader).lines();
    let mut next = async || -> io::Result<String> {
        lines.next_line().await?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    };
    let (program, input) = (next().await?, next().await?);
    let mut words = Vec::new();
    for _ in 0..next().await?.parse().map_err(io::Error::other)? {
        words.push(next().await?);
    }
    let done = tokio::task::spawn_blocking(move || {
        wait_where_held(&shared, &words)?;
        let mut inner = lock(&shared);
        writeln!(inner.said, "{program} {}", words.join(" ")).unwrap();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        match program.as_str() {
            "docker" => inner.docker(&words, &input),
            _ => inner.heroku(&words),
        }
    });
    let (code, said) = match done.await.unwrap() {
        Ok(said) => (0, said),
        Err(said) => (1, said),
    };
    writer.write_all(format!("{code}\n{said}").as_bytes()).await
}

/// Where a test holds a release up, it doesn't happen.
fn wait_where_held(shared: &Mutex<Inner>, words: &[String]) -> Result<(), String> {
    let mut inner = lock(shared);
    if !inner.held.as_ref().is_some_and(|(part, ..)| commands::releases(words, *part)) {
        return Ok(());
    }
    let (_, reached, going) = inner.held.take().unwrap();
    drop(inner);
    reached.send(()).unwrap();
    let _ = going.recv();
    Err("cut off".to_owned())
}

async fn configure(
    State(shared): State<Arc<Mutex<Inner>>>,
    Path(app): Path<String>,
    headers: HeaderMap,
    body: String,
) -> (StatusCode, Json<Value>) {
    if headers.get("authorization").is_none_or(|given| given != &format!("Bearer {KEY}")) {
        return (StatusCode::UNAUTHORIZED, Json(json!({"message": "Invalid credentials."})));
    }
    let Ok(changes) = serde_json::from_str::<BTreeMap<String, Option<String>>>(&body) else {
        return (StatusCode::BAD_REQUEST, Json(json!({"message": "not an object of texts"})));
    };
    let done = tokio::task::spawn_blocking(move || {
        let mut inner = lock(&shared);
        if !inner.apps.contains_key(&app) {
            return (StatusCode::NOT_FOUND, Json(json!({"message": "Couldn't find that app."})));
        }
        for (name, value) in changes {
            let variables = &mut inner.app(&app).variables;
            match value {
                Some(value) => variables.insert(name, value),
                None => variables.remove(&name),
            };
        }
        inner.change(&app);
        (StatusCode::OK, Json(json!(inner.app(&app).variables)))
    });
    done.await.unwrap()
}
