//! When segments go: by age and by bytes, whole ones, the oldest first. Before anything is unlinked
//! the log says on disk that it will be, so that a viewer is told the truth and no seq is given
//! again; then it is no longer offered; then its files go, on the chores' thread.

use std::io;

use super::catalog::Catalog;
use super::storage::Storage;
use super::writer::Levels;
use crate::event::Seq;

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetentionOptions {
    /// Milliseconds since its arrival after which an event may go.
    pub age_max_ms: i64,
    /// Bytes of all segments and their indices, the open one included.
    pub bytes_max: u64,
}

/// What is to be done next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetentionStep {
    /// Nothing.
    Idle,
    /// Decisions about tokens are in what is to go: write those in force again, wait until that is
    /// durable, and call `handle_revocations_kept`.
    KeepRevocations,
    /// To be told to the writer, see `Writer::set_floor`.
    SetFloor {
        /// The oldest segment that will be kept.
        first: u64,
        /// The highest seq of those that go.
        floor: Seq,
    },
    /// Segments up to this one, without it, are offered no more; their files are garbage now.
    Forgot(u64),
}

/// Carries retention out, step by step.
#[derive(Debug)]
pub struct Retention {
    options: RetentionOptions,
    plan: Option<Plan>,
}

#[derive(Clone, Copy, Debug)]
struct Plan {
    first: u64,
    floor: Seq,
    needs_revocations: bool,
    is_announced: bool,
}

/// What retention must know of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentAge {
    /// Bytes of its records and of its index.
    pub bytes: u64,
    /// When its last event arrived, in milliseconds since the Unix epoch; `None`: it has none.
    pub received_ms: Option<i64>,
    /// Whether its index is there: what is in it is known.
    pub is_known: bool,
}

/// How many of `segments`, the oldest first, are to go. The last one, which is open, never does.
pub fn doomed_count(options: RetentionOptions, now_ms: i64, segments: &[SegmentAge]) -> usize {
    let Some((_, closed)) = segments.split_last() else {
        return 0;
    };
    let mut bytes: u64 = segments.iter().map(|segment| segment.bytes).sum();
    let is_doomed = |segment: &&SegmentAge| {
        let is_too_much = bytes > options.bytes_max;
        bytes -= segment.bytes;
        let age_ms = segment
            .received_ms
            .map(|received_ms| now_ms.saturating_sub(received_ms));
        segment.is_known && (is_too_much || age_ms.is_none_or(|age_ms| age_ms > options.age_max_ms))
    };
    closed.iter().take_while(is_doomed).count()
}

impl Retention {
    /// With these bounds.
    pub fn new(options: RetentionOptions) -> Self {
        Self {
            options,
            plan: None,
        }
    }

    /// What is to be done next, at `now_ms` since the Unix epoch, with `levels_kept` on disk.
    /// Errors: of the storage.
    pub fn poll<S: Storage>(
        &mut self,
        now_ms: i64,
        levels_kept: Levels,
        catalog: &mut Catalog<S>,
    ) -> io::Result<RetentionStep> {
        if self.plan.is_none() {
            self.plan = self.make_plan(now_ms, catalog);
        }
        let Some(plan) = &mut self.plan else {
            return Ok(RetentionStep::Idle);
        };
        let Plan { first, floor, .. } = *plan;
        if plan.needs_revocations {
            return Ok(RetentionStep::KeepRevocations);
        }
        if !std::mem::replace(&mut plan.is_announced, true) {
            return Ok(RetentionStep::SetFloor { first, floor });
        }
        if levels_kept.first < first || levels_kept.floor < floor {
            return Ok(RetentionStep::Idle);
        }
        catalog.forget_before(first, floor);
        self.plan = None;
        Ok(RetentionStep::Forgot(first))
    }

    /// The decisions about tokens that are in force were written again, and are durable.
    pub fn handle_revocations_kept(&mut self) {
        if let Some(plan) = &mut self.plan {
            plan.needs_revocations = false;
        }
    }

    fn make_plan<S: Storage>(&self, now_ms: i64, catalog: &Catalog<S>) -> Option<Plan> {
        let ages = catalog.ages();
        let count = doomed_count(self.options, now_ms, &ages);
        (count > 0).then(|| Plan {
            first: catalog.number_at(count),
            floor: catalog.seq_bound_before(count),
            needs_revocations: catalog.revocations_before(count) > 0,
            is_announced: false,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNKNOWN: Option<i64> = Some(i64::MIN);

    #[test]
    fn the_oldest_go_by_age_or_bytes_and_the_open_one_stays() {
        let check = |segments: &[(u64, Option<i64>)], expected: usize| {
            let options = RetentionOptions {
                age_max_ms: 100,
                bytes_max: 50,
            };
            let age = |&(bytes, received_ms): &(u64, Option<i64>)| SegmentAge {
                bytes,
                received_ms,
                is_known: received_ms != UNKNOWN,
            };
            let ages: Vec<_> = segments.iter().map(age).collect();
            assert_eq!(
                doomed_count(options, 1_000, &ages),
                expected,
                "{segments:?}"
            );
        };
        check(&[], 0);
        check(&[(99, Some(0))], 0);
        check(&[(10, Some(900)), (10, Some(950)), (1, None)], 0);
        check(&[(10, Some(899)), (10, Some(950)), (1, None)], 1);
        check(&[(10, None), (10, Some(950)), (1, None)], 1);
        // A younger one protects what is behind it.
        check(&[(10, Some(950)), (10, Some(0)), (1, None)], 0);
        check(&[(20, Some(950)), (20, Some(950)), (20, None)], 1);
        check(&[(20, Some(950)), (20, Some(950)), (90, None)], 2);
        // What is not known waits until it is, and what is behind it too.
        check(&[(99, UNKNOWN), (99, Some(0)), (1, None)], 0);
        check(&[(99, Some(0)), (99, UNKNOWN), (1, None)], 1);
        // An arrival in the future is no age.
        check(&[(10, Some(i64::MAX)), (1, None)], 0);
    }
}
