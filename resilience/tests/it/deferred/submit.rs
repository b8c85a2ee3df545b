//! Now, or else later.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use diesel::PgConnection;
use diesel::connection::SimpleConnection as _;
use diesel::result::Error as QueryError;
use resilience::Deadline;
use resilience::deferred::{
    Attempt, Deferral, Deferred, Handler, HandlerError, Stage, SubmitError, Submitted, defer_all,
};
use serde_json::{Value, json};
use tokio::sync::Notify;
use uuid::Uuid;

use super::bed::{Job, Ledger, Running, job, quick};

/// What `prepare` wrote is taken back when it is refused.
async fn submit(
    deferred: &Deferred,
    call: &Deferral,
    deadline: Option<Deadline>,
) -> Result<Submitted<Value>, SubmitError<QueryError>> {
    let id = call.id();
    let prepare = move |conn: &mut PgConnection| {
        conn.batch_execute(&format!("INSERT INTO notes VALUES ('{id}', 'prepared')"))
    };
    let refused = move |conn: &mut PgConnection, error: &HandlerError| {
        assert_eq!(error.reason(), "no such item");
        conn.batch_execute(&format!("DELETE FROM notes WHERE id = '{id}'"))
    };
    deferred.submit::<Job, _>(call.clone(), deadline, prepare, refused).await
}

/// Succeeds, or fails as its payload says, the first time.
fn handler() -> Job {
    Job::new(async |attempt: Attempt<Value>| match (attempt.number, attempt.payload.as_str()) {
        (1, Some("away")) => Err(HandlerError::unavailable("away")),
        (1, Some("broken")) => Err(HandlerError::failed("broken")),
        (1, Some("hangs")) => std::future::pending().await,
        (1, Some("panics")) => panic!("on purpose"),
        (_, Some("refused")) => Err(HandlerError::permanent("no such item")),
        _ => Ok(json!(attempt.number)),
    })
}

