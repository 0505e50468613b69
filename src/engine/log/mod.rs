//! The event log's two threads, and what a core sees of them.
//!
//! The writer's thread takes batches of records from all cores and brings them to disk; how far it
//! is stands in marks, and a core for which something changed is woken. The reader's thread
//! answers cores that want to know or have something of what is kept, and does the chores between.
//! A core never waits for either.
//!
//! Whatever the writer says that readers must know goes to the reader before the marks move: who saw
//! a mark and then asks is answered by one that knows.

mod bell;
mod decisions;
mod halves;
mod ids;
mod marks;
mod reader;
mod upkeep;
mod writer;

#[cfg(test)]
mod tests;

use std::io;
use std::sync::mpsc::Sender;
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use compact_str::CompactString;
use tracing::{error, warn};

use crate::event::{RecordBatch, Seq};
use crate::history::storage::DiskFile;
use crate::history::writer::{Change, Levels};
use crate::hub::keyed::Key;
use crate::hub::reads::ReadRequest;
use crate::hub::{Append, LogProgress, LogStatus};
use crate::limits::{COMMIT_BYTES_TARGET, COMMIT_RECORDS_TARGET};

use super::clock::Clock;
use super::event_loop::Letter;
use super::mailbox::Control;

use bell::Bell;
pub use decisions::revocations_in_force;
pub use halves::{LogHalves, LogParts};
pub use ids::ids_of_late;
use marks::Marks;
use upkeep::Erasure;

/// What the writer's thread is told.
#[derive(Debug)]
enum ToWriter<F> {
    /// Records of a core.
    Append { core: usize, append: Append },
    /// Decisions about tokens that are to be kept longer, if no other came after the first `known`.
    Carry { batch: RecordBatch, known: u64 },
    /// Nothing more comes: mark the log as closed.
    Close,
    /// Which segments will be unlinked.
    Floor { first: u64, floor: Seq },
    /// Begin a segment, with all that came before this in older ones.
    Roll,
    /// Room for a segment.
    Spare(String, F),
}

/// What the reader's thread is told.
#[derive(Debug)]
enum ToReader {
    /// Whether what was to be carried is on its way.
    Carried(bool),
    /// By the writer.
    Change(Change),
    /// Take a user's events out.
    Erase(Erasure),
    /// So many of a core's records are kept, and were told of.
    Kept { core: usize, through: u64 },
    /// What is on disk.
    Levels(Levels),
    /// A core asks.
    Read { core: usize, request: ReadRequest },
    /// A segment was begun; all that came before it was asked for is in older ones.
    Rolled,
}

/// What the writer's thread is told by.
#[derive(Debug)]
struct WriterPort<F> {
    sender: Sender<ToWriter<F>>,
    bell: Bell,
}

// A thread that is gone is one that was told to close: nothing more is acknowledged or done.
impl<F> WriterPort<F> {
    /// Hands over a core's records, which are written in company.
    pub fn append(&self, core: usize, append: Append) {
        let weight = weight(&append.batch);
        let _ = self.sender.send(ToWriter::Append { core, append });
        self.bell.count(weight);
    }

    /// Says what is to be heard at once.
    pub fn tell(&self, mail: ToWriter<F>) {
        let _ = self.sender.send(mail);
        self.bell.ring();
    }
}

impl<F> Clone for WriterPort<F> {
    fn clone(&self) -> Self {
        Self {
            sender: self.sender.clone(),
            bell: self.bell.clone(),
        }
    }
}

/// Records, and more where they are large: `COMMIT_RECORDS_TARGET` are worth a commit.
fn weight(batch: &RecordBatch) -> u64 {
    let bytes_each = COMMIT_BYTES_TARGET / COMMIT_RECORDS_TARGET;
    (batch.entries.len() + batch.bytes.len() / bytes_each) as u64
}

/// A core's end of both threads.
#[derive(Debug)]
pub struct LogPort<F = DiskFile> {
    core: usize,
    marks: Arc<Marks>,
    reader: Sender<ToReader>,
    writer: WriterPort<F>,
}

impl<F> LogPort<F> {
    /// How far the log is with this core's records.
    pub fn progress(&self) -> LogProgress {
        self.marks.progress(self.core)
    }

