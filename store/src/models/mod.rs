//! Its rows, and every query on them.

mod claim_row;
mod refund;
mod user;

pub use claim_row::ClaimRow;
pub use refund::Refund;
pub use user::User;
