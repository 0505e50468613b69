//! What the server adds to the `data` of agents' events, at numbering and on the user's copy alone.
//!
//! Keys are added at the end, each only where the producer has none of that name; all bytes that
//! were there stay. A value that would make the event too large is not added: a path of more than
//! `TREE_PATH_BYTES_MAX`, and whatever would pass `ENRICHMENT_BYTES_MAX`. Where the event lacks what
//! a value is made from, the value is empty (`[]`, `""`, 0), but for those that the contract lets be
//! `null`. Source: contract section 8.

use std::fmt;

use bytes::Bytes;
use serde::Serialize;
use serde::de::{Deserializer as _, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::event::known::{AgentSpawned, GitOperation, PhaseTransition};
use crate::event::{Event, Known, KnownType, time};
use crate::limits::{ENRICHMENT_BYTES_MAX, TREE_PATH_BYTES_MAX};

/// Whether events of this type are given more than they bring.
pub fn is_enriched(event_type: KnownType) -> bool {
    !keys_of(event_type).is_empty()
}

/// The `data` of `event`, which holds `known`, with what it lacks. `path`: the sessions from the
/// root to the child, of an `agent_spawned`. `phases`: their names, in order (`agents.phases`).
/// `None` where nothing is to be added.
pub fn enrich<S: AsRef<str>>(
    known: &Known<'_>,
    event: &Event,
    path: &[S],
    phases: &[String],
) -> Option<Bytes> {
    let keys = keys_of(known.known_type());
    if keys.is_empty() {
        return None;
    }
    let mut additions = Additions::to(event, keys)?;
    match known {
        Known::AgentSpawned(spawned) => additions.add_spawn(spawned, event.timestamp_ms, path),
        Known::GitOperation(operation) => additions.add_git(operation),
        Known::PhaseTransition(transition) => additions.add_phase(transition, phases),
        _ => {}
    }
    additions.finish()
}

/// What events of this type are given; none: nothing.
fn keys_of(event_type: KnownType) -> &'static [&'static str] {
    match event_type {
        KnownType::AgentSpawned => &[
            "agent_tree_path",
            "estimated_completion",
            "resource_allocation",
        ],
        KnownType::GitOperation => &["branch_hierarchy", "commit_summary", "file_change_stats"],
        KnownType::PhaseTransition => &["progress_percentage"],
        _ => &[],
    }
}

/// Characters of a commit's summary.
const SUMMARY_CHARS_MAX: usize = 72;

/// Keys on their way into one object.
struct Additions<'d> {
    data: &'d [u8],
    present: Present,
    // What goes before the closing brace.
    added: Vec<u8>,
}

