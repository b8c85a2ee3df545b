//! What a saga does, one after the other: written down, done, or found in the journal.

use std::panic::AssertUnwindSafe;

use diesel::PgConnection;
use futures_util::FutureExt as _;
use serde::Serialize;
use serde_json::value::to_raw_value;
use tokio::time::timeout;
use tracing::Instrument as _;

use super::watch::{DECIDED, FORWARD};
use super::{Run, Stop, Why, late};
use crate::deadline::Deadline;
use crate::deferred::HandlerError;
use crate::saga::call::Stage;
use crate::saga::counts;
use crate::saga::journal::{self, Entry, Role, StepEnd, StepState};
use crate::saga::step::{Action, Failure};

impl Run {
    /// The journal's entry of what the code is at, where there is one already: done is done.
    pub(super) fn next(&mut self, name: &str, role: Role) -> Result<Option<Entry>, Stop> {
        self.may_go_on()?;
        if let Some(entry) = self.entries.get(self.at).cloned() {
            if entry.name != name || entry.role != role {
                let (was, number) = (entry.name, entry.number);
                return Err(self.defect(&format!("step {number} was {was:?}, and is {name:?} now")));
            }
            self.at += usize::from(entry.state == StepState::Done);
            return Ok(Some(entry));
        }
        let behind = role == Role::Forward;
        if behind != self.passed {
            let wrong = if behind { "comes before the pivot" } else { "comes behind the pivot" };
            return Err(self.defect(&format!("{name:?} {wrong}")));
        }
        Ok(None)
    }

    pub(super) async fn act<A: Action>(
        &mut self,
        action: &A,
        input: A::Input,
        role: Role,
    ) -> Result<A::Output, Stop> {
        let found = self.next(A::NAME, role)?;
        let repeated = found.is_some();
        let input = match found {
            Some(entry) if entry.state == StepState::Done => {
                self.passed |= role == Role::Pivot;
                let output = entry.output.as_ref().map_or("null", |output| output.get());
                return serde_json::from_str(output)
                    .map_err(|error| self.defect(&error.to_string()));
            }
            // As it was written down, whatever the code makes of it now.
            Some(entry) => serde_json::from_str(entry.input.get())
                .map_err(|error| self.defect(&error.to_string()))?,
            None if role == Role::Step && !self.shared.can_undo(self.kind, A::NAME) => {
                let what = format!("{:?} isn't among its steps: nobody could undo it", A::NAME);
                return Err(self.defect(&what));
            }
            None => {
                self.intend(A::NAME, &input, role).await?;
                input
            }
        };
        let before = !self.passed && !repeated;
        self.passed |= role == Role::Pivot;
        let limit = self.deadline.filter(|_| before || self.resumed);
        let given = (input, &self.context);
        let step = self.entries[self.at].number;
        // Whoever began it first has had one attempt, or may have.
        let number = if repeated { self.number.saturating_add(1) } else { 1 };
        let attempt = self.shared.attempt(self.id, (step, A::NAME), (number, limit), given);
        let span = tracing::info_span!("step", name = A::NAME);
        let deadline = attempt.deadline;
        // On the heap: what calls over the network is large, and so would be whoever awaits it.
        #[cfg(not(feature = "testkit"))]
        let acting = Box::pin(action.act(attempt));
        #[cfg(feature = "testkit")]
        let acting =
            Box::pin(tested(action, attempt, self.shared.wrong(A::NAME, role == Role::Step)));
        let result = self.while_ours(within(deadline, acting).instrument(span)).await?;
        // Done, and nobody could go on from it.
        let result = result.and_then(|output| match to_raw_value(&output) {
            Ok(written) => Ok((output, written)),
            Err(error) => Err(Failure::unknown(HandlerError::permanent(error.to_string()))),
        });
        let (state, output) = match &result {
            Ok((_, written)) => (StepState::Done, Some(written.clone())),
            Err(failure) if failure.is_no(repeated) => (StepState::Refused, None),
            Err(_) => (StepState::Unknown, None),
        };
        counts::step(self.kind, A::NAME, state.as_str());
        let error = result.as_ref().err().map(|failure| failure.reason().to_owned());
        if let Some(error) = &error {
            tracing::warn!(
                step = A::NAME,
                state = state.as_str(),
                error,
                "a step of a saga failed"
            );
        }
        self.entries[self.at].state = state;
        self.entries[self.at].output.clone_from(&output);
        self.due = Some(StepEnd { number: step, state, output, error });
        match result {
            Ok((output, _)) => {
                self.at += 1;
                Ok(output)
            }
            Err(failure) => {
                let refused = role == Role::Pivot && state == StepState::Refused;
                if refused {
                    (self.passed, self.forward) = (false, false);
                    // Until that is written down, whoever takes over asks for it again.
                    self.watch.set(FORWARD, DECIDED);
                }
                let back = refused || matches!(role, Role::Step | Role::Read);
                Err(self.stop(if back { Why::Abort(failure) } else { Why::Beyond(failure) }))
            }
        }
    }

