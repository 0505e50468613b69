//! Viewers that read slowly or not at all beside others: how much each reads when, what it got all
//! the same, and how the server ended it.
//!
//! Pure: bytes and times come as arguments; `driver` reads as much as it is told. What a laggard
//! got must be the beginning of what it was to get, without a hole; one that was not closed must
//! have all of it once it reads on.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::filling::Filling;
use crate::record::{Received, Recorder, Subscription, Violations};
use crate::schedule::Schedule;

/// The laggards of one phase.
#[derive(Debug)]
pub(crate) struct Laggards {
    recorder: Recorder,
    /// Bytes that each reads at a time.
    quota: usize,
    /// When they read next, nanoseconds of the generator's clock.
    next_ns: u64,
    /// How each was ended; `None` while it is open.
    ends: Vec<Option<String>>,
}

/// What came of them.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Lagged {
    laggards: usize,
    /// How they were ended, and how many; `open` those that were not.
    ended: BTreeMap<String, usize>,
    expected: u64,
    delivered: u64,
    /// Events that the closed ones did not get any more.
    missed: u64,
    /// What was wrong with what they got. Lost: to those that were not closed, or as a hole before
    /// something later.
    #[serde(flatten)]
    violations: Violations,
}

impl Laggards {
    /// Laggards `subscriptions` (of group 0), who read so many bytes a second, in phase `run`, in
    /// which `schedule` sends events with `filling`.
    pub(crate) fn new(
        run: u32,
        filling: Filling,
        subscriptions: &[Subscription],
        schedule: &Schedule,
        bytes_per_second: u64,
    ) -> Self {
        Self {
            recorder: Recorder::new(run, filling, subscriptions, 1, schedule),
            quota: (bytes_per_second * READ_EVERY_NS / 1_000_000_000) as usize,
            next_ns: 0,
            ends: vec![None; subscriptions.len()],
        }
    }

    /// The first event is due at `start_ns`.
    pub(crate) fn begin(&mut self, start_ns: u64) {
        self.next_ns = start_ns;
    }

    /// When they read next; `None` where they do not.
    pub(crate) fn next_ns(&self) -> Option<u64> {
        (self.quota > 0).then_some(self.next_ns)
    }

    /// How many bytes each reads now, where it is time at `now_ns`.
    pub(crate) fn poll_quota(&mut self, now_ns: u64) -> Option<usize> {
        self.next_ns().filter(|next_ns| *next_ns <= now_ns)?;
        self.next_ns = now_ns.max(self.next_ns + READ_EVERY_NS);
        Some(self.quota)
    }

    /// Takes a message that came to laggard `index`.
    pub(crate) fn handle_data(&mut self, index: usize, received: &Received<'_>) {
        self.recorder.handle_data(index, received);
    }

    /// The connection of laggard `index` has ended for `reason`.
    pub(crate) fn handle_closed(&mut self, index: usize, reason: &str) {
        self.ends[index].get_or_insert_with(|| reason.to_owned());
    }

    /// Whether each was closed, or has all that it was to get.
    pub(crate) fn are_settled(&self) -> bool {
        let ends = self.ends.iter().enumerate();
        let mut open = ends.filter(|(_, end)| end.is_none());
        open.all(|(index, _)| self.recorder.is_complete(index))
    }

    /// Expects no more than the events of `schedule`, which was cut since.
    pub(crate) fn expect_only(&mut self, schedule: &Schedule) {
        self.recorder.expect_only(schedule);
    }

    /// Ends the phase.
    pub(crate) fn finish(self) -> Lagged {
        let mut ended = BTreeMap::new();
        for end in &self.ends {
            let end = end.as_deref().unwrap_or("open");
            *ended.entry(end.to_owned()).or_insert(0) += 1;
        }
        let ends = self.ends.iter().enumerate();
        let missed = ends
            .filter(|(_, end)| end.is_some())
            .map(|(index, _)| self.recorder.ahead_of(index))
            .sum();
        let laggards = self.ends.len();
        let mut record = self.recorder.finish().remove(0);
        record.violations.lost -= missed;
        Lagged {
            laggards,
            ended,
            expected: record.expected,
            delivered: record.delivered,
            missed,
            violations: record.violations,
        }
    }
}

