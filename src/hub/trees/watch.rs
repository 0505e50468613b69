//! One user's trees as its viewers see them: what is shown of each, and what every change of the
//! forest makes each viewer owed.

use std::collections::{BTreeSet, HashMap};

use compact_str::CompactString;

use crate::agents::{Changes, Forest, Node, NodeId, Shown};
use crate::event::Seq;
use crate::hub::Now;
use crate::hub::keyed::Key;
use crate::hub::peers::Peers;
use crate::hub::viewer::Viewer;
use crate::limits::TREE_INTERVAL_MS;

use super::Watching;

/// See the module.
#[derive(Debug)]
pub(super) struct Watch {
    pub viewers: Vec<Key>,
    /// By the session of its root, each tree that a viewer is shown or will be.
    pub shown: HashMap<CompactString, Shown>,
    /// All events up to there are in what is shown.
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
            shown: HashMap::new(),
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

    /// Takes in what was done to the forest, all of it up to `at_seq`, and notes what viewers are owed.
    pub fn follow(&mut self, now: Now, forest: &Forest, changes: &Changes, peers: &mut Peers) {
        self.has_changes = false;
        self.checked_ms = now.ms_up();
        if std::mem::take(&mut self.is_made_anew) {
            self.begin_anew(now, forest, peers);
        }
        for gone in &changes.gone {
            self.shown.remove(&gone.session);
            self.each_watching(peers, |_, watching| {
                watching.updates.note_removed(now.ms(), gone);
            });
        }
        let spawned = self.take_spawned(forest);
        let touched = changes.trees.iter().map(|tree| tree.root);
        let touched: Vec<(NodeId, CompactString)> = touched
            .filter_map(|root| Some((root, forest.node(root)?.session().into())))
            .collect();
        self.each_watching(peers, |sessions, watching| {
            let meant = Meant::new(sessions, forest);
            for (root, session) in &touched {
                let begins = !watching.begins_with_spawn || spawned.contains(root);
                if watching.updates.shows(session) || (begins && meant.has(*root)) {
                    watching.updates.note_changed(now.ms(), session);
                }
            }
        });
        // First: so that the first message of a tree, too, names the node that was touched.
        self.show_all_owed(forest, peers);
        for tree in &changes.trees {
            let session = forest.node(tree.root).map(Node::session);
            if let Some(shown) = session.and_then(|session| self.shown.get_mut(session)) {
                shown.apply(forest, tree, self.at_seq);
            }
        }
    }

    /// Notes that viewers that begin with the present trees are owed all of them.
    pub fn note_present(&mut self, now: Now, forest: &Forest, peers: &mut Peers) {
        self.each_watching(peers, |sessions, watching| {
            if watching.awaits_present {
                watching.note_present(now, sessions, forest);
            }
        });
        self.show_all_owed(forest, peers);
    }

    /// Forgets what is shown of trees that no viewer sees any more.
    pub fn forget_unseen(&mut self, peers: &Peers) {
        let Self { viewers, shown, .. } = self;
        let watching = viewers.iter().filter_map(|key| {
            let trees = peers.viewer(*key)?.trees.as_deref()?;
            trees.watching.as_ref()
        });
        let watching: Vec<&Watching> = watching.collect();
        shown.retain(|root, _| watching.iter().any(|it| it.updates.shows(root)));
    }

    // Nothing that was sent says how to go on: whatever is there is sent whole.
    fn begin_anew(&mut self, now: Now, forest: &Forest, peers: &mut Peers) {
        self.shown.clear();
        self.each_watching(peers, |sessions, watching| {
            let is_there = |root: &str| {
                let node = forest.find(root);
                node.is_some_and(|node| forest.parent(node).is_none())
            };
            watching.updates.note_all_new(now.ms(), is_there);
            if !watching.begins_with_spawn {
                watching.note_present(now, sessions, forest);
            }
        });
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

    // Whatever a viewer is owed is shown from now on: as it is now.
    fn show_all_owed(&mut self, forest: &Forest, peers: &mut Peers) {
        let Self {
            viewers,
            shown,
            at_seq,
            ..
        } = self;
        for key in viewers {
            let trees = peers
                .viewer(*key)
                .and_then(|viewer| viewer.trees.as_deref());
            let Some(watching) = trees.and_then(|trees| trees.watching.as_ref()) else {
                continue;
            };
            for root in watching.updates.owed() {
                if !shown.contains_key(root)
                    && let Some(tree) = forest
                        .find(root)
                        .and_then(|root| Shown::new(forest, root, *at_seq))
                {
                    shown.insert(root.clone(), tree);
                }
            }
        }
    }

    fn each_watching(
        &self,
        peers: &mut Peers,
        mut act: impl FnMut(&[CompactString], &mut Watching),
    ) {
        for key in &self.viewers {
            if let Some(Viewer {
                sessions, trees, ..
            }) = peers.viewer_mut(*key)
                && let Some(watching) = trees.as_mut().and_then(|trees| trees.watching.as_mut())
            {
                act(sessions, watching);
            }
        }
    }
}

impl Watching {
    // Whatever the viewer means of what is there is to be sent.
    fn note_present(&mut self, now: Now, sessions: &[CompactString], forest: &Forest) {
        let meant = Meant::new(sessions, forest);
        for root in forest.roots().filter(|root| meant.has(*root)) {
            if let Some(node) = forest.node(root) {
                self.updates.note_changed(now.ms(), &node.session().into());
            }
        }
    }
}

/// Which trees a viewer means: all, or those in which one of its query's sessions is.
pub(super) struct Meant(Option<BTreeSet<NodeId>>);

impl Meant {
    pub fn new(sessions: &[CompactString], forest: &Forest) -> Self {
        let root = |session: &CompactString| forest.root_of(forest.find(session)?);
        let roots = || sessions.iter().filter_map(root).collect();
        Self((!sessions.is_empty()).then(roots))
    }

    pub fn has(&self, root: NodeId) -> bool {
        self.0.as_ref().is_none_or(|roots| roots.contains(&root))
    }
}
