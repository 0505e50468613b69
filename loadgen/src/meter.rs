//! What the watched server spends from one moment to another.

use std::io;

use crate::proc::Process;

/// A measurement that has begun.
#[derive(Debug)]
pub(crate) struct Meter {
    server: Option<Process>,
    cpu_ns: Option<u64>,
    log_writer_cpu_ns: Option<u64>,
}

/// What was spent; `None` where nothing is watched.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Spent {
    /// CPU time; unknown too where threads have ended and taken theirs with them.
    pub(crate) cpu_ns: Option<u64>,
    /// The part of it that its log's writer took; unknown where it has none.
    pub(crate) log_writer_cpu_ns: Option<u64>,
    /// Resident memory at the end.
    pub(crate) rss_bytes: Option<u64>,
}

impl Meter {
    /// Begins to measure `server`.
    /// Errors: its files in `/proc` cannot be read.
    pub(crate) fn begin(server: Option<Process>) -> io::Result<Self> {
        Ok(Self {
            server,
            cpu_ns: server.map(|server| server.cpu_ns()).transpose()?,
            log_writer_cpu_ns: log_writer_cpu_ns(server)?,
        })
    }

    /// Ends the measurement. Errors: as of [`Meter::begin`].
    pub(crate) fn end(self) -> io::Result<Spent> {
        let now = Self::begin(self.server)?;
        Ok(Spent {
            cpu_ns: spent(self.cpu_ns, now.cpu_ns),
            log_writer_cpu_ns: spent(self.log_writer_cpu_ns, now.log_writer_cpu_ns),
            rss_bytes: self.server.map(|server| server.rss_bytes()).transpose()?,
        })
    }
}

/// The thread of the server that writes its event log.
const LOG_WRITER: &str = "log-writer";

fn log_writer_cpu_ns(server: Option<Process>) -> io::Result<Option<u64>> {
    let cpu_ns = server.map(|server| server.thread_cpu_ns(LOG_WRITER));
    Ok(cpu_ns.transpose()?.flatten())
}

fn spent(before_ns: Option<u64>, after_ns: Option<u64>) -> Option<u64> {
    after_ns?.checked_sub(before_ns?)
}
