//! What a tree comes to: the sums over its nodes, kept as they change.
//!
//! Sums are of integers, money in billionths, so that they do not depend on the order in which nodes
//! came and went.

use super::node::Status;

/// The roll-up of one tree, as `tree_stats` shows it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TreeStats {
    /// Nodes.
    pub total: u32,
    /// Nodes that are spawning or running.
    pub active: u32,
    /// Nodes of each status, by `Status::index`.
    pub by_status: [u32; Status::ALL.len()],
    /// Steps from the root to the node that is furthest from it.
    pub max_depth: u32,
    /// Tokens of all nodes.
    pub tokens_used: u64,
    /// Money of all nodes, each rounded to the billionth.
    pub cost_so_far: f64,
    /// Commits of all nodes.
    pub git_commits: u64,
}

/// What one node adds to the roll-up of its tree, its depth aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Share {
    pub(super) status: Status,
    pub(super) tokens_used: u64,
    pub(super) cost_nanos: i64,
    pub(super) git_commits: u64,
}

/// Billionths of `cost`; past 9 thousand million the most that fits.
pub(super) fn cost_nanos(cost: f64) -> i64 {
    // A cast from a float saturates.
    (cost * NANOS).round() as i64
}

/// The sums over the nodes of one tree. As wide as it takes that no number of nodes overflows them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct RollUp {
    by_status: [u32; Status::ALL.len()],
    // Nodes at each depth; the last one is not 0.
    depths: Vec<u32>,
    tokens_used: u128,
    cost_nanos: i128,
    git_commits: u128,
}

impl RollUp {
    /// A node at `depth` is in the tree from now on.
    pub(super) fn add(&mut self, share: Share, depth: u32) {
        let depth = depth as usize;
        if self.depths.len() <= depth {
            self.depths.resize(depth + 1, 0);
        }
        self.depths[depth] += 1;
        self.add_share(share);
    }

    /// That node is in it no longer.
    pub(super) fn remove(&mut self, share: Share, depth: u32) {
        self.depths[depth as usize] -= 1;
        while self.depths.last() == Some(&0) {
            self.depths.pop();
        }
        self.remove_share(share);
    }

    /// A node of the tree comes to something else.
    pub(super) fn replace(&mut self, before: Share, after: Share) {
        if before != after {
            self.remove_share(before);
            self.add_share(after);
        }
    }

    /// Nodes.
    pub(super) fn total(&self) -> u32 {
        self.by_status.iter().sum()
    }

    /// Whether no node is spawning or running.
    pub(super) fn is_finished(&self) -> bool {
        self.active() == 0
    }

    pub(super) fn stats(&self) -> TreeStats {
        let count = |sum: u128| u64::try_from(sum).unwrap_or(u64::MAX);
        TreeStats {
            total: self.total(),
            active: self.active(),
            by_status: self.by_status,
            max_depth: self.depths.len().saturating_sub(1) as u32,
            tokens_used: count(self.tokens_used),
            cost_so_far: self.cost_nanos as f64 / NANOS,
            git_commits: count(self.git_commits),
        }
    }

    pub(super) fn heap_bytes(&self) -> usize {
        self.depths.capacity() * size_of::<u32>()
    }

    fn active(&self) -> u32 {
        let active = Status::ALL.into_iter().filter(|status| status.is_active());
        active.map(|status| self.by_status[status.index()]).sum()
    }

    fn add_share(&mut self, share: Share) {
        self.by_status[share.status.index()] += 1;
        self.tokens_used += u128::from(share.tokens_used);
        self.cost_nanos += i128::from(share.cost_nanos);
        self.git_commits += u128::from(share.git_commits);
    }

    fn remove_share(&mut self, share: Share) {
        self.by_status[share.status.index()] -= 1;
        self.tokens_used -= u128::from(share.tokens_used);
        self.cost_nanos -= i128::from(share.cost_nanos);
        self.git_commits -= u128::from(share.git_commits);
    }
}

const NANOS: f64 = 1e9;

#[cfg(test)]
mod tests {
    use super::*;

    fn share(cost: f64) -> Share {
        Share {
            status: Status::Running,
            tokens_used: u64::MAX,
            cost_nanos: cost_nanos(cost),
            git_commits: 1,
        }
    }

    #[test]
    fn money_adds_up_exactly_in_any_order() {
        let costs = [0.1, 0.2, 0.3, 1e-9, 1e6, -0.6, 0.7];
        let sum = |costs: &mut dyn Iterator<Item = &f64>| {
            let mut sums = RollUp::default();
            costs.for_each(|cost| sums.add(share(*cost), 0));
            sums.stats().cost_so_far
        };
        assert_eq!(sum(&mut costs.iter()), 1_000_000.700_000_001);
        assert_eq!(sum(&mut costs.iter().rev()), sum(&mut costs.iter()));
        assert_eq!(sum(&mut [0.1, 0.2].iter()), 0.3);
    }

    #[test]
    fn no_number_overflows_and_all_come_back_to_nothing() {
        let mut sums = RollUp::default();
        let shares = [f64::MAX, f64::MAX, f64::MIN, f64::NAN, 0.5].map(share);
        shares.iter().for_each(|share| sums.add(*share, 3));
        assert_eq!(sums.stats().tokens_used, u64::MAX);
        assert_eq!(sums.stats().max_depth, 3);
        shares.iter().for_each(|share| sums.remove(*share, 3));
        assert_eq!(sums, RollUp::default());
    }
}
