//! The events that the cases share.

use bytes::Bytes;
use sightline::event::{Event, Parser};

/// A tool's event as it is published, whose `data` is filled up so that the whole is about `length`
/// bytes.
pub fn published(length: usize) -> String {
    let mut lines = String::new();
    loop {
        let text = format!(
            r#"{{"event_type":"tool_execution","user_id":"user-4711","project_id":42,"session_id":"0f8e3c1a-7b52-4c6e-9a51-2f6d7c1b8e90","timestamp":"2026-11-22T10:00:00.250Z","event_id":"01JD9Z","data":{{"tool_name":"Bash","duration_ms":1250,"success":true,"output":"{lines}","message":{{"type":"assistant","parts":[1,2.5,null]}}}}}}"#
        );
        if text.len() >= length {
            return text;
        }
        lines.push_str("ok \\\"é\\\" 12\\n");
    }
}

/// A published event as it goes on its way.
pub fn parsed(length: usize) -> Event {
    let text = Bytes::from(published(length));
    let parsed = Parser::new().parse(&text, 0);
    parsed.expect("it is a good one").event
}
