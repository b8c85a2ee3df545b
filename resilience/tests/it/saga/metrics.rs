//! What is counted of sagas, name by name, label by label and value by value.

use std::time::Duration;

use metrics_exporter_prometheus::PrometheusHandle;
use resilience::breaker::{Breaker, State};
use resilience::deferred;
use resilience::saga::{Committed, Filter, Outcome, Run, Saga, Stage, Start, Started, Steps, Stop};
use uuid::Uuid;

use super::systems::{Fault, Flight, Price, Systems};
use super::trip::{Pivot, Trip, failed};
use super::world::{Office, World};
use crate::deferred::eventually;
use crate::metrics::{lines, measured};

/// What is shown of sagas, without what depends on the clock.
fn shown(handle: &PrometheusHandle) -> Vec<String> {
    let of_the_clock = |line: &str| {
        line.starts_with("resilience_sagas_oldest_seconds")
            || line.starts_with("resilience_saga_duration_seconds{")
            || line.starts_with("resilience_saga_duration_seconds_sum")
    };
    let mut lines = lines(&handle.render());
    lines.retain(|line| line.starts_with("resilience_saga") && !of_the_clock(line));
    lines
}

fn value(handle: &PrometheusHandle, series: &str) -> f64 {
    let lines = lines(&handle.render());
    let of = |line: &String| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok();
    lines.iter().find_map(of).unwrap_or_else(|| panic!("no {series} in {lines:#?}"))
}

/// A runtime counts what the journal holds when it begins, and from time to time.
async fn counted(world: &World, gauge: &str, handle: &PrometheusHandle) -> Office {
    let office = Office::start(world.builder_here().build().unwrap());
    eventually(gauge, || handle.render().contains(gauge)).await;
    office
}

#[test]
fn every_count_of_sagas_is_published() {
    measured(async |handle| {
        let world = World::new();
        let office = Office::start(world.builder_here().build().unwrap());
        let (systems, book) = (&world.systems, async |pivot| office.book(pivot).await);
        assert!(matches!(book(Pivot::Local).await.1, Outcome::Committed(_)));
        for fault in [Fault::Refused, Fault::Lost] {
            systems.once("flight", fault);
            failed(book(Pivot::Local).await.1);
        }
        // It was never begun.
        systems.once("before", Fault::Away);
        failed(book(Pivot::Local).await.1);
        // Completed by the ledger.
        systems.once("mail", Fault::Away);
        assert!(matches!(book(Pivot::Remote).await.1, Outcome::Committed(_)));
        // Taken back by the ledger.
        systems.once("price", Fault::Away);
        systems.once("undo flight", Fault::Away);
        let (id, _) = book(Pivot::Local).await;
        assert_eq!(office.stage(id).await, Stage::Compensated);
        // By nobody.
        systems.once("price", Fault::Away);
        systems.once("undo flight", Fault::Away);
        systems.once("undo flight", Fault::Impossible);
        let (id, _) = book(Pivot::Local).await;
        assert_eq!(office.stage(id).await, Stage::Stuck);

        let stuck = r#"resilience_sagas_open{saga="trip",state="stuck"}"#;
        office.stop().await;
        let office = counted(&world, &format!("{stuck} 1"), handle).await;
        let published = [
            r#"resilience_saga_duration_seconds_count{saga="trip",outcome="committed"} 1"#,
            r#"resilience_saga_duration_seconds_count{saga="trip",outcome="compensated"} 2"#,
            r#"resilience_saga_steps_total{saga="trip",step="flight",state="done"} 4"#,
            r#"resilience_saga_steps_total{saga="trip",step="flight",state="refused"} 1"#,
            r#"resilience_saga_steps_total{saga="trip",step="flight",state="undo_deferred"} 2"#,
            r#"resilience_saga_steps_total{saga="trip",step="flight",state="undone"} 2"#,
            r#"resilience_saga_steps_total{saga="trip",step="flight",state="unknown"} 1"#,
            r#"resilience_saga_steps_total{saga="trip",step="hotel",state="done"} 6"#,
            r#"resilience_saga_steps_total{saga="trip",step="hotel",state="undone"} 4"#,
            r#"resilience_saga_steps_total{saga="trip",step="mail",state="done"} 1"#,
            r#"resilience_saga_steps_total{saga="trip",step="mail",state="refused"} 1"#,
            r#"resilience_saga_steps_total{saga="trip",step="pay",state="done"} 1"#,
            r#"resilience_saga_steps_total{saga="trip",step="price",state="done"} 2"#,
            r#"resilience_saga_steps_total{saga="trip",step="price",state="refused"} 2"#,
            r#"resilience_sagas_open{saga="trip",state="compensating"} 0"#,
            r#"resilience_sagas_open{saga="trip",state="running"} 0"#,
            r#"resilience_sagas_open{saga="trip",state="stuck"} 1"#,
            r#"resilience_sagas_total{saga="trip",outcome="committed"} 2"#,
            r#"resilience_sagas_total{saga="trip",outcome="compensated"} 3"#,
            r#"resilience_sagas_total{saga="trip",outcome="stuck"} 1"#,
        ];
        assert_eq!(shown(handle), published);
        let oldest = r#"resilience_sagas_oldest_seconds{saga="trip"}"#;
        assert!(value(handle, oldest) > 0.0);
        let took = r#"resilience_saga_duration_seconds_sum{saga="trip",outcome="committed"}"#;
        assert!((0.0..20.0).contains(&value(handle, took)) && value(handle, took) > 0.0);

        office.sagas.retry(id).await.unwrap();
        assert_eq!(office.stage(id).await, Stage::Compensated);
        office.stop().await;
        let office = counted(&world, &format!("{stuck} 0"), handle).await;
        let after = published.map(|line| match line.rsplit_once(' ').unwrap() {
            (series, _) if series == stuck => format!("{series} 0"),
            (series, "2") if series.contains(r#"step="flight",state="undone""#) => {
                format!("{series} 3")
            }
            (series, "3") => format!("{series} 4"),
            _ => line.to_owned(),
        });
        assert_eq!(shown(handle), after);
        assert!(value(handle, oldest) <= 0.0, "nothing is open");
        office.stop().await;
    });
}

