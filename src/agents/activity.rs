//! What was done in a project, and when: events counted by type and by their own time.
//!
//! The latest counts are kept to the millisecond; past `ACTIVITY_CELLS_MAX` the older half is counted
//! by the minute, and what is older than `ACTIVITY_MS` is let go. A range that is not known in full
//! (`knows`) is counted from history, into the same [`Tally`]. A minute that is counted as a whole
//! belongs to the bucket that its middle is in. Source: contract section 6.

use std::collections::BTreeMap;

use compact_str::CompactString;
use serde::{Deserialize, Serialize};

use crate::event::time;
use crate::limits::{
    ACTIVITY_AHEAD_MS, ACTIVITY_BUCKETS, ACTIVITY_CELLS_MAX, ACTIVITY_MS, ACTIVITY_TYPES_MAX,
};

/// Counts that take as much memory as an agent does, about 1 KiB.
const CELLS_PER_ENTRY: usize = 32;

/// The counts of one project's stream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Activity {
    // What is counted, at most `ACTIVITY_TYPES_MAX` and `OTHER`. Cells name it by its place.
    types: Vec<Type>,
    // By time and type. To the millisecond from `exact_from_ms` on, before it by the minute.
    exact: BTreeMap<(i64, u8), u64>,
    minutes: BTreeMap<(i64, u8), u64>,
    exact_from_ms: i64,
    // All events with a time from there on are counted, but for those in the span of what came too far
    // ahead of its time, both ends included.
    from_ms: i64,
    ahead: Option<(i64, i64)>,
    last_ms: Option<i64>,
}

/// A type of events that is counted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Type {
    name: CompactString,
    // The latest time that was counted.
    last_ms: i64,
}

impl Default for Activity {
    fn default() -> Self {
        Self {
            types: Vec::new(),
            exact: BTreeMap::new(),
            minutes: BTreeMap::new(),
            exact_from_ms: i64::MIN,
            from_ms: i64::MIN,
            ahead: None,
            last_ms: None,
        }
    }
}

impl Activity {
    /// What it takes in memory, in entries such as an agent or a conversation is one.
    pub fn entries_len(&self) -> usize {
        (self.exact.len() + self.minutes.len()) / CELLS_PER_ENTRY
    }

    /// Counts an event of the stream, in the order of the stream.
    pub fn apply(&mut self, event_type: &str, timestamp_ms: i64, received_ms: i64) {
        self.last_ms = self.last_ms.max(Some(timestamp_ms));
        self.forget_before(received_ms.saturating_sub(ACTIVITY_MS));
        if timestamp_ms > received_ms.saturating_add(ACTIVITY_AHEAD_MS) {
            let (first, last) = self.ahead.unwrap_or((timestamp_ms, timestamp_ms));
            self.ahead = Some((first.min(timestamp_ms), last.max(timestamp_ms)));
        } else if timestamp_ms >= self.from_ms {
            self.count(event_type, timestamp_ms);
        }
    }

    /// Whether all events of this range are counted here.
    pub fn knows(&self, range: TimeRange) -> bool {
        let is_apart = |(first, last): (i64, i64)| range.end_ms < first || last < range.start_ms;
        self.from_ms <= range.start_ms && self.ahead.is_none_or(is_apart)
    }

    /// The counts of a range, as far as they are known.
    pub fn tally(&self, range: TimeRange) -> Tally {
        let mut tally = Tally::new(range);
        let (start, end) = ((range.start_ms, 0), (range.end_ms, u8::MAX));
        for ((at_ms, place), count) in self.exact.range(start..=end) {
            tally.add(self.type_at(*place), *at_ms, *count);
        }
        let middle = MINUTE_MS / 2;
        let start = (range.start_ms.saturating_sub(middle), 0);
        let end = (range.end_ms.saturating_sub(middle), u8::MAX);
        if start <= end {
            for ((minute, place), count) in self.minutes.range(start..=end) {
                tally.add(self.type_at(*place), minute.saturating_add(middle), *count);
            }
        }
        tally
    }

