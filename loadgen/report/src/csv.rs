//! Rows as CSV (RFC 4180), for spreadsheets and scripts.

use serde::Serialize;

/// The `rows` with their fields' names as the head; no rows are no text. A field that is `None`
/// is empty.
/// Errors: a row is not flat.
pub fn render<T: Serialize>(rows: &[T]) -> Result<String, csv::Error> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    for row in rows {
        writer.serialize(row)?;
    }
    let bytes = writer
        .into_inner()
        .map_err(csv::IntoInnerError::into_error)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[derive(Serialize)]
    struct Row<'a> {
        name: &'a str,
        p99_ns: Option<u64>,
    }

    fn check(rows: &[Row<'_>], expected: &str) {
        assert_eq!(render(rows).unwrap(), expected);
    }

    #[test]
    fn rows_have_a_head_and_what_needs_it_is_quoted() {
        check(&[], "");
        let first = Row {
            name: "a, \"b\"",
            p99_ns: Some(3),
        };
        let second = Row {
            name: "c",
            p99_ns: None,
        };
        check(&[first, second], "name,p99_ns\n\"a, \"\"b\"\"\",3\nc,\n");
    }
}
