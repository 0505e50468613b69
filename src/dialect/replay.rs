//! `replay`: a viewer wants events again. Reads what it said; whether it may see the stream is the
//! hub's to judge. Source: the contract, section 6.

use serde_json::{Map, Value};

use crate::event::{Seq, Stream};
use crate::limits::REPLAY_EVENTS_USUAL;

/// Which events a viewer wants again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replay {
    /// Of which stream; `None`: the viewer's own. A user's stream here is named in full.
    pub stream: Option<Stream>,
    /// The first.
    pub from: Seq,
    /// The last; not below `from`. `None`: all there are.
    pub to: Option<Seq>,
    /// How many at most, from 1.
    pub limit: usize,
}

/// What is wrong with a `replay`. The viewer's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// `data` is missing or no object.
    #[error("data is not an object with the member from")]
    Data,
    /// `from` is missing or no seq.
    #[error("data.from is not an integer from 0 to 2^53 - 1")]
    From,
    /// `limit` is no count.
    #[error("data.limit is not an integer from 1 to 2^53 - 1")]
    Limit,
    /// `stream` is no name.
    #[error("data.stream is neither user nor project/ and an id")]
    Stream,
    /// `to` is no seq, or before `from`.
    #[error("data.to is not an integer from data.from to 2^53 - 1")]
    To,
}

impl Replay {
    /// Reads `data`.
    pub(super) fn read(data: Option<&Value>) -> Result<Self, ReplayError> {
        let data = data.and_then(Value::as_object).ok_or(ReplayError::Data)?;
        let from = match data.get("from") {
            None => return Err(ReplayError::Data),
            Some(from) => seq(from).ok_or(ReplayError::From)?,
        };
        let to = data.get("to").map(|to| seq(to).ok_or(ReplayError::To));
        let to = to.transpose()?;
        if to.is_some_and(|to| to < from) {
            return Err(ReplayError::To);
        }
        let limit = data.get("limit");
        let limit = limit.map_or(Some(REPLAY_EVENTS_USUAL), count);
        Ok(Self {
            stream: stream(data)?,
            from,
            to,
            limit: limit.ok_or(ReplayError::Limit)?,
        })
    }
}

fn seq(value: &Value) -> Option<Seq> {
    let seq = value.as_u64().map(Seq);
    seq.filter(|seq| *seq <= Seq::MAX)
}

fn count(value: &Value) -> Option<usize> {
    let count = value
        .as_u64()
        .filter(|count| (1..=Seq::MAX.0).contains(count));
    count.and_then(|count| usize::try_from(count).ok())
}

fn stream(data: &Map<String, Value>) -> Result<Option<Stream>, ReplayError> {
    let name = match data.get("stream") {
        None => return Ok(None),
        Some(name) => name.as_str().ok_or(ReplayError::Stream)?,
    };
    match name.split_once('/') {
        None if name == "user" => Ok(None),
        Some(("project", id)) if !id.is_empty() => Ok(Some(Stream::project(id))),
        Some(("user", id)) if !id.is_empty() => Ok(Some(Stream::user(id))),
        _ => Err(ReplayError::Stream),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(data: &Value, expected: &Result<Replay, ReplayError>) {
        assert_eq!(Replay::read(Some(data)), *expected, "{data}");
    }

    #[test]
    fn what_is_left_out_has_its_usual_meaning() {
        let usual = Replay {
            stream: None,
            from: Seq(3),
            to: None,
            limit: 1_000,
        };
        check(&json!({"from": 3}), &Ok(usual.clone()));
        check(&json!({"from": 3, "stream": "user"}), &Ok(usual.clone()));
        let all = json!({"stream": "project/a/b", "from": 3, "to": 3, "limit": 1});
        let expected = Replay {
            stream: Some(Stream::project("a/b")),
            to: Some(Seq(3)),
            limit: 1,
            ..usual.clone()
        };
        check(&all, &Ok(expected));
        let other = Replay {
            stream: Some(Stream::user("bob")),
            ..usual
        };
        check(&json!({"stream": "user/bob", "from": 3}), &Ok(other));
    }

    #[test]
    fn each_member_that_will_not_do_is_named() {
        use ReplayError::*;
        assert_eq!(Replay::read(None), Err(Data));
        check(&json!([]), &Err(Data));
        check(&json!({"to": 3}), &Err(Data));
        for from in [
            json!(-1),
            json!(1.0),
            json!("1"),
            json!(null),
            json!(1_u64 << 53),
        ] {
            check(&json!({"from": from}), &Err(From));
        }
        for to in [json!(4), json!("9"), json!(null), json!(1_u64 << 53)] {
            check(&json!({"from": 5, "to": to}), &Err(To));
        }
        for limit in [json!(0), json!(-1), json!(1.5), json!("9"), json!(null)] {
            check(&json!({"from": 5, "limit": limit}), &Err(Limit));
        }
        for stream in [
            json!(7),
            json!(""),
            json!("User"),
            json!("project/"),
            json!("user/"),
        ] {
            check(&json!({"from": 5, "stream": stream}), &Err(Stream));
        }
    }
}
