//! For tests, ours and yours: time that is turned by hand.

mod clock;

pub use clock::ManualClock;
