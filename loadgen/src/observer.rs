//! A thread that looks on while a phase is measured: it takes what each second brought, reads
//! what the server spent in it, and tells a terminal how it goes.
//!
//! A loop that measures gives away a filled interval for an empty one and goes on; it allocates
//! nothing, waits for nobody, and where no empty one is left, its second grows longer. All work on
//! the numbers is done here, on another CPU where there is one. What the loops of a crew have seen
//! of the same second becomes one.

use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use hdrhistogram::Histogram;
use latency_report::{Encoded, value_at};
use rustix::thread::{CpuSet, sched_setaffinity};

use crate::interval::Interval;
use crate::proc::Process;
use crate::progress::Progress;
use crate::publish::Start;

/// How a phase is looked on.
#[derive(Debug, Clone, Default)]
pub(crate) struct Watch {
    /// The CPUs that do not measure; none where there is no other.
    pub(crate) cpus: Option<CpuSet>,
    /// Whether somebody watches the terminal.
    pub(crate) is_live: bool,
}

/// What was seen of a phase.
#[derive(Debug)]
pub(crate) struct Observed {
    /// When the phase began, milliseconds since 1970.
    pub(crate) start_unix_ms: u64,
    /// All that was handed over, together.
    pub(crate) whole: Interval,
    /// One after the other.
    pub(crate) seconds: Vec<Second>,
}

/// What one stretch of a phase has brought, put away small.
#[derive(Debug)]
pub(crate) struct Second {
    /// When it began, nanoseconds after the phase's start.
    pub(crate) start_ns: u64,
    /// How long it was, nanoseconds.
    pub(crate) length_ns: u64,
    /// The deliveries, by group.
    pub(crate) groups: Vec<Series>,
    /// The acknowledgements.
    pub(crate) acknowledged: Series,
    /// How late events were sent, one sample each.
    pub(crate) slip: Digest,
    /// What the server spent, where it is watched and there to be read.
    pub(crate) server: Option<Usage>,
}

/// The latencies of one group, or of the acknowledgements, in one stretch.
#[derive(Debug)]
pub(crate) struct Series {
    /// From the intended send.
    pub(crate) latency: Digest,
    /// From the actual send; empty of acknowledgements.
    pub(crate) service: Digest,
    /// All of the former.
    pub(crate) histogram: Encoded,
}

/// What is said of a second, in nanoseconds; a percentile where enough samples carry it.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Digest {
    /// How many.
    pub(crate) samples: u64,
    /// The median.
    pub(crate) p50: Option<u64>,
    /// The 99th percentile.
    pub(crate) p99: Option<u64>,
    /// The largest; 0 of none.
    pub(crate) max: u64,
}

/// What a server spent in one stretch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Usage {
    /// CPU time over wall time; 1 is one core. Unknown where threads have ended.
    pub(crate) cpu_share: Option<f64>,
    /// Resident memory at its end.
    pub(crate) rss_bytes: u64,
}

/// The thread, and what it will have seen.
#[derive(Debug)]
pub(crate) struct Observer {
    thread: JoinHandle<Observed>,
}

/// A measuring loop's end of it.
#[derive(Debug)]
pub(crate) struct Lookout {
    /// Which of the loops.
    index: usize,
    full: SyncSender<Handed>,
    empty: Receiver<Box<Interval>>,
    start: Start,
    /// When the present interval began, nanoseconds of the generator's clock.
    since_ns: u64,
    /// No interval ends after this but the last.
    last_ns: u64,
}

/// An interval on its way from a loop.
#[derive(Debug)]
struct Handed {
    /// Which of the loops.
    index: usize,
    /// When its phase began, milliseconds since 1970.
    start_unix_ms: u64,
    interval: Box<Interval>,
}

impl Observer {
    /// Starts the thread, for a phase of `loops` loops and `groups` groups; it reads `server` too.
    /// Returns the loops' ends of it.
    /// Errors: there is no thread to be had.
    pub(crate) fn start(
        watch: &Watch,
        server: Option<Process>,
        loops: usize,
        groups: usize,
    ) -> io::Result<(Self, Vec<Lookout>)> {
        let (full, taken) = sync_channel(INTERVALS * loops);
        let (backs, lookouts): (Vec<_>, _) = (0..loops)
            .map(|index| Lookout::new(index, full.clone(), groups))
            .unzip();
        let (watch, seen) = (watch.clone(), Seen::new(loops, groups));
        let thread = thread::Builder::new().name("observer".to_owned());
        let thread = thread.spawn(move || look_on(&watch, server, seen, &taken, &backs))?;
        Ok((Self { thread }, lookouts))
    }

