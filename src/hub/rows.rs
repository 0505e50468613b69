//! Where a viewer stands in its streams: the rows of `resume`, the positions of `cursor`.

use std::rc::Rc;

use crate::auth;
use crate::dialect::{Cursor, Outcome, ResumeRow, ServerMessage, StreamName};
use crate::event::{Seq, StreamKind};
use crate::limits::CURSOR_STREAMS_MAX;

use super::facts::Facts;
use super::keyed::Key;
use super::streams::StreamSlot;
use super::subscriptions::Target;
use super::viewer::Viewer;
use super::{Hub, Now};

/// A row before its names are borrowed.
pub(super) type Row = (Target, Outcome);

/// Where a viewer stands in a stream.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// The last seq that was fanned out.
    pub head: Seq,
    /// The last seq up to which everything was queued for the viewer.
    pub queued: Seq,
}

impl Hub {
    pub(super) fn positions(
        &self,
        key: Key,
        mut position: impl FnMut(StreamSlot, Place) -> Seq,
    ) -> Vec<(Target, Seq)> {
        let Some(viewer) = self.peers.viewer(key) else {
            return Vec::new();
        };
        let live = viewer.attachments.iter().map(|place| (place.stream, None));
        let behind = viewer.behind.iter().flat_map(|behind| &behind.streams);
        let behind = behind.map(|catch_up| (catch_up.slot, Some(catch_up.after)));
        let places = live
            .chain(behind)
            .filter_map(|(slot, after)| Some((slot, after, self.streams.state(slot)?)));
        places
            .map(|(slot, after, state)| {
                let target = match state.name.kind {
                    StreamKind::Project => Target::Project(state.name.id.clone()),
                    StreamKind::User => Target::Own,
                };
                let place = Place {
                    head: state.fanned_out(),
                    queued: after.unwrap_or(state.fanned_out()),
                };
                (target, position(slot, place))
            })
            .collect()
    }

    // Each stream that is live for the viewer or will be, as the viewer calls it, with the last seq
    // that was fanned out.
    pub(super) fn attached_streams(&self, key: Key) -> Vec<(Target, Seq)> {
        self.positions(key, |_, place| place.head)
    }

    /// Tells a viewer how far its streams are: all up to there was queued before this.
    pub(super) fn send_present_cursor(&mut self, now: Now, key: Key) {
        let positions = self.positions(key, |_, place| place.queued);
        self.send_cursor(now, key, &positions);
    }

