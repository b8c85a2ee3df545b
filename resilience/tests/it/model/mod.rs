//! The breaker does what the reference model does, whatever happens.

mod steps;

use std::time::{Duration, SystemTime};

use proptest::collection::vec;
use proptest::test_runner::{Config, RngSeed, TestCaseError, TestError, TestRunner};
use resilience::breaker::{EventKind, Events, Settings};
use resilience::testkit::ManualClock;
use resilience::testkit::model::{Change, Ending, Model, Refusal, Spec, Ticket};
use resilience::{Breaker, Clock as _, Permit, Random, Rejection, State};
use steps::{Offset, Step, spec, step};

/// How many cases there are without a word in `PROPTEST_CASES`.
const QUICK: u32 = 2_000;
const THOROUGH: u32 = 100_000;

/// The same cases each time: a change is to blame when they fail.
#[test]
fn breaker_does_what_the_model_does_in_2_000_cases() {
    run(QUICK, RngSeed::Fixed(1));
}

#[test]
#[ignore = "nightly: other cases each time, which takes minutes"]
fn breaker_does_what_the_model_does_in_100_000_cases() {
    run(THOROUGH, RngSeed::Random);
}

fn run(cases: u32, rng_seed: RngSeed) {
    let cases = std::env::var("PROPTEST_CASES").map_or(cases, |text| text.parse().unwrap());
    let config = Config {
        cases,
        rng_seed,
        failure_persistence: None,
        max_shrink_iters: 50_000,
        ..Config::default()
    };
    let input = (spec(), vec(step(), 1..120));
    let outcome = TestRunner::new(config).run(&input, |(spec, steps)| agree(spec, &steps));
    match outcome {
        Ok(()) => {}
        Err(TestError::Fail(reason, (spec, steps))) => {
            let steps: Vec<_> = steps.iter().map(|step| format!("    {step:?}")).collect();
            panic!("{reason}\nfor {spec:?}\nand\n{}", steps.join("\n"))
        }
        Err(TestError::Abort(reason)) => panic!("{reason}"),
    }
}

/// A breaker and its model.
struct Pair<'a> {
    breaker: &'a Breaker,
    events: Events,
    clock: ManualClock,
    /// The time of day when both were made.
    beginning: SystemTime,
    model: Model,
    under_way: Vec<(Permit<'a>, Ticket)>,
}

fn agree(spec: Spec, steps: &[Step]) -> Result<(), TestCaseError> {
    let clock = ManualClock::new();
    let breaker = Breaker::builder("dependency")
        .settings(spec.settings())
        .clock(clock.clone())
        .random(Random::seeded(1))
        .build();
    let mut pair = Pair {
        breaker: &breaker,
        events: breaker.subscribe(16),
        beginning: clock.wall(),
        clock,
        model: Model::new(spec),
        under_way: Vec::new(),
    };
    for (number, step) in steps.iter().enumerate() {
        let done = pair.take(step).and_then(|()| pair.compare());
        done.map_err(|wrong| {
            TestCaseError::fail(format!(
                "after step {} of {}, {step:?}:\n{wrong}",
                number + 1,
                steps.len()
            ))
        })?;
    }
    while !pair.under_way.is_empty() {
        pair.end(0, Ending::Dropped);
        pair.compare().map_err(|wrong| TestCaseError::fail(format!("in the end:\n{wrong}")))?;
    }
    Ok(())
}

