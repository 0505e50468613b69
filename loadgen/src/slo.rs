//! What is asked of a measurement, `p99<1ms,p99.9<20ms,lost==0,cpu<8us`, and whether it was met.
//!
//! A term is a metric, a relation and a value with its unit. Every run has to meet it, and every
//! group too, unless the term names one: `quiet:p99<1.5ms`. What was not measured is not met.

use std::fmt;
use std::str::FromStr;

/// All that is asked, in the order given; never nothing.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Slo {
    /// Each to be met.
    pub(crate) terms: Vec<Term>,
}

/// One thing that is asked.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Term {
    /// As it was given.
    pub(crate) text: String,
    /// The only group it is about, where it names one.
    pub(crate) group: Option<String>,
    /// Of what.
    pub(crate) metric: Metric,
    relation: Relation,
    /// Nanoseconds, bytes, or so many.
    pub(crate) bound: f64,
}

/// What can be asked about.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Metric {
    /// The server's CPU time for a delivery; without deliveries, for an event. Nanoseconds.
    Cpu,
    /// Deliveries a second.
    Deliveries,
    /// Deliveries that came twice.
    Duplicated,
    /// Deliveries to somebody else.
    Foreign,
    /// Deliveries that never came.
    Lost,
    /// Deliveries that were not what was published.
    Malformed,
    /// The longest latency, nanoseconds.
    Max,
    /// The latency at a quantile, nanoseconds.
    Quantile(f64),
    /// Deliveries after a later one.
    Reordered,
    /// The server's resident memory at the end, bytes.
    Rss,
}

/// How a value stands to the bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Relation {
    Above,
    AtLeast,
    AtMost,
    Below,
    Equal,
}

/// Which term cannot be understood, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{term}` (at character {at}): {reason}")]
pub(crate) struct SloError {
    term: String,
    /// Where the term begins, from 1.
    at: usize,
    reason: String,
}

impl FromStr for Slo {
    type Err = SloError;

    fn from_str(text: &str) -> Result<Self, SloError> {
        let mut terms = Vec::new();
        let mut at = 1;
        for part in text.split(',') {
            let lead = part
                .chars()
                .take_while(|letter| letter.is_whitespace())
                .count();
            let term = part.trim();
            terms.push(Term::parse(term).map_err(|reason| SloError {
                term: term.to_owned(),
                at: at + lead,
                reason,
            })?);
            at += part.chars().count() + 1;
        }
        Ok(Self { terms })
    }
}

impl Term {
    /// Errors: what is wrong with it, as a sentence.
    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("there is no term".to_owned());
        }
        let relation_at = text
            .find(['<', '>', '='])
            .ok_or("expected <, <=, ==, >= or > after the metric")?;
        let (subject, rest) = text.split_at(relation_at);
        let (relation, value) = Relation::split(rest)?;
        let (group, metric) = match subject.split_once(':') {
            Some((group, metric)) => (Some(group.trim()), metric),
            None => (None, subject),
        };
        let metric: Metric = metric.trim().parse()?;
        Ok(Self {
            text: text.to_owned(),
            group: group.map(ToOwned::to_owned),
            metric,
            relation,
            bound: metric.parse_bound(value.trim())?,
        })
    }

    /// Whether `value` is as asked.
    pub(crate) fn is_met_by(&self, value: f64) -> bool {
        match self.relation {
            Relation::Above => value > self.bound,
            Relation::AtLeast => value >= self.bound,
            Relation::AtMost => value <= self.bound,
            Relation::Below => value < self.bound,
            Relation::Equal => (value - self.bound).abs() < f64::EPSILON,
        }
    }

    /// Of `values`, the one that is furthest from what is asked; `None` of none.
    pub(crate) fn worst(&self, values: impl Iterator<Item = f64>) -> Option<f64> {
        match self.relation {
            Relation::Above | Relation::AtLeast => values.min_by(f64::total_cmp),
            Relation::AtMost | Relation::Below => values.max_by(f64::total_cmp),
            Relation::Equal => {
                let off = |value: &f64| (value - self.bound).abs();
                values.max_by(|one, other| off(one).total_cmp(&off(other)))
            }
        }
    }

    /// The latency that a percentile is to stay below, for a chart: the quantile and nanoseconds.
    pub(crate) fn objective(&self) -> Option<(f64, f64)> {
        let is_upper = matches!(self.relation, Relation::AtMost | Relation::Below);
        match self.metric {
            Metric::Quantile(quantile) if is_upper => Some((quantile, self.bound)),
            _ => None,
        }
    }
}