    /// All that was seen, once all loops have ended and the thread is done with it.
    pub(crate) fn finish(self) -> Observed {
        let seen = self.thread.join();
        seen.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl Lookout {
    /// That of loop `index`, with all its empty intervals, and the way back for them.
    fn new(
        index: usize,
        full: SyncSender<Handed>,
        groups: usize,
    ) -> (SyncSender<Box<Interval>>, Self) {
        let (back, empty) = sync_channel(INTERVALS);
        for _ in 0..INTERVALS {
            // There is room for all of them.
            let _ = back.try_send(Box::new(Interval::new(groups)));
        }
        let lookout = Self {
            index,
            full,
            empty,
            start: Start::default(),
            since_ns: 0,
            last_ns: 0,
        };
        (back, lookout)
    }

    /// The phase begins at `start`, and its last event is due at `last_ns`.
    pub(crate) fn begin(&mut self, start: Start, last_ns: u64) {
        (self.start, self.since_ns, self.last_ns) = (start, start.at_ns, last_ns);
    }

    /// An empty interval to be exchanged for the present one, where that is over at `now_ns`: all
    /// loops count whole seconds from the phase's start. What is left of less than half a second
    /// belongs to the interval beside it, so that none is too short to be counted by.
    pub(crate) fn poll_due(&mut self, now_ns: u64) -> Option<Box<Interval>> {
        let begun_ns = self.since_ns.saturating_sub(self.start.at_ns);
        let seconds = (begun_ns + SECOND_NS / 2) / SECOND_NS + 1;
        let end_ns = self.start.at_ns + seconds * SECOND_NS;
        if now_ns < end_ns || end_ns + SECOND_NS / 2 > self.last_ns {
            return None;
        }
        self.empty.try_recv().ok()
    }

    /// An empty interval for what is left at the end; waits for it.
    pub(crate) fn last_empty(&mut self) -> Option<Box<Interval>> {
        self.empty.recv().ok()
    }

    /// Takes what came until `now_ns`.
    pub(crate) fn handle_full(&mut self, mut interval: Box<Interval>, now_ns: u64) {
        interval.start_ns = self.since_ns.saturating_sub(self.start.at_ns);
        interval.length_ns = now_ns.saturating_sub(self.since_ns).max(1);
        self.since_ns = now_ns;
        let handed = Handed {
            index: self.index,
            start_unix_ms: self.start.wall_ms,
            interval,
        };
        // There is room for all there are, unless the thread is gone; that is found at the end.
        let _ = self.full.try_send(handed);
    }
}

/// The thread: takes intervals until nobody gives any more.
fn look_on(
    watch: &Watch,
    server: Option<Process>,
    mut seen: Seen,
    taken: &Receiver<Handed>,
    backs: &[SyncSender<Box<Interval>>],
) -> Observed {
    if let Some(cpus) = &watch.cpus {
        // Where that is refused, it looks on from where it is.
        let _ = sched_setaffinity(None, cpus);
    }
    let mut progress = watch.is_live.then(Progress::new);
    let mut gauge = server.map(Gauge::new);
    while let Ok(handed) = taken.recv() {
        let index = handed.index;
        seen.add(&handed);
        let mut interval = handed.interval;
        interval.clear();
        // Nobody misses it once the phase is over.
        let _ = backs[index].try_send(interval);
        if seen.is_second_whole() {
            let spent = gauge.as_mut().and_then(Gauge::read);
            if let Some(progress) = &mut progress {
                progress.show(&seen.present, spent);
            }
            seen.end_second(spent);
        }
    }
    seen.finish(gauge.as_mut().and_then(Gauge::read))
}

/// What the loops have handed over so far.
#[derive(Debug)]
struct Seen {
    start_unix_ms: u64,
    whole: Interval,
    seconds: Vec<Second>,
    /// All since the last second that is whole.
    present: Interval,
    /// Until when each loop has handed over of that, nanoseconds after the phase's start.
    ends_ns: Vec<Option<u64>>,
}

impl Seen {
    fn new(loops: usize, groups: usize) -> Self {
        Self {
            start_unix_ms: 0,
            whole: Interval::new(groups),
            seconds: Vec::new(),
            present: Interval::new(groups),
            ends_ns: vec![None; loops],
        }
    }

    fn add(&mut self, handed: &Handed) {
        let interval = &handed.interval;
        self.start_unix_ms = handed.start_unix_ms;
        let end_ns = interval.start_ns + interval.length_ns;
        self.ends_ns[handed.index] = Some(end_ns);
        self.present.add(interval);
        let length_ns = end_ns.saturating_sub(self.present.start_ns);
        self.present.length_ns = self.present.length_ns.max(length_ns);
    }

    /// Whether all loops have come to the same end. Where one has skipped it, the next second is
    /// theirs together.
    fn is_second_whole(&self) -> bool {
        let end_ns = self.present.start_ns + self.present.length_ns;
        let mut ends_ns = self.ends_ns.iter();
        ends_ns.all(|loop_end_ns| {
            loop_end_ns.is_some_and(|loop_end_ns| loop_end_ns + SECOND_NS / 2 > end_ns)
        })
    }

    fn end_second(&mut self, server: Option<Usage>) {
        self.whole.add(&self.present);
        self.seconds.push(Second::new(&self.present, server));
        self.present.start_ns += self.present.length_ns;
        self.present.length_ns = 1;
        self.present.clear();
        self.ends_ns.fill(None);
    }

    /// What one loop has handed over after the end of the others is the last second.
    fn finish(mut self, server: Option<Usage>) -> Observed {
        if self.ends_ns.iter().any(Option::is_some) {
            self.end_second(server);
        }
        Observed {
            start_unix_ms: self.start_unix_ms,
            whole: self.whole,
            seconds: self.seconds,
        }
    }
}

impl Second {
    fn new(interval: &Interval, server: Option<Usage>) -> Self {
        let groups = interval.groups.iter();
        let groups =
            groups.map(|group| Series::new(&group.latency_ns, Digest::new(&group.service_ns)));
        Self {
            start_ns: interval.start_ns,
            length_ns: interval.length_ns,
            groups: groups.collect(),
            acknowledged: Series::new(&interval.acknowledged_ns, Digest::default()),
            slip: Digest::new(&interval.slip_ns),
            server,
        }
    }
}

impl Series {
    fn new(latency_ns: &Histogram<u64>, service: Digest) -> Self {
        Self {
            latency: Digest::new(latency_ns),
            service,
            histogram: Encoded::new(latency_ns).expect("no phase has 2^63 samples"),
        }
    }
}

impl Digest {
    fn new(histogram: &Histogram<u64>) -> Self {
        Self {
            samples: histogram.len(),
            p50: value_at(histogram, 0.5),
            p99: value_at(histogram, 0.99),
            max: histogram.max(),
        }
    }
}

/// Reads what a process has spent since the last time.
#[derive(Debug)]
struct Gauge {
    process: Process,
    cpu_ns: Option<u64>,
    at: Instant,
}

impl Gauge {
    fn new(process: Process) -> Self {
        Self {
            process,
            cpu_ns: process.cpu_ns().ok(),
            at: Instant::now(),
        }
    }

    /// `None` where its files cannot be read: it may have ended.
    fn read(&mut self) -> Option<Usage> {
        let (cpu_ns, at) = (self.process.cpu_ns().ok(), Instant::now());
        let wall_ns = (at - self.at).as_nanos() as f64;
        let spent_ns = cpu_ns.zip(self.cpu_ns);
        let spent_ns = spent_ns.and_then(|(now, before)| now.checked_sub(before));
        (self.cpu_ns, self.at) = (cpu_ns, at);
        Some(Usage {
            cpu_share: spent_ns.map(|spent_ns| spent_ns as f64 / wall_ns),
            rss_bytes: self.process.rss_bytes_roughly().ok()?,
        })
    }
}

const SECOND_NS: u64 = 1_000_000_000;
/// One that is filled, one that is read, and one in case the reading is late.
const INTERVALS: usize = 3;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// An observer of `loops` loops whose phase has begun.
    fn begun(loops: usize, last_ns: u64) -> (Observer, Vec<Lookout>) {
        let server = Process::watch(std::process::id()).unwrap();
        let (observer, mut lookouts) =
            Observer::start(&Watch::default(), Some(server), loops, 1).unwrap();
        let start = Start {
            at_ns: 5 * SECOND_NS,
            wall_ms: 77,
        };
        for lookout in &mut lookouts {
            lookout.begin(start, 5 * SECOND_NS + last_ns);
        }
        (observer, lookouts)
    }

    fn begun_alone(last_ns: u64) -> (Observer, Lookout) {
        let (observer, mut lookouts) = begun(1, last_ns);
        (observer, lookouts.remove(0))
    }

    /// Hands over `samples` at `now_ns`, once the thread has given an interval back.
    fn hand_over(lookout: &mut Lookout, now_ns: u64, samples: u64) {
        let empty = loop {
            if let Some(empty) = lookout.poll_due(now_ns) {
                break empty;
            }
            thread::yield_now();
        };
        lookout.handle_full(fill(empty, samples), now_ns);
    }

    fn counts(observed: &Observed) -> Vec<u64> {
        let seconds = observed.seconds.iter();
        seconds
            .map(|second| second.groups[0].histogram.decode().unwrap().len())
            .collect()
    }

    fn fill(mut interval: Box<Interval>, samples: u64) -> Box<Interval> {
        let group = &mut interval.groups[0];
        assert!(group.latency_ns.is_empty(), "it was given back empty");
        group.latency_ns.saturating_record_n(2_000_000, samples);
        interval.slip_ns.saturating_record(1_000);
        interval
    }

    #[test]
    fn each_second_is_seen_and_all_together() {
        let (observer, mut lookout) = begun_alone(10 * SECOND_NS);
        assert!(lookout.poll_due(5 * SECOND_NS + SECOND_NS - 1).is_none());
        for second in 1..=9 {
            hand_over(
                &mut lookout,
                (5 + second) * SECOND_NS + 1000 * second,
                second,
            );
        }
        let rest = lookout.last_empty().unwrap();
        lookout.handle_full(fill(rest, 10), 16 * SECOND_NS);
        drop(lookout);
        let observed = observer.finish();
        assert_eq!(observed.start_unix_ms, 77);
        assert_eq!(observed.whole.groups[0].latency_ns.len(), 55);
        assert_eq!(observed.whole.slip_ns.len(), 10);
        assert_eq!(counts(&observed), (1..=10).collect::<Vec<_>>());
        let second = &observed.seconds[1];
        assert_eq!(
            (second.start_ns, second.length_ns),
            (SECOND_NS + 1000, SECOND_NS + 1000)
        );
        assert!(second.server.unwrap().rss_bytes > 100_000);
    }

    #[test]
    fn second_of_several_loops_is_one() {
        let (observer, mut lookouts) = begun(2, 4 * SECOND_NS);
        let [one, other] = lookouts.as_mut_slice() else {
            unreachable!("there are two loops");
        };
        // The second loop is late, skips a second, and ends later.
        hand_over(one, 6 * SECOND_NS, 1);
        hand_over(other, 6 * SECOND_NS + 400_000_000, 10);
        hand_over(one, 7 * SECOND_NS, 2);
        hand_over(one, 8 * SECOND_NS, 3);
        hand_over(other, 8 * SECOND_NS, 20);
        for (lookout, samples) in [(one, 4), (other, 30)] {
            let rest = lookout.last_empty().unwrap();
            lookout.handle_full(fill(rest, samples), (5 + samples) * SECOND_NS);
        }
        drop(lookouts);
        let observed = observer.finish();
        assert_eq!(counts(&observed), [11, 25, 34]);
        let ends = observed.seconds.iter();
        let ends = ends.map(|second| (second.start_ns + second.length_ns) / 100_000_000);
        assert_eq!(ends.collect::<Vec<_>>(), [14, 30, 300]);
    }

    #[test]
    fn last_half_second_has_no_interval_of_its_own() {
        let due_after_a_second = |last_ns| begun_alone(last_ns).1.poll_due(7 * SECOND_NS).is_some();
        assert!(!due_after_a_second(SECOND_NS));
        assert!(!due_after_a_second(SECOND_NS + SECOND_NS / 2 - 1));
        assert!(due_after_a_second(SECOND_NS + SECOND_NS / 2));
    }

    #[test]
    fn second_grows_longer_where_no_interval_is_empty() {
        let (observer, mut lookout) = begun_alone(10 * SECOND_NS);
        let taken: Vec<_> = (0..INTERVALS)
            .map(|_| lookout.last_empty().unwrap())
            .collect();
        assert!(lookout.poll_due(6 * SECOND_NS).is_none());
        for interval in taken {
            lookout.handle_full(interval, 8 * SECOND_NS);
        }
        drop(lookout);
        let seconds = observer.finish().seconds;
        assert_eq!(seconds[0].length_ns, 3 * SECOND_NS);
    }
}
