//! Who is whose parent, by what spawns claim.
//!
//! The latest claim on a child counts, unless it was refused: of the claims that close a cycle the
//! latest is refused, and the next one of the same child is looked at, until there is no cycle. At any
//! moment each child has one claim that counts, so cycles never meet, and refusing in one leaves the
//! others as they are: whatever is refused first, the same claims are refused in the end. So the
//! parents depend on the claims alone, not on the order in which they came.
//!
//! Nodes are numbers here, as the forest numbers them. Refused claims of a child are the latest ones,
//! without a gap: an earlier one is looked at only after all later ones were refused.

use std::collections::BTreeSet;

use super::Stamp;
use crate::limits::{AGENT_CLAIMS_MAX, AGENT_CLAIMS_REFUSED_MAX};

/// A spawn's word that `parent` began a child.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) stamp: Stamp,
    pub(super) parent: u32,
}

/// The claims on one child.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Row {
    // The latest first, at most `AGENT_CLAIMS_MAX`.
    claims: Vec<Claim>,
    // How many of them, from the first, are refused.
    refused: usize,
}

/// What a claim led to.
#[derive(Debug, Default)]
pub(super) struct Settled {
    /// Children that may have another parent, or another claim for the same. Some may be named twice.
    pub(super) children: Vec<u32>,
    /// How many more claims are refused than before.
    pub(super) refused: usize,
}

/// The claims on all nodes.
#[derive(Debug, Default)]
pub(super) struct Claims {
    rows: Vec<Row>,
    // The parent by the claim that counts, else `NOBODY`. Beside the rows, so that a walk upwards
    // reads little memory.
    above: Vec<u32>,
    // How many children have it as their parent.
    below: Vec<u32>,
    // Children with refused claims, and those with claims beside the one that counts.
    refusing: BTreeSet<u32>,
    doubtful: BTreeSet<u32>,
}

impl Claims {
    /// A spawn at `stamp` claims that `parent` began `child`, another node.
    pub(super) fn claim(&mut self, child: u32, parent: u32, stamp: &Stamp) -> Settled {
        self.make_room(child.max(parent));
        let refused_before = self.refused();
        let is_calm = refused_before == 0;
        let row = &mut self.rows[child as usize];
        let was_root = row.counting().is_none();
        let Some(place) = row.insert(parent, stamp) else {
            return Settled::default();
        };
        let refused = row.refused;
        self.note(child);
        if place > refused {
            return Settled::default();
        }
        // All that was refused is so still where the child had come to the end of its claims: they
        // only go on. Otherwise a refusal may have been owed to what counts no longer.
        let goes_on = is_calm || (was_root && place == refused);
        let children = match goes_on {
            true => self.settle(&[child]),
            false => self.settle_anew(child),
        };
        let refused = self.refused().saturating_sub(refused_before);
        self.forget_refused();
        Settled { children, refused }
    }

    /// The parent of `child` by the claim that counts, and when that was said.
    pub(super) fn parent(&self, child: u32) -> Option<(u32, i64)> {
        let claim = self.rows.get(child as usize)?.counting()?;
        Some((claim.parent, claim.stamp.timestamp_ms))
    }

    /// All claims on `child`, the latest first, and how many of them are refused.
    pub(super) fn of(&self, child: u32) -> (&[Claim], usize) {
        let row = self.rows.get(child as usize);
        row.map_or((&[], 0), |row| (&row.claims, row.refused))
    }

    /// Brings back what was known of `child`. The claim that counts closes no cycle.
    pub(super) fn restore(&mut self, child: u32, claims: Vec<Claim>, refused: usize) {
        let highest = claims.iter().map(|claim| claim.parent).max();
        self.make_room(highest.unwrap_or(child).max(child));
        self.rows[child as usize] = Row { claims, refused };
        self.update(child);
    }

    /// Forgets `nodes`, and what names them as parents. With a node go all whose parent it is.
    pub(super) fn forget(&mut self, nodes: &BTreeSet<u32>) {
        for node in nodes {
            if let Some(row) = self.rows.get_mut(*node as usize) {
                *row = Row::default();
                self.update(*node);
            }
        }
        for child in Vec::from_iter(self.doubtful.iter().copied()) {
            self.rows[child as usize].retain(|claim| !nodes.contains(&claim.parent));
            self.update(child);
        }
    }

    /// Bytes of memory that the claims take beside their own place, the ids of events aside.
    pub(super) fn heap_bytes(&self) -> usize {
        let claims = self.rows.iter().map(|row| row.claims.capacity());
        self.rows.capacity() * size_of::<Row>()
            + (self.above.capacity() + self.below.capacity()) * size_of::<u32>()
            + claims.sum::<usize>() * size_of::<Claim>()
    }

