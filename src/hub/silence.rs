//! Conversations that fall silent: after `agents.conversation_silence_minutes` without a word the
//! server says that they are over, by an event in each stream that they are in, numbered like any
//! other. A state that was let go of meanwhile is loaded for it.
//!
//! Of streams of which this process has no state, those that somebody follows have theirs loaded, a few
//! at a time and while little else is loaded. Of one that nobody follows, the end is told when an event
//! or a question needs its state: until then there is nobody to be told. Source: contract section 10,
//! `agents.conversation_silence_minutes`.

use std::collections::{BTreeSet, HashSet};

use crate::agents::conversations::Conversations;
use crate::event::{Event, KnownType, Seq};
use crate::limits::{SILENCES_PER_TURN, STATES_LOADING_UNHURRIED_MAX};

use super::streams::StreamSlot;
use super::{Hub, Now};

/// When to look at which stream.
#[derive(Debug)]
pub(super) struct Silences {
    // In milliseconds of the monotonic clock: no later than its first conversation can be silent for
    // long enough. One for each stream.
    due: BTreeSet<(u64, StreamSlot)>,
    listed: HashSet<StreamSlot, ahash::RandomState>,
    // Streams that somebody began to follow, and that had no state then.
    unseen: BTreeSet<StreamSlot>,
}

impl Silences {
    /// Nothing is to be looked at.
    pub fn new(seed: u64) -> Self {
        Self {
            due: BTreeSet::new(),
            listed: HashSet::with_hasher(ahash::RandomState::with_seeds(seed, 53, 59, 61)),
            unseen: BTreeSet::new(),
        }
    }

    fn insert(&mut self, at_ms: u64, slot: StreamSlot) {
        if self.listed.insert(slot) {
            self.due.insert((at_ms, slot));
        }
    }

    fn poll(&mut self, now: Now) -> Option<StreamSlot> {
        let (at_ms, slot) = *self.due.first()?;
        if at_ms > now.ms() {
            return None;
        }
        self.due.pop_first();
        self.listed.remove(&slot);
        Some(slot)
    }
}

impl Hub {
    /// An event of a stream has its number.
    pub(super) fn note_silence_after(&mut self, now: Now, slot: StreamSlot, event: &Event) {
        let known_type = KnownType::find(&event.event_type);
        if known_type.is_some_and(Conversations::concerns) {
            self.note_silence(now, slot);
        }
    }

    /// A viewer or another core follows a stream from now on: conversations in it may be silent.
    pub(super) fn note_followed(&mut self, slot: StreamSlot) {
        let is_owned = self.streams.is_owned(slot);
        let state = self.streams.state(slot).filter(|_| is_owned);
        if state.is_some_and(|state| !state.is_folded && state.given > Seq(0)) {
            self.silences.unseen.insert(slot);
        }
    }

    /// Loads the states of streams that are followed, where few others are loaded.
    pub(super) fn load_followed(&mut self) {
        while self.can_load_followed()
            && let Some(slot) = self.silences.unseen.pop_first()
        {
            let state = self.streams.state(slot);
            if state.is_some_and(|state| state.live.is_some()) {
                self.need_fold(slot);
            }
        }
    }

    /// Whether one of them can be loaded now.
    pub(super) fn can_load_followed(&self) -> bool {
        !self.silences.unseen.is_empty()
            && self.folds_loading_len() < STATES_LOADING_UNHURRIED_MAX
            && self.can_end_conversations()
    }

    /// States have become live: they may have conversations that go on.
    pub(super) fn note_silences_of_arrived(&mut self, now: Now) {
        for slot in self.folds.arrived().to_vec() {
            self.note_silence(now, slot);
        }
    }

    /// Says of conversations that were silent for long that they are over.
    pub(super) fn end_silent_conversations(&mut self, now: Now) {
        let mut left = SILENCES_PER_TURN;
        while left > 0
            && self.can_end_conversations()
            && let Some(slot) = self.silences.poll(now)
        {
            left -= 1;
            // Whatever is not live comes back when it is.
            if self.streams.state(slot).is_none() || !self.need_fold(slot) {
                continue;
            }
            while left > 0
                && self.can_end_conversations()
                && let Some(end) = self.silent_end(now, slot)
            {
                left -= 1;
                self.stats.counters.conversations_silent.add(1);
                self.number_own(now, slot, end);
            }
            self.note_silence(now, slot);
        }
    }

    /// When that is to be looked at next, in milliseconds of the monotonic clock.
    pub(super) fn silence_ms(&self) -> Option<u64> {
        let first = self.silences.due.first().map(|(at_ms, _)| *at_ms);
        first.filter(|_| self.can_end_conversations())
    }

    fn can_end_conversations(&self) -> bool {
        !self.drain.is_draining() && self.has_slot()
    }

    fn silent_end(&self, now: Now, slot: StreamSlot) -> Option<Event> {
        let silence_ms = self.options.conversation_silence_ms;
        let conversations = self.folds.live(slot)?.conversations();
        let silent = conversations.silent(now.wall_ms, silence_ms)?;
        Some(silent.inferred_end(silence_ms))
    }

