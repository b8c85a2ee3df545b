//! State, flags, probes in flight and generation, in one word that is read as one.

use super::report::State;

/// What every call reads. Written under the lock alone.
///
/// Bits 0 to 2 are the state, 3 to 6 the flags, 8 to 15 the probes in flight, 16 to 63 the
/// generation. With all of the lowest eight bits zero the breaker is closed and a call costs
/// nothing but being counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Word(pub(super) u64);

/// The policy remembers failures: a success has something to reset.
pub(super) const DIRTY: u64 = 1 << 3;
/// There is a slow threshold: calls are timed, and those in flight are watched.
pub(super) const WATCH: u64 = 1 << 4;
/// Results go into the window.
pub(super) const WINDOW: u64 = 1 << 5;
/// Hung calls can open the breaker.
pub(super) const HUNG: u64 = 1 << 6;

const STATE: u64 = 0b111;
const PLAIN: u64 = 0xff;
const PROBES_AT: u32 = 8;
const GENERATION_AT: u32 = 16;

impl Word {
    pub(super) fn new(state: State, flags: u64, probes: usize, generation: u64) -> Self {
        let probes = u64::try_from(probes).unwrap_or(u64::MAX).min(0xff);
        Self(state as u64 | flags | probes << PROBES_AT | generation << GENERATION_AT)
    }

    #[inline]
    pub(super) fn is_plain(self) -> bool {
        self.0 & PLAIN == 0
    }

    /// Whether every call is let through, and nothing has to be judged before.
    #[inline]
    pub(super) fn admits_all(self) -> bool {
        matches!(self.0 & STATE, 0 | 4) && !self.has(HUNG)
    }

    #[inline]
    pub(super) fn state(self) -> State {
        match self.0 & STATE {
            0 => State::Closed,
            1 => State::Open,
            2 => State::HalfOpen,
            3 => State::ForcedOpen,
            _ => State::ForcedClosed,
        }
    }

    #[inline]
    pub(super) fn has(self, flag: u64) -> bool {
        self.0 & flag != 0
    }

    #[inline]
    pub(super) fn generation(self) -> u64 {
        self.0 >> GENERATION_AT
    }

    pub(super) fn probes(self) -> u32 {
        // Eight bits.
        (self.0 >> PROBES_AT & 0xff) as u32
    }
}
