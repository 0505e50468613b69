//! Lines become parcels. A line is an event; one that holds an array is its events, one by one,
//! so that each can be acknowledged, refused and sent again alone.

use std::io::{self, BufRead, BufReader, Read};

use compact_str::{CompactString, format_compact};
use serde_json::value::RawValue;

use super::super::client::ClientError;
use super::event_id::with_event_id;
use super::intake::{Intake, Item};
use super::window::Parcel;
use crate::limits::BODY_BYTES_MAX;

/// Reads `input` to its end or until told to stop. Events without `event_id` are named after
/// `prefix` and their line.
pub(crate) fn read_lines(
    input: impl Read,
    prefix: &str,
    intake: &mut Intake,
) -> Result<(), ClientError> {
    let mut input = BufReader::with_capacity(READ_BYTES, input);
    let mut number = 0;
    while !intake.is_stopped() {
        let Some(line) = next_line(&mut input).map_err(ClientError::Input)? else {
            break;
        };
        number += 1;
        put_line(line, number, prefix, intake);
        if input.buffer().is_empty() {
            intake.flush();
        }
    }
    Ok(())
}

/// One line as it was read.
enum Line {
    /// Without its end.
    Text(Vec<u8>),
    /// Longer than a message may be; its bytes were skipped.
    TooLong,
}

/// The next line, or `None` at the end. Holds at most `BODY_BYTES_MAX` bytes of it.
fn next_line(input: &mut impl BufRead) -> io::Result<Option<Line>> {
    let mut line = Vec::new();
    let limit = BODY_BYTES_MAX as u64 + 1;
    if input.by_ref().take(limit).read_until(b'\n', &mut line)? == 0 {
        return Ok(None);
    }
    if line.len() as u64 == limit && line.last() != Some(&b'\n') {
        input.skip_until(b'\n')?;
        return Ok(Some(Line::TooLong));
    }
    Ok(Some(Line::Text(line)))
}

fn put_line(line: Line, number: u64, prefix: &str, intake: &mut Intake) {
    let label = format_compact!("line {number}");
    let text = match line {
        Line::TooLong => return refuse(label, "EVENT_TOO_LARGE", intake),
        Line::Text(bytes) => bytes,
    };
    let Ok(text) = std::str::from_utf8(text.trim_ascii()) else {
        return refuse(label, "INVALID_JSON", intake);
    };
    let id = format!("{prefix}-{number}");
    match elements(text) {
        Some(events) => {
            for (index, event) in events.into_iter().enumerate() {
                let label = format_compact!("{label}[{index}]");
                put_event(event.get(), &format!("{id}.{index}"), label, intake);
            }
        }
        None if text.is_empty() => {}
        None => put_event(text, &id, label, intake),
    }
}

/// The events of an array, as written; `None` for anything else, broken arrays included.
fn elements(text: &str) -> Option<Vec<&RawValue>> {
    text.starts_with('[')
        .then(|| serde_json::from_str(text).ok())
        .flatten()
}

fn put_event(text: &str, id: &str, label: CompactString, intake: &mut Intake) {
    let text = with_event_id(text.to_owned(), id).into();
    intake.put(Item::Parcel(Parcel { label, text }));
}

fn refuse(label: CompactString, code: &'static str, intake: &mut Intake) {
    intake.put(Item::Refused { label, code });
}

const READ_BYTES: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::super::client::Bell;
    use super::super::intake::{Input, intake};
    use super::*;

    fn read(input: &[u8]) -> Vec<String> {
        let bell = Bell::new().unwrap();
        let (mut sender, inbox) = intake(bell.waker());
        read_lines(input, "p", &mut sender).unwrap();
        sender.end(Ok(()));
        let mut shown = Vec::new();
        while let Some(Input::Batch(items)) = inbox.poll() {
            shown.extend(items.into_iter().map(|item| match item {
                Item::Parcel(parcel) => format!("{} {}", parcel.label, parcel.text),
                Item::Refused { label, code } => format!("{label} {code}"),
            }));
        }
        assert_eq!(inbox.taken(), shown.len() as u64);
        shown
    }

    #[test]
    fn a_line_is_an_event() {
        let cases: [(&[u8], &[&str]); 7] = [
            (b"", &[]),
            (b"\n\r\n  \n", &[]),
            (
                b"{}\r\n\n {\"a\":1} ",
                &[
                    r#"line 1 {"event_id":"p-1"}"#,
                    r#"line 3 {"event_id":"p-3","a":1}"#,
                ],
            ),
            (b"nonsense\n", &["line 1 nonsense"]),
            (
                b"{\"a\":\"\xff\"}\n{}",
                &["line 1 INVALID_JSON", r#"line 2 {"event_id":"p-2"}"#],
            ),
            (
                b"[{\"a\":1}, {} ]\n[]\n",
                &[
                    r#"line 1[0] {"event_id":"p-1.0","a":1}"#,
                    r#"line 1[1] {"event_id":"p-1.1"}"#,
                ],
            ),
            (b"[{},\n", &["line 1 [{},"]),
        ];
        for (input, expected) in cases {
            assert_eq!(
                read(input),
                expected,
                "{:?}",
                String::from_utf8_lossy(input)
            );
        }
    }

    #[test]
    fn a_line_without_end_costs_no_more_than_a_message() {
        let mut input = vec![b'x'; BODY_BYTES_MAX + 1];
        input.extend_from_slice(b"xxx\n{}\n");
        assert_eq!(
            read(&input),
            ["line 1 EVENT_TOO_LARGE", r#"line 2 {"event_id":"p-2"}"#]
        );
        let longest = vec![b'x'; BODY_BYTES_MAX];
        assert_eq!(read(&longest)[0].len(), "line 1 ".len() + BODY_BYTES_MAX);
    }
}
