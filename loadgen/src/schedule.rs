//! The open-loop schedule: which event is due when, fixed before the run begins.
//!
//! Owns the arithmetic of intended send times and of each user's event numbers. Knows no clock
//! and no socket: times are nanoseconds after the phase's start, and whoever drives it asks what
//! is due. A late generator never moves a later event (no coordinated omission).
//! Source: the constant-throughput model of wrk2 and of HdrHistogram's documentation.

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use crate::dice::{Dice, GOLDEN};

/// One event to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Due {
    /// Intended send time, nanoseconds after the phase's start.
    pub(crate) at_ns: u64,
    /// The user whose stream it belongs to.
    pub(crate) user: u32,
    /// Its number among this user's events of the phase, from 0 without gaps.
    pub(crate) n: u32,
}

/// How the events of a lane arrive. All shapes have the lane's mean rate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Arrival {
    /// So many at once, at a constant rate; from 1.
    Burst(u64),
    /// Each at the beginning of its interval: the classic constant rate.
    Even,
    /// As a Poisson process of this seed: each at a time of its own, anywhere in the lane's whole
    /// duration.
    Poisson(u64),
    /// At a rate that begins with this share of the mean (0 to 2) and rises or falls evenly, to
    /// end as far on the other side of it.
    Ramp(f64),
    /// Each at a point of its interval that walks through it evenly (multiples of the golden
    /// ratio). For lanes that run beside another one: two even lanes keep one phase for the whole
    /// run, so that either every event or none of them meets the neighbour's fan-out.
    Spread,
}

/// For reports.
impl fmt::Display for Arrival {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Burst(events) => write!(out, "bursts of {events}"),
            Self::Even => write!(out, "constant"),
            Self::Poisson(seed) => write!(out, "poisson of seed {seed}"),
            Self::Ramp(share) => write!(out, "ramp from {share} of the mean"),
            Self::Spread => write!(out, "spread"),
        }
    }
}

/// The part of a schedule that one of several threads sends: the events of every `of`th user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Share {
    /// Which; below `of`.
    pub(crate) index: u32,
    /// Of how many; from 1.
    pub(crate) of: u32,
}

impl Share {
    /// All of it.
    pub(crate) const WHOLE: Self = Self { index: 0, of: 1 };

    fn has(self, user: u32) -> bool {
        user % self.of == self.index
    }
}

/// Users that share one rate; their events go round in order of the user's number.
#[derive(Debug, Clone)]
pub(crate) struct Lane {
    users: Range<u32>,
    events: u64,
    /// Events that are due at the same time, one after the other; from 1.
    at_once: u64,
    /// From one such time to the next, in the mean.
    interval_ns: f64,
    arrival: Arrival,
    /// Events that were taken.
    next: u64,
    /// When the next one is due.
    next_at_ns: u64,
    /// What is left of the lane's duration (Poisson).
    left_ns: f64,
    share: Share,
}

impl Lane {
    /// A lane of `events_per_second` in total over `users` (not empty) for `duration`.
    pub(crate) fn new(
        users: Range<u32>,
        events_per_second: f64,
        duration: Duration,
        arrival: Arrival,
    ) -> Self {
        let events = (events_per_second * duration.as_secs_f64()).round() as u64;
        Self::of(users, 1e9 / events_per_second, events, arrival)
    }

    /// A lane of `events` for each of `users` (not empty), at `events_per_second` in total.
    pub(crate) fn counted(users: Range<u32>, events_per_second: f64, events: u32) -> Self {
        let events = users.len() as u64 * u64::from(events);
        Self::of(users, 1e9 / events_per_second, events, Arrival::Even)
    }

    /// A lane of exactly one event, due at once.
    pub(crate) fn single(user: u32) -> Self {
        Self::of(user..user + 1, 1.0, 1, Arrival::Even)
    }

