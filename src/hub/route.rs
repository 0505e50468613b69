//! The road of an event from its publisher's core to every subscriber: to the owner cores, past
//! the duplicates, to its number, and through `on_numbered` into frames.
//!
//! Between two cores a window bounds the bytes that are on their way. An owner core whose mail to
//! others has no room admits nothing; what arrives then waits in order, and the windows fill, so
//! that publishers are no longer read. Draining mail never waits for anything.

use std::rc::Rc;

use compact_str::CompactString;

use crate::counters::Stage;
use crate::dialect::StreamName;
use crate::event::{Event, NumberedEvent, Seq, StreamKind};
use crate::limits::{CHUNK_BYTES_TARGET, HELD_BYTES_PER_TURN};

use super::duplicates::Fingerprint;
use super::frames::{FrameBatch, Numbered, Variant};
use super::keyed::Key;
use super::ledger::{Append, Deliver, Due, HeldEvent, LogProgress};
use super::mail::{Ack, Mail, Receipt, Submission};
use super::streams::{Attached, Pending, Remote, StreamSlot};
use super::users::UserSlot;
use super::{Hub, Now};

/// What goes to one other core.
#[derive(Debug)]
pub struct Outgoing {
    submissions: Vec<Submission>,
    receipts: Vec<Receipt>,
    mail: Vec<Mail>,
    // Bytes of frames in `mail`.
    frame_bytes: usize,
    // Bytes of submissions sent to the core and not yet settled, and their bound.
    window_bytes: u64,
    window_bytes_max: u64,
}

/// A submission that waits for a slot, or for the state of its stream.
#[derive(Debug)]
pub(super) struct Waiting {
    pub from: usize,
    pub submission: Submission,
}

impl Outgoing {
    pub(super) fn new(window_bytes_max: u64) -> Self {
        Self {
            submissions: Vec::new(),
            receipts: Vec::new(),
            mail: Vec::new(),
            frame_bytes: 0,
            window_bytes: 0,
            window_bytes_max,
        }
    }

    /// Bytes of submissions that were sent and not yet settled.
    pub fn in_flight_bytes(&self) -> u64 {
        self.window_bytes
    }

    fn has_room(&self, bytes: u64) -> bool {
        // Anything enters an empty window, so that none is too small for the largest event.
        self.window_bytes == 0 || self.window_bytes + bytes <= self.window_bytes_max
    }

    fn is_empty(&self) -> bool {
        self.submissions.is_empty() && self.receipts.is_empty() && self.mail.is_empty()
    }
}

impl Hub {
    /// Whether there is mail for `core`.
    pub fn has_mail(&self, core: usize) -> bool {
        !self.outgoing[core].is_empty()
    }

    /// All mail for `core`, as one letter. Call it only when the letter can be sent.
    pub fn poll_mail(&mut self, core: usize) -> Vec<Mail> {
        let outgoing = &mut self.outgoing[core];
        let mut letter = Vec::with_capacity(outgoing.mail.len() + 2);
        if !outgoing.submissions.is_empty() {
            letter.push(Mail::Publish(std::mem::take(&mut outgoing.submissions)));
        }
        if !outgoing.receipts.is_empty() {
            letter.push(Mail::Receipts(std::mem::take(&mut outgoing.receipts)));
        }
        letter.append(&mut outgoing.mail);
        outgoing.frame_bytes = 0;
        letter
    }

    /// A letter's mail, in order.
    pub fn handle_mail(&mut self, now: Now, from: usize, mail: Mail) {
        match mail {
            Mail::Ask { id, ask } => self.handle_ask(now, from, id, &ask),
            Mail::Answer { id, answer } => self.handle_answer(id, answer),
            Mail::Erased(user) => self.ledger.note_erased(user),
            Mail::Forget(user) => self.forget_user(&user),
            Mail::Frames {
                project,
                generation,
                batch,
                through,
            } => self.handle_frames(now, &project, (generation, through), *batch),
            Mail::Interest {
                project,
                generation,
                variants,
            } => {
                self.handle_interest(now, from, project, generation, variants);
            }
            Mail::Interested {
                project,
                generation,
                variants,
                head,
                through,
                base,
            } => {
                let remote = Remote {
                    asked: None,
                    answered: Some((generation, variants)),
                    through,
                    base,
                };
                self.handle_interested(now, &project, head, remote);
            }
            Mail::NoMoreEvents => self.drain.handle_no_more_events(from),
            Mail::NoMoreFrames => self.drain.handle_no_more_frames(from),
            Mail::Question { id, question } => self.handle_question(now, from, id, question),
            Mail::Publish(submissions) => self.handle_submissions(now, from, submissions),
            Mail::Receipts(receipts) => self.handle_receipts(from, &receipts),
            Mail::Told { id, told } => self.handle_told(now, id, told),
            Mail::Uninterest {
                project,
                generation,
            } => self.handle_uninterest(from, &project, generation),
        }
    }

