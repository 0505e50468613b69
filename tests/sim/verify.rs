//! What must hold after each turn, at rest, and at the end.

use std::collections::BTreeMap;

use serde_json::Value;
use sightline::agents::{Folded, StateOptions, StreamState, encode_trees};
use sightline::counters::check_balance;
use sightline::event::{Dialect, KnownType, Parser, RejectionCode, StoredEvent, Stream};
use sightline::limits::TOKEN_LEEWAY_S;
use sightline::wire::close::CloseReason;

use crate::check::{Judge, Ledger, Mark};
use crate::edges::Edges;
use crate::events::PROJECTS;
use crate::world::{Told, World};

/// What one turn may add beyond a bound: an event of the largest size, a few small messages.
const SLACK_BYTES: usize = 24_000;

/// Frames of one turn, in all variants, that are let in before the bound is seen to be reached:
/// half as much again as was ever seen.
const FRAME_BYTES_PER_TURN_MAX: usize = 40_000;

impl World {
    /// The bounds of one core, after a turn.
    pub fn verify_core(&self, index: usize) -> Told {
        let core = &self.cores[index];
        let (peers, counters) = (core.hub.peers(), &core.stats.counters);
        let mut outbox_bytes = 0;
        for (_, peer) in peers.iter() {
            let bytes = peer.outbox().bytes();
            outbox_bytes += peer.waiting_bytes();
            if peer.closing().is_some() {
                continue;
            }
            let bytes_max = match peer.viewer() {
                // What one turn brings enters an empty outbox whole.
                Some(_) => self.scenario.limits.outbox_bytes_max + SLACK_BYTES,
                None => self.scenario.bounds.nack_bytes_queued_max + 2_000,
            };
            // What the flush itself adds, a word of having caught up, is small.
            if bytes > bytes_max + 200 {
                return Err(format!("an outbox of {bytes} bytes, at most {bytes_max}"));
            }
            let expired_s = peer.details.claims.exp_s + TOKEN_LEEWAY_S + 1;
            if self.now_s() > expired_s {
                return Err(format!(
                    "{} outlived its token by {} s",
                    peer.details.claims.sub,
                    self.now_s() - expired_s + 1
                ));
            }
        }
        if outbox_bytes != peers.outbox_bytes()
            || outbox_bytes as u64 != counters.outbox_bytes.value()
        {
            return Err(format!(
                "outboxes hold {outbox_bytes} bytes, not {}",
                peers.outbox_bytes()
            ));
        }
        let window = self.scenario.limits.ingest_bytes_in_flight_max / self.cores.len() as u64;
        let in_flight = counters.ingest_bytes_in_flight.value();
        if in_flight > window + (self.cores.len() * SLACK_BYTES) as u64 {
            return Err(format!(
                "{in_flight} bytes in flight of one core, at most {window}"
            ));
        }
        Ok(())
    }

    /// How often what is rare happened in this run, by name.
    pub fn edges(&self) -> Edges {
        let mut edges = Edges::default();
        for core in &self.cores {
            let counters = &core.stats.counters;
            let closes =
                CloseReason::ALL.map(|reason| (reason.name(), counters.closes.at(reason.index())));
            let refused = RejectionCode::ALL
                .map(|code| (code.as_str(), counters.events_refused.at(code.index())));
            let others = [
                ("accepted", &counters.events_accepted),
                ("duplicates", &counters.events_duplicate),
                ("lag", &counters.lag_notices),
                ("messages dropped", &counters.viewer_messages_dropped),
                ("frames deflated", &counters.frames_deflated),
                ("frames discarded", &counters.frames_discarded),
                ("heartbeats", &counters.heartbeats_sent),
                ("replayed", &counters.events_replayed),
                ("resumed from memory", &counters.ring_hits),
                ("resumed from the log", &counters.ring_misses),
                ("state loaded", &counters.state_loads),
                ("state written", &counters.state_snapshots),
            ];
            for (name, cell) in closes.into_iter().chain(refused).chain(others) {
                edges.count(name, cell.value());
            }
            edges.add(&core.edges);
        }
        let lost = self
            .viewers
            .iter()
            .filter(|viewer| viewer.is_oracle && viewer.close == Some(4008));
        edges.count("oracle lost", lost.count() as u64);
        edges
    }

    /// What everybody saw and was told, at rest.
    pub fn verify(&self) -> Told {
        check_balance(self.cores.iter().map(|core| &*core.stats.counters))
            .map_err(|error| error.to_string())?;
        let ledgers = self.ledgers()?;
        self.verify_viewers(&ledgers)?;
        self.verify_fates(&ledgers)?;
        self.verify_orders(&ledgers)?;
        self.verify_states()?;
        self.verify_screens()?;
        let bytes_max = self.scenario.bounds.mail_bytes_pending_max + FRAME_BYTES_PER_TURN_MAX;
        if self.post.letter_bytes_max > bytes_max {
            return Err(format!(
                "a letter of {} bytes, at most {bytes_max}",
                self.post.letter_bytes_max
            ));
        }
        Ok(())
    }

