//! A simulated viewer: reads frames with its own small parser, keeps a shadow of what it is
//! subscribed to by what it asked for and was answered, and notes what it sees of each stream.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;

use serde_json::{Value, json};
use sightline::event::{Dialect, Filter, Stream};
use sightline::wire::frame::{Control, Data, OpCode, encode_client_frame};

use crate::check::{Mark, Wanted};
use crate::events::{Envelope, Events, FilterSpec, name_of, stream_of};
use crate::network::{Frame, FrameReader, Link, LinkId};
use crate::scenario::EPOCH;

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
}

#[derive(Clone, Debug)]
struct Subscription {
    key: String,
    filter: FilterSpec,
    is_own_only: bool,
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

/// All frames that anybody saw, so that each is read once and that all who see one agree.
#[derive(Default)]
pub struct Sightings {
    by_bytes: HashMap<(Dialect, Rc<[u8]>), Sighting>,
    by_seq: BTreeMap<(Dialect, Stream, u64), Rc<[u8]>>,
}

#[derive(Clone)]
struct Sighting {
    bytes: Rc<[u8]>,
    stream: String,
    seq: u64,
    uid: u64,
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
        let known = seen.by_bytes.get(&(self.dialect, Rc::from(text))).cloned();
        let sighting = match known {
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

    fn handle_refusal(&mut self, data: &Value) -> Told {
        if data["id"].is_null() {
            self.garbage = self
                .garbage
                .checked_sub(1)
                .ok_or("an error that nothing asked for")?;
            return expect(data["code"] == "INVALID_MESSAGE", "another code");
        }
        let expected = match self.answered(data)? {
            Command::Refused(code) => Some(code),
            // Its token may have been revoked on the way.
            Command::Refresh { .. } if self.closable.contains(&4002) => Some("TOKEN_REVOKED"),
            Command::Subscribe { filters, .. } => self.refusal_of(&filters),
            _ => None,
        };
        if expected.is_none_or(|code| data["code"] != code) {
            return Err(format!("refused, expected {expected:?}"));
        }
        Ok(())
    }

    fn handle_confirmed(&mut self, data: &Value) -> Told {
        let Command::Subscribe {
            filters,
            is_list,
            cursors,
        } = self.answered(data)?
        else {
            return Err("confirms what is no subscribe".into());
        };
        if let Some(code) = self.refusal_of(&filters) {
            return Err(format!("confirmed, expected {code}"));
        }
        let added: Vec<Subscription> = filters.iter().map(Subscription::allowed).collect();
        let (keys, shown): (Vec<Value>, Vec<Value>) = added
            .iter()
            .map(|one| (json!(one.key), one.filter.to_value()))
            .unzip();
        let is_shown = if is_list {
            data["subscriptionKeys"] == json!(keys) && data["filters"] == json!(shown)
        } else {
            data["subscriptionKey"] == keys[0] && data["filters"] == shown[0]
        };
        expect(is_shown, "other subscriptions")?;
        let asked: Vec<String> = cursors.keys().cloned().collect();
        self.cursors.extend(cursors);
        for one in &added {
            if self.subscriptions.iter().all(|known| known.key != one.key) {
                self.subscriptions.push(one.clone());
            }
        }
        let mut rows = match &data["resume"] {
            Value::Null => BTreeMap::new(),
            present => rows(present)?,
        };
        let at = seqs(&data["at"])?;
        let reached = self.plan(&added);
        let named: BTreeSet<String> = reached.keys().map(name_of).collect();
        expect(
            at.keys().eq(&named),
            "`at` is not of the streams that this reaches",
        )?;
        for (stream, wanted) in self.plan(&self.subscriptions) {
            let is_told = reached.contains_key(&stream);
            if is_told && self.live.contains_key(&stream) {
                let at = at[&name_of(&stream)];
                self.live.insert(stream.clone(), Rc::clone(&wanted));
                let mark = match self.resumed.contains(&stream) {
                    true => Mark::Add { at, wanted },
                    false => Mark::Change {
                        after: Some(at),
                        wanted,
                    },
                };
                self.mark(stream, mark);
            } else if is_told {
                expect(
                    rows.get(&name_of(&stream))
                        .is_some_and(|row| row["to"] == at[&name_of(&stream)]),
                    "`to` is not `at`",
                )?;
            }
        }
        self.begin(&mut rows)?;
        self.check_unreached(&mut rows, &asked)?;
        expect(rows.is_empty(), "rows that nothing asked for")
    }

    fn handle_unsubscribed(&mut self, data: &Value) -> Told {
        let Command::Unsubscribe(doomed) = self.answered(data)? else {
            return Err("answers what is no unsubscribe".into());
        };
        let is_doomed = |one: &mut Subscription| match &doomed {
            Doomed::All => true,
            Doomed::Filter(filter) => one.filter == *filter,
            Doomed::Key(key) => one.key == *key,
        };
        let gone: Vec<String> = self
            .subscriptions
            .extract_if(.., is_doomed)
            .map(|one| one.key)
            .collect();
        expect(data["subscriptionKeys"] == json!(gone), "other keys")?;
        self.lessen();
        Ok(())
    }

    fn handle_refreshed(&mut self, data: &Value) -> Told {
        let Command::Refresh { projects } = self.answered(data)? else {
            return Err("answers what is no refresh_token".into());
        };
        self.projects = projects;
        let mut gone = Vec::new();
        self.subscriptions.retain_mut(|one| {
            let had = one.filter.projects.len();
            one.filter.projects.retain(|id| self.projects.contains(id));
            let is_kept = had == 0 || !one.filter.projects.is_empty();
            if !is_kept {
                gone.push(one.key.clone());
            }
            is_kept
        });
        expect(
            data["removedSubscriptions"] == json!(gone),
            "other subscriptions removed",
        )?;
        let removed: BTreeSet<String> = self.lessen().iter().map(name_of).collect();
        let told: BTreeSet<String> = data["removed"]
            .as_array()
            .ok_or("no removed")?
            .iter()
            .map(text)
            .collect::<Result<_, _>>()?;
        expect(told == removed, "other streams removed")?;
        let mut rows = rows(&data["added"])?;
        self.begin(&mut rows)?;
        expect(
            rows.is_empty(),
            "streams added that the token does not give",
        )
    }

    // Streams that the subscriptions newly reach begin where their rows say.
    fn begin(&mut self, rows: &mut BTreeMap<String, Value>) -> Told {
        for (stream, wanted) in self.plan(&self.subscriptions) {
            if self.live.contains_key(&stream) {
                continue;
            }
            let name = name_of(&stream);
            let row = rows
                .remove(&name)
                .ok_or_else(|| format!("no row for {name}"))?;
            let from = self.cursors.remove(&name);
            let to = row["to"].as_u64().ok_or("a row without `to`")?;
            expect(row["from"].as_u64() == from, "another cursor")?;
            // Those at the very beginning may not have been there when they were judged.
            let may_reset = from.is_some_and(|from| from > to || (1..3).contains(&from));
            let outcome = text(&row["outcome"])?;
            let after = match (outcome.as_str(), from) {
                ("fresh", None) => to,
                ("reset", Some(_)) if may_reset => to,
                ("resumed", Some(from)) if from <= to => {
                    self.resumed.insert(stream.clone());
                    self.replayed_to.insert(stream.clone(), to);
                    from
                }
                _ => return Err(format!("another outcome: {row}")),
            };
            self.live.insert(stream.clone(), Rc::clone(&wanted));
            self.mark(stream, Mark::Begin { after, wanted });
        }
        Ok(())
    }

    // The rows of what was named and nothing reaches; what is live has nothing left to start.
    fn check_unreached(&mut self, rows: &mut BTreeMap<String, Value>, named: &[String]) -> Told {
        for stream in self.live.keys().map(name_of).filter(|_| !named.is_empty()) {
            self.cursors.remove(&stream);
        }
        for name in named {
            let Some(from) = self.cursors.get(name) else {
                continue;
            };
            let row = rows
                .remove(name)
                .ok_or_else(|| format!("no row for {name}"))?;
            let project = name.strip_prefix("project/");
            let is_allowed = name == "user"
                || project.is_some_and(|id| self.projects.iter().any(|own| own == id));
            let expected = match is_allowed {
                true => json!({"stream": name, "outcome": "pending", "from": from}),
                false => json!({"stream": name, "outcome": "reset"}),
            };
            expect(row == expected, "another row for what nothing reaches yet")?;
        }
        Ok(())
    }

    // Less is wanted than before; returns the streams that are not reached any more.
    fn lessen(&mut self) -> Vec<Stream> {
        let plan = self.plan(&self.subscriptions);
        let live = std::mem::take(&mut self.live);
        let mut gone = Vec::new();
        for (stream, before) in live {
            match plan.get(&stream) {
                None => {
                    self.mark(stream.clone(), Mark::End);
                    self.resumed.remove(&stream);
                    self.replayed_to.remove(&stream);
                    gone.push(stream);
                }
                Some(wanted) => {
                    if *wanted != before {
                        self.mark(
                            stream.clone(),
                            Mark::Change {
                                after: None,
                                wanted: Rc::clone(wanted),
                            },
                        );
                    }
                    self.live.insert(stream, Rc::clone(wanted));
                }
            }
        }
        gone
    }

    // The streams that subscriptions reach, and what is wanted of each.
    fn plan(&self, subscriptions: &[Subscription]) -> BTreeMap<Stream, Wanted> {
        let mut plan = BTreeMap::new();
        let mut add = |stream, reaches: &dyn Fn(&Subscription) -> bool| {
            let wanted: Wanted = subscriptions
                .iter()
                .filter(|one| reaches(one))
                .map(|one| one.filter.clone())
                .collect();
            if !wanted.is_empty() {
                plan.insert(stream, wanted);
            }
        };
        add(Stream::user(self.user), &|_| true);
        for id in &self.projects {
            add(Stream::project(id), &|one| {
                !one.is_own_only && one.filter.reaches_project(id)
            });
        }
        plan
    }

    fn refusal_of(&self, filters: &[FilterSpec]) -> Option<&'static str> {
        let mut named = filters.iter().flat_map(|filter| &filter.projects);
        if named.any(|id| !self.projects.contains(id)) {
            return Some("INVALID_FILTERS");
        }
        let mut keys: BTreeSet<String> = self.keys().into_iter().collect();
        keys.extend(
            filters
                .iter()
                .map(|filter| Subscription::allowed(filter).key),
        );
        (keys.len() > self.subscriptions_max).then_some("TOO_MANY_SUBSCRIPTIONS")
    }

