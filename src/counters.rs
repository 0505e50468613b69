//! What each core counts. One set per core: the core alone writes it, anyone reads it at any time.
//!
//! A read is never torn but a set of reads is not one instant: sums may differ by what is under
//! way. Nothing here knows how it is shown (that is `ops`) nor what the codes are called: families
//! are indexed by the enums of later modules, whose names come in as a [`Vocabulary`].

pub mod stages;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use arc_swap::ArcSwap;
use crossbeam_utils::CachePadded;
use thiserror::Error;

pub use stages::{Stage, StageSnapshot, Stages};

/// What the world sees of one core: shared as `Arc<CoreStats>`, written by that core only.
#[derive(Debug, Default)]
pub struct CoreStats {
    /// Padded, so that a reader of another core's set never takes this core's cache line.
    pub counters: CachePadded<Counters>,
    /// The latest copy of the core's [`Stages`], at most about a second old.
    pub stages: CachePadded<ArcSwap<StageSnapshot>>,
}

/// One number with one writer.
#[derive(Debug, Default)]
pub struct Cell(AtomicU64);

impl Cell {
    /// Counts `n` more.
    ///
    /// A relaxed load and store instead of `fetch_add`: only the owner core writes, so nothing can
    /// be lost between them, and the locked instruction (2.7 ns against 0.7, many times per event)
    /// is saved.
    pub fn add(&self, n: u64) {
        self.set(self.value().wrapping_add(n));
    }

    /// Takes `n` off a gauge. Below zero is a bug of ours; it stays at 0 outside of debug builds.
    pub fn sub(&self, n: u64) {
        let value = self.value();
        debug_assert!(n <= value, "a gauge fell below zero: {value} - {n}");
        self.set(value.saturating_sub(n));
    }

    /// Replaces the number.
    pub fn set(&self, n: u64) {
        self.0.store(n, Relaxed);
    }

    /// The number as last written.
    pub fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }

    fn cells(&self) -> &[Self] {
        std::slice::from_ref(self)
    }
}

/// Numbers of one meaning, one for each value of a label.
#[derive(Debug)]
pub struct Family<const N: usize>([Cell; N]);

impl<const N: usize> Default for Family<N> {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Cell::default()))
    }
}

impl<const N: usize> Family<N> {
    /// The cell of label `index`. An index past the end shares the last cell, so that sums hold.
    pub fn at(&self, index: usize) -> &Cell {
        debug_assert!(index < N, "label {index} of a family of {N}");
        &self.0[index.min(N - 1)]
    }

    /// The sum over all labels.
    pub fn total(&self) -> u64 {
        self.0.iter().map(Cell::value).sum()
    }

    fn cells(&self) -> &[Cell] {
        &self.0
    }
}

/// Places for the codes that an event is refused with (contract, section 2 and 3).
pub const REJECTIONS_MAX: usize = 32;
/// Places for the known types of events (section 8).
pub const KNOWN_TYPES_MAX: usize = 32;
/// Places for the codes that a request or an upgrade is refused with (section 4).
pub const REFUSALS_MAX: usize = 64;
/// Places for the codes of errors that viewers are told (section 6).
pub const VIEWER_ERRORS_MAX: usize = 32;
/// Places for the reasons that a connection is closed for.
pub const CLOSES_MAX: usize = 64;

/// Who has been given a WebSocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// One that publishes.
    Publisher,
    /// One that subscribes.
    Viewer,
}

/// The first digit of an HTTP status. A 101 is no answer: it counts as a handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatusClass {
    /// 2xx, and the few 3xx.
    Success,
    /// 4xx
    ClientError,
    /// 5xx
    ServerError,
}

impl StatusClass {
    /// The class of `status`, for instance 404.
    pub fn of(status: u16) -> Self {
        match status {
            0..400 => Self::Success,
            400..500 => Self::ClientError,
            _ => Self::ServerError,
        }
    }
}

/// Why a TLS handshake came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandshakeFailure {
    /// Others began after it, and there are too many.
    GaveWay,
    /// The peer closed.
    Gone,
    /// The peer spoke HTTP without TLS.
    PlainHttp,
    /// The peer sent an alert, broke the protocol, or asked for what is not spoken.
    Protocol,
    /// Its time was up.
    Timeout,
}

impl HandshakeFailure {
    const NAMES: &'static [&'static str] =
        &["gave_way", "gone", "plain_http", "protocol", "timeout"];
}

