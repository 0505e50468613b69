//! A look at one user's trees: changes are taken in, and each viewer is sent what it may be sent.

use std::rc::Rc;

use compact_str::CompactString;

use crate::agents::{Content, Forest, GoneRoot, Sent, StreamState, encode_removed};
use crate::dialect::ServerMessage;
use crate::event::Seq;
use crate::hub::keyed::Key;
use crate::hub::peers::Release;
use crate::hub::streams::StreamSlot;
use crate::hub::{Hub, Now};
use crate::limits::TREE_BYTES_PER_TURN;

use super::frames::Frames;
use super::updates::Due;
use super::watch::Watch;
use super::{Present, TreeView, Watching};

/// One look.
pub(super) struct Look {
    pub now: Now,
    pub slot: StreamSlot,
    /// The user's stream is handed out up to here.
    pub head: Seq,
    pub frames: Frames,
    // When the next one is due.
    next_ms: Option<u64>,
}

/// What came of making one message of those that are due.
enum Made {
    Frame,
    /// It is made at a later look.
    Later,
    /// None is due.
    Nothing,
}

impl Look {
    /// Another one is due by then.
    pub fn again(&mut self, at_ms: u64) {
        self.next_ms = self.next_ms.into_iter().chain([at_ms]).min();
    }
}

impl Hub {
    /// Looks at the trees of users where that is due.
    pub(in crate::hub) fn send_trees(&mut self, now: Now) {
        self.note_forests(now);
        for (slot, _) in std::mem::take(&mut self.trees.ahead) {
            self.trees.schedule(slot, now.ms());
        }
        let mut bytes_left = TREE_BYTES_PER_TURN;
        while bytes_left > 0
            && let Some((slot, watch)) = self.trees.poll_due(now.ms())
        {
            let made = self.look_at_trees(now, slot, watch, bytes_left);
            bytes_left = bytes_left.saturating_sub(made);
        }
    }

    // What events and the log have done to forests since. None of these is let go of before it was
    // looked at.
    fn note_forests(&mut self, now: Now) {
        let arrived = self.folds.arrived().iter().map(|slot| (*slot, true));
        let touched = self.folds.touched().iter().map(|slot| (*slot, false));
        let news: Vec<(StreamSlot, bool)> = arrived.chain(touched).collect();
        for (slot, is_made_anew) in news {
            let Some(watch) = self.trees.watches.get_mut(&slot) else {
                continue;
            };
            watch.has_changes = true;
            watch.is_made_anew |= is_made_anew;
            let look_ms = watch.next_check_ms().max(now.ms());
            if !std::mem::replace(&mut watch.is_held, true) {
                self.hold_fold(slot);
            }
            self.trees.schedule(slot, look_ms);
        }
    }

    // Returns how many bytes of trees and of frames it made.
    fn look_at_trees(
        &mut self,
        now: Now,
        slot: StreamSlot,
        mut watch: Box<Watch>,
        bytes_max: usize,
    ) -> usize {
        let shown = self.check_forest(now, slot, &mut watch, bytes_max);
        let state = self.streams.state(slot);
        let mut look = Look {
            now,
            slot,
            head: state.map_or(Seq(0), |state| state.fanned_out()),
            frames: Frames::new(now, bytes_max.saturating_sub(shown)),
            next_ms: None,
        };
        let is_live = self.folds.live(slot).is_some();
        if is_live && watch.has_changes {
            look.again(watch.next_check_ms());
        }
        if is_live && !watch.showing.is_complete() {
            look.again(now.ms());
        }
        let forest = self.folds.live(slot).and_then(StreamState::forest);
        if let Some(ends_ms) = forest.and_then(Forest::next_eviction_ms) {
            let left_ms = ends_ms.saturating_sub(now.wall_ms).max(1);
            look.again(now.ms().saturating_add(left_ms.unsigned_abs()));
        }
        for key in &watch.viewers {
            self.serve_trees(*key, &watch, &mut look);
        }
        let viewers = watch.viewers.clone();
        self.trees.watches.insert(slot, watch);
        if let Some(next_ms) = look.next_ms {
            self.trees.schedule(slot, next_ms);
        }
        for key in viewers {
            if self.tree_view(key).is_some_and(TreeView::is_over) {
                self.unwatch_trees(key);
            }
        }
        let counters = &self.stats.counters;
        counters.agent_tree_messages_made.add(look.frames.made());
        shown + look.frames.bytes()
    }

