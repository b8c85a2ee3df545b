//! Rollbacks and their backlog, under paused time: waits pass at once, and are measured.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use resilience::{Backlog, Backoff, Rollback, RolledBack, Undo, UndoError};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

/// What was attempted, and when.
#[derive(Clone, Default)]
struct Log {
    entries: Arc<Mutex<Vec<(String, Instant)>>>,
}

impl Log {
    fn add(&self, key: &str) {
        let entry = (key.to_owned(), Instant::now());
        self.entries.lock().unwrap().push(entry);
    }

    fn keys(&self) -> Vec<String> {
        let entries = self.entries.lock().unwrap();
        entries.iter().map(|(key, _)| key.clone()).collect()
    }

    fn times(&self) -> Vec<Instant> {
        self.entries.lock().unwrap().iter().map(|(_, at)| *at).collect()
    }

    /// An undo that fails with these errors first, and succeeds from then on.
    fn undo(&self, key: &str, errors: impl IntoIterator<Item = UndoError>) -> Undo {
        let log = self.clone();
        let name = key.to_owned();
        let errors = Mutex::new(errors.into_iter().collect::<VecDeque<_>>());
        Undo::new(key, format!("system of {key}"), move || {
            // Recorded in the synchronous part, so that the waits are seen to come before it.
            log.add(&name);
            let result = errors.lock().unwrap().pop_front().map_or(Ok(()), Err);
            async move { result }
        })
    }
}

fn backlog() -> (Backlog, TaskTracker) {
    let tasks = TaskTracker::new();
    let policy =
        Backoff::new().initial(Duration::from_millis(100)).max_interval(Duration::from_secs(1));
    (Backlog::new(tasks.clone(), policy), tasks)
}

fn failures(count: usize) -> Vec<UndoError> {
    vec![UndoError::new("connection refused"); count]
}

/// Waits until everything that was begun in the background has ended.
async fn drained(tasks: &TaskTracker) {
    tasks.close();
    tasks.wait().await;
}

#[tokio::test(start_paused = true)]
async fn undos_run_in_reverse_order() {
    let (log, (backlog, _)) = (Log::default(), backlog());
    let mut rollback = Rollback::new();
    for key in ["first", "second", "third"] {
        rollback.push(log.undo(key, []));
    }
    assert_eq!(rollback.run(&backlog).await, RolledBack::Complete);
    assert_eq!(log.keys(), ["third", "second", "first"]);
    assert_eq!(backlog.pending(), 0);
}

#[tokio::test(start_paused = true)]
async fn one_that_fails_goes_to_the_backlog_and_the_others_go_on() {
    let (log, (backlog, tasks)) = (Log::default(), backlog());
    let mut rollback = Rollback::new();
    rollback.push(log.undo("first", []));
    rollback.push(log.undo("second", failures(3)));
    rollback.push(log.undo("third", failures(1)));
    let outcome = rollback.run(&backlog).await;
    let dependency = "system of third".to_owned();
    assert_eq!(outcome, RolledBack::Pending { dependency });
    assert_eq!(log.keys(), ["third", "second", "first"], "each tried once");
    assert!(backlog.is_pending("second") && backlog.is_pending("third"));
    assert!(!backlog.is_pending("first"));

    drained(&tasks).await;
    assert_eq!(backlog.pending(), 0);
    let keys = log.keys();
    let tries = |key: &str| keys.iter().filter(|tried| *tried == key).count();
    assert_eq!((tries("first"), tries("second"), tries("third")), (1, 4, 2));
}

#[tokio::test(start_paused = true)]
async fn the_system_at_fault_is_named_where_the_error_knows_it() {
    let (log, (backlog, _)) = (Log::default(), backlog());
    let mut rollback = Rollback::new();
    let error = UndoError::new("unavailable").with_dependency("further down");
    rollback.push(log.undo("only", [error]));
    let dependency = "further down".to_owned();
    let outcome = rollback.run(&backlog).await;
    assert_eq!(outcome, RolledBack::Pending { dependency });
}

#[tokio::test(start_paused = true)]
async fn the_backlog_retries_until_success() {
    let (log, (backlog, tasks)) = (Log::default(), backlog());
    backlog.submit(log.undo("a", failures(50)));
    drained(&tasks).await;
    assert_eq!(log.keys().len(), 51);
    let times = log.times();
    let longest = times.windows(2).map(|pair| pair[1] - pair[0]).max();
    // A timer's resolution is a millisecond.
    assert!(longest.is_some_and(|wait| wait <= Duration::from_millis(1001)));
}

