//! One stretch of load: what is asked for, and what came of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::laggards::{Laggards, Lagged};
use crate::meter::Spent;
use crate::observer::Observed;
use crate::payload::Form;
use crate::publish::Packing;
use crate::record::GroupRecord;
use crate::returned::Returned;
use crate::returners::Returners;
use crate::schedule::Schedule;
use crate::storm::Storm;

/// One stretch of load, with a beginning and an end.
#[derive(Debug)]
pub(crate) struct Phase {
    /// Its number in the markers.
    pub(crate) run: u32,
    /// Of each event.
    pub(crate) form: Form,
    /// How they become messages.
    pub(crate) packing: Packing,
    /// What to send when.
    pub(crate) schedule: Schedule,
    /// When the first event is due, nanoseconds of the generator's clock; `None`: soon.
    pub(crate) start_ns: Option<u64>,
    /// How long to wait for deliveries after the last intended time.
    pub(crate) drain: Duration,
    /// Viewers that connect in its course; it ends with the last of them.
    pub(crate) returners: Option<Returners>,
    /// Cuts off all subscribers, and brings them back; it ends with the last of them.
    pub(crate) storm: Option<Storm>,
    /// Viewers that read slowly, connected before it and gone with it.
    pub(crate) laggards: Option<Laggards>,
    /// Nothing more is sent once this rings.
    pub(crate) until: Option<Bell>,
    /// Rings when all is there, or is given up.
    pub(crate) bell: Option<Bell>,
}

/// Tells the loop of one thread that the phase of another is over.
#[derive(Debug, Clone, Default)]
pub(crate) struct Bell(Arc<AtomicBool>);

impl Bell {
    /// From now on it has rung. It orders nothing else between the two.
    pub(crate) fn ring(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether it has.
    pub(crate) fn has_rung(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// What came of a phase.
#[derive(Debug)]
pub(crate) struct PhaseOutcome {
    /// The deliveries, by group.
    pub(crate) groups: Vec<GroupRecord>,
    /// The first delivery's text.
    pub(crate) first_delivery: Option<Vec<u8>>,
    /// Events sent.
    pub(crate) sent: u64,
    /// Publisher connections.
    pub(crate) publishers: usize,
    /// Events acknowledged, refused ones too.
    pub(crate) acknowledged: u64,
    /// From each message's intended send to its acknowledgement; empty where nothing is
    /// acknowledged.
    pub(crate) acknowledged_ns: Histogram<u64>,
    /// Events sent and not acknowledged by a server that acknowledges.
    pub(crate) unsettled: u64,
    /// Refused events by code.
    pub(crate) nacks: BTreeMap<String, u64>,
    /// Messages other than deliveries, by type.
    pub(crate) others: BTreeMap<String, u64>,
    /// How late each event was sent.
    pub(crate) slip_ns: Histogram<u64>,
    /// From the first intended time to the last delivery (or to giving up).
    pub(crate) seconds: f64,
    /// The share of that time in which the generator had something to do, 0 to 1.
    pub(crate) busy: f64,
    /// CPU time of the watched server over the phase; unknown where threads have ended in it.
    pub(crate) server_cpu_ns: Option<u64>,
    /// The part of it that its log's writer took; unknown where it has none.
    pub(crate) log_writer_cpu_ns: Option<u64>,
    /// Resident memory of the watched server at the end.
    pub(crate) server_rss_bytes: Option<u64>,
    /// The viewers that connected in its course.
    pub(crate) returned: Option<Returned>,
    /// The viewers that read slowly.
    pub(crate) lagged: Option<Lagged>,
    /// The same second by second, where somebody looked on.
    pub(crate) observed: Option<Observed>,
    /// Why the phase was broken off before its end.
    pub(crate) aborted: Option<String>,
    /// Connections that have ended, the first few with the reason.
    pub(crate) closed: Vec<String>,
}

impl PhaseOutcome {
    /// What the watched server has spent.
    pub(crate) fn note_server(&mut self, spent: Spent) {
        self.server_cpu_ns = spent.cpu_ns;
        self.log_writer_cpu_ns = spent.log_writer_cpu_ns;
        self.server_rss_bytes = spent.rss_bytes;
    }

    /// This and what came of another loop's part of the same phase.
    pub(crate) fn with(mut self, other: Self) -> Self {
        for (group, others) in self.groups.iter_mut().zip(&other.groups) {
            group.add(others);
        }
        self.first_delivery = self.first_delivery.take().or(other.first_delivery);
        self.sent += other.sent;
        self.publishers += other.publishers;
        self.acknowledged += other.acknowledged;
        self.acknowledged_ns += other.acknowledged_ns;
        self.unsettled += other.unsettled;
        add_counts(&mut self.nacks, other.nacks);
        add_counts(&mut self.others, other.others);
        self.slip_ns += other.slip_ns;
        self.seconds = self.seconds.max(other.seconds);
        self.busy = self.busy.max(other.busy);
        self.aborted = self.aborted.take().or(other.aborted);
        self.closed.extend(other.closed);
        self
    }

    /// Adds what all loops have handed over in the course of the phase to what was left at its end.
    pub(crate) fn add_observed(&mut self, observed: Observed) {
        let whole = &observed.whole;
        for (group, handed) in self.groups.iter_mut().zip(&whole.groups) {
            group.latency_ns += &handed.latency_ns;
            group.service_ns += &handed.service_ns;
        }
        self.acknowledged_ns += &whole.acknowledged_ns;
        self.slip_ns += &whole.slip_ns;
        self.observed = Some(observed);
    }

    /// Takes what came of viewers whom the loop of another thread has brought back meanwhile.
    pub(crate) fn add_returned(&mut self, other: Self) {
        self.returned = other.returned;
        self.aborted = self.aborted.take().or(other.aborted);
        self.closed.extend(other.closed);
        add_counts(&mut self.others, other.others);
    }
}

fn add_counts(counts: &mut BTreeMap<String, u64>, others: BTreeMap<String, u64>) {
    for (kind, count) in others {
        *counts.entry(kind).or_default() += count;
    }
}