impl Relation {
    /// The relation that `text` begins with, and what follows.
    fn split(text: &str) -> Result<(Self, &str), String> {
        // The longer ones first.
        let known = [
            ("<=", Self::AtMost),
            (">=", Self::AtLeast),
            ("==", Self::Equal),
            ("<", Self::Below),
            (">", Self::Above),
        ];
        let mut found = known
            .into_iter()
            .filter_map(|(sign, relation)| Some((relation, text.strip_prefix(sign)?)));
        found
            .next()
            .ok_or_else(|| "a single = is none of <, <=, ==, >= and >".to_owned())
    }
}

impl Metric {
    /// What is said of `value` in a report.
    pub(crate) fn format(self, value: f64) -> String {
        match self.kind() {
            Kind::Bytes => format!("{:.1} MiB", value / MIB),
            Kind::Count => format!("{value:.0}"),
            Kind::Time if self == Self::Cpu => format!("{:.3} µs", value / 1e3),
            Kind::Time => format!("{:.3} ms", value / 1e6),
        }
    }

    fn kind(self) -> Kind {
        match self {
            Self::Cpu | Self::Max | Self::Quantile(_) => Kind::Time,
            Self::Rss => Kind::Bytes,
            Self::Deliveries
            | Self::Duplicated
            | Self::Foreign
            | Self::Lost
            | Self::Malformed
            | Self::Reordered => Kind::Count,
        }
    }

    fn parse_bound(self, text: &str) -> Result<f64, String> {
        let digits = text.find(|letter: char| !letter.is_ascii_digit() && letter != '.');
        let (number, unit) = text.split_at(digits.unwrap_or(text.len()));
        let number: f64 = number
            .parse()
            .map_err(|_| format!("expected a number, not `{text}`"))?;
        let units = self.kind().units();
        let factor = units.iter().find(|(name, _)| *name == unit.trim());
        let names = || {
            units
                .iter()
                .map(|(name, _)| *name)
                .collect::<Vec<_>>()
                .join(", ")
        };
        match factor {
            Some((_, factor)) => Ok(number * factor),
            None if units == COUNT => Err(format!("{self} is a number without a unit")),
            None => Err(format!("{self} needs a unit: one of {}", names())),
        }
    }
}

impl FromStr for Metric {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let named = NAMES.iter().find(|(name, _)| *name == text);
        if let Some((_, metric)) = named {
            return Ok(*metric);
        }
        let percent = text
            .strip_prefix('p')
            .filter(|percent| percent.starts_with(|first: char| first.is_ascii_digit()));
        let Some(percent) = percent else {
            let names: Vec<_> = NAMES.iter().map(|(name, _)| *name).collect();
            return Err(format!(
                "there is no metric `{text}`; there are p50, p99, p99.9 and so on, {}",
                names.join(", ")
            ));
        };
        let percent: Option<f64> = percent.parse().ok();
        let quantile = percent.map(|percent| percent / 100.0);
        quantile
            .filter(|quantile| *quantile > 0.0 && *quantile < 1.0)
            .map(Self::Quantile)
            .ok_or_else(|| format!("`{text}` is no percentile: it lies between p0 and p100"))
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Quantile(quantile) => write!(out, "p{}", (quantile * 1e8).round() / 1e6),
            other => {
                let named = NAMES.iter().find(|(_, metric)| metric == other);
                out.write_str(named.map_or("", |(name, _)| name))
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Bytes,
    Count,
    Time,
}

impl Kind {
    /// Its units, with what one of them is.
    fn units(self) -> &'static [(&'static str, f64)] {
        match self {
            Self::Bytes => BYTES,
            Self::Count => COUNT,
            Self::Time => TIME,
        }
    }
}

