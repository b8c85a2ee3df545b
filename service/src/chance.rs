//! How many cases a property is tried with, in the tests of this crate.

use proptest::prelude::ProptestConfig;
use proptest::test_runner::RngSeed;

/// So many, and the same each time, so that a change is to blame when they fail; as many as
/// `PROPTEST_CASES` says, and others each time, where it says anything.
pub(crate) fn cases(quick: u32) -> ProptestConfig {
    let asked = std::env::var("PROPTEST_CASES").ok().map(|text| text.parse().unwrap());
    ProptestConfig {
        cases: asked.unwrap_or(quick),
        rng_seed: if asked.is_some() { RngSeed::Random } else { RngSeed::Fixed(1) },
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}
