//! A simulated viewer: reads frames with its own small parser, keeps a shadow of what it is
//! subscribed to by what it asked for and was answered, and notes what it sees of each stream.

mod answers;
mod sightings;
mod trees;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use sightline::dialect::TreeMode;
use sightline::event::{Dialect, Stream};
use sightline::wire::frame::{Control, Data, OpCode, encode_client_frame};

use crate::check::{Mark, Wanted};
use crate::events::{Envelope, Events, FilterSpec, name_of, stream_of};
use crate::network::{Frame, FrameReader, Link, LinkId};
use crate::scenario::EPOCH;

use answers::Subscription;
pub use sightings::Sightings;
use trees::Screen;

/// What the core writes ahead of the frames.
pub const RESPONSE: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\n\r\n";

pub struct Viewer {
    pub link: LinkId,
    pub user: &'static str,
    pub dialect: Dialect,
    pub id: u64,
    pub jti: String,
    pub habits: Habits,
    /// The codes with which it may be closed.
    pub closable: BTreeSet<u16>,
    /// Its close was ordered, so that it must come.
    pub is_doomed: bool,
    /// It sees all of its streams, and nothing may happen to it.
    pub is_oracle: bool,
    pub subscriptions_max: usize,
    pub is_established: bool,
    is_greeted: bool,
    // The last message, where it was a cursor.
    cursor: Option<BTreeMap<String, u64>>,
    /// The close frame's code, once it has come.
    pub close: Option<u16>,
    pub got_shutdown: bool,
    /// It was told that it lags, and not yet that it has caught up.
    pub is_lagging: bool,
    /// What came before the close frame was a cursor.
    pub ends_with_cursor: bool,
    pub marks: BTreeMap<Stream, Vec<Mark>>,
    /// Streams that continued from its cursor: they may be live for it or not yet.
    pub resumed: BTreeSet<Stream>,
    // Up to where it is to be told that all it missed has come.
    replayed_to: BTreeMap<Stream, u64>,
    /// What was asked for and is not answered.
    pub pending: BTreeMap<u64, Command>,
    /// Messages that cannot be read, sent and not answered.
    pub garbage: usize,
    /// Messages of any kind that were dropped for their rate.
    pub dropped: usize,
    projects: Vec<String>,
    live: BTreeMap<Stream, Wanted>,
    subscriptions: Vec<Subscription>,
    // Where the server was asked to start streams that it has not started.
    cursors: BTreeMap<String, u64>,
    next_id: u64,
    reader: FrameReader,
    // What it asked for of trees, and what it was told of them.
    tree: Option<TreeMode>,
    screen: Screen,
    // Of the first of them.
    present_seq: Option<u64>,
    is_narrowed: bool,
}

/// How a viewer behaves, now and so far.
#[derive(Clone, Copy, Debug)]
pub struct Habits {
    /// Bytes that it reads in a step; 0: it has stopped reading.
    pub reads: usize,
    pub is_answering: bool,
}

/// What a viewer asks to be connected with.
#[derive(Clone, Debug, Default)]
pub struct Wishes {
    pub projects: Vec<String>,
    pub sessions: Vec<String>,
    pub is_to_all: bool,
    /// It agreed on permessage-deflate.
    pub takes_deflated: bool,
    pub cursors: BTreeMap<String, u64>,
    pub tree: Option<TreeMode>,
}

