//! The clock of the process. Read by engines only; everything below gets `Now` as an argument.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::hub::Now;

/// Counts from the start of the process; copied to every core.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    started: Instant,
}

impl Clock {
    /// Starts at zero.
    pub fn start() -> Self {
        Self {
            started: Instant::now(),
        }
    }

    /// Nanoseconds since the start.
    pub fn monotonic_ns(self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// This moment on both clocks.
    pub fn now(self) -> Now {
        let wall_ms = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |elapsed| elapsed.as_millis());
        Now {
            monotonic_ns: self.monotonic_ns(),
            wall_ms: i64::try_from(wall_ms).unwrap_or(i64::MAX),
        }
    }
}
