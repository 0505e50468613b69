//! Who may have a socket, and who may make a connection of it: the limits of node and addresses.
//!
//! The one thing that cores share under a lock. It is taken a few times in a connection's life
//! (accept, head, admission, close), never per message. Knows no socket and no clock.
//!
//! A socket is cheap and asks; a *seat* is a WebSocket of a viewer or publisher. Only seats count
//! against `connections_max`. Sockets may exceed it by `SOCKETS_ASKING_MAX`, so that a full node
//! still hears a request, tells it 503, and serves its operators and HTTP publishers. Beyond that a
//! socket is closed unheard.
//!
//! Addresses: IPv6 counts per /64, since one host has all of it. Loopback is exempt. Behind a
//! trusted proxy the client's address is known from the head only; until then it counts for nobody.

mod addresses;

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use thiserror::Error;

use crate::limits;
use addresses::{AddressKey, Addresses};

/// What an operator may set; 0 means no limit for the three that concern one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdmissionOptions {
    /// Seats on this node.
    pub connections_max: usize,
    /// Sockets of one address that have not brought a valid token yet.
    pub unauthenticated_per_ip: usize,
    /// Seats of one address.
    pub connections_per_ip: usize,
    /// Upgrades asked for by one address in any second, with as many at once.
    pub handshakes_per_second_per_ip: u32,
}

impl AdmissionOptions {
    /// Sockets of all kinds on this node; each takes a descriptor.
    pub fn sockets_max(&self) -> usize {
        self.connections_max
            .saturating_add(limits::SOCKETS_ASKING_MAX)
    }
}

/// Why there is no room; the client's to wait out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum AdmissionError {
    /// This node is about to stop: 503, `DRAINING`.
    #[error("this node is shutting down")]
    Draining,
    /// This address has its share: 429, `IP_LIMIT`.
    #[error("too many connections from this address")]
    IpLimit,
    /// This node has its share: 503, `NODE_FULL`.
    #[error("this node is full")]
    NodeFull,
    /// This address asks too often: 429, `RATE_LIMITED`.
    #[error("too many handshakes from this address")]
    RateLimited {
        /// Milliseconds until the next may succeed.
        retry_after_ms: u64,
    },
}

/// What a socket has become.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// Nobody knows yet: no valid token so far.
    Asking,
    /// A publisher's WebSocket: a seat.
    Publisher,
    /// HTTP requests with a valid token.
    Requests,
    /// A viewer's WebSocket: a seat.
    Viewer,
}

impl Class {
    const ALL: [Self; 4] = [Self::Asking, Self::Publisher, Self::Requests, Self::Viewer];

    fn is_seat(self) -> bool {
        matches!(self, Self::Publisher | Self::Viewer)
    }
}

/// The limits of one node and what counts against them. Shared by all cores.
#[derive(Debug)]
pub struct Admission {
    options: AdmissionOptions,
    is_draining: AtomicBool,
    counts: Mutex<Counts>,
}

impl Admission {
    /// With nothing admitted.
    pub fn new(options: AdmissionOptions) -> Arc<Self> {
        let addresses = Addresses::new(options.handshakes_per_second_per_ip, options.sockets_max());
        Arc::new(Self {
            options,
            is_draining: AtomicBool::new(false),
            counts: Mutex::new(Counts {
                by_class: [0; Class::ALL.len()],
                addresses,
            }),
        })
    }

    /// A socket was accepted from `ip`: None where that is no client's address (a unix socket, a
    /// trusted proxy). The ticket belongs to the socket and gives its place back when dropped.
    /// While draining sockets are still heard: they ask for `/readyz`, or learn why not.
    /// Errors: `NodeFull`, `IpLimit`; nothing was asked yet and nothing will be read, so the caller
    /// closes the socket, or at most drops a ready-made answer into it first.
    pub fn handle_accept(
        self: &Arc<Self>,
        ip: Option<IpAddr>,
        now_ms: u64,
    ) -> Result<Ticket, AdmissionError> {
        let mut counts = self.lock();
        if counts.by_class.iter().sum::<usize>() >= self.options.sockets_max() {
            return Err(AdmissionError::NodeFull);
        }
        let address = ip.and_then(AddressKey::of);
        counts.check_asking(address, &self.options)?;
        counts.enter(Class::Asking, address, now_ms);
        Ok(Ticket {
            admission: Arc::clone(self),
            address,
            class: Class::Asking,
        })
    }

    /// From now on upgrades are refused.
    pub fn set_draining(&self) {
        self.is_draining.store(true, Ordering::Release);
    }

    /// Whether this node is about to stop.
    pub fn is_draining(&self) -> bool {
        self.is_draining.load(Ordering::Acquire)
    }

