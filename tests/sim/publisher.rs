//! Simulated publishers over WebSocket and by POST: what each sent, what became of it as far as it
//! was told, and retries that keep the order.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use sightline::event::RejectionCode;
use sightline::hub::publisher::Outcome;
use sightline::wire::frame::{Control, Data, OpCode};

use crate::network::{Frame, FrameReader, Link, LinkId};
use crate::viewer::{RESPONSE, send_frame};

/// One event of a body, or what stands where one should.
#[derive(Clone, Debug)]
pub struct Item {
    pub text: String,
    pub expected: Expected,
    /// It was acknowledged before it was sent here, so that this is a duplicate.
    pub was_accepted: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Refused with this code, whatever the load.
    Bad(&'static str),
    /// Outside the token's scope.
    Forbidden,
    /// Taken, unless there is no room.
    Good(u64),
}

/// What is known of each good event, by its number.
#[derive(Default)]
pub struct Fates {
    fates: BTreeMap<u64, Fate>,
    /// For each connection or POST, its events in the order in which they were first sent.
    pub orders: BTreeMap<LinkId, Vec<u64>>,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Fate {
    pub sent: u32,
    pub accepted: u32,
    pub refused: u32,
    /// It was sent again, not for a retry in order, so that it has no place in any order.
    pub is_repeated: bool,
}

pub struct Publisher {
    pub link: LinkId,
    pub scope: Scope,
    pub close: Option<u16>,
    /// Bytes that it reads in a step; 0: it has stopped reading.
    pub reads: usize,
    pub is_answering: bool,
    /// The codes with which it may be closed.
    pub closable: BTreeSet<u16>,
    /// Messages 1 to this are settled, it was told.
    pub through: u64,
    messages: Vec<Message>,
    reader: FrameReader,
    // How often it has said `continue`, and whether it must before anything more is taken.
    continues: u32,
    is_refused: bool,
    retries: Vec<Item>,
    is_retrying: bool,
}

/// For whom a publisher may speak.
#[derive(Clone, Debug)]
pub struct Scope {
    pub sub: &'static str,
    pub projects: Vec<String>,
    pub is_any: bool,
}

struct Message {
    items: Vec<Item>,
    nacks: BTreeMap<usize, String>,
    continues: u32,
}

type Told = Result<(), String>;

impl Publisher {
    pub fn new(link: LinkId, scope: Scope) -> Self {
        Self {
            link,
            scope,
            close: None,
            reads: usize::MAX,
            is_answering: true,
            closable: BTreeSet::new(),
            through: 0,
            messages: Vec::new(),
            reader: FrameReader::new(RESPONSE, false),
            continues: 0,
            is_refused: false,
            retries: Vec::new(),
            is_retrying: false,
        }
    }

    pub fn sent(&self) -> u64 {
        self.messages.len() as u64
    }

    /// Whether everything is settled and nothing is left to try again.
    pub fn is_settled(&self) -> bool {
        self.through == self.sent() && self.retries.is_empty()
    }

    /// Whether it may send what is new: a retry comes first.
    pub fn is_free(&self) -> bool {
        self.close.is_none() && self.retries.is_empty()
    }

    pub fn say(&mut self, link: &mut Link, items: Vec<Item>, is_array: bool, fates: &mut Fates) {
        fates.handle_sent(self.link, &items, self.is_retrying);
        let texts: Vec<&str> = items.iter().map(|item| item.text.as_str()).collect();
        let text = if is_array {
            format!(" [{}]", texts.join(" ,"))
        } else {
            texts.concat()
        };
        self.messages.push(Message {
            items,
            nacks: BTreeMap::new(),
            continues: self.continues,
        });
        send_frame(link, OpCode::Data(Data::Text), text.as_bytes());
    }

    /// Many events that will all be refused.
    pub fn say_nonsense(&mut self, link: &mut Link, count: usize, fates: &mut Fates) {
        let item = Item {
            text: "5".into(),
            expected: Expected::Bad("INVALID_FIELD"),
            was_accepted: false,
        };
        self.say(link, vec![item; count], true, fates);
    }

    pub fn step(&mut self, link: &mut Link, fates: &mut Fates) -> Told {
        self.reader.feed(&link.receive(self.reads))?;
        while let Some(frame) = self.reader.next()? {
            if self.close.is_some() {
                return Err(format!("a frame after the close frame: {frame:?}"));
            }
            match frame {
                Frame::Close(code) => {
                    self.close = Some(code);
                    if !self.closable.contains(&code) {
                        return Err(format!("closed with {code}"));
                    }
                    if self.is_answering {
                        send_frame(link, OpCode::Control(Control::Close), &code.to_be_bytes());
                    }
                }
                Frame::Ping(payload) if self.is_answering => {
                    send_frame(link, OpCode::Control(Control::Pong), &payload);
                }
                Frame::Ping(_) | Frame::Pong => {}
                Frame::Text(text) => self
                    .handle_text(&text, fates)
                    .map_err(|error| format!("{error}: {}", String::from_utf8_lossy(&text)))?,
            }
        }
        if self.through == self.sent() && !self.retries.is_empty() && self.close.is_none() {
            self.continues += 1;
            send_frame(link, OpCode::Data(Data::Text), b"{\"type\":\"continue\"}");
            let items = std::mem::take(&mut self.retries);
            self.is_retrying = true;
            self.say(link, items, true, fates);
            self.is_retrying = false;
        }
        Ok(())
    }

