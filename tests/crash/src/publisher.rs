//! A publisher that waits for durable acknowledgements: whatever is not acknowledged when a
//! connection ends is sent again on the next, under the same `event_id`, before anything new. Now
//! and then it also repeats what was acknowledged long ago, which nobody may see again.
//! Source: the contract, section 3.

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use fastrand::Rng;
use serde::Deserialize;

use crate::cast::{EventFacts, PROJECTS, SESSIONS, TYPES, USERS};
use crate::records::{PublisherLine, Recorder, fingerprint};
use crate::socket::{Heard, NotOpen, Socket};
use crate::stage::{Life, Stage};

/// One publisher through all lives of the gateway.
pub struct Publisher {
    name: String,
    token: String,
    dice: Rng,
    record: Recorder,
    /// Events that were made.
    made: u64,
    /// Connections so far.
    connections: u32,
    /// Sent, refused or cut off, and still to be acknowledged; the oldest first.
    waiting: VecDeque<Batch>,
    /// Acknowledged; the last so many.
    settled: VecDeque<Batch>,
}

/// The events of one message.
struct Batch {
    text: String,
    event_ids: Vec<String>,
}

/// One connection.
struct Session {
    socket: Socket,
    connection: u32,
    messages: u64,
    in_flight: VecDeque<(u64, Batch)>,
    /// Messages of which something is to be sent again.
    nacked: BTreeSet<u64>,
    in_flight_max: usize,
    /// How much new there may be.
    new_max: usize,
    leave_at: Option<Instant>,
    next_at: Instant,
    is_sendable: bool,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(rename = "type")]
    kind: String,
    data: AnswerData,
}

#[derive(Deserialize)]
struct AnswerData {
    through: Option<u64>,
    message: Option<u64>,
    index: Option<usize>,
    code: Option<String>,
}

impl Publisher {
    /// One that has made nothing yet.
    pub fn new(name: &str, token: String, dice: Rng, record: Recorder) -> Self {
        Self {
            name: name.to_owned(),
            token,
            dice,
            record,
            made: 0,
            connections: 0,
            waiting: VecDeque::new(),
            settled: VecDeque::new(),
        }
    }

    /// Publishes until the last life, and there until all is acknowledged. Errors: of the record.
    pub fn run(mut self, stage: &Stage) -> Result<(), String> {
        while let Some(life) = stage.wait(0) {
            if self.meet(life, stage)? {
                break;
            }
        }
        self.record.finish()
    }

    // One connection. Returns whether all is done.
    fn meet(&mut self, life: Life, stage: &Stage) -> Result<bool, String> {
        let socket = match Socket::open(life.address, "/v1/publish?ack=durable", &self.token) {
            Ok(socket) => socket,
            Err(why) => {
                if let NotOpen::Refused(status) = why {
                    let what = format!("refused by {status}");
                    self.record.write(&PublisherLine::Told { what })?;
                }
                std::thread::sleep(RETRY);
                return Ok(false);
            }
        };
        let mut session = self.begin(socket, life);
        let is_done = loop {
            let is_settled = session.in_flight.is_empty() && self.waiting.is_empty();
            if life.is_last && is_settled && session.new_max == 0 {
                session.socket.close();
                break true;
            }
            let is_time = session.leave_at.is_some_and(|at| at <= Instant::now());
            if is_time || stage.is_past(life) {
                break false;
            }
            if session.is_sendable {
                session.is_sendable = self.send(&mut session, stage.is_pressing())?;
            }
            // What was answered before the end still counts.
            if !self.hear(&mut session)? {
                break false;
            }
        };
        // What may not have arrived goes first the next time, in the order in which it was sent.
        let cut_off = session.in_flight.into_iter().map(|(_, batch)| batch);
        self.waiting = cut_off.chain(self.waiting.drain(..)).collect();
        Ok(is_done)
    }

    fn begin(&mut self, socket: Socket, life: Life) -> Session {
        self.connections += 1;
        if !self.settled.is_empty() && self.dice.bool() {
            let old = self.dice.usize(..self.settled.len());
            self.waiting.extend(self.settled.remove(old));
        }
        let leaves = !life.is_last && self.dice.u8(..) < 32;
        let leave_at = leaves.then(|| Instant::now() + self.millis(10..150));
        Session {
            socket,
            connection: self.connections,
            messages: 0,
            in_flight: VecDeque::new(),
            nacked: BTreeSet::new(),
            in_flight_max: self.dice.usize(1..=64),
            new_max: if life.is_last { 20 } else { usize::MAX },
            leave_at,
            next_at: Instant::now(),
            is_sendable: true,
        }
    }

