use crate::sync::{AtomicU64, Ordering};

/// Where a lane is in the row of slices that time is cut into. Written by the lane's thread alone.
///
/// The next call is most likely in the same slice as the last one. To compare costs nothing, for
/// the processor guesses the outcome right; a division would hold up all that comes after it.
#[derive(Default)]
pub(super) struct Cursor {
    width: AtomicU64,
    start: AtomicU64,
    slice: AtomicU64,
}

impl Cursor {
    /// The slice of this moment, where slices have this width; both in nanoseconds.
    #[inline(always)]
    pub(super) fn slice(&self, now: u64, width: u64) -> u64 {
        let here = now.wrapping_sub(self.start.load(Ordering::Relaxed)) < width;
        if here && self.width.load(Ordering::Relaxed) == width {
            self.slice.load(Ordering::Relaxed)
        } else {
            self.move_to(now, width)
        }
    }

    #[cold]
    fn move_to(&self, now: u64, width: u64) -> u64 {
        let slice = now / width;
        self.width.store(width, Ordering::Relaxed);
        self.start.store(slice * width, Ordering::Relaxed);
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
                    assert_eq!(cursor.slice(now, width), now / width, "{now} / {width}");
                }
            }
        }
    }
}