    /// The same events, but at least `batch` (from 1) of them due at the same time.
    pub(crate) fn in_batches(self, batch: u64) -> Self {
        let event_ns = self.interval_ns / self.at_once as f64;
        let at_once = self.at_once.max(batch);
        Self {
            at_once,
            interval_ns: event_ns * at_once as f64,
            ..self
        }
        .begun()
    }

    fn of(users: Range<u32>, event_ns: f64, events: u64, arrival: Arrival) -> Self {
        let at_once = match arrival {
            Arrival::Burst(at_once) => at_once.max(1),
            _ => 1,
        };
        Self {
            users,
            events,
            at_once,
            interval_ns: event_ns * at_once as f64,
            arrival,
            next: 0,
            next_at_ns: 0,
            left_ns: 0.0,
            share: Share::WHOLE,
        }
        .begun()
    }

    /// With its first time found.
    fn begun(mut self) -> Self {
        self.left_ns = self.times() as f64 * self.interval_ns;
        self.next_at_ns = self.time_ns(0);
        self
    }

    fn due(&self) -> Due {
        let users = self.users.len() as u64;
        Due {
            at_ns: self.next_at_ns,
            user: self.users.start + (self.next % users) as u32,
            n: (self.next / users) as u32,
        }
    }

    /// Goes on to the next event of its share.
    fn advance(&mut self) {
        self.step();
        self.skip();
    }

    /// Passes over events that are not of its share.
    fn skip(&mut self) {
        while self.next < self.events && !self.share.has(self.due().user) {
            self.step();
        }
    }

    fn step(&mut self) {
        self.next += 1;
        if self.next < self.events && self.next.is_multiple_of(self.at_once) {
            self.next_at_ns = self.time_ns(self.next / self.at_once);
        }
    }

    /// At how many times events are due.
    fn times(&self) -> u64 {
        self.events.div_ceil(self.at_once)
    }

    /// The time with this index. Those of a Poisson lane are asked for one after the other.
    fn time_ns(&mut self, index: u64) -> u64 {
        match self.arrival {
            Arrival::Poisson(seed) => self.poisson_ns(seed, index),
            _ => self.fixed_ns(index),
        }
    }

    /// The next of as many independent times, evenly distributed over the duration, as there are:
    /// a Poisson process of which the count is given. With k of them left to come, the next takes
    /// from what is left of the duration all but the k-th root of an even number from 0 to 1.
    /// Source: J. L. Bentley, J. B. Saxe, "Generating Sorted Lists of Random Numbers" (1980).
    fn poisson_ns(&mut self, seed: u64, index: u64) -> u64 {
        let Some(left) = self.times().checked_sub(index).filter(|left| *left > 0) else {
            return 0;
        };
        let unit = Dice::new(seed.wrapping_mul(GOLDEN) ^ index).unit();
        self.left_ns *= unit.powf(1.0 / left as f64);
        (self.times() as f64 * self.interval_ns - self.left_ns) as u64
    }

    /// Exact up to 2^53 ns (104 days), and rising.
    fn fixed_ns(&self, index: u64) -> u64 {
        let at = index as f64;
        let intervals = match self.arrival {
            // The fraction stays below 1.
            Arrival::Spread => at + (at * GOLDEN_RATIO).fract(),
            // Events until a share x of the duration: x times (from + (1 - from) x) of all.
            Arrival::Ramp(from) if index > 0 => {
                let share = at / self.times() as f64;
                2.0 * at / (from + (from * from + 4.0 * (1.0 - from) * share).sqrt())
            }
            _ => at,
        };
        (intervals * self.interval_ns) as u64
    }

    /// No event is due later than this.
    fn last_at_ns(&self) -> Option<u64> {
        let last = self.times().checked_sub(1)?;
        Some(match self.arrival {
            Arrival::Poisson(_) => (self.times() as f64 * self.interval_ns) as u64,
            _ => self.fixed_ns(last),
        })
    }

    fn events_of(&self, user: u32) -> u32 {
        if !self.users.contains(&user) {
            return 0;
        }
        let users = u64::from(self.users.end - self.users.start);
        let before = u64::from(user - self.users.start);
        ((self.events + users - 1 - before) / users) as u32
    }
}

