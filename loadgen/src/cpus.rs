//! Which CPUs the generator's threads run on, and whether the server may run there too.
//!
//! Source: proc(5), `Cpus_allowed_list`; sched_setaffinity(2).

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::str::FromStr;

use core_affinity::CoreId;
use serde::{Deserialize, Serialize};

use crate::proc::Process;

/// CPUs, one for each thread of the generator; not empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cpus(Vec<usize>);

impl Cpus {
    /// In the order in which they were named.
    pub(crate) fn as_slice(&self) -> &[usize] {
        &self.0
    }
}

/// `1,3`
impl FromStr for Cpus {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let cpus: Result<Vec<usize>, _> = text.split(',').map(str::parse).collect();
        let cpus = cpus.map_err(|_| "expected numbers of CPUs with commas between".to_owned())?;
        let different: BTreeSet<_> = cpus.iter().collect();
        if different.len() < cpus.len() {
            return Err("each CPU has one thread".to_owned());
        }
        Ok(Self(cpus))
    }
}

/// There is no such CPU, or it may not be used.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("--cpus {0}: there is no such CPU, or it may not be used")]
pub(crate) struct NoCpu(pub(crate) usize);

/// Keeps this thread on `cpu`, wherever it was kept before.
pub(crate) fn pin(cpu: usize) -> Result<(), NoCpu> {
    // The library itself would panic at a number that the kernel's set has no room for.
    if cpu < CPU_SET_MAX && core_affinity::set_for_current(CoreId { id: cpu }) {
        Ok(())
    } else {
        Err(NoCpu(cpu))
    }
}

/// CPUs of one `cpu_set_t`.
const CPU_SET_MAX: usize = 1024;

/// Who runs where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Placement {
    /// Where the generator's threads may run.
    generator: BTreeSet<usize>,
    /// Where any thread of the watched server may run.
    server: BTreeSet<usize>,
    /// Where both may: there they take each other's time.
    co_located: BTreeSet<usize>,
}

impl Placement {
    /// Where `server` may run, and this process, where it was not told (`cpus`).
    /// Errors: `/proc` does not tell it.
    pub(crate) fn of(server: Process, cpus: Option<&Cpus>) -> io::Result<Self> {
        let generator = match cpus {
            Some(cpus) => cpus.as_slice().iter().copied().collect(),
            None => allowed(&fs::read_to_string("/proc/self/status")?),
        };
        let mut everywhere = BTreeSet::new();
        for status in server.thread_statuses()? {
            everywhere.extend(allowed(&status));
        }
        Ok(Self::new(generator, everywhere))
    }

    fn new(generator: BTreeSet<usize>, server: BTreeSet<usize>) -> Self {
        Self {
            co_located: generator.intersection(&server).copied().collect(),
            generator,
            server,
        }
    }

    /// The line for people.
    pub(crate) fn line(&self) -> String {
        let (generator, server) = (text(&self.generator), text(&self.server));
        let shared = if self.co_located.is_empty() {
            String::new()
        } else {
            format!(": co-located on {}", text(&self.co_located))
        };
        format!("generator on CPU {generator}, server on CPU {server}{shared}")
    }
}

fn text(cpus: &BTreeSet<usize>) -> String {
    let cpus: Vec<_> = cpus.iter().map(ToString::to_string).collect();
    cpus.join(",")
}

/// The CPUs of the line `Cpus_allowed_list:\t0-1,3` of a thread's `status`.
fn allowed(status: &str) -> BTreeSet<usize> {
    let mut lines = status.lines();
    let list = lines.find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    let ranges = list.unwrap_or_default().trim().split(',');
    ranges.filter_map(range).flatten().collect()
}

fn range(text: &str) -> Option<std::ops::RangeInclusive<usize>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    (last < CPUS_MAX).then_some(first..=last)
}

/// More than Linux can have.
const CPUS_MAX: usize = 65_536;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn cpus_are_a_list() {
        assert_eq!("3".parse(), Ok(Cpus(vec![3])));
        assert_eq!("1,3".parse(), Ok(Cpus(vec![1, 3])));
        for text in ["", "1,", "x", "1,1", "-1"] {
            assert!(text.parse::<Cpus>().is_err(), "{text}");
        }
    }

    #[test]
    fn allowed_cpus_are_read_from_the_kernels_list() {
        let check = |list: &str, expected: &[usize]| {
            let status =
                format!("Name:\tx\nCpus_allowed:\tff\nCpus_allowed_list:\t{list}\nMems:\t1");
            let cpus: Vec<_> = allowed(&status).into_iter().collect();
            assert_eq!(cpus, expected, "{list}");
        };
        check("0", &[0]);
        check("0-2,5", &[0, 1, 2, 5]);
        check("", &[]);
        check("0-99999999,x", &[]);
        assert_eq!(allowed("Name:\tx"), BTreeSet::new());
    }

    #[test]
    fn shared_cpus_are_told() {
        let placement = Placement::new([1].into(), [0].into());
        assert_eq!(placement.line(), "generator on CPU 1, server on CPU 0");
        let placement = Placement::new([1, 3].into(), [0, 1, 3].into());
        let line = "generator on CPU 1,3, server on CPU 0,1,3: co-located on 1,3";
        assert_eq!(placement.line(), line);
    }

    #[test]
    fn this_process_is_where_it_is() {
        let own = Process::watch(std::process::id()).unwrap();
        let placement = Placement::of(own, None).unwrap();
        assert_eq!(placement.generator, placement.server);
        assert!(!placement.co_located.is_empty());
    }

    #[test]
    fn cpu_that_no_machine_has_is_an_error() {
        assert!(pin(1_000_000).is_err());
        assert!(pin(CPU_SET_MAX - 1).is_err());
    }
}
