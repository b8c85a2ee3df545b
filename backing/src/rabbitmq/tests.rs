//! A private node, and the tests' broker, with a real client.

use std::collections::HashSet;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use lapin::options::{BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions};
use lapin::options::{QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use nix::unistd::Pid;
use tokio::time::timeout;
use uuid::Uuid;

use super::testing::{Queue, TestBroker};
use super::{Node, control::binary};
use crate::process::{in_folder, wait_until};

const LONG: Duration = Duration::from_secs(15);

async fn connect(url: &str) -> lapin::Result<Connection> {
    Connection::connect(url, ConnectionProperties::default()).await
}

/// A channel with confirms, and the connection that must be held for it.
async fn open(url: &str) -> (Connection, Channel) {
    let connection = connect(url).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
    (connection, channel)
}

async fn declare(channel: &Channel, name: &str) {
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    let durable = QueueDeclareOptions::durable();
    channel.queue_declare(name.into(), durable, arguments).await.unwrap();
}

async fn publish(channel: &Channel, name: &str) -> lapin::Result<bool> {
    let persistent = BasicProperties::default().with_delivery_mode(2);
    let options = BasicPublishOptions::default();
    let confirm = channel.basic_publish("".into(), name.into(), options, b"x", persistent).await?;
    Ok(confirm.await?.is_ack())
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}

fn queue(name: &str, ready: u64, unacked: u64) -> Queue {
    Queue { name: name.to_owned(), ready, unacked, consumers: 0 }
}

/// Waits until the tool lists these.
fn listed(broker: &TestBroker, vhost: &str, expected: &[Queue]) {
    let mut last = Vec::new();
    let seen = wait_until(LONG, || {
        last = broker.queues(vhost);
        last == expected
    });
    assert!(seen, "{last:?}");
}

#[test]
fn each_virtual_host_is_its_own_and_gone_when_dropped() {
    let broker = TestBroker::shared();
    let (first, second) = (broker.vhost(), broker.vhost());
    run(async {
        let (_connection, channel) = open(first.url()).await;
        declare(&channel, "calls").await;
        assert!(publish(&channel, "calls").await.unwrap());
        assert!(publish(&channel, "calls").await.unwrap());
        let taken = channel.basic_get("calls".into(), BasicGetOptions::default()).await.unwrap();
        assert!(taken.is_some());
        listed(broker, first.name(), &[Queue { consumers: 1, ..queue("calls", 1, 1) }]);
        assert_eq!(broker.queues(second.name()), []);

        assert!(!broker.delete_queue(second.name(), "calls"));
        assert!(broker.delete_queue(first.name(), "calls"));
        assert!(!broker.delete_queue(first.name(), "calls"));
        assert_eq!(broker.queues(first.name()), []);

        let url = first.url().to_owned();
        drop(first);
        assert!(connect(&url).await.is_err());
        connect(second.url()).await.unwrap();
    });
}

#[test]
fn messages_outlive_stop_and_kill_and_not_a_lost_disk() {
    let broker = TestBroker::dedicated();
    let vhost = broker.vhost();
    run(async {
        let (_connection, channel) = open(vhost.url()).await;
        declare(&channel, "calls").await;
        assert!(publish(&channel, "calls").await.unwrap());
        for lose in [TestBroker::stop as fn(&TestBroker), TestBroker::kill] {
            lose(&broker);
            assert!(connect(vhost.url()).await.is_err());
            broker.start();
            let (_connection, channel) = open(vhost.url()).await;
            assert!(publish(&channel, "calls").await.unwrap());
        }
        listed(&broker, vhost.name(), &[queue("calls", 3, 0)]);

        broker.wipe();
        assert_eq!(broker.queues(vhost.name()), []);
        let (_connection, channel) = open(vhost.url()).await;
        declare(&channel, "calls").await;
        assert!(publish(&channel, "calls").await.unwrap());
    });
}

#[test]
fn memory_alarm_holds_confirms_back_until_it_is_cleared() {
    let broker = TestBroker::dedicated();
    let vhost = broker.vhost();
    run(async {
        let (connection, channel) = open(vhost.url()).await;
        declare(&channel, "calls").await;
        broker.set_memory_alarm(true);
        let mut publishing = Box::pin(publish(&channel, "calls"));
        let blocked = async {
            while !connection.status().blocked() {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            early = &mut publishing => panic!("confirmed in spite of the alarm: {early:?}"),
            () = blocked => {}
        }
        broker.set_memory_alarm(false);
        assert!(timeout(LONG, publishing).await.unwrap().unwrap());
    });
}

#[test]
fn frozen_node_answers_nobody_until_it_is_thawed() {
    let broker = TestBroker::dedicated();
    let vhost = broker.vhost();
    run(async {
        let (_connection, channel) = open(vhost.url()).await;
        declare(&channel, "calls").await;
        broker.freeze();
        let mut publishing = Box::pin(publish(&channel, "calls"));
        assert!(timeout(Duration::from_millis(300), &mut publishing).await.is_err());
        broker.thaw();
        assert!(timeout(LONG, publishing).await.unwrap().unwrap());
    });
    // Frozen, it still goes when it is dropped.
    broker.freeze();
    let folder = folder(&broker);
    drop(vhost);
    drop(broker);
    assert!(!folder.exists());
}

#[test]
fn closed_connections_are_closed_by_the_node() {
    let broker = TestBroker::dedicated();
    let vhost = broker.vhost();
    run(async {
        let (first, channel) = open(vhost.url()).await;
        let (second, _channel) = open(vhost.url()).await;
        declare(&channel, "calls").await;
        assert_eq!(broker.close_connections(), 2);
        let closed = || !first.status().connected() && !second.status().connected();
        assert!(wait_until(LONG, closed));
        let (_connection, channel) = open(vhost.url()).await;
        channel.queue_delete("calls".into(), QueueDeleteOptions::default()).await.unwrap();
    });
}

#[test]
fn durable_node_keeps_its_messages_and_its_password() {
    let parent = std::env::temp_dir().join(format!("node-test-{}", Uuid::new_v4().simple()));
    let first = Node::durable(&parent.join("rabbitmq")).unwrap();
    let server = first.start(None).unwrap();
    assert_eq!(first.processes(), [server.pid()]);
    run(async {
        let (_connection, channel) = open(&first.url(server.port())).await;
        declare(&channel, "calls").await;
        assert!(publish(&channel, "calls").await.unwrap());
    });
    // Also what a node lacks that was killed while it was made: see `user`.
    first
        .evaluate(
            &format!("rabbit_auth_backend_internal:delete_user({0}, {0})", binary("store")),
            5,
        )
        .unwrap();
    server.stop();
    assert!(first.processes().is_empty());

    let second = Node::durable(&parent.join("rabbitmq")).unwrap();
    assert_eq!(second.folder(), first.folder());
    let server = second.start(None).unwrap();
    run(async {
        let (_connection, channel) = open(&second.url(server.port())).await;
        let kept = channel.basic_get("calls".into(), BasicGetOptions::default()).await.unwrap();
        assert!(kept.is_some());
    });
    drop(server);
    fs::remove_dir_all(second.folder()).unwrap();
    let _ = fs::remove_dir_all(parent);
}

#[test]
fn node_is_nobody_else_s_business() {
    let node = Node::ephemeral().unwrap();
    let server = node.start(None).unwrap();
    let process = PathBuf::from(format!("/proc/{}", server.pid()));
    assert_ne!(fs::metadata(&process).unwrap().uid(), 0, "it runs as root");
    let listening = listening(&process);
    assert!(listening.len() >= 2, "{listening:?}");
    // Hexadecimal, and in the order of the wire.
    assert!(listening.iter().all(|address| address == "0100007F"), "{listening:?}");
    // No guest, and no password that could be guessed.
    let url = node.url(server.port());
    let (_, at) = url.split_once('@').unwrap();
    assert!(run(connect(&format!("amqp://guest:guest@{at}"))).is_err());
    for secret in ["password", "rabbitmq.conf", "definitions.json", ".erlang.cookie"] {
        let mode = fs::metadata(node.folder().join(secret)).unwrap().mode();
        assert_eq!(mode & 0o077, 0, "{secret}");
    }

    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = listener.local_addr().unwrap().port();
    match node.start(Some(taken)) {
        Err(crate::Error::PortTaken(port)) => assert_eq!(port, taken),
        other => panic!("{other:?}"),
    }
}

/// The parent of [`node_vanishes_when_its_process_is_killed`]: it prints where its node is and waits
/// to be killed.
#[test]
#[ignore = "run by another test, in a process of its own"]
fn process_to_be_killed() {
    let broker = TestBroker::shared();
    eprintln!("FOLDER {}", folder(broker).display());
    std::thread::sleep(Duration::from_mins(1));
}

#[test]
fn node_vanishes_when_its_process_is_killed() {
    let mut child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "rabbitmq::tests::process_to_be_killed"])
        .args(["--ignored", "--nocapture"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let folder = lines
        .map_while(Result::ok)
        .find_map(|line| line.strip_prefix("FOLDER ").map(PathBuf::from))
        .unwrap();
    assert!(!in_folder(super::EMULATOR, &folder).is_empty());
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(wait_until(LONG, || !folder.exists()));
    // Erlang's name service would be one of these: it works elsewhere, and stays.
    assert!(wait_until(LONG, || of_home(&folder).is_empty()), "{:?}", of_home(&folder));
}

fn folder(broker: &TestBroker) -> PathBuf {
    broker.node().folder().to_owned()
}

/// Every process that was started for the node, wherever it works now.
fn of_home(folder: &Path) -> Vec<Pid> {
    let home = format!("HOME={}", folder.display());
    let started = |pid: &Pid| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| variable == home.as_bytes())
    };
    fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok().map(Pid::from_raw))
        .filter(started)
        .collect()
}

/// The addresses that a process listens on.
fn listening(process: &Path) -> Vec<String> {
    let own: HashSet<String> = fs::read_dir(process.join("fd"))
        .unwrap()
        .flatten()
        .filter_map(|entry| fs::read_link(entry.path()).ok())
        .filter_map(|link| {
            Some(link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned())
        })
        .collect();
    let mut found = Vec::new();
    for table in ["tcp", "tcp6"] {
        for line in fs::read_to_string(process.join("net").join(table)).unwrap_or_default().lines()
        {
            let fields: Vec<&str> = line.split_ascii_whitespace().collect();
            if let [_, local, _, "0A", _, _, _, _, _, inode, ..] = fields[..]
                && own.contains(inode)
            {
                found.push(local.split(':').next().unwrap().to_owned());
            }
        }
    }
    found
}
