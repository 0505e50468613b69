//! Charts as numbers: what the page's script draws, and what its tables say. Both are made of
//! the same data here, so that neither can say what the other does not.

use hdrhistogram::Histogram;
use serde::Serialize;

use super::{Chart, Line, Objective, PercentileChart, Stroke, Table, TimeChart, Unit};
use crate::NS_PER_MS;
use crate::percentiles::{SHOWN, percentiles, value_at};

/// What the page's script draws: one x for each point, and a y of each line for each x.
#[derive(Debug, Serialize)]
pub(super) struct Drawing<'a> {
    axis: Axis,
    unit: &'static str,
    scale: Scale,
    lines: Vec<Drawn<'a>>,
    x: Vec<f64>,
}

/// What the x axis is.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Axis {
    /// 1/(1-q), logarithmic, marked with the percentiles.
    Percentile,
    /// Seconds.
    Time,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Scale {
    Linear,
    Logarithmic,
}

#[derive(Debug, Serialize)]
struct Drawn<'a> {
    name: &'a str,
    is_dashed: bool,
    y: Vec<Option<f64>>,
}

impl Chart {
    /// Its heading, and the note below.
    pub(super) fn texts(&self) -> (&str, &str) {
        match self {
            Self::Percentiles(chart) => (&chart.title, &chart.note),
            Self::Time(chart) => (&chart.title, &chart.note),
        }
    }

    pub(super) fn drawing(&self) -> Drawing<'_> {
        match self {
            Self::Percentiles(chart) => chart.drawing(),
            Self::Time(chart) => chart.drawing(),
        }
    }

    /// The same numbers, to be read.
    pub(super) fn table(&self) -> Table {
        match self {
            Self::Percentiles(chart) => chart.table(),
            Self::Time(chart) => chart.table(),
        }
    }
}

impl PercentileChart {
    fn drawing(&self) -> Drawing<'_> {
        let x = self.inverses();
        let curve = |histogram: &Histogram<u64>| {
            let value = |inverse: &f64| value_at(histogram, quantile(*inverse));
            x.iter().map(|inverse| value(inverse).map(ms)).collect()
        };
        let mut lines: Vec<_> = self
            .curves
            .iter()
            .map(|one| Drawn {
                name: &one.name,
                is_dashed: false,
                y: curve(&one.histogram),
            })
            .collect();
        if !self.objectives.is_empty() {
            lines.push(Drawn {
                name: OBJECTIVE,
                is_dashed: true,
                y: x.iter().map(|inverse| self.bound_ms(*inverse)).collect(),
            });
        }
        Drawing {
            axis: Axis::Percentile,
            unit: Unit::Milliseconds.sign(),
            scale: scale(&lines),
            lines,
            x,
        }
    }

    /// Where the curves have a point: evenly on the logarithmic axis, as far as the longest
    /// curve goes, but not less far than the objectives.
    fn inverses(&self) -> Vec<f64> {
        let samples = self.curves.iter().map(|curve| curve.histogram.len()).max();
        let carried = samples.unwrap_or(0) as f64 / 10.0;
        let asked = self.objectives.iter().map(|one| 1.0 / (1.0 - one.quantile));
        let last = asked.fold(carried, f64::max).clamp(1.0, INVERSE_MAX);
        let steps = (last.log10() * STEPS_PER_DECADE).floor() as u32;
        let inner = (0..=steps).map(|step| 10_f64.powf(f64::from(step) / STEPS_PER_DECADE));
        let mut inverses: Vec<_> = inner.filter(|inverse| *inverse < last).collect();
        inverses.push(last);
        inverses
    }

    /// The bound that holds at `inverse`: that of the nearest percentile from there on.
    fn bound_ms(&self, inverse: f64) -> Option<f64> {
        let quantile = quantile(inverse);
        let from_here = |one: &&Objective| one.quantile >= quantile - 1e-9;
        let bounds = self.objectives.iter().filter(from_here);
        let nearest = bounds.min_by(|one, other| one.quantile.total_cmp(&other.quantile));
        nearest.map(|one| ms(one.bound_ns))
    }

    fn table(&self) -> Table {
        let names = SHOWN.iter().map(|(name, _)| format!("{name}, ms"));
        let head = [String::new(), "samples".to_owned()];
        let row = |name: &str, histogram: &Histogram<u64>| {
            let values = percentiles(histogram);
            let cell = |name| values.get(name).map_or_else(none, |ns| format_ms(*ns));
            let cells = SHOWN.iter().map(|(name, _)| cell(*name));
            let head = [name.to_owned(), histogram.len().to_string()];
            head.into_iter().chain(cells).collect()
        };
        let rows = self
            .curves
            .iter()
            .map(|curve| row(&curve.name, &curve.histogram));
        Table {
            title: self.title.clone(),
            head: head.into_iter().chain(names).collect(),
            rows: rows.collect(),
        }
    }
}