/// Says that it has begun, and waits until it may go on.
fn waiting() -> (Job, Arc<Notify>, Arc<Notify>) {
    let (begun, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (told, waits) = (Arc::clone(&begun), Arc::clone(&go));
    let handler = Job::new(move |_| {
        let (told, waits) = (Arc::clone(&told), Arc::clone(&waits));
        async move {
            told.notify_one();
            waits.notified().await;
            Ok(Value::Null)
        }
    });
    (handler, begun, go)
}

/// Until the attempt has begun that this submission makes.
async fn begins<T>(submission: &mut (impl Future<Output = T> + Unpin), begun: &Notify) {
    tokio::select! {
        _ = submission => panic!("too early"),
        () = crate::soon(begun.notified()) => {}
    }
}

#[tokio::test]
async fn what_succeeds_at_once_is_done_at_once() {
    let ledger = Ledger::new();
    // Nothing but the submission works here.
    let deferred = ledger.runtime(handler(), quick()).handle();
    let call = job(&json!("fine"));
    let submitted = submit(&deferred, &call, None).await.unwrap();
    assert!(matches!(submitted, Submitted::Done(output) if *output == json!(1)));
    assert_eq!(ledger.notes(call.id()), ["prepared", "done 1"]);
    assert_eq!(deferred.get(call.id()).await.unwrap().unwrap().stage, Stage::Done);
    let again = submit(&deferred, &call, None).await.unwrap();
    assert!(matches!(again, Submitted::Known(Stage::Done)));
    assert_eq!(ledger.notes(call.id()), ["prepared", "done 1"], "it was prepared once");
}

/// The first attempt is in the span of whoever submits the call.
#[tokio::test]
async fn who_is_told_of_attempts_hears_of_those_in_the_background_and_what_travels_with_them() {
    static TOLD: Mutex<Vec<String>> = Mutex::new(Vec::new());
    let ledger = Ledger::new();
    let builder = Deferred::builder(ledger.pool.clone()).handler(handler(), quick());
    let told = builder.on_attempt(|_, travelling| {
        TOLD.lock().unwrap().push(travelling["traceparent"].clone());
    });
    let running = Running::start(told.build().unwrap());
    let call = |what: &str| job(&json!(what)).with_context("traceparent", what);
    submit(&running.deferred, &call("fine"), None).await.unwrap();
    assert!(TOLD.lock().unwrap().is_empty());
    let late = call("away");
    submit(&running.deferred, &late, None).await.unwrap();
    running.ended(late.id()).await;
    assert_eq!(*TOLD.lock().unwrap(), ["away"]);
    running.stop().await;
}

#[tokio::test]
async fn what_is_refused_for_good_is_forgotten_with_what_was_prepared() {
    let ledger = Ledger::new();
    let deferred = ledger.runtime(handler(), quick()).handle();
    let call = job(&json!("refused"));
    let submitted = submit(&deferred, &call, None).await.unwrap();
    assert!(matches!(submitted, Submitted::Refused(HandlerError::Permanent { .. })));
    assert!(deferred.get(call.id()).await.unwrap().is_none());
    assert!(ledger.notes(call.id()).is_empty());
}

#[tokio::test]
async fn whatever_else_goes_wrong_at_first_is_made_good_later() {
    let ledger = Ledger::new();
    let running = ledger.start(handler(), quick());
    for what in ["away", "broken", "panics", "hangs"] {
        let call = job(&json!(what));
        let deadline = Deadline::after(Duration::from_millis(300));
        let submitted = submit(&running.deferred, &call, Some(deadline)).await.unwrap();
        assert!(matches!(submitted, Submitted::Deferred), "{what}: {submitted:?}");
        let entry = running.ended(call.id()).await;
        assert_eq!((entry.stage, entry.attempts), (Stage::Done, 2), "{what}");
        assert_eq!(ledger.notes(call.id()), ["prepared", "done 2"]);
    }
    let seen = running.deferred.breaker::<Job>().snapshot();
    assert_eq!((seen.failures, seen.ignored > 0), (3, true), "a short deadline says nothing");
    running.stop().await;
}

#[tokio::test]
async fn once_the_gate_is_open_a_call_is_deferred_at_once() {
    let ledger = Ledger::new();
    let deferred = ledger.runtime(Job::new(async |_| panic!("not called")), quick()).handle();
    deferred.breaker::<Job>().force_open();
    let call = job(&Value::Null);
    assert!(matches!(submit(&deferred, &call, None).await, Ok(Submitted::Deferred)));
    let entry = deferred.get(call.id()).await.unwrap().unwrap();
    assert_eq!((entry.stage, entry.attempts), (Stage::Pending, 0));
    assert_eq!(ledger.notes(call.id()), ["prepared"]);
    let again = submit(&deferred, &call, None).await.unwrap();
    assert!(matches!(again, Submitted::Known(Stage::Pending)));
}

#[tokio::test]
async fn what_can_not_be_prepared_is_not_deferred() {
    let ledger = Ledger::new();
    for open in [false, true] {
        let deferred = ledger.runtime(Job::new(async |_| panic!("not called")), quick()).handle();
        if open {
            deferred.breaker::<Job>().force_open();
        }
        let call = job(&Value::Null);
        let prepare = |_: &mut PgConnection| Err("no");
        let submitted = deferred.submit::<Job, _>(call.clone(), None, prepare, |_, _| Ok(()));
        assert!(matches!(submitted.await, Err(SubmitError::Prepare("no"))));
        assert!(deferred.get(call.id()).await.unwrap().is_none());
        assert_eq!(deferred.breaker::<Job>().snapshot().abandoned, 0);
    }
}

#[tokio::test]
async fn an_attempt_goes_on_when_whoever_submitted_it_is_gone() {
    let ledger = Ledger::new();
    let (handler, begun, go) = waiting();
    let deferred = ledger.runtime(handler, quick()).handle();
    let call = job(&Value::Null);
    {
        let mut submitted = std::pin::pin!(submit(&deferred, &call, None));
        begins(&mut submitted, &begun).await;
    }
    go.notify_one();
    let stage = deferred.ended(call.id(), Duration::from_secs(20)).await.unwrap();
    assert_eq!(stage, Some(Stage::Done));
    assert_eq!(ledger.notes(call.id()), ["prepared", "done null"]);
}

#[tokio::test]
async fn what_somebody_is_making_is_known_and_stays_theirs() {
    let ledger = Ledger::new();
    let (handler, begun, go) = waiting();
    let one = ledger.runtime(handler, quick()).handle();
    let other = ledger.runtime(Job::new(async |_| panic!("not called")), quick()).handle();
    let call = job(&Value::Null);
    let mut first = std::pin::pin!(submit(&one, &call, None));
    begins(&mut first, &begun).await;
    let before = ledger.row(call.id());
    for submitter in [&one, &other] {
        let second = crate::soon(submit(submitter, &call, None)).await;
        assert!(matches!(second, Ok(Submitted::Known(Stage::Running))), "{second:?}");
    }
    assert_eq!(ledger.row(call.id()), before, "nothing is written");
    go.notify_one();
    assert!(matches!(crate::soon(first).await, Ok(Submitted::Done(_))));
    assert_eq!(ledger.notes(call.id()), ["prepared", "done null"]);
}

#[tokio::test]
async fn a_hold_is_the_holders_until_it_is_forgotten_or_released_or_its_lease_ends() {
    let ledger = Ledger::new();
    let running = ledger.start(handler(), quick());
    let lease = Duration::from_secs(1);
    let hold = |call: &Deferral, lease| {
        resilience::deferred::hold(&mut ledger.conn(), call, lease).unwrap()
    };
    let [forgotten, released, orphaned] = [(); 3].map(|()| job(&json!("fine")));
    let (one, two) = (hold(&forgotten, lease).unwrap(), hold(&released, lease * 60).unwrap());
    // It changes hands, and the first holder has nothing to say any more.
    let before = hold(&orphaned, lease * 60).unwrap();
    let after = hold(&orphaned, lease).unwrap();
    assert!(!before.forget(&mut ledger.conn()).unwrap());
    assert!(one.forget(&mut ledger.conn()).unwrap());
    assert!(running.deferred.get(forgotten.id()).await.unwrap().is_none());
    assert!(two.release(&mut ledger.conn()).unwrap());
    running.deferred.nudge();
    assert_eq!(running.ended(released.id()).await.stage, Stage::Done);
    let entry = running.ended(orphaned.id()).await;
    assert_eq!((entry.stage, entry.attempts), (Stage::Done, 1));
    assert!(!after.forget(&mut ledger.conn()).unwrap(), "it was carried out");
    assert!(!after.release(&mut ledger.conn()).unwrap());
    assert!(hold(&orphaned, lease).is_none(), "it has ended");
    assert_eq!(running.deferred.ended(Uuid::new_v4(), lease).await.unwrap(), None);
    running.stop().await;
}

#[test]
fn a_hold_is_not_taken_over_by_another_kind() {
    struct Other;
    impl Handler for Other {
        const KIND: &'static str = "other";
        type Payload = Value;
        type Output = ();

        async fn run(&self, _: Attempt<Value>) -> Result<(), HandlerError> {
            Ok(())
        }
    }

    let ledger = Ledger::new();
    let lease = Duration::from_mins(1);
    let hold = |call: &Deferral| resilience::deferred::hold(&mut ledger.conn(), call, lease);
    let call = job(&json!("fine"));
    let other = Deferral::new::<Other>(call.id(), &json!("other")).unwrap();
    let held = hold(&call).unwrap().unwrap();
    let refused = hold(&other).unwrap_err().to_string();
    let expected = format!(r#"{} is the id of a call of the kind "job", not "other""#, call.id());
    assert_eq!(refused, expected);
    assert!(held.forget(&mut ledger.conn()).unwrap(), "it is its holder's still");
    assert!(hold(&other).unwrap().is_some());
}

#[tokio::test]
async fn what_may_be_forgotten_is_made_when_its_holder_makes_sure_of_it() {
    let ledger = Ledger::new();
    let running = ledger.start(handler(), quick());
    let long = Duration::from_hours(1);
    let hold = |call: &Deferral| {
        resilience::deferred::hold(&mut ledger.conn(), call, long).unwrap().unwrap()
    };
    let [forgotten, held, taken] = [(); 3].map(|()| job(&json!("fine")));
    let (one, two, three) = (hold(&forgotten), hold(&held), hold(&taken));
    assert!(one.forget(&mut ledger.conn()).unwrap());
    let other = hold(&taken);
    for hold in [one, two, three] {
        running.deferred.make_sure(hold);
    }
    for call in [forgotten, held] {
        ledger.until(&format!("id = '{}' AND state = 'done'", call.id()), 1).await;
        let entry = running.entry(call.id()).await;
        assert_eq!((entry.stage, entry.attempts), (Stage::Done, 1));
    }
    assert!(other.forget(&mut ledger.conn()).unwrap(), "it is somebody else's");
    running.stop().await;
}

#[tokio::test]
async fn many_are_written_at_once_without_those_that_are_there() {
    let ledger = Ledger::new();
    let calls: Vec<_> = (0..1000).map(|number| job(&json!(number))).collect();
    let mut conn = ledger.conn();
    ledger.defer(&calls[7]);
    let twice = [calls.as_slice(), &calls[..10]].concat();
    assert_eq!(defer_all(&mut conn, &twice).unwrap(), 999);
    assert_eq!(defer_all(&mut conn, &calls).unwrap(), 0);
    assert_eq!(defer_all(&mut conn, &[]).unwrap(), 0);
    assert_eq!(ledger.count("state = 'pending' AND not_before <= clock_timestamp()"), 1000);
    let later = job(&json!("fine")).after(Duration::from_hours(1)).with_context("trace", "t");
    assert_eq!(defer_all(&mut conn, &[later]).unwrap(), 1);
    assert_eq!(ledger.count("not_before > clock_timestamp() AND context->>'trace' = 't'"), 1);
    let running = ledger.runtime(handler(), quick()).handle();
    let entry = running.get(calls[500].id()).await.unwrap().unwrap();
    assert_eq!((entry.kind.as_str(), entry.payload.get()), ("job", "500"));
}

#[tokio::test]
async fn the_end_of_a_call_that_somebody_else_made_is_noticed() {
    let ledger = Ledger::new();
    let waiting = ledger.runtime(handler(), quick()).handle();
    let call = job(&json!("fine"));
    ledger.defer(&call);
    assert_eq!(
        waiting.ended(call.id(), Duration::from_millis(30)).await.unwrap(),
        Some(Stage::Pending)
    );
    let running = ledger.start(handler(), quick());
    let stage = waiting.ended(call.id(), Duration::from_secs(20)).await.unwrap();
    assert_eq!(stage, Some(Stage::Done));
    running.stop().await;
}
