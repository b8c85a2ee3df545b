//! Waiting for something, but not for ever.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use std::time::Instant;

use crate::clock::Clock;

/// The output of this future, or nothing when the time has come first. What is ready at the first
/// poll costs no timer, and what is ready together with the timer counts.
pub(crate) fn until<F: Future>(
    clock: &dyn Clock,
    moment: Instant,
    mut future: Pin<&mut F>,
) -> impl Future<Output = Option<F::Output>> {
    let mut sleep = None;
    poll_fn(move |cx| {
        if let Poll::Ready(output) = future.as_mut().poll(cx) {
            return Poll::Ready(Some(output));
        }
        let sleep = sleep.get_or_insert_with(|| clock.sleep_until(moment));
        sleep.as_mut().poll(cx).map(|()| None)
    })
}
