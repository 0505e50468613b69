//! The publishing side of a phase: events encoded when they are due, and what the server says
//! about them.
//!
//! Pure: the time comes as an argument, and `driver` owns the sockets.

use std::collections::{BTreeMap, VecDeque};

use hdrhistogram::Histogram;
use latency_report::latency_histogram;
use serde::Deserialize;

use crate::http::{Answer, Rejected};
use crate::payload::{self, Form, Marker, SLIP_NS_MAX};
use crate::schedule::{Due, Schedule};

/// When a phase began, on both clocks.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Start {
    /// Nanoseconds of the generator's clock.
    pub(crate) at_ns: u64,
    /// Milliseconds since 1970, for the events' timestamps.
    pub(crate) wall_ms: u64,
}

/// How events become messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Packing {
    /// Up to so many that are due at the same time, as a JSON array.
    Array(u32),
    /// Up to so many that are due at the same time, one a line.
    Lines(u32),
    /// Each its own message.
    Single,
}

impl Packing {
    /// Events of a full message.
    pub(crate) fn events_max(self) -> u32 {
        match self {
            Self::Array(events) | Self::Lines(events) => events.max(1),
            Self::Single => 1,
        }
    }

    /// What stands before the first event, between two, and behind the last.
    fn marks(self) -> (&'static [u8], &'static [u8], &'static [u8]) {
        match self {
            Self::Array(_) => (b"[", b",", b"]"),
            Self::Lines(_) => (b"", b"\n", b"\n"),
            Self::Single => (b"", b"", b""),
        }
    }
}

/// A message that is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DueMessage<'a> {
    /// Whose its first event is.
    pub(crate) user: u32,
    /// When it was to be sent, nanoseconds of the generator's clock.
    pub(crate) intended_ns: u64,
    /// How many events it holds.
    pub(crate) events: u32,
    /// Its events, as they are packed.
    pub(crate) text: &'a [u8],
}

/// Turns a schedule into messages, each at its time.
#[derive(Debug)]
pub(crate) struct Sender {
    run: u32,
    form: Form,
    packing: Packing,
    schedule: Schedule,
    start: Start,
    text: Vec<u8>,
    sent: u64,
    slip_ns: Histogram<u64>,
}

impl Sender {
    /// A sender of `schedule`'s events as phase `run`, each of `form`, packed by `packing`.
    pub(crate) fn new(
        run: u32,
        form: Form,
        packing: Packing,
        schedule: Schedule,
        start: Start,
    ) -> Self {
        let (text, slip_ns) = (Vec::new(), latency_histogram());
        Self {
            run,
            form,
            packing,
            schedule,
            start,
            text,
            sent: 0,
            slip_ns,
        }
    }

    /// The next event's intended time on the generator's clock; `None` after the last.
    pub(crate) fn next_ns(&self) -> Option<u64> {
        self.schedule
            .next_at_ns()
            .map(|at_ns| self.start.at_ns + at_ns)
    }

    /// The next message, where it is due at `now_ns`. How late that is, is the slip.
    pub(crate) fn poll_message(&mut self, now_ns: u64) -> Option<DueMessage<'_>> {
        let intended_ns = self.next_ns().filter(|at_ns| *at_ns <= now_ns)?;
        let slip_ns = now_ns - intended_ns;
        let (before, between, behind) = self.packing.marks();
        self.text.clear();
        self.text.extend_from_slice(before);
        let (mut events, mut first) = (0, None);
        while events < self.packing.events_max() && self.next_ns() == Some(intended_ns) {
            let due = self.schedule.pop()?;
            if first.is_some() {
                self.text.extend_from_slice(between);
            }
            self.write_event(&due, slip_ns);
            first.get_or_insert(due.user);
            events += 1;
        }
        self.text.extend_from_slice(behind);
        self.slip_ns.saturating_record_n(slip_ns, u64::from(events));
        self.sent += u64::from(events);
        Some(DueMessage {
            user: first?,
            intended_ns,
            events,
            text: &self.text,
        })
    }

    fn write_event(&mut self, due: &Due, slip_ns: u64) {
        let marker = Marker {
            run: self.run,
            user: due.user,
            n: due.n,
            intended_ns: self.start.at_ns + due.at_ns,
            slip_ns: slip_ns.min(u64::from(SLIP_NS_MAX)) as u32,
        };
        let timestamp_ms = self.start.wall_ms + due.at_ns / 1_000_000;
        payload::write_event(&mut self.text, &marker, timestamp_ms, self.form);
    }

    /// Sends no more; returns the schedule of what was sent.
    pub(crate) fn cut(&mut self) -> &Schedule {
        self.schedule.cut();
        &self.schedule
    }

    /// Events polled so far.
    pub(crate) fn sent(&self) -> u64 {
        self.sent
    }

    /// Nanoseconds from each event's intended time to its poll.
    pub(crate) fn slip_ns(&self) -> &Histogram<u64> {
        &self.slip_ns
    }

    /// Leaves the slip so far in `empty`, and begins anew with what was there.
    pub(crate) fn swap_slip_ns(&mut self, empty: &mut Histogram<u64>) {
        std::mem::swap(&mut self.slip_ns, empty);
    }
}

