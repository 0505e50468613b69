//! The open-loop schedule: which event is due when, fixed before the run begins.
//!
//! Owns the arithmetic of intended send times and of each user's event numbers. Knows no clock
//! and no socket: times are nanoseconds after the phase's start, and whoever drives it asks what
//! is due. A late generator never moves a later event (no coordinated omission).
//! Source: the constant-throughput model of wrk2 and of HdrHistogram's documentation.

use std::ops::Range;
use std::time::Duration;

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

/// Where an event lies within its interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// At the interval's beginning: the classic constant rate.
    Even,
    /// At a point of the interval that walks through it evenly (multiples of the golden ratio).
    /// For lanes that run beside another one: two even lanes keep one phase for the whole run,
    /// so that either every event or none of them meets the neighbour's fan-out.
    Spread,
}

/// Users that share one rate; their events go round in order of the user's number.
#[derive(Debug, Clone)]
pub(crate) struct Lane {
    users: Range<u32>,
    interval_ns: f64,
    arrival: Arrival,
    events: u64,
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
        Self {
            users,
            interval_ns: 1e9 / events_per_second,
            arrival,
            events,
        }
    }

    /// A lane of `events` for each of `users` (not empty), at `events_per_second` in total.
    pub(crate) fn counted(users: Range<u32>, events_per_second: f64, events: u32) -> Self {
        let events = users.len() as u64 * u64::from(events);
        Self {
            users,
            interval_ns: 1e9 / events_per_second,
            arrival: Arrival::Even,
            events,
        }
    }

    /// A lane of exactly one event, due at once.
    pub(crate) fn single(user: u32) -> Self {
        let (interval_ns, arrival) = (1.0, Arrival::Even);
        Self {
            users: user..user + 1,
            interval_ns,
            arrival,
            events: 1,
        }
    }

    fn due(&self, index: u64) -> Due {
        // Exact up to 2^53 ns (104 days), and rising: the fraction stays below 1.
        let fraction = match self.arrival {
            Arrival::Even => 0.0,
            Arrival::Spread => (index as f64 * GOLDEN_RATIO).fract(),
        };
        let users = u64::from(self.users.end - self.users.start);
        Due {
            at_ns: ((index as f64 + fraction) * self.interval_ns) as u64,
            user: self.users.start + (index % users) as u32,
            n: (index / users) as u32,
        }
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
    lanes: Vec<(Lane, u64)>,
}

impl Schedule {
    /// Merges `lanes`; where two events are due at the same time the earlier lane goes first.
    pub(crate) fn new(lanes: Vec<Lane>) -> Self {
        Self {
            lanes: lanes.into_iter().map(|lane| (lane, 0)).collect(),
        }
    }

    /// The next event's intended time, or `None` when all were popped.
    pub(crate) fn next_at_ns(&self) -> Option<u64> {
        self.earliest().map(|(_, due)| due.at_ns)
    }

    /// Takes the next event.
    pub(crate) fn pop(&mut self) -> Option<Due> {
        let (lane, due) = self.earliest()?;
        self.lanes[lane].1 += 1;
        Some(due)
    }

    /// Ends the schedule here: it holds what was popped and nothing more.
    pub(crate) fn cut(&mut self) {
        for (lane, next) in &mut self.lanes {
            lane.events = *next;
        }
    }

    /// How many events the whole schedule holds for `user`, popped or not.
    pub(crate) fn events_of(&self, user: u32) -> u32 {
        self.lanes
            .iter()
            .map(|(lane, _)| lane.events_of(user))
            .sum()
    }

    /// The intended time of the last event of all, or 0 where there is none.
    pub(crate) fn last_at_ns(&self) -> u64 {
        let last = |lane: &Lane| {
            lane.events
                .checked_sub(1)
                .map(|index| lane.due(index).at_ns)
        };
        self.lanes
            .iter()
            .filter_map(|(lane, _)| last(lane))
            .max()
            .unwrap_or(0)
    }

    fn earliest(&self) -> Option<(usize, Due)> {
        let open = self
            .lanes
            .iter()
            .enumerate()
            .filter(|(_, (lane, next))| *next < lane.events);
        open.map(|(index, (lane, next))| (index, lane.due(*next)))
            .min_by_key(|(_, due)| due.at_ns)
    }
}

const GOLDEN_RATIO: f64 = 0.618_033_988_749_894_9;

#[cfg(test)]
mod tests {
    use super::*;

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
}
