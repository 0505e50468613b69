//! Following streams of other cores: a core tells a project's owner that it has viewers of it, and
//! gets every frame after the head that the owner answers, under the generation of that interest.
//! Here too an operation of a viewer waits until all the streams that it reaches are ready.

use std::rc::Rc;

use compact_str::CompactString;

use crate::event::{Seq, StreamKind};
use crate::limits::ATTACH_TIMEOUT_MS;

use super::facts::Facts;
use super::frames::{Variant, Variants};
use super::keyed::Key;
use super::mail::Mail;
use super::streams::{Interest, Pending, Remote, StreamSlot};
use super::subscriptions::{Subscription, Target, plan};
use super::viewer::{Operation, Waiting};
use super::{Hub, Now};

impl Hub {
    // Makes sure that the front operation's streams are ready, and what becomes of their cursors
    // known. `false`: it waits, or there is none.
    pub(super) fn prepare(&mut self, now: Now, key: Key) -> bool {
        let Some(viewer) = self.peers.viewer(key) else {
            return false;
        };
        let variant = viewer.variant;
        if viewer.operations.is_empty() {
            return false;
        }
        if viewer.waiting.is_none() {
            self.begin_waiting(now, key, variant);
        }
        let waiting = |hub: &Self| {
            let viewer = hub.peers.viewer(key)?;
            let waiting = viewer.waiting.as_ref()?;
            let mut streams = waiting.streams.iter();
            let are_ready = streams.all(|slot| hub.is_ready(*slot, variant));
            are_ready.then_some(waiting.asked)
        };
        if waiting(self).is_none() {
            return false;
        }
        self.judge_cursors(key);
        waiting(self) == Some(0)
    }

    fn begin_waiting(&mut self, now: Now, key: Key, variant: Variant) {
        let (streams, begun) = self.streams_of_front(key);
        for slot in &streams {
            if let Some(state) = self.streams.state_mut(*slot) {
                state.live_mut().add_waiter(key);
            }
            if !self.streams.is_owned(*slot) {
                self.ask_owner(*slot, variant);
            }
        }
        let deadline_ms = now.ms() + ATTACH_TIMEOUT_MS;
        if let Some(viewer) = self.peers.viewer_mut(key) {
            viewer.waiting = Some(Box::new(Waiting {
                streams,
                facts: begun.into_iter().map(Facts::new).collect(),
                is_judged: false,
                asked: 0,
                deadline_ms,
            }));
        }
        self.peers.schedule(key, deadline_ms);
    }

    // Of the streams that the plan reaches once the front operation is carried out, those that must be
    // held for it, since another core owns them or they begin; and those that begin.
    fn streams_of_front(&mut self, key: Key) -> (Vec<StreamSlot>, Vec<StreamSlot>) {
        let none = (Vec::new(), Vec::new());
        let Some(peer) = self.peers.find(key) else {
            return none;
        };
        let Some(viewer) = peer.viewer() else {
            return none;
        };
        let claims = Rc::clone(&peer.details.claims);
        let mut subscriptions = viewer.subscriptions.clone();
        let mut projects = claims.projects.clone();
        match viewer.operations.front() {
            Some(Operation::Establish { initial }) => subscriptions.extend(initial.clone()),
            Some(Operation::Refresh { claims, .. }) => projects = claims.projects.clone(),
            Some(Operation::Subscribe {
                filters, cursor, ..
            }) => {
                let filters = filters.iter().cloned();
                let added: Vec<Subscription> = filters.map(Subscription::allowed).collect();
                // It will be refused in its turn, and reaches nothing.
                if self.check_added(key, &added).is_err() {
                    return none;
                }
                subscriptions.extend(added);
                if let Some(cursor) = cursor.clone() {
                    self.take_cursor(key, cursor);
                }
            }
            Some(Operation::Replay { .. } | Operation::Unsubscribe { .. }) | None => return none,
        }
        let (mut held, mut begun) = none;
        for (target, _) in plan(&subscriptions, &projects) {
            let (kind, id) = match &target {
                Target::Own => (StreamKind::User, &claims.sub),
                Target::Project(id) => (StreamKind::Project, id),
                Target::User(_) => continue,
            };
            let slot = self.streams.find_or_insert(kind, id);
            let is_new = !self.is_attached(key, slot);
            if is_new || !self.streams.is_owned(slot) {
                held.push(slot);
            }
            if is_new {
                begun.push(slot);
            }
        }
        (held, begun)
    }

