//! The test kit's trials, on the tests' own sagas: what they try, and that they find what is wrong.

use std::convert::Infallible;
use std::time::Duration;

use diesel::PgConnection;
use futures_util::FutureExt as _;
use resilience::saga::{Outcome, Sagas, Start, Started};
use resilience::testkit::saga::{Death, Wrong, try_everything};
use uuid::Uuid;

use super::trip::{End, Pivot, Trip, Wish};
use super::world::{World, quick};

async fn booked(sagas: &Sagas, id: Uuid, pivot: Pivot) -> Started<u32> {
    let start = Start::<Trip>::new(id, &Wish { id, pivot, end: End::Yes }).unwrap();
    let nothing = |_: &mut PgConnection| Ok::<_, Infallible>(());
    sagas.run(start, None, nothing).await.unwrap()
}

#[tokio::test]
async fn whatever_goes_wrong_a_trip_is_whole_or_nothing() {
    let world = World::new();
    for pivot in [Pivot::Local, Pivot::Remote, Pivot::Decide] {
        let tried = try_everything(
            || world.builder().saga_settings(quick().lease(Duration::from_secs(5))),
            async |sagas, id| booked(sagas, id, pivot).await,
            async |id, begun, trouble| {
                world.whole(id, pivot);
                if let Some(Started::Begun(outcome)) = begun {
                    let committed = world.is_noted(id);
                    match outcome {
                        Outcome::Committed(_) | Outcome::Completing(_) => {
                            assert!(committed, "{trouble}");
                        }
                        Outcome::Compensated(_) | Outcome::Compensating { .. } => {
                            assert!(!committed, "{trouble}");
                        }
                        Outcome::Unknown => {}
                    }
                }
                if trouble.action.as_ref().is_some_and(|(_, wrong)| *wrong == Wrong::Twice) {
                    assert!(world.is_noted(id), "{trouble}: it is repeated, nothing more");
                }
            },
        )
        .await;
        let deaths = tried.iter().filter(|trouble| trouble.death.is_some()).count();
        assert!(tried.len() > 25 && deaths > 12, "{tried:?}");
        assert!(tried.iter().any(|trouble| trouble.death == Some(Death::After(1))));
        println!("{pivot:?}: {} tried, {deaths} deaths among them", tried.len());
    }
}

/// A system that does again what it is asked again: the trials find it.
#[tokio::test]
async fn the_trials_find_a_system_that_counts_twice() {
    let world = World::new();
    let trials = try_everything(
        || world.builder().saga_settings(quick().lease(Duration::from_secs(5))),
        async |sagas, id| booked(sagas, id, Pivot::Local).await,
        async |id, _, trouble| {
            let times = format!("SELECT coalesce(max(times), 1) FROM effects WHERE id = '{id}'");
            assert_eq!(world.number(&times), 1, "{trouble}");
        },
    );
    let found = std::panic::AssertUnwindSafe(trials).catch_unwind().await;
    let text = *found.unwrap_err().downcast::<String>().unwrap();
    assert!(text.contains("hotel: Twice"), "{text}");
}
