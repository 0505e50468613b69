//! The loop that drives all hostile peers: one thread, edge-triggered, fair among the peers.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::time::Instant;

use mio::Token;

use super::Attack;
use super::peer::{Buffers, End, Peer};
use super::tally::Tally;
use crate::driver::DriverError;
use crate::poller::Poller;

/// All peers of one attack.
pub(super) struct Crowd<'a> {
    attack: &'a Attack,
    poller: Poller,
    /// A place for each peer; its number is its token.
    places: Vec<Option<Peer>>,
    /// Empty places, by the time at which they are to be taken again.
    redials: BinaryHeap<Reverse<(u64, usize)>>,
    /// Connections on their way.
    connecting: usize,
    /// Peers that have something to say and a socket that takes it.
    eager: Vec<usize>,
    work: Vec<Work>,
    buffers: Buffers,
    tally: Tally,
}

/// What one socket is ready for.
#[derive(Debug, Clone, Copy)]
struct Work {
    place: usize,
    is_readable: bool,
    is_writable: bool,
}

impl<'a> Crowd<'a> {
    /// The crowd of `attack`, none of it connected.
    pub(super) fn new(attack: &'a Attack) -> Result<Self, DriverError> {
        Ok(Self {
            attack,
            poller: Poller::new(Instant::now()).map_err(epoll_error)?,
            places: (0..attack.peers).map(|_| None).collect(),
            redials: (0..attack.peers).map(|place| Reverse((0, place))).collect(),
            connecting: 0,
            eager: Vec::new(),
            work: Vec::new(),
            buffers: Buffers::new(),
            tally: Tally::default(),
        })
    }

    /// Attacks for as long as was asked.
    pub(super) fn run(mut self) -> Result<Tally, DriverError> {
        let start_ns = self.poller.tick();
        let end_ns = start_ns + self.attack.duration.as_nanos() as u64;
        let interval_ns = self.attack.write_interval.as_nanos() as u64;
        let (mut write_ns, mut look_ns) = (start_ns, start_ns + LOOK_NS);
        while self.poller.now_ns() < end_ns {
            self.dial_due()?;
            let mut until_ns = end_ns.min(look_ns).min(self.next_dial_ns());
            if interval_ns > 0 {
                until_ns = until_ns.min(write_ns);
            }
            self.turn(until_ns)?;
            let now_ns = self.poller.tick();
            if interval_ns > 0 && now_ns >= write_ns {
                self.speak_all();
                write_ns = now_ns.max(write_ns + interval_ns);
            }
            if now_ns >= look_ns {
                self.drop_forgotten();
                look_ns = now_ns + LOOK_NS;
            }
        }
        self.tally.seconds = (self.poller.now_ns() - start_ns) as f64 / 1e9;
        for peer in self.places.iter().flatten() {
            self.tally.note_open(peer);
        }
        Ok(self.tally)
    }

    /// When the next connection may be begun; never while enough are on their way.
    fn next_dial_ns(&self) -> u64 {
        match self.redials.peek() {
            Some(Reverse((due_ns, _))) if self.connecting < self.attack.in_flight_max => *due_ns,
            _ => u64::MAX,
        }
    }

    fn dial_due(&mut self) -> Result<(), DriverError> {
        let now_ns = self.poller.now_ns();
        while self.next_dial_ns() <= now_ns {
            let Some(Reverse((_, place))) = self.redials.pop() else {
                break;
            };
            let Ok(mut peer) = Peer::dial(self.attack, now_ns) else {
                self.tally.note_end(End::Unconnected, None);
                self.redial(place, UNCONNECTED_REDIAL_NS);
                continue;
            };
            peer.register(self.poller.registry(), Token(place))
                .map_err(epoll_error)?;
            self.places[place] = Some(peer);
            self.connecting += 1;
        }
        Ok(())
    }

