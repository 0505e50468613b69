//! What one stretch of a phase has brought, a second of it as a rule.

use hdrhistogram::Histogram;
use latency_report::latency_histogram;

/// The latencies of one stretch, made before it and filled while it lasts.
#[derive(Debug, Clone)]
pub(crate) struct Interval {
    /// When it began, nanoseconds after the phase's start.
    pub(crate) start_ns: u64,
    /// How long it was, nanoseconds; never 0.
    pub(crate) length_ns: u64,
    /// The deliveries, by group.
    pub(crate) groups: Vec<Latencies>,
    /// From the intended send to the acknowledgement.
    pub(crate) acknowledged_ns: Histogram<u64>,
    /// How late events were sent, one sample each.
    pub(crate) slip_ns: Histogram<u64>,
}

/// The latencies of one group's deliveries.
#[derive(Debug, Clone)]
pub(crate) struct Latencies {
    /// From the intended send.
    pub(crate) latency_ns: Histogram<u64>,
    /// From the actual send.
    pub(crate) service_ns: Histogram<u64>,
}

impl Interval {
    /// An empty one of `groups` groups.
    pub(crate) fn new(groups: usize) -> Self {
        let latencies = || Latencies {
            latency_ns: latency_histogram(),
            service_ns: latency_histogram(),
        };
        Self {
            start_ns: 0,
            length_ns: 1,
            groups: std::iter::repeat_with(latencies).take(groups).collect(),
            acknowledged_ns: latency_histogram(),
            slip_ns: latency_histogram(),
        }
    }

    /// Adds the samples of `other`, which has as many groups.
    pub(crate) fn add(&mut self, other: &Self) {
        for (own, other) in self.groups.iter_mut().zip(&other.groups) {
            own.latency_ns += &other.latency_ns;
            own.service_ns += &other.service_ns;
        }
        self.acknowledged_ns += &other.acknowledged_ns;
        self.slip_ns += &other.slip_ns;
    }

    /// Forgets all samples and keeps their room.
    pub(crate) fn clear(&mut self) {
        for group in &mut self.groups {
            group.latency_ns.clear();
            group.service_ns.clear();
        }
        self.acknowledged_ns.clear();
        self.slip_ns.clear();
    }

    /// How often something of which there were `count` came in a second.
    pub(crate) fn per_second(&self, count: u64) -> f64 {
        count as f64 / (self.length_ns as f64 / 1e9)
    }

    /// Deliveries of all groups.
    pub(crate) fn deliveries(&self) -> u64 {
        self.groups.iter().map(|group| group.latency_ns.len()).sum()
    }
}
