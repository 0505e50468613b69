//! What was delivered: each delivery checked against what its subscriber was to get, and its
//! latency from the intended send time.
//!
//! Pure: bytes and times come as arguments. One `Recorder` serves one phase; `driver` feeds it.

use std::collections::BTreeMap;
use std::fmt;

use hdrhistogram::Histogram;
use latency_report::latency_histogram;
use serde::{Deserialize, Serialize};

use crate::filling::Filling;
use crate::interval::Latencies;
use crate::payload::{self, Marker, MarkerFinder};
use crate::schedule::Schedule;

/// What one subscriber connection is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Subscription {
    /// The user whose events it is to get, all of them and no others.
    pub(crate) user: u32,
    /// Index of the group under which its deliveries are counted.
    pub(crate) group: usize,
}

/// A message as it came to a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Received<'a> {
    /// What it says, inflated.
    pub(crate) text: &'a [u8],
    /// Its bytes on the wire (under TLS: before that), frame headers included.
    pub(crate) wire_bytes: usize,
    /// Whether it came deflated.
    pub(crate) is_deflated: bool,
    /// When it was read, nanoseconds of the generator's clock.
    pub(crate) now_ns: u64,
}

/// Deliveries that are not as they should be. Any but zero fails a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Violations {
    /// Events that never came.
    pub(crate) lost: u64,
    /// Events that came again.
    pub(crate) duplicated: u64,
    /// Events that came after a later one.
    pub(crate) reordered: u64,
    /// Events of another user, or of another phase.
    pub(crate) foreign: u64,
    /// Sampled deliveries that were not the JSON that was published.
    pub(crate) malformed: u64,
}

impl Violations {
    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// All five counts, as reports for people tell them.
impl fmt::Display for Violations {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            lost,
            duplicated,
            reordered,
            foreign,
            malformed,
        } = self;
        write!(
            out,
            "lost {lost} dup {duplicated} reordered {reordered} foreign {foreign} malformed \
             {malformed}"
        )
    }
}

/// The deliveries of one group of subscribers in one phase.
#[derive(Debug, Clone)]
pub(crate) struct GroupRecord {
    /// Deliveries that the schedule asks for.
    pub(crate) expected: u64,
    /// Distinct deliveries that came: `expected == delivered + violations.lost` at the end.
    pub(crate) delivered: u64,
    /// Bytes of all frames that delivered, headers included.
    pub(crate) frame_bytes: u64,
    /// Bytes of their texts, inflated.
    pub(crate) text_bytes: u64,
    /// How many of them came deflated.
    pub(crate) deflated: u64,
    /// What was wrong.
    pub(crate) violations: Violations,
    /// Nanoseconds from the intended send to the read that brought it.
    pub(crate) latency_ns: Histogram<u64>,
    /// The same from the actual send.
    pub(crate) service_ns: Histogram<u64>,
}

/// Checks and counts the deliveries of one phase.
#[derive(Debug)]
pub(crate) struct Recorder {
    run: u32,
    filling: Filling,
    finder: MarkerFinder,
    cursors: Vec<Cursor>,
    groups: Vec<GroupRecord>,
    outstanding: u64,
    until_sample: u32,
    first_delivery: Option<Vec<u8>>,
    others: BTreeMap<String, u64>,
}

impl Recorder {
    /// A recorder for phase `run`, in which `schedule` sends events with `filling` to
    /// `subscriptions`, counted in `groups` groups.
    pub(crate) fn new(
        run: u32,
        filling: Filling,
        subscriptions: &[Subscription],
        groups: usize,
        schedule: &Schedule,
    ) -> Self {
        let cursors: Vec<_> = subscriptions
            .iter()
            .map(|subscription| Cursor::new(*subscription, schedule.events_of(subscription.user)))
            .collect();
        let mut groups = vec![GroupRecord::new(); groups];
        for cursor in &cursors {
            groups[cursor.group].expected += u64::from(cursor.expected);
        }
        Self {
            run,
            filling,
            finder: MarkerFinder::new(),
            outstanding: groups.iter().map(|group| group.expected).sum(),
            cursors,
            groups,
            until_sample: 0,
            first_delivery: None,
            others: BTreeMap::new(),
        }
    }

