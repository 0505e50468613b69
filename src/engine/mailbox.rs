//! Letters between cores: one bounded queue for each ordered pair, one bell for each core.
//!
//! A core sends through its [`Postbox`], empties its [`Inbox`] once a turn, and sleeps in `poll`
//! between; the bell ends that sleep. Nobody ever blocks: a full queue gives the letter back, and
//! the receiver rings the sender's bell once it has made room. Letters of a pair arrive in the
//! order in which they were sent, each once. What a letter is, and where one waits that found its queue
//! full, is the caller's business: it must keep those that follow behind it.
//!
//! Why no wake-up is lost. Both flags are only ever changed by read-modify-write, so all changes of
//! one flag have one order, and the later of two sees what came before the earlier.
//! - Bell: the sender pushes, then raises `pending`; the receiver lowers `pending`, then pops. If
//!   the sender raised first, the receiver's pop sees the letter; if second, the sender found the
//!   flag down and wakes. (Lowering after the pops would lose the letter pushed in between.)
//! - Room: the sender raises `starved`, then tries again; the receiver pops, then lowers `starved`.
//!   If the receiver lowered first, the second try finds the room; if second, it rings the sender.
//! - Turn: a ring stands for mail and for room alike, and a drain lowers it. So the order of a turn
//!   is drain, send (what was kept back first), sleep. A send before the drain may just have missed
//!   the room whose ring that drain then swallows.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_queue::ArrayQueue;
use crossbeam_utils::CachePadded;
use tracing::error;

/// Builds the mailboxes of as many cores as there are `wakers`, and of the threads that are none.
/// Each of the queues, one for every ordered pair (a core has one to itself too), holds `capacity`
/// letters (at least 1).
pub fn mesh<L: Send>(wakers: Vec<Box<dyn Wake>>, capacity: usize) -> Mesh<L> {
    let cores = wakers.len();
    let bells: Vec<_> = wakers
        .into_iter()
        .map(|waker| Arc::new(Bell::new(waker)))
        .collect();
    // Rows are senders, columns receivers; the last row is the control threads'.
    let lanes: Vec<Vec<Arc<Lane<L>>>> = (0..=cores)
        .map(|_| (0..cores).map(|_| Arc::new(Lane::new(capacity))).collect())
        .collect();
    let destinations = |from: usize| {
        let pairs = lanes[from].iter().zip(&bells);
        pairs
            .map(|(lane, bell)| Outgoing {
                lane: Arc::clone(lane),
                bell: Arc::clone(bell),
            })
            .collect()
    };
    let inbox = |to: usize| Inbox {
        sources: (0..=cores)
            .map(|from| Incoming {
                lane: Arc::clone(&lanes[from][to]),
                sender: bells.get(from).cloned(),
            })
            .collect(),
        bell: Arc::clone(&bells[to]),
        first: 0,
        has_more: false,
    };
    Mesh {
        cores: (0..cores)
            .map(|core| {
                (
                    Postbox {
                        destinations: destinations(core),
                        wakes: 0,
                    },
                    inbox(core),
                )
            })
            .collect(),
        control: Control {
            destinations: destinations(cores),
        },
    }
}

/// All ends of all queues.
#[derive(Debug)]
pub struct Mesh<L> {
    /// For each core its sending and its receiving end, to be moved into its thread.
    pub cores: Vec<(Postbox<L>, Inbox<L>)>,
    /// For every thread that is no core.
    pub control: Control<L>,
}

/// Ends the sleep of one core, at once or in the future: a wake-up of one that is awake must keep
/// its next sleep from happening. Called from any thread.
pub trait Wake: Send + Sync {
    /// Wakes. Errors: the system's; the next letter tries again.
    fn wake(&self) -> io::Result<()>;
}

impl Wake for mio::Waker {
    fn wake(&self) -> io::Result<()> {
        Self::wake(self)
    }
}

/// One core's sending end.
#[derive(Debug)]
pub struct Postbox<L> {
    destinations: Vec<Outgoing<L>>,
    wakes: u64,
}

impl<L> Postbox<L> {
    /// Sends to core `to` (below the number of cores). Errors: the letter itself where the queue is
    /// full; this core is woken once there is room.
    pub fn try_send(&mut self, to: usize, letter: L) -> Result<(), L> {
        let woken = self.destinations[to].try_send(letter)?;
        self.wakes += u64::from(woken);
        Ok(())
    }

    /// How often a send had to wake its destination, since the start.
    pub fn wakes(&self) -> u64 {
        self.wakes
    }
}

/// The sending end of threads that are no core: signals, reload. Shared by reference.
#[derive(Debug)]
pub struct Control<L> {
    destinations: Vec<Outgoing<L>>,
}

impl<L> Control<L> {
    /// Sends to core `to` (below `cores()`). Errors: the letter itself where the queue is full;
    /// nobody tells when there is room, so try again some milliseconds later.
    pub fn try_send(&self, to: usize, letter: L) -> Result<(), L> {
        self.destinations[to].try_send(letter).map(|_| ())
    }

