//! What was read and is not yet settled: the events in flight and those that wait for their turn.
//! Pure; `delivery` drives it. Contract, section 3, `GET /v1/publish`.
//!
//! Order is the point. An event that must be sent again goes before everything that was read
//! after it: nothing new is sent until all that is in flight is settled one way or the other.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use compact_str::CompactString;
use tungstenite::Utf8Bytes;

/// An event as it goes on the wire, and the name by which its user knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Parcel {
    /// `line 3`, `commit 0a1b2c3`.
    pub(crate) label: CompactString,
    /// One JSON object.
    pub(crate) text: Utf8Bytes,
}

/// The unsettled events, in the order in which they were read.
pub(crate) struct Window {
    entries: VecDeque<Entry>,
    /// Bytes of all entries' texts.
    bytes: usize,
    /// How many entries are `Sent`. While there is no pause they are the first ones.
    in_flight: usize,
    /// The number that this connection's next event will have; from 1.
    next_message: u64,
    pause: Option<Pause>,
}

struct Entry {
    parcel: Parcel,
    /// Its message number on the present connection, once sent and until returned.
    sent_as: Option<u64>,
}

/// The gateway takes nothing for the moment.
struct Pause {
    until: Instant,
    /// It will take nothing more until it is told to `continue`.
    needs_continue: bool,
}

/// What the gateway's refusal of one event leads to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Nacked {
    /// It goes again, later.
    ForNow,
    /// It is settled: it will never be taken.
    ForGood(Parcel),
}

impl Window {
    /// Empty, for the first connection.
    pub(crate) fn new() -> Self {
        Self {
            entries: VecDeque::new(),
            bytes: 0,
            in_flight: 0,
            next_message: 1,
            pause: None,
        }
    }

    /// Whether it takes another event. One event may pass the bound on bytes, so that each fits.
    pub(crate) fn has_room(&self) -> bool {
        self.entries.len() < ENTRIES_MAX && self.bytes < BYTES_MAX
    }

    /// Appends an event. Call while `has_room`.
    pub(crate) fn push(&mut self, parcel: Parcel) {
        self.bytes += parcel.text.len();
        self.entries.push_back(Entry {
            parcel,
            sent_as: None,
        });
    }

    /// Whether everything is settled.
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Messages 1 to `through` of this connection are settled, and their nacks came before.
    /// Returns how many events that publishes.
    pub(crate) fn handle_ack(&mut self, through: u64) -> u64 {
        let mut published = 0;
        let mut index = 0;
        while let Some(entry) = self.entries.get(index) {
            match entry.sent_as {
                None => index += 1,
                Some(message) if message <= through => {
                    self.remove(index);
                    published += 1;
                }
                Some(_) => break,
            }
        }
        self.check_invariants();
        published
    }

    /// The gateway did not take `message`. `None` where that message is not in flight.
    pub(crate) fn handle_nack(
        &mut self,
        now: Instant,
        message: u64,
        code: &str,
        retry_after: Option<Duration>,
    ) -> Option<Nacked> {
        let index = self
            .entries
            .iter()
            .position(|entry| entry.sent_as == Some(message))?;
        let refused = if is_retryable(code) {
            self.entries[index].sent_as = None;
            self.in_flight -= 1;
            self.pause(now, code, retry_after.unwrap_or(RETRY_AFTER_DEFAULT));
            Nacked::ForNow
        } else {
            Nacked::ForGood(self.remove(index))
        };
        self.check_invariants();
        Some(refused)
    }

    /// The connection is gone: what it had not settled goes again on the next one.
    pub(crate) fn handle_disconnected(&mut self) {
        for entry in &mut self.entries {
            entry.sent_as = None;
        }
        self.in_flight = 0;
        self.next_message = 1;
        self.pause = None;
        self.check_invariants();
    }

    /// The next message to send now, if any: an event, or the word that ends a refusal.
    pub(crate) fn poll_transmit(&mut self, now: Instant) -> Option<Utf8Bytes> {
        if let Some(pause) = &self.pause {
            if self.in_flight > 0 || now < pause.until {
                return None;
            }
            let needs_continue = pause.needs_continue;
            self.pause = None;
            if needs_continue {
                return Some(Utf8Bytes::from_static(CONTINUE));
            }
        }
        let entry = self.entries.get_mut(self.in_flight)?;
        entry.sent_as = Some(self.next_message);
        self.next_message += 1;
        self.in_flight += 1;
        let text = entry.parcel.text.clone();
        self.check_invariants();
        Some(text)
    }

