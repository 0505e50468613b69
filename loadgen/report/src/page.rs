//! What a report page says, as plain data: a title, a verdict, facts, charts and tables.
//!
//! Whoever has measured fills it in; [`render`] makes the HTML of it. Every text may come from
//! an argument or a file: the page escapes it.

mod chart;
mod html;

use hdrhistogram::Histogram;

pub use self::html::render;

/// One page. Its parts stand on it in this order.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// Its heading, and the title of the window.
    pub title: String,
    /// What was measured, in a sentence; may be empty.
    pub lead: String,
    /// Whether it stands, where somebody judged it.
    pub verdict: Option<Verdict>,
    /// What the eye wants first: the numbers that all else explains.
    pub summary: Vec<Table>,
    /// Each with its table twin.
    pub charts: Vec<Chart>,
    /// What has no chart: the environment, the command.
    pub details: Vec<Table>,
    /// Who wrote the page, and when.
    pub footer: String,
}

/// What was found, and by which terms.
#[derive(Debug, Clone)]
pub struct Verdict {
    /// How it went.
    pub outcome: Outcome,
    /// The same in words.
    pub text: String,
    /// What was asked of the measurement; may be empty.
    pub terms: Vec<Term>,
}

/// How it went. Said in words and a sign too, not by colour alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It does not meet what was asked, or is no valid measurement.
    Failed,
    /// It is a valid measurement, and meets what was asked.
    Passed,
    /// It says nothing, for one reason or another.
    Void,
}

/// One thing that was asked of a measurement.
#[derive(Debug, Clone)]
pub struct Term {
    /// As it was asked: `p99<1ms`.
    pub text: String,
    /// What was measured: `0.812 ms`.
    pub measured: String,
    /// Whether that meets it.
    pub is_met: bool,
}

/// A table; the first cell of each row is its heading.
#[derive(Debug, Clone, Default)]
pub struct Table {
    /// What stands above it.
    pub title: String,
    /// The columns' headings, as many as cells in a row; may be empty.
    pub head: Vec<String>,
    /// Rows of cells.
    pub rows: Vec<Vec<String>>,
}

/// One chart, with a table of the same numbers.
#[derive(Debug, Clone)]
pub enum Chart {
    /// Latency over the percentile.
    Percentiles(PercentileChart),
    /// Anything over the time.
    Time(TimeChart),
}

/// Latency over the percentile, on the logarithmic axis of 1/(1-q): each nine as wide as the
/// one before. A curve ends where fewer than ten samples lie beyond.
#[derive(Debug, Clone)]
pub struct PercentileChart {
    /// What stands above it.
    pub title: String,
    /// What else there is to say; may be empty.
    pub note: String,
    /// One for each run or group, over each other.
    pub curves: Vec<Curve>,
    /// What was promised: drawn as steps.
    pub objectives: Vec<Objective>,
}

/// The latencies of one run or group.
#[derive(Debug, Clone)]
pub struct Curve {
    /// Its name.
    pub name: String,
    /// Nanoseconds.
    pub histogram: Histogram<u64>,
}

/// A percentile is to stay below a bound.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Objective {
    /// Which, 0 to 1.
    pub quantile: f64,
    /// The bound, nanoseconds.
    pub bound_ns: u64,
}

/// Numbers over the time.
#[derive(Debug, Clone)]
pub struct TimeChart {
    /// What stands above it.
    pub title: String,
    /// What else there is to say; may be empty.
    pub note: String,
    /// Of all lines.
    pub unit: Unit,
    /// Where the values are: seconds from the beginning, rising.
    pub seconds: Vec<f64>,
    /// Each with a value, or none, for each of `seconds`.
    pub lines: Vec<Line>,
}

/// One line of a [`TimeChart`].
#[derive(Debug, Clone)]
pub struct Line {
    /// Its name.
    pub name: String,
    /// In the chart's unit.
    pub values: Vec<Option<f64>>,
    /// How it is drawn.
    pub stroke: Stroke,
}

/// How a line is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stroke {
    /// What was promised; it is left out of the table.
    Dashed,
    /// What was measured.
    Solid,
}

/// What a number counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Mebibytes.
    Mebibytes,
    /// Milliseconds.
    Milliseconds,
    /// Percent of one core.
    PercentOfCore,
    /// So many a second.
    PerSecond,
}