/// What each publisher connection has sent, what of it the server has settled, and when.
#[derive(Debug)]
pub(crate) struct Acknowledgements {
    publishers: Vec<Ledger>,
    nacks: BTreeMap<String, u64>,
    settled_events: u64,
    latency_ns: Histogram<u64>,
}

/// The messages of one publisher connection.
#[derive(Debug, Clone, Default)]
struct Ledger {
    /// Messages that the server has settled, from the connection's first.
    settled: u64,
    /// Those after them.
    awaited: VecDeque<Awaited>,
}

/// A message whose acknowledgement has not come.
#[derive(Debug, Clone, Copy)]
struct Awaited {
    intended_ns: u64,
    events: u32,
}

impl Acknowledgements {
    /// The ledger of `publishers` connections.
    pub(crate) fn new(publishers: usize) -> Self {
        Self {
            publishers: vec![Ledger::default(); publishers],
            nacks: BTreeMap::new(),
            settled_events: 0,
            latency_ns: latency_histogram(),
        }
    }

    /// Publisher connections.
    pub(crate) fn publishers(&self) -> usize {
        self.publishers.len()
    }

    /// Notes that publisher `index` has sent one message more, of so many events, which was due at
    /// `intended_ns`.
    pub(crate) fn note_sent(&mut self, index: usize, intended_ns: u64, events: u32) {
        let awaited = Awaited {
            intended_ns,
            events,
        };
        self.publishers[index].awaited.push_back(awaited);
    }

    /// Messages of publisher `index` that are not settled.
    pub(crate) fn awaited(&self, index: usize) -> usize {
        self.publishers[index].awaited.len()
    }

    /// Takes what the server said to publisher `index` at `now_ns`; returns whether it was about
    /// its messages.
    pub(crate) fn handle_reply(&mut self, index: usize, text: &[u8], now_ns: u64) -> bool {
        let Ok(reply) = serde_json::from_slice::<Reply>(text) else {
            return false;
        };
        match reply {
            Reply::Ack { through } => {
                let Ledger { settled, awaited } = &self.publishers[index];
                let count = through.saturating_sub(*settled).min(awaited.len() as u64);
                self.settle(index, count, now_ns);
            }
            Reply::Nack { code } => *self.nacks.entry(code).or_insert(0) += 1,
        }
        true
    }

    /// Takes the answer to the oldest unsettled request of publisher `index`, at `now_ns`. An
    /// event that it does not account for is one refused as `unaccounted`; a known one was not to
    /// be sent twice.
    pub(crate) fn handle_answer(&mut self, index: usize, answer: &Answer<'_>, now_ns: u64) {
        let Some(sent) = self.publishers[index].awaited.front().copied() else {
            return self.note_nack("unasked", 1);
        };
        let mut left = u64::from(sent.events);
        match answer.receipt() {
            Some(receipt) => {
                for Rejected { code } in &receipt.rejected {
                    self.note_nack(code, 1);
                }
                self.note_nack("duplicate", receipt.duplicates);
                let rejected = receipt.rejected.len() as u64;
                left = left.saturating_sub(receipt.accepted + receipt.duplicates + rejected);
                self.note_nack("unaccounted", left);
            }
            None => self.note_nack(&answer.refusal(), left),
        }
        self.settle(index, 1, now_ns);
    }

    fn note_nack(&mut self, code: &str, events: u64) {
        if events > 0 {
            *self.nacks.entry(code.to_owned()).or_insert(0) += events;
        }
    }

    /// The `count` oldest messages of publisher `index` are settled.
    fn settle(&mut self, index: usize, count: u64, now_ns: u64) {
        let Ledger { settled, awaited } = &mut self.publishers[index];
        *settled += count;
        for message in awaited.drain(..count as usize) {
            let latency_ns = now_ns.saturating_sub(message.intended_ns);
            self.latency_ns.saturating_record(latency_ns);
            self.settled_events += u64::from(message.events);
        }
    }

    /// Events sent that no acknowledgement has reached.
    pub(crate) fn unsettled(&self) -> u64 {
        let awaited = self.publishers.iter().flat_map(|ledger| &ledger.awaited);
        awaited.map(|message| u64::from(message.events)).sum()
    }