/// Another kind, over the same step.
struct Tour(Systems);

impl Saga for Tour {
    const KIND: &'static str = "tour";
    type Input = Uuid;
    type Output = u32;

    fn steps(&self) -> Steps {
        Steps::new().and(Flight(self.0.clone()))
    }

    async fn run(&self, run: &mut Run, id: &Uuid) -> Result<Committed<u32>, Stop> {
        run.step(&Flight(self.0.clone()), *id).await?;
        let price = run.read(&Price(self.0.clone()), ()).await?;
        run.commit(move |_| Ok(price)).await
    }
}

async fn tour(office: &Office) -> (Uuid, Outcome<u32>) {
    let id = Uuid::new_v4();
    let start = Start::<Tour>::new(id, &id).unwrap();
    let begun = office.sagas.run::<_, std::convert::Infallible>(start, None, |_| Ok(())).await;
    let Ok(Started::Begun(outcome)) = begun else { panic!("{begun:?}") };
    (id, outcome)
}

#[test]
fn an_undo_that_can_never_succeed_is_stuck_and_parked_shown_and_counted_and_blocks_no_other() {
    measured(async |handle| {
        let world = World::new();
        let builder = world.builder_here().saga(Tour(world.systems.clone()));
        let office = Office::start(builder.build().unwrap());
        let systems = &world.systems;
        let breaker = Breaker::builder("flight").consecutive_failures(3).build();
        systems.protect("flight", &breaker);
        // As many as would open any breaker: refused for good, or given up after some attempts.
        let mut stuck = Vec::new();
        for fault in [Fault::Impossible, Fault::Panics].into_iter().cycle().take(6) {
            systems.always("undo flight", fault);
            systems.once("price", Fault::Away);
            let (id, outcome) = office.book(Pivot::Local).await;
            let Outcome::Compensating { step, .. } = outcome else { panic!("{outcome:?}") };
            assert_eq!(step.as_deref(), Some("flight"));
            assert_eq!(office.stage(id).await, Stage::Stuck);
            stuck.insert(0, id);
        }
        // Meanwhile others go their way, of this kind and of another, over the same step.
        let (other, outcome) = office.book(Pivot::Remote).await;
        assert!(matches!(outcome, Outcome::Committed(42)), "{outcome:?}");
        world.whole(other, Pivot::Remote);
        assert!(matches!(tour(&office).await.1, Outcome::Committed(42)));
        // Those too that have to be taken back, at once or by the ledger, and none of them waits for a
        // breaker.
        let soon = Duration::from_secs(4);
        systems.heal();
        for undo in [None, Some(Fault::Away)] {
            for _ in 0..2 {
                systems.once("price", Fault::Away);
                undo.inspect(|fault| systems.once("undo flight", *fault));
            }
            let (booked, _) = office.book(Pivot::Local).await;
            let ended = office.sagas.ended::<Trip>(booked, soon).await.unwrap();
            assert_eq!(ended.unwrap().stage, Stage::Compensated);
            world.whole(booked, Pivot::Local);
            let (toured, _) = tour(&office).await;
            let ended = office.sagas.ended::<Tour>(toured, soon).await.unwrap();
            assert_eq!(ended.unwrap().stage, Stage::Compensated);
        }
        assert_eq!(breaker.state(), State::Closed);

        // The operators' view, of sagas and of the calls that were given up.
        let listed = office.sagas.list(Filter::new()).await.unwrap();
        assert_eq!(listed.iter().map(|saga| saga.id).collect::<Vec<_>>(), stuck);
        let shown = office.sagas.get(stuck[1]).await.unwrap().unwrap();
        assert_eq!(shown.stage, Stage::Stuck);
        assert_eq!(shown.reason.as_deref(), Some("flight can't undo that"));
        let steps: Vec<_> = shown.steps.iter().map(|step| (&*step.name, &*step.state)).collect();
        let expected = [("hotel", "undone"), ("flight", "undo_deferred"), ("price", "refused")];
        assert_eq!(steps, expected);
        let filter = deferred::Filter::new().stage(deferred::Stage::Parked);
        let parked = office.deferred.list(filter).await.unwrap();
        assert_eq!(parked.len(), stuck.len());
        let reasons = ["given up after 3 attempts: it panicked", "flight can't undo that"];
        for (call, reason) in parked.iter().zip(reasons.iter().cycle()) {
            assert_eq!((&*call.kind, call.last_error.as_deref()), ("saga.undo", Some(*reason)));
        }
        let kinds = office.sagas.snapshot().await.unwrap();
        let counts: Vec<_> = kinds.iter().map(|kind| (&*kind.kind, kind.stuck)).collect();
        assert_eq!(counts, [("tour", 0), ("trip", 6)]);
        // And a metric.
        let total = r#"resilience_sagas_total{saga="trip",outcome="stuck"}"#;
        assert!((value(handle, total) - 6.0).abs() < f64::EPSILON);
        let gauge = r#"resilience_sagas_open{saga="trip",state="stuck"} 6"#;
        counted(&world, gauge, handle).await.stop().await;

        for id in stuck {
            office.sagas.retry(id).await.unwrap();
            assert_eq!(office.stage(id).await, Stage::Compensated);
            world.whole(id, Pivot::Local);
        }
        office.stop().await;
    });
}