/// Several lanes, merged by intended time.
#[derive(Debug, Clone)]
pub(crate) struct Schedule {
    lanes: Vec<Lane>,
}

impl Schedule {
    /// Merges `lanes`; where two events are due at the same time the earlier lane goes first.
    pub(crate) fn new(lanes: Vec<Lane>) -> Self {
        Self { lanes }
    }

    /// The same schedule, of which only `share` is popped. It holds the others' events all the same.
    pub(crate) fn shared(mut self, share: Share) -> Self {
        for lane in &mut self.lanes {
            lane.share = share;
            if !lane.users.clone().any(|user| share.has(user)) {
                lane.next = lane.events;
            }
            lane.skip();
        }
        self
    }

    /// The next event's intended time, or `None` when all were popped.
    pub(crate) fn next_at_ns(&self) -> Option<u64> {
        self.earliest().map(|(_, due)| due.at_ns)
    }

    /// Takes the next event.
    pub(crate) fn pop(&mut self) -> Option<Due> {
        let (lane, due) = self.earliest()?;
        self.lanes[lane].advance();
        Some(due)
    }

    /// Ends the schedule here: it holds what was popped and nothing more.
    pub(crate) fn cut(&mut self) {
        for lane in &mut self.lanes {
            lane.events = lane.next;
        }
    }

    /// How many events the whole schedule holds for `user`, popped or not.
    pub(crate) fn events_of(&self, user: u32) -> u32 {
        self.lanes.iter().map(|lane| lane.events_of(user)).sum()
    }

    /// No event is due later than this: the intended time of the last one, or of a Poisson lane
    /// its duration. 0 where there is none.
    pub(crate) fn last_at_ns(&self) -> u64 {
        let lanes = self.lanes.iter();
        lanes.filter_map(Lane::last_at_ns).max().unwrap_or(0)
    }

    fn earliest(&self) -> Option<(usize, Due)> {
        let lanes = self.lanes.iter().enumerate();
        let open = lanes.filter(|(_, lane)| lane.next < lane.events);
        open.map(|(index, lane)| (index, lane.due()))
            .min_by_key(|(_, due)| due.at_ns)
    }
}