    /// One turn: waits for readiness, at most until `until_ns`, serves every ready socket, and
    /// gives each eager peer its share of writes.
    fn turn(&mut self, until_ns: u64) -> Result<(), DriverError> {
        let polled = if self.eager.is_empty() {
            self.poller.poll_until(until_ns)
        } else {
            self.poller.poll_now()
        };
        polled.map_err(epoll_error)?;
        self.poller.tick();
        self.work.clear();
        self.work.extend(self.poller.events().map(Work::from_event));
        for at in 0..self.work.len() {
            self.serve(self.work[at]);
        }
        let mut eager = std::mem::take(&mut self.eager);
        eager.retain(|place| self.speak(*place, WRITES_PER_TURN));
        // What `serve` finds eager is not in the list yet, and `speak` adds nothing to it.
        self.eager = eager;
        Ok(())
    }

    fn serve(&mut self, work: Work) {
        let now_ns = self.poller.now_ns();
        let Some(peer) = &mut self.places[work.place] else {
            return;
        };
        let was_eager = self.attack.is_unpaced(peer) && peer.is_eager(self.attack);
        let was_connected = peer.is_connected();
        let mut outcome = Ok(());
        if work.is_writable {
            outcome = peer.handle_writable(now_ns);
        }
        if peer.is_connected() && !was_connected {
            self.connecting -= 1;
            self.tally.note_connected();
        }
        if work.is_readable && outcome.is_ok() && peer.is_connected() {
            outcome = peer.handle_readable(&mut self.buffers, now_ns);
        }
        let is_eager = self.attack.is_unpaced(peer) && peer.is_eager(self.attack);
        match outcome {
            Ok(()) if is_eager && !was_eager => self.eager.push(work.place),
            Ok(()) => {}
            Err(end) => self.end(work.place, end),
        }
    }

    /// Lets the peer at `place` write; returns whether it could go on.
    fn speak(&mut self, place: usize, writes: usize) -> bool {
        let now_ns = self.poller.now_ns();
        let Some(peer) = &mut self.places[place] else {
            return false;
        };
        match peer.speak(self.attack, writes, &mut self.buffers, now_ns) {
            Ok(()) => self.attack.is_unpaced(peer) && peer.is_eager(self.attack),
            Err(end) => {
                self.end(place, end);
                false
            }
        }
    }

    /// One write of each paced peer.
    fn speak_all(&mut self) {
        for place in 0..self.places.len() {
            let is_due = self.places[place]
                .as_ref()
                .is_some_and(|peer| !self.attack.is_unpaced(peer) && peer.is_eager(self.attack));
            if is_due {
                self.speak(place, 1);
            }
        }
    }

    fn drop_forgotten(&mut self) {
        let now_ns = self.poller.now_ns();
        for place in 0..self.places.len() {
            let peer = self.places[place].as_ref();
            if peer.is_some_and(|peer| peer.is_forgotten(self.attack, now_ns)) {
                self.end(place, End::Timeout);
            }
        }
    }

    fn end(&mut self, place: usize, end: End) {
        let peer = self.places[place].take();
        self.connecting -= usize::from(peer.as_ref().is_some_and(|peer| !peer.is_connected()));
        self.tally.note_end(end, peer.as_ref());
        let least_ns = match end {
            End::Unconnected => UNCONNECTED_REDIAL_NS,
            _ => 0,
        };
        self.redial(place, least_ns);
    }

    fn redial(&mut self, place: usize, least_ns: u64) {
        let wait_ns = least_ns.max(self.attack.redial.as_nanos() as u64);
        self.redials
            .push(Reverse((self.poller.now_ns() + wait_ns, place)));
    }
}

impl Attack {
    /// Whether `peer` writes as fast as its socket takes it.
    fn is_unpaced(&self, peer: &Peer) -> bool {
        self.write_interval.is_zero() || !peer.is_attacking()
    }
}

impl Work {
    fn from_event(event: &mio::event::Event) -> Self {
        let is_ending = event.is_read_closed() || event.is_error();
        Self {
            place: event.token().0,
            is_readable: event.is_readable() || is_ending,
            is_writable: event.is_writable(),
        }
    }
}

/// Pieces that one peer writes before the next has its turn.
const WRITES_PER_TURN: usize = 64;
/// How often the forgotten are looked for.
const LOOK_NS: u64 = 1_000_000_000;
/// Before a connection is tried again that could not be made.
const UNCONNECTED_REDIAL_NS: u64 = 100_000_000;

fn epoll_error(source: io::Error) -> DriverError {
    let what = "epoll";
    DriverError::Io { what, source }
}