impl TimeChart {
    fn drawing(&self) -> Drawing<'_> {
        let lines = self.lines.iter().map(|line| Drawn {
            name: &line.name,
            is_dashed: line.stroke == Stroke::Dashed,
            y: line.values.clone(),
        });
        let mut lines: Vec<_> = lines.collect();
        let scale = match self.unit {
            Unit::Milliseconds => scale(&lines),
            Unit::Mebibytes | Unit::PerSecond | Unit::PercentOfCore => Scale::Linear,
        };
        if scale == Scale::Logarithmic {
            // There is no zero on such an axis.
            let values = lines.iter_mut().flat_map(|line| &mut line.y);
            values.for_each(|value| *value = value.filter(|value| *value > 0.0));
        }
        Drawing {
            axis: Axis::Time,
            unit: self.unit.sign(),
            scale,
            lines,
            x: self.seconds.clone(),
        }
    }

    fn table(&self) -> Table {
        let measured = |line: &&Line| line.stroke == Stroke::Solid;
        let lines: Vec<_> = self.lines.iter().filter(measured).collect();
        let heads = lines
            .iter()
            .map(|line| format!("{}, {}", line.name, self.unit.sign()));
        let cell = |line: &Line, at: usize| {
            let value = line.values.get(at).copied().flatten();
            value.map_or_else(none, |value| self.unit.format(value))
        };
        let row = |(at, seconds): (usize, &f64)| {
            let cells = lines.iter().map(|line| cell(line, at));
            std::iter::once(format!("{seconds:.1}"))
                .chain(cells)
                .collect()
        };
        Table {
            title: self.title.clone(),
            head: std::iter::once("second".to_owned()).chain(heads).collect(),
            rows: self.seconds.iter().enumerate().map(row).collect(),
        }
    }
}

impl Unit {
    fn sign(self) -> &'static str {
        match self {
            Self::Mebibytes => "MiB",
            Self::Milliseconds => "ms",
            Self::PercentOfCore => "% of a core",
            Self::PerSecond => "1/s",
        }
    }

    fn format(self, value: f64) -> String {
        match self {
            Self::Mebibytes | Self::PercentOfCore => format!("{value:.1}"),
            Self::Milliseconds => format!("{value:.3}"),
            Self::PerSecond => format!("{value:.0}"),
        }
    }
}