    /// Events settled since the last call, refused ones too.
    pub(crate) fn take_settled_events(&mut self) -> u64 {
        std::mem::take(&mut self.settled_events)
    }

    /// Nanoseconds from each message's intended time to the acknowledgement that covers it, of
    /// those settled since the last call.
    pub(crate) fn take_latency_ns(&mut self) -> Histogram<u64> {
        std::mem::replace(&mut self.latency_ns, latency_histogram())
    }

    /// The same, left in `empty`, which takes the histogram's place.
    pub(crate) fn swap_latency_ns(&mut self, empty: &mut Histogram<u64>) {
        std::mem::swap(&mut self.latency_ns, empty);
    }

    /// Refused events by their code, since the last call.
    pub(crate) fn take_nacks(&mut self) -> BTreeMap<String, u64> {
        std::mem::take(&mut self.nacks)
    }

    /// The code by which the server says that it takes no more, where it has said so.
    pub(crate) fn refusal(&self) -> Option<&str> {
        let is_final = |code: &&String| matches!(code.as_str(), "OVERLOADED" | "STORAGE_FULL");
        self.nacks.keys().find(is_final).map(String::as_str)
    }
}

#[derive(Deserialize)]
#[serde(tag = "type", content = "data", rename_all = "lowercase")]
enum Reply {
    Ack { through: u64 },
    Nack { code: String },
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::filling::Filling;
    use crate::payload::MarkerFinder;
    use crate::schedule::{Arrival, Lane};
    use std::time::Duration;

    fn sender() -> Sender {
        let lane = Lane::new(0..2, 1000.0, Duration::from_millis(3), Arrival::Even);
        let start = Start {
            at_ns: 5_000_000,
            wall_ms: 1_763_805_600_000,
        };
        Sender::new(
            9,
            Filling::Letters(10).into(),
            Packing::Single,
            Schedule::new(vec![lane]),
            start,
        )
    }

    #[test]
    fn event_is_not_sent_before_its_time() {
        let mut sender = sender();
        assert_eq!(sender.next_ns(), Some(5_000_000));
        assert_eq!(sender.poll_message(4_999_999), None);
        assert!(sender.poll_message(5_000_000).is_some());
        assert_eq!(sender.poll_message(5_999_999), None);
        assert_eq!((sender.sent(), sender.slip_ns().len()), (1, 1));
    }

    #[test]
    fn late_generator_keeps_the_intended_times_and_records_the_slip() {
        let mut sender = sender();
        let mut seen = Vec::new();
        while let Some(event) = sender.poll_message(9_000_000) {
            let marker = MarkerFinder::new().find(event.text).unwrap();
            assert_eq!(event.intended_ns, marker.intended_ns);
            assert_eq!(marker.intended_ns + u64::from(marker.slip_ns), 9_000_000);
            seen.push((event.user, marker.n, marker.intended_ns));
        }
        assert_eq!(
            seen,
            [(0, 0, 5_000_000), (1, 0, 6_000_000), (0, 1, 7_000_000)]
        );
        assert_eq!(sender.next_ns(), None);
        let slip = sender.slip_ns();
        assert!(slip.equivalent(slip.max(), 4_000_000) && slip.equivalent(slip.min(), 2_000_000));
    }

    #[test]
    fn cut_sender_has_nothing_left() {
        let mut sender = sender();
        assert!(sender.poll_message(5_000_000).is_some());
        let sent = sender.cut();
        assert_eq!((sent.events_of(0), sent.events_of(1)), (1, 0));
        assert_eq!(
            (sender.next_ns(), sender.poll_message(9_000_000)),
            (None, None)
        );
    }

