//! A new version of everything, while users shop.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use stack_load::{Lines, Told};

use crate::load::mix;
use crate::world::{Part, World};

/// Users who shop meanwhile, each of whom rests between two requests.
const SHOPPERS: usize = 6;
const REST: Duration = Duration::from_millis(30);

/// Times that a crowded machine keeps: what is tried here is whether a request finds somebody.
const PATIENT: [(&str, &str); 6] = [
    ("REQUEST_BUDGET_MS", "9000"),
    ("ORDER_WRITE_TIMEOUT_MS", "8500"),
    ("ORDER_TIMEOUT_MS", "8000"),
    ("WAREHOUSE_TIMEOUT_MS", "4000"),
    ("WARRANTY_TIMEOUT_MS", "2000"),
    // Many times what the balancer needs to notice.
    ("SHUTDOWN_DELAY_MS", "1000"),
];

#[tokio::test]
async fn rolling_restart_of_all_four_fails_no_request() {
    let plan = World::plan().replicas(2).balanced();
    let plan = PATIENT.iter().fold(plan, |plan, (name, value)| plan.variable(name, value));
    let world = plan.start().await;
    let lines = Lines::to(world.balancer(Part::Store).url()).patient(Duration::from_secs(10));
    let (shots, over) = (mix(&world), AtomicBool::new(false));
    let shopper = async |number: usize| {
        let mut told: BTreeMap<String, usize> = BTreeMap::new();
        for shot in shots.iter().skip(number * 401) {
            let hit = lines.fire(shot.clone()).await;
            if hit.answer != Told::Good {
                eprintln!("{hit:?}");
            }
            *told.entry(format!("{:?} {:?}", hit.kind, hit.answer)).or_default() += 1;
            if over.load(Ordering::Relaxed) {
                break;
            }
            tokio::time::sleep(REST).await;
        }
        told
    };
    let restart = async |part: Part, number: usize| {
        let process = world.replica(part, number);
        let status = process.terminate().await;
        assert!(status.success(), "{part:?} ended with {status}");
        process.start().await;
        world.balancer(part).knows(number).await;
    };
    let deploy = async {
        for number in 0..2 {
            join_all(Part::ALL.map(|part| restart(part, number))).await;
        }
        over.store(true, Ordering::Relaxed);
    };
    let (told, ()) = tokio::join!(join_all((0..SHOPPERS).map(shopper)), deploy);
    let mut all: BTreeMap<String, usize> = BTreeMap::new();
    for (answer, count) in told.into_iter().flatten() {
        *all.entry(answer).or_default() += count;
    }
    eprintln!("{all:?}");
    let good = ["Effect Good", "Read Good"];
    assert!(all.keys().all(|answer| good.contains(&answer.as_str())), "{all:?}");
    assert!(all["Effect Good"] >= 10, "{all:?}");
    world.settles().await;
}