    /// A recorder that expects nothing: before, between and after the phases.
    pub(crate) fn idle(subscriptions: &[Subscription], groups: usize) -> Self {
        Self::new(
            payload::RUNS,
            Filling::Letters(0),
            subscriptions,
            groups,
            &Schedule::new(Vec::new()),
        )
    }

    /// Takes a message that came to subscriber `index`.
    pub(crate) fn handle_data(&mut self, index: usize, received: &Received<'_>) {
        if !self.handle_event(index, received) {
            self.count_other(received.text);
        }
    }

    /// Takes a message that came to subscriber `index`, where it is an event; says whether.
    pub(crate) fn handle_event(&mut self, index: usize, received: &Received<'_>) -> bool {
        let marker = self.finder.find(received.text);
        if let Some(marker) = &marker {
            self.handle_marker(index, marker, received);
        }
        marker.is_some()
    }

    fn handle_marker(&mut self, index: usize, marker: &Marker, received: &Received<'_>) {
        let text = received.text;
        let cursor = &mut self.cursors[index];
        let group = &mut self.groups[cursor.group];
        let is_own = marker.run == self.run && marker.user == cursor.user;
        if !is_own || marker.n >= cursor.expected {
            group.violations.foreign += 1;
            return;
        }
        match cursor.place(marker.n) {
            Place::InOrder => {}
            Place::Late => group.violations.reordered += 1,
            Place::Again => {
                group.violations.duplicated += 1;
                return;
            }
        }
        group.delivered += 1;
        group.frame_bytes += received.wire_bytes as u64;
        group.text_bytes += text.len() as u64;
        group.deflated += u64::from(received.is_deflated);
        let latency_ns = received.now_ns.saturating_sub(marker.intended_ns);
        group.latency_ns.saturating_record(latency_ns);
        let service_ns = latency_ns.saturating_sub(u64::from(marker.slip_ns));
        group.service_ns.saturating_record(service_ns);
        self.outstanding -= 1;
        if self.until_sample == 0 {
            self.until_sample = SAMPLE_INTERVAL;
            let is_whole = payload::is_whole(text, marker, self.filling);
            group.violations.malformed += u64::from(!is_whole);
            self.first_delivery.get_or_insert_with(|| text.to_vec());
        }
        self.until_sample -= 1;
    }

    /// Deliveries that have not come yet.
    pub(crate) fn outstanding(&self) -> u64 {
        self.outstanding
    }

    /// Whether subscriber `index` has got all that it was to get.
    pub(crate) fn is_complete(&self, index: usize) -> bool {
        let cursor = &self.cursors[index];
        cursor.next == cursor.expected
            && cursor
                .missing
                .as_ref()
                .is_none_or(|missing| missing.is_empty())
    }

    /// Events that subscriber `index` was to get after the last that came.
    pub(crate) fn ahead_of(&self, index: usize) -> u64 {
        let cursor = &self.cursors[index];
        u64::from(cursor.expected - cursor.next)
    }

    /// Expects no more than the events of `schedule`, which was cut since: what it has lost was
    /// never sent.
    pub(crate) fn expect_only(&mut self, schedule: &Schedule) {
        for cursor in &mut self.cursors {
            let unsent = cursor.expected - schedule.events_of(cursor.user);
            cursor.expected -= unsent;
            self.groups[cursor.group].expected -= u64::from(unsent);
            self.outstanding -= u64::from(unsent);
        }
    }

    /// The first delivery of the phase.
    pub(crate) fn first_delivery(&self) -> Option<&[u8]> {
        self.first_delivery.as_deref()
    }

    /// How many messages came that carry no marker, by their type.
    pub(crate) fn others(&self) -> &BTreeMap<String, u64> {
        &self.others
    }