impl Lagged {
    /// Why the phase fails, where it does.
    pub(crate) fn failure(&self) -> Option<String> {
        let is_wrong = !self.violations.is_empty();
        is_wrong.then(|| "what the slow viewers got is not as it should be".to_owned())
    }

    /// The line for people.
    pub(crate) fn line(&self) -> String {
        let ended: Vec<_> = self
            .ended
            .iter()
            .map(|(end, count)| format!("{end} {count}"))
            .collect();
        format!(
            "slow {} viewers: {}; delivered {}/{}, missed after the end {} ({})",
            self.laggards,
            ended.join(", "),
            self.delivered,
            self.expected,
            self.missed,
            self.violations
        )
    }
}

/// How often a slow viewer reads.
const READ_EVERY_NS: u64 = 50_000_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload::{self, Marker};
    use crate::schedule::{Arrival, Lane};
    use std::time::Duration;

    const RUN: u32 = 7;
    const PAD: Filling = Filling::Letters(4);

    /// Two viewers of one user, who gets three events.
    fn laggards(bytes_per_second: u64) -> Laggards {
        let lane = Lane::new(0..1, 3.0, Duration::from_secs(1), Arrival::Even);
        let one = Subscription { user: 0, group: 0 };
        let schedule = Schedule::new(vec![lane]);
        Laggards::new(RUN, PAD, &[one, one], &schedule, bytes_per_second)
    }

    fn deliver(laggards: &mut Laggards, index: usize, numbers: &[u32]) {
        for n in numbers {
            let marker = Marker {
                run: RUN,
                user: 0,
                n: *n,
                intended_ns: 0,
                slip_ns: 0,
            };
            let mut text = Vec::new();
            payload::write_event(&mut text, &marker, 1_763_805_600_000, PAD.into());
            let received = Received {
                text: &text,
                wire_bytes: text.len(),
                is_deflated: false,
                now_ns: 5,
            };
            laggards.handle_data(index, &received);
        }
    }

    #[test]
    fn quota_comes_at_its_times_or_never() {
        assert_eq!(laggards(0).next_ns(), None);
        let mut slow = laggards(2000);
        slow.begin(1000);
        assert_eq!(
            (slow.poll_quota(999), slow.poll_quota(1000)),
            (None, Some(100))
        );
        assert_eq!(slow.poll_quota(1001), None);
        assert_eq!(slow.next_ns(), Some(50_001_000));
        assert_eq!(slow.poll_quota(170_000_000), Some(100));
        assert_eq!(slow.next_ns(), Some(170_000_000));
    }

    #[test]
    fn closed_viewer_has_missed_the_rest_and_nothing_is_lost() {
        let mut laggards = laggards(0);
        deliver(&mut laggards, 0, &[0, 1]);
        deliver(&mut laggards, 1, &[0, 1, 2]);
        assert!(!laggards.are_settled());
        laggards.handle_closed(0, "close code 4008");
        laggards.handle_closed(0, "reset");
        assert!(laggards.are_settled());
        let lagged = laggards.finish();
        assert_eq!((lagged.missed, lagged.failure()), (1, None));
        assert_eq!(
            lagged.line(),
            "slow 2 viewers: close code 4008 1, open 1; delivered 5/6, missed after the end 1 \
             (lost 0 dup 0 reordered 0 foreign 0 malformed 0)"
        );
    }

    #[test]
    fn hole_or_silence_is_a_loss() {
        let mut holed = laggards(0);
        deliver(&mut holed, 0, &[0, 2]);
        deliver(&mut holed, 1, &[0, 1, 2]);
        holed.handle_closed(0, "reset");
        let lagged = holed.finish();
        assert_eq!((lagged.missed, lagged.violations.lost), (0, 1));
        let silent = laggards(0).finish();
        assert_eq!((silent.missed, silent.violations.lost), (0, 6));
        assert!(silent.failure().is_some());
    }
}