/// What an HTTP connection was waited for when its time ran out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Awaited {
    /// The rest of a request's body.
    Body,
    /// That it takes its last answer, and goes.
    End,
    /// The rest of a request's head.
    Head,
    /// A request, the first or a further one.
    Request,
}

/// What the codes of the families are called, each list in the order of its enum's indices, and at
/// most as long as the family has places; what lies past it shows as `other`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Vocabulary {
    /// Codes of refused events.
    pub rejections: &'static [&'static str],
    /// Known types of events.
    pub known_types: &'static [&'static str],
    /// Codes of refused requests and upgrades.
    pub refusals: &'static [&'static str],
    /// Reasons of closes.
    pub closes: &'static [&'static str],
    /// Codes of what viewers are told that went wrong.
    pub viewer_errors: &'static [&'static str],
}

/// How a metric moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only up; its name ends in `_total`.
    Counter,
    /// Up and down; cores add up.
    Gauge,
    /// A gauge that every core knows in full: the largest stands for the node.
    GaugeMax,
    /// A gauge of which the smallest stands for the node.
    GaugeMin,
}

/// The label of a family: its key, and where the names of its values are.
#[derive(Clone, Copy, Debug)]
pub struct Label {
    /// For instance `code`.
    pub key: &'static str,
    names: fn(&Vocabulary) -> &'static [&'static str],
}

impl Label {
    /// The names of the label's values, in the order of the family's cells.
    pub fn names(&self, vocabulary: &Vocabulary) -> &'static [&'static str] {
        (self.names)(vocabulary)
    }
}

/// One field of [`Counters`], for those who show them all.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// The name in the Prometheus exposition.
    pub name: &'static str,
    /// One sentence.
    pub help: &'static str,
    /// How it moves and adds up.
    pub kind: Kind,
    /// None where there is one number only.
    pub label: Option<Label>,
    cells: fn(&Counters) -> &[Cell],
}

impl Metric {
    /// The cells of this metric in one core's set: one, or one per label value.
    pub fn cells<'a>(&self, counters: &'a Counters) -> &'a [Cell] {
        (self.cells)(counters)
    }

    /// The node's number at place `index` (0 without label): the cores' taken together by kind.
    pub fn merged<'a>(&self, cores: impl IntoIterator<Item = &'a Counters>, index: usize) -> u64 {
        let values = cores
            .into_iter()
            .filter_map(|core| self.cells(core).get(index).map(Cell::value));
        match self.kind {
            Kind::Counter | Kind::Gauge => values.sum(),
            Kind::GaugeMax => values.max().unwrap_or(0),
            Kind::GaugeMin => values.min().unwrap_or(0),
        }
    }
}

/// One line per metric: kind, field, places and label of a family, Prometheus name, help. The help
/// is the field's doc as well.
macro_rules! counters {
    ($(
        $kind:ident $field:ident $([$places:expr; $key:literal, $names:expr])?
            = $name:literal, $help:literal;
    )*) => {
        /// All numbers of one core.
        #[derive(Debug, Default)]
        pub struct Counters {
            $( #[doc = $help] pub $field: counters!(@type $([$places])?), )*
        }

        impl Counters {
            /// Every field, in the order in which they are shown.
            pub const METRICS: &'static [Metric] = &[ $( Metric {
                name: concat!("sightline_", $name),
                help: $help,
                kind: Kind::$kind,
                label: counters!(@label $([$key, $names])?),
                cells: |counters| counters.$field.cells(),
            }, )* ];
        }
    };
    (@type) => { Cell };
    (@type [$places:expr]) => { Family<{ $places }> };
    (@label) => { None };
    (@label [$key:literal, $names:expr]) => { Some(Label { key: $key, names: $names }) };
}

