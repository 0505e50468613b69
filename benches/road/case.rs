//! One thing that is measured, by the clock or in instructions.

use criterion::{Criterion, Throughput};

/// What is measured; what it needs has been made before.
pub type Run = Box<dyn FnMut()>;

/// One thing that is measured.
pub struct Case {
    group: &'static str,
    what: String,
    throughput: Throughput,
    make: Box<dyn Fn() -> Run>,
}

/// Runs before any is counted: buffers have grown, and the ring of recent events is full.
const WARM_UPS: u64 = 100;
/// Runs that are counted.
const RUNS: u64 = 200;

impl Case {
    /// A run that handles one thing of `bytes`. `make` prepares what is not measured.
    pub fn of_bytes(
        group: &'static str,
        what: impl Into<String>,
        bytes: usize,
        make: impl Fn() -> Run + 'static,
    ) -> Self {
        let throughput = Throughput::Bytes(bytes as u64);
        Self::new(group, what.into(), throughput, make)
    }

    /// A run that handles so many things; figures are for one.
    pub fn of_things(
        group: &'static str,
        what: impl Into<String>,
        things: usize,
        make: impl Fn() -> Run + 'static,
    ) -> Self {
        let throughput = Throughput::Elements(things as u64);
        Self::new(group, what.into(), throughput, make)
    }

    fn new(
        group: &'static str,
        what: String,
        throughput: Throughput,
        make: impl Fn() -> Run + 'static,
    ) -> Self {
        Self {
            group,
            what,
            throughput,
            make: Box::new(make),
        }
    }

    /// `GROUP/WHAT`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.group, self.what)
    }

    /// Times it. What it needs is made only where criterion's filter lets it run.
    pub fn measure(&self, criterion: &mut Criterion) {
        let mut group = criterion.benchmark_group(self.group);
        group.throughput(self.throughput.clone());
        group.bench_function(&self.what, |bencher| {
            let mut run = (self.make)();
            bencher.iter(&mut run);
        });
        group.finish();
    }

    /// Runs it `RUNS` times for a tool that counts while `counted_run` is on the stack. Returns how
    /// many things that were.
    pub fn count(&self) -> u64 {
        let mut run = (self.make)();
        (0..WARM_UPS).for_each(|_| run());
        (0..RUNS).for_each(|_| counted_run(&mut run));
        match self.throughput {
            Throughput::Elements(things) => RUNS * things,
            _ => RUNS,
        }
    }
}

#[inline(never)]
fn counted_run(run: &mut Run) {
    run();
}