    pub(super) fn send(&mut self, core: usize, mail: Mail) {
        if let Mail::Frames { batch, .. } = &mail {
            self.outgoing[core].frame_bytes += batch.bytes_len();
        }
        self.outgoing[core].mail.push(mail);
    }

    // Whether an event may go to the owners of all its audiences now.
    pub(super) fn has_room_for(&self, event: &Event, bytes: u64) -> bool {
        let user = event.user.as_ref().map(|id| (StreamKind::User, id));
        let project = event.project.as_ref().map(|id| (StreamKind::Project, id));
        user.into_iter().chain(project).all(|(kind, id)| {
            let owner = self.options.partition.core_of(kind, id);
            if owner == self.options.core {
                self.waiting.is_empty() && self.has_slot() && self.has_room_behind(kind, id)
            } else {
                self.outgoing[owner].has_room(bytes)
            }
        })
    }

    // Sends a submission to its owner core, which may be this one.
    pub(super) fn route(&mut self, now: Now, submission: Submission) {
        let kind = submission.kind;
        let id = submission.event.audience(kind).unwrap_or_default();
        let owner = self.options.partition.core_of(kind, id);
        let routed_ns = now.monotonic_ns.saturating_sub(submission.received_ns);
        self.stages.record(Stage::Routed, routed_ns, 1);
        if owner == self.options.core {
            self.admit(now, owner, submission);
        } else {
            self.outgoing[owner].window_bytes += u64::from(submission.bytes);
            self.outgoing[owner].submissions.push(submission);
        }
    }

    // Whether this core may number one more event: the log takes it, the mail to the others has room,
    // and not too many wait for the states of their streams.
    pub(super) fn has_slot(&self) -> bool {
        let has_room =
            |outgoing: &Outgoing| outgoing.frame_bytes < self.bounds.mail_bytes_pending_max;
        self.ledger.has_room() && self.folds.has_room() && self.outgoing.iter().all(has_room)
    }

    // Whether one more may wait behind those that wait for the state of its stream.
    fn has_room_behind(&self, kind: StreamKind, id: &str) -> bool {
        let slot = || self.streams.find(kind, id);
        !self.folds.holds_submissions() || slot().is_none_or(|slot| self.folds.has_room_for(slot))
    }

    fn handle_submissions(&mut self, now: Now, from: usize, submissions: Vec<Submission>) {
        for submission in submissions {
            if self.waiting.is_empty() && self.has_slot() {
                self.admit(now, from, submission);
            } else {
                self.waiting.push_back(Waiting { from, submission });
            }
        }
    }

    pub(super) fn admit_waiting_submissions(&mut self, now: Now) {
        while self.has_slot() {
            let Some(Waiting { from, submission }) = self.waiting.pop_front() else {
                return;
            };
            self.admit(now, from, submission);
        }
    }

    // Whether a submission that waited could be admitted: room was made when the turn was over.
    pub(super) fn can_admit_waiting(&self) -> bool {
        !self.waiting.is_empty() && self.has_slot()
    }

    pub(super) fn has_waiting_submissions(&self) -> bool {
        !self.waiting.is_empty()
    }

    pub(super) fn has_outgoing(&self) -> bool {
        self.outgoing.iter().any(|outgoing| !outgoing.is_empty())
    }

    /// Records for the event log, if there are any since the last call.
    pub fn poll_append(&mut self, now: Now) -> Option<Append> {
        self.ledger.poll_append(now.monotonic_ns)
    }