    /// When `poll_transmit` may have something by time alone.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let pause = self.pause.as_ref()?;
        (self.in_flight == 0).then_some(pause.until)
    }

    fn pause(&mut self, now: Instant, code: &str, retry_after: Duration) {
        let pause = self.pause.get_or_insert(Pause {
            until: now,
            needs_continue: false,
        });
        pause.until = pause.until.max(now + retry_after.min(RETRY_AFTER_MAX));
        pause.needs_continue |= matches!(code, "OVERLOADED" | "STORAGE_FULL");
    }

    /// Takes out an entry that is in flight.
    fn remove(&mut self, index: usize) -> Parcel {
        let entry = self
            .entries
            .remove(index)
            .expect("callers found this index");
        self.bytes -= entry.parcel.text.len();
        self.in_flight -= 1;
        entry.parcel
    }

    /// Message numbers rise along the entries; without a pause the first `in_flight` are sent.
    /// Looks at every entry, so only tests can afford it.
    fn check_invariants(&self) {
        if cfg!(test) {
            let sent: Vec<u64> = self.entries.iter().filter_map(|e| e.sent_as).collect();
            assert_eq!(sent.len(), self.in_flight);
            assert!(sent.is_sorted_by(|a, b| a < b));
            assert!(sent.last().is_none_or(|last| *last < self.next_message));
            let first = self.entries.iter().take(self.in_flight);
            assert!(self.pause.is_some() || first.into_iter().all(|e| e.sent_as.is_some()));
            let bytes: usize = self.entries.iter().map(|e| e.parcel.text.len()).sum();
            assert_eq!(bytes, self.bytes);
        }
    }
}

/// Whether the gateway may take the same event later.
fn is_retryable(code: &str) -> bool {
    matches!(
        code,
        "DRAINING" | "OVERLOADED" | "RATE_LIMITED" | "STORAGE_FULL"
    )
}

