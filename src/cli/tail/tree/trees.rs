//! The trees as the gateway last told them. Each update is a whole tree, a patch to the one before
//! it, or the word that the tree is gone (contract, section 8).

use std::collections::BTreeMap;

use json_patch::Patch;
use serde::Deserialize;
use serde_json::Value;

use super::super::super::client::{ClientError, printable};

/// By the session of the root.
#[derive(Default)]
pub(super) struct Trees(BTreeMap<String, Tree>);

/// One tree, as it was at some seq of the own stream.
pub(super) struct Tree {
    pub(super) root: Value,
    pub(super) stats: Stats,
    at_seq: u64,
}

/// `tree_stats`.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Stats {
    pub(super) total: u64,
    pub(super) active: u64,
    pub(super) by_status: BTreeMap<String, u64>,
    pub(super) max_depth: u64,
    pub(super) tokens_used: f64,
    pub(super) cost_so_far: f64,
    pub(super) git_commits: u64,
}

/// `data` of an `agent_tree_update`.
#[derive(Deserialize)]
pub(super) struct Update {
    tree_root: String,
    at_seq: u64,
    base_seq: Option<u64>,
    full_tree: Option<Value>,
    patch: Option<Patch>,
    #[serde(default)]
    removed: bool,
    #[serde(default)]
    tree_stats: Stats,
}

impl Trees {
    /// Takes in what changed. Errors: `Patch` where it is against a tree that is not the one here.
    pub(super) fn apply(&mut self, update: Update) -> Result<(), ClientError> {
        if update.removed {
            self.0.remove(&update.tree_root);
            return Ok(());
        }
        let root = match (update.full_tree, update.patch) {
            (Some(root), _) => Some(root),
            (None, Some(patch)) => self.patched(&update.tree_root, update.base_seq, &patch),
            (None, None) => None,
        };
        let Some(root) = root else {
            let tree = printable(&update.tree_root).into_owned();
            return Err(ClientError::Patch { tree });
        };
        let (stats, at_seq) = (update.tree_stats, update.at_seq);
        let tree = Tree {
            root,
            stats,
            at_seq,
        };
        self.0.insert(update.tree_root, tree);
        Ok(())
    }

    /// All, in the order of their roots' sessions.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Tree> {
        self.0.values()
    }

    /// Takes the tree out and changes it; `None` where it is another one than was changed.
    fn patched(&mut self, session: &str, base_seq: Option<u64>, patch: &Patch) -> Option<Value> {
        let mut tree = self.0.remove(session)?;
        let is_base = base_seq == Some(tree.at_seq);
        (is_base && json_patch::patch(&mut tree.root, patch).is_ok()).then_some(tree.root)
    }
}