counters! {
    Counter events_received = "events_received_total", "Events found in publish requests and messages; counted, like the three below, on the core that has the publisher.";
    Counter events_accepted = "events_accepted_total", "Events numbered and acknowledged.";
    Counter events_duplicate = "events_duplicate_total", "Events acknowledged but known already.";
    Counter events_refused [REJECTIONS_MAX; "code", |v| v.rejections] = "events_refused_total", "Events refused, by code.";
    Counter event_shape_errors [KNOWN_TYPES_MAX; "type", |v| v.known_types] = "event_shape_errors_total", "Events of a known type that were taken as they are though a field is missing or not of its type, by type.";
    Counter publish_requests = "publish_requests_total", "POST requests that bring events.";
    Counter publish_messages = "publish_messages_total", "WebSocket messages that bring events.";
    Counter http_requests = "http_requests_total", "Complete HTTP request heads, upgrades included.";
    Counter http_responses [3; "class", |_| &["2xx", "4xx", "5xx"]] = "http_responses_total", "HTTP answers other than 101, by class.";
    Counter http_timeouts [4; "awaited", |_| &["body", "end", "head", "request"]] = "http_timeouts_total", "HTTP connections that ran out of time, by what was waited for: a request, the rest of its head or body, or that the client takes its answer and goes.";
    Counter handshakes [2; "role", |_| &["publisher", "viewer"]] = "handshakes_total", "Upgrades answered with 101, by role.";
    Counter refusals [REFUSALS_MAX; "code", |v| v.refusals] = "refusals_total", "Requests and upgrades refused, by code.";
    Counter closes [CLOSES_MAX; "reason", |v| v.closes] = "closes_total", "Connections ended, by reason.";

    Gauge connections = "connections", "Open sockets of clients.";
    Gauge viewers = "viewers", "Connected viewers.";
    Gauge publishers = "publishers", "Connected publishers (WebSocket).";
    Counter connections_accepted = "connections_accepted_total", "Sockets taken from the listeners.";
    Counter connections_adopted = "connections_adopted_total", "Connections taken over from another core.";
    Counter accept_errors = "accept_errors_total", "Failed accepts.";
    Counter accept_paused = "accept_paused_total", "Pauses of a listener for want of descriptors or memory.";

    Gauge tls_handshakes_unfinished = "tls_handshakes_unfinished", "TLS handshakes under way.";
    Counter tls_handshakes [2; "version", |_| &["1.2", "1.3"]] = "tls_handshakes_total", "TLS handshakes finished, by version.";
    Counter tls_resumptions = "tls_resumptions_total", "TLS handshakes finished by the ticket of an earlier session; they count as handshakes too.";
    Counter tls_handshakes_failed [5; "reason", |_| HandshakeFailure::NAMES] = "tls_handshakes_failed_total", "TLS handshakes that came to nothing, by reason.";
    Counter certificate_reloads [2; "outcome", |_| &["failed", "loaded"]] = "certificate_reloads_total", "Attempts to load certificate and key again; counted by the thread of the signals, in the first core's set.";

    Counter frames_queued = "frames_queued_total", "Frames put into outboxes.";
    Counter frames_written = "frames_written_total", "Frames written in full.";
    Counter frames_discarded = "frames_discarded_total", "Frames still in an outbox when it was closed.";
    Counter bytes_read = "bytes_read_total", "Bytes read from clients.";
    Counter bytes_written = "bytes_written_total", "Bytes written to clients.";
    Counter writes = "writes_total", "Write calls to the kernel.";
    Counter writes_blocked = "writes_blocked_total", "Write calls that could not take everything.";
    Gauge outbox_bytes = "outbox_bytes", "Bytes waiting in outboxes.";
    Counter frames_deflated = "frames_deflated_total", "Frames deflated: each once, however many connections take it.";
    Counter deflate_bytes_before = "deflate_bytes_before_total", "Bytes of these frames' texts.";
    Counter deflate_bytes_after = "deflate_bytes_after_total", "Bytes that they were deflated to.";
    Counter messages_inflated = "messages_inflated_total", "Deflated messages of clients that were inflated.";
    Counter inflate_failures = "inflate_failures_total", "Deflated messages of clients that are no deflate stream, or inflate to more than allowed.";
    Counter viewer_messages = "viewer_messages_total", "Messages from viewers.";
    Counter viewer_messages_dropped = "viewer_messages_dropped_total", "Messages from viewers dropped beyond the rate.";
    Counter viewer_errors [VIEWER_ERRORS_MAX; "code", |v| v.viewer_errors] = "viewer_errors_total", "Messages from viewers answered with an error, by code.";
    Gauge subscriptions = "subscriptions", "Subscriptions of viewers.";
    Gauge streams = "streams", "Streams that a core numbers and remembers.";
    Gauge interests = "interests", "Streams that a core's viewers follow on another core.";

    Gauge catch_ups = "catch_ups", "Viewers' streams that are not live yet: what was missed is being sent.";
    Counter events_replayed = "events_replayed_total", "Events sent because a viewer had missed them, or asked for them again.";
    Counter ring_hits = "ring_hits_total", "Cursors that could be continued from memory.";
    Counter ring_misses = "ring_misses_total", "Cursors for which the event log was asked.";
    Gauge ring_bytes = "ring_bytes", "Bytes of recent events and frames in memory.";

    Gauge states = "states", "Streams of which a core knows, or finds out, what their events have led to.";
    Gauge state_entries = "state_entries", "Agents and conversations in them.";
    Counter state_loads = "state_loads_total", "States made from the event log because somebody needed them.";
    Counter state_snapshots = "state_snapshots_total", "States written to the event log.";
    Counter conversations_silent = "conversations_silent_total", "Conversations of which the server said that they are over, since nothing was heard of them.";
    Counter agent_cycles_refused = "agent_cycles_refused_total", "Parents of agents that were refused because they are below them.";
    Counter agent_nodes_refused = "agent_nodes_refused_total", "Agents that were not taken in for want of room in their user's trees.";
    Counter agent_tree_messages_made = "agent_tree_messages_made_total", "Messages about trees of agents that were made: each once for all who take the same bytes.";
    Counter agent_tree_messages_queued = "agent_tree_messages_queued_total", "Messages about trees of agents that were put into outboxes.";
    Counter agent_trees_evicted = "agent_trees_evicted_total", "Trees of agents let go of because they were old, or too many.";

    Counter mail_sent = "mail_sent_total", "Letters put into mailboxes of other cores.";
    Counter mail_received = "mail_received_total", "Letters taken from the own mailboxes.";
    Counter mail_full = "mail_full_total", "Letters kept back because a mailbox was full.";
    Counter wakes_sent = "wakes_sent_total", "Wake-ups of other cores.";
    Counter turns = "turns_total", "Turns of the event loops.";
    Counter stalls = "stalls_total", "Turns that took a second longer than they should: the process was stopped, or a core was held up.";
    Counter panics = "panics_total", "Panics caught while handling one connection's bytes, or deflating one frame.";
    Counter heartbeats_sent = "heartbeats_sent_total", "WebSocket pings sent.";
    Counter lag_notices = "lag_notices_total", "Lag messages sent to viewers.";
    Counter slow_closes = "slow_closes_total", "Viewers closed with 4008.";
    Gauge ingest_bytes_in_flight = "ingest_bytes_in_flight", "Bytes of events received and not yet settled.";
    Gauge log_unkept = "log_unkept_bytes", "Bytes of records that cores have made for the event log and do not know to be kept.";
    Counter log_records = "log_records_total", "Records taken in by the writer of the event log; counted, like all of the log but what cores have not kept, in the first core's set.";
    Counter log_records_kept = "log_records_kept_total", "Records that are as safe as history.durability asks for, and may be read.";
    Counter log_bytes_written = "log_bytes_written_total", "Bytes written to the event log.";
    Counter log_commits = "log_commits_total", "Groups of records written to the event log.";
    Counter log_syncs = "log_syncs_total", "Syncs of the event log that succeeded.";
    Counter log_failures = "log_failures_total", "Steps of the event log's writer that failed; each is tried again.";
    Gauge log_queued = "log_queued_bytes", "Bytes that the writer of the event log has taken in and that are not as safe as they should be.";
    Gauge log_refusing = "log_refusing", "1 while the event log's disk is full or fails, so that no event is admitted.";
    Gauge log_segments = "log_segments", "Segments of the event log.";
    Gauge log_bytes = "log_bytes", "Bytes of the event log's segments.";
    Gauge log_earliest_s = "log_earliest_timestamp_seconds", "When the earliest event that is held arrived, since the Unix epoch; 0 where none is known of.";
    Gauge log_damaged = "log_damaged_records", "Records of the event log that were met and cannot be read any more.";
    Counter log_reads [4; "what", |_| &["count", "events", "resume", "snapshot"]] = "log_reads_total", "Requests of cores to the reader of the event log.";
    Counter log_reads_failed = "log_reads_failed_total", "Of these, those that the disk failed.";
    Counter log_panics = "log_panics_total", "Panics caught while reading the event log.";
    Counter log_events_read = "log_events_read_total", "Events read back from the event log.";
    Counter log_events_erased = "log_events_erased_total", "Events taken out of the event log because an administrator asked for it.";
    Gauge duplicates_window = "duplicates_window_ids", "Event ids by which duplicates are recognised.";
    GaugeMin duplicates_span_ms = "duplicates_window_span_milliseconds", "The age up to which duplicates are recognised, the shortest over the cores.";
    GaugeMax revocations = "revocations", "Revocations in force.";
}