/// Logarithmic where the values differ so much that on a linear axis the smaller would all lie
/// at the bottom.
fn scale(lines: &[Drawn<'_>]) -> Scale {
    let values = lines.iter().flat_map(|line| &line.y).flatten();
    let positive = values.copied().filter(|value| *value > 0.0);
    let (least, most) = positive.fold((f64::MAX, 0.0), |(least, most), value| {
        (value.min(least), value.max(most))
    });
    if most > least * RATIO_LINEAR_MAX {
        Scale::Logarithmic
    } else {
        Scale::Linear
    }
}

fn quantile(inverse: f64) -> f64 {
    1.0 - 1.0 / inverse
}

fn ms(ns: u64) -> f64 {
    ns as f64 / NS_PER_MS
}

fn format_ms(ns: u64) -> String {
    format!("{:.3}", ms(ns))
}

/// What a table says where there is no number.
fn none() -> String {
    "–".to_owned()
}

const OBJECTIVE: &str = "objective";
/// Points of a curve from one nine to the next.
const STEPS_PER_DECADE: f64 = 24.0;
/// As far as any curve goes: seven nines.
const INVERSE_MAX: f64 = 1e7;
const RATIO_LINEAR_MAX: f64 = 40.0;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::latency_histogram;
    use crate::page::Curve;

    fn percentile_chart(samples: u64, objectives: Vec<Objective>) -> PercentileChart {
        let mut histogram = latency_histogram();
        for value in 1..=samples {
            histogram.saturating_record(value * 1_000_000);
        }
        let name = "run".to_owned();
        PercentileChart {
            title: String::new(),
            note: String::new(),
            curves: vec![Curve { name, histogram }],
            objectives,
        }
    }

    #[test]
    fn curve_ends_where_ten_samples_lie_beyond() {
        let chart = percentile_chart(1000, Vec::new());
        let drawing = chart.drawing();
        assert_eq!(drawing.x.last(), Some(&100.0));
        let y = &drawing.lines[0].y;
        assert!(y.iter().all(Option::is_some), "{y:?}");
        let last = y.last().copied().flatten().unwrap_or_default();
        assert!((last - 990.0).abs() < 1.0, "{last}");
        let further = percentile_chart(1000, vec![objective(0.999, 1)])
            .drawing()
            .lines[0]
            .y
            .iter()
            .filter(|value| value.is_none())
            .count();
        assert!(
            further > 0,
            "the objective lies beyond what the samples carry"
        );
    }

    fn objective(quantile: f64, bound_ms: u64) -> Objective {
        Objective {
            quantile,
            bound_ns: bound_ms * 1_000_000,
        }
    }

    #[test]
    fn objectives_are_steps_up_to_their_percentile() {
        let chart = percentile_chart(1000, vec![objective(0.999, 20), objective(0.99, 1)]);
        let bounds: Vec<_> = [1.0, 10.0, 100.0, 101.0, 1000.0, 1001.0]
            .iter()
            .map(|inverse| chart.bound_ms(*inverse))
            .collect();
        let (one, twenty) = (Some(1.0), Some(20.0));
        assert_eq!(bounds, [one, one, one, twenty, twenty, None]);
    }

    #[test]
    fn few_samples_and_none_are_drawn_as_far_as_they_go() {
        for samples in [0, 1, 9] {
            let chart = percentile_chart(samples, Vec::new());
            let drawing = chart.drawing();
            assert_eq!(drawing.x, [1.0], "{samples}");
            assert_eq!(drawing.lines[0].y, [None], "{samples}");
        }
        let row = &percentile_chart(1000, Vec::new()).table().rows[0];
        let expected = [
            "run", "1000", "500.171", "900.202", "990.380", "–", "–", "–", "1000.342",
        ];
        assert_eq!(row, &expected);
    }

    fn time_chart(unit: Unit, values: &[Option<f64>]) -> TimeChart {
        let line = |stroke| Line {
            name: "p99".to_owned(),
            values: values.to_vec(),
            stroke,
        };
        TimeChart {
            title: String::new(),
            note: String::new(),
            unit,
            seconds: (0..values.len()).map(|second| second as f64).collect(),
            lines: vec![line(Stroke::Solid), line(Stroke::Dashed)],
        }
    }

    #[test]
    fn table_holds_what_was_measured_and_says_where_nothing_was() {
        let table = time_chart(Unit::Milliseconds, &[Some(1.25), None]).table();
        assert_eq!(table.head, ["second", "p99, ms"]);
        assert_eq!(table.rows, [["0.0", "1.250"], ["1.0", "–"]]);
    }

    #[test]
    fn latencies_far_apart_are_drawn_on_a_logarithmic_axis_without_zero() {
        let drawn = |unit, values: [f64; 3]| {
            let chart = time_chart(unit, &values.map(Some));
            let mut drawing = chart.drawing();
            (drawing.scale, drawing.lines.remove(0).y)
        };
        let (logarithmic, linear) = (Scale::Logarithmic, Scale::Linear);
        let far = [0.0, 1.0, 1000.0];
        assert_eq!(
            drawn(Unit::Milliseconds, far),
            (logarithmic, vec![None, Some(1.0), Some(1000.0)])
        );
        assert_eq!(
            drawn(Unit::PerSecond, far),
            (linear, far.map(Some).to_vec())
        );
        assert_eq!(drawn(Unit::Milliseconds, [0.0, 1.0, 2.0]).0, Scale::Linear);
    }
}