    // What is known of streams is what their events say, one after the other.
    fn verify_states(&self) -> Told {
        for (stream, events) in self.logs.streams() {
            let core = self.partition.core_of(stream.kind, &stream.id);
            let Some(state) = self.cores[core].hub.state(stream) else {
                continue;
            };
            let folded = fold(stream, events, &self.scenario.options(core).states);
            if state.at() != folded.at() || state.snapshot() != folded.snapshot() {
                return Err(format!(
                    "{stream} is {state:?}, but its events come to {folded:?}"
                ));
            }
        }
        Ok(())
    }

    // Whoever wants all trees of its user has them as the events of the log make them.
    fn verify_screens(&self) -> Told {
        for viewer in &self.viewers {
            let is_open = self.is_open(viewer.link) && viewer.close.is_none();
            let Some(screen) = viewer
                .all_trees()
                .filter(|_| is_open && viewer.habits.reads > 0)
            else {
                continue;
            };
            let stream = Stream::user(viewer.user);
            let core = self.partition.core_of(stream.kind, &stream.id);
            let events = self.logs.streams().find(|(known, _)| **known == stream);
            let events = events.map_or(&[][..], |(_, events)| events);
            let state = fold(&stream, events, &self.scenario.options(core).states);
            let trees = trees(&state, viewer.dialect);
            if !trees
                .iter()
                .map(|(root, tree)| (root.as_str(), tree))
                .eq(screen.clone())
            {
                return Err(format!(
                    "viewer {} of {} is shown {screen:?}, but its events come to {trees:?}",
                    viewer.link, viewer.user
                ));
            }
        }
        Ok(())
    }

    /// Nothing is left of anybody, once all are gone.
    pub fn verify_empty(&self) -> Told {
        for core in &self.cores {
            let counters = &core.stats.counters;
            let left = [
                ("viewers", counters.viewers.value()),
                ("publishers", counters.publishers.value()),
                ("bytes in outboxes", counters.outbox_bytes.value()),
                ("subscriptions", counters.subscriptions.value()),
                ("bytes in flight", counters.ingest_bytes_in_flight.value()),
                ("interests", counters.interests.value()),
                ("streams to catch up with", counters.catch_ups.value()),
            ];
            if let Some((name, count)) = left.iter().find(|(_, count)| *count > 0) {
                return Err(format!("core {} has {count} {name} left", core.index));
            }
        }
        for viewer in self
            .viewers
            .iter()
            .filter(|viewer| viewer.close == Some(1001))
        {
            if !viewer.got_shutdown {
                return Err(format!(
                    "viewer {} was closed without server_shutdown",
                    viewer.link
                ));
            }
        }
        for publisher in self
            .publishers
            .iter()
            .filter(|publisher| publisher.close == Some(1001))
        {
            let mut fed = self
                .cores
                .iter()
                .map(|core| core.messages_fed(publisher.link));
            if !fed.any(|fed| fed == publisher.through) {
                return Err(format!("publisher {} is owed acks", publisher.link));
            }
        }
        Ok(())
    }

    // What each watched stream holds, as its oracle saw it; none where the oracle is gone.
    fn ledgers(&self) -> Result<BTreeMap<Stream, Ledger>, String> {
        let mut ledgers = BTreeMap::new();
        for oracle in self.viewers.iter().filter(|viewer| viewer.is_oracle) {
            if oracle.close == Some(4008) {
                continue;
            }
            let streams = PROJECTS
                .map(Stream::project)
                .into_iter()
                .chain([Stream::user(oracle.user)]);
            for stream in streams.filter(|stream| oracle.marks.contains_key(stream)) {
                let seen = oracle.marks[&stream].iter().filter_map(|mark| match mark {
                    Mark::Event { seq, uid } => Some((*seq, *uid)),
                    _ => None,
                });
                let ledger: Ledger = seen.collect();
                let has_gap = ledger
                    .keys()
                    .zip(self.scenario.start.0 + 1..)
                    .any(|(seq, expected)| *seq != expected);
                if has_gap {
                    return Err(format!(
                        "{stream} has gaps, or did not begin above the start: {:?}",
                        ledger.keys()
                    ));
                }
                ledgers.insert(stream, ledger);
            }
        }
        Ok(ledgers)
    }