    /// Whether the disk lets the chores be done, of which an erasure is one.
    pub fn chores_status(&self) -> LogStatus {
        self.marks.chores_status()
    }

    /// Hands over records.
    pub fn append(&self, append: Append) {
        self.writer.append(self.core, append);
    }

    /// Asks; `Letter::Read` brings the answer.
    pub fn read(&self, request: ReadRequest) {
        let core = self.core;
        let _ = self.reader.send(ToReader::Read { core, request });
    }

    /// Takes all events of `user` out; `Letter::Erased` says that it is done.
    pub fn erase(&self, connection: Key, user: CompactString) {
        let core = self.core;
        let _ = self.reader.send(ToReader::Erase(Erasure {
            core,
            connection,
            user,
        }));
    }
}

impl<F> Clone for LogPort<F> {
    fn clone(&self) -> Self {
        Self {
            core: self.core,
            marks: Arc::clone(&self.marks),
            reader: self.reader.clone(),
            writer: self.writer.clone(),
        }
    }
}

/// Both threads.
#[derive(Debug)]
pub struct LogThreads {
    ports: Vec<LogPort>,
    closer: LogCloser,
    reader: JoinHandle<()>,
    _lock: std::fs::File,
}

/// Closes the log.
#[derive(Clone, Debug)]
pub struct LogCloser {
    writer: WriterPort<DiskFile>,
    outcome: Arc<OnceLock<io::Result<()>>>,
}

impl LogThreads {
    /// Starts them. Errors: the system's.
    pub fn spawn(parts: LogParts, clock: Clock) -> io::Result<Self> {
        let LogHalves {
            ports,
            writer,
            reader,
            to_writer,
            lock,
        } = LogHalves::new(parts);
        let outcome = Arc::new(OnceLock::new());
        let told = Arc::clone(&outcome);
        spawn("log-writer", move || {
            // Set once, by the only writer.
            let _ = told.set(writer.run(clock));
        })?;
        let reader = spawn("log-reader", move || {
            give_way();
            reader.run(clock);
        })?;
        Ok(Self {
            ports,
            closer: LogCloser {
                writer: to_writer,
                outcome,
            },
            reader,
            _lock: lock,
        })
    }

    /// The ends for the cores, in their order.
    pub fn ports(&self) -> &[LogPort] {
        &self.ports
    }

    /// Closes the log from elsewhere.
    pub fn closer(&self) -> LogCloser {
        self.closer.clone()
    }

    /// Brings everything to disk and marks the log as closed, once the cores have ended.
    /// Errors: the disk's; then the next start finds an unclean stop, and nothing worse.
    pub fn close(self) -> io::Result<()> {
        let Self {
            ports,
            closer,
            reader,
            _lock,
        } = self;
        drop(ports);
        closer.begin();
        let outcome = match closer.outcome.wait() {
            Ok(()) => Ok(()),
            Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
        };
        drop(closer);
        // It ends when nobody can ask any more.
        let _ = reader.join();
        outcome
    }
}

impl LogCloser {
    /// Closes it although cores may still run; what they hand over later is not kept, and not
    /// acknowledged. Returns when that is done, or when the time is up.
    pub fn close_within(&self, time: Duration) {
        self.begin();
        let pause = Duration::from_millis(5);
        let mut left = time;
        while self.outcome.get().is_none() && !left.is_zero() {
            thread::sleep(pause);
            left = left.saturating_sub(pause);
        }
    }

    fn begin(&self) {
        self.writer.tell(ToWriter::Close);
    }
}

/// The calling thread has what the cores and the writer leave of a CPU: its chores can wait.
fn give_way() {
    if let Err(error) = rustix::process::setpriority_process(None, NICENESS) {
        warn!(%error, "the event log's chores run with the priority of all else");
    }
}

const NICENESS: i32 = 10;

// A panic in there ends the process: without these threads nothing is acknowledged any more.
fn spawn(name: &'static str, run: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name(name.into()).spawn(move || {
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).is_err() {
            error!(
                thread = name,
                "the event log's state is broken: the process ends"
            );
            std::process::abort();
        }
    })
}
