//! Results as files: one, several, or a whole folder of them.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use hdrhistogram::Histogram;
use latency_report::hlog::{self, Interval};
use latency_report::{hgrm, render, render_csv};
use serde::Serialize;

use crate::interval_row::series;
use crate::page;
use crate::recorded::Recorded;
use crate::scenario::Load;
use crate::summary::Summary;

/// A file that cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {source}")]
pub(crate) struct OutputError {
    path: PathBuf,
    source: io::Error,
}

/// Prints `lines`.
pub(crate) fn print(lines: &[String]) -> Result<(), OutputError> {
    let mut out = io::stdout().lock();
    let written = lines.iter().try_for_each(|line| writeln!(out, "{line}"));
    written.map_err(error(Path::new("standard output")))
}

/// Writes `report` to `path` as JSON, where there is one.
pub(crate) fn write_json(path: Option<&Path>, report: &impl Serialize) -> Result<(), OutputError> {
    let Some(path) = path else {
        return Ok(());
    };
    write(path, json(report).map_err(error(path))?)
}

/// Writes `path`, where there is one, or one file for each group beside it: `latency.hgrm`,
/// `latency.hot.hgrm`.
pub(crate) fn write_hgrm(
    path: Option<&Path>,
    groups: &[(&str, Histogram<u64>)],
) -> Result<(), OutputError> {
    let Some(path) = path else {
        return Ok(());
    };
    for (name, histogram) in groups {
        let path = if groups.len() > 1 {
            path.with_extension(format!("{name}.hgrm"))
        } else {
            path.into()
        };
        write(&path, hgrm::render_ms(histogram))?;
    }
    Ok(())
}

/// Makes the folder of a report.
/// Errors: it holds something already, which might then be taken for this report's.
pub(crate) fn prepare_folder(folder: Option<&Path>) -> Result<(), OutputError> {
    let Some(folder) = folder else {
        return Ok(());
    };
    fs::create_dir_all(folder).map_err(error(folder))?;
    let mut entries = fs::read_dir(folder).map_err(error(folder))?;
    if entries.next().is_some() {
        let source = io::Error::new(io::ErrorKind::DirectoryNotEmpty, "the folder is not empty");
        return Err(error(folder)(source));
    }
    Ok(())
}

/// Writes the whole report of `summary`, a run of `load`, into `folder`, where there is one.
/// Where the latencies do not stand, the files that hold nothing else are left out.
pub(crate) fn write_folder(
    folder: Option<&Path>,
    load: &Load,
    summary: &Summary,
) -> Result<(), OutputError> {
    let Some(folder) = folder else {
        return Ok(());
    };
    let at = |name: &str| folder.join(name);
    let text = json(summary).map_err(error(&at("summary.json")))?;
    write(&at("summary.json"), &text)?;
    let rows: Vec<_> = summary.runs.iter().flat_map(|run| &run.intervals).collect();
    let csv = render_csv(&rows).map_err(io::Error::other);
    write(
        &at("intervals.csv"),
        csv.map_err(error(&at("intervals.csv")))?,
    )?;
    // The page is made of what others can read too.
    let recorded = Recorded::parse(text.as_bytes()).map_err(io::Error::other);
    let recorded = recorded.map_err(error(&at("report.html")))?;
    write_page(&at("report.html"), &[(String::new(), recorded)])?;
    if !summary.verdict.stands() {
        return Ok(());
    }
    write_hgrm(Some(&at("latency.hgrm")), &summary.merged_latencies())?;
    write(
        &at("latency.hlog"),
        hlog(load, summary).map_err(error(&at("latency.hlog")))?,
    )
}

/// Writes the page of `summaries`, each with its name.
pub(crate) fn write_page(path: &Path, summaries: &[(String, Recorded)]) -> Result<(), OutputError> {
    let page = page::page(summaries).map_err(io::Error::other);
    write(path, render(&page.map_err(error(path))?))
}

/// The interval log of all runs.
fn hlog(load: &Load, summary: &Summary) -> io::Result<String> {
    let observed = || summary.runs.iter().filter_map(|run| run.observed.as_ref());
    let start_ms = observed().map(|one| one.start_unix_ms).min().unwrap_or(0);
    let mut intervals = Vec::new();
    for one in observed() {
        let begun = Duration::from_millis(one.start_unix_ms - start_ms);
        for second in &one.seconds {
            for (name, series) in series(load, second) {
                intervals.push(Interval {
                    series: name,
                    start: begun + Duration::from_nanos(second.start_ns),
                    length: Duration::from_nanos(second.length_ns),
                    histogram: &series.histogram,
                });
            }
        }
    }
    let start = SystemTime::UNIX_EPOCH + Duration::from_millis(start_ms);
    hlog::render(start, &intervals).map_err(io::Error::other)
}

fn json(report: &impl Serialize) -> io::Result<String> {
    Ok(serde_json::to_string_pretty(report)? + "\n")
}

fn write(path: &Path, text: impl AsRef<[u8]>) -> Result<(), OutputError> {
    fs::write(path, text).map_err(error(path))
}

fn error(path: &Path) -> impl Fn(io::Error) -> OutputError {
    let path = path.to_owned();
    move |source| OutputError {
        path: path.clone(),
        source,
    }
}
