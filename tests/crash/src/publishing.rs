//! A publisher that waits for durable acknowledgements, without its connection: whatever is not
//! acknowledged when a connection ends is sent again on the next, under the same `event_id`, before
//! anything new. Now and then it also repeats what was acknowledged long ago, which nobody may see
//! again. Source: the contract, section 3.

use std::collections::{BTreeSet, VecDeque};

use fastrand::Rng;
use serde::Deserialize;

use crate::cast::{EventFacts, PROJECTS, SESSIONS, TYPES, USERS};
use crate::records::{PublisherLine, fingerprint};

/// One publisher through all lives of the gateway.
pub struct Publishing {
    name: String,
    dice: Rng,
    /// Events that were made.
    made: u64,
    /// Connections so far.
    connections: u32,
    /// Sent, refused or cut off, and still to be acknowledged; the oldest first.
    waiting: VecDeque<Batch>,
    /// Acknowledged; the last so many.
    settled: VecDeque<Batch>,
    session: Session,
    lines: VecDeque<PublisherLine>,
}

/// The events of one message.
struct Batch {
    text: String,
    event_ids: Vec<String>,
}

/// What is to be known of one connection.
#[derive(Default)]
struct Session {
    messages: u64,
    in_flight: VecDeque<(u64, Batch)>,
    /// Messages of which something is to be sent again.
    nacked: BTreeSet<u64>,
    in_flight_max: usize,
    /// How much new there may be.
    new_max: usize,
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

impl Publishing {
    /// One that has made nothing yet.
    pub fn new(name: &str, dice: Rng) -> Self {
        Self {
            name: name.to_owned(),
            dice,
            made: 0,
            connections: 0,
            waiting: VecDeque::new(),
            settled: VecDeque::new(),
            session: Session::default(),
            lines: VecDeque::new(),
        }
    }

    /// It is connected, for at most `new_max` new messages.
    pub fn begin(&mut self, new_max: usize) {
        self.connections += 1;
        if !self.settled.is_empty() && self.dice.bool() {
            let old = self.dice.usize(..self.settled.len());
            self.waiting.extend(self.settled.remove(old));
        }
        self.session = Session {
            in_flight_max: self.dice.usize(1..=64),
            new_max,
            ..Session::default()
        };
    }

    /// The connection has ended.
    pub fn end(&mut self) {
        // What may not have arrived goes first the next time, in the order in which it was sent.
        let cut_off = self.session.in_flight.drain(..).map(|(_, batch)| batch);
        self.waiting = cut_off.chain(self.waiting.drain(..)).collect();
    }

    /// The next message, where there is room for it and anything to say.
    pub fn poll_message(&mut self) -> Option<String> {
        let session = &self.session;
        if !session.nacked.is_empty() || session.in_flight.len() >= session.in_flight_max {
            return None;
        }
        let batch = self.next_batch()?;
        let session = &mut self.session;
        session.messages += 1;
        self.lines.push_back(PublisherLine::Sent {
            connection: self.connections,
            message: session.messages,
            event_ids: batch.event_ids.clone(),
        });
        let text = batch.text.clone();
        session.in_flight.push_back((session.messages, batch));
        Some(text)
    }

    /// Takes an answer. Returns what is to be said to it.
    pub fn handle(&mut self, text: &str) -> Option<&'static str> {
        let connection = self.connections;
        let answer: Option<Answer> = serde_json::from_str(text).ok();
        let (line, reply) = match answer.map(|answer| (answer.kind, answer.data)) {
            Some((kind, data)) if kind == "ack" && data.through.is_some() => {
                let through = data.through.unwrap_or_default();
                let line = PublisherLine::Acked {
                    connection,
                    through,
                };
                (line, self.settle(through))
            }
            Some((kind, data)) if kind == "nack" => {
                let message = data.message.unwrap_or_default();
                self.session.nacked.insert(message);
                let line = PublisherLine::Nacked {
                    connection,
                    message,
                    index: data.index.unwrap_or_default(),
                    code: data.code.unwrap_or_default(),
                };
                (line, None)
            }
            _ => (PublisherLine::Told { what: text.into() }, None),
        };
        self.lines.push_back(line);
        reply
    }

    /// Everything in flight was received, and that is all it is told: it is not sent again.
    pub fn let_go(&mut self) {
        self.session.in_flight.clear();
    }

    /// The next thing to write down.
    pub fn poll_line(&mut self) -> Option<PublisherLine> {
        self.lines.pop_front()
    }

    /// Whether something was sent and is not answered.
    pub fn has_in_flight(&self) -> bool {
        !self.session.in_flight.is_empty()
    }

    /// Whether all is acknowledged, and nothing new is to come on this connection.
    pub fn is_done(&self) -> bool {
        self.session.in_flight.is_empty() && self.waiting.is_empty() && self.session.new_max == 0
    }

    fn next_batch(&mut self) -> Option<Batch> {
        if let Some(batch) = self.waiting.pop_front() {
            return Some(batch);
        }
        if self.session.new_max == 0 {
            return None;
        }
        self.session.new_max -= 1;
        Some(self.make_batch())
    }

    // Once everything is answered, what was refused is to be sent again.
    fn settle(&mut self, through: u64) -> Option<&'static str> {
        let session = &mut self.session;
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
        let goes_on = session.in_flight.is_empty() && !session.nacked.is_empty();
        if goes_on {
            session.nacked.clear();
        }
        goes_on.then_some(r#"{"type":"continue"}"#)
    }

    fn make_batch(&mut self) -> Batch {
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
            self.lines.push_back(PublisherLine::Made(event));
        }
        let text = match &texts[..] {
            [one] => one.clone(),
            several => format!("[{}]", several.join(",")),
        };
        Batch { text, event_ids }
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

/// Messages that may be repeated although they were acknowledged: a few seconds' worth, far within
/// the ten minutes of the contract.
const SETTLED_MAX: usize = 2_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn publisher() -> Publishing {
        let mut publisher = Publishing::new("p", Rng::with_seed(7));
        publisher.begin(2);
        publisher.session.in_flight_max = 2;
        publisher
    }

    fn messages(publisher: &mut Publishing) -> Vec<String> {
        std::iter::from_fn(|| publisher.poll_message()).collect()
    }

    #[test]
    fn what_was_not_acknowledged_goes_first_on_the_next_connection() {
        let mut publisher = publisher();
        let sent = messages(&mut publisher);
        assert_eq!(sent.len(), 2);
        publisher.handle(r#"{"type":"ack","data":{"through":1}}"#);
        publisher.end();
        assert!(!publisher.is_done());
        publisher.begin(0);
        assert_eq!(publisher.poll_message().as_ref(), sent.last());
        publisher.handle(r#"{"type":"ack","data":{"through":1}}"#);
        assert!(publisher.settled.len() <= 2);
    }

    #[test]
    fn what_was_refused_waits_for_the_answers_to_the_rest() {
        let mut publisher = publisher();
        let sent = messages(&mut publisher);
        let nack = r#"{"type":"nack","data":{"message":1,"index":0,"code":"OVERLOADED"}}"#;
        assert_eq!(publisher.handle(nack), None);
        assert_eq!(publisher.poll_message(), None);
        let reply = publisher.handle(r#"{"type":"ack","data":{"through":2}}"#);
        assert_eq!(reply, Some(r#"{"type":"continue"}"#));
        assert_eq!(publisher.poll_message().as_ref(), sent.first());
    }
}
