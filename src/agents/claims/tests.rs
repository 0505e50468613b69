//! Claims as they come, against the plain rule over all of them.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::event::Seq;

const NODES: u32 = 7;

fn stamp(time: i64) -> Stamp {
    Stamp {
        timestamp_ms: time,
        event_id: None,
        seq: Seq(1),
    }
}

/// Child, parent, time.
type Said = (u32, u32, i64);

/// The claims that come to count: of each child the latest; as long as there is a cycle, without
/// the latest in it.
fn plain(said: &[Said]) -> BTreeMap<u32, (u32, i64)> {
    let mut rows: BTreeMap<u32, Vec<(i64, u32)>> = BTreeMap::new();
    for (child, parent, time) in said {
        rows.entry(*child).or_default().push((*time, *parent));
    }
    for row in rows.values_mut() {
        row.sort_unstable();
        row.drain(..row.len().saturating_sub(AGENT_CLAIMS_MAX));
    }
    loop {
        let counting = rows.iter().filter_map(|(child, row)| {
            let (time, parent) = row.last()?;
            Some((*child, (*parent, *time)))
        });
        let counting = BTreeMap::from_iter(counting);
        match counting
            .keys()
            .find_map(|start| latest_of_cycle(&counting, *start))
        {
            Some(child) => rows.get_mut(&child).unwrap().pop(),
            None => return counting,
        };
    }
}

fn latest_of_cycle(counting: &BTreeMap<u32, (u32, i64)>, start: u32) -> Option<u32> {
    let (mut node, mut latest) = (start, (i64::MIN, start));
    for _ in 0..counting.len() {
        let (parent, time) = counting.get(&node)?;
        latest = latest.max((*time, node));
        node = *parent;
        if node == start {
            return Some(latest.1);
        }
    }
    None
}

fn counting(claims: &Claims) -> BTreeMap<u32, (u32, i64)> {
    let children = 0..claims.rows.len() as u32;
    children
        .filter_map(|child| Some((child, claims.parent(child)?)))
        .collect()
}

fn check_invariants(claims: &Claims) {
    for (child, row) in claims.rows.iter().enumerate() {
        let child = child as u32;
        let (length, refused) = (row.claims.len(), row.refused);
        assert!(refused <= length && length <= AGENT_CLAIMS_MAX);
        assert!(row.claims.is_sorted_by(|a, b| a.stamp > b.stamp));
        assert_eq!(claims.refusing.contains(&child), refused > 0);
        assert_eq!(claims.doubtful.contains(&child), refused > 0 || length > 1);
        let above = claims.parent(child).map_or(NOBODY, |(parent, _)| parent);
        assert_eq!(claims.above[child as usize], above);
        assert_eq!(
            claims.latest_of_cycle(child),
            None,
            "a cycle through {child}"
        );
    }
}

/// Claims among a few nodes, each at a time of its own.
fn all_said() -> impl Strategy<Value = Vec<Said>> {
    let pair = (0..NODES, 1..NODES).prop_map(|(child, by)| (child, (child + by) % NODES));
    let said = vec(pair, 1..40).prop_map(|pairs| {
        let timed = pairs.into_iter().zip(1..);
        timed
            .map(|((child, parent), time)| (child, parent, time))
            .collect::<Vec<_>>()
    });
    said.prop_shuffle()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn the_claims_alone_decide_and_every_change_is_told(said in all_said()) {
        let (mut claims, mut known) = (Claims::default(), BTreeMap::new());
        for (at, (child, parent, time)) in said.iter().enumerate() {
            let settled = claims.claim(*child, *parent, &stamp(*time));
            check_invariants(&claims);
            let now = counting(&claims);
            prop_assert_eq!(&now, &plain(&said[..=at]));
            for node in 0..NODES {
                let is_told = settled.children.contains(&node);
                prop_assert!(is_told || known.get(&node) == now.get(&node), "{}", node);
            }
            known = now;
        }
    }

    #[test]
    fn what_is_forgotten_is_named_nowhere(said in all_said(), root in 0..NODES) {
        let mut claims = Claims::default();
        for (child, parent, time) in &said {
            claims.claim(*child, *parent, &stamp(*time));
        }
        let before = counting(&claims);
        let is_below = |node: &u32| {
            let up = |node: &u32| before.get(node).map(|(parent, _)| *parent);
            std::iter::successors(Some(*node), up).any(|node| node == root)
        };
        let gone: BTreeSet<u32> = (0..NODES).filter(is_below).collect();
        claims.forget(&gone);
        check_invariants(&claims);
        let left = before.into_iter().filter(|(child, _)| !gone.contains(child));
        prop_assert_eq!(counting(&claims), left.collect());
        let named = claims.rows.iter().flat_map(|row| &row.claims);
        prop_assert!(named.into_iter().all(|claim| !gone.contains(&claim.parent)));
        prop_assert!(gone.iter().all(|node| claims.of(*node) == (&[][..], 0)));
    }
}

#[test]
fn of_two_that_claim_each_other_the_later_is_refused() {
    let mut claims = Claims::default();
    claims.claim(1, 0, &stamp(1));
    let settled = claims.claim(0, 1, &stamp(2));
    assert_eq!(settled.refused, 1);
    assert_eq!(counting(&claims), BTreeMap::from([(1, (0, 1))]));
    let mut claims = Claims::default();
    claims.claim(0, 1, &stamp(2));
    let settled = claims.claim(1, 0, &stamp(1));
    assert_eq!(settled.refused, 1);
    assert_eq!(counting(&claims), BTreeMap::from([(1, (0, 1))]));
}

#[test]
fn what_was_refused_counts_once_it_closes_no_cycle() {
    let mut claims = Claims::default();
    claims.claim(1, 0, &stamp(1));
    claims.claim(0, 1, &stamp(2));
    claims.claim(1, 2, &stamp(3));
    assert_eq!(
        counting(&claims),
        BTreeMap::from([(0, (1, 2)), (1, (2, 3))])
    );
}

#[test]
fn refused_claims_are_bounded_and_no_cycle_comes_of_it() {
    let mut claims = Claims::default();
    let nodes = 3 * AGENT_CLAIMS_REFUSED_MAX as u32;
    for node in 1..nodes {
        claims.claim(node, node - 1, &stamp(node.into()));
    }
    // Each of them says that it was begun by the lowest.
    for node in 0..nodes - 1 {
        let settled = claims.claim(node, nodes - 1, &stamp(1_000 + i64::from(node)));
        assert_eq!(settled.refused, 1, "{node}");
        assert!(claims.refused() <= AGENT_CLAIMS_REFUSED_MAX);
        check_invariants(&claims);
    }
    assert_eq!(claims.refused(), AGENT_CLAIMS_REFUSED_MAX);
    let latest = claims
        .refusing
        .iter()
        .all(|node| *node >= nodes - 1 - claims.refused() as u32);
    assert!(latest, "those said last are remembered");
}