    /// The latest time of any event of the stream, in milliseconds since the Unix epoch.
    pub fn last_ms(&self) -> Option<i64> {
        self.last_ms
    }

    fn count(&mut self, event_type: &str, timestamp_ms: i64) {
        let place = self.place_of(event_type, timestamp_ms);
        let (cells, at_ms) = match timestamp_ms < self.exact_from_ms {
            true => (&mut self.minutes, minute_of(timestamp_ms)),
            false => (&mut self.exact, timestamp_ms),
        };
        let count = cells.entry((at_ms, place)).or_insert(0);
        *count = count.saturating_add(1);
        self.settle();
        self.bound_minutes();
    }

    /// The place of a type, of which one more is counted.
    fn place_of(&mut self, event_type: &str, timestamp_ms: i64) -> u8 {
        let known = self.types.iter().position(|known| known.name == event_type);
        let place = known.unwrap_or_else(|| self.new_place(event_type));
        let counted = &mut self.types[place];
        counted.last_ms = counted.last_ms.max(timestamp_ms);
        place as u8
    }

    /// A place for a type that has none. Where all are taken, that of one of which nothing is kept
    /// any more, else the one of all others.
    fn new_place(&mut self, event_type: &str) -> usize {
        let new = |name: &str| Type {
            name: name.into(),
            last_ms: i64::MIN,
        };
        if self.types.len() < ACTIVITY_TYPES_MAX {
            self.types.push(new(event_type));
            return self.types.len() - 1;
        }
        let mut named = self.types.iter().take(ACTIVITY_TYPES_MAX);
        if let Some(place) = named.position(|known| known.last_ms < self.from_ms) {
            self.types[place] = new(event_type);
            return place;
        }
        if self.types.len() == ACTIVITY_TYPES_MAX {
            self.types.push(new(OTHER));
        }
        ACTIVITY_TYPES_MAX
    }

    fn type_at(&self, place: u8) -> &str {
        self.types
            .get(usize::from(place))
            .map_or(OTHER, |known| &known.name)
    }

    /// Counts the older half by the minute where there is too much.
    fn settle(&mut self) {
        if self.exact.len() <= ACTIVITY_CELLS_MAX {
            return;
        }
        let mut times = self.exact.keys().map(|(at_ms, _)| minute_of(*at_ms));
        let first = times.next().unwrap_or_default();
        let middle = times.nth(ACTIVITY_CELLS_MAX / 2).unwrap_or(first);
        // Something goes in any case: the minute of the middle, where that is the first.
        let cut = if middle > first {
            middle
        } else {
            middle.saturating_add(MINUTE_MS)
        };
        let recent = self.exact.split_off(&(cut, 0));
        for ((at_ms, place), count) in std::mem::replace(&mut self.exact, recent) {
            let sum = self.minutes.entry((minute_of(at_ms), place)).or_insert(0);
            *sum = sum.saturating_add(count);
        }
        self.exact_from_ms = cut;
    }

    fn bound_minutes(&mut self) {
        while self.minutes.len() > ACTIVITY_CELLS_MAX {
            let Some(((first, _), _)) = self.minutes.first_key_value() else {
                return;
            };
            self.forget_before(first.saturating_add(MINUTE_MS));
        }
    }

    /// Lets go of what is before `from_ms`, in whole minutes.
    fn forget_before(&mut self, from_ms: i64) {
        let from_ms = minute_of(from_ms);
        if from_ms <= self.from_ms {
            return;
        }
        self.from_ms = from_ms;
        self.ahead = self.ahead.filter(|(_, last)| *last >= from_ms);
        for cells in [&mut self.exact, &mut self.minutes] {
            let is_old = |cells: &BTreeMap<(i64, u8), u64>| {
                let first = cells.first_key_value();
                first.is_some_and(|((at_ms, _), _)| *at_ms < from_ms)
            };
            while is_old(cells) {
                cells.pop_first();
            }
        }
    }
}