    // Whether the stream is live for the viewer, or will be once it has caught up.
    fn is_attached(&self, key: Key, slot: StreamSlot) -> bool {
        self.peers.viewer(key).is_some_and(|viewer| {
            let mut live = viewer.attachments.iter();
            let mut behind = viewer.behind.iter().flat_map(|behind| &behind.streams);
            live.any(|place| place.stream == slot) || behind.any(|place| place.slot == slot)
        })
    }

    // Asks the owner core for frames in this variant, unless it has been asked.
    pub(super) fn ask_owner(&mut self, slot: StreamSlot, variant: Variant) {
        let Some(state) = self.streams.state_mut(slot) else {
            return;
        };
        let (owner, project) = (state.owner(), state.name.id.clone());
        let live = state.live_mut();
        let wanted = Variants::default().with(variant);
        let (generation, asked) = match live.remote().asked {
            // The same interest in more: what is on its way for it goes on counting.
            Some(asked) => asked,
            None => {
                self.interest_generation = self.interest_generation.wrapping_add(1);
                (self.interest_generation, Variants::default())
            }
        };
        if asked.contains(wanted) {
            return;
        }
        let variants = asked.union(wanted);
        live.remote_mut().asked = Some((generation, variants));
        self.send(
            owner,
            Mail::Interest {
                project,
                generation,
                variants,
            },
        );
    }

    fn is_ready(&self, slot: StreamSlot, variant: Variant) -> bool {
        if self.streams.is_owned(slot) {
            return true;
        }
        let live = self
            .streams
            .state(slot)
            .and_then(|state| state.live.as_ref());
        let answered = live.and_then(|live| live.remote().answered);
        answered.is_some_and(|(_, variants)| variants.contains(Variants::default().with(variant)))
    }

    pub(super) fn release_waiting(&mut self, key: Key) {
        let Some(waiting) = self
            .peers
            .viewer_mut(key)
            .and_then(|viewer| viewer.waiting.take())
        else {
            return;
        };
        for slot in waiting.streams {
            self.drop_waiter(slot, key);
            self.release_stream(slot);
        }
    }

    // Takes one of the viewer's places among those who need the stream.
    pub(super) fn drop_waiter(&mut self, slot: StreamSlot, key: Key) {
        let state = self.streams.state_mut(slot);
        if let Some(live) = state.and_then(|state| state.live.as_mut())
            && let Some(at) = live.waiters.iter().position(|waiter| *waiter == key)
        {
            live.waiters.swap_remove(at);
        }
    }

    pub(super) fn release_stream(&mut self, slot: StreamSlot) {
        // What came in this turn has nobody to go to; who comes back may want it.
        if let Some(pending) = self.streams.take_unwanted(slot) {
            let Pending { frames, events } = *pending;
            if let Some(batch) = frames.finish(slot) {
                let through = self.appended();
                self.rings
                    .push_batch(slot, &Rc::new(batch), events, through);
            }
        }
        if !self.streams.is_owned(slot) {
            return self.release_foreign(slot);
        }
        self.streams.release(slot);
    }

    fn release_foreign(&mut self, slot: StreamSlot) {
        if let Some((project, owner, generation)) = self.streams.release(slot) {
            self.send(
                owner,
                Mail::Uninterest {
                    project,
                    generation,
                },
            );
        }
        if self.streams.state(slot).is_none() {
            self.rings.remove(slot);
            self.reads.forget(slot);
        }
    }

