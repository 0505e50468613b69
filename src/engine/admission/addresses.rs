//! What is known of each client address: its sockets, its seats, its handshakes. Bounded: an
//! address without sockets is forgotten.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};

use super::Class;
use crate::hub::bucket::Bucket;

/// An address as it counts: IPv4 in full (mapped into IPv6 or not), IPv6 up to its /64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct AddressKey(IpAddr);

impl AddressKey {
    /// None for loopback, to which no limit applies.
    pub(super) fn of(ip: IpAddr) -> Option<Self> {
        let ip = ip.to_canonical();
        (!ip.is_loopback()).then(|| match ip {
            IpAddr::V4(_) => Self(ip),
            IpAddr::V6(six) => Self(Ipv6Addr::from_bits(six.to_bits() & NETWORK_BITS).into()),
        })
    }
}

#[derive(Debug)]
pub(super) struct Addresses {
    handshakes_per_second: u32,
    records: HashMap<AddressKey, Record>,
    /// Records that have a socket, at most.
    sockets_max: usize,
    /// Records at which the idle ones are looked for.
    sweep_at: usize,
}

impl Addresses {
    pub(super) fn new(handshakes_per_second: u32, sockets_max: usize) -> Self {
        Self {
            handshakes_per_second,
            records: HashMap::new(),
            sockets_max,
            sweep_at: SWEEP_AT_LEAST,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    pub(super) fn asking(&self, address: AddressKey) -> usize {
        self.records.get(&address).map_or(0, |record| record.asking)
    }

    pub(super) fn seats(&self, address: AddressKey) -> usize {
        self.records.get(&address).map_or(0, |record| record.seats)
    }

    pub(super) fn enter(&mut self, address: AddressKey, class: Class, now_ms: u64) {
        let record = self.record(address, now_ms);
        record.sockets += 1;
        record.asking += usize::from(class == Class::Asking);
        record.seats += usize::from(class.is_seat());
    }

    pub(super) fn leave(&mut self, address: AddressKey, class: Class) {
        let Some(record) = self.records.get_mut(&address) else {
            debug_assert!(false, "an address with a socket has a record");
            return;
        };
        record.sockets -= 1;
        record.asking -= usize::from(class == Class::Asking);
        record.seats -= usize::from(class.is_seat());
    }

    /// One handshake of a second's worth. Errors: the milliseconds until the next is there.
    pub(super) fn take_handshake(&mut self, address: AddressKey, now_ms: u64) -> Result<(), u64> {
        let per_second = u64::from(self.handshakes_per_second);
        if per_second == 0 {
            return Ok(());
        }
        let record = self.record(address, now_ms);
        record.handshakes.take(now_ms, 1, per_second)
    }

    fn record(&mut self, address: AddressKey, now_ms: u64) -> &mut Record {
        if self.records.len() >= self.sweep_at && !self.records.contains_key(&address) {
            self.sweep(now_ms);
        }
        self.records.entry(address).or_default()
    }

    /// Forgets the addresses without socket whose bucket is full again; where too many remain, the
    /// others without socket too. Each sweep is paid for by as many new addresses as it leaves.
    fn sweep(&mut self, now_ms: u64) {
        let per_second = u64::from(self.handshakes_per_second);
        self.records.retain(|_, record| {
            record.sockets > 0 || !record.handshakes.is_full(now_ms, per_second)
        });
        if self.records.len() > self.sockets_max.saturating_mul(2) {
            self.records.retain(|_, record| record.sockets > 0);
        }
        self.sweep_at = SWEEP_AT_LEAST.max(self.records.len() * 2);
    }
}

#[derive(Debug, Default)]
struct Record {
    sockets: usize,
    asking: usize,
    seats: usize,
    handshakes: Bucket,
}

/// The first 64 bits: what one host or site is given.
const NETWORK_BITS: u128 = !0 << 64;
/// Records below which no sweep is worth its while.
const SWEEP_AT_LEAST: usize = 1_024;