    /// The event log has moved: whatever waited for it is due. To be called before the turn's end.
    pub fn handle_log_progress(&mut self, now: Now, progress: LogProgress) {
        let stages = &mut self.stages;
        self.ledger.handle_progress(progress, |records, handed_ns| {
            let waited_ns = now.monotonic_ns.saturating_sub(handed_ns);
            stages.record(Stage::Durable, waited_ns, records);
        });
        // What the disk has held back for long would be more than an outbox takes at once.
        let mut bytes_left = HELD_BYTES_PER_TURN;
        while bytes_left > 0
            && let Some(due) = self.ledger.poll_due()
        {
            match due {
                Due::Ask(id) => self.handle_order_kept(id),
                Due::Event(HeldEvent {
                    slot,
                    seq,
                    event,
                    received_ns,
                }) => {
                    bytes_left = bytes_left.saturating_sub(event.data.len() + EVENT_BYTES_BESIDE);
                    self.on_numbered(now, slot, seq, event, received_ns);
                }
                Due::Forget(user) => {
                    // What was seen in this turn goes into memory first.
                    self.fan_out_touched(now);
                    self.forget_user(&user);
                    self.resume_snapshots(&user);
                    self.send_to_others(|| Mail::Forget(user.clone()));
                }
                Due::Receipt(to, receipt) => self.send_receipt(to, receipt),
            }
        }
    }

    fn send_receipt(&mut self, to: usize, receipt: Receipt) {
        if to == self.options.core {
            return self.handle_receipt(&receipt);
        }
        let receipts = &mut self.outgoing[to].receipts;
        // Receipts of one request and one turn are one.
        match receipts
            .last_mut()
            .filter(|last| last.ticket == receipt.ticket)
        {
            Some(last) => last.absorb(receipt),
            None => receipts.push(receipt),
        }
    }

    // Numbers an event, unless its id was seen. The receipt is due when the log keeps it, or keeps
    // the first one of that id.
    fn admit(&mut self, now: Now, from: usize, submission: Submission) {
        let Some(submission) = self.hold_submission(from, submission) else {
            return;
        };
        let Submission {
            ticket,
            index,
            bytes,
            ack,
            ..
        } = submission;
        let mut receipt = Receipt {
            ticket,
            settled: 1,
            bytes: u64::from(bytes),
            duplicates: Vec::new(),
        };
        let is_seen = |id| self.duplicates.is_duplicate(now.ms(), id);
        if submission.fingerprint.is_some_and(is_seen) {
            receipt.duplicates.push(index);
        } else {
            let Submission {
                kind,
                fingerprint,
                received_ns,
                event,
                ..
            } = submission;
            self.number(now, kind, fingerprint, received_ns, event);
        }
        match ack {
            Ack::Durable => self.ledger.wait(Due::Receipt(from, receipt)),
            Ack::Received => self.send_receipt(from, receipt),
        }
    }

    /// Gives an event that nobody published its number in one stream of this core.
    pub(super) fn number_own(&mut self, now: Now, slot: StreamSlot, event: Event) {
        if let Some(state) = self.streams.state(slot) {
            self.number(now, state.name.kind, None, now.monotonic_ns, event);
        }
    }

    /// Gives an event of a stream of this core its number. `received_ns`: on the monotonic clock.
    pub(super) fn number(
        &mut self,
        now: Now,
        kind: StreamKind,
        fingerprint: Option<Fingerprint>,
        received_ns: u64,
        mut event: Event,
    ) {
        let id = event.audience(kind).unwrap_or_default().into();
        let slot = self.streams.find_or_insert(kind, &id);
        let Some((previous, seq)) = self.streams.next_seq(slot) else {
            return;
        };
        let waited_ns = now.monotonic_ns.saturating_sub(received_ns);
        self.stages.record(Stage::Numbered, waited_ns, 1);
        let received_ms = now.wall_ms - (waited_ns / 1_000_000) as i64;
        self.fold_numbered(slot, (seq, received_ms), &mut event);
        self.note_silence_after(now, slot, &event);
        self.ledger.append(&NumberedEvent {
            kind,
            seq,
            previous,
            received_ms,
            fingerprint,
            event: &event,
        });
        match self.options.deliver {
            Deliver::Durable => self.ledger.wait(Due::Event(HeldEvent {
                slot,
                seq,
                event,
                received_ns,
            })),
            Deliver::Eager => self.on_numbered(now, slot, seq, event, received_ns),
        }
    }

