//! One direction of one connection: pieces come in, wait for as long as the fault of the moment
//! says, and go out.

use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::fault::{Fault, Faults};
use super::tcp::Shared;
use crate::clock::Clock;

/// What one read takes at most.
const PIECE: usize = 16 * 1024;

/// So many pieces wait at most. Then no more is read, and the sender feels it.
const WAITING: usize = 64;

/// A throttled connection gets its share this many times a second, or byte by byte.
const TRICKLE: u32 = 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    ToUpstream,
    ToClient,
}

/// Why a connection ends before its streams do.
#[derive(Debug)]
pub(super) enum Broken {
    /// On purpose.
    Cut,
    /// One of its ends did.
    Failed,
}

impl From<io::Error> for Broken {
    fn from(_: io::Error) -> Self {
        Self::Failed
    }
}

/// Bytes under way; none are the end of the stream.
struct Piece {
    bytes: Vec<u8>,
    /// When it goes on; `None` while it is held.
    due: Option<Instant>,
}

/// Copies until the stream ends.
pub(super) async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    direction: Direction,
    mut faults: Faults,
    shared: &Shared,
) -> Result<(), Broken> {
    let clock = &*shared.clock;
    let mut pieces = VecDeque::<Piece>::new();
    let mut buffer = vec![0; PIECE];
    let mut last_due = clock.now();
    // How many bytes went on since the fault of the moment began.
    let mut passed = 0;
    let mut ended = false;
    loop {
        let fault = faults.current();
        let next = pieces.front().and_then(|piece| piece.due);
        tokio::select! {
            biased;
            () = faults.changed() => {
                let fault = faults.current();
                if fault == Fault::BlackHole && !pieces.is_empty() {
                    return swallow(from, direction).await;
                }
                let due = (fault != Fault::Hold).then(|| clock.now());
                for piece in &mut pieces {
                    piece.due = due;
                }
                passed = 0;
            }
            () = sleep_until(clock, next) => {
                let Some(piece) = pieces.pop_front() else { continue };
                if piece.bytes.is_empty() {
                    to.shutdown().await?;
                    return Ok(());
                }
                let allowed = allowed(fault, direction).saturating_sub(passed);
                let length = allowed.min(piece.bytes.len());
                to.write_all(&piece.bytes[..length]).await?;
                passed += length;
                shared.count_bytes(direction, length);
                if length < piece.bytes.len() {
                    return Err(Broken::Cut);
                }
            }
            read = from.read(&mut buffer[..longest_read(fault)]),
                if !ended && pieces.len() < WAITING =>
            {
                let length = read?;
                if fault == Fault::BlackHole {
                    return swallow(from, direction).await;
                }
                ended = length == 0;
                let now = clock.now();
                let due = due_at(fault, now, last_due.max(now), length);
                last_due = due.unwrap_or(now);
                pieces.push_back(Piece { bytes: buffer[..length].to_vec(), due });
            }
        }
    }
}

/// Takes what comes, and says nothing until the client gives up.
pub(super) async fn swallow(
    mut from: impl AsyncRead + Unpin,
    direction: Direction,
) -> Result<(), Broken> {
    let mut buffer = vec![0; PIECE];
    while from.read(&mut buffer).await.is_ok_and(|length| length > 0) {}
    match direction {
        Direction::ToUpstream => Err(Broken::Cut),
        // The client doesn't learn of upstream's end either.
        Direction::ToClient => std::future::pending().await,
    }
}

async fn sleep_until(clock: &dyn Clock, moment: Option<Instant>) {
    match moment {
        // Not left to the clock: a timer may take a millisecond even where there is nothing to wait for.
        Some(moment) if moment <= clock.now() => {}
        Some(moment) => clock.sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

/// How many bytes of a connection may pass in this direction.
fn allowed(fault: Fault, direction: Direction) -> usize {
    match (fault, direction) {
        (Fault::CutRequest { after }, Direction::ToUpstream)
        | (Fault::CutReply { after }, Direction::ToClient) => after,
        _ => usize::MAX,
    }
}

fn longest_read(fault: Fault) -> usize {
    match fault {
        Fault::Throttle { bytes_per_second } => {
            let share = (bytes_per_second / TRICKLE).max(1);
            usize::try_from(share).map_or(PIECE, |share| share.min(PIECE))
        }
        _ => PIECE,
    }
}

/// When bytes that came now go on. `before` is when those before them do.
fn due_at(fault: Fault, now: Instant, before: Instant, length: usize) -> Option<Instant> {
    match fault {
        Fault::Hold => None,
        // A moment that no clock can tell never comes.
        Fault::Delay(delay) => now.checked_add(delay),
        Fault::Throttle { bytes_per_second } => {
            // At most `PIECE`.
            let length = u32::try_from(length).unwrap_or(u32::MAX);
            before.checked_add(Duration::from_secs(1) * length / bytes_per_second.max(1))
        }
        _ => Some(now),
    }
}
