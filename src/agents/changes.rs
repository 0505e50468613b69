//! What became of a forest since somebody looked.

use std::collections::BTreeMap;
use std::mem;

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
    /// Whether something that is shown of itself has changed, or it is new. It may have changed back.
    pub is_changed: bool,
    /// Whether other nodes are its children, or in another order; not what is inside of them.
    pub is_reshaped: bool,
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
            let change = NodeChange {
                node: id,
                is_changed: mem::take(&mut seat.is_changed),
                is_reshaped: mem::take(&mut seat.is_reshaped),
            };
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