    /// How many sockets there are of a class.
    pub fn count(&self, class: Class) -> usize {
        self.lock().by_class[class as usize]
    }

    /// How many addresses are remembered.
    pub fn addresses(&self) -> usize {
        self.lock().addresses.len()
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        // A core that panicked in here would have left a count off by one: no reason to stop all.
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A socket's place, wherever the socket moves. Dropping it gives the place back, so that none
/// leaks on any way out.
#[derive(Debug)]
#[must_use = "dropping a ticket gives the place back"]
pub struct Ticket {
    admission: Arc<Admission>,
    /// Where it counts; None where no limit of addresses applies.
    address: Option<AddressKey>,
    class: Class,
}

impl Ticket {
    /// A trusted proxy named the client of the request that follows: the socket counts there from
    /// now on. Errors: `IpLimit`; then it counts for nobody.
    pub fn handle_client_ip(&mut self, ip: IpAddr, now_ms: u64) -> Result<(), AdmissionError> {
        let address = AddressKey::of(ip);
        if address == self.address {
            return Ok(());
        }
        let admission = Arc::clone(&self.admission);
        let mut counts = admission.lock();
        counts.leave(self.class, self.address.take());
        let check = match self.class {
            Class::Asking => counts.check_asking(address, &admission.options),
            Class::Requests => Ok(()),
            Class::Publisher | Class::Viewer => counts.check_seat(address, &admission.options),
        };
        self.address = check.is_ok().then_some(address).flatten();
        counts.enter(self.class, self.address, now_ms);
        check
    }

    /// The socket asks for an upgrade: call it before the token is verified, which is what costs.
    /// Errors: `Draining`, `RateLimited`.
    pub fn handle_handshake(&self, now_ms: u64) -> Result<(), AdmissionError> {
        if self.admission.is_draining() {
            return Err(AdmissionError::Draining);
        }
        let Some(address) = self.address else {
            return Ok(());
        };
        let taken = self
            .admission
            .lock()
            .addresses
            .take_handshake(address, now_ms);
        taken.map_err(|retry_after_ms| AdmissionError::RateLimited { retry_after_ms })
    }

    /// The socket brought a valid token and becomes `class`; again and again on a kept-alive one.
    /// Errors, for a seat: `Draining`, `NodeFull`, `IpLimit`; it stays what it was.
    pub fn handle_authenticated(
        &mut self,
        class: Class,
        now_ms: u64,
    ) -> Result<(), AdmissionError> {
        if class == self.class {
            return Ok(());
        }
        if class.is_seat() && self.admission.is_draining() {
            return Err(AdmissionError::Draining);
        }
        let mut counts = self.admission.lock();
        if class.is_seat() && !self.class.is_seat() {
            counts.check_seat(self.address, &self.admission.options)?;
        }
        counts.leave(self.class, self.address);
        counts.enter(class, self.address, now_ms);
        drop(counts);
        self.class = class;
        Ok(())
    }

    /// What the socket is now.
    pub fn class(&self) -> Class {
        self.class
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.admission.lock().leave(self.class, self.address);
    }
}

#[derive(Debug)]
struct Counts {
    by_class: [usize; Class::ALL.len()],
    addresses: Addresses,
}

impl Counts {
    fn check_asking(
        &self,
        address: Option<AddressKey>,
        options: &AdmissionOptions,
    ) -> Result<(), AdmissionError> {
        let asking = address.map_or(0, |address| self.addresses.asking(address));
        check_limit(asking, options.unauthenticated_per_ip)
    }

    fn check_seat(
        &self,
        address: Option<AddressKey>,
        options: &AdmissionOptions,
    ) -> Result<(), AdmissionError> {
        let seats: usize = Class::ALL
            .iter()
            .filter(|class| class.is_seat())
            .map(|class| self.by_class[*class as usize])
            .sum();
        if seats >= options.connections_max {
            return Err(AdmissionError::NodeFull);
        }
        let of_address = address.map_or(0, |address| self.addresses.seats(address));
        check_limit(of_address, options.connections_per_ip)
    }

    fn enter(&mut self, class: Class, address: Option<AddressKey>, now_ms: u64) {
        self.by_class[class as usize] += 1;
        if let Some(address) = address {
            self.addresses.enter(address, class, now_ms);
        }
    }

    fn leave(&mut self, class: Class, address: Option<AddressKey>) {
        self.by_class[class as usize] -= 1;
        if let Some(address) = address {
            self.addresses.leave(address, class);
        }
    }
}

fn check_limit(count: usize, limit: usize) -> Result<(), AdmissionError> {
    match limit {
        0 => Ok(()),
        _ if count < limit => Ok(()),
        _ => Err(AdmissionError::IpLimit),
    }
}

#[cfg(test)]
mod tests;
