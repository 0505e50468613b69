//! The publishing side of a phase: events encoded when they are due, and what the server says
//! about them.
//!
//! Pure: the time comes as an argument, and `driver` owns the sockets.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::Deserialize;

use crate::filling::Filling;
use crate::payload::{self, Marker};
use crate::record::latency_histogram;
use crate::schedule::Schedule;

/// When a phase began, on both clocks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Start {
    /// Nanoseconds of the generator's clock.
    pub(crate) at_ns: u64,
    /// Milliseconds since 1970, for the events' timestamps.
    pub(crate) wall_ms: u64,
}

/// Turns a schedule into events, each at its time.
#[derive(Debug)]
pub(crate) struct Sender {
    run: u32,
    filling: Filling,
    schedule: Schedule,
    start: Start,
    text: Vec<u8>,
    sent: u64,
    slip_ns: Histogram<u64>,
}

impl Sender {
    /// A sender of `schedule`'s events as phase `run`, with `filling` in each.
    pub(crate) fn new(run: u32, filling: Filling, schedule: Schedule, start: Start) -> Self {
        let (text, slip_ns) = (Vec::new(), latency_histogram());
        Self {
            run,
            filling,
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

    /// The next event and its user, where it is due at `now_ns`. How late that is, is the slip.
    pub(crate) fn poll_event(&mut self, now_ns: u64) -> Option<(u32, &[u8])> {
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
        self.text.clear();
        payload::write_event(&mut self.text, &marker, timestamp_ms, self.filling);
        Some((due.user, &self.text))
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

/// What each publisher connection has sent, and what of it the server has settled.
#[derive(Debug, Default)]
pub(crate) struct Acknowledgements {
    /// Messages sent and settled, for each publisher: `settled <= sent`.
    publishers: Vec<(u64, u64)>,
    nacks: BTreeMap<String, u64>,
}

impl Acknowledgements {
    /// The ledger of `publishers` connections.
    pub(crate) fn new(publishers: usize) -> Self {
        Self {
            publishers: vec![(0, 0); publishers],
            nacks: BTreeMap::new(),
        }
    }

    /// Notes that publisher `index` has sent one message more.
    pub(crate) fn note_sent(&mut self, index: usize) {
        self.publishers[index].0 += 1;
    }

    /// Takes what the server said to publisher `index`; returns whether it was about its
    /// messages.
    pub(crate) fn handle_reply(&mut self, index: usize, text: &[u8]) -> bool {
        let Ok(reply) = serde_json::from_slice::<Reply>(text) else {
            return false;
        };
        match reply {
            Reply::Ack { through } => {
                let (sent, settled) = &mut self.publishers[index];
                *settled = (*settled).max(through.min(*sent));
            }
            Reply::Nack { code } => *self.nacks.entry(code).or_insert(0) += 1,
        }
        true
    }

    /// Messages sent that no acknowledgement has reached.
    pub(crate) fn unsettled(&self) -> u64 {
        self.publishers
            .iter()
            .map(|(sent, settled)| sent - settled)
            .sum()
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
    use crate::payload::MarkerFinder;
    use crate::schedule::{Arrival, Lane};
    use std::time::Duration;

    fn sender() -> Sender {
        let lane = Lane::new(0..2, 1000.0, Duration::from_millis(3), Arrival::Even);
        let start = Start {
            at_ns: 5_000_000,
            wall_ms: 1_763_805_600_000,
        };
        Sender::new(9, Filling::Letters(10), Schedule::new(vec![lane]), start)
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
        while let Some((user, text)) = sender.poll_event(9_000_000) {
            let marker = MarkerFinder::new().find(text).unwrap();
            seen.push((user, marker.n, marker.intended_ns));
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
    fn replies_settle_what_was_sent() {
        let mut ledger = Acknowledgements::new(2);
        for index in [0, 0, 1] {
            ledger.note_sent(index);
        }
        assert_eq!(ledger.unsettled(), 3);
        assert!(ledger.handle_reply(0, br#"{"type":"ack","data":{"through":1}}"#));
        assert_eq!(ledger.unsettled(), 2);
        assert!(ledger.handle_reply(0, br#"{"type":"ack","data":{"through":99}}"#));
        assert_eq!(ledger.unsettled(), 1);
        assert!(!ledger.handle_reply(1, br#"{"type":"server_shutdown","data":{}}"#));
        assert!(!ledger.handle_reply(1, b"nonsense"));
    }

    #[test]
    fn refusals_are_counted_and_overload_is_final() {
        let mut ledger = Acknowledgements::new(1);
        let nack = |code| format!(r#"{{"type":"nack","data":{{"message":1,"code":"{code}"}}}}"#);
        assert!(ledger.handle_reply(0, nack("NO_AUDIENCE").as_bytes()));
        assert_eq!(ledger.refusal(), None);
        assert!(ledger.handle_reply(0, nack("OVERLOADED").as_bytes()));
        assert_eq!(ledger.refusal(), Some("OVERLOADED"));
        assert_eq!(ledger.take_nacks().len(), 2);
        assert_eq!(ledger.refusal(), None);
    }
}
