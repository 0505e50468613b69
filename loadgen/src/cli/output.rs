//! What becomes of results: where they go, and what is asked of them.

use std::path::PathBuf;

use clap::Args;

use crate::slo::Slo;

/// The report of a load.
#[derive(Debug, Default, Args)]
pub(crate) struct OutputArgs {
    /// Writes all of it into this folder, which must be empty or not there: `summary.json`,
    /// `report.html`, `intervals.csv`, `latency.hlog` and `.hgrm` files.
    #[arg(long, value_name = "DIR")]
    pub(crate) report: Option<PathBuf>,
    /// What is asked of every run, `p99<1ms,p99.9<20ms,lost==0,cpu<8us,quiet:max<50ms`: a
    /// percentile or max (ns, us, ms, s), cpu of a delivery (the same), rss (KiB, MiB, GiB),
    /// deliveries a second, lost, duplicated, reordered, foreign, malformed. A miss exits with 4.
    #[arg(long, value_name = "TERMS")]
    pub(crate) slo: Option<Slo>,
}

/// Two summaries beside each other.
#[derive(Debug, Args)]
pub(crate) struct CompareArgs {
    /// A `summary.json`, or the folder it is in.
    pub(crate) first: PathBuf,
    /// Another, whose numbers are divided by those of the first.
    pub(crate) second: PathBuf,
    /// Compares different loads too.
    #[arg(long)]
    pub(crate) anyway: bool,
}

/// Several summaries on one page.
#[derive(Debug, Args)]
pub(crate) struct ReportArgs {
    /// Each a `summary.json`, or the folder it is in.
    #[arg(required = true, value_name = "SUMMARY")]
    pub(crate) summaries: Vec<PathBuf>,
    /// Where the page goes.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: PathBuf,
}
