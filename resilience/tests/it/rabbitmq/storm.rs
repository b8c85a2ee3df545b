//! Everything that can happen to a broker, at random, while calls are deferred at a steady rate.
//!
//! `RESILIENCE_STORM_SEED` repeats a run, `RESILIENCE_STORM_BLOWS` makes it longer.

use std::str::FromStr;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use proptest::prelude::Rng as _;
use proptest::test_runner::{RngAlgorithm, TestRng};
use resilience::deferred::Broker;
use tokio::task::block_in_place;

use super::rig::{OTHER, Others, Rig, WORK};

fn variable<T: FromStr>(name: &str) -> Option<T> {
    std::env::var(name).ok()?.parse().ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn after_any_storm_all_that_was_accepted_is_done_once_and_the_queues_are_empty() {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos();
    let seed = variable("RESILIENCE_STORM_SEED")
        .unwrap_or_else(|| u64::try_from(now % u128::from(u64::MAX)).unwrap());
    let blows = variable("RESILIENCE_STORM_BLOWS").unwrap_or(12);
    eprintln!("RESILIENCE_STORM_SEED={seed}");
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let mut random = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut up_to = |bound: u32| random.next_u32() % bound;

    let rig = Rig::dedicated();
    let mut running = vec![rig.start().await, rig.start().await];
    let mut accepted = 0;
    for blow in 1..=blows {
        let work = 20 + up_to(60);
        accepted += u64::from(work);
        rig.defer(work / 2);
        rig.defer_all::<Others>(work - work / 2);
        running[0].deferred.nudge();
        rig.outside.down.store(up_to(4) == 0, Ordering::Relaxed);
        // Some of it is under way, and some isn't yet.
        tokio::time::sleep(Duration::from_millis(up_to(300).into())).await;
        let which = up_to(9);
        let pause = Duration::from_millis(up_to(1500).into());
        let broker = &rig.broker;
        let name = match which {
            0 => {
                block_in_place(|| broker.kill());
                tokio::time::sleep(pause).await;
                block_in_place(|| broker.start());
                "killed"
            }
            1 => {
                block_in_place(|| broker.stop());
                tokio::time::sleep(pause).await;
                block_in_place(|| broker.start());
                "stopped"
            }
            2 => {
                block_in_place(|| broker.freeze());
                tokio::time::sleep(pause * 5).await;
                block_in_place(|| broker.thaw());
                "frozen"
            }
            3 => {
                block_in_place(|| broker.wipe());
                "wiped"
            }
            4 => {
                block_in_place(|| broker.set_memory_alarm(true));
                rig.defer(5);
                accepted += 5;
                tokio::time::sleep(pause).await;
                block_in_place(|| broker.set_memory_alarm(false));
                "alarmed"
            }
            5 | 6 => {
                block_in_place(|| broker.close_connections());
                "cut off"
            }
            7 => {
                let queue = if up_to(2) == 0 { WORK } else { OTHER };
                block_in_place(|| broker.delete_queue(rig.vhost.name(), queue));
                "without a queue"
            }
            _ => {
                // A replica is replaced.
                let next = rig.launch(super::rig::settings("work"));
                running.remove(0).stop().await;
                running.push(next);
                "replaced"
            }
        };
        eprintln!("{blow}: {name}, {accepted} accepted, {:?}", rig.states());
    }
    rig.outside.down.store(false, Ordering::Relaxed);
    rig.all_done(accepted).await;
    for running in &running {
        running.broker(Broker::Work).await;
    }
    rig.queues_are_empty(0).await;
    for running in running {
        running.stop().await;
    }
}
