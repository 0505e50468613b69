//! A viewer that comes back, without its connection: it keeps its cursor as the contract says,
//! resumes with it, and says what it was told. Source: the contract, sections 4 to 6.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use crate::cast::{Cursor, ViewerPlan, Way};
use crate::records::{Row, ViewerLine, fingerprint};

/// One viewer through all lives of the gateway.
pub struct Viewing {
    plan: ViewerPlan,
    /// Where it stands.
    cursor: Cursor,
    /// Streams whose beginning it was told on this connection.
    attached: BTreeSet<String>,
    /// Streams whose `replay_complete` is still to come.
    replaying: BTreeSet<String>,
}

/// What comes of a message.
#[derive(Debug, Default)]
pub struct Reaction {
    /// To be written down.
    pub line: Option<ViewerLine>,
    /// To be said.
    pub answer: Option<String>,
}

/// A message, in either dialect.
#[derive(Deserialize)]
struct Envelope<'m> {
    #[serde(rename = "type", alias = "event_type")]
    kind: Cow<'m, str>,
    seq: Option<u64>,
    stream: Option<String>,
    event_id: Option<String>,
    #[serde(borrow)]
    data: &'m RawValue,
}

/// The members of a server message that matter here.
#[derive(Deserialize)]
struct Told {
    epoch: Option<String>,
    #[serde(default)]
    resume: Vec<Row>,
    #[serde(default)]
    at: BTreeMap<String, u64>,
    stream: Option<String>,
    seq: Option<u64>,
}

impl Viewing {
    /// One that has seen nothing yet.
    pub fn new(plan: &ViewerPlan) -> Self {
        let mut cursor = Cursor::default();
        if plan.is_from_start {
            cursor.streams = plan.streams().into_iter().map(|name| (name, 0)).collect();
        }
        Self {
            plan: plan.clone(),
            cursor,
            attached: BTreeSet::new(),
            replaying: BTreeSet::new(),
        }
    }

    /// Path and query of its next connection.
    pub fn target(&self) -> String {
        let mut query = Vec::new();
        if self.plan.way == Way::All {
            query.push("subscribe=all".to_owned());
            let sessions = self.plan.filter.session_ids.join("%2C");
            if !sessions.is_empty() {
                query.push(format!("sessions={sessions}"));
            }
        }
        if self.plan.way != Way::Subscribe
            && let Some(cursor) = self.given_cursor()
        {
            let resume = resume_text(cursor);
            let resume = resume.replace('=', "%3D").replace(',', "%2C");
            query.push(format!("resume={}", resume.replace('/', "%2F")));
            query.extend(cursor.epoch.iter().map(|epoch| format!("epoch={epoch}")));
        }
        format!("{}?{}", self.plan.path, query.join("&"))
    }

    /// It is connected. Returns what is to be written down.
    pub fn begin(&mut self, cycle: u32) -> ViewerLine {
        self.attached.clear();
        self.replaying.clear();
        let cursor = self.given_cursor().cloned();
        ViewerLine::Opened { cycle, cursor }
    }

