//! `sightline report`: the latencies of a running gateway as one HTML page, made from its histograms
//! (`/v1/stats?histograms=1`, contract, section 9) by the code that makes the load generator's.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Args;
use hdrhistogram::Histogram;
use latency_report::page::{Chart, Curve, PercentileChart, Table};
use latency_report::percentiles::SHOWN;
use latency_report::{EncodedError, Page, latency_histogram, percentiles, render};

use super::client::{ClientError, ConnectArgs, Pages, printable, say};
use super::stats::reading::{Core, Reading};
use super::stats::table::{NOTHING, duration, numbers};
use crate::counters::Stage;
use crate::event::time::write_rfc3339_ms;

/// Write the latencies of a running gateway as an HTML page
///
/// How long events took from stage to stage since the gateway's start, as curves and tables, in one
/// file that needs nothing else. An address that only its own machine reaches, and that of
/// ops.listen, need no token; any other takes one with permission admin.
#[derive(Args, Clone, Debug)]
pub struct ReportArgs {
    #[command(flatten)]
    connect: ConnectArgs,
    /// Where to; - is standard output
    #[arg(
        short,
        long,
        value_name = "FILE.html",
        default_value = "sightline-report.html"
    )]
    output: PathBuf,
}

/// Writes the page. Errors: `File`, `Output`, and those of `Pages`.
pub fn run(args: &ReportArgs) -> Result<(), ClientError> {
    let mut pages = Pages::new(&args.connect)?;
    let reading = Reading::parse(&pages.read("/v1/stats?histograms=1")?)?;
    let page = page(&pages.url(), &reading, now_ms()).map_err(|error| unreadable(&error))?;
    let document = render(&page);
    if args.output == Path::new("-") {
        return match io::stdout().write_all(document.as_bytes()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            written => written.map_err(ClientError::Output),
        };
    }
    fs::write(&args.output, document).map_err(|source| ClientError::File {
        path: args.output.clone(),
        source,
    })?;
    say(&format!("wrote {}", args.output.display()));
    Ok(())
}

fn unreadable(error: &EncodedError) -> ClientError {
    ClientError::Refused {
        what: format!("a histogram of the gateway's cannot be read: {error}"),
        advice: "take a report of the gateway's own version",
    }
}

fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| i64::try_from(now.as_millis()).unwrap_or(i64::MAX))
}

/// The page of `reading`, of the gateway at `url`, read at `now_ms` since the Unix epoch.
fn page(url: &str, reading: &Reading, now_ms: i64) -> Result<Page, EncodedError> {
    let histograms = Histograms::decode(&reading.cores)?;
    let version = printable(&reading.version);
    let up = duration(std::time::Duration::from_millis(reading.uptime_ms));
    Ok(Page {
        title: format!("Latencies of the gateway at {url}"),
        lead: format!(
            "sightline {version}, up {up}. All times are since its start, on the gateway's own \
             clock; what the network and the viewers' machines add is not in them."
        ),
        summary: vec![titled("Since the start", &numbers(reading, None))],
        charts: vec![histograms.of_stages(), histograms.of_cores()],
        details: vec![spans(), histograms.table()],
        footer: format!(
            "Written by sightline report {} at {}",
            env!("CARGO_PKG_VERSION"),
            moment(now_ms)
        ),
        ..Page::default()
    })
}

/// The histograms of a node: of each core, by stage.
struct Histograms {
    cores: Vec<Vec<Histogram<u64>>>,
}

impl Histograms {
    fn decode(cores: &[Core]) -> Result<Self, EncodedError> {
        let of = |core: &Core, stage: Stage| match core.histograms.get(stage.name()) {
            Some(encoded) => encoded.decode(),
            None => Ok(latency_histogram()),
        };
        let of_core = |core: &Core| Stage::ALL.iter().map(|stage| of(core, *stage)).collect();
        let cores: Result<_, _> = cores.iter().map(of_core).collect();
        Ok(Self { cores: cores? })
    }

    // All cores' merged; times beyond the bounds of ours count as the bounds.
    fn merged(&self, stage: Stage) -> Histogram<u64> {
        let mut merged = latency_histogram();
        for core in &self.cores {
            for step in core[stage as usize].iter_recorded() {
                merged.saturating_record_n(step.value_iterated_to(), step.count_at_value());
            }
        }
        merged
    }

    fn of_stages(&self) -> Chart {
        let curve = |stage: Stage| Curve {
            name: stage.name().to_owned(),
            histogram: self.merged(stage),
        };
        Chart::Percentiles(PercentileChart {
            title: "Stages of an event's road".to_owned(),
            note: "All cores. From where to where each stage goes stands below.".to_owned(),
            curves: with_times(Stage::ALL.map(curve)),
            objectives: Vec::new(),
        })
    }

    fn of_cores(&self) -> Chart {
        let curve = |(at, core): (usize, &Vec<Histogram<u64>>)| Curve {
            name: format!("core {at}"),
            histogram: core[Stage::Total as usize].clone(),
        };
        Chart::Percentiles(PercentileChart {
            title: "From the read to the write, by core".to_owned(),
            note: "Stage total, counted on the core of the viewer.".to_owned(),
            curves: with_times(self.cores.iter().enumerate().map(curve)),
            objectives: Vec::new(),
        })
    }

