//! How long an event takes from stage to stage: one HDR histogram per stage, recorded by the core
//! without any sharing, and published as a copy at most once a second.

use std::sync::Arc;

use hdrhistogram::Histogram;

use super::CoreStats;

/// A stretch of an event's road: received → parsed → routed → numbered → queued → written, and
/// beside the last two → durable.
///
/// The clock is read once a turn, where it begins, and once more behind the fan-out and behind each
/// write. So what a core does in one turn shows where it ends, in `Queued`, and the stages before it
/// show what had to wait for a later turn, or for another core's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// From the read that brought its last byte to the parsed event; once an event.
    Parsed,
    /// From the read until it is on its way to the owner core; once an audience.
    Routed,
    /// From the read to its seq, on the owner core; once an audience.
    Numbered,
    /// From its seq until it is in the outboxes of a core's viewers; once for each such core.
    Queued,
    /// From its seq to the end of the write to a viewer's socket; once a delivery.
    Written,
    /// From the event log's queue to the log's word that it is kept; once a record.
    Durable,
    /// From the read to the end of the write to a viewer's socket; once a delivery.
    Total,
}

impl Stage {
    /// All stages, in the order of their indices.
    pub const ALL: [Self; 7] = [
        Self::Parsed,
        Self::Routed,
        Self::Numbered,
        Self::Queued,
        Self::Written,
        Self::Durable,
        Self::Total,
    ];

    /// The name used as a label and in `/v1/stats`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Parsed => "parsed",
            Self::Routed => "routed",
            Self::Numbered => "numbered",
            Self::Queued => "queued",
            Self::Written => "written",
            Self::Durable => "durable",
            Self::Total => "total",
        }
    }

    /// Between which moments it lies, for people.
    pub fn span(self) -> &'static str {
        match self {
            Self::Parsed => "read → parsed",
            Self::Routed => "read → sent to its core",
            Self::Numbered => "read → seq",
            Self::Queued => "seq → in the outboxes",
            Self::Written => "seq → written",
            Self::Durable => "log's queue → kept",
            Self::Total => "read → written",
        }
    }
}

/// The histograms of one core, owned by its thread alone.
#[derive(Debug, Default)]
pub struct Stages {
    current: StageSnapshot,
    // Events that were put into outboxes since the clock was last read: when they were numbered, and
    // how many.
    fanned_out: Vec<(u64, u64)>,
    changed: bool,
    published_ms: u64,
    /// What was published before; copied into again where no reader holds it any more.
    spare: Arc<StageSnapshot>,
}

impl Stages {
    /// Records that `count` events took `ns` nanoseconds each for `stage`. Below 1 µs counts as
    /// that much, above 60 s likewise.
    pub fn record(&mut self, stage: Stage, ns: u64, count: u64) {
        self.current.record(stage, ns, count);
        self.changed = true;
    }

    /// A batch of `count` events numbered at `numbered_ns` went into outboxes. How long that took is
    /// recorded when the clock is read next: once a turn, not for every batch.
    pub fn handle_fanned_out(&mut self, numbered_ns: u64, count: u64) {
        match self.fanned_out.last_mut() {
            Some((same_ns, sum)) if *same_ns == numbered_ns => *sum += count,
            _ => self.fanned_out.push((numbered_ns, count)),
        }
    }

    /// Whether there are such batches.
    pub fn has_fanned_out(&self) -> bool {
        !self.fanned_out.is_empty()
    }

    /// Records them; it is `queued_ns` on the clock that numbered them.
    pub fn handle_queued(&mut self, queued_ns: u64) {
        let mut fanned_out = std::mem::take(&mut self.fanned_out);
        for (numbered_ns, count) in fanned_out.drain(..) {
            let waited_ns = queued_ns.saturating_sub(numbered_ns);
            self.record(Stage::Queued, waited_ns, count);
        }
        // Its memory serves the next turn.
        self.fanned_out = fanned_out;
    }

    /// When `publish` will next have something to do, in the milliseconds that it is given; None
    /// where nothing is new. A core that goes to sleep wakes for it, or its last times stay unseen.
    pub fn next_publish_ms(&self) -> Option<u64> {
        let next_ms = self.published_ms.saturating_add(PUBLISH_INTERVAL_MS);
        self.changed.then_some(next_ms)
    }

    /// Lets `stats` show what was recorded, if there is anything new and the last time was at least
    /// a second ago. Call it every turn; `now_ms` is monotonic.
    pub fn publish(&mut self, now_ms: u64, stats: &CoreStats) {
        if self
            .next_publish_ms()
            .is_none_or(|next_ms| now_ms < next_ms)
        {
            return;
        }
        // Seven times 144 KiB: some 90 µs into memory that is there, several times that into fresh
        // pages, which would show in the latencies measured here.
        match Arc::get_mut(&mut self.spare) {
            Some(spare) => spare.copy_from(&self.current),
            None => self.spare = Arc::new(self.current.clone()),
        }
        self.spare = stats.stages.swap(Arc::clone(&self.spare));
        self.changed = false;
        self.published_ms = now_ms;
    }
}

/// A copy of one core's histograms, or of several cores' merged.
#[derive(Clone, Debug)]
pub struct StageSnapshot {
    histograms: [Histogram<u64>; Stage::ALL.len()],
    /// Exact, where a histogram knows its sum to three digits only.
    sums_ns: [u64; Stage::ALL.len()],
}

impl Default for StageSnapshot {
    fn default() -> Self {
        Self {
            histograms: std::array::from_fn(|_| empty()),
            sums_ns: [0; Stage::ALL.len()],
        }
    }
}