    // Sends a few messages where it is time and there is room. Returns whether that goes on.
    fn send(&mut self, session: &mut Session, is_pressing: bool) -> Result<bool, String> {
        let now = Instant::now();
        let is_early = now < session.next_at && !is_pressing;
        if is_early || !session.nacked.is_empty() {
            return Ok(true);
        }
        session.next_at = now + self.millis(0..12);
        for _ in 0..self.dice.usize(1..=4) {
            if session.in_flight.len() >= session.in_flight_max {
                break;
            }
            let Some(batch) = self.next_batch(session)? else {
                break;
            };
            session.messages += 1;
            self.record.write(&PublisherLine::Sent {
                connection: session.connection,
                message: session.messages,
                event_ids: batch.event_ids.clone(),
            })?;
            let is_sent = session.socket.say(&batch.text);
            session.in_flight.push_back((session.messages, batch));
            if !is_sent {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn next_batch(&mut self, session: &mut Session) -> Result<Option<Batch>, String> {
        if let Some(batch) = self.waiting.pop_front() {
            return Ok(Some(batch));
        }
        if session.new_max == 0 {
            return Ok(None);
        }
        session.new_max -= 1;
        self.make_batch().map(Some)
    }

    // Returns whether the connection lives.
    fn hear(&mut self, session: &mut Session) -> Result<bool, String> {
        match session.socket.hear() {
            Heard::Text(text) => self.handle(session, &text)?,
            Heard::Nothing => {}
            Heard::End(_) => return Ok(false),
        }
        Ok(true)
    }

    fn handle(&mut self, session: &mut Session, text: &str) -> Result<(), String> {
        let connection = session.connection;
        let answer: Option<Answer> = serde_json::from_str(text).ok();
        let line = match answer.map(|answer| (answer.kind, answer.data)) {
            Some((kind, data)) if kind == "ack" && data.through.is_some() => {
                let through = data.through.unwrap_or_default();
                self.settle(session, through);
                PublisherLine::Acked {
                    connection,
                    through,
                }
            }
            Some((kind, data)) if kind == "nack" => {
                let message = data.message.unwrap_or_default();
                session.nacked.insert(message);
                PublisherLine::Nacked {
                    connection,
                    message,
                    index: data.index.unwrap_or_default(),
                    code: data.code.unwrap_or_default(),
                }
            }
            _ => PublisherLine::Told { what: text.into() },
        };
        self.record.write(&line)
    }

    // Once everything is answered, what was refused is to be sent again.
    fn settle(&mut self, session: &mut Session, through: u64) {
        while session
            .in_flight
            .front()
            .is_some_and(|(message, _)| *message <= through)
        {
            let Some((message, batch)) = session.in_flight.pop_front() else {
                break;
            };
            if session.nacked.contains(&message) {
                self.waiting.push_back(batch);
                continue;
            }
            self.settled.push_back(batch);
            if self.settled.len() > SETTLED_MAX {
                self.settled.pop_front();
            }
        }
        if session.in_flight.is_empty() && !session.nacked.is_empty() {
            session.nacked.clear();
            session.socket.say(r#"{"type":"continue"}"#);
        }
    }

    fn make_batch(&mut self) -> Result<Batch, String> {
        let count = if self.dice.u8(..) < 64 {
            self.dice.usize(2..=4)
        } else {
            1
        };
        let mut event_ids = Vec::new();
        let mut texts = Vec::new();
        for _ in 0..count {
            let (event, text) = self.make_event();
            event_ids.push(event.event_id.clone());
            texts.push(text);
            self.record.write(&PublisherLine::Made(event))?;
        }
        let text = match &texts[..] {
            [one] => one.clone(),
            several => format!("[{}]", several.join(",")),
        };
        Ok(Batch { text, event_ids })
    }

    fn make_event(&mut self) -> (EventFacts, String) {
        self.made += 1;
        let audience = self.dice.u8(0..10);
        let user = (!(5..7).contains(&audience)).then(|| self.pick(&USERS));
        let project = (audience >= 5).then(|| self.pick(&PROJECTS));
        let session = (self.dice.u8(0..4) > 0).then(|| self.pick(&SESSIONS));
        let data = self.make_data();
        let event = EventFacts {
            event_id: format!("{}-{}", self.name, self.made),
            event_type: self.pick(&TYPES),
            user,
            project,
            session,
            data: fingerprint(data.as_bytes()),
        };
        let text = write_event(&event, &data);
        (event, text)
    }

    // Keys out of order and numbers as nobody would write them again.
    fn make_data(&mut self) -> String {
        let bytes = match self.dice.u8(0..64) {
            0 => self.dice.usize(4_000..12_000),
            _ => self.dice.usize(0..400),
        };
        let filling = self.dice.alphanumeric();
        let filling = String::from(filling).repeat(bytes);
        format!(r#"{{"z":1.50e1,"n":{},"fill":"{filling}"}}"#, self.made)
    }

    fn pick(&mut self, names: &[&str]) -> String {
        names[self.dice.usize(..names.len())].to_owned()
    }

    fn millis(&mut self, range: std::ops::Range<u64>) -> Duration {
        Duration::from_millis(self.dice.u64(range))
    }
}

// Names and ids here need no escapes.
fn write_event(event: &EventFacts, data: &str) -> String {
    let mut text = format!(
        r#"{{"event_type":"{}","event_id":"{}","#,
        event.event_type, event.event_id
    );
    let others = [
        ("user_id", &event.user),
        ("project_id", &event.project),
        ("session_id", &event.session),
    ];
    for (name, value) in others {
        if let Some(value) = value {
            text += &format!(r#""{name}":"{value}","#);
        }
    }
    text + &format!(r#""data":{data}}}"#)
}

/// Before another try where there is no connection.
const RETRY: Duration = Duration::from_millis(5);

/// Messages that may be repeated although they were acknowledged: a few seconds' worth, far within
/// the ten minutes of the contract.
const SETTLED_MAX: usize = 2_000;
