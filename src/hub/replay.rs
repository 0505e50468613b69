//! `replay`: events that a viewer asks for again, at its own pace and beside what is live. They come
//! from the same places as what it has missed; of the present subscriptions' filters, and marked, so
//! they are encoded for it alone.

use crate::auth;
use crate::dialect::{
    MessageId, Replay as Request, ServerMessage, StreamName, encode_replayed_event,
};
use crate::event::{Dialect, EventKeys, Seq, Stream, StreamKind};
use crate::limits::{REPLAY_LOOKED_AT_MAX, REPLAYS_WAITING_MAX};

use super::catch_up::{PASSED_COST, STEP_COST, Step, is_wanted};
use super::keyed::Key;
use super::peers::Room;
use super::reads::Found;
use super::ring::Chunk;
use super::streams::StreamSlot;
use super::subscriptions::Wanted;
use super::{Hub, Now};

/// A `replay` that is being answered, or waits for the one before.
#[derive(Debug)]
pub(super) struct Replay {
    id: Option<MessageId>,
    stream: Stream,
    // The last event that was looked at, and the last that will be.
    after: Seq,
    up_to: Seq,
    // How many events may still be sent, and looked at.
    events_left: usize,
    looks_left: usize,
    /// A read that brings more is under way.
    pub awaits_read: bool,
}

impl Replay {
    /// Whether it is of this stream.
    pub fn is_of(&self, stream: &Stream) -> bool {
        self.stream == *stream
    }

    fn is_over(&self) -> bool {
        self.after >= self.up_to || self.events_left == 0 || self.looks_left == 0
    }

    // Looks at the events of a chunk, and encodes what is wanted as far as there is room.
    fn look_at(
        &mut self,
        chunk: &Chunk,
        wants: impl Fn(&EventKeys) -> bool,
        dialect: Dialect,
        mut room: Room,
        bytes_max: usize,
    ) -> Again {
        let mut again = Again {
            texts: Vec::new(),
            work: STEP_COST,
            is_full: false,
        };
        let events = chunk.events();
        let first = events.partition_point(|(seq, _)| *seq <= self.after);
        for (seq, event) in &events[first..] {
            let is_enough = again.work >= bytes_max || self.events_left == 0;
            if *seq > self.up_to || is_enough || self.looks_left == 0 {
                break;
            }
            if wants(&EventKeys::from(event)) {
                let (name, mut text) = (StreamName::from(&self.stream), Vec::new());
                encode_replayed_event(dialect, name, *seq, event, &mut text);
                if !room.try_take(text.len() + FRAME_BYTES) {
                    again.is_full = true;
                    break;
                }
                again.work += text.len();
                again.texts.push(text);
                self.events_left -= 1;
            } else {
                again.work += PASSED_COST;
            }
            self.looks_left -= 1;
            self.after = *seq;
        }
        // No event follows up to the end of the chunk.
        let next = events.iter().find(|(seq, _)| *seq > self.after);
        if next.is_none_or(|(seq, _)| *seq > self.up_to) {
            self.after = self.after.max(chunk.last().min(self.up_to));
        }
        again
    }
}

/// What is to be sent of a chunk.
struct Again {
    texts: Vec<Vec<u8>>,
    work: usize,
    is_full: bool,
}