/// What a viewer has asked for.
#[derive(Debug)]
pub enum Command {
    Ping(Value),
    /// Will be refused, with this code.
    Refused(&'static str),
    Refresh {
        projects: Vec<String>,
    },
    Subscribe {
        filters: Vec<FilterSpec>,
        is_list: bool,
        cursors: BTreeMap<String, u64>,
    },
    Unsubscribe(Doomed),
}

/// Which subscriptions are to go.
#[derive(Debug)]
pub enum Doomed {
    All,
    Filter(FilterSpec),
    Key(String),
}

type Told = Result<(), String>;

impl Viewer {
    pub fn new(link: LinkId, user: &'static str, dialect: Dialect, wishes: &Wishes) -> Self {
        let filter = FilterSpec::of_sessions(&wishes.sessions);
        let is_own_only = !wishes.is_to_all;
        let is_subscribed = wishes.is_to_all || dialect == Dialect::Keen;
        let initial = Subscription {
            key: String::new(),
            filter,
            is_own_only,
        };
        Self {
            link,
            user,
            dialect,
            id: 0,
            jti: String::new(),
            habits: Habits {
                reads: usize::MAX,
                is_answering: true,
            },
            closable: BTreeSet::new(),
            is_doomed: false,
            is_oracle: false,
            subscriptions_max: 0,
            is_established: false,
            is_greeted: false,
            cursor: None,
            close: None,
            got_shutdown: false,
            is_lagging: false,
            ends_with_cursor: false,
            marks: BTreeMap::new(),
            resumed: BTreeSet::new(),
            replayed_to: BTreeMap::new(),
            pending: BTreeMap::new(),
            garbage: 0,
            dropped: 0,
            projects: wishes.projects.clone(),
            live: BTreeMap::new(),
            subscriptions: is_subscribed.then_some(initial).into_iter().collect(),
            cursors: wishes.cursors.clone(),
            next_id: 0,
            reader: FrameReader::new(RESPONSE, wishes.takes_deflated),
            tree: wishes.tree,
            screen: Screen::default(),
            present_seq: None,
            is_narrowed: !wishes.sessions.is_empty(),
        }
    }

    pub fn projects(&self) -> &[String] {
        &self.projects
    }

    /// Whether it still has to be told that all it missed has come.
    pub fn is_replayed_to(&self) -> bool {
        !self.replayed_to.is_empty()
    }

    /// Where it stands in each stream that it has seen, by the name that it calls it.
    pub fn places(&self) -> BTreeMap<String, u64> {
        let seq = |mark: &Mark| match mark {
            Mark::Begin { after: seq, .. } | Mark::Event { seq, .. } | Mark::Position { seq } => {
                Some(*seq)
            }
            _ => None,
        };
        let places = self.marks.iter().filter_map(|(stream, marks)| {
            Some((name_of(stream), marks.iter().rev().find_map(seq)?))
        });
        places.collect()
    }

    /// The trees on its screen, where these are to be all of its user's.
    pub fn all_trees(&self) -> Option<BTreeMap<&str, &Value>> {
        let is_all = matches!(self.tree, Some(TreeMode::Full | TreeMode::Patch));
        let is_narrowed = self.is_narrowed;
        (is_all && !is_narrowed && self.is_established).then(|| self.screen.trees())
    }

    pub fn keys(&self) -> Vec<String> {
        self.subscriptions
            .iter()
            .map(|subscription| subscription.key.clone())
            .collect()
    }

    /// Sends `{"type":…,"data":…,"id":…}`.
    pub fn say(&mut self, link: &mut Link, name: &str, data: &Value, command: Command) {
        self.next_id += 1;
        let text = json!({"type": name, "data": data, "id": self.next_id}).to_string();
        self.pending.insert(self.next_id, command);
        self.say_text(link, text.as_bytes());
    }

    pub fn say_text(&mut self, link: &mut Link, text: &[u8]) {
        send_frame(link, OpCode::Data(Data::Text), text);
    }

    /// Reads what its habits allow, and answers what must be answered.
    pub fn step(&mut self, link: &mut Link, events: &Events, seen: &mut Sightings) -> Told {
        let bytes = link.receive(self.habits.reads);
        self.reader.feed(&bytes)?;
        while let Some(frame) = self.reader.next()? {
            if self.close.is_some() {
                return Err(format!("a frame after the close frame: {frame:?}"));
            }
            match frame {
                Frame::Close(code) => {
                    self.handle_close(code)?;
                    if self.habits.is_answering {
                        send_frame(link, OpCode::Control(Control::Close), &code.to_be_bytes());
                    }
                }
                Frame::Ping(payload) if self.habits.is_answering => {
                    send_frame(link, OpCode::Control(Control::Pong), &payload);
                }
                Frame::Ping(_) | Frame::Pong => {}
                Frame::Text(text) => self.handle_text(&text, events, seen)?,
            }
        }
        Ok(())
    }