    // The one entry between numbering and delivery: called in the same step, or when the event is
    // kept; in a cluster when the number comes back.
    fn on_numbered(
        &mut self,
        now: Now,
        slot: StreamSlot,
        seq: Seq,
        event: Event,
        received_ns: u64,
    ) {
        let through = self.appended();
        let Some(state) = self.streams.state_mut(slot) else {
            return;
        };
        state.head = seq;
        let live = state.live.as_mut().map(|live| (live.variants(), live));
        let Some((variants, live)) = live.filter(|(variants, _)| !variants.is_empty()) else {
            // Whoever took what came before in this turn is gone.
            self.fan_out(now, slot);
            return self.rings.push_event(slot, seq, event, through);
        };
        let numbered = Numbered {
            stream: StreamName::from(&state.name),
            seq,
            event: &event,
            received_ns,
            numbered_ns: now.monotonic_ns,
        };
        let pending = live.pending.get_or_insert_default();
        pending
            .frames
            .push(variants, numbered, &mut self.peers.encoder);
        if pending.events.is_empty() {
            // Most batches have one.
            pending.events.reserve_exact(1);
        }
        pending.events.push((seq, event));
        let is_full = pending.frames.bytes_len() >= CHUNK_BYTES_TARGET;
        if !std::mem::replace(&mut live.touched, true) {
            self.touched.push(slot);
        }
        if is_full {
            self.fan_out(now, slot);
        }
    }

    pub(super) fn fan_out_touched(&mut self, now: Now) {
        let mut touched = std::mem::take(&mut self.touched);
        for slot in touched.drain(..) {
            if let Some(live) = self
                .streams
                .state_mut(slot)
                .and_then(|state| state.live.as_mut())
            {
                live.touched = false;
            }
            self.fan_out(now, slot);
        }
        // Whatever a fan-out touched anew comes with the next turn; the list's memory is kept.
        touched.append(&mut self.touched);
        self.touched = touched;
    }

    // Hands the frames of this turn to the subscribers here and to the cores that are interested.
    pub(super) fn fan_out(&mut self, now: Now, slot: StreamSlot) {
        let through = self.appended();
        let Some(state) = self.streams.state_mut(slot) else {
            return;
        };
        let Some(live) = state.live.as_mut() else {
            return;
        };
        let Some(pending) = live.pending.take() else {
            return;
        };
        let Pending { frames, events } = *pending;
        let Some(batch) = frames.finish(slot) else {
            return;
        };
        for interest in live.interests().to_vec() {
            let Some(project) = self.streams.state(slot).map(|state| state.name.id.clone()) else {
                return;
            };
            let mail = Mail::Frames {
                project,
                generation: interest.generation,
                batch: Box::new(batch.clone()),
                through,
            };
            self.send(interest.core, mail);
        }
        let batch = Rc::new(batch);
        self.rings.push_batch(slot, &batch, events, through);
        self.deliver(now, slot, &batch);
    }

    // Frames of another core's stream: they count where they serve the present interest.
    fn handle_frames(
        &mut self,
        now: Now,
        project: &CompactString,
        (generation, through): (u32, u64),
        mut batch: FrameBatch,
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
        if live
            .remote()
            .answered
            .is_none_or(|(answered, _)| answered != generation)
        {
            return;
        }
        live.remote_mut().through = through;
        debug_assert!(
            state.head < batch.metas[0].seq,
            "frames come in order and once"
        );
        state.head = batch.last_seq();
        batch.stream = slot;
        let batch = Rc::new(batch);
        // Its owner keeps what the log has not: here it may go at any time.
        self.rings.push_batch(slot, &batch, Vec::new(), 0);
        self.deliver(now, slot, &batch);
    }

