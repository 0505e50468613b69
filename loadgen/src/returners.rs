//! Viewers that connect in the course of a phase: when each is due, what it is to get, when it had
//! all of it.
//!
//! Pure: bytes and times come as arguments. `driver` dials them and feeds what they get; they are
//! gone with their phase. Source: the contract, sections 4 and 5.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use hdrhistogram::Histogram;
use latency_report::latency_histogram;
use serde::{Deserialize, Serialize};

use crate::filling::Filling;
use crate::record::{Received, Recorder, Subscription, message_kind};
use crate::returned::Returned;
use crate::schedule::{Lane, Schedule};

/// What each viewer has missed: `events` of phase `run`, and `filling` in each of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Missed {
    /// Their number in the markers.
    pub(crate) run: u32,
    /// In each.
    pub(crate) filling: Filling,
    /// How many, of each user.
    pub(crate) events: u32,
    /// Whose they are; not empty. The viewers belong to them in turn.
    pub(crate) users: Range<u32>,
}

/// Whose viewer it is, where the viewers belong to `users` in turn.
pub(crate) fn user_of(viewer: usize, users: &Range<u32>) -> u32 {
    users.start + viewer as u32 % users.len() as u32
}

/// Where a viewer's own stream stands, as the server told it on connecting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Greeting {
    /// The life of the event log.
    pub(crate) epoch: String,
    /// What became of the cursor.
    pub(crate) outcome: String,
    /// The stream's head; `None` where the server does not say it.
    pub(crate) to: Option<u64>,
}

/// The viewers of one phase.
#[derive(Debug)]
pub(crate) struct Returners {
    viewers: Vec<Viewer>,
    /// When the first is due, nanoseconds of the generator's clock.
    start_ns: u64,
    /// When each is due after that; rising.
    dues_ns: Vec<u64>,
    dialled: usize,
    settled: usize,
    recorder: Recorder,
    /// What each is to be greeted with.
    outcome: &'static str,
    caught_up_ns: Histogram<u64>,
    last_ns: u64,
    early: u64,
    slip_ns: Histogram<u64>,
}

#[derive(Debug)]
struct Viewer {
    path: String,
    greeting: Option<Greeting>,
    /// Nothing more is awaited of it.
    is_settled: bool,
}

impl Returners {
    /// Viewers that connect to `paths` without a cursor, spread over `within`, to be told one.
    pub(crate) fn greeted(paths: Vec<String>, within: Duration) -> Self {
        let dues_ns = evenly(paths.len(), within);
        let recorder = Recorder::idle(&subscriptions(paths.len(), &(0..1)), 1);
        Self::new(paths, dues_ns, recorder, FRESH)
    }

    /// Viewers that connect to `paths`, each at its time of `schedule`, and want no more than to be
    /// greeted, or where the server does not greet (`greets`) to be upgraded.
    pub(crate) fn connecting(paths: Vec<String>, mut schedule: Schedule, greets: bool) -> Self {
        let times = std::iter::from_fn(|| schedule.pop()).map(|due| due.at_ns);
        let dues_ns: Vec<_> = times.take(paths.len()).collect();
        let recorder = Recorder::idle(&subscriptions(paths.len(), &(0..1)), 1);
        Self::new(paths, dues_ns, recorder, if greets { FRESH } else { OPEN })
    }

    /// Viewers that connect to `paths`, spread over `within`, to get what they have `missed`.
    pub(crate) fn catching_up(paths: Vec<String>, within: Duration, missed: Missed) -> Self {
        let Missed {
            run,
            filling,
            events,
            users,
        } = missed;
        let schedule = Schedule::new(vec![Lane::counted(users.clone(), 1.0, events)]);
        let dues_ns = evenly(paths.len(), within);
        let subscriptions = subscriptions(paths.len(), &users);
        let recorder = Recorder::new(run, filling, &subscriptions, 1, &schedule);
        Self::new(paths, dues_ns, recorder, RESUMED)
    }

