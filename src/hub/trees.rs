//! Agent trees on their way to viewers: who watches whose, and when each user's are looked at again.
//! A user's trees and viewers live on one core, its stream's.
//!
//! Trees are state and are not queued. What changed is noted (`watch`), and what each viewer is owed
//! (`updates`) of the trees that it means (`meant`); a message is made when its viewer may be sent one
//! and its outbox is low (`look`), once for all who take the same bytes (`frames`). Only what must show
//! one moment is made before it can be sent, and held: the present trees of a viewer that begins with
//! them, and what is ahead of the events that the viewer was sent, where those wait for the log.
//!
//! A turn makes a bounded part of all this. The present trees may take several: first all that a
//! viewer begins with is shown (`showing`), while changes are taken in as ever; then none are until its
//! messages are made of what is shown, which stays of one moment. Source: the contract, section 8.

mod answers;
mod frames;
mod look;
mod meant;
mod showing;
#[cfg(test)]
mod tests;
mod updates;
mod watch;

use std::collections::{BTreeSet, HashMap};

use compact_str::CompactString;

use crate::agents::Sent;
use crate::dialect::{MessageId, TreeMode};
use crate::event::{Dialect, Seq, StreamKind};
use crate::limits::{TREE_INTERVAL_MS, TREE_QUESTIONS_WAITING_MAX};

use super::keyed::Key;
use super::peers::HeldFrame;
use super::seldom::SeldomQueue;
use super::streams::StreamSlot;
use super::{Hub, Now};

use meant::Meant;
use updates::Updates;
use watch::Watch;

/// What one viewer has to do with agent trees.
#[derive(Debug, Default)]
pub(super) struct TreeView {
    /// Made for it, and not yet to be sent.
    pub held: SeldomQueue<HeldFrame>,
    /// The bytes of `held`.
    pub held_bytes: usize,
    // `None`: it only asks.
    watching: Option<Watching>,
    // What it has asked and was not answered, in order.
    questions: SeldomQueue<Question>,
}

/// A viewer that is told as trees change.
#[derive(Debug)]
struct Watching {
    updates: Updates<Sent>,
    // Changes go as patches to what was sent before.
    takes_patches: bool,
    // A tree is shown from the first spawn in it on that comes while the viewer watches.
    begins_with_spawn: bool,
    // The trees that it means, as it was when changes were last taken in.
    meant: Meant,
    present: Present,
}

/// How far a viewer is that begins with the present trees. They come before what it has missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Present {
    /// It is not known which there are.
    Awaited,
    /// Each is owed; some are not shown yet, or not of the same moment.
    Owed,
    /// What is shown stays as it is until messages are made of all that is owed.
    Due,
    /// There is nothing left to make, but some of it to be sent.
    Held,
    /// It has had them.
    Sent,
}

/// A `get_agent_tree`.
#[derive(Debug)]
struct Question {
    id: Option<MessageId>,
    session: Option<CompactString>,
}

/// The viewers of agent trees on one core.
#[derive(Debug, Default)]
pub(super) struct Trees {
    // By their user's stream.
    watches: HashMap<StreamSlot, Box<Watch>, ahash::RandomState>,
    // When each is looked at.
    agenda: BTreeSet<(u64, StreamSlot)>,
    // Those whose viewers have frames that wait until their stream is handed out up to a seq.
    ahead: Vec<(StreamSlot, Seq)>,
}

// Most viewers have one, whether there are trees or not.
const _: () = assert!(size_of::<TreeView>() <= 88);

