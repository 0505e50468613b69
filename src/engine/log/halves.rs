//! Both halves of the event log with what is between them, and no thread: `LogThreads` gives each
//! half its own, a simulation makes their steps itself, in any order.

use std::sync::Arc;
use std::sync::mpsc::channel;

use crate::counters::CoreStats;
use crate::history::log::Log;
use crate::history::retention::RetentionOptions;
use crate::history::storage::{DiskStorage, Storage};
use crate::hub::Now;

use super::bell::bell;
use super::marks::Marks;
use super::reader::Reader;
use super::upkeep::Upkeep;
use super::writer::LogWriter;
use super::{Control, Letter, LogPort, WriterPort};

/// What both halves are built with.
pub struct LogParts<S: Storage = DiskStorage> {
    /// The log, open.
    pub log: Log<S>,
    /// How much of it is kept.
    pub retention: RetentionOptions,
    /// Bytes of a segment.
    pub segment_bytes: u64,
    /// The cores that use it.
    pub cores: usize,
    /// Their mailboxes.
    pub mailboxes: Arc<Control<Letter>>,
    /// Where both halves count.
    pub stats: Arc<CoreStats>,
}

/// See the module.
pub struct LogHalves<S: Storage = DiskStorage> {
    pub(super) ports: Vec<LogPort<S::File>>,
    pub(super) writer: LogWriter<S>,
    pub(super) reader: Reader<S>,
    pub(super) to_writer: WriterPort<S::File>,
    pub(super) lock: S::Lock,
}

impl<S: Storage> LogHalves<S> {
    /// Two halves that know of each other and of the cores.
    pub fn new(parts: LogParts<S>) -> Self {
        let LogParts {
            log,
            retention,
            segment_bytes,
            cores,
            mailboxes,
            stats,
        } = parts;
        let (sender, writer_inbox) = channel();
        let (bell, sleeper) = bell();
        let to_writer = WriterPort { sender, bell };
        let (to_reader, reader_inbox) = channel();
        let levels = log.writer.levels_kept();
        let marks = Arc::new(Marks::new(cores, levels.reserve));
        let upkeep = Upkeep::new(
            retention,
            segment_bytes,
            log.codec,
            levels,
            to_writer.clone(),
            Arc::clone(&marks),
        );
        let reader = Reader::new(
            log.catalog,
            upkeep,
            reader_inbox,
            cores,
            Arc::clone(&mailboxes),
            Arc::clone(&stats),
        );
        let port = |core| LogPort {
            core,
            marks: Arc::clone(&marks),
            reader: to_reader.clone(),
            writer: to_writer.clone(),
        };
        let ports = (0..cores).map(port).collect();
        let writer = LogWriter::new(
            log.writer,
            (writer_inbox, sleeper),
            to_reader,
            Arc::clone(&marks),
            mailboxes,
            stats,
        );
        Self {
            ports,
            writer,
            reader,
            to_writer,
            lock: log.lock,
        }
    }

    /// The ends for the cores, in their order.
    pub fn ports(&self) -> &[LogPort<S::File>] {
        &self.ports
    }

    /// One round of the writer's half: it takes what has come, makes a step, and tells.
    pub fn step_writer(&mut self, now: Now) {
        if self.writer.take_mail() {
            self.writer.step(now.monotonic_ns);
        }
    }

    /// One round of the reader's half: it takes one letter, or does a chore.
    pub fn step_reader(&mut self, now: Now) {
        self.reader.step(now);
    }
}