    fn new(
        mut paths: Vec<String>,
        dues_ns: Vec<u64>,
        recorder: Recorder,
        outcome: &'static str,
    ) -> Self {
        paths.truncate(dues_ns.len());
        let viewer = |path| Viewer {
            path,
            greeting: None,
            is_settled: false,
        };
        Self {
            start_ns: 0,
            dues_ns,
            viewers: paths.into_iter().map(viewer).collect(),
            dialled: 0,
            settled: 0,
            recorder,
            outcome,
            caught_up_ns: latency_histogram(),
            last_ns: 0,
            early: 0,
            slip_ns: latency_histogram(),
        }
    }

    /// The first viewer is due at `start_ns`.
    pub(crate) fn begin(&mut self, start_ns: u64) {
        (self.start_ns, self.last_ns) = (start_ns, start_ns);
    }

    /// When the next one is due; `None` after the last.
    pub(crate) fn next_ns(&self) -> Option<u64> {
        (self.dialled < self.viewers.len()).then(|| self.due_ns(self.dialled))
    }

    /// The next viewer and its path, where it is due at `now_ns`.
    pub(crate) fn poll_dial(&mut self, now_ns: u64) -> Option<(usize, &str)> {
        let due_ns = self.next_ns().filter(|due_ns| *due_ns <= now_ns)?;
        self.slip_ns.saturating_record(now_ns - due_ns);
        let index = self.dialled;
        self.dialled += 1;
        Some((index, &self.viewers[index].path))
    }

    /// Whether nothing is awaited of any viewer.
    pub(crate) fn are_settled(&self) -> bool {
        self.settled == self.viewers.len()
    }

    /// Takes a message that came to viewer `index`.
    pub(crate) fn handle_data(&mut self, index: usize, received: &Received<'_>) {
        if self.recorder.handle_event(index, received) {
            return;
        }
        let (text, now_ns) = (received.text, received.now_ns);
        match message_kind(text).as_deref() {
            Some("connection_established") => self.handle_greeting(index, text, now_ns),
            Some("replay_complete") if !self.viewers[index].is_settled => {
                if self.recorder.is_complete(index) {
                    self.note_caught_up(index, now_ns);
                } else {
                    self.early += 1;
                }
                self.settle(index);
            }
            _ => self.recorder.count_other(text),
        }
    }

    /// The upgrade of viewer `index` was accepted.
    pub(crate) fn handle_open(&mut self, index: usize, now_ns: u64) {
        if self.outcome == OPEN {
            self.note_caught_up(index, now_ns);
            self.settle(index);
        }
    }

    /// The connection of viewer `index` has ended: nothing more will come.
    pub(crate) fn handle_closed(&mut self, index: usize) {
        self.settle(index);
    }

    /// Messages that are neither events nor awaited, by type.
    pub(crate) fn others(&self) -> &BTreeMap<String, u64> {
        self.recorder.others()
    }

    /// Ends the phase: what has not come by now is lost. `busy`: the share of it in which their
    /// loop had something to do.
    pub(crate) fn finish(self, busy: f64) -> Returned {
        let seconds = (self.last_ns - self.start_ns) as f64 / 1e9;
        let viewers = self.viewers.into_iter();
        Returned {
            greetings: viewers.map(|viewer| viewer.greeting).collect(),
            outcome: self.outcome,
            record: self.recorder.finish().remove(0),
            caught_up_ns: self.caught_up_ns,
            early: self.early,
            seconds,
            slip_ns: self.slip_ns,
            busy,
        }
    }

    /// A viewer that is greeted with something else waits for nothing.
    fn handle_greeting(&mut self, index: usize, text: &[u8], now_ns: u64) {
        let greeting = Greeting::parse(text);
        let outcome = greeting.as_ref().map(|greeting| greeting.outcome.as_str());
        let is_expected = outcome == Some(self.outcome);
        self.viewers[index].greeting = greeting;
        if is_expected && self.outcome == FRESH {
            self.note_caught_up(index, now_ns);
        }
        if !is_expected || self.outcome == FRESH {
            self.settle(index);
        }
    }

    fn note_caught_up(&mut self, index: usize, now_ns: u64) {
        let waited_ns = now_ns.saturating_sub(self.due_ns(index));
        self.caught_up_ns.saturating_record(waited_ns);
        self.last_ns = self.last_ns.max(now_ns);
    }

    fn settle(&mut self, index: usize) {
        let viewer = &mut self.viewers[index];
        self.settled += usize::from(!viewer.is_settled);
        viewer.is_settled = true;
    }

