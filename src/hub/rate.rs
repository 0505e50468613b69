//! The limit on the rate of a viewer's messages: exact sliding windows.

use std::collections::VecDeque;

use crate::limits::MESSAGES_PER_MINUTE_CLOSE;

const SECOND_MS: u64 = 1_000;
const MINUTE_MS: u64 = 60_000;

/// A viewer's messages: at most so many in any second and in any minute.
///
/// Dropped messages do not count against the limits, but they do count towards the number past
/// which the connection is closed. Idle viewers hold no memory: the windows are freed when empty.
#[derive(Debug, Default)]
pub struct MessageRate {
    windows: Option<Box<Windows>>,
}

#[derive(Debug, Default)]
struct Windows {
    accepted_ms: VecDeque<u64>,
    // Arrivals of the present and the previous minute are bounded by MESSAGES_PER_MINUTE_CLOSE.
    arrived_ms: VecDeque<u64>,
}

/// What becomes of one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is within the limits and counts.
    Accept,
    /// Too many in any minute, dropped ones included: close with 4429.
    Close,
    /// Over a limit: answer `RATE_LIMIT_EXCEEDED`; the next is accepted after so many milliseconds.
    Drop {
        /// Milliseconds until a message would be accepted, at least 1.
        retry_after_ms: u64,
    },
}

impl MessageRate {
    /// Judges a message that arrived at `now_ms`.
    pub fn judge(&mut self, now_ms: u64, per_second_max: usize, per_minute_max: usize) -> Verdict {
        let windows = self.windows.get_or_insert_default();
        windows.forget(now_ms);
        if windows.arrived_ms.len() >= MESSAGES_PER_MINUTE_CLOSE {
            return Verdict::Close;
        }
        windows.arrived_ms.push_back(now_ms);
        match windows.wait_ms(now_ms, per_second_max, per_minute_max) {
            0 => {
                windows.accepted_ms.push_back(now_ms);
                Verdict::Accept
            }
            retry_after_ms => Verdict::Drop { retry_after_ms },
        }
    }

    /// Frees the memory of a viewer that has been silent for a minute.
    pub fn handle_idle(&mut self, now_ms: u64) {
        if let Some(windows) = &mut self.windows {
            windows.forget(now_ms);
            if windows.arrived_ms.is_empty() {
                self.windows = None;
            }
        }
    }
}

impl Windows {
    fn forget(&mut self, now_ms: u64) {
        for window in [&mut self.accepted_ms, &mut self.arrived_ms] {
            while window.front().is_some_and(|at| at + MINUTE_MS <= now_ms) {
                window.pop_front();
            }
        }
    }

    fn wait_ms(&self, now_ms: u64, per_second_max: usize, per_minute_max: usize) -> u64 {
        let until = |count_max: usize, window_ms: u64| match self
            .accepted_ms
            .len()
            .checked_sub(count_max)
        {
            Some(index) => self
                .accepted_ms
                .get(index)
                .map_or(window_ms, |at| (at + window_ms).saturating_sub(now_ms)),
            None => 0,
        };
        until(per_second_max, SECOND_MS).max(until(per_minute_max, MINUTE_MS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twenty_a_second_and_a_hundred_a_minute_then_drops_that_do_not_count() {
        let mut rate = MessageRate::default();
        for _ in 0..20 {
            assert_eq!(rate.judge(0, 20, 100), Verdict::Accept);
        }
        assert_eq!(
            rate.judge(400, 20, 100),
            Verdict::Drop {
                retry_after_ms: 600
            }
        );
        assert_eq!(
            rate.judge(1_000, 20, 100),
            Verdict::Accept,
            "the drop did not count"
        );
        for second in 2..6 {
            for _ in 0..20 {
                rate.judge(second * 1_000, 20, 100);
            }
        }
        assert_eq!(
            rate.judge(7_000, 20, 100),
            Verdict::Drop {
                retry_after_ms: 53_000
            }
        );
        assert_eq!(rate.judge(60_000, 20, 100), Verdict::Accept);
    }

    #[test]
    fn a_thousand_in_a_minute_dropped_included_closes() {
        let mut rate = MessageRate::default();
        for _ in 0..1_000 {
            assert_ne!(rate.judge(5, 20, 100), Verdict::Close);
        }
        assert_eq!(rate.judge(5, 20, 100), Verdict::Close);
    }

    #[test]
    fn a_silent_viewer_holds_no_windows() {
        let mut rate = MessageRate::default();
        rate.judge(0, 20, 100);
        rate.handle_idle(59_999);
        assert!(rate.windows.is_some());
        rate.handle_idle(60_000);
        assert!(rate.windows.is_none());
    }

    proptest::proptest! {
        #[test]
        fn no_window_ever_holds_more_than_its_limit(gaps in proptest::collection::vec(0_u64..400, 1..400)) {
            let (mut rate, mut now_ms, mut accepted) = (MessageRate::default(), 0, Vec::new());
            for gap in gaps {
                now_ms += gap;
                if rate.judge(now_ms, 5, 20) == Verdict::Accept {
                    accepted.push(now_ms);
                }
            }
            for (window_ms, count_max) in [(1_000, 5), (60_000, 20)] {
                for (index, at) in accepted.iter().enumerate() {
                    let within = accepted[index..].iter().filter(|later| **later < at + window_ms).count();
                    proptest::prop_assert!(within <= count_max);
                }
            }
        }
    }
}
