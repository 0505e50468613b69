//! Two summaries beside each other: the ratio of their medians, and how sure it is.
//!
//! The repeats of both are drawn again at random many times over (the bootstrap), which shows how
//! the ratio of the medians would spread over other repeats of the same kind. Source: B. Efron,
//! "Bootstrap methods: another look at the jackknife" (1979), percentile interval.

use fastrand::Rng;
use serde_json::Value;

use crate::recorded::Recorded;
use crate::summary::Spread;

/// One number of two summaries.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Ratio {
    /// Its name.
    metric: String,
    /// The medians, first and second.
    medians: (f64, f64),
    /// The second over the first.
    ratio: f64,
    /// Where 95 % of the ratios lie; `None` with too few repeats.
    interval: Option<(f64, f64)>,
}

/// What differs between the loads of `first` and `second`, a line each; such are not compared.
pub(crate) fn differences(first: &Recorded, second: &Recorded) -> Vec<String> {
    let mut found = Vec::new();
    if first.scenario != second.scenario {
        let (one, other) = (&first.scenario, &second.scenario);
        found.push(format!("scenario: {one} and {other}"));
    }
    differ("load", &first.load, &second.load, &mut found);
    found
}

/// Appends the paths at which `one` and `other` differ, with both values.
fn differ(path: &str, one: &Value, other: &Value, found: &mut Vec<String>) {
    match (one, other) {
        (Value::Object(members), Value::Object(others)) => {
            let names = members
                .keys()
                .chain(others.keys().filter(|name| !members.contains_key(*name)));
            for name in names {
                differ(&format!("{path}.{name}"), &one[name], &other[name], found);
            }
        }
        (Value::Array(items), Value::Array(others)) if items.len() == others.len() => {
            for (at, (item, other)) in items.iter().zip(others).enumerate() {
                differ(&format!("{path}[{at}]"), item, other, found);
            }
        }
        _ if one == other => {}
        _ => found.push(format!("{path}: {one} and {other}")),
    }
}

/// The ratios of all numbers that both have.
pub(crate) fn ratios(first: &Recorded, second: &Recorded) -> Vec<Ratio> {
    // The same files are to give the same answer.
    let mut rng = Rng::with_seed(1);
    let both = first.spread.iter().filter_map(|(metric, spread)| {
        let other = second.spread.get(metric)?;
        Ratio::new(metric, spread, other, &mut rng)
    });
    both.collect()
}

impl Ratio {
    /// `None` where the first is zero.
    fn new(metric: &str, first: &Spread, second: &Spread, rng: &mut Rng) -> Option<Self> {
        let ratio = second.median / first.median;
        ratio.is_finite().then(|| Self {
            metric: metric.to_owned(),
            medians: (first.median, second.median),
            ratio,
            interval: interval(&first.values, &second.values, rng),
        })
    }

    /// For people.
    pub(crate) fn line(&self) -> String {
        let Self {
            metric,
            medians,
            ratio,
            interval,
        } = self;
        let (first, second) = (self.format(medians.0), self.format(medians.1));
        let judged = match interval {
            None => "too few repeats to tell".to_owned(),
            Some((low, high)) => {
                let word = if *low > 1.0 {
                    "more"
                } else if *high < 1.0 {
                    "less"
                } else {
                    "no difference shown"
                };
                format!("{low:.3}–{high:.3}  {word}")
            }
        };
        format!("{metric:<34} {first:>14} {second:>14}  {ratio:.3}  {judged}")
    }

    fn format(&self, value: f64) -> String {
        if self.metric.contains("latency_ns") || self.metric.contains("service_ns") {
            format!("{:.3} ms", value / 1e6)
        } else if self.metric.contains("cpu_ns") {
            format!("{:.3} µs", value / 1e3)
        } else if self.metric.ends_with("_bytes") {
            format!("{:.1} MiB", value / (1024.0 * 1024.0))
        } else if self.metric.ends_with("_share") {
            format!("{value:.3}")
        } else {
            format!("{value:.0}")
        }
    }
}