    /// Leaves the latencies so far in `empty`, by group, and begins anew with what was there.
    pub(crate) fn swap_latencies(&mut self, empty: &mut [Latencies]) {
        for (group, empty) in self.groups.iter_mut().zip(empty) {
            std::mem::swap(&mut group.latency_ns, &mut empty.latency_ns);
            std::mem::swap(&mut group.service_ns, &mut empty.service_ns);
        }
    }

    /// Ends the phase: what has not come by now is lost.
    pub(crate) fn finish(self) -> Vec<GroupRecord> {
        let mut groups = self.groups;
        for group in &mut groups {
            group.violations.lost = group.expected - group.delivered;
        }
        groups
    }

    /// Counts a message without a marker by its type.
    pub(crate) fn count_other(&mut self, text: &[u8]) {
        let kind = message_kind(text).unwrap_or_else(|| "(no type)".to_owned());
        if self.others.len() < OTHER_KINDS_MAX || self.others.contains_key(&kind) {
            *self.others.entry(kind).or_insert(0) += 1;
        }
    }
}

impl Violations {
    fn add(&mut self, other: &Self) {
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.reordered += other.reordered;
        self.foreign += other.foreign;
        self.malformed += other.malformed;
    }
}

impl GroupRecord {
    /// Adds those of other subscribers of the group.
    pub(crate) fn add(&mut self, other: &Self) {
        self.expected += other.expected;
        self.delivered += other.delivered;
        self.frame_bytes += other.frame_bytes;
        self.text_bytes += other.text_bytes;
        self.deflated += other.deflated;
        self.violations.add(&other.violations);
        self.latency_ns += &other.latency_ns;
        self.service_ns += &other.service_ns;
    }

    /// Of a group that expects nothing.
    pub(crate) fn new() -> Self {
        Self {
            expected: 0,
            delivered: 0,
            frame_bytes: 0,
            text_bytes: 0,
            deflated: 0,
            violations: Violations::default(),
            latency_ns: latency_histogram(),
            service_ns: latency_histogram(),
        }
    }
}

/// The name of a message: its `type`, or the keen dialect's `event_type`.
pub(crate) fn message_kind(text: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Named {
        #[serde(alias = "event_type")]
        r#type: String,
    }
    serde_json::from_slice::<Named>(text)
        .ok()
        .map(|named| named.r#type)
}

/// How one subscriber stands: which of its events have come.
#[derive(Debug)]
struct Cursor {
    user: u32,
    group: usize,
    expected: u32,
    /// One past the highest number that came.
    next: u32,
    /// Ranges below `next` that have not come, first to past-the-last. Mostly there is none, and
    /// a thousand cursors stay in the cache.
    #[expect(
        clippy::box_collection,
        reason = "8 bytes instead of 24 in each of the cursors"
    )]
    missing: Option<Box<BTreeMap<u32, u32>>>,
}

enum Place {
    InOrder,
    Late,
    Again,
}

impl Cursor {
    fn new(subscription: Subscription, expected: u32) -> Self {
        let Subscription { user, group } = subscription;
        Self {
            user,
            group,
            expected,
            next: 0,
            missing: None,
        }
    }

    fn place(&mut self, n: u32) -> Place {
        if n < self.next {
            return if self.take_missing(n) {
                Place::Late
            } else {
                Place::Again
            };
        }
        if n > self.next {
            self.missing.get_or_insert_default().insert(self.next, n);
        }
        self.next = n + 1;
        Place::InOrder
    }

    fn take_missing(&mut self, n: u32) -> bool {
        let Some(missing) = &mut self.missing else {
            return false;
        };
        let Some((&start, &end)) = missing.range(..=n).next_back().filter(|(_, end)| n < **end)
        else {
            return false;
        };
        missing.remove(&start);
        if start < n {
            missing.insert(start, n);
        }
        if n + 1 < end {
            missing.insert(n + 1, end);
        }
        true
    }
}