impl Hub {
    /// Begins a `replay`, or queues it behind others of the viewer.
    pub(super) fn replay(&mut self, now: Now, key: Key, id: Option<MessageId>, request: Request) {
        let Some(stream) = self.visible_stream(key, request.stream) else {
            let message = "this token does not show the stream";
            return self.send_error(now, key, id.as_ref(), "FORBIDDEN", message.into(), None);
        };
        let before = Seq(request.from.0.saturating_sub(1));
        let slot = self.streams.find(stream.kind, &stream.id);
        let slot = slot.filter(|slot| self.wanted_of(key, *slot).is_some());
        let state = slot.and_then(|slot| self.streams.state(slot));
        // What no subscription reaches holds nothing that one lets through.
        let head = state.map_or(before, |state| state.fanned_out());
        let replay = Replay {
            id,
            stream,
            after: before.min(head),
            up_to: request.to.map_or(head, |to| to.min(head)),
            events_left: request.limit,
            looks_left: REPLAY_LOOKED_AT_MAX,
            awaits_read: false,
        };
        let Some(viewer) = self.peers.viewer_mut(key) else {
            return;
        };
        let behind = viewer.behind.get_or_insert_default();
        if behind.replays.len() < REPLAYS_WAITING_MAX {
            behind.replays.push_back(replay);
            return self.wake(key);
        }
        let message = "too many replays wait for the one before: wait for replay_complete";
        let id = replay.id.as_ref();
        let code = "RATE_LIMIT_EXCEEDED";
        self.send_error(now, key, id, code, message.into(), Some(RETRY_AFTER_MS));
    }

    /// Goes on with the viewer's first `replay`. `None`: there is none.
    pub(super) fn replay_on(&mut self, now: Now, key: Key, bytes_max: usize) -> Option<Step> {
        let replay = self.replay_mut(key)?;
        if replay.awaits_read {
            return Some(Step::Waits);
        }
        let (after, stream) = (replay.after, replay.stream.clone());
        let slot = self.streams.find(stream.kind, &stream.id);
        let wanted = slot.and_then(|slot| Some((slot, self.wanted_of(key, slot)?)));
        let Some((slot, wanted)) = wanted.filter(|_| !self.is_replay_over(key)) else {
            self.end_replay(now, key);
            return Some(Step::Moved(STEP_COST));
        };
        match self.lacks_events(slot, after) {
            None => self.send_again(key, slot, &wanted, bytes_max),
            Some(up_to) => match self.reads.find(slot, after) {
                Some(Found::Chunk(_)) => self.send_again(key, slot, &wanted, bytes_max),
                // It is left out.
                Some(Found::Missing(hole)) => {
                    let replay = self.replay_mut(key)?;
                    replay.after = hole.to.min(replay.up_to);
                    Some(Step::Moved(STEP_COST))
                }
                None => {
                    let awaits_read = self.ask_events(key, slot, (after, up_to));
                    self.replay_mut(key)?.awaits_read = awaits_read;
                    Some(Step::Waits)
                }
            },
        }
    }

    // Up to where the events after a seq must be read; `None` where they are in memory.
    fn lacks_events(&self, slot: StreamSlot, after: Seq) -> Option<Seq> {
        let head = self.streams.state(slot).map_or(after, |state| state.head);
        match self.rings.chunk_after(slot, after) {
            Some(chunk) if !chunk.events().is_empty() => None,
            Some(_) => Some(head),
            None => Some(self.rings.base(slot).unwrap_or(head)),
        }
    }

    // Sends events of the chunk after the last that was looked at, as far as there is room.
    fn send_again(
        &mut self,
        key: Key,
        slot: StreamSlot,
        wanted: &Wanted,
        bytes_max: usize,
    ) -> Option<Step> {
        let room = self.peers.replay_room(key, self.foreign_outbox_bytes);
        let peer = self.peers.find(key)?;
        let own = peer.details.claims.sub.clone();
        let dialect = peer.viewer()?.dialect;
        let mut replay = self.behind_mut(key)?.replays.pop_front()?;
        let is_project = replay.stream.kind == StreamKind::Project;
        let wants = |keys: &EventKeys| {
            let is_own = is_project && keys.user.as_ref() == Some(&own);
            !is_own && is_wanted(wanted, keys)
        };
        let in_memory = self.rings.chunk_after(slot, replay.after);
        let chunk = match in_memory.filter(|chunk| !chunk.events().is_empty()) {
            Some(chunk) => Some(chunk),
            None => match self.reads.find(slot, replay.after) {
                Some(Found::Chunk(chunk)) => Some(&*chunk),
                _ => None,
            },
        };
        let again = chunk.map(|chunk| replay.look_at(chunk, wants, dialect, room, bytes_max));
        self.behind_mut(key)?.replays.push_front(replay);
        let Again {
            texts,
            work,
            is_full,
        } = again?;
        self.stats.counters.events_replayed.add(texts.len() as u64);
        for text in texts {
            self.peers.push_text(key, &text);
        }
        Some(if is_full {
            Step::Full
        } else {
            Step::Moved(work)
        })
    }

