//! One life of a gateway: the hubs of its cores over both halves of the event log as they really are,
//! without their threads. Nothing outlives it but the storage.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sightline::auth::{
    Claims, KeySet, MintOptions, Permission, Revocations, SigningKey, Verifier, mint,
};
use sightline::counters::CoreStats;
use sightline::engine::Letter;
use sightline::engine::log::{LogHalves, LogParts, ids_of_late};
use sightline::engine::mailbox::{Inbox, Wake, mesh};
use sightline::event::{Epoch, LogIdentity, Partition};
use sightline::history::log::{EpochRule, Log, OpenError, OpenOptions, OpenReport, open};
use sightline::history::retention::RetentionOptions;
use sightline::history::sim_storage::SimStorage;
use sightline::history::writer::{Durability, WriterOptions};
use sightline::hub::reads::{ReadAnswer, ReadRequest};
use sightline::hub::{
    Append, Bounds, Compression, Deliver, Duplicates, Hub, Limits, LogProgress, Now, Options, Trust,
};
use sightline::limits::{COMMIT_INTERVAL_NS, COMMIT_INTERVAL_SPARSE_NS};

use crate::core::{Core, Report};
use crate::dice::Dice;
use crate::log::EventLog;
use crate::network::Links;
use crate::post::Post;
use crate::scenario::states;

const SECRET: &[u8] = b"a secret of the simulation, and long enough";
/// Milliseconds since the Unix epoch at which every run begins.
const WALL_MS: i64 = 1_800_000_000_000;

/// How all gateways of a run are configured.
#[derive(Clone, Copy)]
pub struct Setting {
    pub deliver: Deliver,
    pub segment_bytes: u64,
    pub ingest_bytes_in_flight_max: u64,
    pub ring_bytes_max: usize,
    pub streams_idle_max: usize,
    pub mail_delay_ms_max: u64,
}

/// See the module.
pub struct Gateway {
    pub cores: Vec<Core>,
    pub links: Links,
    pub reports: Vec<Report>,
    /// What the opening of the log found.
    pub opened: OpenReport,
    /// Ids of events that it knows from before its start.
    pub ids_known: usize,
    pub partition: Partition,
    log: RealLog,
    post: Post,
    started_ms: u64,
    turns: u64,
}

impl Gateway {
    /// Starts one on what the storage holds. Errors: of the log.
    pub fn start(
        storage: &SimStorage,
        setting: &Setting,
        now_ms: u64,
        dice: &mut Dice,
    ) -> Result<Self, OpenError> {
        let (cores, seed) = (dice.pick(&[2, 2, 2, 1, 3]), dice.bits());
        let partition = Partition::new(cores, seed);
        let options = OpenOptions {
            writer: WriterOptions {
                durability: Durability::Fsync,
                segment_bytes: setting.segment_bytes,
                cores,
                sparse_interval_ns: dice.pick(&[COMMIT_INTERVAL_NS, COMMIT_INTERVAL_SPARSE_NS]),
            },
            fresh: LogIdentity {
                epoch: Epoch(seed as u32),
                secret: [seed, 1],
            },
            epoch: EpochRule::Keep,
        };
        let mut log = open(storage, options)?;
        let options = Options {
            core: 0,
            partition: partition.clone(),
            codec: log.codec.clone(),
            start: log.report.start,
            deliver: setting.deliver,
            seed,
            limits: limits(setting),
            tiers: HashMap::from([("individual".into(), 64)]),
            compression: Compression {
                level: 1,
                threshold_bytes: 1_024,
            },
            heartbeat_interval_ms: 60,
            heartbeat_grace_ms: 10_000,
            conversation_silence_ms: 60_000,
            states: states(seed),
        };
        let now = now_since(now_ms, now_ms, 0);
        let ids_max = options.limits.dedup_ids_max;
        let ids = ids_of_late(&mut log.catalog, &partition, ids_max, now)?;
        let (opened, ids_known) = (log.report, ids.iter().map(Duplicates::len).sum());
        let log = RealLog::new(log, cores, setting.segment_bytes);
        let core = |(index, ids): (usize, Duplicates)| {
            let options = Options {
                core: index,
                ..options.clone()
            };
            let stats = Arc::new(CoreStats::default());
            let bounds = Bounds {
                ring_bytes_max: setting.ring_bytes_max,
                streams_idle_max: setting.streams_idle_max,
                ..Bounds::default()
            };
            let hub = Hub::new(options, trust(), Arc::clone(&stats));
            let mut hub = hub.with_bounds(bounds);
            hub.restore_ids(ids);
            hub.handle_log_progress(now, log.halves.ports()[index].progress());
            Core::new(index, hub, stats, 64)
        };
        Ok(Self {
            cores: ids.into_iter().enumerate().map(core).collect(),
            links: Links::default(),
            reports: Vec::new(),
            opened,
            ids_known,
            partition,
            log,
            post: Post::new(cores, 4, setting.mail_delay_ms_max),
            started_ms: now_ms,
            turns: 0,
        })
    }

    /// One turn of a core, if anything would wake it. Errors: it slept although it had work.
    pub fn turn(&mut self, index: usize, now_ms: u64, dice: &mut Dice) -> Result<(), String> {
        let now = self.now(now_ms);
        let core = &self.cores[index];
        if !core.is_awake(now, &mut self.links, &self.post, &self.log) {
            return Ok(());
        }
        let others = self.cores.iter().filter(|core| core.index != index);
        let foreign = others.map(|core| core.hub.peers().outbox_bytes()).sum();
        let core = &mut self.cores[index];
        let (links, post, log) = (&mut self.links, &mut self.post, &mut self.log);
        core.turn(now, links, post, log, foreign, dice);
        if !core.is_awake(now, links, post, log) {
            core.check_sleep(now, foreign)?;
        }
        self.reports.append(&mut core.reports);
        Ok(())
    }

