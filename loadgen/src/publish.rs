//! The publishing side of a phase: events encoded when they are due, and what the server says
//! about them.
//!
//! Pure: the time comes as an argument, and `driver` owns the sockets.

use std::collections::{BTreeMap, VecDeque};

use hdrhistogram::Histogram;
use serde::Deserialize;

use crate::nats;
use crate::payload::{self, Form, Marker};
use crate::record::latency_histogram;
use crate::schedule::Schedule;
use crate::target::Protocol;

/// When a phase began, on both clocks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Start {
    /// Nanoseconds of the generator's clock.
    pub(crate) at_ns: u64,
    /// Milliseconds since 1970, for the events' timestamps.
    pub(crate) wall_ms: u64,
}

/// An event that is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DueEvent<'a> {
    /// Whose it is.
    pub(crate) user: u32,
    /// When it was to be sent, nanoseconds of the generator's clock.
    pub(crate) intended_ns: u64,
    /// The message.
    pub(crate) text: &'a [u8],
}

/// Turns a schedule into events, each at its time.
#[derive(Debug)]
pub(crate) struct Sender {
    run: u32,
    form: Form,
    protocol: Protocol,
    schedule: Schedule,
    start: Start,
    event: Vec<u8>,
    /// The operation that publishes the event, where the protocol has one.
    operation: Vec<u8>,
    sent: u64,
    slip_ns: Histogram<u64>,
}

impl Sender {
    /// A sender of `schedule`'s events as phase `run`, each of `form`.
    pub(crate) fn new(
        run: u32,
        form: Form,
        protocol: Protocol,
        schedule: Schedule,
        start: Start,
    ) -> Self {
        Self {
            run,
            form,
            protocol,
            schedule,
            start,
            event: Vec::new(),
            operation: Vec::new(),
            sent: 0,
            slip_ns: latency_histogram(),
        }
    }

    /// The next event's intended time on the generator's clock; `None` after the last.
    pub(crate) fn next_ns(&self) -> Option<u64> {
        self.schedule
            .next_at_ns()
            .map(|at_ns| self.start.at_ns + at_ns)
    }

    /// The next event, where it is due at `now_ns`. How late that is, is the slip.
    pub(crate) fn poll_event(&mut self, now_ns: u64) -> Option<DueEvent<'_>> {
        let intended_ns = self.next_ns().filter(|at_ns| *at_ns <= now_ns)?;
        let due = self.schedule.pop()?;
        self.slip_ns.saturating_record(now_ns - intended_ns);
        self.sent += 1;
        let marker = Marker {
            run: self.run,
            user: due.user,
            n: due.n,
            intended_ns,
        };
        let timestamp_ms = self.start.wall_ms + due.at_ns / 1_000_000;
        self.event.clear();
        payload::write_event(&mut self.event, &marker, timestamp_ms, self.form);
        Some(DueEvent {
            user: due.user,
            intended_ns,
            text: self.message(due.user),
        })
    }

    /// The message that publishes the event at hand, which is `user`'s.
    fn message(&mut self, user: u32) -> &[u8] {
        match self.protocol {
            Protocol::Events => &self.event,
            Protocol::Nats => {
                self.operation.clear();
                nats::encode_publish(&mut self.operation, user, &self.event);
                &self.operation
            }
        }
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
}

/// What each publisher connection has sent, what of it the server has settled, and when.
#[derive(Debug)]
pub(crate) struct Acknowledgements {
    publishers: Vec<Ledger>,
    nacks: BTreeMap<String, u64>,
    latency_ns: Histogram<u64>,
}

/// The messages of one publisher connection.
#[derive(Debug, Clone, Default)]
struct Ledger {
    /// Messages that the server has settled, from the connection's first.
    settled: u64,
    /// The intended times of those after them.
    awaited: VecDeque<u64>,
}

impl Acknowledgements {
    /// The ledger of `publishers` connections.
    pub(crate) fn new(publishers: usize) -> Self {
        Self {
            publishers: vec![Ledger::default(); publishers],
            nacks: BTreeMap::new(),
            latency_ns: latency_histogram(),
        }
    }