    pub(super) fn handle_interest(
        &mut self,
        now: Now,
        from: usize,
        project: CompactString,
        generation: u32,
        variants: Variants,
    ) {
        let slot = self.streams.find_or_insert(StreamKind::Project, &project);
        // What was numbered before is older than the head that is answered.
        self.fan_out(now, slot);
        // Of this stream alone: a log that stands still holds up nobody for the sake of others.
        let recent = self.rings.through(slot);
        let through = recent.unwrap_or(self.forgotten_through);
        let Some(state) = self.streams.state_mut(slot) else {
            return;
        };
        let head = state.head;
        let base = self.rings.base(slot).unwrap_or(head);
        let interests = state.live_mut().interests_mut();
        interests.retain(|interest| interest.core != from);
        interests.push(Interest {
            core: from,
            generation,
            variants,
        });
        self.send(
            from,
            Mail::Interested {
                project,
                generation,
                variants,
                head,
                through,
                base: (base, self.forgotten_through),
            },
        );
        self.note_followed(slot);
    }

    pub(super) fn handle_uninterest(
        &mut self,
        from: usize,
        project: &CompactString,
        generation: u32,
    ) {
        let Some(slot) = self.streams.find(StreamKind::Project, project) else {
            return;
        };
        if let Some(live) = self
            .streams
            .state_mut(slot)
            .and_then(|state| state.live.as_mut())
        {
            live.interests_mut()
                .retain(|interest| interest.core != from || interest.generation != generation);
        }
        self.release_stream(slot);
    }