    fn due_ns(&self, index: usize) -> u64 {
        self.start_ns + self.dues_ns[index]
    }
}

/// Of a viewer whose server does not greet.
const OPEN: &str = "open";
/// The outcome of a viewer without a cursor.
pub(crate) const FRESH: &str = "fresh";
/// The outcome with which a viewer gets all that it has missed.
pub(crate) const RESUMED: &str = "resumed";

impl Greeting {
    /// What `connection_established` says of the viewer's own stream; `None` where it says
    /// nothing of it.
    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Message {
            data: Established,
        }
        #[derive(Deserialize)]
        struct Established {
            epoch: String,
            #[serde(default)]
            resume: Vec<Row>,
        }
        #[derive(Deserialize)]
        struct Row {
            stream: String,
            outcome: String,
            to: Option<u64>,
        }
        let Message { data } = serde_json::from_slice(text).ok()?;
        let row = data.resume.into_iter().find(|row| row.stream == "user")?;
        Some(Self {
            epoch: data.epoch,
            outcome: row.outcome,
            to: row.to,
        })
    }
}

/// Times of so many, spread evenly over `within`.
fn evenly(count: usize, within: Duration) -> Vec<u64> {
    let interval_ns = within.as_nanos() as u64 / count.max(1) as u64;
    (0..count as u64).map(|index| index * interval_ns).collect()
}

