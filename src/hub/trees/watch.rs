//! One user's trees as its viewers see them: what is shown of each, and what every change of the
//! forest makes each viewer owed.

use std::collections::BTreeSet;

use compact_str::CompactString;

use crate::agents::{Changes, Forest, GoneRoot, Node, NodeId};
use crate::event::Seq;
use crate::hub::Now;
use crate::hub::keyed::Key;
use crate::hub::peers::Peers;
use crate::hub::viewer::Viewer;
use crate::limits::TREE_INTERVAL_MS;

use super::meant::Meant;
use super::showing::Showing;
use super::{Present, Watching};

/// See the module. Invariant: each tree of which a viewer is owed an update is shown or awaited.
#[derive(Debug)]
pub(super) struct Watch {
    pub viewers: Vec<Key>,
    /// Each tree that a viewer is shown or will be.
    pub showing: Showing,
    /// All events up to there are in what is shown, and none after it.
    pub at_seq: Seq,
    /// Whether the forest may have changed since.
    pub has_changes: bool,
    /// Whether it is another one than before.
    pub is_made_anew: bool,
    /// Whether the forest is held for those who watch.
    pub is_held: bool,
    /// Roots of trees in which agents were announced since.
    pub spawned: BTreeSet<CompactString>,
    /// When changes were last taken in, in milliseconds of the monotonic clock, rounded up.
    checked_ms: u64,
    /// Its place in the agenda.
    pub look_ms: Option<u64>,
}

impl Default for Watch {
    fn default() -> Self {
        Self {
            viewers: Vec::new(),
            showing: Showing::default(),
            at_seq: Seq(0),
            has_changes: true,
            is_made_anew: false,
            is_held: false,
            spawned: BTreeSet::new(),
            checked_ms: 0,
            look_ms: None,
        }
    }
}

impl Watch {
    /// When changes are next to be taken in, where there are any.
    pub fn next_check_ms(&self) -> u64 {
        self.checked_ms + TREE_INTERVAL_MS
    }

    /// The forest may be another one than before: then whatever is there is owed whole, for nothing
    /// that was sent says how to go on.
    pub fn begin_anew(&mut self, now: Now, forest: &Forest, peers: &mut Peers) {
        if !std::mem::take(&mut self.is_made_anew) {
            return;
        }
        let showing = &mut self.showing;
        showing.clear();
        each_watching(&self.viewers, peers, |sessions, watching| {
            watching.meant = Meant::new(sessions, forest);
            let meant = &watching.meant;
            let is_there = |root: &str| {
                let node = forest.find(root);
                node.is_some_and(|node| forest.parent(node).is_none() && meant.has(node))
            };
            watching.updates.note_all_new(now.ms(), is_there);
            for root in watching.updates.shown() {
                showing.expect(root);
            }
            if !watching.begins_with_spawn {
                watching.note_present(now, forest, showing);
            }
        });
    }

    /// Takes in what was done to the forest, all of it up to `at_seq`, and notes what viewers are owed.
    pub fn follow(&mut self, now: Now, forest: &Forest, changes: &Changes, peers: &mut Peers) {
        self.has_changes = false;
        self.checked_ms = now.ms_up();
        for gone in &changes.gone {
            self.showing.remove(&gone.session);
            each_watching(&self.viewers, peers, |_, watching| {
                watching.updates.note_removed(now.ms(), gone);
            });
        }
        let spawned = self.take_spawned(forest);
        let (showing, at_seq) = (&mut self.showing, self.at_seq);
        let mut is_left = false;
        each_watching(&self.viewers, peers, |sessions, watching| {
            if watching.present == Present::Awaited {
                return;
            }
            let before = std::mem::replace(&mut watching.meant, Meant::new(sessions, forest));
            for root in changes.trees.iter().map(|tree| tree.root) {
                let Some(session) = forest.node(root).map(Node::session) else {
                    continue;
                };
                let is_shown = watching.updates.shows(session);
                let begins = !watching.begins_with_spawn || spawned.contains(&root);
                if watching.meant.has(root) && (is_shown || begins) {
                    watching.updates.note_changed(now.ms(), &session.into());
                    // First: so that the first message of a tree, too, names the node that was touched.
                    showing.show_unless_awaited(forest, session, at_seq);
                } else if is_shown {
                    let gone = before.gone(forest, root, session);
                    watching.updates.note_removed(now.ms(), &gone);
                    is_left = true;
                }
            }
        });
        for tree in &changes.trees {
            self.showing.apply(forest, tree, at_seq);
        }
        if is_left {
            self.forget_unseen(peers);
        }
    }