    fn note_silence(&mut self, now: Now, slot: StreamSlot) {
        // It may be due too early, never too late: nothing is heard earlier than what came before.
        if self.silences.listed.contains(&slot) {
            return;
        }
        let silence_ms = self.options.conversation_silence_ms;
        let state = self.folds.live(slot);
        let next = state.and_then(|state| state.conversations().next_silence_ms(silence_ms));
        if let Some(at_ms) = next {
            let left_ms = u64::try_from(at_ms.saturating_sub(now.wall_ms)).unwrap_or(0);
            self.silences.insert(now.ms() + left_ms, slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::event::{Stream, StreamKind};
    use crate::hub::Bounds;
    use crate::hub::rig::{Client, Rig};

    /// As the rig's options have it.
    const SILENCE_MS: u64 = 60_000;

    /// A user and a project of two cores, and one viewer of each alone.
    struct Scene {
        rig: Rig,
        user: String,
        project: String,
        publisher: Client,
    }

    impl Scene {
        fn new() -> Self {
            let mut rig = Rig::with(2, Bounds::default(), |_| {});
            let user = rig.id_on(0, StreamKind::User);
            let project = rig.id_on(1, StreamKind::Project);
            let publisher = rig.publisher(0);
            Self {
                rig,
                user,
                project,
                publisher,
            }
        }

        fn viewers(&mut self) -> [Client; 2] {
            let own = self.rig.viewer(&self.user, &[]);
            let other = self.rig.viewer("bob", &[&self.project]);
            self.rig.settle();
            [own, other].map(|client| {
                self.rig.read(client);
                client
            })
        }

        fn hear(&mut self, event_type: &str) {
            let event = json!({
                "type": event_type, "user_id": self.user, "project_id": self.project,
                "data": {"conversationId": "c", "message": {}},
            });
            self.rig.publish(self.publisher, &event.to_string());
            self.rig.settle();
        }

        fn wait(&mut self, ms: u64) {
            self.rig.wait(ms);
            self.rig.settle();
        }

        fn ends(&mut self, client: Client) -> Vec<Value> {
            let said = self.rig.read(client);
            let is_end = |said: &Value| said["type"] == "conversation_ended";
            said.into_iter().filter(is_end).collect()
        }
    }

    #[test]
    fn both_streams_are_told_once_that_a_conversation_is_over() {
        let mut scene = Scene::new();
        let [own, other] = scene.viewers();
        scene.hear("conversation_started");
        scene.wait(SILENCE_MS / 2);
        scene.hear("message_added");
        scene.wait(SILENCE_MS - 1);
        assert!(scene.ends(own).is_empty() && scene.ends(other).is_empty());
        let due_ms = scene.rig.hubs[0].next_deadline_ms();
        assert_eq!(due_ms, Some(scene.rig.now.ms() + 1));
        scene.wait(1);
        let (mine, theirs) = (scene.ends(own), scene.ends(other));
        assert_eq!((mine.len(), theirs.len()), (1, 1));
        let data = &mine[0]["data"];
        assert_eq!(
            (&data["inferred"], &data["messageCount"]),
            (&json!(true), &json!(1))
        );
        assert_eq!(data["duration"], SILENCE_MS / 2);
        assert_eq!(
            (&mine[0]["event_id"], data),
            (&theirs[0]["event_id"], &theirs[0]["data"])
        );
        assert_eq!(mine[0]["stream"], "user");
        scene.wait(2 * SILENCE_MS);
        assert!(scene.ends(own).is_empty() && scene.ends(other).is_empty());
        scene.rig.read(scene.publisher);
        scene.rig.check_balance();
    }

    #[test]
    fn what_was_said_to_be_over_goes_on_and_ends_again() {
        let mut scene = Scene::new();
        let [own, _] = scene.viewers();
        scene.hear("message_added");
        scene.wait(SILENCE_MS);
        let first = scene.ends(own);
        scene.wait(1);
        scene.hear("message_added");
        scene.wait(SILENCE_MS);
        let second = scene.ends(own);
        assert_eq!((first.len(), second.len()), (1, 1));
        assert_ne!(first[0]["event_id"], second[0]["event_id"]);
    }

    #[test]
    fn a_restart_neither_doubles_an_end_nor_forgets_it() {
        let mut scene = Scene::new();
        scene.hear("conversation_started");
        scene.rig.restart(|_| {});
        let viewers = scene.viewers();
        scene.wait(SILENCE_MS);
        assert_eq!(viewers.map(|client| scene.ends(client).len()), [1, 1]);
        scene.rig.restart(|_| {});
        let viewers = scene.viewers();
        scene.wait(SILENCE_MS);
        assert_eq!(viewers.map(|client| scene.ends(client).len()), [0, 0]);
    }

    #[test]
    fn of_streams_that_nobody_follows_it_is_told_to_the_first_who_does() {
        let mut scene = Scene::new();
        scene.hear("conversation_started");
        scene.rig.restart(|_| {});
        scene.wait(2 * SILENCE_MS);
        let streams = [Stream::user(&scene.user), Stream::project(&scene.project)];
        let stored = |scene: &Scene| {
            let events = streams
                .each_ref()
                .map(|stream| scene.rig.plain.stored(stream));
            events.map(|events| events.len())
        };
        assert_eq!(stored(&scene), [1, 1]);
        scene.viewers();
        assert_eq!(stored(&scene), [2, 2]);
    }

    #[test]
    fn a_log_that_takes_nothing_ends_no_conversation() {
        let mut scene = Scene::new();
        let [own, _] = scene.viewers();
        scene.hear("conversation_started");
        for hub in &mut scene.rig.hubs {
            hub.handle_drain(scene.rig.now, u64::MAX);
        }
        scene.wait(SILENCE_MS);
        assert!(scene.ends(own).is_empty());
    }
}
