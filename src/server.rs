//! The process: binds, builds one hub and one engine per core, pins their threads, listens to
//! signals, and drains. What a configuration says becomes each module's own options here.

mod log;
mod ops_pages;
mod options;
mod tls;

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use mio::{Poll, Waker};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use thiserror::Error;
use tracing::{error, info, warn};

use crate::auth::KeyError;
use crate::config::Config;
use crate::counters::CoreStats;
use crate::engine::admission::Admission;
use crate::engine::listener::{Acceptor, BindError, ListenAddress, bind};
use crate::engine::log::{LogCloser, LogParts, LogThreads};
use crate::engine::mailbox::{Control, Wake, mesh};
use crate::engine::{Clock, Core, Door, Letter, Parts, WAKER, run_to_end};
use crate::event::Partition;
use crate::hub::{Hub, Trust};
use crate::limits::{MAILBOX_LETTERS_MAX, SEGMENT_BYTES};

pub use log::LogError;
use log::{OpenLog, open_log};
use ops_pages::OpsPages;
use tls::Pair;
pub use tls::TlsError;

/// A server that listens.
pub struct Server {
    addresses: Vec<Listening>,
    cores: Vec<JoinHandle<()>>,
    log: LogThreads,
    signals: Signals,
    stopper: Arc<Stopper>,
    reloader: Reloader,
}

/// One address on which a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listening {
    /// Where, with the port that the system chose.
    pub address: ListenAddress,
    /// For whom.
    pub door: Door,
    /// TLS is spoken there.
    pub is_tls: bool,
}