    /// Takes a message.
    pub fn handle(&mut self, text: &str) -> Reaction {
        let told = |what: String| Reaction {
            line: Some(ViewerLine::Told { what }),
            answer: None,
        };
        match serde_json::from_str::<Envelope<'_>>(text) {
            Ok(envelope) => self.read(&envelope).unwrap_or_else(|| {
                let Envelope { kind, data, .. } = envelope;
                told(format!("{kind} {data}"))
            }),
            Err(_) => told(text.into()),
        }
    }

    /// On this connection all streams have begun, and what was missed has come.
    pub fn is_caught_up(&self) -> bool {
        self.replaying.is_empty() && self.attached.len() == self.plan.streams().len()
    }

    fn given_cursor(&self) -> Option<&Cursor> {
        (!self.cursor.streams.is_empty()).then_some(&self.cursor)
    }

    // `None`: a viewer here is not told such a thing.
    fn read(&mut self, envelope: &Envelope<'_>) -> Option<Reaction> {
        if let Some(seq) = envelope.seq {
            return Some(note(self.take_event(envelope, seq)));
        }
        let data = envelope.data.get();
        let told = || serde_json::from_str::<Told>(data).ok();
        let line = match &*envelope.kind {
            "connection_established" => {
                let told = told()?;
                return Some(Reaction {
                    answer: self.subscription(),
                    line: Some(self.take_rows(told)),
                });
            }
            "subscription_confirmed" => self.take_rows(told()?),
            "replay_complete" => {
                let Told { stream, seq, .. } = told()?;
                let (stream, seq) = (stream?, seq?);
                self.replaying.remove(&stream);
                self.cursor.streams.insert(stream.clone(), seq);
                ViewerLine::Complete { stream, seq }
            }
            "cursor" => {
                let cursor: Cursor = serde_json::from_str(data).ok()?;
                self.cursor.streams.extend(cursor.streams.clone());
                ViewerLine::Cursor(cursor)
            }
            "lag" | "server_shutdown" => return Some(Reaction::default()),
            _ => return None,
        };
        Some(note(line))
    }

    fn take_event(&mut self, envelope: &Envelope<'_>, seq: u64) -> ViewerLine {
        let stream = envelope.stream.clone();
        let stream = stream.unwrap_or_else(|| "user".into());
        self.cursor.streams.insert(stream.clone(), seq);
        ViewerLine::Event {
            stream,
            seq,
            event_id: envelope.event_id.clone(),
            data: fingerprint(envelope.data.get().as_bytes()),
        }
    }

    fn subscription(&self) -> Option<String> {
        let mut data = json!({"filters": self.plan.filter});
        match (self.plan.way, self.given_cursor()) {
            (Way::All | Way::Own, _) => return None,
            (Way::Subscribe, Some(cursor)) => {
                data["resume"] = resume_text(cursor).into();
                if let Some(epoch) = &cursor.epoch {
                    data["epoch"] = epoch.as_str().into();
                }
            }
            _ => {}
        }
        Some(json!({"type": "subscribe", "data": data}).to_string())
    }

    // A stream that begins anew begins at its head; one that continues stands at its cursor until
    // something comes.
    fn take_rows(&mut self, told: Told) -> ViewerLine {
        let (epoch, mut rows) = (told.epoch, told.resume);
        if epoch.is_some() {
            self.cursor.epoch.clone_from(&epoch);
        }
        // What a `subscribe` began without a cursor has a position and need not have a row.
        for (stream, to) in told.at {
            if !self.attached.contains(&stream) && rows.iter().all(|row| row.stream != stream) {
                rows.push(Row {
                    stream,
                    outcome: "fresh".into(),
                    to: Some(to),
                    ..Row::default()
                });
            }
        }
        for row in rows.iter().filter(|row| row.outcome != "pending") {
            self.attached.insert(row.stream.clone());
            if row.outcome == "resumed" || row.outcome == "truncated" {
                self.replaying.insert(row.stream.clone());
            } else if let Some(to) = row.to {
                self.cursor.streams.insert(row.stream.clone(), to);
            }
        }
        ViewerLine::Rows { epoch, rows }
    }
}

fn note(line: ViewerLine) -> Reaction {
    Reaction {
        line: Some(line),
        answer: None,
    }
}

// The ids here need no escapes.
fn resume_text(cursor: &Cursor) -> String {
    let parts: Vec<String> = cursor
        .streams
        .iter()
        .map(|(stream, seq)| format!("{stream}={seq}"))
        .collect();
    parts.join(",")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::cast;

    fn viewing(name: &str) -> Viewing {
        let plans = cast::viewers();
        let plan = plans.iter().find(|plan| plan.name == name);
        Viewing::new(plan.unwrap())
    }

    const ESTABLISHED: &str = r#"{"type":"connection_established","data":{"epoch":"0badcafe",
        "resume":[{"stream":"user","outcome":"resumed","from":0,"to":4}]}}"#;

    #[test]
    fn it_resumes_where_it_stands() {
        let mut viewing = viewing("viewer-ada-0");
        assert_eq!(viewing.target(), "/keen?resume=user%3D0");
        viewing.begin(0);
        viewing.handle(ESTABLISHED);
        assert!(!viewing.is_caught_up());
        viewing.handle(r#"{"type":"note","seq":3,"event_id":"e","data":{}}"#);
        assert_eq!(viewing.target(), "/keen?resume=user%3D3&epoch=0badcafe");
        viewing.handle(r#"{"type":"replay_complete","data":{"stream":"user","seq":4}}"#);
        assert!(viewing.is_caught_up());
        assert_eq!(viewing.target(), "/keen?resume=user%3D4&epoch=0badcafe");
    }

    #[test]
    fn one_that_subscribes_says_so_once_it_is_let_in() {
        let mut viewing = viewing("viewer-bob-2");
        viewing.begin(0);
        let reaction = viewing.handle(r#"{"event_type":"connection_established","data":{}}"#);
        let said = reaction.answer.unwrap();
        assert!(said.contains(r#""sessionIds":["s1","s2","s3"]"#), "{said}");
    }

    #[test]
    fn what_it_should_not_be_told_is_written_down() {
        let reaction = viewing("viewer-ada-0").handle(r#"{"type":"error","data":{"code":"X"}}"#);
        let what = r#"error {"code":"X"}"#.to_owned();
        assert_eq!(reaction.line, Some(ViewerLine::Told { what }));
    }
}