    fn handle_text(&mut self, text: &[u8], events: &Events, seen: &mut Sightings) -> Told {
        self.take_cursor()?;
        let sighting = match seen.known(self.dialect, text) {
            Some(sighting) => sighting,
            None => {
                let envelope = Envelope::parse(text, self.dialect)?;
                let Some(seq) = envelope.seq else {
                    return self.handle_message(&envelope).map_err(|error| {
                        format!("{error}, of {} {}", envelope.name, envelope.data.get())
                    });
                };
                seen.note(self.dialect, text, seq, &envelope, events)?
            }
        };
        if !self.is_established {
            return Err("an event before connection_established".into());
        }
        let stream = stream_of(&sighting.stream, self.user).ok_or("an event of no known stream")?;
        seen.agree(self.dialect, &stream, &sighting)?;
        self.mark(
            stream,
            Mark::Event {
                seq: sighting.seq,
                uid: sighting.uid,
            },
        );
        Ok(())
    }

    fn handle_message(&mut self, envelope: &Envelope<'_>) -> Told {
        let data: Value =
            serde_json::from_str(envelope.data.get()).map_err(|error| error.to_string())?;
        let name = envelope.name.as_str();
        if envelope.stream.is_some() || envelope.session_id.is_some() || envelope.event_id.is_some()
        {
            return Err("a server message with members of an event".into());
        }
        let is_first = name == "connection_established";
        if is_first && (self.is_established || self.is_greeted) {
            return Err("connection_established is to come first, and once".into());
        }
        // Only a connection that ends before it began is told something else.
        self.is_greeted = true;
        match name {
            "agent_tree_update" => self.handle_tree(&data),
            "connection_established" => self.handle_established(&data),
            "cursor" => {
                self.cursor = Some(seqs(&data["streams"])?);
                expect(data["epoch"] == EPOCH.to_string(), "another epoch")
            }
            "token_expiring" => Ok(()),
            "lag" => {
                self.is_lagging = !self.is_lagging;
                let has_queue = data["queuedBytes"].as_u64() > Some(0);
                expect(
                    has_queue == self.is_lagging,
                    "lag is said of a full outbox, then of an empty one",
                )
            }
            "server_shutdown" => {
                self.got_shutdown = true;
                let after = data["reconnectAfter"].as_u64();
                expect(
                    after.is_some_and(|ms| (500..=5_000).contains(&ms)),
                    "a herd",
                )
            }
            "error" | "server_error" => {
                let is_own = (name == "error") == (self.dialect == Dialect::Observatory);
                expect(is_own, "the other dialect's name")?;
                if data["code"] == "RATE_LIMIT_EXCEEDED" {
                    self.dropped += 1;
                    return expect(
                        data["details"]["retryAfter"].as_u64() > Some(0),
                        "no retryAfter",
                    );
                }
                self.handle_refusal(&data)
            }
            "pong" => match self.answered(&data)? {
                Command::Ping(echo) => expect(data["echo"] == echo, "another echo"),
                other => Err(format!("a pong answers {other:?}")),
            },
            "replay_complete" => {
                let name = text(&data["stream"])?;
                let stream = stream_of(&name, self.user).ok_or("a replay of no known stream")?;
                let to = self.replayed_to.remove(&stream);
                let seq = to.ok_or("a replay that nothing asked for")?;
                expect(data["seq"] == seq, "a replay up to another seq")?;
                self.mark(stream, Mark::Position { seq });
                Ok(())
            }
            "subscription_error" => self.handle_refusal(&data),
            "subscription_confirmed" => self.handle_confirmed(&data),
            "unsubscribed" => self.handle_unsubscribed(&data),
            "token_refreshed" => self.handle_refreshed(&data),
            _ => Err("an unknown message".into()),
        }
    }

    fn takes_trees(&self) -> bool {
        let is_default = self.tree.is_none() && self.dialect == Dialect::Keen;
        is_default || self.begins_with_trees()
    }

    fn begins_with_trees(&self) -> bool {
        matches!(self.tree, Some(TreeMode::Full | TreeMode::Patch))
    }

    fn handle_tree(&mut self, data: &Value) -> Told {
        expect(self.takes_trees(), "a tree for one who wants none")?;
        expect(self.is_established, "a tree before connection_established")?;
        let at_seq = self.screen.see(data)?;
        // It follows every event up to there; before what was missed the present trees come.
        let own = Stream::user(self.user);
        let sees_all = |wanted: &Wanted| wanted.contains(&FilterSpec::default());
        let sees_all = self.live.get(&own).is_some_and(sees_all);
        if !sees_all || self.replayed_to.contains_key(&own) {
            return Ok(());
        }
        let mut marks = self.marks.get(&own).into_iter().flatten();
        // Nor does anything that came meanwhile go ahead of those.
        let is_first = !marks.clone().any(|mark| matches!(mark, Mark::Event { .. }));
        let is_present = self.begins_with_trees() && is_first;
        if is_present && *self.present_seq.get_or_insert(at_seq) == at_seq {
            return Ok(());
        }
        let place = marks.next_back().map(|mark| match mark {
            Mark::Add { at: seq, .. }
            | Mark::Begin { after: seq, .. }
            | Mark::Event { seq, .. }
            | Mark::Position { seq } => *seq,
            Mark::Change { after, .. } => after.unwrap_or(u64::MAX),
            Mark::End => 0,
        });
        expect(Some(at_seq) <= place, "a tree is ahead of its events")
    }

