//! Hands `ops` to the engine: pages are rendered from what the cores count and from what a thread
//! of its own reads of the system, since no core's loop touches a file.

use std::sync::Arc;
use std::time::Duration;
use std::{fs, io, thread};

use arc_swap::ArcSwap;

use crate::counters::{CoreStats, Vocabulary};
use crate::dialect::ERROR_CODES;
use crate::engine::{Clock, Page as EnginePage, Pages};
use crate::event::{KnownType, RejectionCode};
use crate::ops::health::{Faults, Health, Report};
use crate::ops::pages::{Door, Page, livez, readyz};
use crate::ops::{Answer, Process, metrics, stats};
use crate::wire::close::{CloseReason, Refusal};

/// Renders operators' pages for every core.
pub(super) struct OpsPages {
    stats: Vec<Arc<CoreStats>>,
    vocabulary: Vocabulary,
    clock: Clock,
    latest: ArcSwap<Latest>,
}

/// What was last read.
struct Latest {
    process: Process,
    report: Report,
}

/// How often the system is asked.
const READ_INTERVAL: Duration = Duration::from_secs(1);

const FAULTS: Faults = Faults {
    rejections: &[
        RejectionCode::Overloaded as usize,
        RejectionCode::StorageFull as usize,
    ],
    closes: &[CloseReason::Internal as usize],
};

impl OpsPages {
    pub fn new(stats: Vec<Arc<CoreStats>>, clock: Clock) -> Arc<Self> {
        let process = read_process(clock.now().wall_ms, clock);
        let report = Health::new(FAULTS).handle_reading(stats.iter().map(Arc::as_ref), &process, 0);
        let latest = ArcSwap::from_pointee(Latest { process, report });
        Arc::new(Self {
            stats,
            vocabulary: vocabulary(),
            clock,
            latest,
        })
    }

    /// Starts the thread that reads the system. It ends with the process.
    pub fn watch(self: &Arc<Self>) -> io::Result<()> {
        let pages = Arc::clone(self);
        let started_ms = pages.latest.load().process.started_ms;
        let mut health = Health::new(FAULTS);
        thread::Builder::new().name("ops".into()).spawn(move || {
            loop {
                thread::sleep(READ_INTERVAL);
                let process = read_process(started_ms, pages.clock);
                let cores = pages.stats.iter().map(Arc::as_ref);
                let report = health.handle_reading(cores, &process, pages.clock.now().ms());
                pages.latest.store(Arc::new(Latest { process, report }));
            }
        })?;
        Ok(())
    }
}

impl Pages for OpsPages {
    fn page(&self, path: &str, is_draining: bool) -> Option<EnginePage> {
        let latest = self.latest.load();
        let process = Process {
            now_ms: self.clock.now().wall_ms,
            ..latest.process
        };
        let Answer {
            status,
            content_type,
            body,
        } = match Page::from_path(path)? {
            Page::Health => latest.report.render(),
            Page::Livez => livez(),
            Page::Metrics => metrics::render(&self.stats, &self.vocabulary, &process),
            Page::Readyz => readyz(is_draining),
            Page::Stats => stats::render(&self.stats, &process),
        };
        Some(EnginePage {
            status,
            content_type,
            body: body.into_bytes(),
        })
    }

    fn needs_admin(&self, path: &str) -> Option<bool> {
        Page::from_path(path).map(|page| page.needs_admin(Door::Public))
    }
}

fn vocabulary() -> Vocabulary {
    fn names<T: Copy>(all: &[T], name: impl Fn(T) -> &'static str) -> &'static [&'static str] {
        all.iter().map(|one| name(*one)).collect::<Vec<_>>().leak()
    }
    Vocabulary {
        rejections: names(&RejectionCode::ALL, RejectionCode::as_str),
        known_types: names(&KnownType::ALL, KnownType::as_str),
        refusals: names(&Refusal::ALL, Refusal::code),
        closes: names(&CloseReason::ALL, CloseReason::name),
        viewer_errors: &ERROR_CODES,
    }
}

fn read_process(started_ms: i64, clock: Clock) -> Process {
    Process {
        version: env!("CARGO_PKG_VERSION"),
        started_ms,
        now_ms: clock.now().wall_ms,
        resident_bytes: resident_bytes(),
        descriptors_open: fs::read_dir("/proc/self/fd")
            .ok()
            .map(|entries| entries.count() as u64),
        descriptors_max: rlimit::Resource::NOFILE.get_soft().ok(),
        cpu_ms: cpu_ms(),
    }
}

// Source: proc(5), /proc/pid/smaps_rollup; kibibytes.
fn resident_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1_024)
}

// Source: proc(5), /proc/pid/stat: utime and stime are the 14th and 15th fields, in ticks of 10 ms.
fn cpu_ms() -> Option<u64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some((user + system) * 10)
}
