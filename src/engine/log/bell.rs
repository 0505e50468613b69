//! Ends the sleep of the log's writer: at once for what cannot wait, and for records when there are
//! as many as it waits for. A thread that is woken for each record costs more than the record.
//!
//! Why no wake-up is lost. The numbers are changed and read in one order that all threads see. The
//! ringer adds what came, then reads from when on the writer wants to be woken; the writer says so,
//! then reads what has come. Whichever of the two was first, the other sees it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crossbeam_utils::sync::{Parker, Unparker};

/// A bell and who sleeps beside it.
pub(super) fn bell() -> (Bell, Sleeper) {
    let parker = Parker::new();
    let bell = Bell {
        unparker: parker.unparker().clone(),
        counts: Arc::new(Counts {
            arrived: AtomicU64::new(0),
            wake_at: AtomicU64::new(u64::MAX),
        }),
    };
    let counts = Arc::clone(&bell.counts);
    (bell, Sleeper { parker, counts })
}

/// Wakes the sleeper.
#[derive(Clone, Debug)]
pub(super) struct Bell {
    unparker: Unparker,
    counts: Arc<Counts>,
}

/// Sleeps.
#[derive(Debug)]
pub(super) struct Sleeper {
    parker: Parker,
    counts: Arc<Counts>,
}

#[derive(Debug)]
struct Counts {
    // All that ever came.
    arrived: AtomicU64,
    // How many of these the sleeper waits for; while it is awake, more than will ever come.
    wake_at: AtomicU64,
}

impl Bell {
    /// Wakes: what was sent before is to be seen now.
    pub fn ring(&self) {
        self.unparker.unpark();
    }

    /// Wakes where with `count` more, which were sent before, there are enough.
    pub fn count(&self, count: u64) {
        let arrived = self.counts.arrived.fetch_add(count, Ordering::SeqCst) + count;
        if arrived >= self.counts.wake_at.load(Ordering::SeqCst) {
            self.ring();
        }
    }
}

impl Sleeper {
    /// Sleeps until `wake_at` have come since the beginning, it rings, or the time is up; maybe less
    /// long.
    pub fn sleep(&self, wake_at: u64, time: Option<Duration>) {
        self.counts.wake_at.store(wake_at, Ordering::SeqCst);
        if self.counts.arrived.load(Ordering::SeqCst) < wake_at {
            match time {
                Some(time) => self.parker.park_timeout(time),
                None => self.parker.park(),
            }
        }
        self.counts.wake_at.store(u64::MAX, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use std::thread;
    use std::time::Instant;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn sleep(sleeper: &Sleeper, wake_at: u64, time: Duration) -> bool {
        let begun = Instant::now();
        sleeper.sleep(wake_at, Some(time));
        begun.elapsed() < time
    }

    #[test]
    fn enough_wake_and_fewer_do_not() {
        let (bell, sleeper) = bell();
        bell.count(3);
        assert!(sleep(&sleeper, 3, LONG), "they were there before");
        assert!(!sleep(&sleeper, 4, Duration::from_millis(5)));
        thread::scope(|scope| {
            scope.spawn(|| (0..2).for_each(|_| bell.count(1)));
            assert!(sleep(&sleeper, 5, LONG));
        });
        bell.count(2);
        let is_silent = !sleep(&sleeper, 8, Duration::from_millis(5));
        assert!(is_silent, "nobody rings for one that is awake");
    }

    #[test]
    fn a_ring_wakes_now_or_the_next_time() {
        let (bell, sleeper) = bell();
        bell.ring();
        assert!(sleep(&sleeper, 1, LONG));
        thread::scope(|scope| {
            scope.spawn(|| bell.ring());
            assert!(sleep(&sleeper, 1, LONG));
        });
    }

    /// Every count arrives at a sleeper that always waits for one more.
    #[test]
    fn no_wake_up_is_lost() {
        const COUNTS: u64 = 20_000;
        let (bell, sleeper) = bell();
        thread::scope(|scope| {
            for _ in 0..2 {
                let bell = bell.clone();
                scope.spawn(move || (0..COUNTS / 2).for_each(|_| bell.count(1)));
            }
            let begun = Instant::now();
            for wake_at in 1..=COUNTS {
                sleeper.sleep(wake_at, Some(LONG));
            }
            assert!(begun.elapsed() < LONG);
        });
    }
}