    /// Lets the claims on `children` count that are due, and refuses what closes a cycle. Until then
    /// nothing is above these. Returns all children that this reached.
    fn settle(&mut self, children: &[u32]) -> Vec<u32> {
        let mut reached = Vec::with_capacity(children.len());
        for child in children {
            let mut child = *child;
            self.update(child);
            reached.push(child);
            while let Some(latest) = self.latest_of_cycle(child) {
                self.rows[latest as usize].refused += 1;
                self.update(latest);
                reached.push(latest);
                child = latest;
            }
        }
        reached
    }

    /// Forgets what was refused, and settles it once more, with the claims on `child`.
    fn settle_anew(&mut self, child: u32) -> Vec<u32> {
        let mut children = Vec::from_iter(self.refusing.iter().copied());
        children.push(child);
        for child in &children {
            self.rows[*child as usize].refused = 0;
            self.set_above(*child, NOBODY);
        }
        self.settle(&children)
    }

    /// The child with the latest claim in the cycle that `start` is in. A walk up to the root, but
    /// for a node without children, as one that was just begun.
    fn latest_of_cycle(&self, start: u32) -> Option<u32> {
        if self.below[start as usize] == 0 {
            return None;
        }
        let above = |node: u32| Some(self.above[node as usize]).filter(|above| *above != NOBODY);
        let way_up = || std::iter::successors(above(start), |node| above(*node));
        way_up().find(|node| *node == start)?;
        let below_start = way_up().take_while(|node| *node != start);
        let cycle = below_start.chain([start]);
        cycle.max_by_key(|node| {
            self.rows[*node as usize]
                .counting()
                .map(|claim| &claim.stamp)
        })
    }

    /// Keeps no more refused claims than there is room for, the latest of them.
    fn forget_refused(&mut self) {
        let excess = self.refused().saturating_sub(AGENT_CLAIMS_REFUSED_MAX);
        if excess == 0 {
            return;
        }
        let mut refused: Vec<(Stamp, u32)> = Vec::new();
        for child in &self.refusing {
            let row = &self.rows[*child as usize];
            let claims = row.claims[..row.refused].iter();
            refused.extend(claims.map(|claim| (claim.stamp.clone(), *child)));
        }
        refused.sort_unstable();
        for (stamp, child) in refused.into_iter().take(excess) {
            self.rows[child as usize].retain(|claim| claim.stamp != stamp);
            self.update(child);
        }
    }

    fn refused(&self) -> usize {
        let rows = self
            .refusing
            .iter()
            .map(|child| &self.rows[*child as usize]);
        rows.map(|row| row.refused).sum()
    }

    /// What is known of `child` beside its row, from its row.
    fn update(&mut self, child: u32) {
        let counting = self.rows[child as usize].counting();
        self.set_above(child, counting.map_or(NOBODY, |claim| claim.parent));
        self.note(child);
    }

    fn set_above(&mut self, child: u32, parent: u32) {
        let before = std::mem::replace(&mut self.above[child as usize], parent);
        if before != NOBODY {
            self.below[before as usize] -= 1;
        }
        if parent != NOBODY {
            self.below[parent as usize] += 1;
        }
    }

    fn note(&mut self, child: u32) {
        let row = &self.rows[child as usize];
        let is_doubtful = row.refused > 0 || row.claims.len() > 1;
        let is_refusing = row.refused > 0;
        set(&mut self.refusing, child, is_refusing);
        set(&mut self.doubtful, child, is_doubtful);
    }

    fn make_room(&mut self, highest: u32) {
        let length = highest as usize + 1;
        if self.rows.len() < length {
            self.rows.resize_with(length, Row::default);
            self.above.resize(length, NOBODY);
            self.below.resize(length, 0);
        }
    }
}

impl Row {
    /// The claim that counts.
    fn counting(&self) -> Option<&Claim> {
        self.claims.get(self.refused)
    }

    /// Takes in a claim. Returns its place; `None` where there are too many later ones.
    fn insert(&mut self, parent: u32, stamp: &Stamp) -> Option<usize> {
        let place = self.claims.partition_point(|claim| claim.stamp > *stamp);
        if place == AGENT_CLAIMS_MAX {
            return None;
        }
        self.claims.truncate(AGENT_CLAIMS_MAX - 1);
        self.claims.reserve_exact(1);
        let stamp = stamp.clone();
        self.claims.insert(place, Claim { stamp, parent });
        Some(place)
    }

    fn retain(&mut self, is_kept: impl Fn(&Claim) -> bool) {
        let refused = self.claims[..self.refused].iter();
        self.refused = refused.filter(|claim| is_kept(claim)).count();
        self.claims.retain(is_kept);
    }
}

/// No node.
const NOBODY: u32 = u32::MAX;

fn set(set: &mut BTreeSet<u32>, node: u32, is_in: bool) {
    match is_in {
        true => set.insert(node),
        false => set.remove(&node),
    };
}

#[cfg(test)]
mod tests;