impl<'d> Additions<'d> {
    /// `None` where `data` is no object, or has all of `keys`.
    fn to(event: &'d Event, keys: &'static [&'static str]) -> Option<Self> {
        let present = Present::find(&event.data, keys)?;
        let has_all = present.keys.iter().all(|(_, is_there)| *is_there);
        (!has_all).then_some(Self {
            data: &event.data,
            present,
            added: Vec::new(),
        })
    }

    fn add_spawn<S: AsRef<str>>(&mut self, spawned: &AgentSpawned<'_>, at_ms: i64, path: &[S]) {
        // Each session takes three bytes at least: two quotes and a comma.
        if path.len() <= TREE_PATH_BYTES_MAX / 3 {
            let path: Vec<&str> = path.iter().map(AsRef::as_ref).collect();
            self.add_up_to("agent_tree_path", &path, TREE_PATH_BYTES_MAX);
        }
        self.add("estimated_completion", &completion(spawned, at_ms));
        let limits = spawned.resource_limits.map(|limits| limits.0.text());
        match limits.map(serde_json::from_slice::<&RawValue>) {
            Some(Ok(limits)) => self.add("resource_allocation", limits),
            _ => self.add("resource_allocation", &Empty {}),
        }
    }

    fn add_git(&mut self, operation: &GitOperation<'_>) {
        let levels: Vec<&str> = operation.branch.map_or_else(Vec::new, levels);
        self.add("branch_hierarchy", &levels);
        let message = operation.commit_message.unwrap_or_default();
        self.add("commit_summary", summary(message));
        let files = operation.files_changed;
        let stats = Stats {
            files: files.map_or(0, |files| files.iter().count()),
            added: operation.lines_added.unwrap_or(0),
            deleted: operation.lines_deleted.unwrap_or(0),
        };
        self.add("file_change_stats", &stats);
    }

    fn add_phase(&mut self, transition: &PhaseTransition<'_>, phases: &[String]) {
        self.add("progress_percentage", &percentage(transition, phases));
    }

    fn add<T: Serialize + ?Sized>(&mut self, key: &'static str, value: &T) {
        self.add_up_to(key, value, ENRICHMENT_BYTES_MAX);
    }

    /// Adds `key` unless it is there, or its value takes more than `bytes_max`.
    fn add_up_to<T: Serialize + ?Sized>(&mut self, key: &'static str, value: &T, bytes_max: usize) {
        let before = self.added.len();
        if !self.present.is_absent(key) {
            return;
        }
        if before > 0 || self.present.has_members {
            self.added.push(b',');
        }
        self.added
            .extend_from_slice(format!("\"{key}\":").as_bytes());
        let value_at = self.added.len();
        let written = serde_json::to_writer(&mut self.added, value);
        let value_bytes = self.added.len() - value_at;
        if written.is_err() || value_bytes > bytes_max || self.added.len() > ENRICHMENT_BYTES_MAX {
            self.added.truncate(before);
        }
    }

    fn finish(self) -> Option<Bytes> {
        let (brace, kept) = self.data.split_last()?;
        if self.added.is_empty() || *brace != b'}' {
            return None;
        }
        Some([kept, &self.added, b"}"].concat().into())
    }
}

/// Which keys the outermost object of a text has.
struct Present {
    keys: Vec<(&'static str, bool)>,
    has_members: bool,
}

impl Present {
    /// Looks for `keys` in `data`; `None` where it is no object.
    fn find(data: &[u8], keys: &[&'static str]) -> Option<Self> {
        let present = Self {
            keys: keys.iter().map(|key| (*key, false)).collect(),
            has_members: false,
        };
        let mut reader = serde_json::Deserializer::from_slice(data);
        reader.deserialize_map(present).ok()
    }

    fn is_absent(&self, key: &str) -> bool {
        self.keys.contains(&(key, false))
    }
}

impl<'de> Visitor<'de> for Present {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Self, A::Error> {
        // Names compare after unescaping, as everywhere.
        while let Some(name) = map.next_key::<Name<'de>>()? {
            self.has_members = true;
            let found = self.keys.iter_mut().find(|(key, _)| *key == name.0);
            if let Some((_, is_there)) = found {
                *is_there = true;
            }
            map.next_value::<IgnoredAny>()?;
        }
        Ok(self)
    }
}

/// A member's name, borrowed where it has no escapes.
#[derive(serde::Deserialize)]
struct Name<'n>(#[serde(borrow)] std::borrow::Cow<'n, str>);

/// `{}`.
#[derive(Serialize)]
struct Empty {}

/// How much a git operation changed.
#[derive(Serialize)]
struct Stats {
    files: usize,
    added: u64,
    deleted: u64,
}

/// When the child should be done, RFC 3339, where that is known and within the calendar.
fn completion(spawned: &AgentSpawned<'_>, at_ms: i64) -> Option<String> {
    let duration_ms = spawned.estimated_duration?.round();
    // The cast saturates, and the sum is then outside the calendar.
    let ends_ms = time::checked_ms(at_ms.saturating_add(duration_ms as i64))?;
    let mut text = Vec::new();
    time::write_rfc3339_ms(&mut text, ends_ms);
    String::from_utf8(text).ok()
}

fn levels(branch: &str) -> Vec<&str> {
    branch.split('/').collect()
}

/// The first line of a commit's message, and not too much of it.
fn summary(message: &str) -> &str {
    let line = message.lines().next().unwrap_or_default();
    let end = line.char_indices().nth(SUMMARY_CHARS_MAX);
    end.map_or(line, |(end, _)| &line[..end])
}

/// How much of the whole is behind: the phases before this one, and of this one as much as the
/// agent is sure of it. `None` for a phase that is not listed.
fn percentage(transition: &PhaseTransition<'_>, phases: &[String]) -> Option<f64> {
    let phase = transition.to_phase?;
    let place = phases.iter().position(|name| name == phase)?;
    let behind = place as f64 + transition.confidence.unwrap_or(0.0);
    Some(100.0 * behind / phases.len() as f64)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::event::Parser;
    use crate::limits::EVENT_BYTES_MAX;

    const AT: &str = "2026-11-22T10:00:00.000Z";

    fn event(event_type: &str, data: &str) -> Event {
        let text = format!(
            r#"{{"type":"{event_type}","user_id":"ada","session_id":"s","timestamp":"{AT}","data":{data}}}"#
        );
        Parser::new().parse(&text.into(), 0).unwrap().event
    }

    fn enriched_with(event: &Event, path: &[&str], phases: &[String]) -> Option<String> {
        let known = KnownType::find(&event.event_type)?;
        let enriched = Parser::new().with_known(known, &event.data, |known| {
            enrich(known, event, path, phases)
        });
        Some(String::from_utf8(enriched??.to_vec()).unwrap())
    }

    fn enriched(event_type: &str, data: &str) -> Option<String> {
        let phases = ["EXPLORE", "PLAN", "EXECUTE", "VERIFY", "COMPLETE"].map(String::from);
        enriched_with(&event(event_type, data), &["root", "s", "kid"], &phases)
    }

    /// `expected`: what is added, or all of it where it begins with a brace.
    fn check(event_type: &str, data: &str, expected: &str) {
        let found = enriched(event_type, data).unwrap_or_default();
        let expected = match expected.starts_with('{') || expected.is_empty() {
            true => expected.to_owned(),
            false => format!("{}{expected}}}", data.strip_suffix('}').unwrap()),
        };
        assert_eq!(found, expected, "{event_type} {data}");
    }

    #[test]
    fn a_spawn_learns_where_it_is_and_what_it_may() {
        check(
            "agent_spawned",
            r#"{"child_session":"kid","estimated_duration":1500,"resource_limits":{ "tokens" : 1e3 }}"#,
            r#","agent_tree_path":["root","s","kid"],"estimated_completion":"2026-11-22T10:00:01.500Z","resource_allocation":{ "tokens" : 1e3 }"#,
        );
        check(
            "agent_spawned",
            r#"{"child_session":"kid","resource_limits":null}"#,
            r#","agent_tree_path":["root","s","kid"],"estimated_completion":null,"resource_allocation":{}"#,
        );
        check(
            "agent_spawned",
            r#"{"agent_tree_path":7,"estimated_completion":null,"estimated_duration":1e300}"#,
            r#","resource_allocation":{}"#,
        );
        check(
            "agent_spawned",
            r#"{"\u0061gent_tree_path":[],"resource_allocation":1,"estimated_duration":-1e300}"#,
            r#","estimated_completion":null"#,
        );
    }

    #[test]
    fn a_git_operation_learns_what_it_did() {
        check(
            "git_operation",
            r#"{"operation_type":"commit","branch":"feature/a/b","commit_message":"One\n\ntwo","files_changed":["a","b"],"lines_added":3,"lines_deleted":4}"#,
            r#","branch_hierarchy":["feature","a","b"],"commit_summary":"One","file_change_stats":{"files":2,"added":3,"deleted":4}"#,
        );
        check(
            "git_operation",
            "{}",
            r#"{"branch_hierarchy":[],"commit_summary":"","file_change_stats":{"files":0,"added":0,"deleted":0}}"#,
        );
        let long = "é".repeat(80);
        let data = format!(
            r#"{{"commit_message":"{long}\r\nmore","branch_hierarchy":[],"file_change_stats":{{}}}}"#
        );
        let added = format!(r#","commit_summary":"{}""#, "é".repeat(72));
        check("git_operation", &data, &added);
    }

    #[test]
    fn a_phase_learns_how_far_it_is() {
        check(
            "phase_transition",
            r#"{"to_phase":"PLAN","confidence":0.85}"#,
            r#","progress_percentage":37.0"#,
        );
        check(
            "phase_transition",
            r#"{"to_phase":"EXPLORE"}"#,
            r#","progress_percentage":0.0"#,
        );
        check(
            "phase_transition",
            r#"{"to_phase":"REST"}"#,
            r#","progress_percentage":null"#,
        );
        check(
            "phase_transition",
            r#"{"to_phase":"PLAN","confidence":1e308}"#,
            r#","progress_percentage":null"#,
        );
    }

    #[test]
    fn white_space_stays_and_nothing_else_is_touched() {
        check(
            "phase_transition",
            "{ \n}",
            "{ \n\"progress_percentage\":null}",
        );
        check(
            "phase_transition",
            "{ \"a\" : 1 ,\t\"b\":[{}] \n}",
            "{ \"a\" : 1 ,\t\"b\":[{}] \n,\"progress_percentage\":null}",
        );
        check("phase_transition", r#"{"progress_percentage":1}"#, "");
        for data in ["[]", "7", "null", "\"{}\""] {
            check("git_operation", data, "");
        }
        check("progress_update", "{}", "");
        check("test_event", "{}", "");
    }

    #[test]
    fn what_is_too_long_is_not_added() {
        let ids: Vec<String> = (0..10_000).map(|n| format!("session-{n}")).collect();
        let path: Vec<&str> = ids.iter().map(String::as_str).collect();
        let event = event("agent_spawned", r#"{"child_session":"kid"}"#);
        let long = enriched_with(&event, &path, &[]).unwrap();
        assert!(!long.contains("agent_tree_path") && long.contains("resource_allocation"));
        let short = enriched_with(&event, &path[..1_000], &[]).unwrap();
        assert!(short.contains("session-999"));
    }

    #[test]
    fn the_largest_event_is_at_most_doubled() {
        let limits = "x".repeat(EVENT_BYTES_MAX - 200);
        let data = format!(r#"{{"resource_limits":{{"a":"{limits}"}}}}"#);
        let found = enriched("agent_spawned", &data).unwrap();
        let value: Value = serde_json::from_str(&found).unwrap();
        assert_eq!(value["resource_allocation"], value["resource_limits"]);
        assert!(found.len() <= data.len() + ENRICHMENT_BYTES_MAX);
    }

    fn object() -> impl Strategy<Value = Value> {
        let value = prop_oneof![
            Just(Value::Null),
            any::<i32>().prop_map(|number| json!(number)),
            "\\PC{0,8}".prop_map(Value::from),
            Just(json!({"a": [1, {}]})),
            Just(json!(["a/b", 1])),
        ];
        let names = KnownType::ALL.into_iter().flat_map(keys_of);
        let names: Vec<&str> = names
            .copied()
            .chain(["to_phase", "branch", "resource_limits", "x"])
            .collect();
        let member = (proptest::sample::select(names), value);
        proptest::collection::vec(member, 0..6).prop_map(|members| {
            let members = members
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value));
            Value::Object(members.collect())
        })
    }

    proptest! {
        #[test]
        fn what_was_there_is_there_byte_for_byte_and_every_key_once(
            data in object(),
            event_type in proptest::sample::select(vec!["agent_spawned", "git_operation", "phase_transition"]),
        ) {
            let text = serde_json::to_string_pretty(&data).unwrap();
            if let Some(found) = enriched(event_type, &text) {
                let kept = text.strip_suffix('}').unwrap();
                prop_assert!(found.starts_with(kept));
                let found: Value = serde_json::from_str(&found).unwrap();
                for (name, value) in data.as_object().unwrap() {
                    prop_assert_eq!(&found[name], value);
                }
                let again = enriched(event_type, &found.to_string());
                prop_assert_eq!(again, None, "nothing is left to be added");
            }
        }
    }
}