    /// Brings viewers that begin with the present trees further, where all changes were taken in:
    /// notes what they are owed, and begins to show what is awaited until that were `bytes_max` bytes.
    /// Returns how many it were.
    pub fn show_present(
        &mut self,
        now: Now,
        forest: &Forest,
        bytes_max: usize,
        peers: &mut Peers,
    ) -> usize {
        let (showing, at_seq) = (&mut self.showing, self.at_seq);
        each_watching(&self.viewers, peers, |sessions, watching| {
            if watching.present == Present::Awaited {
                watching.present = Present::Owed;
                watching.meant = Meant::new(sessions, forest);
                watching.note_present(now, forest, showing);
            }
        });
        let mut bytes = 0;
        while bytes < bytes_max
            && let Some(root) = showing.poll_awaited()
        {
            bytes += showing.show(forest, &root, at_seq);
            debug_assert!(
                showing.find(&root).is_some(),
                "a root that goes is awaited no longer"
            );
        }
        if showing.is_complete() {
            each_watching(&self.viewers, peers, |_, watching| {
                if watching.present == Present::Owed {
                    watching.present = Present::Due;
                }
            });
        }
        bytes
    }

    /// Forgets what is shown of trees that no viewer sees any more.
    pub fn forget_unseen(&mut self, peers: &Peers) {
        let watching = self.viewers.iter().filter_map(|key| {
            let trees = peers.viewer(*key)?.trees.as_deref()?;
            trees.watching.as_ref()
        });
        let watching: Vec<&Watching> = watching.collect();
        self.showing
            .retain(|root| watching.iter().any(|it| it.updates.shows(root)));
    }

    // The present roots of trees in which agents were announced.
    fn take_spawned(&mut self, forest: &Forest) -> BTreeSet<NodeId> {
        let spawned = std::mem::take(&mut self.spawned);
        let roots = spawned.iter().filter_map(|session| {
            let node = forest.find(session)?;
            forest.root_of(node)
        });
        roots.collect()
    }
}

impl Watching {
    // Whatever the viewer means of what is there is to be sent.
    fn note_present(&mut self, now: Now, forest: &Forest, showing: &mut Showing) {
        for root in forest.roots().filter(|root| self.meant.has(*root)) {
            if let Some(node) = forest.node(root) {
                let session = node.session().into();
                self.updates.note_changed(now.ms(), &session);
                showing.expect(&session);
            }
        }
    }
}

impl Meant {
    // Of a tree that was meant: it is not any more, and where the session is for which it was.
    fn gone(&self, forest: &Forest, root: NodeId, session: &str) -> GoneRoot {
        let left = self.session_in(root).and_then(|left| forest.find(left));
        let above = left.and_then(|left| forest.node(forest.root_of(left)?));
        GoneRoot {
            session: session.into(),
            moved_to: above.map(|root| root.session().into()),
        }
    }
}

fn each_watching(
    viewers: &[Key],
    peers: &mut Peers,
    mut act: impl FnMut(&[CompactString], &mut Watching),
) {
    for key in viewers {
        if let Some(Viewer {
            sessions, trees, ..
        }) = peers.viewer_mut(*key)
            && let Some(watching) = trees.as_mut().and_then(|trees| trees.watching.as_mut())
        {
            act(sessions, watching);
        }
    }
}
