//! An event as a line for people: time, session, type, and what matters of the types we know.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::Value;

use super::envelope::Envelope;
use super::position::OWN;

/// One line, not yet made printable.
pub(crate) fn line(envelope: &Envelope, zone: &TimeZone) -> String {
    let data = envelope
        .data
        .and_then(|data| serde_json::from_str(data.get()).ok())
        .unwrap_or(Value::Null);
    let time = clock(&envelope.timestamp, zone);
    let session = shortened(envelope.session_id.as_deref().unwrap_or("-"), SESSION_CHARS);
    let stream = match envelope.stream() {
        OWN => String::new(),
        stream => format!("[{stream}] "),
    };
    let name = &envelope.name;
    let summary = shortened(&summary(name, &data), SUMMARY_CHARS);
    format!("{time} {session:<SESSION_CHARS$} {name:<16} {stream}{summary}")
}

/// Time of day, to the second; what came, where it is no time.
fn clock(timestamp: &Value, zone: &TimeZone) -> String {
    let time = match timestamp {
        Value::String(text) => text.parse().ok(),
        Value::Number(number) => number
            .as_i64()
            .and_then(|ms| Timestamp::from_millisecond(ms).ok()),
        _ => None,
    };
    match time {
        Some(time) => time.to_zoned(zone.clone()).strftime("%H:%M:%S").to_string(),
        None => timestamp.to_string(),
    }
}

fn summary(name: &str, data: &Value) -> String {
    match name {
        "agent_spawned" => words(&[
            text(data, "child_session"),
            text(data, "git_branch"),
            text(data, "purpose"),
        ]),
        "completion" => words(&[outcome(data), text(data, "summary"), text(data, "result")]),
        "error" | "agent_error" => words(&[
            text(data, "error_type"),
            text(data, "error_message"),
            text(data, "message"),
        ]),
        "git_operation" => git_operation(data),
        "message_added" => words(&[
            text(&data["message"], "type"),
            first_line(&text(&data["message"], "content")),
        ]),
        "phase_transition" => {
            let phases = format!("{} → {}", text(data, "from_phase"), text(data, "to_phase"));
            words(&[phases, text(data, "summary")])
        }
        "progress_update" => words(&[
            percentage(data),
            text(data, "phase"),
            text(data, "current_task"),
            text(data, "message"),
        ]),
        "tool_execution" => tool_execution(data),
        _ => data.to_string(),
    }
}

fn git_operation(data: &Value) -> String {
    let hash = text(data, "commit_hash").chars().take(8).collect();
    let operation = text(data, "operation_type");
    let operation = if operation == "commit" {
        String::new()
    } else {
        operation
    };
    let changed = match (number(data, "lines_added"), number(data, "lines_deleted")) {
        (Some(added), Some(deleted)) if added + deleted > 0 => format!("+{added} -{deleted}"),
        _ => String::new(),
    };
    let subject = first_line(&text(data, "commit_message"));
    words(&[operation, text(data, "branch"), hash, subject, changed])
}

fn tool_execution(data: &Value) -> String {
    let duration = number(data, "execution_time_ms").map(|ms| format!("{ms} ms"));
    words(&[
        text(data, "tool_name"),
        outcome(data),
        duration.unwrap_or_default(),
        text(data, "parameters_summary"),
        text(data, "error_message"),
    ])
}

fn outcome(data: &Value) -> String {
    match data["success"] {
        Value::Bool(true) => "ok".to_owned(),
        Value::Bool(false) => "failed".to_owned(),
        _ => String::new(),
    }
}

fn percentage(data: &Value) -> String {
    let percentage = &data["progress_percentage"];
    percentage
        .as_f64()
        .map_or_else(String::new, |value| format!("{value:.0}%"))
}

/// A field as text: a string as it is, a number in digits, all else as nothing.
pub(super) fn text(data: &Value, field: &str) -> String {
    match &data[field] {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => String::new(),
    }
}

fn number(data: &Value, field: &str) -> Option<u64> {
    data[field].as_u64().filter(|number| *number < 1 << 53)
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

/// What is not empty, with single spaces.
fn words(parts: &[String]) -> String {
    let parts: Vec<&str> = parts
        .iter()
        .map(String::as_str)
        .filter(|part| !part.is_empty())
        .collect();
    parts.join(" ")
}

fn shortened(text: &str, chars_max: usize) -> String {
    if text.chars().count() <= chars_max {
        return text.to_owned();
    }
    text.chars().take(chars_max - 1).chain(['…']).collect()
}

const SESSION_CHARS: usize = 12;
const SUMMARY_CHARS: usize = 160;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn check(envelope: &str, expected: &str) {
        let envelope = Envelope::parse(envelope).unwrap();
        assert_eq!(line(&envelope, &TimeZone::UTC), expected);
    }

    #[test]
    fn shows_what_matters_of_the_known_types() {
        check(
            r#"{"event_type":"git_operation","session_id":"git-sightline","timestamp":"2026-11-22T10:00:01.500Z","seq":1,
                "data":{"operation_type":"commit","branch":"main","commit_hash":"0a1b2c3d4e5f","commit_message":"wire: frames\n\nbody","lines_added":10,"lines_deleted":2}}"#,
            "10:00:01 git-sightli… git_operation    main 0a1b2c3d wire: frames +10 -2",
        );
        check(
            r#"{"type":"tool_execution","session_id":"s","timestamp":1763805600000,"stream":"project/7","seq":2,
                "data":{"tool_name":"Bash","success":false,"execution_time_ms":12}}"#,
            "10:00:00 s            tool_execution   [project/7] Bash failed 12 ms",
        );
        check(
            r#"{"event_type":"phase_transition","timestamp":"2026-11-22T10:00:00Z","seq":3,"data":{"from_phase":"PLAN","to_phase":"EXECUTE","summary":"go"}}"#,
            "10:00:00 -            phase_transition PLAN → EXECUTE go",
        );
    }

    #[test]
    fn shows_what_it_does_not_know_as_it_is() {
        check(
            r#"{"event_type":"custom","timestamp":"soon","seq":3,"data":{"b":1, "a":[2]}}"#,
            r#""soon" -            custom           {"a":[2],"b":1}"#,
        );
        check(
            r#"{"type":"git_operation","seq":3}"#,
            "null -            git_operation    ",
        );
        let long = "x".repeat(500);
        let text = format!(r#"{{"type":"custom","seq":3,"data":"{long}"}}"#);
        let shown = line(&Envelope::parse(&text).unwrap(), &TimeZone::UTC);
        assert!(
            shown.ends_with("xx…") && shown.chars().count() < 220,
            "{shown}"
        );
    }
}