    // Every stage of every core, in milliseconds as the charts are: what no curve shows is here.
    fn table(&self) -> Table {
        let names = SHOWN.map(|(name, _)| format!("{name}, ms"));
        let head = ["core", "stage", "count"].map(String::from);
        let cores = self.cores.iter().enumerate();
        let rows = cores.flat_map(|(at, core)| {
            let stages = Stage::ALL.into_iter().zip(core);
            stages.map(move |(stage, histogram)| row(at, stage, histogram))
        });
        Table {
            title: "Each core's stages".to_owned(),
            head: head.into_iter().chain(names).collect(),
            rows: rows.collect(),
        }
    }
}

fn row(core: usize, stage: Stage, histogram: &Histogram<u64>) -> Vec<String> {
    let values = percentiles(histogram);
    let value = |(name, _)| match values.get(name) {
        Some(ns) => format!("{:.3}", *ns as f64 / 1e6),
        None => NOTHING.to_owned(),
    };
    let mut row = vec![
        core.to_string(),
        stage.name().to_owned(),
        histogram.len().to_string(),
    ];
    row.extend(SHOWN.map(value));
    row
}

fn with_times(curves: impl IntoIterator<Item = Curve>) -> Vec<Curve> {
    let curves = curves.into_iter();
    curves.filter(|curve| !curve.histogram.is_empty()).collect()
}

fn spans() -> Table {
    let row = |stage: Stage| vec![stage.name().to_owned(), stage.span().to_owned()];
    Table {
        title: "What the stages are".to_owned(),
        head: ["stage", "from → to"].map(String::from).to_vec(),
        rows: Stage::ALL.map(row).to_vec(),
    }
}

/// A table whose first row is its head, without columns that say nothing in any row.
fn titled(title: &str, rows: &[Vec<String>]) -> Table {
    let says = |column: usize| {
        let mut cells = rows.iter().skip(1).filter_map(|row| row.get(column));
        cells.any(|cell| cell != NOTHING)
    };
    let kept = |row: &Vec<String>| {
        let cells = row.iter().enumerate();
        let cells = cells.filter(|(column, _)| says(*column));
        cells.map(|(_, cell)| cell.clone()).collect()
    };
    let mut rows = rows.iter().map(kept);
    Table {
        title: title.to_owned(),
        head: rows.next().unwrap_or_default(),
        rows: rows.collect(),
    }
}

fn moment(now_ms: i64) -> String {
    let mut text = Vec::new();
    write_rfc3339_ms(&mut text, now_ms);
    String::from_utf8_lossy(&text).trim_matches('"').to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use latency_report::Encoded;
    use serde_json::json;

    use super::*;

    fn encoded(ns: u64, count: u64) -> Encoded {
        let mut histogram = latency_histogram();
        histogram.record_n(ns, count).unwrap();
        Encoded::new(&histogram).unwrap()
    }

    fn reading() -> Reading {
        let core =
            |ns| json!({"histograms": {"total": encoded(ns, 1_000), "durable": encoded(ns, 9)}});
        let page = json!({"version": "1.2.3", "uptimeMs": 61_000, "cores": [core(2_000_000), core(8_000_000)]});
        Reading::parse(&page.to_string()).unwrap()
    }

    #[test]
    fn stages_are_of_all_cores_and_cores_stand_beside_each_other() {
        let page = page("ws://gate", &reading(), 0).unwrap();
        let curves = |at: usize| match &page.charts[at] {
            Chart::Percentiles(chart) => &chart.curves,
            Chart::Time(chart) => panic!("{chart:?}"),
        };
        let names: Vec<_> = curves(0).iter().map(|curve| &*curve.name).collect();
        assert_eq!(
            names,
            ["durable", "total"],
            "those without times are left out"
        );
        let total = &curves(0)[1].histogram;
        assert_eq!((total.len(), total.count_at(2_000_000)), (2_000, 1_000));
        let names: Vec<_> = curves(1).iter().map(|curve| &*curve.name).collect();
        assert_eq!(names, ["core 0", "core 1"]);
        let head = &page.summary[0].head;
        assert!(head.contains(&"events".into()) && !head.contains(&"/s".into()));
        assert!(page.lead.contains("up 1 min 1 s"), "{}", page.lead);
        assert!(
            page.footer.contains("1970-01-01T00:00:00"),
            "{}",
            page.footer
        );
    }

    #[test]
    fn a_percentile_is_told_only_where_samples_carry_it() {
        let table = Histograms::decode(&reading().cores).unwrap().table();
        assert_eq!(table.rows.len(), 2 * Stage::ALL.len());
        assert!(table.rows.iter().all(|row| row.len() == table.head.len()));
        let row = |stage: Stage| &table.rows[stage as usize];
        assert_eq!(row(Stage::Total)[..2], ["0", "total"]);
        assert_eq!(row(Stage::Total)[5..7], ["2.001", "–"]);
        assert_eq!(row(Stage::Durable)[2..4], ["9", "–"]);
        assert_eq!(row(Stage::Durable).last().unwrap(), "2.001");
        assert_eq!(row(Stage::Parsed)[2..4], ["0", "–"]);
    }

    #[test]
    fn a_histogram_that_is_none_is_refused() {
        let page_text = json!({"cores": [{"histograms": {"total": "HISTFAAA"}}]}).to_string();
        let reading = Reading::parse(&page_text).unwrap();
        let error = unreadable(&page("ws://gate", &reading, 0).err().unwrap());
        assert_eq!(error.exit_code(), 1);
    }
}
