//! Which of its user's trees a viewer means: `sessions` in its query narrows them.

use std::collections::BTreeMap;

use compact_str::CompactString;

use crate::agents::{Forest, NodeId};

/// All trees, as most viewers do, or some.
#[derive(Debug, Default)]
pub(super) struct Meant(Option<Box<Places>>);

/// Trees in which one of the viewer's sessions is: by root, the first of them in it.
#[derive(Debug)]
struct Places(BTreeMap<NodeId, CompactString>);

impl Meant {
    /// `sessions`: those of the query; none means all trees.
    pub fn new(sessions: &[CompactString], forest: &Forest) -> Self {
        let place = |session: &CompactString| {
            let root = forest.root_of(forest.find(session)?)?;
            Some((root, session.clone()))
        };
        // Of two sessions in one tree the later one taken in stays.
        let places = || Box::new(Places(sessions.iter().rev().filter_map(place).collect()));
        Self((!sessions.is_empty()).then(places))
    }

    /// Whether the tree of this root is meant.
    pub fn has(&self, root: NodeId) -> bool {
        self.0
            .as_ref()
            .is_none_or(|places| places.0.contains_key(&root))
    }

    /// For what the tree of this root is meant; `None` also where all trees are.
    pub fn session_in(&self, root: NodeId) -> Option<&str> {
        self.0.as_ref()?.0.get(&root).map(CompactString::as_str)
    }
}