/// What stands for the types beyond `ACTIVITY_TYPES_MAX`.
const OTHER: &str = "other";
const MINUTE_MS: i64 = 60_000;

fn minute_of(at_ms: i64) -> i64 {
    at_ms.max(time::MS_MIN).div_euclid(MINUTE_MS) * MINUTE_MS
}

/// A range of time, cut into `ACTIVITY_BUCKETS` buckets that are equal to the millisecond.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeRange {
    start_ms: i64,
    end_ms: i64,
}

impl TimeRange {
    /// `None` where it ends before it starts, or a time is none of the calendar.
    pub fn new(start_ms: i64, end_ms: i64) -> Option<Self> {
        let (start_ms, end_ms) = (time::checked_ms(start_ms)?, time::checked_ms(end_ms)?);
        (start_ms <= end_ms).then_some(Self { start_ms, end_ms })
    }

    /// The hour before `now_ms`.
    pub fn last_hour(now_ms: i64) -> Self {
        let end_ms = now_ms.clamp(time::MS_MIN, time::MS_MAX);
        Self {
            start_ms: (end_ms - 60 * MINUTE_MS).max(time::MS_MIN),
            end_ms,
        }
    }

    /// The first millisecond, since the Unix epoch.
    pub fn start_ms(&self) -> i64 {
        self.start_ms
    }

    /// The last one, which is in it.
    pub fn end_ms(&self) -> i64 {
        self.end_ms
    }

    /// Where the bucket at `index` starts, and where the next one does.
    pub fn bucket(&self, index: usize) -> (i64, i64) {
        (self.edge(index), self.edge(index + 1))
    }

    fn edge(&self, index: usize) -> i64 {
        // At most 10,000 years times the buckets: within 64 bits.
        self.start_ms + (self.end_ms - self.start_ms) * index as i64 / ACTIVITY_BUCKETS as i64
    }

    /// The bucket of a time; `None` where it is outside. The end belongs to the last bucket.
    fn bucket_of(&self, at_ms: i64) -> Option<usize> {
        if !(self.start_ms..=self.end_ms).contains(&at_ms) {
            return None;
        }
        let span = (self.end_ms - self.start_ms).max(1);
        // The last bucket whose edge, which was rounded down, is not after it.
        let after = (at_ms - self.start_ms + 1) * ACTIVITY_BUCKETS as i64;
        let index = (after + span - 1) / span - 1;
        Some((index as usize).min(ACTIVITY_BUCKETS - 1))
    }
}

/// How many events of each type there were in each part of a range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tally {
    range: TimeRange,
    rows: Vec<Row>,
}

/// The counts of one type.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Row {
    event_type: CompactString,
    counts: [u64; ACTIVITY_BUCKETS],
}

impl Tally {
    /// Nothing was counted yet.
    pub fn new(range: TimeRange) -> Self {
        let rows = Vec::new();
        Self { range, rows }
    }

    /// What is counted.
    pub fn range(&self) -> TimeRange {
        self.range
    }

    /// Counts `count` events of one type and time, unless that is outside.
    pub fn add(&mut self, event_type: &str, at_ms: i64, count: u64) {
        let Some(bucket) = self.range.bucket_of(at_ms) else {
            return;
        };
        let sum = &mut self.row(event_type).counts[bucket];
        *sum = sum.saturating_add(count);
    }

    /// Adds what was counted of the same range elsewhere.
    pub fn merge(&mut self, other: &Self) {
        debug_assert_eq!(self.range, other.range);
        for row in &other.rows {
            let sums = &mut self.row(&row.event_type).counts;
            for (sum, count) in sums.iter_mut().zip(row.counts) {
                *sum = sum.saturating_add(count);
            }
        }
    }

    /// The types with their counts in the whole range.
    pub fn totals(&self) -> impl Iterator<Item = (&str, u64)> {
        self.rows.iter().map(|row| {
            let total = row
                .counts
                .iter()
                .fold(0_u64, |sum, count| sum.saturating_add(*count));
            (&*row.event_type, total)
        })
    }

