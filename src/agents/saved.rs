//! A forest as it is kept: what cannot be worked out from the rest.

use std::borrow::Cow;
use std::iter;

use serde::{Deserialize, Serialize};

use super::claims::Claim;
use super::node::Node;
use super::{Bounds, Forest, NodeId, Stamp};
use crate::limits::AGENT_CLAIMS_MAX;

/// A forest, for a snapshot. One that was read may be anything: what holds together makes a forest.
#[derive(Debug, Serialize, Deserialize)]
pub struct SavedForest<'f> {
    received_ms: i64,
    // When the last event of each tree arrived, the one silent longest first.
    trees: Vec<i64>,
    // Those of the first tree, then those of the next; parents before their children.
    nodes: Vec<SavedNode<'f>>,
}

#[derive(Debug, Serialize, Deserialize)]
struct SavedNode<'f> {
    node: Cow<'f, Node>,
    // The latest first; so many of them are refused.
    claims: Vec<SavedClaim<'f>>,
    refused: usize,
}

#[derive(Debug, Serialize, Deserialize)]
struct SavedClaim<'f> {
    stamp: Cow<'f, Stamp>,
    // Place of the parent among the saved nodes.
    parent: usize,
}

impl Forest {
    /// All that `restore` needs. Looks at every node; copies no text.
    pub fn save(&self) -> SavedForest<'_> {
        let nodes = self.parents_first();
        let mut places = vec![0; self.seats.capacity()];
        for (place, id) in nodes.iter().enumerate() {
            places[id.index as usize] = place;
        }
        let trees = self.trees.by_silence();
        SavedForest {
            received_ms: self.received_ms,
            trees: trees.map(|tree| self.trees.get(tree).last_ms).collect(),
            nodes: nodes
                .iter()
                .map(|id| self.save_node(*id, &places))
                .collect(),
        }
    }

    /// The forest that was saved; nothing in it counts as changed. What does not hold together is
    /// left out, what is past `bounds` goes with the events that come. The rest as in `new`.
    pub fn restore(saved: SavedForest<'_>, bounds: Bounds, first_phase: &str, seed: u64) -> Self {
        let mut forest = Self::new(bounds, first_phase, seed);
        forest.received_ms = saved.received_ms;
        let mut claims = Vec::with_capacity(saved.nodes.len());
        let ids = saved.nodes.into_iter().map(|saved| {
            claims.push((saved.claims, saved.refused));
            let is_new = forest.find(saved.node.session()).is_none();
            (is_new && saved.node.is_sound()).then(|| forest.insert(saved.node.into_owned()))
        });
        let ids = Vec::from_iter(ids);
        for (place, (claims, refused)) in claims.into_iter().enumerate() {
            forest.restore_claims(&ids, place, claims, refused);
        }
        let last_ms = saved
            .trees
            .into_iter()
            .chain(iter::repeat(saved.received_ms));
        let trees = Vec::from_iter(forest.trees.by_silence());
        for (tree, last_ms) in trees.into_iter().zip(last_ms) {
            forest.trees.note(tree, last_ms);
            // Whoever shows it begins with all of it, so that its end is to be told.
            forest.trees.get_mut(tree).is_new = false;
        }
        drop(forest.take_changes());
        forest
    }

    /// All nodes, in the order in which they are saved.
    fn parents_first(&self) -> Vec<NodeId> {
        let mut nodes = Vec::with_capacity(self.len());
        for root in self.roots() {
            let mut left = vec![root];
            while let Some(id) = left.pop() {
                nodes.push(id);
                left.extend(self.children(id).iter().rev());
            }
        }
        nodes
    }

    fn save_node(&self, id: NodeId, places: &[usize]) -> SavedNode<'_> {
        let (claims, refused) = self.claims.of(id.index);
        let claims = claims.iter().map(|claim| SavedClaim {
            stamp: Cow::Borrowed(&claim.stamp),
            parent: places[claim.parent as usize],
        });
        SavedNode {
            node: Cow::Borrowed(&self.seats[id.index as usize].node),
            claims: claims.collect(),
            refused,
        }
    }

    /// Brings back the claims on the node at `place`, and puts it under the parent by the one that
    /// counts. That one was saved before it: so there is no cycle.
    fn restore_claims(
        &mut self,
        ids: &[Option<NodeId>],
        place: usize,
        claims: Vec<SavedClaim<'_>>,
        refused: usize,
    ) {
        let Some(child) = ids[place] else {
            return;
        };
        let counting = claims.get(refused).map(|claim| claim.parent);
        let is_sorted = claims.is_sorted_by(|a, b| a.stamp > b.stamp);
        let is_sound = is_sorted && claims.len() <= AGENT_CLAIMS_MAX && refused <= claims.len();
        if !is_sound || counting.is_some_and(|parent| parent >= place) {
            return;
        }
        let claims: Option<Vec<Claim>> = claims
            .into_iter()
            .map(|claim| {
                let parent = ids.get(claim.parent).copied().flatten()?;
                (parent != child).then(|| Claim {
                    stamp: claim.stamp.into_owned(),
                    parent: parent.index,
                })
            })
            .collect();
        if let Some(claims) = claims {
            self.claims.restore(child.index, claims, refused);
            self.relink(vec![child.index]);
        }
    }
}