    // Takes in what has changed in the user's forest, where it is time or somebody waits for it. Returns
    // how many bytes of trees were made for that.
    fn check_forest(
        &mut self,
        now: Now,
        slot: StreamSlot,
        watch: &mut Watch,
        bytes_max: usize,
    ) -> usize {
        let is_needed = self.has_view(watch, TreeView::needs_forest);
        self.hold_forest(slot, watch, is_needed);
        if self.has_view(watch, TreeView::needs_moment) {
            return 0;
        }
        let awaits_moment = self.has_view(watch, TreeView::awaits_moment);
        let Some(state) = self.folds.live_mut(slot) else {
            return 0;
        };
        let at_seq = state.at();
        let Some(forest) = state.forest_mut() else {
            return 0;
        };
        // The next event would do so first, whenever it comes.
        let evicted = forest.evict(now.wall_ms);
        watch.has_changes |= evicted > 0;
        let counters = &self.stats.counters;
        counters.agent_trees_evicted.add(evicted.into());
        watch.begin_anew(now, forest, &mut self.peers);
        let is_awaited = awaits_moment || !watch.showing.is_complete();
        let mut made = 0;
        if !watch.has_changes || is_awaited || now.ms() >= watch.next_check_ms() {
            watch.at_seq = at_seq;
            if watch.has_changes {
                let changes = forest.take_changes();
                watch.follow(now, forest, &changes, &mut self.peers);
            }
            made = watch.show_present(now, forest, bytes_max, &mut self.peers);
        }
        self.hold_forest(slot, watch, is_needed);
        made
    }

    fn has_view(&self, watch: &Watch, is_it: impl Fn(&TreeView) -> bool) -> bool {
        let mut views = watch.viewers.iter().filter_map(|key| self.tree_view(*key));
        views.any(is_it)
    }

    // A forest of which something is shown, or waited for, is not let go of.
    fn hold_forest(&mut self, slot: StreamSlot, watch: &mut Watch, is_needed: bool) {
        let is_unread = watch.has_changes && self.folds.live(slot).is_some();
        let is_held = is_needed || is_unread || !watch.showing.is_empty();
        match (watch.is_held, is_held) {
            (false, true) => {
                self.hold_fold(slot);
            }
            (true, false) => self.release_fold(slot),
            _ => {}
        }
        watch.is_held = is_held;
    }

    // Sends one viewer what it may be sent.
    fn serve_trees(&mut self, key: Key, watch: &Watch, look: &mut Look) {
        let comes_first = self.awaits_trees(key);
        // Whether or not the viewer takes them: what is shown stays as it is for as long as this takes.
        let is_begun = self.make_present(key, watch, look);
        if self.release_trees(key, look) && is_begun {
            self.end_present(key);
            if self.answer_for_trees(key, look) {
                self.send_changes(key, watch, look);
            }
        }
        if comes_first && !self.awaits_trees(key) {
            self.wake(key);
        }
    }

    /// Sends what is held for a viewer. `false`: some of it has to wait.
    pub(super) fn release_trees(&mut self, key: Key, look: &Look) -> bool {
        let foreign_bytes = self.foreign_outbox_bytes;
        let release = self.peers.release_held(key, look.head, foreign_bytes);
        if let Release::AwaitsLog(seq) = release {
            self.trees.ahead.push((look.slot, seq));
        }
        release == Release::Done
    }

    // Makes the present trees for a viewer that begins with them. `false`: some have to wait.
    fn make_present(&mut self, key: Key, watch: &Watch, look: &mut Look) -> bool {
        let present = self.tree_view(key).map(TreeView::present);
        match present {
            None | Some(Present::Held | Present::Sent) => return true,
            Some(Present::Awaited | Present::Owed) => {
                if self.folds.live(look.slot).is_some() {
                    look.again(look.now.ms());
                }
                return false;
            }
            Some(Present::Due) => {}
        }
        loop {
            match self.make_due_tree(key, watch, look) {
                Made::Frame => {}
                Made::Later => return false,
                Made::Nothing => break,
            }
        }
        if let Some(watching) = self.watching_mut(key) {
            watching.present = Present::Held;
        }
        true
    }