impl TreeView {
    /// Of a viewer that asked for `mode`, or said nothing of trees; `None`: it is shown none.
    fn new(mode: Option<TreeMode>, dialect: Dialect) -> Option<Self> {
        let takes_patches = match (mode, dialect) {
            (Some(TreeMode::Full), _) | (None, Dialect::Keen) => false,
            (Some(TreeMode::Patch), _) => true,
            (Some(TreeMode::Off), _) | (None, Dialect::Observatory) => return None,
        };
        Some(Self {
            watching: Some(Watching {
                updates: Updates::default(),
                takes_patches,
                begins_with_spawn: mode.is_none(),
                meant: Meant::default(),
                present: match mode {
                    Some(_) => Present::Awaited,
                    None => Present::Sent,
                },
            }),
            ..Self::default()
        })
    }

    /// Whether what the viewer has missed has to wait: its trees come before.
    pub fn comes_first(&self) -> bool {
        self.awaits_present() || !self.held.is_empty()
    }

    fn awaits_present(&self) -> bool {
        self.present() != Present::Sent
    }

    // Whether it waits for what is shown to be complete and of one moment.
    fn awaits_moment(&self) -> bool {
        matches!(self.present(), Present::Awaited | Present::Owed)
    }

    // Whether what is shown has to stay as it is.
    fn needs_moment(&self) -> bool {
        self.present() == Present::Due
    }

    fn present(&self) -> Present {
        let watching = self.watching.as_ref();
        watching.map_or(Present::Sent, |watching| watching.present)
    }

    // Whether it waits for the user's forest as it is.
    fn needs_forest(&self) -> bool {
        self.awaits_moment() || !self.questions.is_empty()
    }

    fn is_over(&self) -> bool {
        self.watching.is_none() && self.questions.is_empty() && self.held.is_empty()
    }
}

impl Trees {
    /// When some user's trees are next to be looked at, in milliseconds of the monotonic clock.
    pub fn next_look_ms(&self) -> Option<u64> {
        self.agenda.first().map(|(look_ms, _)| *look_ms)
    }

    /// An agent was announced in the tree of this root.
    pub fn note_spawn(&mut self, slot: StreamSlot, root: CompactString) {
        if let Some(watch) = self.watches.get_mut(&slot) {
            watch.spawned.insert(root);
        }
    }

    // A user's trees are looked at by then.
    fn schedule(&mut self, slot: StreamSlot, at_ms: u64) {
        let Some(watch) = self.watches.get_mut(&slot) else {
            return;
        };
        if watch.look_ms.is_some_and(|look_ms| look_ms <= at_ms) {
            return;
        }
        if let Some(later_ms) = watch.look_ms.replace(at_ms) {
            self.agenda.remove(&(later_ms, slot));
        }
        self.agenda.insert((at_ms, slot));
    }

    // A user whose trees are to be looked at now; the watch is to be put back.
    fn poll_due(&mut self, now_ms: u64) -> Option<(StreamSlot, Box<Watch>)> {
        let (_, slot) = *self
            .agenda
            .first()
            .filter(|(look_ms, _)| *look_ms <= now_ms)?;
        self.agenda.pop_first();
        let mut watch = self.watches.remove(&slot)?;
        watch.look_ms = None;
        Some((slot, watch))
    }
}

impl Hub {
    /// A viewer begins: it is shown its user's trees, where it wants that.
    pub(super) fn watch_trees(&mut self, now: Now, key: Key) {
        let Some(viewer) = self.peers.viewer_mut(key) else {
            return;
        };
        if let Some(view) = TreeView::new(viewer.tree, viewer.dialect) {
            viewer.trees = Some(Box::new(view));
            self.join_watch(now, key);
        }
    }

    /// A viewer asks for its user's trees, or for what is below one agent.
    pub(super) fn ask_for_trees(
        &mut self,
        now: Now,
        key: Key,
        id: Option<MessageId>,
        session: Option<CompactString>,
    ) {
        let Some(viewer) = self.peers.viewer_mut(key) else {
            return;
        };
        let view = viewer.trees.get_or_insert_default();
        if view.questions.len() < TREE_QUESTIONS_WAITING_MAX {
            view.questions.push_back(Question { id, session });
            return self.join_watch(now, key);
        }
        let message = "too many questions for agent trees wait for the one before";
        let (id, code) = (id.as_ref(), "RATE_LIMIT_EXCEEDED");
        self.send_error(now, key, id, code, message.into(), Some(TREE_INTERVAL_MS));
    }

