//! Summaries as one page: what it says, in the words of `latency_report::page`.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use latency_report::page::{
    Chart, Curve, Line, Objective as Bound, Outcome, Page, PercentileChart, Stroke, Table, Term,
    TimeChart, Unit, Verdict as Judged,
};
use latency_report::{Encoded, EncodedError, latency_histogram};

use crate::cpus::Placement;
use crate::interval_row::IntervalRow;
use crate::recorded::{Recorded, Run};
use crate::report::Verdict;
use crate::slo::Slo;

/// The page of `summaries` (not empty), each with the name it goes by where there are several.
/// Errors: a histogram cannot be read.
pub(crate) fn page(summaries: &[(String, Recorded)]) -> Result<Page, EncodedError> {
    let (_, first) = &summaries[0];
    let is_alone = summaries.len() == 1;
    let title = if is_alone {
        format!("{} on {}", first.scenario, first.target)
    } else {
        format!("{}: {} compared", first.scenario, summaries.len())
    };
    let curves = Curves::new(summaries)?;
    let mut charts = vec![Chart::Percentiles(PercentileChart {
        title: "Latency by percentile".to_owned(),
        note: "From the intended send to the read that brought it, all runs together. A curve \
               ends where fewer than ten samples lie beyond it; the table has the maximum."
            .to_owned(),
        curves: curves.0,
        objectives: bounds(first),
    })];
    charts.extend(time_charts(summaries));
    Ok(Page {
        title,
        lead: lead(first),
        verdict: is_alone.then(|| judged(first)),
        summary: vec![runs_table(summaries), spread_table(summaries)],
        charts,
        details: summaries
            .iter()
            .map(|(name, one)| environment(name, one, is_alone))
            .collect(),
        footer: format!("loadgen {}", env!("CARGO_PKG_VERSION")),
    })
}

fn lead(summary: &Recorded) -> String {
    let runs = summary.runs.len();
    let seconds = summary.load["duration_seconds"].as_f64().unwrap_or(0.0);
    let each = if runs == 1 { "1 run" } else { "runs" };
    let count = if runs == 1 {
        String::new()
    } else {
        format!("{runs} ")
    };
    format!(
        "{count}{each} of {seconds} s, {}.",
        summary.load["size"].as_str().unwrap_or_default()
    )
}

fn judged(summary: &Recorded) -> Judged {
    let missed = summary.objectives.iter().filter(|one| !one.is_met).count();
    let (outcome, text) = match summary.verdict {
        Verdict::Clean if summary.objectives.is_empty() => (
            Outcome::Passed,
            "Every delivery came once, in order, to whom it was for.".to_owned(),
        ),
        Verdict::Clean => (
            Outcome::Passed,
            "Clean, and every objective was met.".to_owned(),
        ),
        Verdict::Missed => {
            let of = summary.objectives.len();
            (
                Outcome::Failed,
                format!("Clean, but {missed} of {of} objectives were missed."),
            )
        }
        Verdict::GeneratorBound => (
            Outcome::Void,
            format!("Generator-bound, so no latency: {}.", reasons(summary)),
        ),
        Verdict::Failed => (Outcome::Failed, format!("Failed: {}.", reasons(summary))),
    };
    let terms = summary.objectives.iter().map(|one| Term {
        text: one.term.clone(),
        measured: one.measured.clone(),
        is_met: one.is_met,
    });
    Judged {
        outcome,
        text,
        terms: terms.collect(),
    }
}

fn reasons(summary: &Recorded) -> String {
    let mut all: Vec<_> = summary
        .runs
        .iter()
        .flat_map(|run| run.reasons.clone())
        .collect();
    all.dedup();
    all.join("; ")
}

/// The upper bounds of percentiles that were asked for.
fn bounds(summary: &Recorded) -> Vec<Bound> {
    let parsed = summary
        .objectives
        .iter()
        .filter_map(|one| one.term.parse::<Slo>().ok());
    let drawn = parsed
        .flat_map(|slo| slo.terms)
        .filter_map(|term| term.objective());
    drawn
        .map(|(quantile, bound)| Bound {
            quantile,
            bound_ns: bound as u64,
        })
        .collect()
}