const GOLDEN_RATIO: f64 = 0.618_033_988_749_894_9;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn drain(mut schedule: Schedule) -> Vec<Due> {
        std::iter::from_fn(|| schedule.pop()).collect()
    }

    fn lane(users: Range<u32>, rate: f64, seconds: f64, arrival: Arrival) -> Lane {
        Lane::new(users, rate, Duration::from_secs_f64(seconds), arrival)
    }

    #[test]
    fn even_lane_keeps_its_interval_and_goes_round_the_users() {
        let events = drain(Schedule::new(vec![lane(
            3..5,
            1000.0,
            0.005,
            Arrival::Even,
        )]));
        let seen: Vec<_> = events
            .iter()
            .map(|due| (due.at_ns, due.user, due.n))
            .collect();
        assert_eq!(
            seen,
            [
                (0, 3, 0),
                (1_000_000, 4, 0),
                (2_000_000, 3, 1),
                (3_000_000, 4, 1),
                (4_000_000, 3, 2)
            ]
        );
    }

    #[test]
    fn rate_that_divides_no_second_does_not_drift() {
        let events = drain(Schedule::new(vec![lane(
            0..1,
            30_000.0,
            10.0,
            Arrival::Even,
        )]));
        assert_eq!(events.len(), 300_000);
        assert_eq!(events[30_000].at_ns, 1_000_000_000);
        assert_eq!(events[299_999].at_ns, 9_999_966_666);
    }

    #[test]
    fn counts_per_user_are_what_pops() {
        let lanes = vec![
            lane(0..7, 100.0, 0.53, Arrival::Spread),
            lane(7..8, 20.0, 0.53, Arrival::Even),
        ];
        let schedule = Schedule::new(lanes);
        let events = drain(schedule.clone());
        for user in 0..9 {
            let numbers: Vec<_> = events
                .iter()
                .filter(|due| due.user == user)
                .map(|due| due.n)
                .collect();
            assert_eq!(
                numbers,
                (0..schedule.events_of(user)).collect::<Vec<_>>(),
                "user {user}"
            );
        }
        assert_eq!(schedule.events_of(8), 0);
        assert_eq!(schedule.last_at_ns(), events[events.len() - 1].at_ns);
        assert!(events.is_sorted_by_key(|due| due.at_ns));
    }

    #[test]
    fn spread_lane_visits_every_part_of_the_neighbours_interval() {
        let events = drain(Schedule::new(vec![lane(
            0..1,
            100.0,
            10.0,
            Arrival::Spread,
        )]));
        let mut tenths = [0_u32; 10];
        for due in &events {
            tenths[(due.at_ns % 10_000_000 / 1_000_000) as usize] += 1;
        }
        assert!(
            tenths.iter().all(|count| (95..=105).contains(count)),
            "{tenths:?}"
        );
    }

    #[test]
    fn counted_lane_holds_as_many_for_each_user() {
        let schedule = Schedule::new(vec![Lane::counted(4..7, 1000.0, 5)]);
        let events: Vec<_> = (3..8).map(|user| schedule.events_of(user)).collect();
        assert_eq!(events, [0, 5, 5, 5, 0]);
        assert_eq!(drain(schedule).len(), 15);
    }

    #[test]
    fn cut_schedule_holds_what_was_popped() {
        let quick = lane(0..2, 1000.0, 1.0, Arrival::Even);
        let mut schedule = Schedule::new(vec![quick, lane(2..3, 1.0, 5.0, Arrival::Even)]);
        let popped: Vec<_> = std::iter::from_fn(|| schedule.pop()).take(6).collect();
        schedule.cut();
        assert_eq!((schedule.pop(), schedule.next_at_ns()), (None, None));
        for user in 0..3 {
            let count = popped.iter().filter(|due| due.user == user).count();
            assert_eq!(schedule.events_of(user), count as u32, "user {user}");
        }
        assert_eq!(schedule.last_at_ns(), 4_000_000);
    }

    #[test]
    fn single_event_and_nothing_at_all() {
        assert_eq!(
            drain(Schedule::new(vec![Lane::single(4)])),
            [Due {
                at_ns: 0,
                user: 4,
                n: 0
            }]
        );
        let none = Schedule::new(vec![lane(0..1, 20.0, 0.0, Arrival::Even)]);
        assert_eq!((none.next_at_ns(), none.last_at_ns()), (None, 0));
    }

    #[test]
    fn bursts_come_at_once_and_batches_widen_them() {
        let times = |lane: Lane| -> Vec<_> {
            let due = drain(Schedule::new(vec![lane])).into_iter();
            due.map(|due| due.at_ns / 1_000_000).collect()
        };
        let burst = || lane(0..2, 1000.0, 0.007, Arrival::Burst(3));
        assert_eq!(times(burst()), [0, 0, 0, 3, 3, 3, 6]);
        assert_eq!(times(burst().in_batches(2)), [0, 0, 0, 3, 3, 3, 6]);
        assert_eq!(times(burst().in_batches(4)), [0, 0, 0, 0, 4, 4, 4]);
        let even = lane(0..2, 1000.0, 0.005, Arrival::Even);
        assert_eq!(times(even.in_batches(2)), [0, 0, 2, 2, 4]);
    }

    #[test]
    fn ramp_changes_its_rate_evenly() {
        for from in [0.0, 0.5, 1.0, 1.7, 2.0] {
            let events = drain(Schedule::new(vec![lane(
                0..1,
                1000.0,
                10.0,
                Arrival::Ramp(from),
            )]));
            let mut tenths = [0_u32; 10];
            for due in &events {
                tenths[(due.at_ns / 1_000_000_000) as usize] += 1;
            }
            for (tenth, count) in tenths.iter().enumerate() {
                let share = (tenth as f64 + 0.5) / 10.0;
                let expected = 1000.0 * (from + 2.0 * (1.0 - from) * share);
                let count = f64::from(*count);
                assert!((count - expected).abs() <= 2.0, "{from}: {tenths:?}");
            }
        }
    }

    #[test]
    fn poisson_gaps_are_as_far_from_their_mean_as_they_should_be() {
        let events = drain(Schedule::new(vec![lane(
            0..1,
            1000.0,
            20.0,
            Arrival::Poisson(3),
        )]));
        let gaps: Vec<_> = events
            .windows(2)
            .map(|two| (two[1].at_ns - two[0].at_ns) as f64 / 1e6)
            .collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>();
        // Of an exponential distribution the deviation is the mean, and 1/e is beyond the mean.
        let deviation = (variance / gaps.len() as f64).sqrt();
        assert!((0.97..1.03).contains(&mean), "{mean}");
        assert!((0.95..1.05).contains(&deviation), "{deviation}");
        let beyond = gaps.iter().filter(|gap| **gap > mean).count() as f64 / gaps.len() as f64;
        assert!((0.35..0.39).contains(&beyond), "{beyond}");
    }

    fn arrival() -> impl Strategy<Value = Arrival> {
        prop_oneof![
            (1_u64..50).prop_map(Arrival::Burst),
            Just(Arrival::Even),
            any::<u64>().prop_map(Arrival::Poisson),
            (0.0..=2.0).prop_map(Arrival::Ramp),
            Just(Arrival::Spread),
        ]
    }

    proptest! {
        #[test]
        fn every_shape_holds_its_rate_and_never_goes_back(
            arrival in arrival(), rate in 0.5..20_000.0, seconds in 0.0..0.3, batch in 1_u64..40,
            users in 1_u32..9,
        ) {
            let lane = lane(0..users, rate, seconds, arrival).in_batches(batch);
            let schedule = Schedule::new(vec![lane]);
            let events = drain(schedule.clone());
            prop_assert_eq!(&events, &drain(schedule.clone()));
            prop_assert_eq!(events.len() as u64, (rate * seconds).round() as u64);
            prop_assert!(events.is_sorted_by_key(|due| due.at_ns));
            let of_all: u32 = (0..users).map(|user| schedule.events_of(user)).sum();
            prop_assert_eq!(of_all as usize, events.len());
            // The last group of events at once may be short, and has its whole interval.
            let group = batch.max(if let Arrival::Burst(at_once) = arrival { at_once } else { 1 });
            let end_ns = (events.len() as f64 + group as f64) / rate * 1e9 + 1.0;
            let last_ns = events.last().map_or(0, |due| due.at_ns);
            prop_assert!(last_ns <= schedule.last_at_ns());
            prop_assert!((schedule.last_at_ns() as f64) <= end_ns);
        }

        #[test]
        fn shares_are_the_whole(
            arrival in arrival(), rate in 1.0..5000.0, users in 1_u32..9, of in 1_u32..5,
        ) {
            let lanes = vec![
                lane(0..users, rate, 0.1, arrival),
                lane(users..users + 1, 300.0, 0.1, Arrival::Spread),
            ];
            let schedule = Schedule::new(lanes);
            let mut whole = drain(schedule.clone());
            let shares = (0..of).map(|index| schedule.clone().shared(Share { index, of }));
            let mut parts: Vec<_> = shares.flat_map(drain).collect();
            let key = |due: &Due| (due.at_ns, due.user, due.n);
            whole.sort_by_key(key);
            parts.sort_by_key(key);
            prop_assert_eq!(whole, parts);
        }

        #[test]
        fn another_seed_is_another_schedule(seed in any::<u64>()) {
            let times = |seed| drain(Schedule::new(vec![lane(0..1, 1000.0, 0.1, Arrival::Poisson(seed))]));
            prop_assert_ne!(times(seed), times(seed.wrapping_add(1)));
        }
    }
}
