//! Values that fields refuse.

use serde_json::{Value, json};

use crate::testing::wrong_ids;

/// Values that no text of at most `longest` characters may have, whatever its pattern.
pub fn no_text(longest: usize) -> Vec<Value> {
    vec![
        json!(""),
        json!(3),
        json!(true),
        json!(["x"]),
        json!({"x": "y"}),
        json!("nul\0"),
        json!("bell\u{7}"),
        json!("escape\u{1b}"),
        json!("delete\u{7f}"),
        json!("c1\u{85}"),
        json!("X".repeat(longest + 1)),
    ]
}

/// Values that no UUID may have.
pub fn no_uuid() -> Vec<Value> {
    let texts = wrong_ids().into_iter().map(Value::from);
    texts.chain([json!(""), json!(3), json!(false), json!([]), json!({})]).collect()
}

/// Values that no whole number from `low` to `high` may have.
pub fn no_integer(low: i64, high: i64) -> Vec<Value> {
    vec![
        json!(low - 1),
        json!(high + 1),
        json!(u64::MAX),
        json!(1.5),
        json!(1e300),
        json!("1"),
        json!(true),
        json!([1]),
        json!({}),
    ]
}
