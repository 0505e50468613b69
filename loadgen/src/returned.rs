//! What came of the viewers that connected in the course of a phase: whether each has what it was
//! to get, and after how long.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use latency_report::percentiles;
use serde::Serialize;

use crate::record::{GroupRecord, Violations};
use crate::report::{Verdict, latency_text};
use crate::returners::Greeting;

/// The viewers of one phase, as they were at its end.
#[derive(Debug)]
pub(crate) struct Returned {
    /// What each was greeted with, in their order; `None` where it was not.
    pub(crate) greetings: Vec<Option<Greeting>>,
    /// What each was to be greeted with.
    pub(crate) outcome: &'static str,
    /// What each got of what it had missed, and whether it was as it should be. The latency in it
    /// says nothing.
    pub(crate) record: GroupRecord,
    /// From the intended dial of each to its having all; those only who have.
    pub(crate) caught_up_ns: Histogram<u64>,
    /// Viewers to whom the server said that replay was complete when it was not.
    pub(crate) early: u64,
    /// From the first intended dial to the last viewer's having all.
    pub(crate) seconds: f64,
    /// How late each was dialled. That is in its time, and makes nothing shorter.
    pub(crate) slip_ns: Histogram<u64>,
    /// The share of the phase in which their loop had something to do, 0 to 1.
    pub(crate) busy: f64,
}

/// The same as a part of a report.
#[derive(Debug, Serialize)]
pub(crate) struct ReturnedReport {
    viewers: usize,
    /// Viewers that have all that they had missed.
    caught_up: u64,
    /// What the viewers were greeted with, and how many.
    outcomes: BTreeMap<String, u64>,
    expected: u64,
    delivered: u64,
    #[serde(flatten)]
    violations: Violations,
    /// From the first intended dial to the last viewer's having all; absent where it would not
    /// stand.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) seconds: Option<f64>,
    /// From the intended dial of each to its having all; empty where it would not stand.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    caught_up_ns: BTreeMap<&'static str, u64>,
    /// How late they were dialled.
    dial_slip_ns: BTreeMap<&'static str, u64>,
    /// The share of time in which their loop had something to do, 0 to 1.
    busy: f64,
    /// All of `caught_up_ns`.
    #[serde(skip)]
    pub(crate) histogram: Histogram<u64>,
}

impl Returned {
    /// Everything for which the phase fails.
    pub(crate) fn failures(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        let without = self.greetings.len() as u64 - self.caught_up_ns.len();
        if without > 0 {
            let outcomes: Vec<_> = self
                .outcomes()
                .into_iter()
                .map(|(outcome, count)| format!("{outcome} {count}"))
                .collect();
            let (count, outcomes) = (self.greetings.len(), outcomes.join(", "));
            reasons.push(format!(
                "{without} of {count} viewers have not what they came for (to be {}: {outcomes})",
                self.outcome
            ));
        }
        if self.early > 0 {
            reasons.push(format!(
                "{} viewers heard of their end too early",
                self.early
            ));
        }
        if !self.record.violations.is_empty() {
            reasons.push("what the returning viewers got is not what they had missed".to_owned());
        }
        reasons
    }

    fn outcomes(&self) -> BTreeMap<String, u64> {
        let mut outcomes = BTreeMap::new();
        for greeting in &self.greetings {
            let outcome = greeting.as_ref().map_or("none", |it| it.outcome.as_str());
            *outcomes.entry(outcome.to_owned()).or_insert(0) += 1;
        }
        outcomes
    }
}

impl ReturnedReport {
    /// Sums up `returned`, whose phase was judged `verdict`.
    pub(crate) fn new(returned: Returned, verdict: Verdict) -> Self {
        let stands = verdict == Verdict::Clean;
        Self {
            viewers: returned.greetings.len(),
            caught_up: returned.caught_up_ns.len(),
            outcomes: returned.outcomes(),
            expected: returned.record.expected,
            delivered: returned.record.delivered,
            violations: returned.record.violations,
            seconds: stands.then_some(returned.seconds),
            caught_up_ns: if stands {
                percentiles(&returned.caught_up_ns)
            } else {
                BTreeMap::new()
            },
            histogram: returned.caught_up_ns,
            dial_slip_ns: percentiles(&returned.slip_ns),
            busy: returned.busy,
        }
    }

    /// The line for people.
    pub(crate) fn line(&self) -> String {
        let mut line = format!(
            "returned {}/{} viewers: delivered {}/{} ({})",
            self.caught_up, self.viewers, self.delivered, self.expected, self.violations,
        );
        line.push_str(&latency_text(&self.caught_up_ns));
        if let Some(seconds) = self.seconds {
            let rate = self.delivered as f64 / seconds;
            line.push_str(&format!(
                "  all after {seconds:.3} s, {rate:.0} deliveries/s, reading {:.0} % of it",
                self.busy * 100.0
            ));
        }
        line
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::report::tests::histogram;
    use crate::returners::RESUMED;

    fn greeting(outcome: &str) -> Option<Greeting> {
        let (epoch, outcome) = ("0000abcd".to_owned(), outcome.to_owned());
        let to = Some(1);
        Some(Greeting { epoch, outcome, to })
    }

    /// A thousand viewers that got two events each.
    pub(crate) fn returned() -> Returned {
        let mut record = GroupRecord::new();
        (record.expected, record.delivered) = (2000, 2000);
        Returned {
            greetings: vec![greeting(RESUMED); 1000],
            outcome: RESUMED,
            record,
            caught_up_ns: histogram(1000),
            early: 0,
            seconds: 0.5,
            slip_ns: histogram(1000),
            busy: 0.6,
        }
    }

    fn check(change: impl Fn(&mut Returned), expected: &[&str]) {
        let mut returned = returned();
        change(&mut returned);
        assert_eq!(returned.failures(), expected);
    }

    #[test]
    fn whoever_has_not_all_fails_the_phase() {
        check(|_| {}, &[]);
        let reset = |returned: &mut Returned| {
            returned.greetings[0] = greeting("reset");
            returned.greetings[1] = None;
            returned.caught_up_ns = histogram(998);
        };
        let line = "2 of 1000 viewers have not what they came for (to be resumed: none 1, reset 1, \
                    resumed 998)";
        check(reset, &[line]);
        let early = |returned: &mut Returned| returned.early = 3;
        check(early, &["3 viewers heard of their end too early"]);
        let again = |returned: &mut Returned| returned.record.violations.duplicated = 1;
        check(
            again,
            &["what the returning viewers got is not what they had missed"],
        );
    }

    #[test]
    fn time_is_told_only_where_it_stands() {
        let clean = ReturnedReport::new(returned(), Verdict::Clean);
        assert_eq!(
            clean.line(),
            "returned 1000/1000 viewers: delivered 2000/2000 (lost 0 dup 0 reordered 0 foreign 0 \
             malformed 0)  p50 5.001  p90 5.001  p99 5.001  max 5.001 ms  all after 0.500 s, 4000 \
             deliveries/s, reading 60 % of it"
        );
        let bound = ReturnedReport::new(returned(), Verdict::GeneratorBound);
        assert!(bound.line().ends_with("malformed 0)"), "{}", bound.line());
    }
}
