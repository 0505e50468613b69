//! What the kernel says about a process: CPU time and memory, from `/proc`.
//!
//! Owns the reading and parsing of those files; nothing is kept between two readings.
//! Source: proc(5); `Documentation/scheduler/sched-stats.rst`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// A process that is watched by its number.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Process {
    pid: u32,
}

impl Process {
    /// Watches `pid`.
    /// Errors: there is no such process, or its files may not be read.
    pub(crate) fn watch(pid: u32) -> io::Result<Self> {
        let process = Self { pid };
        process.cpu_ns()?;
        process.rss_bytes()?;
        Ok(process)
    }

    /// Nanoseconds that its present threads have spent on a CPU. A thread that has ended takes
    /// its time with it, so this serves servers with a fixed set of threads.
    pub(crate) fn cpu_ns(&self) -> io::Result<u64> {
        let mut total = 0;
        for task in fs::read_dir(self.file("task"))? {
            let schedstat = fs::read_to_string(task?.path().join("schedstat"));
            match schedstat.ok().as_deref().and_then(parse_schedstat) {
                Some(cpu_ns) => total += cpu_ns,
                None => return self.cpu_ns_by_ticks(),
            }
        }
        Ok(total)
    }

    /// Nanoseconds that its threads named `name` have spent on a CPU; `None` where it has none.
    pub(crate) fn thread_cpu_ns(&self, name: &str) -> io::Result<Option<u64>> {
        let mut total = None;
        for task in fs::read_dir(self.file("task"))? {
            let path = task?.path();
            // A thread that ends while it is looked at has no name any more.
            let is_named = fs::read_to_string(path.join("comm"))
                .is_ok_and(|comm| comm.trim_end_matches('\n') == name);
            if is_named {
                let cpu_ns = thread_cpu_ns(&path)?;
                total = Some(total.unwrap_or(0) + cpu_ns);
            }
        }
        Ok(total)
    }

    /// The `status` of each of its present threads.
    pub(crate) fn thread_statuses(&self) -> io::Result<Vec<String>> {
        let mut statuses = Vec::new();
        for task in fs::read_dir(self.file("task"))? {
            // A thread that ends while it is looked at has none.
            statuses.extend(fs::read_to_string(task?.path().join("status")));
        }
        Ok(statuses)
    }

    /// Bytes of its memory that are resident.
    pub(crate) fn rss_bytes(&self) -> io::Result<u64> {
        // The rollup counts pages; the counters behind `status` lag by up to 64 pages a thread.
        let rollup = fs::read_to_string(self.file("smaps_rollup"));
        if let Some(bytes) = rollup.ok().and_then(|text| parse_kib_field(&text, "Rss:")) {
            return Ok(bytes);
        }
        self.rss_bytes_roughly()
    }

    /// The same without counting page by page, which would hold up the process: up to 64 pages a
    /// thread too little.
    pub(crate) fn rss_bytes_roughly(&self) -> io::Result<u64> {
        let status = fs::read_to_string(self.file("status"))?;
        parse_kib_field(&status, "VmRSS:").ok_or_else(|| unreadable("status"))
    }

    /// For kernels without scheduler statistics: 10 ms steps.
    fn cpu_ns_by_ticks(&self) -> io::Result<u64> {
        let stat = fs::read_to_string(self.file("stat"))?;
        parse_stat(&stat).ok_or_else(|| unreadable("stat"))
    }

    fn file(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{name}", self.pid))
    }
}

/// The running kernel's release, where `/proc` tells it.
pub(crate) fn kernel_release() -> Option<String> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").ok()?;
    Some(release.trim_end().to_owned())
}

/// Ticks are 10 ms on every Linux that `stat` is read on (`USER_HZ` is part of its interface).
const NS_PER_TICK: u64 = 10_000_000;

fn thread_cpu_ns(task: &Path) -> io::Result<u64> {
    let schedstat = fs::read_to_string(task.join("schedstat"));
    if let Some(cpu_ns) = schedstat.ok().as_deref().and_then(parse_schedstat) {
        return Ok(cpu_ns);
    }
    let stat = fs::read_to_string(task.join("stat"))?;
    parse_stat(&stat).ok_or_else(|| unreadable("task/TID/stat"))
}

/// The first number of `schedstat`: nanoseconds on a CPU.
fn parse_schedstat(text: &str) -> Option<u64> {
    text.split_ascii_whitespace().next()?.parse().ok()
}

/// User and system time of `stat`, in nanoseconds. The name in parentheses may hold anything.
fn parse_stat(text: &str) -> Option<u64> {
    let mut fields = text.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some((user + system) * NS_PER_TICK)
}

/// The bytes behind a line such as `Rss:      1836 kB`.
fn parse_kib_field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.split_ascii_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}

fn unreadable(file: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("/proc/PID/{file} is not as expected"),
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn numbers_are_found_in_the_kernels_texts() {
        assert_eq!(parse_schedstat("197774 3565563 2\n"), Some(197_774));
        assert_eq!(parse_schedstat(""), None);
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 168 0 0 0 12 30 0 0 20 0 1 0 5 0 0";
        assert_eq!(parse_stat(stat), Some(420_000_000));
        assert_eq!(parse_stat("7 (a) S 1"), None);
        let rollup = "5-6 ---p 0 00:00 0 [rollup]\nRss:     1836 kB\nPss:  262 kB\n";
        assert_eq!(parse_kib_field(rollup, "Rss:"), Some(1836 * 1024));
        assert_eq!(parse_kib_field(rollup, "VmRSS:"), None);
    }

    #[test]
    fn own_process_has_memory_and_uses_time() {
        let own = Process::watch(std::process::id()).unwrap();
        let before = own.cpu_ns().unwrap();
        assert!(own.rss_bytes().unwrap() > 100_000);
        assert!(own.rss_bytes_roughly().unwrap() > 100_000);
        let mut spent = 0;
        while spent == 0 {
            spent = own.cpu_ns().unwrap() - before;
        }
        assert!(own.cpu_ns_by_ticks().is_ok());
    }

    #[test]
    fn thread_is_found_by_its_name() {
        let own = Process::watch(std::process::id()).unwrap();
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let busy = move || while stopped.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {};
        let thread = std::thread::Builder::new().name("busy-one".to_owned());
        let thread = thread.spawn(busy).unwrap();
        while own.thread_cpu_ns("busy-one").unwrap().unwrap_or(0) == 0 {
            std::thread::yield_now();
        }
        assert_eq!(own.thread_cpu_ns("busy").unwrap(), None);
        drop(stop);
        thread.join().unwrap();
    }

    #[test]
    fn process_that_does_not_exist_is_an_error() {
        assert!(Process::watch(u32::MAX).is_err());
    }
}