const CONTINUE: &str = r#"{"type":"continue"}"#;
const ENTRIES_MAX: usize = 4096;
const BYTES_MAX: usize = 4 * 1024 * 1024;
/// Where a refusal names no time.
const RETRY_AFTER_DEFAULT: Duration = Duration::from_secs(1);
/// The longest that a refusal can make us wait on an open connection.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;
    use std::collections::{BTreeSet, VecDeque};

    fn parcel(number: usize) -> Parcel {
        Parcel {
            label: format!("line {number}").into(),
            text: number.to_string().into(),
        }
    }

    fn filled(count: usize) -> Window {
        let mut window = Window::new();
        (1..=count).for_each(|number| window.push(parcel(number)));
        window
    }

    fn sent(window: &mut Window, now: Instant) -> Vec<String> {
        std::iter::from_fn(|| window.poll_transmit(now))
            .map(|text| text.to_string())
            .collect()
    }

    #[test]
    fn sends_in_order_and_forgets_what_is_acknowledged() {
        let now = Instant::now();
        let mut window = filled(3);
        assert_eq!(sent(&mut window, now), ["1", "2", "3"]);
        assert_eq!(window.handle_ack(2), 2);
        assert_eq!(window.handle_ack(2), 0);
        assert_eq!(window.handle_ack(99), 1);
        assert!(window.is_empty());
    }

    #[test]
    fn an_overloaded_gateway_is_told_to_continue_and_gets_the_rest_in_order() {
        let now = Instant::now();
        let after = Duration::from_millis(200);
        let mut window = filled(3);
        assert_eq!(sent(&mut window, now).len(), 3);
        window.push(parcel(4));
        assert_eq!(
            window.handle_nack(now, 2, "OVERLOADED", Some(after)),
            Some(Nacked::ForNow)
        );
        assert_eq!(sent(&mut window, now), [""; 0], "nothing overtakes");
        assert_eq!(
            window.handle_nack(now, 3, "OVERLOADED", Some(after)),
            Some(Nacked::ForNow)
        );
        assert_eq!(window.handle_ack(3), 1);
        assert_eq!(sent(&mut window, now), [""; 0]);
        assert_eq!(window.poll_timeout(), Some(now + after));
        let later = now + after;
        assert_eq!(sent(&mut window, later), [CONTINUE, "2", "3", "4"]);
        assert_eq!(window.handle_ack(6), 3);
        assert!(window.is_empty());
    }

    #[test]
    fn a_rate_limit_is_waited_out_without_a_continue() {
        let now = Instant::now();
        let mut window = filled(2);
        sent(&mut window, now);
        window.handle_nack(now, 1, "RATE_LIMITED", None);
        assert_eq!(window.handle_ack(2), 1);
        assert_eq!(sent(&mut window, now + RETRY_AFTER_DEFAULT), ["1"]);
    }

    #[test]
    fn a_permanent_refusal_settles_one_event_alone() {
        let now = Instant::now();
        let mut window = filled(2);
        sent(&mut window, now);
        let refused = window.handle_nack(now, 1, "NO_AUDIENCE", None);
        assert_eq!(refused, Some(Nacked::ForGood(parcel(1))));
        assert_eq!(window.handle_nack(now, 1, "NO_AUDIENCE", None), None);
        assert_eq!(window.handle_ack(2), 1);
        assert!(window.is_empty());
    }

    #[test]
    fn has_a_bound_in_count_and_in_bytes() {
        let mut window = filled(ENTRIES_MAX);
        assert!(!window.has_room());
        sent(&mut window, Instant::now());
        window.handle_ack(1);
        assert!(window.has_room());
        let mut window = Window::new();
        window.push(Parcel {
            label: "line 1".into(),
            text: "x".repeat(BYTES_MAX).into(),
        });
        assert!(!window.has_room());
    }

    /// A gateway that answers late, refuses as it likes, and may go at any moment.
    #[derive(Default)]
    struct Gateway {
        /// Events in the order in which it first took them.
        taken: Vec<usize>,
        refused: BTreeSet<usize>,
        received: u64,
        overloaded: bool,
        owed: VecDeque<Answer>,
    }

    enum Answer {
        Ack(u64),
        Nack(u64, &'static str),
    }

    impl Gateway {
        fn receive(&mut self, text: &str, choice: u8) {
            if text == CONTINUE {
                self.overloaded = false;
                return;
            }
            self.received += 1;
            let event = text.parse().unwrap();
            let known = self.taken.contains(&event);
            if self.overloaded || choice.is_multiple_of(5) {
                self.overloaded = true;
                self.owed
                    .push_back(Answer::Nack(self.received, "OVERLOADED"));
            } else if choice.is_multiple_of(7) && !known {
                self.refused.insert(event);
                self.owed
                    .push_back(Answer::Nack(self.received, "NO_AUDIENCE"));
            } else if !known {
                self.taken.push(event);
            }
            self.owed.push_back(Answer::Ack(self.received));
        }

        fn restart(&mut self) {
            self.received = 0;
            self.overloaded = false;
            self.owed.clear();
        }
    }

    proptest! {
        #[test]
        fn every_event_is_settled_once_and_order_is_kept(
            count in 1usize..40,
            choices in prop::collection::vec(any::<(u8, u8)>(), 0..400),
        ) {
            let mut now = Instant::now();
            let (mut window, mut gateway) = (Window::new(), Gateway::default());
            let (mut next, mut published, mut refused) = (1, 0, Vec::new());
            // Past the random part the gateway is well and everything must come to its end.
            let calm = std::iter::repeat_n((1, 0), 20 * count + 1000);
            for (choice, action) in choices.into_iter().chain(calm) {
                now += RETRY_AFTER_DEFAULT / 2;
                while next <= count && window.has_room() && action % 4 != 3 {
                    window.push(parcel(next));
                    next += 1;
                }
                if let Some(text) = window.poll_transmit(now) {
                    gateway.receive(&text, choice);
                }
                match (action % 8, if action % 3 == 0 { gateway.owed.pop_front() } else { None }) {
                    (7, _) => {
                        gateway.restart();
                        window.handle_disconnected();
                    }
                    (_, Some(Answer::Ack(through))) => published += window.handle_ack(through),
                    (_, Some(Answer::Nack(message, code))) => {
                        let outcome = window.handle_nack(now, message, code, None);
                        if let Some(Nacked::ForGood(parcel)) = outcome {
                            refused.push(parcel.text.parse::<usize>().unwrap());
                        }
                    }
                    _ => {}
                }
            }
            prop_assert!(window.is_empty());
            prop_assert_eq!(published as usize + refused.len(), count);
            let settled: BTreeSet<usize> = refused.iter().chain(&gateway.taken).copied().collect();
            prop_assert_eq!(settled.len(), count);
            // What was refused, its answer lost, and then taken on the next connection, is the
            // one thing that may come late: everything else is in the order in which it was read.
            let firm: Vec<usize> = gateway.taken.iter().copied()
                .filter(|event| !gateway.refused.contains(event)).collect();
            prop_assert!(firm.is_sorted());
        }
    }
}
