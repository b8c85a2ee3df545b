//! A process that dies at every point there is, one after the other.

use std::sync::atomic::{AtomicUsize, Ordering};

use resilience::testkit::crash;

use super::systems::Fault;
use super::trip::{Pivot, wish};
use super::worker::{Meets, Worker, points};
use super::world::{World, brief};

/// Each point of a saga with this pivot that meets with this: the process is killed there, and
/// another one brings the saga to its end. How many points there were.
async fn killed_at_each_point(world: &World, pivot: Pivot, meets: Meets) -> usize {
    static LOGS: AtomicUsize = AtomicUsize::new(0);
    let number = LOGS.fetch_add(1, Ordering::Relaxed);
    let log = std::env::temp_dir().join(format!("saga-points-{}-{number}", std::process::id()));
    let points = points(world.url(), &wish(pivot), meets, &log).await;
    assert!(points.len() >= 10, "{points:?}");
    let mut killed = 0;
    let mut wishes = Vec::new();
    // Side by side: most of the time goes into starting processes.
    for some in points.chunks(4) {
        let workers = some.iter().map(|point| {
            let wish = wish(pivot);
            wishes.push((wish.id, point.clone()));
            Worker::start(world.url(), &wish, meets, (crash::AT, point)).was_killed()
        });
        let ends = futures_util::future::join_all(workers.collect::<Vec<_>>()).await;
        killed += ends.into_iter().filter(|killed| *killed).count();
    }
    let office = world.start_with(brief());
    world.calm().await;
    for (id, point) in wishes {
        let whole = std::panic::AssertUnwindSafe(|| world.whole(id, pivot));
        assert!(
            std::panic::catch_unwind(whole).is_ok(),
            "{pivot:?}, {meets:?}, killed {point}: {:?} {:?}",
            world.stage(id),
            world.steps(id)
        );
    }
    office.stop().await;
    // A point that comes by the clock alone isn't passed each time.
    assert!(killed * 10 >= points.len() * 8, "{killed} of {}", points.len());
    println!("{pivot:?} {meets:?}: killed at {killed} of {} points", points.len());
    std::fs::remove_file(log).unwrap();
    killed
}

#[tokio::test]
async fn killed_at_every_point_a_saga_is_whole_or_nothing() {
    let world = World::new();
    let mut killed = killed_at_each_point(&world, Pivot::Remote, None).await;
    killed += killed_at_each_point(&world, Pivot::Local, Some(("flight", Fault::AnswerLost))).await;
    println!("killed at {killed} points");
}

#[tokio::test]
#[ignore = "long: with each pivot, whatever fails"]
async fn killed_at_every_point_whatever_fails_a_saga_is_whole_or_nothing() {
    let world = World::new();
    let mut killed = 0;
    for pivot in [Pivot::Local, Pivot::Remote, Pivot::Decide] {
        let faults: &[Meets] = &[
            None,
            Some(("hotel", Fault::AnswerLost)),
            Some(("flight", Fault::Refused)),
            Some(("flight", Fault::AnswerLost)),
            Some(("price", Fault::Away)),
            Some(("pay", Fault::Refused)),
            Some(("pay", Fault::AnswerLost)),
            Some(("mail", Fault::AnswerLost)),
        ];
        for meets in faults {
            let unused = match meets {
                Some(("pay", _)) => pivot != Pivot::Remote,
                Some(("mail", _)) => pivot == Pivot::Local,
                _ => false,
            };
            if !unused {
                killed += killed_at_each_point(&world, pivot, *meets).await;
            }
        }
    }
    println!("killed at {killed} points");
}