    fn end_replay(&mut self, now: Now, key: Key) {
        let Some(viewer) = self.peers.viewer_mut(key) else {
            return;
        };
        let Some(behind) = &mut viewer.behind else {
            return;
        };
        let Some(replay) = behind.replays.pop_front() else {
            return;
        };
        if behind.is_empty() {
            viewer.behind = None;
        }
        let message = ServerMessage::ReplayComplete {
            id: replay.id.as_ref(),
            stream: StreamName::from(&replay.stream),
            seq: replay.after,
            more: Some(replay.after < replay.up_to),
        };
        self.peers.push_message(now, key, &message);
    }

    fn is_replay_over(&mut self, key: Key) -> bool {
        self.replay_mut(key).is_none_or(|replay| replay.is_over())
    }

    fn replay_mut(&mut self, key: Key) -> Option<&mut Replay> {
        self.behind_mut(key)?.replays.front_mut()
    }

    // A stream that the viewer's token shows.
    fn visible_stream(&self, key: Key, stream: Option<Stream>) -> Option<Stream> {
        let claims = &self.peers.find(key)?.details.claims;
        match stream {
            None => Some(Stream::user(&claims.sub)),
            Some(stream) => {
                let is_project = stream.kind == StreamKind::Project;
                let is_visible = is_project && auth::may_see_project(claims, &stream.id);
                is_visible.then_some(stream)
            }
        }
    }

    // What the viewer takes of a stream now; `None`: nothing.
    fn wanted_of(&self, key: Key, slot: StreamSlot) -> Option<Wanted> {
        let viewer = self.peers.viewer(key)?;
        let mut behind = viewer.behind.iter().flat_map(|behind| &behind.streams);
        if let Some(catch_up) = behind.find(|catch_up| catch_up.slot == slot) {
            return Some(catch_up.wanted().clone());
        }
        let mut live = viewer.attachments.iter();
        let place = live.find(|place| place.stream == slot)?;
        let lists = &self.streams.state(slot)?.live.as_ref()?.attached;
        let attached = lists[viewer.variant.index()].get(place.position)?;
        Some(attached.filters.clone())
    }
}