    fn join_watch(&mut self, now: Now, key: Key) {
        let Some(peer) = self.peers.find(key) else {
            return;
        };
        let sub = peer.details.claims.sub.clone();
        let slot = self.streams.find_or_insert(StreamKind::User, &sub);
        let watch = self.trees.watches.entry(slot).or_default();
        if !watch.viewers.contains(&key) {
            if watch.viewers.is_empty() {
                watch.viewers.reserve_exact(1);
            }
            watch.viewers.push(key);
            // The stream is not forgotten while somebody watches.
            if let Some(state) = self.streams.state_mut(slot) {
                state.live_mut().add_waiter(key);
            }
        }
        self.trees.schedule(slot, now.ms());
    }

    /// Whether something has happened for which a user's trees are to be looked at.
    pub(super) fn can_look_at_trees(&self) -> bool {
        let news = self.folds.arrived().iter().chain(self.folds.touched());
        let is_watched = |slot: &StreamSlot| self.trees.watches.contains_key(slot);
        let is_handed_out = |(slot, seq): &(StreamSlot, Seq)| {
            let state = self.streams.state(*slot);
            state.is_none_or(|state| state.fanned_out() >= *seq)
        };
        news.into_iter().any(is_watched) || self.trees.ahead.iter().any(is_handed_out)
    }

    /// The user's trees are looked at in this turn or the next: the viewer may be sent more.
    pub(super) fn look_for_viewer(&mut self, now: Now, key: Key) {
        if let Some(slot) = self.watched_by(key) {
            self.trees.schedule(slot, now.ms());
        }
    }

    /// A viewer is gone, or was answered all that it asked.
    pub(super) fn unwatch_trees(&mut self, key: Key) {
        let Some(slot) = self.watched_by(key) else {
            return;
        };
        self.peers.discard_held(key);
        if let Some(viewer) = self.peers.viewer_mut(key) {
            viewer.trees = None;
        }
        if let Some(watch) = self.trees.watches.get_mut(&slot) {
            watch.viewers.retain(|viewer| *viewer != key);
            match watch.viewers.is_empty() {
                true => self.end_watch(slot),
                false => watch.forget_unseen(&self.peers),
            }
        }
        self.drop_waiter(slot, key);
        self.release_stream(slot);
    }

    fn end_watch(&mut self, slot: StreamSlot) {
        let Some(watch) = self.trees.watches.remove(&slot) else {
            return;
        };
        if let Some(look_ms) = watch.look_ms {
            self.trees.agenda.remove(&(look_ms, slot));
        }
        if watch.is_held {
            self.release_fold(slot);
        }
    }

    /// Whether a viewer is to be sent trees before anything of its streams that it has missed.
    pub(super) fn awaits_trees(&self, key: Key) -> bool {
        self.tree_view(key).is_some_and(TreeView::comes_first)
    }

    /// Whether a viewer begins with trees that come before what is live on this stream, its user's.
    pub(super) fn begins_with_trees(&self, key: Key, slot: StreamSlot) -> bool {
        let begins = self.tree_view(key).is_some_and(TreeView::awaits_present);
        begins && self.watched_by(key) == Some(slot)
    }

    fn tree_view(&self, key: Key) -> Option<&TreeView> {
        self.peers.viewer(key)?.trees.as_deref()
    }

    // The user's stream, where the viewer has to do with trees.
    fn watched_by(&self, key: Key) -> Option<StreamSlot> {
        let peer = self.peers.find(key)?;
        peer.viewer()?.trees.as_ref()?;
        let sub = &peer.details.claims.sub;
        self.streams.find(StreamKind::User, sub)
    }
}