fn subscriptions(viewers: usize, users: &Range<u32>) -> Vec<Subscription> {
    let subscription = |viewer| Subscription {
        user: user_of(viewer, users),
        group: 0,
    };
    (0..viewers).map(subscription).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::payload::{self, Marker};
    use crate::record::Violations;

    const RUN: u32 = 9;
    const PAD: Filling = Filling::Letters(4);
    const START_NS: u64 = 1_000_000;

    /// Three viewers of two users, who have missed three events each.
    fn returners() -> Returners {
        let missed = Missed {
            run: RUN,
            filling: PAD,
            events: 3,
            users: 0..2,
        };
        let paths = ["/a", "/b", "/c"].map(str::to_owned).to_vec();
        let mut returners = Returners::catching_up(paths, Duration::from_micros(30), missed);
        returners.begin(START_NS);
        returners
    }

    fn receive(returners: &mut Returners, index: usize, text: &[u8], now_ns: u64) {
        let (wire_bytes, is_deflated) = (100, false);
        returners.handle_data(
            index,
            &Received {
                text,
                wire_bytes,
                is_deflated,
                now_ns,
            },
        );
    }

    fn event(user: u32, n: u32) -> Vec<u8> {
        let marker = Marker {
            run: RUN,
            user,
            n,
            intended_ns: 5,
            slip_ns: 0,
        };
        let mut out = Vec::new();
        payload::write_event(&mut out, &marker, 1_763_805_600_000, PAD.into());
        out
    }

    fn greeting(outcome: &str) -> Vec<u8> {
        format!(
            r#"{{"event_type":"connection_established","timestamp":"x","data":{{"epoch":"0000abcd",
            "resume":[{{"stream":"project/7","outcome":"fresh","to":9}},
            {{"stream":"user","outcome":"{outcome}","from":1,"to":4}}]}}}}"#
        )
        .into_bytes()
    }

    const COMPLETE: &[u8] = br#"{"event_type":"replay_complete","data":{"stream":"user","seq":4}}"#;

    #[test]
    fn each_is_dialled_at_its_time() {
        let mut returners = returners();
        assert_eq!(returners.poll_dial(START_NS - 1), None);
        assert_eq!(returners.poll_dial(START_NS), Some((0, "/a")));
        assert_eq!(returners.poll_dial(START_NS), None);
        assert_eq!(returners.next_ns(), Some(START_NS + 10_000));
        assert_eq!(returners.poll_dial(START_NS + 99_000), Some((1, "/b")));
        assert_eq!(returners.poll_dial(START_NS + 99_000), Some((2, "/c")));
        assert_eq!(returners.next_ns(), None);
        let slip = returners.finish(0.5).slip_ns;
        assert!(slip.equivalent(slip.max(), 89_000), "{}", slip.max());
    }

    /// All three are greeted; the second and the third get theirs, the first what is given.
    fn check(first: &[(u32, u32)], caught_up: u64, expected: Violations) {
        let mut returners = returners();
        for index in 0..3 {
            receive(&mut returners, index, &greeting("resumed"), START_NS);
        }
        for (index, user) in [(1, 1), (2, 0)] {
            for n in 0..3 {
                receive(&mut returners, index, &event(user, n), START_NS);
            }
            receive(&mut returners, index, COMPLETE, START_NS + 2_000_000);
        }
        for (user, n) in first {
            receive(&mut returners, 0, &event(*user, *n), START_NS);
        }
        assert!(!returners.are_settled());
        receive(&mut returners, 0, COMPLETE, START_NS + 3_000_000);
        assert!(returners.are_settled(), "{first:?}");
        let returned = returners.finish(0.5);
        assert_eq!(returned.record.violations, expected, "{first:?}");
        assert_eq!(returned.caught_up_ns.len(), caught_up, "{first:?}");
        assert_eq!(returned.early, 3 - caught_up, "{first:?}");
    }

    #[test]
    fn what_a_viewer_gets_is_checked() {
        let none = Violations::default();
        check(&[(0, 0), (0, 1), (0, 2)], 3, none);
        check(&[], 2, Violations { lost: 3, ..none });
        check(&[(0, 0), (0, 2)], 2, Violations { lost: 1, ..none });
        let again = &[(0, 0), (0, 1), (0, 1), (0, 2)];
        check(
            again,
            3,
            Violations {
                duplicated: 1,
                ..none
            },
        );
        let swapped = &[(0, 1), (0, 0), (0, 2)];
        check(
            swapped,
            3,
            Violations {
                reordered: 1,
                ..none
            },
        );
        let strange = &[(0, 0), (1, 1), (0, 1), (0, 2), (0, 3)];
        check(strange, 3, Violations { foreign: 2, ..none });
    }

    #[test]
    fn time_counts_from_the_intended_dial_of_each_and_of_the_first() {
        let mut returners = returners();
        for (index, user) in [(0, 0), (1, 1), (2, 0)] {
            receive(&mut returners, index, &greeting("resumed"), START_NS);
            for n in 0..3 {
                receive(&mut returners, index, &event(user, n), START_NS);
            }
            receive(&mut returners, index, COMPLETE, START_NS + 1_020_000);
        }
        let returned = returners.finish(0.5);
        assert!(
            (returned.seconds - 0.001_02).abs() < 1e-9,
            "{}",
            returned.seconds
        );
        let waited = &returned.caught_up_ns;
        assert!(
            waited.equivalent(waited.min(), 1_000_000),
            "{}",
            waited.min()
        );
        assert!(
            waited.equivalent(waited.max(), 1_020_000),
            "{}",
            waited.max()
        );
    }

    #[test]
    fn nothing_is_awaited_after_another_outcome_or_the_end() {
        let mut returners = returners();
        receive(&mut returners, 0, &greeting("reset"), START_NS);
        receive(
            &mut returners,
            1,
            b"{\"event_type\":\"connection_established\"}",
            START_NS,
        );
        returners.handle_closed(2);
        returners.handle_closed(2);
        assert!(returners.are_settled());
        let returned = returners.finish(0.5);
        let outcomes: Vec<_> = returned
            .greetings
            .iter()
            .map(|greeting| greeting.as_ref().map(|greeting| greeting.outcome.as_str()))
            .collect();
        assert_eq!(outcomes, [Some("reset"), None, None]);
        assert_eq!(returned.record.violations.lost, 9);
        assert!(returned.caught_up_ns.is_empty());
    }

    #[test]
    fn greeting_tells_where_the_stream_stands() {
        let mut returners = Returners::greeted(vec!["/a".to_owned()], Duration::ZERO);
        returners.begin(START_NS);
        receive(&mut returners, 0, br#"{"event_type":"cursor"}"#, START_NS);
        assert!(!returners.are_settled());
        receive(&mut returners, 0, &greeting("fresh"), START_NS);
        assert!(returners.are_settled());
        assert_eq!(returners.others().len(), 1);
        let expected = Greeting {
            epoch: "0000abcd".to_owned(),
            outcome: "fresh".to_owned(),
            to: Some(4),
        };
        assert_eq!(returners.finish(0.5).greetings, [Some(expected)]);
    }
}