/// Bytes that a frame has around its text, at most.
const FRAME_BYTES: usize = 10;
/// Milliseconds after which a refused `replay` may be tried again.
const RETRY_AFTER_MS: u64 = 1_000;

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::dialect::ConnectQuery;
    use crate::hub::Bounds;
    use crate::hub::rig::{Client, Rig, claims, event, seqs};

    /// Everything is read from the log.
    const NARROW: Bounds = Bounds {
        ring_bytes_max: 0,
        streams_idle_max: 1_000,
        ..Bounds::USUAL
    };

    fn rig(bounds: Bounds) -> Rig {
        Rig::with(2, bounds, |options| {
            options.tiers.insert("individual".into(), 10);
            options.limits.messages_per_minute = 1_000;
            options.limits.messages_per_second = 1_000;
        })
    }

    fn publish(rig: &mut Rig, user: Option<&str>, project: Option<&str>, names: &[&str]) {
        let publisher = rig.publisher(0);
        for name in names {
            let text = event(user, project, 1).replace("progress_update", name);
            rig.publish(publisher, &text);
            rig.settle();
        }
        rig.read(publisher);
    }

    // A viewer of everything, and what it was told first.
    fn viewer(rig: &mut Rig, user: &str, projects: &[&str]) -> Client {
        let client = rig.viewer(user, projects);
        rig.settle();
        rig.read(client);
        client
    }

    fn ask(rig: &mut Rig, client: Client, data: &Value) {
        rig.say(client, &json!({"type": "replay", "id": "r", "data": data}));
    }

    // The seqs that come again, and how that ends.
    fn replayed(rig: &mut Rig, client: Client, data: &Value) -> (Vec<u64>, Value) {
        ask(rig, client, data);
        rig.settle();
        let mut said = rig.read(client);
        let end = said.pop().unwrap_or_default();
        assert!(said.iter().all(|event| event["replay"] == true), "{said:?}");
        assert_eq!(end["data"]["id"], "r");
        (seqs(&said), end)
    }

    fn check(rig: &mut Rig, client: Client, data: &Value, expected: &[u64], seq: u64, more: bool) {
        let (found, end) = replayed(rig, client, data);
        assert_eq!(found, expected, "{data}");
        assert_eq!(end["type"], "replay_complete", "{data}");
        let told = (&end["data"]["seq"], &end["data"]["more"]);
        assert_eq!(told, (&json!(seq), &json!(more)), "{data}");
    }

    #[test]
    fn what_is_asked_for_comes_again_up_to_the_limit() {
        for bounds in [Bounds::default(), NARROW] {
            let mut rig = rig(bounds);
            let user = rig.id_on(0, StreamKind::User);
            publish(&mut rig, Some(&user), None, &["a"; 9]);
            let client = viewer(&mut rig, &user, &[]);
            let all: Vec<u64> = (1..=9).collect();
            for (data, expected, seq, more) in [
                (json!({"from": 1}), &all[..], 9, false),
                (json!({"from": 0, "stream": "user"}), &all, 9, false),
                (json!({"from": 3, "to": 5}), &[3, 4, 5], 5, false),
                (json!({"from": 3, "to": 500}), &all[2..], 9, false),
                (json!({"from": 3, "limit": 2}), &[3, 4], 4, true),
                (json!({"from": 8, "limit": 2}), &[8, 9], 9, false),
                (json!({"from": 10}), &[], 9, false),
                (json!({"from": 70, "to": 90}), &[], 9, false),
            ] {
                check(&mut rig, client, &data, expected, seq, more);
            }
        }
    }

    #[test]
    fn it_is_filtered_by_the_present_subscriptions_and_the_limit_is_of_what_is_sent() {
        for (bounds, owner) in [(Bounds::default(), 0), (NARROW, 0), (NARROW, 1)] {
            let mut rig = rig(bounds);
            let user = rig.id_on(0, StreamKind::User);
            let project = rig.id_on(owner, StreamKind::Project);
            publish(&mut rig, None, Some(&project), &["a", "b", "a"]);
            publish(&mut rig, Some(&user), Some(&project), &["a"]);
            publish(&mut rig, None, Some(&project), &["a", "b"]);
            let query = ConnectQuery::default();
            let claims = claims(&user, &[&project]);
            let client = rig.connect(claims, Dialect::Observatory, query);
            rig.settle();
            rig.read(client);
            let stream = format!("project/{project}");
            let again =
                |from: u64, limit: u64| json!({"stream": stream, "from": from, "limit": limit});
            // Nothing is subscribed to.
            check(&mut rig, client, &again(2, 9), &[], 1, false);
            let filters = json!({"eventTypes": ["a"]});
            rig.say(
                client,
                &json!({"type": "subscribe", "data": {"filters": filters}}),
            );
            rig.settle();
            rig.read(client);
            check(&mut rig, client, &again(1, 9), &[1, 3, 5], 6, false);
            check(&mut rig, client, &again(1, 2), &[1, 3], 3, true);
            check(&mut rig, client, &again(4, 1), &[5], 5, true);
        }
    }

    #[test]
    fn it_does_not_move_the_cursor_and_what_is_live_goes_on() {
        let mut rig = rig(NARROW);
        let user = rig.id_on(0, StreamKind::User);
        publish(&mut rig, Some(&user), None, &["a"; 3]);
        let client = viewer(&mut rig, &user, &[]);
        rig.holds_reads = true;
        ask(&mut rig, client, &json!({"from": 1}));
        rig.settle();
        publish(&mut rig, Some(&user), None, &["a"]);
        let now = rig.now;
        rig.hub().send_present_cursor(now, client.key);
        let said = rig.read(client);
        assert_eq!((seqs(&said), &said[0]["replay"]), (vec![4], &Value::Null));
        assert_eq!(said[1]["data"]["streams"]["user"], 4);
        rig.holds_reads = false;
        rig.answer_reads();
        rig.settle();
        let said = rig.read(client);
        assert_eq!(seqs(&said), [1, 2, 3]);
        assert_eq!(said[3]["data"]["seq"], 3);
    }

    #[test]
    fn a_stream_that_the_token_does_not_show_is_refused() {
        let mut rig = rig(Bounds::default());
        let user = rig.id_on(0, StreamKind::User);
        let client = viewer(&mut rig, &user, &["7"]);
        for stream in ["project/8", "user/bob"] {
            let data = json!({"stream": stream, "from": 1});
            let (_, end) = replayed(&mut rig, client, &data);
            assert_eq!(end["data"]["code"], "FORBIDDEN", "{stream}");
        }
    }

    #[test]
    fn several_are_answered_one_after_the_other_and_too_many_are_refused() {
        let mut rig = rig(NARROW);
        let user = rig.id_on(0, StreamKind::User);
        publish(&mut rig, Some(&user), None, &["a"; 3]);
        let client = viewer(&mut rig, &user, &[]);
        rig.holds_reads = true;
        for _ in 0..REPLAYS_WAITING_MAX {
            ask(&mut rig, client, &json!({"from": 2, "to": 2}));
        }
        ask(&mut rig, client, &json!({"from": 1}));
        let said = rig.read(client);
        assert_eq!(said[0]["data"]["code"], "RATE_LIMIT_EXCEEDED");
        rig.holds_reads = false;
        rig.settle();
        let mut said = Vec::new();
        for _ in 0..100 {
            rig.settle();
            said.extend(rig.names(client));
        }
        let expected = ["a", "replay_complete"].repeat(REPLAYS_WAITING_MAX);
        assert_eq!(said, expected);
    }

    #[test]
    fn a_slow_viewer_is_sent_no_more_than_it_takes() {
        let mut rig = rig(NARROW);
        let user = rig.id_on(0, StreamKind::User);
        publish(&mut rig, Some(&user), None, &["a"; 200]);
        let client = viewer(&mut rig, &user, &[]);
        ask(&mut rig, client, &json!({"from": 1}));
        rig.settle();
        let queued = rig.stats[0].counters.outbox_bytes.value();
        assert!(queued < 6_500, "{queued}");
        let mut found = Vec::new();
        for _ in 0..100 {
            found.extend(seqs(&rig.read(client)));
            rig.settle();
        }
        assert_eq!(found, (1..=200).collect::<Vec<u64>>());
    }

    #[test]
    fn what_the_log_has_no_more_is_left_out() {
        let mut rig = rig(NARROW);
        let user = rig.id_on(0, StreamKind::User);
        publish(&mut rig, Some(&user), None, &["a"; 6]);
        let client = viewer(&mut rig, &user, &[]);
        let stream = Stream::user(&user);
        rig.plain.take_up_to(&stream, Seq(2));
        rig.plain.damage(StreamKind::User, &user, Seq(4));
        check(&mut rig, client, &json!({"from": 1}), &[3, 5, 6], 6, false);
    }

    #[test]
    fn a_viewer_that_goes_meanwhile_leaves_nothing() {
        let mut rig = rig(NARROW);
        let user = rig.id_on(0, StreamKind::User);
        publish(&mut rig, Some(&user), None, &["a"; 3]);
        let client = viewer(&mut rig, &user, &[]);
        rig.holds_reads = true;
        ask(&mut rig, client, &json!({"from": 1}));
        rig.settle();
        rig.hub().handle_disconnect(client.key);
        rig.answer_reads();
        rig.settle();
        assert!(!rig.hub().has_work());
        assert_eq!(rig.stats[0].counters.outbox_bytes.value(), 0);
    }
}