    fn handle_text(&mut self, text: &[u8], fates: &mut Fates) -> Told {
        let value: Value = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        let data = &value["data"];
        match value["type"].as_str() {
            Some("ack") => {
                let through = data["through"].as_u64().ok_or("no through")?;
                if through <= self.through || through > self.sent() {
                    return Err(format!("an ack after {} of {}", self.through, self.sent()));
                }
                while self.through < through {
                    self.through += 1;
                    self.settle(self.through as usize - 1, fates)?;
                }
                Ok(())
            }
            Some("nack") => {
                let (number, index) = (data["message"].as_u64(), data["index"].as_u64());
                let (number, index) = number.zip(index).ok_or("a nack of nothing")?;
                let message = self
                    .messages
                    .get_mut(number as usize - 1)
                    .ok_or("a nack of no message")?;
                if number <= self.through || index as usize >= message.items.len() {
                    return Err(format!(
                        "a nack after its ack {}, or of no event",
                        self.through
                    ));
                }
                let code = data["code"].as_str().ok_or("no code")?.to_owned();
                let is_second = message.nacks.insert(index as usize, code).is_some();
                if is_second {
                    Err("a second nack".into())
                } else {
                    Ok(())
                }
            }
            _ => Err("an unknown message".into()),
        }
    }

    fn settle(&mut self, message: usize, fates: &mut Fates) -> Told {
        let Message {
            items,
            nacks,
            continues,
        } = &self.messages[message];
        // Messages that were sent before the last `continue` fall under the refusal before it.
        if message > 0 && *continues > self.messages[message - 1].continues {
            self.is_refused = false;
        }
        for (index, item) in items.iter().enumerate() {
            let code = nacks.get(&index).map(String::as_str);
            item.check(code, self.is_refused)
                .map_err(|error| format!("{error} in message {}", message + 1))?;
            if let Expected::Good(uid) = item.expected {
                fates.handle_settled(uid, code.is_none());
            }
            if is_refusal_of_rest(code) {
                self.is_refused = true;
                if matches!(item.expected, Expected::Good(_)) {
                    self.retries.push(item.clone());
                }
            }
        }
        Ok(())
    }
}

// Whether all that follows gets the same answer.
fn is_refusal_of_rest(code: Option<&str>) -> bool {
    matches!(code, Some("OVERLOADED" | "STORAGE_FULL"))
}

impl Item {
    // Whether it may be answered with `code`; `None`: taken, or known already.
    fn check(&self, code: Option<&str>, is_refused: bool) -> Told {
        let is_load = |code: &str| matches!(code, "OVERLOADED" | "DRAINING" | "STORAGE_FULL");
        let is_right = match (self.expected, code) {
            (Expected::Bad(expected), _) => code == Some(expected),
            (Expected::Forbidden, Some(code)) => {
                is_load(code) || (code == "FORBIDDEN_AUDIENCE" && !is_refused)
            }
            (Expected::Good(_), Some(code)) => {
                is_load(code) || (code == "RATE_LIMITED" && !is_refused)
            }
            (Expected::Forbidden, None) => false,
            (Expected::Good(_), None) => !is_refused,
        };
        if is_right {
            Ok(())
        } else {
            Err(format!(
                "{self:?} was answered {code:?}, refused before: {is_refused}"
            ))
        }
    }
}

impl Fates {
    pub fn of(&self, uid: u64) -> Fate {
        self.fates.get(&uid).copied().unwrap_or_default()
    }

    pub fn iter(&self) -> impl Iterator<Item = (u64, Fate)> {
        self.fates.iter().map(|(uid, fate)| (*uid, *fate))
    }

    /// `is_retry`: in the order of the first time, after all of them were refused.
    pub fn handle_sent(&mut self, link: LinkId, items: &[Item], is_retry: bool) {
        let order = self.orders.entry(link).or_default();
        for item in items {
            let Expected::Good(uid) = item.expected else {
                continue;
            };
            let fate = self.fates.entry(uid).or_default();
            if fate.sent == 0 {
                order.push(uid);
            } else {
                fate.is_repeated |= !is_retry;
            }
            fate.sent += 1;
        }
    }

    /// Takes the answer to a POST of `items`.
    pub fn handle_posted(&mut self, items: &[Item], outcome: &Outcome) -> Told {
        let mut codes: BTreeMap<u32, RejectionCode> = BTreeMap::new();
        for row in &outcome.rejected.rows {
            if codes.insert(row.index, row.code).is_some() || row.index as usize >= items.len() {
                return Err(format!("two rows for one event, or one for none: {row:?}"));
            }
        }
        let (refused, duplicates) = (outcome.rejected.count, outcome.duplicates);
        if refused != codes.len() as u64
            || outcome.accepted + duplicates + refused != items.len() as u64
        {
            return Err(format!(
                "{} events were posted, of which {outcome:?}",
                items.len()
            ));
        }
        let (mut is_refused, mut known, mut maybe) = (false, 0, 0);
        for (index, item) in items.iter().enumerate() {
            let code = codes.get(&(index as u32)).map(|code| code.as_str());
            item.check(code, is_refused)
                .map_err(|error| format!("{error} in a POST"))?;
            is_refused |= is_refusal_of_rest(code);
            let Expected::Good(uid) = item.expected else {
                continue;
            };
            if code.is_none() {
                let fate = self.of(uid);
                known += u64::from(item.was_accepted);
                maybe += u64::from(fate.sent > 1);
            }
            self.handle_settled(uid, code.is_none());
        }
        if duplicates < known || duplicates > maybe {
            return Err(format!(
                "{duplicates} duplicates, expected {known} to {maybe}, of {items:?}"
            ));
        }
        Ok(())
    }

    fn handle_settled(&mut self, uid: u64, is_accepted: bool) {
        let fate = self.fates.entry(uid).or_default();
        if is_accepted {
            fate.accepted += 1;
        } else {
            fate.refused += 1;
        }
    }
}
