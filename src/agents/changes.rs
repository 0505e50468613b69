//! What became of a forest since somebody looked.

use std::collections::BTreeMap;
use std::mem;
use std::ops::{BitOr, BitOrAssign};

use compact_str::CompactString;

use super::{Forest, NodeId};

/// What has changed in a forest since the last time that it was asked.
#[derive(Debug, Default)]
pub struct Changes {
    /// Roots of then that are roots no longer. A session among them may be that of a new tree.
    pub gone: Vec<GoneRoot>,
    /// Trees that some event touched, the one touched last at the end.
    pub trees: Vec<TreeChanges>,
}

/// A root that is none any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GoneRoot {
    /// Its session.
    pub session: CompactString,
    /// The root of the tree that it is in now; `None`: it was evicted.
    pub moved_to: Option<CompactString>,
}

/// What has changed in one tree.
#[derive(Debug)]
pub struct TreeChanges {
    /// Its root.
    pub root: NodeId,
    /// Whether it was no root when the forest was last asked.
    pub is_new: bool,
    /// The nodes that events touched, each once, the one touched last at the end; never empty. Also
    /// those of which nothing shown has changed.
    pub nodes: Vec<NodeChange>,
}

/// A node that was touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeChange {
    /// Which.
    pub node: NodeId,
    /// What of it has changed; all of it where the node is new. May name a field that changed back.
    pub fields: Fields,
}

/// A set of a node's fields, as they are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fields(u16);

impl Fields {
    /// `parent_session`
    pub const PARENT: Self = Self(1);
    /// `git_branch`
    pub const BRANCH: Self = Self(1 << 1);
    /// `status`
    pub const STATUS: Self = Self(1 << 2);
    /// `current_phase`
    pub const PHASE: Self = Self(1 << 3);
    /// `purpose`
    pub const PURPOSE: Self = Self(1 << 4);
    /// `progress`
    pub const PROGRESS: Self = Self(1 << 5);
    /// `metrics.start_time`
    pub const START_TIME: Self = Self(1 << 6);
    /// `metrics.tokens_used`
    pub const TOKENS_USED: Self = Self(1 << 7);
    /// `metrics.cost_so_far`
    pub const COST: Self = Self(1 << 8);
    /// `metrics.files_created`
    pub const FILES_CREATED: Self = Self(1 << 9);
    /// `metrics.files_modified`
    pub const FILES_MODIFIED: Self = Self(1 << 10);
    /// `metrics.git_commits` and `git_info.commits_count`
    pub const COMMITS: Self = Self(1 << 11);
    /// `git_info.branch`
    pub const GIT_BRANCH: Self = Self(1 << 12);
    /// `git_info.latest_commit`
    pub const LATEST_COMMIT: Self = Self(1 << 13);
    /// `git_info.files_changed`
    pub const FILES_CHANGED: Self = Self(1 << 14);
    /// Which nodes are in `children`, or in what order; not what is inside of them.
    pub const CHILDREN: Self = Self(1 << 15);
    /// Every field.
    pub const ALL: Self = Self(u16::MAX);

    /// Whether all of `other` is in it.
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// All of it where `is_so`, else nothing.
    pub(super) fn only_if(self, is_so: bool) -> Self {
        if is_so { self } else { Self::default() }
    }

    /// Whether nothing is in it.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl Forest {
    /// What has changed since the last call. What nobody takes costs no more than the nodes that
    /// there are and the trees that there were.
    pub fn take_changes(&mut self) -> Changes {
        let gone = mem::take(&mut self.gone).into_iter();
        let gone = gone.map(|(session, root)| GoneRoot {
            session,
            moved_to: self.moved_to(root),
        });
        Changes {
            gone: gone.collect(),
            trees: self.take_tree_changes(),
        }
    }

    /// The root above a former one; `None` where it is gone, or a root again.
    fn moved_to(&self, root: NodeId) -> Option<CompactString> {
        let above = self.root_of(root).filter(|above| *above != root)?;
        self.node(above).map(|node| node.session().into())
    }

    fn take_tree_changes(&mut self) -> Vec<TreeChanges> {
        let mut trees = BTreeMap::new();
        for id in mem::take(&mut self.touched) {
            let Some(seat) = self
                .seats
                .get_mut(id.index as usize)
                .filter(|seat| seat.id == id)
            else {
                continue;
            };
            let fields = mem::take(&mut seat.changed);
            let change = NodeChange { node: id, fields };
            let touched: &mut Vec<_> = trees.entry(seat.tree).or_default();
            touched.push((mem::take(&mut seat.touched), change));
        }
        let mut trees = Vec::from_iter(trees);
        for (_, nodes) in &mut trees {
            nodes.sort_unstable_by_key(|(touched, _)| *touched);
        }
        trees.sort_unstable_by_key(|(_, nodes)| nodes.last().map(|(touched, _)| *touched));
        let changes = trees.into_iter().map(|(tree, nodes)| {
            let tree = self.trees.get_mut(tree);
            TreeChanges {
                root: tree.root,
                is_new: mem::take(&mut tree.is_new),
                nodes: nodes.into_iter().map(|(_, change)| change).collect(),
            }
        });
        changes.collect()
    }
}

impl BitOr for Fields {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for Fields {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}