/// One delivery in this many is parsed as JSON and compared as a whole.
const SAMPLE_INTERVAL: u32 = 1024;
/// Kinds of other messages that are counted apart; a server makes up no more.
const OTHER_KINDS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::schedule::{Arrival, Lane};
    use proptest::prelude::*;
    use std::time::Duration;

    const RUN: u32 = 7;
    const PAD: Filling = Filling::Letters(4);

    /// User 1 gets five events on two connections, user 2 five on one, in another group.
    fn recorder() -> Recorder {
        let lane = Lane::new(1..3, 10.0, Duration::from_secs(1), Arrival::Even);
        let own = Subscription { user: 1, group: 0 };
        let subscriptions = [own, own, Subscription { user: 2, group: 1 }];
        Recorder::new(RUN, PAD, &subscriptions, 2, &Schedule::new(vec![lane]))
    }

    fn text(run: u32, user: u32, n: u32) -> Vec<u8> {
        let mut out = Vec::new();
        let marker = Marker {
            run,
            user,
            n,
            intended_ns: 1_000_000,
            slip_ns: 300_000,
        };
        payload::write_event(&mut out, &marker, 1_763_805_600_000, PAD.into());
        out
    }

    fn received(text: &[u8], now_ns: u64) -> Received<'_> {
        Received {
            text,
            wire_bytes: 100,
            is_deflated: false,
            now_ns,
        }
    }

    fn deliver(recorder: &mut Recorder, index: usize, numbers: &[u32]) {
        let user = recorder.cursors[index].user;
        for n in numbers {
            recorder.handle_data(index, &received(&text(RUN, user, *n), 3_000_000));
        }
    }

    fn check(first: &[u32], delivered: u64, expected: Violations) {
        let mut recorder = recorder();
        deliver(&mut recorder, 0, first);
        deliver(&mut recorder, 1, &[0, 1, 2, 3, 4]);
        deliver(&mut recorder, 2, &[0, 1, 2, 3, 4]);
        assert_eq!(recorder.outstanding(), expected.lost, "{first:?}");
        let groups = recorder.finish();
        assert_eq!(
            (groups[0].delivered, groups[0].violations),
            (delivered, expected),
            "{first:?}"
        );
        assert_eq!((groups[0].expected, groups[1].expected), (10, 5));
        assert_eq!(groups[0].latency_ns.len(), delivered);
        assert_eq!(groups[0].frame_bytes, delivered * 100);
        assert!(groups[1].violations.is_empty());
    }

    #[test]
    fn deliveries_of_one_connection() {
        let none = Violations::default();
        check(&[0, 1, 2, 3, 4], 10, none);
        check(&[], 5, Violations { lost: 5, ..none });
        check(&[0, 1, 2, 3], 9, Violations { lost: 1, ..none });
        check(&[1, 2, 4], 8, Violations { lost: 2, ..none });
        check(
            &[0, 0, 1, 2, 3, 4],
            10,
            Violations {
                duplicated: 1,
                ..none
            },
        );
        check(
            &[0, 2, 1, 3, 4],
            10,
            Violations {
                reordered: 1,
                ..none
            },
        );
        check(
            &[4, 3, 2, 1, 0],
            10,
            Violations {
                reordered: 4,
                ..none
            },
        );
        check(
            &[4, 2, 2],
            7,
            Violations {
                lost: 3,
                reordered: 1,
                duplicated: 1,
                ..none
            },
        );
        check(
            &[0, 3, 1, 1, 4],
            9,
            Violations {
                lost: 1,
                reordered: 1,
                duplicated: 1,
                ..none
            },
        );
        check(&[0, 1, 2, 3, 4, 5], 10, Violations { foreign: 1, ..none });
    }

    #[test]
    fn subscriber_is_complete_when_nothing_is_missing() {
        let mut recorder = recorder();
        for (numbers, is_complete) in [(vec![0, 1, 4], false), (vec![3], false), (vec![2], true)] {
            deliver(&mut recorder, 0, &numbers);
            assert_eq!(recorder.is_complete(0), is_complete, "{numbers:?}");
        }
        assert!(!recorder.is_complete(1));
    }

    #[test]
    fn what_was_never_sent_is_not_lost() {
        let lane = Lane::new(1..3, 10.0, Duration::from_secs(1), Arrival::Even);
        let (mut schedule, mut recorder) = (Schedule::new(vec![lane]), recorder());
        let sent = std::iter::from_fn(|| schedule.pop()).take(3).count();
        schedule.cut();
        recorder.expect_only(&schedule);
        assert_eq!((sent, recorder.outstanding()), (3, 2 + 2 + 1));
        deliver(&mut recorder, 0, &[0, 1]);
        deliver(&mut recorder, 1, &[0, 2]);
        deliver(&mut recorder, 2, &[0]);
        let groups = recorder.finish();
        let Violations { lost, foreign, .. } = groups[0].violations;
        assert_eq!((lost, foreign), (1, 1));
        assert!(groups[1].violations.is_empty());
    }

    #[test]
    fn event_of_another_user_or_run_is_foreign_and_delivers_nothing() {
        let mut recorder = recorder();
        recorder.handle_data(0, &received(&text(RUN, 2, 0), 0));
        recorder.handle_data(0, &received(&text(RUN + 1, 1, 0), 0));
        recorder.handle_data(2, &received(&text(RUN, 1, 0), 0));
        let groups = recorder.finish();
        let foreign: Vec<_> = groups
            .iter()
            .map(|group| group.violations.foreign)
            .collect();
        assert_eq!(foreign, [2, 1]);
        assert_eq!(groups[0].delivered + groups[1].delivered, 0);
    }

    #[test]
    fn idle_recorder_calls_every_event_foreign() {
        let mut recorder = Recorder::idle(&[Subscription { user: 1, group: 0 }], 1);
        recorder.handle_data(0, &received(&text(RUN, 1, 0), 0));
        assert_eq!(recorder.finish()[0].violations.foreign, 1);
    }

    #[test]
    fn latency_counts_from_the_intended_time() {
        let mut recorder = recorder();
        deliver(&mut recorder, 0, &[0]);
        let group = &recorder.finish()[0];
        for (histogram, expected) in [
            (&group.latency_ns, 2_000_000),
            (&group.service_ns, 1_700_000),
        ] {
            let max = histogram.max();
            assert!(
                histogram.equivalent(max, expected),
                "{max} is not {expected}"
            );
        }
    }

    #[test]
    fn sampled_delivery_with_changed_data_is_malformed() {
        let mut changed = text(RUN, 1, 0);
        let x = changed.iter().rposition(|byte| *byte == b'x').unwrap();
        changed[x] = b'y';
        let mut recorder = recorder();
        recorder.handle_data(0, &received(&changed, 0));
        assert_eq!(recorder.first_delivery(), Some(changed.as_slice()));
        assert_eq!(recorder.finish()[0].violations.malformed, 1);
    }

    #[test]
    fn server_messages_are_counted_by_type() {
        let mut recorder = recorder();
        for text in [
            r#"{"type":"cursor"}"#,
            r#"{"event_type":"lag"}"#,
            r#"{"type":"cursor"}"#,
            "x",
        ] {
            recorder.handle_data(0, &received(text.as_bytes(), 0));
        }
        let others: Vec<_> = recorder
            .others()
            .iter()
            .map(|(kind, n)| (kind.as_str(), *n))
            .collect();
        assert_eq!(others, [("(no type)", 1), ("cursor", 2), ("lag", 1)]);
    }

    proptest! {
        /// The ranges agree with a plain set of what has come.
        #[test]
        fn cursor_equals_a_set(numbers in prop::collection::vec(0_u32..40, 0..120)) {
            let mut cursor = Cursor::new(Subscription { user: 0, group: 0 }, 40);
            let mut seen = std::collections::BTreeSet::new();
            for n in numbers {
                let is_late = seen.last().is_some_and(|last| n < *last);
                let is_new = seen.insert(n);
                match cursor.place(n) {
                    Place::InOrder => prop_assert!(is_new && !is_late),
                    Place::Late => prop_assert!(is_new && is_late),
                    Place::Again => prop_assert!(!is_new),
                }
            }
        }
    }
}
