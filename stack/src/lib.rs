//! What the chaos tests and the launcher's `drill` have in common: see [`storm`].

pub mod storm;