    // One reference and one slice for every subscriber that takes the whole batch; single frames
    // for those with filters, and for an event's own user, who gets it on the own stream.
    fn deliver(&mut self, now: Now, slot: StreamSlot, batch: &Rc<FrameBatch>) {
        let Some(state) = self.streams.state(slot) else {
            return;
        };
        let Some(live) = state.live.as_ref() else {
            return;
        };
        let owners = self.owners(batch, state.name.kind);
        let events = batch.metas.len();
        if live.attached.iter().any(|viewers| !viewers.is_empty()) {
            self.stages
                .handle_fanned_out(batch.numbered_ns, events as u64);
        }
        let (peers, last) = (&mut self.peers, events - 1);
        let mut slow = Vec::new();
        for variant in Variant::all() {
            for Attached { viewer, filters } in &live.attached[variant.index()] {
                let Some(user) = peers.find(*viewer).map(super::peers::Peer::user) else {
                    continue;
                };
                let is_own = owners.contains(&Some(user));
                let has_room = if filters.is_none() && !is_own {
                    peers.push_shared(*viewer, batch, variant, 0, last)
                } else {
                    (0..=last).all(|index| {
                        let keys = &batch.metas[index].keys;
                        let is_theirs = is_own && owners[index] == Some(user);
                        let is_wanted = filters
                            .as_ref()
                            .is_none_or(|any| any.iter().any(|filter| filter.matches(keys)));
                        is_theirs
                            || !is_wanted
                            || peers.push_shared(*viewer, batch, variant, index, index)
                    })
                };
                if has_room {
                    peers.warn_of_lag(now, *viewer);
                } else {
                    slow.push(*viewer);
                }
            }
        }
        for viewer in slow {
            self.close_slow(now, viewer, Some((slot, batch.metas[0].seq)));
        }
    }

    // Whose event each frame of a project's batch is, as far as they have connections here. Empty
    // on a user's own stream, and where no event has a user.
    fn owners(&self, batch: &FrameBatch, kind: StreamKind) -> Vec<Option<UserSlot>> {
        if kind == StreamKind::User || batch.metas.iter().all(|meta| meta.keys.user.is_none()) {
            return Vec::new();
        }
        let find = |name: &CompactString| self.peers.users.find(name);
        batch
            .metas
            .iter()
            .map(|meta| meta.keys.user.as_ref().and_then(find))
            .collect()
    }

    fn handle_receipts(&mut self, from: usize, receipts: &[Receipt]) {
        for receipt in receipts {
            self.outgoing[from].window_bytes -= receipt.bytes;
            self.handle_receipt(receipt);
        }
    }

    /// The largest outboxes, while the node holds more than it may and this core more than its
    /// share: they go first.
    pub(super) fn shed_outboxes(&mut self, now: Now) {
        let total = self.options.limits.outbox_bytes_total;
        let share = total / self.options.partition.cores();
        let is_over = |hub: &Self| {
            let bytes = hub.peers.outbox_bytes();
            bytes > share && bytes + hub.foreign_outbox_bytes > total
        };
        if !is_over(self) {
            return;
        }
        let open = self
            .peers
            .iter()
            .filter(|(_, peer)| peer.closing().is_none());
        let mut largest: Vec<(usize, Key)> = open
            .map(|(key, peer)| (peer.waiting_bytes(), key))
            .collect();
        largest.sort_unstable();
        while let Some((_, key)) = largest.pop().filter(|_| is_over(self)) {
            self.close_slow(now, key, None);
        }
    }

    /// Whether the viewer still counts: it is there and not closing.
    pub(super) fn is_open(&self, key: Key) -> bool {
        self.peers
            .find(key)
            .is_some_and(|peer| peer.closing().is_none())
    }
}

// Roughly what an event is beside its data.
const EVENT_BYTES_BESIDE: usize = 256;

