//! How long to wait before the next connection: exponential with full jitter, so that clients
//! that were cut off together do not come back together.
//! Source: "Exponential Backoff And Jitter" (AWS Architecture Blog), as centrifuge-js does it.

use std::time::Duration;

/// The attempts since the last connection that held.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    attempts: u32,
}

impl Backoff {
    /// Starts over, after a connection that held.
    pub(crate) fn reset(&mut self) {
        self.attempts = 0;
    }

    /// How long to wait now: `DELAY_MIN` plus a random part of a span that doubles with every
    /// attempt up to `DELAY_MAX`; and no less than the server `asked` for (at most `ASKED_MAX`).
    /// `random` is uniform over all of `u64`.
    pub(crate) fn next_delay(&mut self, random: u64, asked: Option<Duration>) -> Duration {
        let doubled = DELAY_MIN.saturating_mul(1 << self.attempts.min(16));
        self.attempts = self.attempts.saturating_add(1);
        let fraction = random as f64 / u64::MAX as f64;
        let own = DELAY_MIN + doubled.min(DELAY_MAX - DELAY_MIN).mul_f64(fraction);
        own.max(asked.unwrap_or_default().min(ASKED_MAX))
    }
}

/// The shortest wait.
const DELAY_MIN: Duration = Duration::from_millis(500);
/// The longest wait of our own choosing.
const DELAY_MAX: Duration = Duration::from_secs(20);
/// The longest wait that a server can ask for.
const ASKED_MAX: Duration = Duration::from_secs(300);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn doubles_to_its_bound_and_starts_over() {
        let mut backoff = Backoff::default();
        let longest: Vec<u128> = (0..8)
            .map(|_| backoff.next_delay(u64::MAX, None).as_millis())
            .collect();
        assert_eq!(
            longest,
            [1000, 1500, 2500, 4500, 8500, 16_500, 20_000, 20_000]
        );
        backoff.reset();
        assert_eq!(backoff.next_delay(0, None), DELAY_MIN);
    }

    #[test]
    fn waits_as_long_as_the_server_asks() {
        let mut backoff = Backoff::default();
        let asked = Duration::from_secs(7);
        assert_eq!(backoff.next_delay(u64::MAX, Some(asked)), asked);
        assert_eq!(backoff.next_delay(0, Some(Duration::MAX)), ASKED_MAX);
    }

    proptest! {
        #[test]
        fn stays_within_its_bounds(randoms in prop::collection::vec(any::<u64>(), 1..100)) {
            let mut backoff = Backoff::default();
            for random in randoms {
                let delay = backoff.next_delay(random, None);
                prop_assert!((DELAY_MIN..=DELAY_MAX).contains(&delay));
            }
        }
    }
}
