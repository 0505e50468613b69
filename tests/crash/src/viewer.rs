//! A viewer that comes back: it keeps its cursor as the contract says, resumes with it after each
//! end, leaves by itself now and then, and writes down what it is told.
//! Source: the contract, sections 4 to 6.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use fastrand::Rng;
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use crate::cast::{Cursor, ViewerPlan, Way};
use crate::records::{Recorder, Row, ViewerLine, fingerprint};
use crate::socket::{Heard, NotOpen, Socket};
use crate::stage::{Life, Stage};

/// One viewer through all lives of the gateway.
pub struct Viewer<'s> {
    plan: &'s ViewerPlan,
    token: String,
    dice: Rng,
    record: Recorder,
    /// Connected to all streams, and done with replay.
    is_caught_up: &'s AtomicBool,
    /// Where it stands.
    cursor: Cursor,
    /// Streams whose beginning it was told on this connection.
    attached: BTreeSet<String>,
    /// Streams whose `replay_complete` is still to come.
    replaying: BTreeSet<String>,
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

impl<'s> Viewer<'s> {
    /// One that has seen nothing yet.
    pub fn new(
        plan: &'s ViewerPlan,
        token: String,
        dice: Rng,
        record: Recorder,
        is_caught_up: &'s AtomicBool,
    ) -> Self {
        let mut cursor = Cursor::default();
        if plan.is_from_start {
            cursor.streams = plan.streams().into_iter().map(|name| (name, 0)).collect();
        }
        Self {
            plan,
            token,
            dice,
            record,
            is_caught_up,
            cursor,
            attached: BTreeSet::new(),
            replaying: BTreeSet::new(),
        }
    }

    /// Watches until it is over. Errors: of the record.
    pub fn run(mut self, stage: &Stage) -> Result<(), String> {
        let mut not_before = 0;
        while let Some(life) = stage.wait(not_before) {
            self.meet(life, stage)?;
            // Some stay away for a few lives.
            let is_away = self.dice.u8(..) < 24;
            let lives = if is_away { self.dice.u32(1..4) } else { 0 };
            not_before = life.cycle + lives;
        }
        self.record.finish()
    }

    fn meet(&mut self, life: Life, stage: &Stage) -> Result<(), String> {
        let target = self.target();
        let mut socket = match Socket::open(life.address, &target, &self.token) {
            Ok(socket) => socket,
            Err(why) => {
                if let NotOpen::Refused(status) = why {
                    self.record.write(&ViewerLine::Refused { status })?;
                }
                std::thread::sleep(RETRY);
                return Ok(());
            }
        };
        let cursor = self.given_cursor().cloned();
        let cycle = life.cycle;
        self.record.write(&ViewerLine::Opened { cycle, cursor })?;
        self.attached.clear();
        self.replaying.clear();
        let code = self.watch(&mut socket, life, stage)?;
        self.is_caught_up.store(false, Ordering::Relaxed);
        self.record.write(&ViewerLine::Closed { code })
    }

    // Until the end of the connection; returns the code of its close.
    fn watch(
        &mut self,
        socket: &mut Socket,
        life: Life,
        stage: &Stage,
    ) -> Result<Option<u16>, String> {
        let leaves = !life.is_last && self.dice.u8(..) < 64;
        let leave_at =
            leaves.then(|| Instant::now() + Duration::from_millis(self.dice.u64(5..200)));
        let mut is_leaving = false;
        loop {
            match socket.hear() {
                Heard::Text(text) => self.handle(socket, &text)?,
                Heard::Nothing => {}
                Heard::End(code) => return Ok(code),
            }
            let is_time = leave_at.is_some_and(|at| at <= Instant::now()) || stage.is_past(life);
            if is_time && !is_leaving {
                is_leaving = true;
                // Without a word, or with one: then what is under way still counts.
                if self.dice.bool() {
                    return Ok(None);
                }
                socket.close();
            }
        }
    }

    fn target(&self) -> String {
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

    fn given_cursor(&self) -> Option<&Cursor> {
        (!self.cursor.streams.is_empty()).then_some(&self.cursor)
    }

    fn handle(&mut self, socket: &mut Socket, text: &str) -> Result<(), String> {
        let line = match serde_json::from_str::<Envelope<'_>>(text) {
            Ok(envelope) => self.read(socket, envelope),
            Err(_) => Some(ViewerLine::Told { what: text.into() }),
        };
        let is_caught_up =
            self.replaying.is_empty() && self.attached.len() == self.plan.streams().len();
        self.is_caught_up.store(is_caught_up, Ordering::Relaxed);
        line.map_or(Ok(()), |line| self.record.write(&line))
    }

    fn read(&mut self, socket: &mut Socket, envelope: Envelope<'_>) -> Option<ViewerLine> {
        if let Some(seq) = envelope.seq {
            let stream = envelope.stream.unwrap_or_else(|| "user".into());
            self.cursor.streams.insert(stream.clone(), seq);
            return Some(ViewerLine::Event {
                stream,
                seq,
                event_id: envelope.event_id,
                data: fingerprint(envelope.data.get().as_bytes()),
            });
        }
        let told = || serde_json::from_str::<Told>(envelope.data.get()).ok();
        let line = match &*envelope.kind {
            "connection_established" => told().map(|told| {
                self.subscribe(socket);
                self.take_rows(told)
            }),
            "subscription_confirmed" => told().map(|told| self.take_rows(told)),
            "replay_complete" => told().and_then(|told| {
                let (stream, seq) = (told.stream?, told.seq?);
                self.replaying.remove(&stream);
                self.cursor.streams.insert(stream.clone(), seq);
                Some(ViewerLine::Complete { stream, seq })
            }),
            "cursor" => serde_json::from_str(envelope.data.get())
                .ok()
                .map(|cursor: Cursor| {
                    self.cursor.streams.extend(cursor.streams.clone());
                    ViewerLine::Cursor(cursor)
                }),
            "lag" | "server_shutdown" => return None,
            _ => None,
        };
        Some(line.unwrap_or_else(|| ViewerLine::Told {
            what: format!("{} {}", envelope.kind, envelope.data),
        }))
    }

    fn subscribe(&mut self, socket: &mut Socket) {
        let mut data = json!({"filters": self.plan.filter});
        match (self.plan.way, self.given_cursor()) {
            (Way::All | Way::Own, _) => return,
            (Way::Subscribe, Some(cursor)) => {
                data["resume"] = resume_text(cursor).into();
                if let Some(epoch) = &cursor.epoch {
                    data["epoch"] = epoch.as_str().into();
                }
            }
            _ => {}
        }
        socket.say(&json!({"type": "subscribe", "data": data}).to_string());
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

// The ids here need no escapes.
fn resume_text(cursor: &Cursor) -> String {
    let parts: Vec<String> = cursor
        .streams
        .iter()
        .map(|(stream, seq)| format!("{stream}={seq}"))
        .collect();
    parts.join(",")
}

/// Before another try where there is no connection.
const RETRY: Duration = Duration::from_millis(5);