    pub(super) fn send_cursor(&mut self, now: Now, key: Key, positions: &[(Target, Seq)]) {
        // Before it was told where its streams begin there is nothing to say of them.
        if !self.peers.viewer(key).is_some_and(Viewer::is_established) {
            return;
        }
        let streams: Vec<(StreamName<'_>, Seq)> = positions
            .iter()
            .map(|(target, seq)| (name(target), *seq))
            .collect();
        let message = ServerMessage::Cursor {
            epoch: self.options.epoch(),
            streams: &streams,
        };
        self.peers.push_message(now, key, &message);
    }

    // The rows of a connection that begins: its attached streams, then what its cursor names beside.
    pub(super) fn first_rows(&mut self, key: Key) -> Vec<Row> {
        let mut rows = self.begun_rows(key);
        rows.extend(self.unreached_rows(key, |_| true));
        rows
    }

    // The rows of streams that a cursor names and no subscription reaches, those that are asked for.
    // Cursors of streams that are live already have nothing left to start.
    pub(super) fn unreached_rows(
        &mut self,
        key: Key,
        is_asked: impl Fn(StreamName<'_>) -> bool,
    ) -> Vec<Row> {
        let attached = self.attached_streams(key);
        let Some(peer) = self.peers.find_mut(key) else {
            return Vec::new();
        };
        let claims = Rc::clone(&peer.details.claims);
        let Some(cursor) = peer.viewer_mut().and_then(|viewer| viewer.cursors.as_mut()) else {
            return Vec::new();
        };
        for (target, _) in &attached {
            cursor.remove(name(target));
        }
        let asked = cursor.iter().filter(|(stream, _)| is_asked(*stream));
        asked
            .map(|(stream, from)| match stream {
                StreamName::Own => (Target::Own, Outcome::Pending { from }),
                StreamName::Project(id) if auth::may_see_project(&claims, id) => {
                    (Target::Project(id.into()), Outcome::Pending { from })
                }
                StreamName::Project(id) => (Target::Project(id.into()), Outcome::ResetUnseen),
                // No token shows a user's stream under its full name.
                StreamName::User(id) => (Target::User(id.into()), Outcome::ResetUnseen),
            })
            .collect()
    }

    // The rows of the streams that begin with the operation that is carried out. Cursors are used up
    // by the stream that they start.
    pub(super) fn begun_rows(&mut self, key: Key) -> Vec<Row> {
        let viewer = self.peers.viewer(key);
        let waiting = viewer.and_then(|viewer| viewer.waiting.as_ref());
        let facts = waiting.map_or_else(Vec::new, |waiting| waiting.facts.clone());
        facts
            .iter()
            .filter_map(|facts| self.begun_row(key, facts))
            .collect()
    }

    fn begun_row(&mut self, key: Key, facts: &Facts) -> Option<Row> {
        let state = self.streams.state(facts.slot)?;
        let target = match state.name.kind {
            StreamKind::Project => Target::Project(state.name.id.clone()),
            StreamKind::User => Target::Own,
        };
        if let Some(cursor) = &mut self.peers.viewer_mut(key)?.cursors {
            cursor.remove(name(&target));
        }
        let (held, recent) = (facts.earliest, self.rings.first(facts.slot));
        let to = state.fanned_out();
        // Where nothing is held, what comes next will be.
        let earliest = held.into_iter().chain(recent).min().unwrap_or(to.next());
        Some((target, facts.outcome(to, Some(earliest))))
    }

    pub(super) fn take_cursor(&mut self, key: Key, cursor: Cursor) {
        let Some(viewer) = self.peers.viewer_mut(key) else {
            return;
        };
        match &mut viewer.cursors {
            // What it said before of other streams still stands.
            Some(known) if known.epoch == cursor.epoch => {
                for (stream, seq) in cursor.iter() {
                    if known.len() < CURSOR_STREAMS_MAX || known.seq(stream).is_some() {
                        known.insert(stream, seq);
                    }
                }
            }
            known => *known = Some(Box::new(cursor)),
        }
    }
}

pub(super) fn name(target: &Target) -> StreamName<'_> {
    match target {
        Target::Own => StreamName::Own,
        Target::Project(id) => StreamName::Project(id),
        Target::User(id) => StreamName::User(id),
    }
}

pub(super) fn row((target, outcome): &Row) -> ResumeRow<'_> {
    ResumeRow {
        stream: name(target),
        outcome: *outcome,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::dialect::{ConnectQuery, SubscribeScope};
    use crate::event::{Dialect, Epoch};
    use crate::hub::rig::{EPOCH, Rig, claims};

    fn cursor(text: &str) -> Option<Cursor> {
        Cursor::parse(Some(&EPOCH.to_string()), Some(text))
            .ok()
            .flatten()
    }

    fn rows(rows: &Value) -> Vec<String> {
        let shown = |row: &Value| {
            let of = |name: &str| {
                row[name]
                    .as_u64()
                    .map_or(String::new(), |seq| format!(" {name} {seq}"))
            };
            let text = |name: &str| row[name].as_str().unwrap_or_default();
            format!(
                "{} {}{}{}",
                text("stream"),
                text("outcome"),
                of("from"),
                of("to")
            )
        };
        rows.as_array().into_iter().flatten().map(shown).collect()
    }

    #[test]
    fn one_row_for_each_stream_that_begins_or_was_named() {
        let mut rig = Rig::new();
        let named = "user=5,project/7=0,project/8=3,project/no=1,user/bob=2";
        let check = |rig: &mut Rig, subscribe, expected: &[&str]| {
            let query = ConnectQuery {
                subscribe,
                cursor: cursor(named),
                ..ConnectQuery::default()
            };
            let client = rig.connect(claims("ada", &["7", "8"]), Dialect::Observatory, query);
            rig.turn();
            assert_eq!(rows(&rig.read(client)[0]["data"]["resume"]), expected);
            client
        };
        let all = [
            "user reset from 5 to 0",
            "project/7 resumed from 0 to 0",
            "project/8 reset from 3 to 0",
            "project/no reset",
            "user/bob reset",
        ];
        check(&mut rig, SubscribeScope::All, &all);
        let none = [
            "user pending from 5",
            "project/7 pending from 0",
            "project/8 pending from 3",
            "project/no reset",
            "user/bob reset",
        ];
        let client = check(&mut rig, SubscribeScope::Dialect, &none);
        // The first subscription that reaches a stream starts it at its cursor, and only the first.
        let subscribe = |rig: &mut Rig, data: Value| {
            rig.say(client, &json!({"type": "subscribe", "data": data}));
            rows(&rig.read(client)[0]["data"]["resume"])
        };
        let seven = json!({"filters": {"projectIds": [7]}});
        assert_eq!(
            subscribe(&mut rig, seven),
            ["user reset from 5 to 0", "project/7 resumed from 0 to 0"]
        );
        let eight = json!({"filters": {}, "epoch": EPOCH.to_string(), "resume": "user=9,project/7=1,project/9=4"});
        assert_eq!(
            subscribe(&mut rig, eight),
            ["project/8 reset from 3 to 0", "project/9 reset"]
        );
    }

    #[test]
    fn a_cursor_of_another_epoch_takes_the_place_of_what_was_named_before() {
        let mut rig = Rig::new();
        let client = rig.viewer("ada", &[]);
        let seqs = |rig: &mut Rig| {
            let viewer = rig.hub().peers.viewer(client.key);
            let cursor = viewer.and_then(|viewer| viewer.cursors.as_ref());
            cursor.map_or(0, |cursor| cursor.len())
        };
        rig.hub()
            .take_cursor(client.key, cursor("project/1=1").unwrap_or_default());
        rig.hub()
            .take_cursor(client.key, cursor("project/2=1").unwrap_or_default());
        assert_eq!(seqs(&mut rig), 2);
        rig.hub()
            .take_cursor(client.key, Cursor::new(Some(Epoch(1))));
        assert_eq!(seqs(&mut rig), 0);
    }
}