    fn handle_established(&mut self, data: &Value) -> Told {
        self.is_established = true;
        expect(
            data["connectionId"] == format!("{:016x}", self.id),
            "another id",
        )?;
        let shown = data["subscriptions"].as_array().ok_or("no subscriptions")?;
        expect(
            shown.len() == self.subscriptions.len(),
            "other subscriptions",
        )?;
        for (subscription, shown) in self.subscriptions.iter_mut().zip(shown) {
            subscription.key = text(&shown["subscriptionKey"])?;
            expect(
                shown["filters"] == subscription.filter.to_value(),
                "another filter",
            )?;
        }
        let mut rows = rows(&data["resume"])?;
        self.begin(&mut rows)?;
        let named: Vec<String> = self.cursors.keys().cloned().collect();
        self.check_unreached(&mut rows, &named)?;
        expect(rows.is_empty(), "rows that nothing asked for")
    }

    // The last message was a cursor, and it is now known what it means.
    fn take_cursor(&mut self) -> Told {
        let Some(streams) = self.cursor.take() else {
            return Ok(());
        };
        let named: BTreeSet<String> = streams.keys().cloned().collect();
        let live: BTreeSet<String> = self.live.keys().map(name_of).collect();
        if named != live {
            return Err(format!("a cursor of {named:?}, live are {live:?}"));
        }
        for (name, seq) in streams {
            let stream = stream_of(&name, self.user).ok_or("a cursor of no known stream")?;
            self.mark(stream, Mark::Position { seq });
        }
        Ok(())
    }

    fn handle_close(&mut self, code: u16) -> Told {
        self.close = Some(code);
        self.ends_with_cursor = self.cursor.is_some();
        if !self.closable.contains(&code) {
            return Err(format!("closed with {code}"));
        }
        // What a slow viewer had asked for may be done and the answer thrown away: the cursor is of
        // what it was subscribed to then, which it does not know.
        let is_op = |command: &Command| !matches!(command, Command::Ping(_) | Command::Refused(_));
        let is_unknown = !self.is_established || self.pending.values().any(is_op);
        if code == 4008 && is_unknown {
            return Ok(());
        }
        self.take_cursor()
    }

    fn mark(&mut self, stream: Stream, mark: Mark) {
        self.marks.entry(stream).or_default().push(mark);
    }
}

/// Sends one whole frame as a client.
pub fn send_frame(link: &mut Link, opcode: OpCode, payload: &[u8]) {
    let mut frame = Vec::new();
    encode_client_frame(&mut frame, opcode, true, [1, 2, 3, 4], payload);
    link.send(&frame);
}

fn expect(holds: bool, otherwise: &str) -> Told {
    if holds { Ok(()) } else { Err(otherwise.into()) }
}

fn text(value: &Value) -> Result<String, String> {
    value
        .as_str()
        .map(str::to_owned)
        .ok_or_else(|| format!("no text: {value}"))
}

fn rows(value: &Value) -> Result<BTreeMap<String, Value>, String> {
    let rows = value.as_array().ok_or("no rows")?.iter().map(|row| {
        let mut row = row.clone();
        // The first seq still held: who has seen none of it cannot tell.
        row.as_object_mut()
            .ok_or("a row is an object")?
            .remove("earliest");
        Ok((text(&row["stream"])?, row))
    });
    rows.collect()
}

fn seqs(value: &Value) -> Result<BTreeMap<String, u64>, String> {
    let object = value.as_object().ok_or("no seqs by stream")?;
    let seqs = object
        .iter()
        .map(|(name, seq)| Ok((name.clone(), seq.as_u64().ok_or("no seq")?)));
    seqs.collect()
}