/// The latencies of all runs together, by summary and group.
struct Curves(Vec<Curve>);

impl Curves {
    fn new(summaries: &[(String, Recorded)]) -> Result<Self, EncodedError> {
        let mut curves: Vec<Curve> = Vec::new();
        for (name, summary) in summaries {
            for run in &summary.runs {
                for (group, encoded) in encoded(run) {
                    let histogram = encoded.decode()?;
                    add(&mut curves, &label(summaries, name, group), &histogram);
                }
            }
        }
        Ok(Self(curves))
    }
}

/// Adds `histogram` to the curve `name`.
fn add(curves: &mut Vec<Curve>, name: &str, histogram: &Histogram<u64>) {
    let sum = |curve: &mut Curve| {
        // One that another version wrote may hold more than ours; what does not fit stays out.
        let _ = curve.histogram.add(histogram);
    };
    if let Some(curve) = curves.iter_mut().find(|curve| curve.name == name) {
        return sum(curve);
    }
    let mut curve = Curve {
        name: name.to_owned(),
        histogram: latency_histogram(),
    };
    sum(&mut curve);
    curves.push(curve);
}

/// The histograms of a run, by group; of a load without subscribers, that of acknowledgements.
fn encoded(run: &Run) -> Vec<(&str, &Encoded)> {
    let groups = run.groups.iter();
    let groups: Vec<_> = groups
        .filter_map(|group| Some((group.name.as_str(), group.histogram.as_ref()?)))
        .collect();
    let acknowledged = run.acknowledgements.histogram.as_ref();
    if run.groups.is_empty() {
        acknowledged
            .map(|encoded| ("acknowledged", encoded))
            .into_iter()
            .collect()
    } else {
        groups
    }
}

/// What a line is called: the series, behind its summary's name where there are several.
fn label(summaries: &[(String, Recorded)], name: &str, series: &str) -> String {
    match (summaries.len(), series) {
        (1, series) => series.to_owned(),
        (_, "all") => name.to_owned(),
        (_, series) => format!("{name} {series}"),
    }
}

/// What each run delivered, and whether it stands.
fn runs_table(summaries: &[(String, Recorded)]) -> Table {
    let head = [
        "run",
        "delivered",
        "of",
        "lost",
        "duplicated",
        "reordered",
        "foreign",
        "malformed",
        "generator busy",
        "verdict",
    ];
    let mut rows = Vec::new();
    for (name, summary) in summaries {
        for (at, run) in summary.runs.iter().enumerate() {
            for group in &run.groups {
                let name = label(summaries, name, &group.name);
                let counts = [
                    group.delivered,
                    group.expected,
                    group.lost,
                    group.duplicated,
                    group.reordered,
                    group.foreign,
                    group.malformed,
                ];
                let mut row = vec![format!("{name} {}", at + 1)];
                row.extend(counts.map(|count| count.to_string()));
                row.push(format!("{:.0} %", run.generator_busy * 100.0));
                row.push(verdict_word(run.verdict).to_owned());
                rows.push(row);
            }
        }
    }
    Table {
        title: "Deliveries".to_owned(),
        head: head.map(ToOwned::to_owned).to_vec(),
        rows,
    }
}

fn verdict_word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Clean | Verdict::Missed => "clean",
        Verdict::Failed => "failed",
        Verdict::GeneratorBound => "generator-bound",
    }
}