/// The lines for people: a head, the ratios, and what they rest on.
pub(crate) fn lines(first: &Recorded, second: &Recorded, names: [&str; 2]) -> Vec<String> {
    let [one, other] = names;
    let head = format!("A {one} ({}, {} runs)", first.target, first.runs.len());
    let next = format!("B {other} ({}, {} runs)", second.target, second.runs.len());
    let title = format!(
        "{:<34} {:>14} {:>14}  B/A    95 % of it",
        "median", "A", "B"
    );
    let mut lines = vec![head, next, title];
    lines.extend(ratios(first, second).iter().map(Ratio::line));
    let fewest = first.runs.len().min(second.runs.len());
    if fewest < REPEATS_MIN {
        lines.push(format!(
            "an interval needs {REPEATS_MIN} runs on either side (--repeat {REPEATS_MIN})"
        ));
    }
    lines
}

/// Where the middle 95 % of the bootstrapped ratios of medians lie.
fn interval(first: &[f64], second: &[f64], rng: &mut Rng) -> Option<(f64, f64)> {
    if first.len().min(second.len()) < REPEATS_MIN {
        return None;
    }
    let mut drawn = |values: &[f64]| {
        let again = values.iter().map(|_| values[rng.usize(..values.len())]);
        Spread::new(again.collect()).map_or(f64::NAN, |spread| spread.median)
    };
    let ratios = std::iter::repeat_with(|| drawn(second) / drawn(first));
    let mut ratios: Vec<_> = ratios.take(DRAWS).collect();
    ratios.sort_by(f64::total_cmp);
    let at = |share: f64| ratios[(share * (DRAWS - 1) as f64).round() as usize];
    Some((at(0.025), at(0.975)))
}

/// With fewer, the interval would say more of chance than of the servers.
const REPEATS_MIN: usize = 5;
const DRAWS: usize = 10_000;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use serde_json::json;

    fn check_differences(one: &Value, other: &Value, expected: &[&str]) {
        let mut found = Vec::new();
        differ("load", one, other, &mut found);
        assert_eq!(found, expected, "{one} {other}");
    }

    #[test]
    fn differences_say_where_and_what() {
        let load = json!({"size": "x", "groups": [{"users": 1, "rate": 20.0}]});
        check_differences(&load, &load, &[]);
        let other = json!({"size": "y", "groups": [{"users": 1, "rate": 10.0}], "more": 1});
        check_differences(
            &load,
            &other,
            &[
                "load.groups[0].rate: 20.0 and 10.0",
                "load.size: \"x\" and \"y\"",
                "load.more: null and 1",
            ],
        );
        let fewer = json!({"size": "x", "groups": []});
        check_differences(
            &load,
            &fewer,
            &["load.groups: [{\"rate\":20.0,\"users\":1}] and []"],
        );
    }

    fn ratio(first: &[f64], second: &[f64]) -> Ratio {
        let spread = |values: &[f64]| Spread::new(values.to_vec()).unwrap();
        let mut rng = Rng::with_seed(7);
        Ratio::new("x", &spread(first), &spread(second), &mut rng).unwrap()
    }

    #[test]
    fn clear_difference_is_told_from_noise() {
        let base = [10.0, 10.1, 9.9, 10.2, 9.8];
        let worse = ratio(&base, &base.map(|value| value * 1.5));
        let (low, high) = worse.interval.unwrap();
        assert!((1.0..1.5).contains(&low) && high >= 1.5, "{low} {high}");
        assert!(worse.line().ends_with("more"), "{}", worse.line());
        let noisy = ratio(&base, &[9.0, 10.5, 10.0, 11.0, 9.5]);
        assert!(
            noisy.line().ends_with("no difference shown"),
            "{}",
            noisy.line()
        );
        let better = ratio(&base, &base.map(|value| value / 2.0));
        assert!(better.line().ends_with("less"), "{}", better.line());
    }

    #[test]
    fn few_repeats_have_a_ratio_and_no_interval() {
        let few = ratio(&[10.0, 10.0, 10.0, 10.0], &[20.0; 9]);
        assert_eq!((few.ratio, few.interval), (2.0, None));
        assert!(
            few.line().ends_with("too few repeats to tell"),
            "{}",
            few.line()
        );
    }
}