    fn answered(&mut self, data: &Value) -> Result<Command, String> {
        let id = data["id"].as_u64().ok_or("an answer without id")?;
        self.pending
            .remove(&id)
            .ok_or_else(|| format!("a second answer to {id}"))
    }

    fn mark(&mut self, stream: Stream, mark: Mark) {
        self.marks.entry(stream).or_default().push(mark);
    }
}

impl Subscription {
    fn allowed(filter: &FilterSpec) -> Self {
        let key = Filter::from_json(&filter.to_value())
            .expect("a canonical filter")
            .key();
        Self {
            key: key.to_string(),
            filter: filter.clone(),
            is_own_only: false,
        }
    }
}

impl Sightings {
    fn note(
        &mut self,
        dialect: Dialect,
        text: &[u8],
        seq: u64,
        envelope: &Envelope<'_>,
        events: &Events,
    ) -> Result<Sighting, String> {
        let uid = envelope.uid().ok_or("an event without number")?;
        let event = events.get(&uid).ok_or("an event that nobody published")?;
        if !event.is_told_by(envelope, dialect) {
            return Err(format!(
                "{event:?} was told as {}",
                String::from_utf8_lossy(text)
            ));
        }
        let stream = match (&envelope.stream, dialect) {
            (None, Dialect::Keen) => "user".to_owned(),
            (Some(name), Dialect::Keen) if name == "user" => {
                return Err("keen does not name the own stream".into());
            }
            (Some(name), _) => name.clone(),
            (None, Dialect::Observatory) => return Err("no stream".into()),
        };
        let bytes: Rc<[u8]> = text.into();
        let sighting = Sighting {
            bytes: Rc::clone(&bytes),
            stream,
            seq,
            uid,
        };
        self.by_bytes.insert((dialect, bytes), sighting.clone());
        Ok(sighting)
    }

    fn agree(&mut self, dialect: Dialect, stream: &Stream, sighting: &Sighting) -> Told {
        let known = self.by_seq.entry((dialect, stream.clone(), sighting.seq));
        let bytes = known.or_insert_with(|| Rc::clone(&sighting.bytes));
        expect(
            Rc::ptr_eq(bytes, &sighting.bytes),
            "two events under one seq",
        )
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