    fn ack(through: u64) -> Vec<u8> {
        format!(r#"{{"type":"ack","data":{{"through":{through}}}}}"#).into_bytes()
    }

    #[test]
    fn replies_settle_what_was_sent() {
        let mut ledger = Acknowledgements::new(2);
        for index in [0, 0, 1] {
            ledger.note_sent(index, 0, 1);
        }
        assert_eq!(ledger.unsettled(), 3);
        for (through, unsettled) in [(1, 2), (1, 2), (99, 1), (0, 1)] {
            assert!(ledger.handle_reply(0, &ack(through), 0));
            assert_eq!(ledger.unsettled(), unsettled, "through {through}");
        }
        assert!(!ledger.handle_reply(1, br#"{"type":"server_shutdown","data":{}}"#, 0));
        assert!(!ledger.handle_reply(1, b"nonsense", 0));
    }

    #[test]
    fn acknowledgement_counts_from_the_intended_time_of_each_message() {
        let mut ledger = Acknowledgements::new(1);
        for intended_ns in [1_000_000, 2_000_000, 3_000_000] {
            ledger.note_sent(0, intended_ns, 1);
        }
        let mut check = |through, now_ns, expected: &[u64]| {
            assert!(ledger.handle_reply(0, &ack(through), now_ns));
            let latency = ledger.take_latency_ns();
            assert_eq!(latency.len(), expected.len() as u64, "through {through}");
            for value in expected {
                assert_eq!(latency.count_at(*value), 1, "through {through}: {value}");
            }
        };
        check(2, 5_000_000, &[4_000_000, 3_000_000]);
        check(2, 6_000_000, &[]);
        check(3, 9_000_000, &[6_000_000]);
    }

    #[test]
    fn refusals_are_counted_and_overload_is_final() {
        let mut ledger = Acknowledgements::new(1);
        let nack = |code| format!(r#"{{"type":"nack","data":{{"message":1,"code":"{code}"}}}}"#);
        assert!(ledger.handle_reply(0, nack("NO_AUDIENCE").as_bytes(), 0));
        assert_eq!(ledger.refusal(), None);
        assert!(ledger.handle_reply(0, nack("OVERLOADED").as_bytes(), 0));
        assert_eq!(ledger.refusal(), Some("OVERLOADED"));
        assert_eq!(ledger.take_nacks().len(), 2);
        assert_eq!(ledger.refusal(), None);
    }

    #[test]
    fn events_of_one_time_become_one_message() {
        let check = |packing: Packing, expected: &[(u32, u64)]| {
            let lane = Lane::new(0..2, 1000.0, Duration::from_millis(5), Arrival::Even);
            let schedule = Schedule::new(vec![lane.in_batches(3)]);
            let start = Start {
                at_ns: 0,
                wall_ms: 1_763_805_600_000,
            };
            let mut sender = Sender::new(9, Filling::Letters(0).into(), packing, schedule, start);
            let mut seen = Vec::new();
            while let Some(message) = sender.poll_message(u64::MAX / 2) {
                seen.push((message.events, message.intended_ns));
                let text = std::str::from_utf8(message.text).unwrap();
                let events: Vec<serde_json::Value> = match packing {
                    Packing::Array(_) => serde_json::from_str(text).unwrap(),
                    _ => text
                        .lines()
                        .map(|line| serde_json::from_str(line).unwrap())
                        .collect(),
                };
                assert_eq!(events.len(), message.events as usize, "{text}");
            }
            assert_eq!(
                (seen.as_slice(), sender.sent()),
                (expected, 5),
                "{packing:?}"
            );
        };
        check(Packing::Array(3), &[(3, 0), (2, 3_000_000)]);
        check(Packing::Lines(2), &[(2, 0), (1, 0), (2, 3_000_000)]);
        let single = [(1, 0), (1, 0), (1, 0), (1, 3_000_000), (1, 3_000_000)];
        check(Packing::Single, &single);
    }

    #[test]
    fn answer_accounts_for_every_event_of_its_request() {
        let check = |status, body: &str, expected: &[(&str, u64)]| {
            let mut ledger = Acknowledgements::new(1);
            ledger.note_sent(0, 1_000_000, 3);
            let body = body.as_bytes();
            ledger.handle_answer(0, &Answer { status, body }, 3_000_000);
            assert_eq!((ledger.awaited(0), ledger.unsettled()), (0, 0));
            assert_eq!(ledger.take_settled_events(), 3);
            assert_eq!(ledger.take_latency_ns().len(), 1);
            let nacks = ledger.take_nacks();
            let nacks: Vec<_> = nacks.iter().map(|(code, n)| (code.as_str(), *n)).collect();
            assert_eq!(nacks, expected, "{}", body.escape_ascii());
        };
        check(200, r#"{"accepted":3,"duplicates":0,"rejected":[]}"#, &[]);
        let rows = r#"{"accepted":1,"duplicates":1,"rejected":[{"index":2,"code":"A"}]}"#;
        check(200, rows, &[("A", 1), ("duplicate", 1)]);
        let short = r#"{"accepted":1,"duplicates":0,"rejected":[]}"#;
        check(200, short, &[("unaccounted", 2)]);
        let full = r#"{"error":{"code":"STORAGE_FULL","message":"x"}}"#;
        check(507, full, &[("STORAGE_FULL", 3)]);
        check(502, "nonsense", &[("status 502", 3)]);
        let mut ledger = Acknowledgements::new(1);
        let body = b"";
        ledger.handle_answer(0, &Answer { status: 200, body }, 0);
        assert_eq!(ledger.take_nacks()["unasked"], 1);
    }
}
