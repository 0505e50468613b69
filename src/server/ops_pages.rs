//! Hands `ops` to the engine: pages are rendered from what the cores count and from what a thread
//! of its own reads of the system, since no core's loop touches a file. That thread also renders the
//! pages that go through all histograms, which takes milliseconds.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};
use std::{fs, io, thread};

use arc_swap::ArcSwap;

use crate::counters::{CoreStats, Vocabulary};
use crate::dialect::ERROR_CODES;
use crate::engine::mailbox::Control;
use crate::engine::{Clock, Letter, Page as EnginePage, PageRequest, Pages, Rendering};
use crate::event::{KnownType, RejectionCode};
use crate::hub::keyed::Key;
use crate::limits::PAGES_ORDERED_MAX;
use crate::ops::health::{Faults, Health, Report};
use crate::ops::pages::{Door, Page, livez, readyz};
use crate::ops::stats::Detail;
use crate::ops::{Answer, Process, metrics, stats};
use crate::wire::Refused;
use crate::wire::close::{CloseReason, Refusal};
use crate::wire::http::query_pairs;

/// Renders operators' pages for every core.
pub(super) struct OpsPages {
    stats: Vec<Arc<CoreStats>>,
    vocabulary: Vocabulary,
    clock: Clock,
    latest: ArcSwap<Latest>,
    orders: SyncSender<Order>,
}

/// A page to render, and who waits for it.
struct Order {
    large: Large,
    core: usize,
    connection: Key,
}

/// The pages that a core does not render itself.
#[derive(Clone, Copy)]
enum Large {
    Metrics,
    Stats(Detail),
}

/// The orders, on their way to the thread that [`OpsPages::watch`] starts.
pub(super) struct Orders(Receiver<Order>);

/// What was last read.
struct Latest {
    process: Process,
    report: Report,
}

/// How often the system is asked.
const READ_INTERVAL: Duration = Duration::from_secs(1);
/// How long a full mailbox is waited for.
const MAIL_RETRY: Duration = Duration::from_millis(1);

const FAULTS: Faults = Faults {
    rejections: &[
        RejectionCode::Overloaded as usize,
        RejectionCode::StorageFull as usize,
    ],
    closes: &[CloseReason::Internal as usize],
};

impl OpsPages {
    pub fn new(stats: Vec<Arc<CoreStats>>, clock: Clock) -> (Arc<Self>, Orders) {
        let process = read_process(clock.now().wall_ms, clock);
        let report = Health::new(FAULTS).handle_reading(stats.iter().map(Arc::as_ref), &process, 0);
        let latest = ArcSwap::from_pointee(Latest { process, report });
        let (orders, ordered) = sync_channel(PAGES_ORDERED_MAX);
        let pages = Arc::new(Self {
            stats,
            vocabulary: vocabulary(),
            clock,
            latest,
            orders,
        });
        (pages, Orders(ordered))
    }

    /// Starts the thread that reads the system and renders what is ordered. It ends with the process.
    pub fn watch(self: &Arc<Self>, orders: Orders, mail: Arc<Control<Letter>>) -> io::Result<()> {
        let pages = Arc::clone(self);
        thread::Builder::new()
            .name("ops".into())
            .spawn(move || pages.run(&orders, &mail))?;
        Ok(())
    }

    fn run(&self, Orders(orders): &Orders, mail: &Control<Letter>) {
        let mut health = Health::new(FAULTS);
        let mut due = Instant::now() + READ_INTERVAL;
        loop {
            match orders.recv_timeout(due.saturating_duration_since(Instant::now())) {
                Ok(order) => self.serve(&order, mail),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if Instant::now() >= due {
                self.read(&mut health);
                due = Instant::now() + READ_INTERVAL;
            }
        }
    }

    fn read(&self, health: &mut Health) {
        let process = read_process(self.latest.load().process.started_ms, self.clock);
        let cores = self.stats.iter().map(Arc::as_ref);
        let report = health.handle_reading(cores, &process, self.clock.now().ms());
        self.latest.store(Arc::new(Latest { process, report }));
    }

    // A core takes its mail every turn, and one that stands still has little of it.
    fn serve(&self, order: &Order, mail: &Control<Letter>) {
        let answer = self.render(order.large);
        let mut letter = Letter::Page {
            connection: order.connection,
            page: engine_page(answer),
        };
        while let Err(back) = mail.try_send(order.core, letter) {
            letter = back;
            thread::sleep(MAIL_RETRY);
        }
    }

    fn render(&self, large: Large) -> Answer {
        let process = Process {
            now_ms: self.clock.now().wall_ms,
            ..self.latest.load().process
        };
        match large {
            Large::Metrics => metrics::render(&self.stats, &self.vocabulary, &process),
            Large::Stats(detail) => stats::render(&self.stats, &process, detail),
        }
    }

    fn order(&self, request: PageRequest<'_>, large: Large) -> Result<Rendering, Refused> {
        let ordered = self.orders.try_send(Order {
            large,
            core: request.core,
            connection: request.connection,
        });
        match ordered {
            Ok(()) => Ok(Rendering::Later),
            Err(TrySendError::Disconnected(_)) => {
                let message = "the thread that renders this page is gone: it is our fault";
                Err(Refused::new(Refusal::Internal, message))
            }
            Err(TrySendError::Full(_)) => {
                let message = "too many pages are being rendered: ask again later";
                Err(Refused {
                    retry_after_s: Some(1),
                    ..Refused::new(Refusal::Overloaded, message)
                })
            }
        }
    }
}

impl Pages for OpsPages {
    fn page(&self, request: PageRequest<'_>) -> Result<Rendering, Refused> {
        let no_page = || Refused::new(Refusal::NotFound, "no such path");
        let answer = match Page::from_path(request.path).ok_or_else(no_page)? {
            Page::Health => self.latest.load().report.render(),
            Page::Livez => livez(),
            Page::Metrics => return self.order(request, Large::Metrics),
            Page::Readyz => readyz(request.is_draining),
            Page::Stats => return self.order(request, Large::Stats(detail(request.query)?)),
        };
        Ok(Rendering::Now(engine_page(answer)))
    }

    fn needs_admin(&self, path: &str) -> Option<bool> {
        Page::from_path(path).map(|page| page.needs_admin(Door::Public))
    }
}

fn engine_page(answer: Answer) -> EnginePage {
    let Answer {
        status,
        content_type,
        body,
    } = answer;
    EnginePage {
        status,
        content_type,
        body: body.into_bytes(),
    }
}

// The last `histograms` counts.
fn detail(query: &str) -> Result<Detail, Refused> {
    let asked = query_pairs(query).filter(|(name, _)| name == "histograms");
    match asked.last().as_ref().map(|(_, value)| &**value) {
        None | Some("0") => Ok(Detail::Numbers),
        Some("1") => Ok(Detail::Histograms),
        Some(_) => {
            let message = "histograms is neither 0 nor 1";
            Err(Refused::new(Refusal::BadRequest, message))
        }
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
