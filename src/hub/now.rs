//! The time of one turn. Nothing below the engine reads a clock: the engine reads it once a turn
//! and hands this down.

/// One moment, on the monotonic and on the wall clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Nanoseconds since the process started; never goes back.
    pub monotonic_ns: u64,
    /// Milliseconds since the Unix epoch; may jump.
    pub wall_ms: i64,
}

impl Now {
    /// Milliseconds since the process started: the unit of every deadline.
    pub fn ms(self) -> u64 {
        self.monotonic_ns / 1_000_000
    }

    /// The same, rounded up: what is due so many milliseconds after it is not due too soon.
    pub fn ms_up(self) -> u64 {
        self.monotonic_ns.div_ceil(1_000_000)
    }

    /// Seconds since the Unix epoch: the unit of token times.
    pub fn wall_s(self) -> u64 {
        u64::try_from(self.wall_ms / 1_000).unwrap_or(0)
    }
}