const NAMES: &[(&str, Metric)] = &[
    ("cpu", Metric::Cpu),
    ("deliveries", Metric::Deliveries),
    ("duplicated", Metric::Duplicated),
    ("foreign", Metric::Foreign),
    ("lost", Metric::Lost),
    ("malformed", Metric::Malformed),
    ("max", Metric::Max),
    ("reordered", Metric::Reordered),
    ("rss", Metric::Rss),
];
const MIB: f64 = 1024.0 * 1024.0;
const BYTES: &[(&str, f64)] = &[("KiB", 1024.0), ("MiB", MIB), ("GiB", 1024.0 * MIB)];
const COUNT: &[(&str, f64)] = &[("", 1.0)];
const TIME: &[(&str, f64)] = &[
    ("ns", 1.0),
    ("us", 1e3),
    ("µs", 1e3),
    ("ms", 1e6),
    ("s", 1e9),
];

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Slo {
        text.parse().unwrap()
    }

    #[test]
    fn terms_are_metrics_with_bounds() {
        let slo = parse(
            "p99<1ms, p99.9 <= 20ms,lost==0,cpu<8us,quiet:max<1.5s,rss<2GiB,deliveries>=20000",
        );
        let seen: Vec<_> = slo
            .terms
            .iter()
            .map(|term| (term.group.as_deref(), term.metric.to_string(), term.bound))
            .collect();
        let expected = [
            (None, "p99", 1e6),
            (None, "p99.9", 20e6),
            (None, "lost", 0.0),
            (None, "cpu", 8e3),
            (Some("quiet"), "max", 1.5e9),
            (None, "rss", 2048.0 * MIB),
            (None, "deliveries", 20_000.0),
        ];
        let expected = expected.map(|(group, metric, bound)| (group, metric.to_owned(), bound));
        assert_eq!(seen, expected);
    }

    fn check_error(text: &str, expected: &str) {
        assert_eq!(text.parse::<Slo>().unwrap_err().to_string(), expected);
    }

    #[test]
    fn error_says_which_term_where_and_why() {
        let none = "there is no term";
        check_error("", &format!("`` (at character 1): {none}"));
        check_error("p99<1ms,", &format!("`` (at character 9): {none}"));
        let relation = "expected <, <=, ==, >= or > after the metric";
        check_error(
            "p99<1ms, p50",
            &format!("`p50` (at character 10): {relation}"),
        );
        let unit = "p99 needs a unit: one of ns, us, µs, ms, s";
        check_error("p99<1", &format!("`p99<1` (at character 1): {unit}"));
        check_error("µ:p99<1,p", &format!("`µ:p99<1` (at character 1): {unit}"));
        check_error(
            "lost==1ms",
            "`lost==1ms` (at character 1): lost is a number without a unit",
        );
        check_error(
            "p99<ms",
            "`p99<ms` (at character 1): expected a number, not `ms`",
        );
        check_error(
            "p100<1ms",
            "`p100<1ms` (at character 1): `p100` is no percentile: it lies between p0 and p100",
        );
        check_error(
            "lost=0",
            "`lost=0` (at character 1): a single = is none of <, <=, ==, >= and >",
        );
        let names = "cpu, deliveries, duplicated, foreign, lost, malformed, max, reordered, rss";
        check_error(
            "latency<1ms",
            &format!(
                "`latency<1ms` (at character 1): there is no metric `latency`; there are p50, p99, p99.9 and so on, {names}"
            ),
        );
    }

    fn check_met(text: &str, values: &[f64], worst: f64, is_met: bool) {
        let term = parse(text).terms.remove(0);
        let found = term.worst(values.iter().copied()).unwrap();
        assert_eq!((found, term.is_met_by(found)), (worst, is_met), "{text}");
    }

    #[test]
    fn worst_of_the_runs_decides() {
        check_met("p99<1ms", &[0.9e6, 1e6], 1e6, false);
        check_met("p99<=1ms", &[0.9e6, 1e6], 1e6, true);
        check_met("lost==0", &[0.0, 3.0, 0.0], 3.0, false);
        check_met("deliveries>100", &[200.0, 101.0], 101.0, true);
        check_met("deliveries>=100", &[99.0, 101.0], 99.0, false);
    }

    #[test]
    fn only_upper_bounds_of_percentiles_are_drawn() {
        let objective = |text: &str| parse(text).terms[0].objective();
        assert_eq!(objective("p99<1ms"), Some((0.99, 1e6)));
        assert_eq!(objective("p99>1ms"), None);
        assert_eq!(objective("max<1ms"), None);
    }

    proptest! {
        #[test]
        fn any_text_is_terms_or_an_error_that_names_one(text in "[p0-9.a-zµ<>=:, ]{0,40}") {
            match text.parse::<Slo>() {
                Ok(slo) => prop_assert_eq!(slo.terms.len(), text.split(',').count()),
                Err(error) => prop_assert!(text.contains(&error.term)),
            }
        }

        #[test]
        fn term_means_what_it_says(
            percent in 1_u32..100, relation in "<|<=|>|>=|==", ms in 1_u32..100_000,
        ) {
            let text = format!("p{percent}{relation}{ms}ms");
            let term = parse(&text).terms.remove(0);
            prop_assert_eq!(term.metric.to_string(), format!("p{percent}"));
            prop_assert_eq!(term.bound, f64::from(ms) * 1e6);
            prop_assert_eq!(&term.text, &text);
        }
    }
}