/// The medians over the runs, with their ends, of what is compared most.
fn spread_table(summaries: &[(String, Recorded)]) -> Table {
    let metrics = [
        (
            "server.cpu_ns_per_delivery",
            "server CPU per delivery, µs",
            1e3,
        ),
        ("server.cpu_ns_per_event", "server CPU per event, µs", 1e3),
        ("server.rss_bytes", "server memory, MiB", 1024.0 * 1024.0),
        ("deliveries_per_second", "deliveries per second", 1.0),
    ];
    let cell = |summary: &Recorded, metric: &str, unit| {
        let spread = summary.spread.get(metric);
        spread.map_or_else(|| "–".to_owned(), |spread| spread.text(unit))
    };
    let row = |metric: &str, text: String, unit: f64| -> Vec<String> {
        let cells = summaries.iter().map(|(_, one)| cell(one, metric, unit));
        std::iter::once(text).chain(cells).collect()
    };
    let latencies = summaries[0]
        .1
        .spread
        .keys()
        .filter_map(|metric| Some(row(metric, latency_text(metric)?, 1e6)));
    let others = metrics
        .iter()
        .map(|(metric, text, unit)| row(metric, (*text).to_owned(), *unit));
    let rows = latencies.chain(others);
    let names = summaries.iter().map(|(name, _)| name.clone());
    Table {
        title: "Median over the runs (least–most)".to_owned(),
        head: std::iter::once(String::new()).chain(names).collect(),
        rows: rows.collect(),
    }
}

/// What the page calls `metric`, where that is a middle or a late latency: both are told from the
/// intended send and, beside it, from the actual one.
fn latency_text(metric: &str) -> Option<String> {
    let from = [
        (".latency_ns.", "from the intended send"),
        (".service_ns.", "from the actual send"),
    ];
    from.iter().find_map(|(middle, from)| {
        let (group, name) = metric.split_once(middle)?;
        matches!(name, "p50" | "p99").then(|| format!("{group}: {name} {from}, ms"))
    })
}

/// The charts over the time. Each summary begins at 0.
fn time_charts(summaries: &[(String, Recorded)]) -> Vec<Chart> {
    let is_alone = summaries.len() == 1;
    let ms = |ns: Option<u64>| ns.map(|ns| ns as f64 / 1e6);
    let mut latency = Timeline::new("Latency over time", "Of each second.", Unit::Milliseconds);
    let mut rate = Timeline::new("Throughput", "", Unit::PerSecond);
    let mut slip = Timeline::new(
        "Schedule slip",
        "How much later than intended the generator sent; part of the latency above.",
        Unit::Milliseconds,
    );
    let mut cpu = Timeline::new("Server CPU", "", Unit::PercentOfCore);
    let mut memory = Timeline::new("Server memory", "", Unit::Mebibytes);
    for (name, row, second) in rows(summaries) {
        let series = label(summaries, name, &row.series);
        let alone = summaries.iter().all(|(_, one)| series_count(one) == 1) && is_alone;
        let called = |what: &str| {
            if alone {
                what.to_owned()
            } else {
                format!("{series} {what}")
            }
        };
        if is_alone {
            latency.add(second, called("p50"), ms(row.p50_ns));
        }
        latency.add(second, called("p99"), ms(row.p99_ns));
        if is_alone {
            latency.add(second, called("max"), ms(row.max_ns));
        }
        rate.add(
            second,
            called("delivered"),
            Some(row.samples as f64 / row.seconds),
        );
        let server = if is_alone {
            "server".to_owned()
        } else {
            name.to_owned()
        };
        slip.add(second, called("max"), ms(Some(row.slip_max_ns)));
        cpu.add(
            second,
            server.clone(),
            row.server_cpu_share.map(|share| share * 100.0),
        );
        let mebibytes = row
            .server_rss_bytes
            .map(|bytes| bytes as f64 / (1024.0 * 1024.0));
        memory.add(second, server, mebibytes);
    }
    let bounds = bounds(&summaries[0].1);
    let lines = [
        latency.chart(&bounds),
        rate.chart(&[]),
        cpu.chart(&[]),
        memory.chart(&[]),
        slip.chart(&[]),
    ];
    lines.into_iter().flatten().map(Chart::Time).collect()
}

fn series_count(summary: &Recorded) -> usize {
    summary
        .runs
        .first()
        .map_or(0, |run| encoded(run).len().max(run.groups.len()).max(1))
}

