//! The process dies in the middle of its handlers.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use resilience::deferred::{Attempt, Broker, Deferred, Handler, HandlerError};

use super::rig::{Rig, Works, pool, settings, until};

const DATABASE: &str = "RESILIENCE_TEST_DATABASE";
const AMQP: &str = "RESILIENCE_TEST_AMQP";

/// Runs, and never ends.
struct Hangs;

impl Handler for Hangs {
    const KIND: &'static str = Works::KIND;
    type Payload = u32;
    type Output = ();

    async fn run(&self, attempt: Attempt<u32>) -> Result<(), HandlerError> {
        eprintln!("RUNS {}", attempt.id);
        std::future::pending().await
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by another test, in a process of its own"]
async fn process_to_be_killed() {
    let (Ok(database), Ok(amqp)) = (std::env::var(DATABASE), std::env::var(AMQP)) else { return };
    let runtime = Deferred::builder(pool(&database))
        .app("shop")
        .handler(Hangs, settings("work").concurrency(5).lease(Duration::from_secs(2)))
        .amqp(&amqp)
        .build()
        .unwrap();
    runtime.run(std::future::pending()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_whose_process_was_killed_pass_on_and_each_has_one_effect() {
    let rig = Rig::new();
    // Declares what is there, and is gone again.
    rig.start().await.stop().await;
    let ids = rig.defer(20);
    for _ in 0..3 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "rabbitmq::crash::process_to_be_killed", "--ignored", "--nocapture"])
            .env(DATABASE, rig.database.url())
            .env(AMQP, rig.vhost.url())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let runs = lines.map_while(Result::ok).filter(|line| line.starts_with("RUNS ")).take(5);
        assert_eq!(runs.count(), 5);
        // SIGKILL.
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let next = rig.start().await;
    assert_eq!(next.deferred.broker(), Broker::Work);
    rig.all_done(20).await;
    assert!(ids.iter().all(|id| rig.outside.runs(*id) == 1));
    rig.queues_are_empty(0).await;
    until(Duration::from_secs(5), "nothing is parked", || rig.count("parked") == 0).await;
    next.stop().await;
}