#[tokio::test(start_paused = true)]
async fn an_undo_that_is_pending_is_not_added_twice() {
    let (log, (backlog, tasks)) = (Log::default(), backlog());
    backlog.submit(log.undo("a", failures(2)));
    backlog.submit(log.undo("a", failures(2)));
    assert_eq!(backlog.pending(), 1);
    drained(&tasks).await;
    assert_eq!(log.keys().len(), 3);
    // Once it is done, the same key may come again.
    backlog.submit(log.undo("a", []));
    assert!(backlog.is_pending("a"));
    drained(&tasks).await;
    assert_eq!(log.keys().len(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_retry_waits_just_over_the_time_that_an_open_breaker_names() {
    let (log, (backlog, tasks)) = (Log::default(), backlog());
    let open = UndoError::new("open").with_retry_after(Duration::from_secs(6));
    let mut rollback = Rollback::new();
    rollback.push(log.undo("a", [open.clone(), open]));
    let _ = rollback.run(&backlog).await;
    drained(&tasks).await;
    for pair in log.times().windows(2) {
        let wait = pair[1] - pair[0];
        let bounds = Duration::from_secs(6)..=Duration::from_millis(6_101);
        assert!(bounds.contains(&wait), "{wait:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_puts_a_rollback_off_for_a_day() {
    let (log, (backlog, tasks)) = (Log::default(), backlog());
    let later = UndoError::new("later").with_retry_after(Duration::from_hours(24));
    backlog.submit(log.undo("a", [later]));
    let start = Instant::now();
    drained(&tasks).await;
    assert!(start.elapsed() < Duration::from_secs(31));
}

#[tokio::test(start_paused = true)]
async fn the_backlog_holds_its_task_group_open_while_pending() {
    let (backlog, tasks) = backlog();
    let healed = Arc::new(Mutex::new(false));
    let state = Arc::clone(&healed);
    backlog.submit(Undo::new("a", "system", move || {
        let healed = *state.lock().unwrap();
        async move { if healed { Ok(()) } else { Err("down".to_owned()) } }
    }));
    tasks.close();
    let hour = Duration::from_hours(1);
    assert!(tokio::time::timeout(hour, tasks.wait()).await.is_err());
    assert!(backlog.is_pending("a"));
    *healed.lock().unwrap() = true;
    assert!(tokio::time::timeout(hour, tasks.wait()).await.is_ok());
    assert_eq!(backlog.pending(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_undo_that_panics_stops_nothing_and_is_repeated() {
    let (log, (backlog, tasks)) = (Log::default(), backlog());
    let panicked = Mutex::new(0);
    let mut rollback = Rollback::new();
    rollback.push(log.undo("first", []));
    rollback.push(Undo::new("second", "system", move || {
        let attempt = {
            let mut count = panicked.lock().unwrap();
            *count += 1;
            *count
        };
        // Once in the closure, once in its future.
        assert!(attempt != 1, "a defect");
        async move {
            assert!(attempt != 2, "a defect");
            Ok::<(), UndoError>(())
        }
    }));
    let outcome = rollback.run(&backlog).await;
    let dependency = "system".to_owned();
    assert_eq!(outcome, RolledBack::Pending { dependency });
    assert_eq!(log.keys(), ["first"]);
    drained(&tasks).await;
    assert_eq!(backlog.pending(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_rollback_that_is_dropped_halfway_goes_on_in_the_background() {
    let (log, (backlog, tasks)) = (Log::default(), backlog());
    let reached = Arc::new(Notify::new());
    let signal = Arc::clone(&reached);
    let hung_once = Mutex::new(false);
    let log_of_hung = log.clone();
    let mut rollback = Rollback::new();
    rollback.push(log.undo("first", []));
    rollback.push(Undo::new("second", "system", move || {
        let hangs = !std::mem::replace(&mut *hung_once.lock().unwrap(), true);
        let (signal, log) = (Arc::clone(&signal), log_of_hung.clone());
        async move {
            if hangs {
                signal.notify_one();
                std::future::pending::<()>().await;
            }
            log.add("second");
            Ok::<(), UndoError>(())
        }
    }));
    rollback.push(log.undo("third", []));
    tokio::select! {
        _ = rollback.run(&backlog) => unreachable!("the second hangs"),
        () = reached.notified() => {}
    }
    assert_eq!(backlog.pending(), 2);
    drained(&tasks).await;
    assert_eq!(log.keys(), ["third", "second", "first"]);
}

#[tokio::test(start_paused = true)]
async fn waiting_for_an_undo_ends_with_its_success_or_with_patience() {
    let (log, (backlog, tasks)) = (Log::default(), backlog());
    assert!(backlog.wait("unknown", Duration::ZERO).await, "nothing to wait for");
    backlog.submit(log.undo("a", failures(5)));
    assert!(!backlog.wait("a", Duration::from_millis(1)).await, "it fails for a while");
    assert!(backlog.wait("a", Duration::from_mins(1)).await);
    assert!(!backlog.is_pending("a"));
    drained(&tasks).await;
}