    /// Wakes core `to` (below `cores()`) for what it finds elsewhere than in its mailbox: whatever was
    /// done before this, the core sees after its next `Inbox::drain`.
    pub fn wake(&self, to: usize) {
        self.destinations[to].bell.ring();
    }

    /// How many cores there are.
    pub fn cores(&self) -> usize {
        self.destinations.len()
    }
}

/// One core's receiving end.
#[derive(Debug)]
pub struct Inbox<L> {
    /// By sender; the last is the control threads.
    sources: Vec<Incoming<L>>,
    bell: Arc<Bell>,
    first: usize,
    has_more: bool,
}

impl<L> Inbox<L> {
    /// Hands over what has arrived, at most `letters_max` (at least 1) from each sender, as (sender,
    /// letter); the control threads are the sender after the last core. Each call begins with the
    /// next sender.
    /// Returns whether something is left: then `poll` must not sleep. Letters that were kept back
    /// are tried again between this call and `poll`, never only before it.
    pub fn drain(&mut self, letters_max: usize, mut handle: impl FnMut(usize, L)) -> bool {
        if !self.bell.take() && !self.has_more {
            return false;
        }
        self.has_more = false;
        let count = self.sources.len();
        for source in (self.first..self.first + count).map(|place| place % count) {
            let Incoming { lane, sender } = &self.sources[source];
            let taken = lane.pop(letters_max, |letter| handle(source, letter));
            if taken > 0
                && lane.starved.lower()
                && let Some(bell) = sender
            {
                bell.ring();
            }
            self.has_more |= taken == letters_max && !lane.queue.is_empty();
        }
        self.first = (self.first + 1) % count;
        self.has_more
    }
}

/// Where one sender's letters for one core go.
#[derive(Debug)]
struct Outgoing<L> {
    lane: Arc<Lane<L>>,
    bell: Arc<Bell>,
}

impl<L> Outgoing<L> {
    /// Returns whether the destination had to be woken.
    fn try_send(&self, letter: L) -> Result<bool, L> {
        self.lane.push(letter)?;
        Ok(self.bell.ring())
    }
}

/// Where one sender's letters for this core come from, and how the sender is told of room.
#[derive(Debug)]
struct Incoming<L> {
    lane: Arc<Lane<L>>,
    /// The control threads have none.
    sender: Option<Arc<Bell>>,
}

/// One queue, from one core (or the control threads) to one core.
#[derive(Debug)]
struct Lane<L> {
    queue: ArrayQueue<L>,
    /// The sender found the queue full and waits for room.
    starved: Flag,
}

impl<L> Lane<L> {
    fn new(capacity: usize) -> Self {
        Self {
            queue: ArrayQueue::new(capacity),
            starved: Flag::default(),
        }
    }

    fn push(&self, letter: L) -> Result<(), L> {
        step();
        self.queue.push(letter).or_else(|letter| {
            self.starved.raise();
            step();
            self.queue.push(letter)
        })
    }

    fn pop(&self, letters_max: usize, mut handle: impl FnMut(L)) -> usize {
        for taken in 0..letters_max {
            step();
            match self.queue.pop() {
                Some(letter) => handle(letter),
                None => return taken,
            }
        }
        letters_max
    }
}

/// Wakes one core, with one system call for all letters that arrive while it is busy.
struct Bell {
    pending: Flag,
    waker: Box<dyn Wake>,
}

impl Bell {
    fn new(waker: Box<dyn Wake>) -> Self {
        Self {
            pending: Flag::default(),
            waker,
        }
    }

    /// Returns whether it took a wake-up.
    fn ring(&self) -> bool {
        if self.pending.raise() {
            return false;
        }
        if let Err(error) = self.waker.wake() {
            error!(%error, "a core could not be woken");
            self.pending.lower();
        }
        true
    }

    /// Whether it was rung since the last time.
    fn take(&self) -> bool {
        // The look without the swap keeps a quiet turn off the other cores' cache line. What it
        // misses is a ring that is just being made, and that will wake.
        self.pending.is_raised() && self.pending.lower()
    }
}

impl std::fmt::Debug for Bell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bell")
            .field("pending", &self.pending)
            .finish_non_exhaustive()
    }
}

/// A flag that is only changed by read-modify-write; see the top of the module for why.
#[derive(Debug, Default)]
struct Flag(CachePadded<AtomicBool>);

impl Flag {
    /// Returns whether it was up already.
    fn raise(&self) -> bool {
        step();
        self.0.swap(true, Ordering::AcqRel)
    }

    /// Returns whether it was up.
    fn lower(&self) -> bool {
        step();
        self.0.swap(false, Ordering::AcqRel)
    }

    fn is_raised(&self) -> bool {
        step();
        self.0.load(Ordering::Relaxed)
    }
}

/// Stands before each access to what threads share: there the interleaving tests switch threads.
#[cfg(not(test))]
fn step() {}

#[cfg(test)]
use tests::step;

#[cfg(test)]
mod tests;