impl Pair<'_> {
    fn take(&mut self, step: &Step) -> Result<(), String> {
        match step {
            Step::Acquire { owned } => return self.acquire(*owned),
            Step::End(which, ending) => {
                if !self.under_way.is_empty() {
                    self.end(which.index(self.under_way.len()), *ending);
                }
            }
            Step::EndLast(ending) => {
                if !self.under_way.is_empty() {
                    self.end(self.under_way.len() - 1, *ending);
                }
            }
            Step::Pass(time) => self.pass(*time),
            Step::PassTo(which, offset) => {
                let moments = self.model.moments();
                if !moments.is_empty() {
                    let moment = moments[which.index(moments.len())];
                    let wait = moment.saturating_sub(self.model.now());
                    let one = Duration::from_nanos(1);
                    self.pass(match offset {
                        Offset::Before => wait.saturating_sub(one),
                        Offset::Exactly => wait,
                        Offset::After => wait + one,
                    });
                }
            }
            Step::ForceOpen => {
                self.breaker.force_open();
                self.model.force_open();
            }
            Step::ForceClosed => {
                self.breaker.force_closed();
                self.model.force_closed();
            }
            Step::Reset => {
                self.breaker.reset();
                self.model.reset();
            }
            Step::Reconfigure(tweak) => {
                let mut spec = self.model.spec().clone();
                tweak.clone().apply(&mut spec);
                self.breaker.reconfigure(spec.settings());
                self.model.reconfigure(spec);
            }
        }
        Ok(())
    }

    fn pass(&mut self, time: Duration) {
        self.clock.advance(time);
        self.model.advance(time);
    }

    fn acquire(&mut self, owned: bool) -> Result<(), String> {
        let admitted = if owned { self.breaker.acquire_owned() } else { self.breaker.acquire() };
        match (admitted, self.model.acquire()) {
            (Ok(permit), Ok(ticket)) => self.under_way.push((permit, ticket)),
            (Err(rejection), Err(refusal)) => same("refused", &told(&rejection), &refusal)?,
            (Ok(_), Err(refusal)) => return Err(format!("let in, and the model says {refusal:?}")),
            (Err(rejection), Ok(_)) => {
                return Err(format!("the model lets in, and the breaker says {rejection:?}"));
            }
        }
        Ok(())
    }

    fn end(&mut self, index: usize, ending: Ending) {
        let (permit, ticket) = self.under_way.remove(index);
        match ending {
            Ending::Success => permit.success(),
            Ending::Failure => permit.failure("down"),
            Ending::Ignored => permit.ignored(),
            Ending::Dropped => drop(permit),
        }
        self.model.end(ticket, ending);
    }

    fn compare(&mut self) -> Result<(), String> {
        let snapshot = self.breaker.snapshot();
        self.model.compare(&snapshot)?;
        same("state", &self.breaker.state(), &self.model.state())?;
        same("since", &snapshot.since, &(self.beginning + self.model.since()))?;
        let checked = self.breaker.check().map_err(|rejection| told(&rejection));
        same("check", &checked, &self.model.check())?;
        let happened: Vec<_> = std::iter::from_fn(|| self.events.try_recv()).collect();
        for event in &happened {
            same("time of an event", &event.at, &(self.beginning + self.model.now()))?;
            if let (EventKind::Opened { open_for, .. }, State::Open) = (&event.kind, snapshot.state)
            {
                same("open_for of an event", &Some(*open_for), &snapshot.retry_after)?;
            }
        }
        let happened: Vec<_> = happened.into_iter().map(|event| change(&event.kind)).collect();
        let expected = self.model.changes().into_iter().map(Some).collect();
        same("events", &happened, &expected)
    }
}

fn told(rejection: &Rejection) -> Refusal {
    Refusal { state: rejection.state(), retry_after: rejection.retry_after() }
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, breaker: &T, model: &T) -> Result<(), String> {
    if breaker == model {
        return Ok(());
    }
    Err(format!("{what}: {breaker:?} of the breaker, {model:?} of the model"))
}

/// `None` for what the model doesn't know.
fn change(kind: &EventKind) -> Option<Change> {
    Some(match kind {
        EventKind::Opened { from, .. } => Change::Opened { from: *from },
        EventKind::HalfOpened => Change::HalfOpened,
        EventKind::ProbeReplaced => Change::ProbeReplaced,
        EventKind::Closed => Change::Closed,
        EventKind::ForcedOpen => Change::ForcedOpen,
        EventKind::ForcedClosed => Change::ForcedClosed,
        EventKind::Reset => Change::Reset,
        EventKind::Reconfigured => Change::Reconfigured,
        _ => return None,
    })
}

#[test]
fn model_has_the_breaker_s_defaults() {
    let (model, breaker) = (Spec::default().settings(), Settings::new());
    assert_eq!(format!("{model:?}"), format!("{breaker:?}"));
}