    pub(super) fn handle_interested(
        &mut self,
        now: Now,
        project: &CompactString,
        head: Seq,
        answer: Remote,
    ) {
        let Some(slot) = self.streams.find(StreamKind::Project, project) else {
            return;
        };
        let Some(state) = self.streams.state_mut(slot) else {
            return;
        };
        let Some(live) = state.live.as_mut() else {
            return;
        };
        let generation = |interest: Option<(u32, Variants)>| interest.map(|(number, _)| number);
        let asked = live.remote().asked;
        if asked.is_none() || generation(asked) != generation(answer.answered) {
            return;
        }
        *live.remote_mut() = Remote { asked, ..answer };
        debug_assert!(state.head <= head, "an owner never goes back");
        state.head = head;
        let mut waiters = live.waiters.clone();
        waiters.dedup();
        for viewer in waiters {
            self.advance_viewer(now, viewer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::{ConnectQuery, SubscribeScope};
    use crate::event::Dialect;
    use crate::hub::Bounds;
    use crate::hub::rig::{Client, Rig, claims, event, seqs};

    // A user of core 0, a project of core 1, a publisher beside the project.
    fn apart() -> (Rig, String, String, Client) {
        let mut rig = Rig::with(2, Bounds::default(), |options| {
            options.tiers.insert("individual".into(), 4);
        });
        let (user, project) = (
            rig.id_on(0, StreamKind::User),
            rig.id_on(1, StreamKind::Project),
        );
        let publisher = rig.publisher(1);
        (rig, user, project, publisher)
    }

    fn publish(rig: &mut Rig, publisher: Client, project: &str) {
        rig.publish(publisher, &event(None, Some(project), 1));
        rig.turn();
    }

    fn viewer_of(rig: &mut Rig, user: &str, project: &str, dialect: Dialect) -> Client {
        let query = ConnectQuery {
            subscribe: SubscribeScope::All,
            ..ConnectQuery::default()
        };
        rig.connect(claims(user, &[project]), dialect, query)
    }

    #[test]
    fn frames_follow_the_head_that_the_owner_answered() {
        let (mut rig, user, project, publisher) = apart();
        publish(&mut rig, publisher, &project);
        let viewer = rig.viewer(&user, &[&project]);
        rig.carry(0, 1);
        publish(&mut rig, publisher, &project);
        rig.settle();
        // Both frames came before the log had said what it has of the stream.
        let said = rig.read(viewer);
        assert_eq!(said[0]["data"]["resume"][1]["to"], 2);
        publish(&mut rig, publisher, &project);
        rig.settle();
        assert_eq!(seqs(&rig.read(viewer)), [3]);
    }

    #[test]
    fn an_interest_given_back_and_taken_again_starts_anew() {
        let (mut rig, user, project, publisher) = apart();
        let first = rig.viewer(&user, &[&project]);
        rig.settle();
        publish(&mut rig, publisher, &project);
        // The frame is on its way while the interest ends and another one begins.
        rig.hubs[0].handle_disconnect(first.key);
        let second = rig.viewer(&user, &[&project]);
        rig.carry(1, 0);
        assert!(rig.names(second).is_empty());
        publish(&mut rig, publisher, &project);
        rig.settle();
        publish(&mut rig, publisher, &project);
        rig.settle();
        let said = rig.read(second);
        assert_eq!(said[0]["data"]["resume"][1]["to"], 2);
        assert_eq!(seqs(&said), [3]);
        rig.hubs[0].handle_disconnect(second.key);
        rig.settle();
        assert_eq!(rig.stats[0].counters.interests.value(), 0);
        publish(&mut rig, publisher, &project);
        assert!(!rig.hubs[1].has_mail(0), "nobody there wants it any more");
    }

    #[test]
    fn an_answer_to_an_older_interest_does_not_count() {
        let (mut rig, user, project, publisher) = apart();
        let first = rig.viewer(&user, &[&project]);
        rig.carry(0, 1);
        rig.hubs[0].handle_disconnect(first.key);
        let second = rig.viewer(&user, &[&project]);
        rig.carry(1, 0);
        assert!(
            rig.names(second).is_empty(),
            "the answer was to the interest before"
        );
        publish(&mut rig, publisher, &project);
        rig.settle();
        publish(&mut rig, publisher, &project);
        rig.settle();
        assert_eq!(seqs(&rig.read(second)), [2]);
    }

    #[test]
    fn a_second_dialect_joins_without_a_gap_for_the_first() {
        let (mut rig, user, project, publisher) = apart();
        let keen = viewer_of(&mut rig, &user, &project, Dialect::Keen);
        rig.settle();
        publish(&mut rig, publisher, &project);
        let observatory = viewer_of(&mut rig, &user, &project, Dialect::Observatory);
        publish(&mut rig, publisher, &project);
        rig.carry(1, 0);
        rig.carry(0, 1);
        publish(&mut rig, publisher, &project);
        rig.settle();
        assert_eq!(seqs(&rig.read(keen)), [1, 2, 3]);
        let said = rig.read(observatory);
        assert_eq!(said[0]["data"]["resume"][1]["to"], 2);
        assert_eq!(seqs(&said), [3]);
    }

    #[test]
    fn further_variants_join_one_behind_the_other_without_a_gap_for_the_first() {
        let (mut rig, user, project, publisher) = apart();
        let mut viewers = vec![viewer_of(&mut rig, &user, &project, Dialect::Keen)];
        rig.settle();
        let others = [
            Variant::deflated(Dialect::Keen),
            Variant::plain(Dialect::Observatory),
            Variant::deflated(Dialect::Observatory),
        ];
        // Each asks before the one before it is answered, and an event comes in between.
        for variant in others {
            viewers.push(rig.viewer_of(&user, &[&project], variant));
            rig.carry(0, 1);
            publish(&mut rig, publisher, &project);
        }
        rig.settle();
        publish(&mut rig, publisher, &project);
        rig.settle();
        let seen: Vec<Vec<u64>> = viewers
            .iter()
            .map(|viewer| seqs(&rig.read(*viewer)))
            .collect();
        let expected: [&[u64]; 4] = [&[1, 2, 3, 4], &[1, 2, 3, 4], &[2, 3, 4], &[3, 4]];
        assert_eq!(seen, expected);
        rig.read(publisher);
        rig.check_balance();
    }

    #[test]
    fn a_viewer_that_the_owner_does_not_answer_in_time_is_closed() {
        let (mut rig, user, project, _) = apart();
        let viewer = rig.viewer(&user, &[&project]);
        rig.wait(ATTACH_TIMEOUT_MS - 1);
        rig.fire(viewer);
        assert_eq!(rig.closing(viewer), None);
        rig.wait(1);
        rig.fire(viewer);
        assert_eq!(rig.names(viewer), ["1011"]);
        rig.settle();
        assert_eq!(
            rig.stats[0].counters.interests.value(),
            0,
            "nobody waits any more"
        );
    }
}