/// Why a server could not start. The operator's to solve.
#[derive(Debug, Error)]
pub enum StartError {
    /// An address is taken, or cannot be listened on.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The event log cannot be opened.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The configured key cannot be read as one.
    #[error("auth: {0}")]
    Key(#[from] KeyError),
    /// The configured certificate and key are not a pair that can be shown.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The system refused something else: descriptors, threads, randomness.
    #[error("cannot start: {0}")]
    System(#[from] io::Error),
}

impl StartError {
    /// Whether the configuration is at fault, and not the state of the system.
    pub fn is_configuration(&self) -> bool {
        matches!(self, Self::Key(_) | Self::Tls(_))
    }
}

/// Whether a server would start with this configuration, as far as that can be told without binding
/// anything. Errors: `Key`, `Tls`.
pub fn check(config: &Config) -> Result<(), StartError> {
    options::verifier(&config.auth)?;
    config.tls.as_ref().map(Pair::load).transpose()?;
    Ok(())
}

impl Server {
    /// Binds and starts every core.
    pub fn start(config: &Config) -> Result<Self, StartError> {
        let verifier = Arc::new(options::verifier(&config.auth)?);
        let pair = config.tls.as_ref().map(Pair::load).transpose()?;
        // Before anybody can know that it serves: a signal from here on finds a listener.
        let signals = Signals::new([SIGHUP, SIGINT, SIGTERM])?;
        let clock = Clock::start();
        let admission = Admission::new(options::admission(&config.limits));
        raise_descriptor_limit(&config.limits);
        let secrets = options::Secrets::draw()?;
        let partition = Partition::new(config.cores, secrets.seed);
        let opened = open_log(config, secrets.identity, &partition, clock.now())?;
        let doors = open_doors(config, pair.as_ref())?;
        opened.report(config);
        let OpenLog {
            log,
            revocations,
            ids,
        } = opened;
        let addresses = addresses(&doors);
        let stats: Vec<Arc<CoreStats>> = (0..config.cores).map(|_| Arc::default()).collect();
        let (pages, orders) = OpsPages::new(stats.clone(), clock);
        let engine = options::engine(config, clock, Arc::clone(&pages) as _);
        let mut polls = Vec::new();
        let mut wakers: Vec<Box<dyn Wake>> = Vec::new();
        for _ in 0..config.cores {
            let poll = Poll::new()?;
            wakers.push(Box::new(Waker::new(poll.registry(), WAKER)?));
            polls.push(poll);
        }
        let mesh = mesh(wakers, MAILBOX_LETTERS_MAX);
        let control = Arc::new(mesh.control);
        let hubs: Vec<_> = (0..config.cores)
            .map(|core| options::hub(config, core, &partition, secrets.seed, &log))
            .collect();
        let parts = LogParts {
            log,
            retention: log::retention(config),
            segment_bytes: SEGMENT_BYTES,
            cores: config.cores,
            mailboxes: Arc::clone(&control),
            stats: Arc::clone(&stats[0]),
        };
        let log = LogThreads::spawn(parts, clock)?;
        let mut cores = Vec::new();
        let parts = mesh.cores.into_iter().zip(polls).zip(doors);
        let parts = parts.zip(hubs.into_iter().zip(ids)).enumerate();
        for (index, ((((postbox, inbox), poll), doors), (hub, ids))) in parts {
            let trust = Trust {
                verifier: Arc::clone(&verifier),
                revocations: revocations.clone(),
            };
            let (engine, log) = (engine.clone(), log.ports()[index].clone());
            let (stats, admission) = (stats.clone(), Arc::clone(&admission));
            let build = move || {
                // A hub is built inside its thread: what it shares within never leaves it.
                let mut hub = Hub::new(hub, trust, Arc::clone(&stats[index]));
                hub.restore_ids(ids);
                Core::new(
                    Parts {
                        index,
                        poll,
                        hub,
                        doors,
                        stats,
                        admission,
                        inbox,
                        postbox,
                        log,
                    },
                    engine,
                )
            };
            cores.push(spawn_core(index, build)?);
        }
        pages.watch(orders, Arc::clone(&control))?;
        let reloader = Reloader {
            pair,
            stats: Arc::clone(&stats[0]),
        };
        let stopper = Arc::new(Stopper {
            control,
            admission,
            clock,
            drain_ms: config.shutdown.drain_ms,
        });
        Ok(Self {
            addresses,
            cores,
            log,
            signals,
            stopper,
            reloader,
        })
    }

    /// Where it listens.
    pub fn addresses(&self) -> &[Listening] {
        &self.addresses
    }

    /// Serves until a signal asks to stop, then drains and closes the event log. A second signal ends
    /// the process as soon as the log is closed. Errors: the system's; the log could not be closed.
    pub fn run(self) -> io::Result<()> {
        let (stopper, mut signals, reloader) = (self.stopper, self.signals, self.reloader);
        let closer = self.log.closer();
        thread::Builder::new()
            .name("signals".into())
            .spawn(move || {
                let mut is_stopping = false;
                for signal in signals.forever() {
                    match signal {
                        SIGHUP => reloader.reload(),
                        _ if is_stopping => {
                            end_at_once(&closer);
                        }
                        _ => {
                            is_stopping = true;
                            stopper.stop();
                        }
                    }
                }
            })?;
        for core in self.cores {
            // A core that panicked has ended the process already.
            let _ = core.join();
        }
        let closed = self.log.close();
        if let Err(error) = &closed {
            error!(%error, "the event log could not be closed: the next start repairs it");
        }
        info!("stopped");
        closed
    }
}

fn end_at_once(log: &LogCloser) {
    warn!("a second signal: ending at once");
    log.close_within(LOG_CLOSE_TIME_MAX);
    std::process::exit(1);
}

/// How long the end waits for the event log after a second signal.
const LOG_CLOSE_TIME_MAX: Duration = Duration::from_secs(2);

/// Reads again what may change while the server runs.
struct Reloader {
    pair: Option<Pair>,
    // The first core's, of which nobody else writes the reloads.
    stats: Arc<CoreStats>,
}

impl Reloader {
    fn reload(&self) {
        let Some(pair) = &self.pair else {
            return info!("SIGHUP: there is no certificate to load again");
        };
        let outcome = pair.reload();
        let reloads = &self.stats.counters.certificate_reloads;
        reloads.at(usize::from(outcome.is_ok())).add(1);
        match outcome {
            Ok(()) => info!("SIGHUP: the certificate was loaded again"),
            Err(error) => error!(%error, "SIGHUP: the certificate in force stays"),
        }
    }
}

/// Tells all cores to drain.
struct Stopper {
    control: Arc<Control<Letter>>,
    admission: Arc<Admission>,
    clock: Clock,
    drain_ms: u64,
}

impl Stopper {
    fn stop(&self) {
        info!("draining");
        self.admission.set_draining();
        let deadline_ms = self.clock.now().ms() + self.drain_ms;
        for core in 0..self.control.cores() {
            let mut letter = Letter::Drain(deadline_ms);
            while let Err(back) = self.control.try_send(core, letter) {
                letter = back;
                thread::sleep(Duration::from_millis(1));
            }
        }
    }
}

// Each address once, though every core listens on it.
fn addresses(doors: &[Vec<(Acceptor, Door)>]) -> Vec<Listening> {
    let mut addresses: Vec<Listening> = Vec::new();
    for (ear, door) in doors.iter().flatten() {
        let address = Listening {
            address: ear.address(),
            door: *door,
            is_tls: ear.is_tls(),
        };
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    addresses
}

// Every listener of every core, with its door; the same places on each core that has one.
fn open_doors(
    config: &Config,
    pair: Option<&Pair>,
) -> Result<Vec<Vec<(Acceptor, Door)>>, BindError> {
    let main = bind(&config.listen, config.cores)?;
    let ops = bind(config.ops.listen.as_slice(), config.cores)?;
    let door = |ear: &Acceptor| {
        if ear.is_local() {
            Door::Local
        } else {
            Door::Public
        }
    };
    let pairs = main.into_iter().zip(ops);
    Ok(pairs
        .map(|(main, ops)| {
            let main = main.into_iter().map(|ear| {
                let door = door(&ear);
                (ear.with_tls(pair.map(Pair::config)), door)
            });
            main.chain(ops.into_iter().map(|ear| (ear, Door::Ops)))
                .collect()
        })
        .collect())
}

fn spawn_core(
    index: usize,
    build: impl FnOnce() -> io::Result<Core> + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    let (report, outcome) = std::sync::mpsc::channel();
    let thread = thread::Builder::new()
        .name(format!("core-{index}"))
        .spawn(move || {
            pin(index);
            match build() {
                Ok(core) => {
                    let _ = report.send(Ok(()));
                    run_to_end(core);
                }
                Err(error) => {
                    let _ = report.send(Err(error));
                }
            }
        })?;
    match outcome.recv() {
        Ok(outcome) => outcome.map(|()| thread),
        Err(_) => Err(io::Error::other("a core's thread ended before it began")),
    }
}

// Where a CPU cannot be had for itself the scheduler decides; that costs time, not correctness.
fn pin(index: usize) {
    let cpus = core_affinity::get_core_ids().unwrap_or_default();
    let is_pinned = cpus
        .get(index)
        .is_some_and(|cpu| core_affinity::set_for_current(*cpu));
    if !is_pinned {
        warn!(core = index, "not pinned to a CPU");
    }
}

// As many descriptors as the limits promise, as far as the system allows.
fn raise_descriptor_limit(limits: &crate::config::Limits) {
    let wanted = (options::admission(limits).sockets_max() + DESCRIPTORS_BESIDE_SOCKETS) as u64;
    match rlimit::increase_nofile_limit(wanted) {
        Ok(have) if have < wanted => {
            warn!(
                have,
                wanted,
                "fewer descriptors than limits.connections_max asks for: raise the system's limit (ulimit -n)"
            );
        }
        Ok(_) => {}
        Err(error) => warn!(%error, "cannot raise the limit of descriptors"),
    }
}

/// Listeners, polls, wakers, logs.
const DESCRIPTORS_BESIDE_SOCKETS: usize = 128;