impl Receipt {
    pub(super) fn absorb(&mut self, other: Self) {
        self.settled += other.settled;
        self.bytes += other.bytes;
        self.duplicates.extend(other.duplicates);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::rig::{Rig, claims, event, seqs};
    use crate::hub::{Action, Bounds};

    #[test]
    fn an_event_of_two_audiences_comes_once_and_on_the_own_stream_to_its_user() {
        let mut rig = Rig::new();
        let (own, other) = (rig.viewer("ada", &["7"]), rig.viewer("bob", &["7"]));
        let publisher = rig.publisher(0);
        let events = [
            event(None, Some("7"), 1),
            event(Some("ada"), Some("7"), 1),
            event(Some("ada"), None, 1),
            event(Some("bob"), Some("7"), 1),
        ];
        rig.publish(publisher, &format!("[{}]", events.join(",")));
        rig.turn();
        let shown = |messages: Vec<serde_json::Value>| -> Vec<(String, u64)> {
            let events = messages.iter().filter(|message| message["seq"].is_u64());
            let mut shown: Vec<_> = events
                .map(|event| {
                    (
                        event["stream"].as_str().unwrap_or_default().to_owned(),
                        event["seq"].as_u64().unwrap_or(0),
                    )
                })
                .collect();
            shown.sort();
            shown
        };
        let named = |stream: &str, seqs: &[u64]| {
            seqs.iter()
                .map(|seq| (stream.to_owned(), *seq))
                .collect::<Vec<_>>()
        };
        let (ada, bob) = (shown(rig.read(own)), shown(rig.read(other)));
        assert_eq!(
            ada,
            [named("project/7", &[1, 3]), named("user", &[1, 2])].concat()
        );
        assert_eq!(
            bob,
            [named("project/7", &[1, 2]), named("user", &[1])].concat()
        );
    }

    #[test]
    fn a_second_event_of_one_id_completes_only_the_stream_that_lacks_it() {
        let mut rig = Rig::new();
        let viewer = rig.viewer("ada", &["7"]);
        let counts = |rig: &mut Rig, user: &str, audience: &str| {
            rig.post(
                claims(user, &["7"]),
                &format!("{{\"type\":\"a\",\"event_id\":\"x\",{audience}}}"),
            );
            match rig.action() {
                Action::HttpPublished { outcome, .. } => (outcome.accepted, outcome.duplicates),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(counts(&mut rig, "ada", "\"user_id\":\"ada\""), (1, 0));
        assert_eq!(
            counts(&mut rig, "ada", "\"user_id\":\"ada\",\"project_id\":7"),
            (1, 0)
        );
        assert_eq!(
            counts(&mut rig, "ada", "\"user_id\":\"ada\",\"project_id\":7"),
            (0, 1)
        );
        assert_eq!(
            counts(&mut rig, "bob", "\"project_id\":7"),
            (1, 0),
            "another publisher's id"
        );
        rig.turn();
        assert_eq!(
            seqs(&rig.read(viewer)),
            [1, 2],
            "of the project only bob's is not her own"
        );
        rig.check_balance();
    }

    #[test]
    fn while_mail_has_no_room_submissions_wait_in_order_and_room_wakes_the_core() {
        let bounds = Bounds {
            mail_bytes_pending_max: 500,
            ..Bounds::default()
        };
        let mut rig = Rig::with(3, bounds, |_| {});
        let project = rig.id_on(1, StreamKind::Project);
        let watcher = rig.id_on(2, StreamKind::User);
        let viewer = rig.viewer(&watcher, &[&project]);
        rig.settle();
        rig.read(viewer);
        let publisher = rig.publisher(0);
        for pad in [600, 1, 2] {
            rig.publish(publisher, &event(None, Some(&project), pad));
            rig.carry(0, 1);
            rig.turn();
        }
        assert!(rig.hubs[1].has_waiting_submissions());
        assert!(!rig.hubs[1].has_work(), "it can only wait");
        let local = rig.publisher(1);
        assert_eq!(
            rig.publish(local, &event(None, Some(&project), 3)),
            crate::hub::Work::Stalled
        );
        rig.carry(1, 2);
        assert!(rig.hubs[1].has_work(), "what waited may go on");
        rig.turn();
        assert_eq!(rig.work(local), crate::hub::Work::Idle);
        rig.settle();
        let pads = rig
            .read(viewer)
            .iter()
            .filter_map(|event| Some(event["data"]["pad"].as_str()?.len()))
            .collect::<Vec<_>>();
        assert_eq!(pads, [600, 1, 2, 3]);
        for client in [publisher, local] {
            rig.read(client);
        }
        rig.check_balance();
    }

    #[test]
    fn a_window_takes_anything_when_empty_and_then_only_what_fits() {
        let mut window = Outgoing::new(1_000);
        assert!(window.has_room(5_000));
        window.window_bytes = 600;
        assert!(window.has_room(400) && !window.has_room(401));
    }

    #[test]
    fn the_largest_outboxes_go_first_and_only_until_the_node_is_within_its_bytes() {
        let mut rig = Rig::with(1, Bounds::default(), |options| {
            options.limits.outbox_bytes_total = 9_000;
        });
        let viewers = [
            rig.viewer("ada", &[]),
            rig.viewer("bob", &[]),
            rig.viewer("cy", &[]),
        ];
        let publisher = rig.publisher(0);
        for (user, pad) in [("ada", 5_000), ("bob", 3_000), ("cy", 1_000)] {
            rig.publish(publisher, &event(Some(user), None, pad));
        }
        rig.turn();
        let closes = viewers.map(|viewer| rig.closing(viewer));
        assert_eq!(closes, [Some(4008), None, None]);
    }
}