/// All rows with the seconds since their summary's first.
fn rows(summaries: &[(String, Recorded)]) -> impl Iterator<Item = (&str, &IntervalRow, u64)> {
    summaries.iter().flat_map(|(name, summary)| {
        let rows = summary.runs.iter().flat_map(|run| &run.intervals);
        let first_ms = rows.clone().map(|row| row.start_unix_ms).min().unwrap_or(0);
        rows.map(move |row| {
            let second = (row.start_unix_ms.saturating_sub(first_ms) + 500) / 1000;
            (name.as_str(), row, second)
        })
    })
}

/// A chart over the time as it grows.
struct Timeline {
    chart: TimeChart,
    /// By second, the values of the lines.
    values: BTreeMap<u64, BTreeMap<usize, f64>>,
}

impl Timeline {
    fn new(title: &str, note: &str, unit: Unit) -> Self {
        let chart = TimeChart {
            title: title.to_owned(),
            note: note.to_owned(),
            unit,
            seconds: Vec::new(),
            lines: Vec::new(),
        };
        Self {
            chart,
            values: BTreeMap::new(),
        }
    }

    /// The value of the line `name` at `second`.
    fn add(&mut self, second: u64, name: String, value: Option<f64>) {
        let lines = &mut self.chart.lines;
        let known = lines.iter().position(|line| line.name == name);
        let index = known.unwrap_or(lines.len());
        if known.is_none() {
            lines.push(Line {
                name,
                values: Vec::new(),
                stroke: Stroke::Solid,
            });
        }
        let at = self.values.entry(second).or_default();
        at.extend(value.map(|value| (index, value)));
    }

    /// The chart, with `bounds` across it; `None` where there is no value at all.
    fn chart(mut self, bounds: &[Bound]) -> Option<TimeChart> {
        if self.values.values().all(BTreeMap::is_empty) {
            return None;
        }
        let (first, last) = (
            *self.values.first_key_value()?.0,
            *self.values.last_key_value()?.0,
        );
        // A second of which nothing is known is a gap.
        let seconds: Vec<_> = (first..=last).collect();
        for (index, line) in self.chart.lines.iter_mut().enumerate() {
            let value = |second| self.values.get(second)?.get(&index).copied();
            line.values = seconds.iter().map(value).collect();
        }
        self.chart.lines.extend(bounds.iter().map(|bound| Line {
            name: format!("objective p{}", (bound.quantile * 1e8).round() / 1e6),
            values: vec![Some(bound.bound_ns as f64 / 1e6); seconds.len()],
            stroke: Stroke::Dashed,
        }));
        self.chart.seconds = seconds.into_iter().map(|second| second as f64).collect();
        Some(self.chart)
    }
}

/// Where it was measured, and how to do it again.
fn environment(name: &str, summary: &Recorded, is_alone: bool) -> Table {
    let known = &summary.environment;
    let build = |build: &crate::environment::Build| {
        let version = build.version.as_deref().unwrap_or("version not known");
        let commit = build
            .commit
            .as_ref()
            .map_or_else(String::new, |commit| format!(" ({commit})"));
        format!("{version}{commit}")
    };
    let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "not known".to_owned());
    let place = if known.server.is_colocated {
        "the same"
    } else {
        "another"
    };
    let placement = summary.placement.as_ref().map(Placement::line);
    let rows = [
        ("Command", summary.command.clone()),
        ("Begun", known.started.clone()),
        (
            "CPU",
            format!("{} × {}", known.cpus, text(&known.cpu_model)),
        ),
        ("Governor", text(&known.governor)),
        ("Kernel", text(&known.kernel)),
        (
            "Descriptors",
            format!(
                "{} (at most {})",
                known.descriptors[0], known.descriptors[1]
            ),
        ),
        ("Generator", format!("loadgen {}", build(&known.generator))),
        (
            "Server",
            format!(
                "{} {} at {}, on {place} machine",
                summary.target,
                build(&known.server.build),
                known.server.address
            ),
        ),
        ("Placement", text(&placement)),
        ("Configuration", text(&known.server.config_digest)),
    ];
    let title = "Environment";
    Table {
        title: if is_alone {
            title.to_owned()
        } else {
            format!("{title}: {name}")
        },
        head: Vec::new(),
        rows: rows
            .map(|(name, value)| vec![name.to_owned(), value])
            .to_vec(),
    }
}
