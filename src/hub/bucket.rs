//! A limit on the rate of what comes in amounts: a bucket that holds one second's worth and refills
//! steadily.
//!
//! Knows neither its rate, of which its owner names the same each time, nor whose it is: there is one
//! for each publisher's bytes, and one for each address' handshakes.

/// See the module. Kept as what was taken out, so that an untouched bucket is full and all zero.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bucket {
    // In thousandths, which is what a millisecond brings back for each one a second.
    taken_milli: u64,
    updated_ms: u64,
}

impl Bucket {
    /// Takes `count` of at most `per_second`, at `now_ms` (monotonic milliseconds). Whatever is more
    /// than the bucket holds takes a full one, so that a small limit delays it and never bars it.
    /// Errors: the milliseconds until it is there, at least 1.
    pub fn take(&mut self, now_ms: u64, count: u64, per_second: u64) -> Result<(), u64> {
        self.taken_milli = self.taken_milli_at(now_ms, per_second);
        self.updated_ms = self.updated_ms.max(now_ms);
        let taken_milli = self.taken_milli + count.min(per_second) * MILLI;
        let excess_milli = taken_milli.saturating_sub(per_second * MILLI);
        if excess_milli > 0 {
            return Err(excess_milli.div_ceil(per_second));
        }
        self.taken_milli = taken_milli;
        Ok(())
    }

    /// Whether it is full at `now_ms`, so that forgetting it changes nothing.
    pub fn is_full(&self, now_ms: u64, per_second: u64) -> bool {
        self.taken_milli_at(now_ms, per_second) == 0
    }

    fn taken_milli_at(&self, now_ms: u64, per_second: u64) -> u64 {
        let elapsed_ms = now_ms.saturating_sub(self.updated_ms);
        self.taken_milli
            .saturating_sub(elapsed_ms.saturating_mul(per_second))
    }
}

const MILLI: u64 = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_is_bounded_and_an_oversized_amount_only_delayed() {
        let mut bucket = Bucket::default();
        assert_eq!(bucket.take(0, 600, 1_000), Ok(()));
        assert_eq!(bucket.take(0, 600, 1_000), Err(200));
        assert_eq!(bucket.take(200, 600, 1_000), Ok(()));
        assert_eq!(bucket.take(200, 5_000, 1_000), Err(1_000));
        assert_eq!(bucket.take(1_200, 5_000, 1_000), Ok(()));
        assert!(!bucket.is_full(2_199, 1_000));
        assert!(bucket.is_full(2_200, 1_000));
    }

    #[test]
    fn a_trickle_refills_it_too() {
        let mut bucket = Bucket::default();
        assert_eq!(bucket.take(0, 3, 3), Ok(()));
        let refused = (1..334).map(|now_ms| bucket.take(now_ms, 1, 3));
        assert!(refused.eq((1..334).rev().map(Err)));
        assert_eq!(bucket.take(334, 1, 3), Ok(()));
    }

    proptest::proptest! {
        #[test]
        fn what_is_refused_is_there_when_it_says_and_not_before(
            takes in proptest::collection::vec((0_u64..400, 0_u64..200), 1..200),
            per_second in 1_u64..300,
        ) {
            let (mut bucket, mut now_ms, mut taken) = (Bucket::default(), 0, 0);
            for (gap_ms, count) in takes {
                now_ms += gap_ms;
                if let Err(wait_ms) = bucket.take(now_ms, count, per_second) {
                    now_ms += wait_ms;
                    let mut early = bucket;
                    proptest::prop_assert_eq!(early.take(now_ms - 1, count, per_second), Err(1));
                    proptest::prop_assert_eq!(bucket.take(now_ms, count, per_second), Ok(()));
                }
                taken += count.min(per_second);
                proptest::prop_assert!(taken * MILLI <= per_second * (MILLI + now_ms));
            }
        }
    }
}