    fn verify_viewers(&self, ledgers: &BTreeMap<Stream, Ledger>) -> Told {
        for viewer in &self.viewers {
            let is_open = self.is_open(viewer.link) && viewer.close.is_none();
            for (stream, marks) in &viewer.marks {
                // Who was still behind when it was told to go was told how far it got.
                let is_ended = viewer.close == Some(1001) && !viewer.resumed.contains(stream);
                let is_settled = is_open || is_ended;
                let judge = Judge {
                    user: viewer.user,
                    stream,
                    ledger: ledgers.get(stream),
                    events: &self.events,
                };
                judge.check(marks, is_settled).map_err(|broken| {
                    let around = &marks[marks.len().saturating_sub(12)..];
                    format!(
                        "viewer {} of {}, {stream}: {broken:?}, after {around:?}",
                        viewer.link, viewer.user
                    )
                })?;
            }
            if is_open && viewer.is_lagging {
                return Err(format!(
                    "viewer {} was not told that it has caught up",
                    viewer.link
                ));
            }
            if is_open && viewer.is_doomed {
                return Err(format!("viewer {} should have been closed", viewer.link));
            }
            let says_place = matches!(viewer.close, Some(1001 | 4001 | 4008));
            if says_place && viewer.is_established && !viewer.ends_with_cursor {
                return Err(format!(
                    "viewer {} got {:?} without a cursor before",
                    viewer.link, viewer.close
                ));
            }
        }
        Ok(())
    }

    // Accepted events are in their streams once, refused ones never, all others at most once.
    fn verify_fates(&self, ledgers: &BTreeMap<Stream, Ledger>) -> Told {
        let mut counts: BTreeMap<(&Stream, u64), u32> = BTreeMap::new();
        for (stream, ledger) in ledgers {
            for uid in ledger.values() {
                *counts.entry((stream, *uid)).or_default() += 1;
            }
        }
        for (uid, fate) in self.fates.iter() {
            for stream in self.events[&uid].streams() {
                let Some((stream, _)) = ledgers.get_key_value(&stream) else {
                    continue;
                };
                let count = counts.get(&(stream, uid)).copied().unwrap_or(0);
                let is_right = match (fate.accepted > 0, fate.refused == fate.sent) {
                    (true, _) => count == 1,
                    (false, true) => count == 0,
                    (false, false) => count <= 1,
                };
                if !is_right {
                    return Err(format!(
                        "event {uid} stands {count} times in {stream}: {fate:?}"
                    ));
                }
            }
        }
        Ok(())
    }

    // What one connection sent to one stream is there in the order of sending.
    fn verify_orders(&self, ledgers: &BTreeMap<Stream, Ledger>) -> Told {
        for (stream, ledger) in ledgers {
            let seqs: BTreeMap<u64, u64> = ledger.iter().map(|(seq, uid)| (*uid, *seq)).collect();
            for (link, order) in &self.fates.orders {
                let own = order.iter().filter(|uid| !self.fates.of(**uid).is_repeated);
                let placed: Vec<u64> = own.filter_map(|uid| seqs.get(uid).copied()).collect();
                if !placed.is_sorted() {
                    return Err(format!(
                        "{stream}: connection {link} sent in another order: {placed:?}"
                    ));
                }
            }
        }
        Ok(())
    }

    fn is_open(&self, link: u64) -> bool {
        self.links.is_open(link)
    }
}

fn fold(stream: &Stream, events: &[StoredEvent], options: &StateOptions) -> StreamState {
    let mut state = StreamState::new(stream.kind, options);
    let mut parser = Parser::new();
    for stored in events {
        let (event, folded) = (&stored.event, Folded::from(stored));
        let known_type = KnownType::find(&event.event_type);
        let known_type = known_type.filter(|known_type| state.reads(*known_type));
        let applied = known_type.and_then(|known_type| {
            parser.with_known(known_type, &event.data, |known| {
                state.apply(folded, Some(known))
            })
        });
        applied.unwrap_or_else(|| state.apply(folded, None));
    }
    state
}

// A state's trees by the session of their root, as a viewer is shown them.
fn trees(state: &StreamState, dialect: Dialect) -> BTreeMap<String, Value> {
    let forest = state.forest();
    let roots = forest
        .into_iter()
        .flat_map(|forest| forest.roots().map(move |root| (forest, root)));
    let tree = |(forest, root)| {
        let mut text = Vec::new();
        encode_trees(forest, &[root], dialect, &mut text);
        let mut trees: Vec<Value> = serde_json::from_slice(&text).ok()?;
        let tree = trees.pop()?;
        Some((tree["session_id"].as_str()?.to_owned(), tree))
    };
    roots.filter_map(tree).collect()
}
