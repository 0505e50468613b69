//! Fuzz targets for all that reads bytes which others chose.
//!
//! A target is a plain function that panics where a property does not hold. Two drivers call it:
//! libFuzzer (`bin/libfuzzer.rs`), guided by coverage, where there is a C++ compiler; and our own
//! ([`driver`]), which needs nothing but stable Rust and also runs in `cargo test`. Both start
//! from `corpus/<target>`, share one [`mutate`], and take an input that is too slow for a finding.

pub mod corpus;
pub mod driver;
pub mod mutate;
pub mod pieces;
pub mod targets;

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// One thing to be fuzzed.
pub struct Target {
    /// Its name, and that of its folder in `corpus`.
    pub name: &'static str,
    /// Panics where the input breaks a property.
    pub run: fn(&[u8]),
    /// Words of its grammar, which no mutation of bytes would come by.
    pub tokens: &'static [&'static str],
    /// Bytes of the longest input that a driver makes: past what the grammar bounds, or few where
    /// what matters is in a few lines and short inputs are quick ones.
    pub bytes_max: usize,
}

impl Target {
    /// The target of this name.
    pub fn find(name: &str) -> Option<&'static Self> {
        targets::ALL.iter().find(|target| target.name == name)
    }

    /// Runs the input. Panics where it breaks a property, and where it takes more than
    /// [`CPU_TIME_MAX`] each time that it is run.
    pub fn check(&self, input: &[u8]) {
        let begun = Instant::now();
        (self.run)(input);
        if begun.elapsed() > CPU_TIME_MAX {
            self.check_time(input);
        }
    }

    /// The time on the clock may be a busy machine's; the least CPU time of several runs is not.
    fn check_time(&self, input: &[u8]) {
        let times = [(); 3].map(|()| {
            let begun = cpu_time();
            (self.run)(input);
            cpu_time() - begun
        });
        let least = times.into_iter().min().unwrap_or_default();
        let bytes = input.len();
        assert!(least < CPU_TIME_MAX, "{bytes} bytes took {least:?} of CPU");
    }
}

/// The most that one input may take.
pub const CPU_TIME_MAX: Duration = Duration::from_millis(100);

/// What this thread has had of the CPU.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(
        time.tv_sec.unsigned_abs(),
        time.tv_nsec.unsigned_abs() as u32,
    )
}