impl StageSnapshot {
    /// The distribution of a stage, in nanoseconds.
    pub fn histogram(&self, stage: Stage) -> &Histogram<u64> {
        &self.histograms[stage as usize]
    }

    /// The sum of all recorded times of a stage, in nanoseconds.
    pub fn sum_ns(&self, stage: Stage) -> u64 {
        self.sums_ns[stage as usize]
    }

    /// Adds another core's numbers.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.histograms.iter_mut().zip(&other.histograms) {
            mine.add(theirs)
                .expect("all histograms have the same bounds");
        }
        for (mine, theirs) in self.sums_ns.iter_mut().zip(other.sums_ns) {
            *mine = mine.saturating_add(theirs);
        }
    }

    /// The node's distribution: every core's published snapshot merged.
    pub fn of<'a>(cores: impl IntoIterator<Item = &'a CoreStats>) -> Self {
        let mut merged = Self::default();
        for core in cores {
            merged.merge(&core.stages.load());
        }
        merged
    }

    fn copy_from(&mut self, other: &Self) {
        for (mine, theirs) in self.histograms.iter_mut().zip(&other.histograms) {
            mine.set_to(theirs)
                .expect("all histograms have the same bounds");
        }
        self.sums_ns = other.sums_ns;
    }

    fn record(&mut self, stage: Stage, ns: u64, count: u64) {
        let ns = ns.clamp(LOWEST_NS, HIGHEST_NS);
        self.histograms[stage as usize].saturating_record_n(ns, count);
        let sum = &mut self.sums_ns[stage as usize];
        *sum = sum.saturating_add(ns.saturating_mul(count));
    }
}

fn empty() -> Histogram<u64> {
    Histogram::new_with_bounds(LOWEST_NS, HIGHEST_NS, DIGITS).expect("the bounds are constants")
}

const LOWEST_NS: u64 = 1_000;
const HIGHEST_NS: u64 = 60_000_000_000;
const DIGITS: u8 = 3;
const PUBLISH_INTERVAL_MS: u64 = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_clamped_to_the_range() {
        let mut snapshot = StageSnapshot::default();
        snapshot.record(Stage::Parsed, 3, 1);
        snapshot.record(Stage::Parsed, u64::MAX, 2);
        let histogram = snapshot.histogram(Stage::Parsed);
        assert_eq!(histogram.len(), 3);
        assert!(histogram.equivalent(histogram.min(), LOWEST_NS));
        assert!(histogram.equivalent(histogram.max(), HIGHEST_NS));
        assert_eq!(snapshot.sum_ns(Stage::Parsed), LOWEST_NS + 2 * HIGHEST_NS);
    }

    #[test]
    fn batches_of_one_moment_are_recorded_together() {
        let (mut stages, stats) = (Stages::default(), CoreStats::default());
        for (numbered_ns, count) in [(1_000_000, 2), (1_000_000, 3), (4_000_000, 1)] {
            stages.handle_fanned_out(numbered_ns, count);
        }
        assert_eq!(stages.fanned_out, [(1_000_000, 5), (4_000_000, 1)]);
        stages.handle_queued(9_000_000);
        assert!(!stages.has_fanned_out());
        stages.handle_queued(99_000_000);
        stages.publish(1_000, &stats);
        let published = stats.stages.load();
        let queued = published.histogram(Stage::Queued);
        assert_eq!((queued.len(), queued.count_at(8_000_000)), (6, 5));
        assert_eq!(published.sum_ns(Stage::Queued), 45_000_000);
    }

    #[test]
    fn a_copy_is_published_at_most_once_a_second() {
        let (mut stages, stats) = (Stages::default(), CoreStats::default());
        let count = || stats.stages.load().histogram(Stage::Total).len();
        stages.publish(5_000, &stats);
        stages.record(Stage::Total, 1_000_000, 1);
        stages.publish(5_000, &stats);
        assert_eq!(count(), 1, "nothing had been published: no need to wait");
        assert_eq!(stages.next_publish_ms(), None);
        stages.record(Stage::Total, 1_000_000, 1);
        assert_eq!(stages.next_publish_ms(), Some(6_000));
        stages.publish(5_999, &stats);
        assert_eq!(count(), 1);
        let held = stats.stages.load_full();
        stages.publish(6_000, &stats);
        assert_eq!(count(), 2);
        stages.record(Stage::Total, 1_000_000, 1);
        stages.publish(7_000, &stats);
        assert_eq!(count(), 3);
        assert_eq!(
            held.histogram(Stage::Total).len(),
            1,
            "a reader's copy stays as it was"
        );
        stages.record(Stage::Total, 1_000_000, 1);
        stages.publish(8_000, &stats);
        assert_eq!(count(), 4);
    }

    #[test]
    fn cores_are_merged() {
        let cores = [CoreStats::default(), CoreStats::default()];
        for (core, ns) in cores.iter().zip([2_000_000, 4_000_000]) {
            let mut stages = Stages::default();
            stages.record(Stage::Written, ns, 10);
            stages.publish(PUBLISH_INTERVAL_MS, core);
        }
        let merged = StageSnapshot::of(&cores);
        let histogram = merged.histogram(Stage::Written);
        assert_eq!(histogram.len(), 20);
        assert!(histogram.equivalent(histogram.value_at_quantile(0.5), 2_000_000));
        assert!(histogram.equivalent(histogram.max(), 4_000_000));
        assert_eq!(merged.sum_ns(Stage::Written), 60_000_000);
        assert!(merged.histogram(Stage::Total).is_empty());
    }
}