    /// Publisher connections.
    pub(crate) fn publishers(&self) -> usize {
        self.publishers.len()
    }

    /// Notes that publisher `index` has sent one message more, which was due at `intended_ns`.
    pub(crate) fn note_sent(&mut self, index: usize, intended_ns: u64) {
        self.publishers[index].awaited.push_back(intended_ns);
    }

    /// Takes what the server said to publisher `index` at `now_ns`; returns whether it was about
    /// its messages.
    pub(crate) fn handle_reply(&mut self, index: usize, text: &[u8], now_ns: u64) -> bool {
        let Ok(reply) = serde_json::from_slice::<Reply>(text) else {
            return false;
        };
        match reply {
            Reply::Ack { through } => {
                let Ledger { settled, awaited } = &mut self.publishers[index];
                let count = through.saturating_sub(*settled).min(awaited.len() as u64);
                *settled += count;
                for intended_ns in awaited.drain(..count as usize) {
                    let latency_ns = now_ns.saturating_sub(intended_ns);
                    self.latency_ns.saturating_record(latency_ns);
                }
            }
            Reply::Nack { code } => *self.nacks.entry(code).or_insert(0) += 1,
        }
        true
    }

    /// Messages sent that no acknowledgement has reached.
    pub(crate) fn unsettled(&self) -> u64 {
        self.publishers
            .iter()
            .map(|ledger| ledger.awaited.len() as u64)
            .sum()
    }

    /// Nanoseconds from each message's intended time to the acknowledgement that covers it, of
    /// those settled since the last call.
    pub(crate) fn take_latency_ns(&mut self) -> Histogram<u64> {
        std::mem::replace(&mut self.latency_ns, latency_histogram())
    }

    /// Refused messages by their code, since the last call.
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
        sender_in(Protocol::Events)
    }

    fn sender_in(protocol: Protocol) -> Sender {
        let lane = Lane::new(0..2, 1000.0, Duration::from_millis(3), Arrival::Even);
        let start = Start {
            at_ns: 5_000_000,
            wall_ms: 1_763_805_600_000,
        };
        Sender::new(
            9,
            Filling::Letters(10).into(),
            protocol,
            Schedule::new(vec![lane]),
            start,
        )
    }

    #[test]
    fn event_is_not_sent_before_its_time() {
        let mut sender = sender();
        assert_eq!(sender.next_ns(), Some(5_000_000));
        assert_eq!(sender.poll_event(4_999_999), None);
        assert!(sender.poll_event(5_000_000).is_some());
        assert_eq!(sender.poll_event(5_999_999), None);
        assert_eq!((sender.sent(), sender.slip_ns().len()), (1, 1));
    }

    #[test]
    fn late_generator_keeps_the_intended_times_and_records_the_slip() {
        let mut sender = sender();
        let mut seen = Vec::new();
        while let Some(event) = sender.poll_event(9_000_000) {
            let marker = MarkerFinder::new().find(event.text).unwrap();
            assert_eq!(event.intended_ns, marker.intended_ns);
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
    fn event_to_nats_is_published_to_the_subject_of_its_user() {
        let (mut plain, mut nats) = (sender(), sender_in(Protocol::Nats));
        for user in [0, 1, 0] {
            let event = plain.poll_event(9_000_000).unwrap();
            let mut expected = Vec::new();
            nats::encode_publish(&mut expected, user, event.text);
            assert_eq!(nats.poll_event(9_000_000).unwrap().text, expected);
        }
    }

    #[test]
    fn cut_sender_has_nothing_left() {
        let mut sender = sender();
        assert!(sender.poll_event(5_000_000).is_some());
        let sent = sender.cut();
        assert_eq!((sent.events_of(0), sent.events_of(1)), (1, 0));
        assert_eq!(
            (sender.next_ns(), sender.poll_event(9_000_000)),
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
            ledger.note_sent(index, 0);
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
            ledger.note_sent(0, intended_ns);
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
}