/// An account that does not balance: numbers were lost, or counted twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Imbalance {
    /// received ≠ accepted + duplicates + refused
    #[error(
        "{received} events received, {accepted} accepted, {duplicates} duplicates, {refused} refused"
    )]
    Events {
        /// Events received.
        received: u64,
        /// Events accepted.
        accepted: u64,
        /// Duplicates.
        duplicates: u64,
        /// Events refused.
        refused: u64,
    },
    /// queued ≠ written + discarded
    #[error("{queued} frames queued, {written} written, {discarded} discarded")]
    Frames {
        /// Frames queued.
        queued: u64,
        /// Frames written.
        written: u64,
        /// Frames discarded.
        discarded: u64,
    },
}

/// Compares the accounts of all cores of a node at rest: no request under way, every outbox empty
/// or closed. Errors: the first account that does not balance; always our fault.
pub fn check_balance<'a>(cores: impl IntoIterator<Item = &'a Counters>) -> Result<(), Imbalance> {
    let [mut received, mut accepted, mut duplicates, mut refused] = [0; 4];
    let [mut queued, mut written, mut discarded] = [0; 3];
    for core in cores {
        received += core.events_received.value();
        accepted += core.events_accepted.value();
        duplicates += core.events_duplicate.value();
        refused += core.events_refused.total();
        queued += core.frames_queued.value();
        written += core.frames_written.value();
        discarded += core.frames_discarded.value();
    }
    if received != accepted + duplicates + refused {
        return Err(Imbalance::Events {
            received,
            accepted,
            duplicates,
            refused,
        });
    }
    if queued != written + discarded {
        return Err(Imbalance::Frames {
            queued,
            written,
            discarded,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::HashSet;

    use super::*;

    fn metric(name: &str) -> &'static Metric {
        Counters::METRICS
            .iter()
            .find(|metric| metric.name == name)
            .unwrap()
    }

    #[test]
    fn names_are_unique_and_counters_say_total() {
        let names: HashSet<_> = Counters::METRICS.iter().map(|metric| metric.name).collect();
        assert_eq!(names.len(), Counters::METRICS.len());
        for metric in Counters::METRICS {
            let is_counter = metric.kind == Kind::Counter;
            assert_eq!(
                metric.name.ends_with("_total"),
                is_counter,
                "{}",
                metric.name
            );
        }
    }

    #[test]
    fn cores_are_merged_by_kind() {
        let cores = [Counters::default(), Counters::default()];
        for (core, n) in cores.iter().zip([3, 5]) {
            core.turns.add(n);
            core.viewers.set(n);
            core.revocations.set(n);
            core.duplicates_span_ms.set(n);
        }
        let check = |name, expected| assert_eq!(metric(name).merged(&cores, 0), expected, "{name}");
        check("sightline_turns_total", 8);
        check("sightline_viewers", 8);
        check("sightline_revocations", 5);
        check("sightline_duplicates_window_span_milliseconds", 3);
    }

    #[test]
    fn labels_find_their_cell() {
        let core = Counters::default();
        core.http_responses.at(StatusClass::of(404) as usize).add(1);
        core.handshakes.at(Role::Viewer as usize).add(2);
        let value = |name: &str, label: &str| {
            let metric = metric(name);
            let names = metric.label.unwrap().names(&Vocabulary::default());
            let index = names.iter().position(|name| *name == label).unwrap();
            metric.merged([&core], index)
        };
        assert_eq!(value("sightline_http_responses_total", "4xx"), 1);
        assert_eq!(value("sightline_handshakes_total", "viewer"), 2);
        assert_eq!(value("sightline_handshakes_total", "publisher"), 0);
    }

    #[test]
    fn the_account_balances_over_cores_or_says_why_not() {
        let cores = [Counters::default(), Counters::default()];
        cores[0].events_received.add(3);
        cores[0].events_accepted.add(1);
        cores[0].events_refused.at(2).add(1);
        cores[1].events_duplicate.add(1);
        cores[1].frames_queued.add(2);
        cores[0].frames_written.add(1);
        let frames = Imbalance::Frames {
            queued: 2,
            written: 1,
            discarded: 0,
        };
        assert_eq!(check_balance(&cores), Err(frames));
        cores[1].frames_discarded.add(1);
        assert_eq!(check_balance(&cores), Ok(()));
        cores[1].events_received.add(1);
        let events = Imbalance::Events {
            received: 4,
            accepted: 1,
            duplicates: 1,
            refused: 1,
        };
        assert_eq!(check_balance(&cores), Err(events));
    }
}
