//! A timer that wakes the poll to the microsecond; the poll's own timeout has steps of one
//! millisecond. Source: timerfd_create(2).

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

/// One wake-up at a time.
#[derive(Debug)]
pub(crate) struct Timer {
    fd: OwnedFd,
    /// When it wakes, nanoseconds of the caller's clock; 0 before it was first armed.
    armed_ns: u64,
}

impl Timer {
    /// A timer that wakes the poll behind `registry` with `token`.
    pub(crate) fn new(registry: &Registry, token: Token) -> io::Result<Self> {
        let fd = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK)?;
        registry.register(&mut SourceFd(&fd.as_raw_fd()), token, Interest::READABLE)?;
        Ok(Self { fd, armed_ns: 0 })
    }

    /// Wakes at `at_ns` instead of whenever it was to; it is `now_ns`, and not yet `at_ns`.
    /// Nothing has to be read afterwards: each expiry is an edge of its own.
    pub(crate) fn arm(&mut self, now_ns: u64, at_ns: u64) -> io::Result<()> {
        if self.armed_ns == at_ns {
            return Ok(());
        }
        let left_ns = at_ns.saturating_sub(now_ns).max(1);
        let once = Itimerspec {
            it_interval: Timespec {
                tv_sec: 0,
                tv_nsec: 0,
            },
            it_value: Timespec {
                tv_sec: (left_ns / 1_000_000_000) as i64,
                tv_nsec: (left_ns % 1_000_000_000) as i64,
            },
        };
        timerfd_settime(&self.fd, TimerfdTimerFlags::empty(), &once)?;
        self.armed_ns = at_ns;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use mio::{Events, Poll};
    use std::time::{Duration, Instant};

    #[test]
    fn each_arming_wakes_once_and_not_too_early() {
        let mut poll = Poll::new().unwrap();
        let mut events = Events::with_capacity(4);
        let mut timer = Timer::new(poll.registry(), Token(7)).unwrap();
        for (now_ns, at_ns) in [(0, 2_000_000), (5, 1_000_005), (10, 11)] {
            let start = Instant::now();
            timer.arm(now_ns, at_ns).unwrap();
            poll.poll(&mut events, Some(Duration::from_secs(10)))
                .unwrap();
            assert!(start.elapsed() >= Duration::from_nanos(at_ns - now_ns));
            assert_eq!(
                events.iter().map(|event| event.token()).collect::<Vec<_>>(),
                [Token(7)]
            );
            poll.poll(&mut events, Some(Duration::ZERO)).unwrap();
            assert!(events.is_empty());
        }
    }
}
