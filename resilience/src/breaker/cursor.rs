use crate::sync::{AtomicU64, Ordering};

/// Where a lane is in the row of slices that time is cut into. Written by the lane's thread alone.
///
/// The next call is most likely in the same slice as the last one. To compare costs nothing, for
/// the processor guesses the outcome right; a division would hold up all that comes after it.
#[derive(Default)]
pub(super) struct Cursor {
    width: AtomicU64,
    base: AtomicU64,
    start: AtomicU64,
    slice: AtomicU64,
}

/// How time is cut: slices of this width, from a moment on which one with this number begins.
/// Times are nanoseconds since the breaker was built.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cut {
    pub(super) width: u64,
    pub(super) base: u64,
    pub(super) from: u64,
}

impl Cut {
    /// From the beginning on.
    pub(super) fn new(width: u64) -> Self {
        Self { width, base: 0, from: 0 }
    }

    pub(super) fn slice(self, now: u64) -> u64 {
        self.base + now.saturating_sub(self.from) / self.width
    }
}

impl Cursor {
    /// The slice of this moment.
    #[inline(always)]
    pub(super) fn slice(&self, now: u64, cut: Cut) -> u64 {
        let here = now.wrapping_sub(self.start.load(Ordering::Relaxed)) < cut.width;
        if here
            && self.width.load(Ordering::Relaxed) == cut.width
            && self.base.load(Ordering::Relaxed) == cut.base
        {
            self.slice.load(Ordering::Relaxed)
        } else {
            self.move_to(now, cut)
        }
    }

    #[cold]
    fn move_to(&self, now: u64, cut: Cut) -> u64 {
        let slice = cut.slice(now);
        self.width.store(cut.width, Ordering::Relaxed);
        self.base.store(cut.base, Ordering::Relaxed);
        self.start.store(cut.from + (slice - cut.base) * cut.width, Ordering::Relaxed);
        self.slice.store(slice, Ordering::Relaxed);
        slice
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::random::Random;

    #[test]
    fn a_slice_is_what_a_division_gives() {
        let (cursor, random) = (Cursor::default(), Random::seeded(1));
        for _ in 0..1000 {
            // Up to half a year.
            let width = (random.next_u64() >> (10 + random.next_u64() % 50)).max(1);
            for _ in 0..100 {
                let now = random.next_u64() >> (random.next_u64() % 62);
                let border = now / width * width;
                for now in [now, border, border.saturating_sub(1), border.saturating_add(1)] {
                    let cut = Cut::new(width);
                    assert_eq!(cursor.slice(now, cut), now / width, "{now} / {width}");
                    let cut = Cut { base: 7, from: now / 2, ..cut };
                    let slice = 7 + (now - now / 2) / width;
                    assert_eq!(cursor.slice(now, cut), slice, "{cut:?} at {now}");
                }
            }
        }
    }
}