    /// The types that occur in the bucket at `index`, below `ACTIVITY_BUCKETS`, with their counts.
    pub fn bucket(&self, index: usize) -> impl Iterator<Item = (&str, u64)> {
        let counts = self.rows.iter().map(move |row| {
            let count = row.counts.get(index).copied().unwrap_or(0);
            (&*row.event_type, count)
        });
        counts.filter(|(_, count)| *count > 0)
    }

    fn row(&mut self, event_type: &str) -> &mut Row {
        let place = self.place_of(event_type).unwrap_or_else(|| {
            // `OTHER` may have come before them: it is none of them.
            let named = self.rows.iter().filter(|row| row.event_type != OTHER);
            let is_full = named.count() >= ACTIVITY_TYPES_MAX;
            self.place_or_new(if is_full { OTHER } else { event_type })
        });
        &mut self.rows[place]
    }

    fn place_of(&self, event_type: &str) -> Option<usize> {
        let mut rows = self.rows.iter();
        rows.position(|row| row.event_type == event_type)
    }

    fn place_or_new(&mut self, event_type: &str) -> usize {
        self.place_of(event_type).unwrap_or_else(|| {
            self.rows.push(Row {
                event_type: event_type.into(),
                counts: [0; ACTIVITY_BUCKETS],
            });
            self.rows.len() - 1
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    const HOUR_MS: i64 = 60 * MINUTE_MS;
    const NOW_MS: i64 = 1_763_805_600_123;

    fn counted(events: &[(&str, i64)]) -> Activity {
        let mut activity = Activity::default();
        for (event_type, at_ms) in events {
            activity.apply(event_type, *at_ms, NOW_MS);
        }
        activity
    }

    fn totals(tally: &Tally) -> Vec<(&str, u64)> {
        let mut totals: Vec<_> = tally.totals().collect();
        totals.sort_unstable();
        totals
    }

    fn sum(tally: &Tally) -> u64 {
        tally.totals().map(|(_, count)| count).sum()
    }

    #[test]
    fn events_are_counted_by_type_and_bucket() {
        let start_ms = NOW_MS - HOUR_MS;
        let activity = counted(&[
            ("a", start_ms - 1),
            ("a", start_ms),
            ("a", start_ms + MINUTE_MS - 1),
            ("b", start_ms + MINUTE_MS),
            ("a", NOW_MS),
            ("a", NOW_MS + 1),
        ]);
        let tally = activity.tally(TimeRange::last_hour(NOW_MS));
        assert_eq!(totals(&tally), [("a", 3), ("b", 1)]);
        let bucket = |index| tally.bucket(index).collect::<Vec<_>>();
        assert_eq!(
            (bucket(0), bucket(1), bucket(59)),
            (vec![("a", 2)], vec![("b", 1)], vec![("a", 1)])
        );
        assert_eq!(activity.last_ms(), Some(NOW_MS + 1));
        assert_eq!(
            tally.range().bucket(1),
            (start_ms + MINUTE_MS, start_ms + 2 * MINUTE_MS)
        );
    }

    #[test]
    fn ranges_end_after_they_start_and_within_the_calendar() {
        assert_eq!(TimeRange::new(2, 1), None);
        assert_eq!(TimeRange::new(i64::MIN, 1), None);
        assert_eq!(TimeRange::new(1, i64::MAX), None);
        assert!(TimeRange::new(1, 1).is_some());
        assert!(TimeRange::new(time::MS_MIN, time::MS_MAX).is_some());
        let first = TimeRange::last_hour(i64::MIN);
        assert_eq!((first.start_ms, first.end_ms), (time::MS_MIN, time::MS_MIN));
    }

    #[test]
    fn much_is_counted_by_the_minute_and_none_is_lost() {
        let mut activity = Activity::default();
        let start_ms = minute_of(NOW_MS) - 20 * MINUTE_MS;
        let cells = 3 * ACTIVITY_CELLS_MAX as i64;
        let step_ms = 20 * MINUTE_MS / cells;
        for n in 0..cells {
            activity.apply("a", start_ms + n * step_ms, NOW_MS);
        }
        assert!(activity.exact.len() <= ACTIVITY_CELLS_MAX && activity.minutes.len() <= 20);
        let range = TimeRange::new(start_ms, start_ms + HOUR_MS).unwrap();
        let tally = activity.tally(range);
        assert!(activity.knows(range));
        assert_eq!(sum(&tally), cells as u64);
        let per_minute = (MINUTE_MS / step_ms) as u64;
        assert!(
            tally
                .bucket(0)
                .all(|(_, count)| count.abs_diff(per_minute) <= 1),
            "{tally:?}"
        );
        activity.apply("a", start_ms, NOW_MS);
        assert_eq!(
            sum(&activity.tally(range)),
            cells as u64 + 1,
            "one that comes late"
        );
    }

    #[test]
    fn a_busy_minute_does_not_fill_the_memory() {
        let mut activity = Activity::default();
        for n in 0..ACTIVITY_CELLS_MAX as i64 * 2 {
            let event_type = format!("t{}", n % 10);
            activity.apply(&event_type, minute_of(NOW_MS) + n % 6_000, NOW_MS);
        }
        assert!(activity.exact.len() <= ACTIVITY_CELLS_MAX);
        let range = TimeRange::new(minute_of(NOW_MS), minute_of(NOW_MS) + HOUR_MS).unwrap();
        assert_eq!(sum(&activity.tally(range)), 2 * ACTIVITY_CELLS_MAX as u64);
    }

    #[test]
    fn what_is_too_old_or_too_far_ahead_is_not_known() {
        let (old_ms, ahead_ms) = (NOW_MS - 2 * ACTIVITY_MS, NOW_MS + 2 * ACTIVITY_AHEAD_MS);
        let activity = counted(&[("a", NOW_MS), ("a", old_ms), ("a", ahead_ms)]);
        let knows = |start_ms, end_ms| activity.knows(TimeRange::new(start_ms, end_ms).unwrap());
        assert!(knows(NOW_MS - ACTIVITY_MS, NOW_MS) && knows(NOW_MS, ahead_ms - 1));
        assert!(!knows(old_ms, NOW_MS) && !knows(NOW_MS, ahead_ms));
        assert!(knows(ahead_ms + 1, ahead_ms + 2), "only that one is not");
        assert_eq!(sum(&activity.tally(TimeRange::last_hour(ahead_ms))), 0);
        let mut later = activity;
        let later_ms = ahead_ms + 2 * ACTIVITY_MS;
        later.apply("a", later_ms, later_ms);
        assert_eq!(later.ahead, None, "nobody asks for that time here any more");
    }

    #[test]
    fn time_takes_counts_away() {
        let mut activity = counted(&[("a", NOW_MS)]);
        activity.apply("a", NOW_MS + 2 * ACTIVITY_MS, NOW_MS + 2 * ACTIVITY_MS);
        assert_eq!(activity.exact.len(), 1);
        assert!(!activity.knows(TimeRange::last_hour(NOW_MS)));
    }

    #[test]
    fn many_minutes_and_many_types_are_bounded() {
        let mut activity = Activity::default();
        for n in 0..200_000_i64 {
            let event_type = format!("t{}", n % 100);
            activity.apply(&event_type, NOW_MS - (n * 7_919) % ACTIVITY_MS, NOW_MS);
        }
        assert!(activity.minutes.len() <= ACTIVITY_CELLS_MAX);
        assert_eq!(activity.types.len(), ACTIVITY_TYPES_MAX + 1);
        let tally = activity.tally(TimeRange::last_hour(NOW_MS));
        assert_eq!(tally.totals().count(), ACTIVITY_TYPES_MAX + 1);
        assert!(
            tally
                .totals()
                .any(|(name, count)| name == OTHER && count > 0)
        );
    }

    #[test]
    fn a_tally_has_one_row_for_all_other_types() {
        let mut tally = Tally::new(TimeRange::last_hour(NOW_MS));
        tally.add(OTHER, NOW_MS, 1);
        for n in 0..ACTIVITY_TYPES_MAX + 2 {
            tally.add(&format!("t{n}"), NOW_MS, 1);
        }
        assert_eq!(tally.totals().count(), ACTIVITY_TYPES_MAX + 1);
        assert!(tally.totals().any(|row| row == (OTHER, 3)));
    }

    #[test]
    fn types_that_are_not_kept_any_more_make_room_for_others() {
        let mut activity = Activity::default();
        let types = ACTIVITY_TYPES_MAX as i64 + 3;
        for n in 0..types {
            let at_ms = NOW_MS + n * MINUTE_MS;
            activity.apply(&format!("old-{n}"), at_ms, at_ms);
        }
        // Two of them are gone by then, and places are given anew.
        let later_ms = NOW_MS + ACTIVITY_MS + 2 * MINUTE_MS;
        for event_type in ["new-1", "new-2", "new-3", "old-5"] {
            activity.apply(event_type, later_ms, later_ms);
        }
        let all = TimeRange::new(NOW_MS + 2 * MINUTE_MS, later_ms).unwrap();
        let tally = activity.tally(all);
        let count = |of: &str| {
            let mut totals = tally.totals();
            totals.find(|(name, _)| *name == of).map(|(_, count)| count)
        };
        assert_eq!((count("new-1"), count("new-2")), (Some(1), Some(1)));
        assert_eq!((count("new-3"), count("old-5")), (None, Some(2)));
        assert_eq!(count(OTHER), Some(4), "three of then, and the last one");
        assert_eq!((count("old-1"), count("old-2")), (None, Some(1)));
    }

    proptest! {
        #[test]
        fn the_bucket_of_a_time_is_the_one_that_holds_it(start in 0..1_000_i64, span in 0..100_000_i64, part in 0.0..=1.0) {
            let range = TimeRange::new(start, start + span).unwrap();
            let at_ms = start + (span as f64 * part) as i64;
            let index = range.bucket_of(at_ms).unwrap();
            let (from, to) = range.bucket(index);
            prop_assert!(from <= at_ms && (at_ms < to || index == ACTIVITY_BUCKETS - 1));
        }

        #[test]
        fn counts_are_those_of_a_list(
            events in proptest::collection::vec((0..3_usize, 0..100_000_i64), 0..200),
            start in 0..100_000_i64,
            span in 0..100_000_i64,
            cut in 0..200_usize,
        ) {
            let named: Vec<_> = events.iter().map(|(name, at)| (["a", "b", "c"][*name], *at)).collect();
            let range = TimeRange::new(start, start + span).unwrap();
            let mut expected = Tally::new(range);
            for (name, at_ms) in &named {
                expected.add(name, *at_ms, 1);
            }
            let (before, after) = named.split_at(cut.min(named.len()));
            let mut activity = Activity::default();
            for (name, at_ms) in before {
                activity.apply(name, *at_ms, 100_000);
            }
            let kept = postcard::to_allocvec(&activity).unwrap();
            activity = postcard::from_bytes(&kept).unwrap();
            for (name, at_ms) in after {
                activity.apply(name, *at_ms, 100_000);
            }
            let found = activity.tally(range);
            prop_assert_eq!(totals(&found), totals(&expected));
            for index in 0..ACTIVITY_BUCKETS {
                let sorted = |tally: &Tally| {
                    let mut counts: Vec<_> = tally.bucket(index).map(|(n, c)| (n.to_owned(), c)).collect();
                    counts.sort_unstable();
                    counts
                };
                prop_assert_eq!(sorted(&found), sorted(&expected));
            }
        }
    }
}