    // Nothing is held for a viewer: where it began with the present trees, it has had them.
    fn end_present(&mut self, key: Key) {
        let watching = self.watching_mut(key);
        if let Some(watching) = watching.filter(|it| it.present == Present::Held) {
            watching.present = Present::Sent;
        }
    }

    // Sends what has changed.
    fn send_changes(&mut self, key: Key, watch: &Watch, look: &mut Look) {
        while let Some(due_ms) = self.watching(key).and_then(|it| it.updates.next_due_ms()) {
            if due_ms > look.now.ms() {
                return look.again(due_ms);
            }
            // It comes once the viewer has arrived at the events before it.
            let is_behind = self.catch_up_mut(key, look.slot).is_some();
            if is_behind || !self.has_room_for_tree(key) {
                return;
            }
            let made = self.make_due_tree(key, watch, look);
            if !matches!(made, Made::Frame) || !self.release_trees(key, look) {
                return;
            }
        }
    }

    /// Whether one more message may be made for a viewer. Else it will be looked at again.
    pub(super) fn has_room_for_tree(&mut self, key: Key) -> bool {
        let has_room = self.peers.takes_state(key, 0, self.foreign_outbox_bytes);
        if !has_room {
            self.peers.await_room(key);
        }
        has_room
    }

    fn make_due_tree(&mut self, key: Key, watch: &Watch, look: &mut Look) -> Made {
        let now_ms = look.now.ms();
        let due = self.watching(key).and_then(|it| it.updates.due(now_ms));
        let Some(due) = due else {
            return Made::Nothing;
        };
        let frame = match due {
            Due::Removal(gone) => self.make_removal(key, &gone, watch, look),
            Due::Update { root, base } => self.make_update(key, (&root, base), watch, look),
        };
        let Some(frame) = frame else {
            return Made::Later;
        };
        self.peers.hold(key, frame, watch.at_seq);
        Made::Frame
    }

    fn make_removal(
        &mut self,
        key: Key,
        gone: &GoneRoot,
        watch: &Watch,
        look: &mut Look,
    ) -> Option<Rc<[u8]>> {
        let variant = self.peers.viewer(key)?.variant;
        let watching = self.watching_mut(key)?;
        watching.updates.handle_removal_sent(&gone.session);
        let mut data = Vec::new();
        encode_removed(gone, watch.at_seq, &mut data);
        let message = ServerMessage::AgentTreeUpdate { data: &data };
        let encoder = &mut self.peers.encoder;
        Some(look.frames.frame(variant, &message, encoder))
    }

    // `None`: the tree is not shown yet, or the look has made enough.
    fn make_update(
        &mut self,
        key: Key,
        (root, base): (&CompactString, Option<Sent>),
        watch: &Watch,
        look: &mut Look,
    ) -> Option<Rc<[u8]>> {
        let shown = watch.showing.find(root)?;
        let variant = self.peers.viewer(key)?.variant;
        let content = match base {
            Some(base) if self.watching(key)?.takes_patches => Content::Patch { base },
            _ => Content::FullTree {
                since: base.map(|base| base.version),
            },
        };
        let encoder = &mut self.peers.encoder;
        let update = (content, watch.at_seq);
        let frame = look.frames.update(shown, variant, update, encoder);
        if frame.is_none() {
            look.again(look.now.ms());
        }
        let sent = Sent {
            version: shown.version(),
            at_seq: watch.at_seq,
        };
        let frame = frame?;
        let watching = self.watching_mut(key)?;
        watching.updates.handle_sent(look.now.ms_up(), root, sent);
        Some(frame)
    }

    fn watching(&self, key: Key) -> Option<&Watching> {
        self.tree_view(key)?.watching.as_ref()
    }

    fn watching_mut(&mut self, key: Key) -> Option<&mut Watching> {
        let trees = self.peers.viewer_mut(key)?.trees.as_deref_mut()?;
        trees.watching.as_mut()
    }
}
