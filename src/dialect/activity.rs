//! `get_project_activity`: what was done in a project, and when. Reads the question and writes the
//! answer; whether the viewer may see the project is the hub's to judge. Source: the contract,
//! section 6.

use compact_str::CompactString;
use serde_json::Value;

use super::json::{self, Object};
use super::message::Times;
use super::{MessageId, project};
use crate::agents::activity::{Tally, TimeRange};
use crate::event::time;
use crate::limits::ACTIVITY_BUCKETS;

/// What a viewer wants to know of a project.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActivityQuestion {
    /// Which, as text.
    pub project: CompactString,
    /// Of when; `None`: of the last hour.
    pub range: Option<TimeRange>,
}

/// What is wrong with a `get_project_activity`. The viewer's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ActivityError {
    /// `data` is missing or no object.
    #[error("data is not an object with the member projectId")]
    Data,
    /// `projectId` is no id.
    #[error("data.projectId is neither an integer nor a string")]
    Project,
    /// `timeRange` has not two times, the second not before the first.
    #[error(
        "data.timeRange is not an object whose start and end are integer milliseconds or RFC 3339 \
         times, the end not before the start"
    )]
    Range,
}

impl ActivityQuestion {
    /// Reads `data`.
    pub(super) fn read(data: Option<&Value>) -> Result<Self, ActivityError> {
        let data = data.and_then(Value::as_object).ok_or(ActivityError::Data)?;
        let id = data.get("projectId").ok_or(ActivityError::Data)?;
        let range = data.get("timeRange").map(read_range);
        Ok(Self {
            project: project::read_id(id).ok_or(ActivityError::Project)?,
            range: range
                .map(|range| range.ok_or(ActivityError::Range))
                .transpose()?,
        })
    }
}

fn read_range(range: &Value) -> Option<TimeRange> {
    let time = |name| read_time(range.get(name)?);
    TimeRange::new(time("start")?, time("end")?)
}

/// Times in requests are taken in both dialects' spellings.
fn read_time(value: &Value) -> Option<i64> {
    match value {
        Value::String(text) => time::parse_rfc3339_ms(text),
        _ => value.as_i64(),
    }
}

/// The answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ProjectActivity<'a> {
    /// The id of the question.
    pub id: Option<&'a MessageId>,
    /// Which project.
    pub project: &'a str,
    /// How many events of each type there were.
    pub tally: &'a Tally,
    /// The latest time of any of the project's events, in milliseconds since the Unix epoch.
    pub last_ms: Option<i64>,
}

impl ProjectActivity<'_> {
    pub(super) fn push_members(&self, times: Times, data: &mut Object<'_>) {
        project::push_id(Some(self.project), data.member("projectId"));
        push_counts(self.tally.totals(), data.member("counts"));
        let buckets = data.member("buckets");
        json::push_array(0..ACTIVITY_BUCKETS, buckets, |index, out| {
            self.push_bucket(index, times, out);
        });
        let last = data.member("lastActivity");
        match self.last_ms {
            Some(last_ms) => times.push(last_ms, last),
            None => last.extend_from_slice(b"null"),
        }
    }

    fn push_bucket(&self, index: usize, times: Times, out: &mut Vec<u8>) {
        let (start_ms, end_ms) = self.tally.range().bucket(index);
        let mut bucket = Object::open(out);
        times.push(start_ms, bucket.member("start"));
        times.push(end_ms, bucket.member("end"));
        push_counts(self.tally.bucket(index), bucket.member("counts"));
        bucket.close();
    }
}

fn push_counts<'t>(counts: impl Iterator<Item = (&'t str, u64)>, out: &mut Vec<u8>) {
    let mut object = Object::open(out);
    for (event_type, count) in counts {
        let value = object.member_named(|out| json::push_string(event_type, out));
        json::push_integer(count, value);
    }
    object.close();
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::json;

    use super::*;
    use crate::dialect::{ServerMessage, encode_message};
    use crate::event::Dialect;

    const START_MS: i64 = 1_795_341_600_000;
    const HOUR_MS: i64 = 3_600_000;

    fn check(data: &Value, project: &str, range: Option<(i64, i64)>) {
        let range = range.map(|(start_ms, end_ms)| TimeRange::new(start_ms, end_ms).unwrap());
        let project = project.into();
        let expected = ActivityQuestion { project, range };
        assert_eq!(ActivityQuestion::read(Some(data)), Ok(expected), "{data}");
    }

    #[test]
    fn a_question_names_a_project_and_perhaps_a_time() {
        check(&json!({"projectId": 7}), "7", None);
        check(
            &json!({"projectId": "x", "timeRange": {"start": 5, "end": 5}}),
            "x",
            Some((5, 5)),
        );
        let text = json!({"start": "2026-11-22T10:00:00Z", "end": "2026-11-22T12:00:00+01:00"});
        let range = Some((START_MS, START_MS + HOUR_MS));
        check(&json!({"projectId": "x", "timeRange": text}), "x", range);
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let check = |data: Option<&Value>, expected| {
            assert_eq!(ActivityQuestion::read(data), Err(expected), "{data:?}");
        };
        check(None, ActivityError::Data);
        check(Some(&json!([])), ActivityError::Data);
        check(Some(&json!({})), ActivityError::Data);
        check(Some(&json!({"projectId": null})), ActivityError::Project);
        for range in [
            json!(null),
            json!([]),
            json!({"start": 1}),
            json!({"start": 2, "end": 1}),
            json!({"start": 1.5, "end": 2}),
            json!({"start": "yesterday", "end": 2}),
            json!({"start": 0, "end": i64::MAX}),
        ] {
            let data = json!({"projectId": 7, "timeRange": range});
            check(Some(&data), ActivityError::Range);
        }
    }

    #[test]
    fn the_answer_has_sixty_parts_and_times_as_its_dialect_has_them() {
        let mut tally = Tally::new(TimeRange::new(START_MS, START_MS + HOUR_MS).unwrap());
        tally.add("a", START_MS, 2);
        tally.add("b\"", START_MS + HOUR_MS, 1);
        tally.add("a", START_MS + HOUR_MS, 1);
        let answer = |dialect, last_ms| {
            let mut out = Vec::new();
            let answer = ServerMessage::ProjectActivity(ProjectActivity {
                id: None,
                project: "7",
                tally: &tally,
                last_ms,
            });
            encode_message(dialect, &answer, 0, &mut out);
            let answer: Value = serde_json::from_slice(&out).unwrap();
            answer["data"].clone()
        };
        let keen = answer(Dialect::Keen, Some(START_MS));
        assert_eq!(
            (&keen["projectId"], &keen["counts"]),
            (&json!(7), &json!({"a": 3, "b\"": 1}))
        );
        let buckets = keen["buckets"].as_array().unwrap();
        assert_eq!(buckets.len(), 60);
        assert_eq!(
            buckets[0],
            json!({
                "start": "2026-11-22T10:00:00.000Z", "end": "2026-11-22T10:01:00.000Z",
                "counts": {"a": 2},
            })
        );
        assert_eq!(buckets[1]["counts"], json!({}));
        assert_eq!(buckets[59]["counts"], json!({"a": 1, "b\"": 1}));
        assert_eq!(keen["lastActivity"], "2026-11-22T10:00:00.000Z");
        let observatory = answer(Dialect::Observatory, None);
        assert_eq!(observatory["buckets"][59]["end"], START_MS + HOUR_MS);
        assert_eq!(observatory["lastActivity"], Value::Null);
    }
}
