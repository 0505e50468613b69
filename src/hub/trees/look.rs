//! A look at one user's trees: changes are taken in, and each viewer is sent what it may be sent.

use std::cmp::Reverse;

use compact_str::CompactString;

use crate::agents::{Content, Forest, NodeId, Sent, StreamState, encode_removed, encode_trees};
use crate::dialect::ServerMessage;
use crate::event::Seq;
use crate::hub::keyed::Key;
use crate::hub::peers::Release;
use crate::hub::streams::StreamSlot;
use crate::hub::{Hub, Now};
use crate::limits::TREE_BYTES_PER_TURN;

use super::frames::Frames;
use super::updates::Due;
use super::watch::{Meant, Watch};
use super::{Question, TreeView, Watching};

/// One look.
struct Look {
    now: Now,
    slot: StreamSlot,
    // The user's stream is handed out up to here.
    head: Seq,
    frames: Frames,
    // When the next one is due.
    next_ms: Option<u64>,
}

impl Look {
    fn again(&mut self, at_ms: u64) {
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

    // Returns how many bytes of frames it made.
    fn look_at_trees(
        &mut self,
        now: Now,
        slot: StreamSlot,
        mut watch: Watch,
        bytes_max: usize,
    ) -> usize {
        self.check_forest(now, slot, &mut watch);
        let state = self.streams.state(slot);
        let mut look = Look {
            now,
            slot,
            head: state.map_or(Seq(0), |state| state.fanned_out()),
            frames: Frames::new(now, bytes_max),
            next_ms: None,
        };
        if watch.has_changes && self.folds.live(slot).is_some() {
            look.again(watch.next_check_ms());
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
        look.frames.bytes()
    }

    // Takes in what has changed in the user's forest, where it is time or somebody waits for it.
    fn check_forest(&mut self, now: Now, slot: StreamSlot, watch: &mut Watch) {
        let mut views = watch.viewers.iter().filter_map(|key| self.tree_view(*key));
        let is_needed = views.any(TreeView::needs_forest);
        self.hold_forest(slot, watch, is_needed);
        let Some(state) = self.folds.live_mut(slot) else {
            return;
        };
        let at_seq = state.at();
        let Some(forest) = state.forest_mut() else {
            return;
        };
        // The next event would do so first, whenever it comes.
        let evicted = forest.evict(now.wall_ms);
        watch.has_changes |= evicted > 0;
        let counters = &self.stats.counters;
        counters.agent_trees_evicted.add(evicted.into());
        if !watch.has_changes {
            watch.at_seq = at_seq;
        } else if is_needed || now.ms() >= watch.next_check_ms() {
            watch.at_seq = at_seq;
            let changes = forest.take_changes();
            watch.follow(now, forest, &changes, &mut self.peers);
        }
        if is_needed {
            watch.note_present(now, forest, &mut self.peers);
        }
        self.hold_forest(slot, watch, is_needed);
    }

    // A forest of which something is shown, or waited for, is not let go of.
    fn hold_forest(&mut self, slot: StreamSlot, watch: &mut Watch, is_needed: bool) {
        let is_unread = watch.has_changes && self.folds.live(slot).is_some();
        let is_held = is_needed || is_unread || !watch.shown.is_empty();
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
        if self.release_trees(key, look)
            && self.present_trees(key, watch, look)
            && self.answer_for_trees(key, look)
        {
            self.send_changes(key, watch, look);
        }
        if comes_first && !self.awaits_trees(key) {
            self.wake(key);
        }
    }

    // Sends what is held for a viewer. `false`: some of it has to wait.
    fn release_trees(&mut self, key: Key, look: &Look) -> bool {
        let foreign_bytes = self.foreign_outbox_bytes;
        let release = self.peers.release_held(key, look.head, foreign_bytes);
        if let Release::AwaitsLog(seq) = release {
            self.trees.ahead.push((look.slot, seq));
        }
        release == Release::Done
    }

    // Makes all present trees for a viewer that begins with them. `false`: some have to wait.
    fn present_trees(&mut self, key: Key, watch: &Watch, look: &mut Look) -> bool {
        let is_live = self.folds.live(look.slot).is_some();
        match self.watching_mut(key) {
            Some(watching) if watching.awaits_present && is_live => watching.awaits_present = false,
            watching => return watching.is_none_or(|watching| !watching.awaits_present),
        }
        while self.make_due_tree(key, watch, look) {}
        self.release_trees(key, look)
    }

    // Answers what a viewer has asked. `false`: something has to wait.
    fn answer_for_trees(&mut self, key: Key, look: &mut Look) -> bool {
        let has_questions = |view: &TreeView| !view.questions.is_empty();
        while self.tree_view(key).is_some_and(has_questions) {
            if self.folds.live(look.slot).is_none() || !self.may_make_tree(key, look) {
                return false;
            }
            self.make_tree_answer(key, look);
            if !self.release_trees(key, look) {
                return false;
            }
        }
        true
    }

    // Sends what has changed.
    fn send_changes(&mut self, key: Key, watch: &Watch, look: &mut Look) {
        while let Some(due_ms) = self.watching(key).and_then(|it| it.updates.next_due_ms()) {
            if due_ms > look.now.ms() {
                return look.again(due_ms);
            }
            // It comes once the viewer has arrived at the events before it.
            if self.catch_up_mut(key, look.slot).is_some() || !self.may_make_tree(key, look) {
                return;
            }
            self.make_due_tree(key, watch, look);
            if !self.release_trees(key, look) {
                return;
            }
        }
    }

    // Whether one more message may be made for a viewer. Else it will be looked at again.
    fn may_make_tree(&mut self, key: Key, look: &mut Look) -> bool {
        if look.frames.are_enough() {
            look.again(look.now.ms());
            return false;
        }
        let has_room = self.peers.takes_state(key, 0, self.foreign_outbox_bytes);
        if !has_room {
            self.peers.await_room(key);
        }
        has_room
    }

    // Makes one message of those that are due. `false`: none is.
    fn make_due_tree(&mut self, key: Key, watch: &Watch, look: &mut Look) -> bool {
        let (now_ms, at_seq) = (look.now.ms(), watch.at_seq);
        let variant = self.peers.viewer(key).map(|viewer| viewer.variant);
        let (Some(variant), Some(watching)) = (variant, self.watching_mut(key)) else {
            return false;
        };
        let takes_patches = watching.takes_patches;
        let frame = match watching.updates.due(now_ms) {
            None => return false,
            Some(Due::Removal(gone)) => {
                watching.updates.handle_removal_sent(&gone.session);
                let mut data = Vec::new();
                encode_removed(&gone, at_seq, &mut data);
                let message = ServerMessage::AgentTreeUpdate { data: &data };
                look.frames
                    .frame(variant, &message, &mut self.peers.encoder)
            }
            Some(Due::Update { root, base }) => {
                let Some(shown) = watch.shown.get(&root) else {
                    // What is owed is shown; there is nothing to say of anything else.
                    watching.updates.handle_removal_sent(&root);
                    return true;
                };
                let version = shown.version();
                let sent = Sent { version, at_seq };
                watching.updates.handle_sent(look.now.ms_up(), &root, sent);
                let content = match base {
                    Some(base) if takes_patches => Content::Patch { base },
                    _ => Content::FullTree {
                        since: base.map(|base| base.version),
                    },
                };
                let encoder = &mut self.peers.encoder;
                look.frames
                    .update(shown, variant, (content, at_seq), encoder)
            }
        };
        self.peers.hold(key, frame, at_seq);
        true
    }

    fn make_tree_answer(&mut self, key: Key, look: &mut Look) {
        let Some(viewer) = self.peers.viewer_mut(key) else {
            return;
        };
        let (variant, dialect) = (viewer.variant, viewer.dialect);
        let question = viewer
            .trees
            .as_mut()
            .and_then(|view| view.questions.pop_front());
        let Some(Question { id, session }) = question else {
            return;
        };
        let Some((at_seq, forest)) = self
            .folds
            .live(look.slot)
            .and_then(|state| Some((state.at(), state.forest()?)))
        else {
            return;
        };
        let tops = match &session {
            Some(session) => forest.find(session).into_iter().collect(),
            None => roots_for(&viewer.sessions, forest),
        };
        let mut trees = Vec::new();
        let trees_omitted = encode_trees(forest, &tops, dialect, &mut trees);
        let message = ServerMessage::AgentTree {
            id: id.as_ref(),
            trees: &trees,
            trees_omitted,
            at_seq,
        };
        let frame = look
            .frames
            .frame(variant, &message, &mut self.peers.encoder);
        self.peers.hold(key, frame, at_seq);
    }

    fn watching(&self, key: Key) -> Option<&Watching> {
        self.tree_view(key)?.watching.as_ref()
    }

    fn watching_mut(&mut self, key: Key) -> Option<&mut Watching> {
        let trees = self.peers.viewer_mut(key)?.trees.as_deref_mut()?;
        trees.watching.as_mut()
    }
}

/// The roots of the trees that a viewer means, those that began last first.
fn roots_for(sessions: &[CompactString], forest: &Forest) -> Vec<NodeId> {
    let meant = Meant::new(sessions, forest);
    let roots = forest.roots().filter(|root| meant.has(*root));
    let mut roots: Vec<NodeId> = roots.collect();
    roots.sort_by_cached_key(|root| {
        let node = forest.node(*root);
        node.map(|node| {
            (
                Reverse(node.start_ms()),
                CompactString::from(node.session()),
            )
        })
    });
    roots
}