    /// One round of the log's writer.
    pub fn write(&mut self, now_ms: u64) {
        let now = self.now(now_ms);
        self.log.halves.step_writer(now);
    }

    /// One round of the log's reader.
    pub fn read(&mut self, now_ms: u64) {
        let now = self.now(now_ms);
        self.log.halves.step_reader(now);
    }

    /// What a token says that such a client brings.
    pub fn claims(
        &self,
        sub: &str,
        projects: &[String],
        permission: Permission,
        now_ms: u64,
    ) -> Rc<Claims> {
        let now = now_since(self.started_ms, now_ms, 0);
        let options = MintOptions {
            projects: projects.iter().map(Into::into).collect(),
            permissions: [permission].into_iter().collect(),
            ttl_s: 86_400,
            ..MintOptions::new(sub)
        };
        let key = SigningKey::from_secret(SECRET).expect("a good secret");
        let token = mint(&key, &options, now.wall_s()).expect("such a token can be minted");
        let claims = self.cores[0].hub.trust().read(now, &token);
        Rc::new(claims.expect("a token of this very moment"))
    }

    /// How often something happened on all cores.
    pub fn sum(&self, count: impl Fn(&CoreStats) -> u64) -> u64 {
        self.cores.iter().map(|core| count(&core.stats)).sum()
    }

    fn now(&mut self, now_ms: u64) -> Now {
        self.turns += 1;
        now_since(self.started_ms, now_ms, self.turns % 1_000_000)
    }
}

fn now_since(started_ms: u64, now_ms: u64, ns: u64) -> Now {
    Now {
        monotonic_ns: (now_ms - started_ms) * 1_000_000 + ns,
        wall_ms: WALL_MS + now_ms as i64,
    }
}

fn trust() -> Trust {
    let verifier = Verifier {
        keys: KeySet::from_secret(SECRET).expect("a good secret"),
        issuer: None,
        audience: None,
    };
    Trust {
        verifier: Arc::new(verifier),
        revocations: Revocations::default(),
    }
}

// Nobody here is to be closed or dropped for what it does.
fn limits(setting: &Setting) -> Limits {
    Limits {
        messages_per_minute: 1 << 20,
        messages_per_second: 1 << 20,
        message_bytes_max: 16_384,
        subscriptions_max: 20,
        outbox_bytes_max: 1 << 24,
        outbox_bytes_total: 1 << 30,
        publish_bytes_per_second: 1 << 30,
        ingest_bytes_in_flight_max: setting.ingest_bytes_in_flight_max,
        dedup_ids_max: 100_000,
    }
}

/// The log's halves, and the cores' ends of what is between.
struct RealLog {
    halves: LogHalves<SimStorage>,
    inboxes: Vec<Inbox<Letter>>,
    bells: Vec<Bell>,
    // Taken from each inbox and not yet from here.
    answers: Vec<VecDeque<ReadAnswer>>,
}

impl RealLog {
    fn new(log: Log<SimStorage>, cores: usize, segment_bytes: u64) -> Self {
        let bells: Vec<Bell> = (0..cores).map(|_| Bell::default()).collect();
        let wakers = bells.iter().cloned();
        let wakers = wakers.map(|bell| Box::new(bell) as Box<dyn Wake>).collect();
        let mesh = mesh(wakers, 4);
        let halves = LogHalves::new(LogParts {
            log,
            // The checker knows of nothing that may be gone.
            retention: RetentionOptions {
                age_max_ms: i64::MAX,
                bytes_max: u64::MAX,
            },
            segment_bytes,
            cores,
            mailboxes: Arc::new(mesh.control),
            stats: Arc::default(),
        });
        Self {
            halves,
            inboxes: mesh.cores.into_iter().map(|(_, inbox)| inbox).collect(),
            answers: bells.iter().map(|_| VecDeque::new()).collect(),
            bells,
        }
    }
}

impl EventLog for RealLog {
    fn has_news(&self, core: usize, _: u64) -> bool {
        self.bells[core].0.load(Ordering::Relaxed)
    }

    fn progress(&mut self, core: usize, _: u64) -> LogProgress {
        self.halves.ports()[core].progress()
    }

    fn handle_append(&mut self, core: usize, _: u64, append: Append, _: &mut Dice) {
        self.halves.ports()[core].append(append);
    }

    fn handle_request(&mut self, core: usize, _: u64, request: ReadRequest, _: &mut Dice) {
        self.halves.ports()[core].read(request);
    }

    fn poll_answer(&mut self, core: usize, _: u64, _: &mut Dice) -> Option<ReadAnswer> {
        let answers = &mut self.answers[core];
        if answers.is_empty() {
            self.bells[core].0.store(false, Ordering::Relaxed);
            let has_more = self.inboxes[core].drain(8, |_, letter| match letter {
                Letter::Read(answer) => answers.push_back(*answer),
                letter => panic!("the log's reader sent {letter:?}"),
            });
            self.bells[core].0.fetch_or(has_more, Ordering::Relaxed);
        }
        answers.pop_front()
    }
}

/// Whether a core was woken.
#[derive(Clone, Default)]
struct Bell(Arc<AtomicBool>);

impl Wake for Bell {
    fn wake(&self) -> io::Result<()> {
        self.0.store(true, Ordering::Relaxed);
        Ok(())
    }
}
