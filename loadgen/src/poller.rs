//! Waiting: readiness and time behind one call, to the microsecond.
//!
//! Owns the poll, its timer and the generator's clock; the clock stands still between two ticks.

use std::io;
use std::time::{Duration, Instant};

use mio::event::Event;
use mio::{Events, Poll, Registry, Token};

use crate::timer::Timer;

/// A poll with a clock.
#[derive(Debug)]
pub(crate) struct Poller {
    poll: Poll,
    timer: Timer,
    events: Events,
    clock: Instant,
    now_ns: u64,
    idle_ns: u64,
}

impl Poller {
    /// A poll without sockets, whose clock begins at 0.
    pub(crate) fn new(clock: Instant) -> io::Result<Self> {
        let poll = Poll::new()?;
        let timer = Timer::new(poll.registry(), TIMER)?;
        Ok(Self {
            poll,
            timer,
            events: Events::with_capacity(EVENTS_PER_POLL),
            clock,
            now_ns: 0,
            idle_ns: 0,
        })
    }

    /// Where sockets are registered; their tokens are below `usize::MAX`.
    pub(crate) fn registry(&self) -> &Registry {
        self.poll.registry()
    }

    /// The time of the last tick, nanoseconds.
    pub(crate) fn now_ns(&self) -> u64 {
        self.now_ns
    }

    /// Reads the clock.
    pub(crate) fn tick(&mut self) -> u64 {
        self.now_ns = self.clock.elapsed().as_nanos() as u64;
        self.now_ns
    }

    /// Nanoseconds waited since the last call.
    pub(crate) fn take_idle_ns(&mut self) -> u64 {
        std::mem::take(&mut self.idle_ns)
    }

    /// What is ready now; waits for nothing.
    pub(crate) fn poll_now(&mut self) -> io::Result<()> {
        self.poll(Some(Duration::ZERO))
    }

    /// What is ready now, else waits for the first event, at most until `until_ns`. The timer is
    /// set a little earlier, for waking takes its time, and the rest of the way is spun.
    pub(crate) fn poll_until(&mut self, until_ns: u64) -> io::Result<()> {
        self.poll_now()?;
        if !self.events.is_empty() {
            return Ok(());
        }
        let from_ns = self.tick();
        while self.events.is_empty() && self.now_ns < until_ns {
            let timeout = if until_ns - self.now_ns > SPIN_NS {
                self.timer.arm(self.now_ns, until_ns - SPIN_NS)?;
                None
            } else {
                Some(Duration::ZERO)
            };
            self.poll(timeout)?;
            self.tick();
        }
        self.idle_ns += self.now_ns - from_ns;
        Ok(())
    }

    /// What the last poll has found of sockets.
    pub(crate) fn events(&self) -> impl Iterator<Item = &Event> {
        self.events.iter().filter(|event| event.token() != TIMER)
    }

    fn poll(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        match self.poll.poll(&mut self.events, timeout) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

/// The timer's token.
const TIMER: Token = Token(usize::MAX);
const EVENTS_PER_POLL: usize = 1024;
/// How long before an awaited time the loop stops sleeping.
const SPIN_NS: u64 = 100_000;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn waits_for_the_time_where_nothing_comes() {
        let mut poller = Poller::new(Instant::now()).unwrap();
        let until_ns = poller.tick() + 2_000_000;
        while poller.now_ns() < until_ns {
            // The timer's own event ends a wait early.
            poller.poll_until(until_ns).unwrap();
            assert_eq!(poller.events().count(), 0);
            poller.tick();
        }
        assert!(poller.take_idle_ns() > 0);
        assert_eq!(poller.take_idle_ns(), 0);
    }
}