    /// Writes down what comes next, and how the last step ended.
    pub(super) async fn intend<I: Serialize>(
        &mut self,
        name: &'static str,
        input: &I,
        role: Role,
    ) -> Result<(), Stop> {
        if !self.passed && self.deadline.is_some_and(Deadline::is_expired) {
            return Err(self.fail(late()));
        }
        if role == Role::Pivot {
            self.may_decide()?;
        }
        let input = match to_raw_value(input) {
            Ok(input) => input,
            Err(error) => return Err(self.defect(&error.to_string())),
        };
        let entry = Entry {
            number: i32::try_from(self.entries.len()).unwrap_or(i32::MAX),
            name: name.to_owned(),
            role,
            state: StepState::Intent,
            input,
            output: None,
        };
        let (id, due, written) = (self.id, self.due.take(), entry.clone());
        self.writing = true;
        let write = move |conn: &mut PgConnection| {
            if let Some(due) = &due {
                journal::end_step(conn, id, due)?;
            }
            if role == Role::Pivot {
                journal::go_forward(conn, id)?;
            }
            journal::intend(conn, id, &written)
        };
        let written = match self.begin.take() {
            Some(begin) => self.open(begin, write).await,
            None => self.write(&[Stage::Running], write).await,
        };
        self.writing = false;
        written?;
        self.entries.push(entry);
        if role == Role::Pivot {
            self.forward = true;
            self.watch.set(DECIDED, FORWARD);
        }
        Ok(())
    }
}

/// What isn't over then has an unknown effect.
async fn within<T>(
    deadline: Deadline,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let limit = deadline.remaining();
    match timeout(limit, AssertUnwindSafe(work).catch_unwind()).await {
        Ok(Ok(result)) => result,
        Ok(Err(_)) => Err(Failure::unknown(HandlerError::failed("it panicked"))),
        Err(_) => {
            let reason = format!("no result within {limit:.1?}");
            Err(Failure::unknown(HandlerError::unavailable(reason)))
        }
    }
}

/// Does it, unless a test wants something else.
#[cfg(feature = "testkit")]
async fn tested<A: Action>(
    action: &A,
    attempt: crate::deferred::Attempt<A::Input>,
    wrong: Option<crate::testkit::saga::Wrong>,
) -> Result<A::Output, Failure> {
    use crate::testkit::crash::point;
    use crate::testkit::saga::Wrong;

    let error = |what: &str| HandlerError::unavailable(format!("{what}, as the test wants it"));
    match wrong {
        Some(Wrong::Refused) => return Err(Failure::none(error("nobody is there"))),
        Some(Wrong::Lost) => return Err(Failure::unknown(error("it never arrives"))),
        Some(Wrong::Twice) => {
            let again = serde_json::to_string(&attempt.payload);
            let again = again.and_then(|payload| serde_json::from_str(&payload));
            let again = again.map_err(|_| Failure::none(error("it can't be repeated")))?;
            drop(action.act(attempt.clone_with(again)).await);
        }
        Some(Wrong::AnswerLost) | None => {}
    }
    point(|| format!("before act {}", A::NAME));
    let result = action.act(attempt).await;
    point(|| format!("after act {}", A::NAME));
    if wrong == Some(Wrong::AnswerLost) {
        return Err(Failure::unknown(error("its answer is lost")));
    }
    result
}
