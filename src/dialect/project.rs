//! A project's id in what viewers say and are told. Ids compare as text; one that is an integer's
//! text leaves as that integer, as producers have them. Source: the contract, section 2.

use compact_str::{CompactString, ToCompactString};
use serde_json::Value;

use super::json;

/// Reads an id: an integer or a string that is not empty.
pub(super) fn read_id(value: &Value) -> Option<CompactString> {
    match value {
        Value::Number(number) => number.as_i128().map(|id| id.to_compact_string()),
        Value::String(id) if !id.is_empty() => Some(id.into()),
        _ => None,
    }
}

/// Appends an id, or `null`.
pub(super) fn push_id(id: Option<&str>, out: &mut Vec<u8>) {
    match id {
        None => out.extend_from_slice(b"null"),
        Some(id) if is_integer(id) => out.extend_from_slice(id.as_bytes()),
        Some(id) => json::push_string(id, out),
    }
}

/// Whether it is written as JSON writes an integer that every reader holds exactly.
fn is_integer(id: &str) -> bool {
    let integer = id.parse::<i64>().ok();
    let integer = integer.filter(|integer| integer.unsigned_abs() < 1 << 53);
    integer.is_some_and(|integer| integer.to_compact_string() == id)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::json;

    use super::*;

    #[test]
    fn integers_leave_as_integers_and_everything_else_as_text() {
        let check = |id: Value, expected: &str| {
            let mut out = Vec::new();
            push_id(read_id(&id).as_deref(), &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), expected, "{id}");
        };
        check(json!(7), "7");
        check(json!("7"), "7");
        check(json!(-7), "-7");
        check(json!("07"), "\"07\"");
        check(json!("+7"), "\"+7\"");
        check(json!("-0"), "\"-0\"");
        check(json!(u64::MAX), "\"18446744073709551615\"");
        check(json!("a\"b"), "\"a\\\"b\"");
        check(json!(""), "null");
        check(json!(1.5), "null");
    }
}
