//! The table of a run, and its verdict.

use std::collections::BTreeMap;
use std::io::{self, Write};

use sightline_crash::check::{Counts, Kind, Verdict};

/// Writes counts, the first violations, and the verdict. Errors: of `out`.
pub fn write(verdict: &Verdict, out: &mut impl Write) -> io::Result<()> {
    for (name, count) in rows(&verdict.counts) {
        writeln!(out, "{name:<32}{count:>12}")?;
    }
    let mut kinds: BTreeMap<Kind, usize> = BTreeMap::new();
    let mut shown = 0;
    for violation in &verdict.violations {
        let count = kinds.entry(violation.kind).or_default();
        *count += 1;
        if *count <= SHOWN_OF_KIND_MAX && shown < SHOWN_MAX {
            shown += 1;
            writeln!(out, "VIOLATED {violation}")?;
        }
    }
    let (deliver, seed) = (&verdict.deliver, verdict.seed);
    write!(out, "deliver={deliver}, seed {seed}: ")?;
    if kinds.is_empty() {
        return writeln!(out, "everything held");
    }
    let kinds: Vec<String> = kinds
        .iter()
        .map(|(kind, count)| format!("{count} {kind:?}"))
        .collect();
    writeln!(out, "violations: {}", kinds.join(", "))
}

fn rows(counts: &Counts) -> Vec<(String, u64)> {
    let row = |name: &str, count: u64| (name.to_owned(), count);
    let mut rows = vec![
        row("kills", counts.kills),
        row("longest start, ms", counts.ready_ms_max),
        row("events published", counts.published),
        row("events sent again", counts.repeated),
        row("events acknowledged", counts.acknowledged),
        row("nacks", counts.nacked),
        row("records in the log", counts.logged),
        row("viewers' connections", counts.connections),
        row("events delivered", counts.delivered),
    ];
    let outcomes = counts.rows.iter();
    rows.extend(outcomes.map(|(outcome, count)| (format!("rows {outcome}"), *count)));
    rows.push(row("rows that stated lost", counts.lost_stated));
    rows.push(row("deliveries taken back by them", counts.lost_deliveries));
    rows
}

/// More would say the same.
const SHOWN_MAX: usize = 20;

/// So that one kind does not hide the others.
const SHOWN_OF_KIND_MAX: usize = 5;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use sightline_crash::check::Violation;

    use super::*;

    #[test]
    fn all_kinds_are_counted_and_the_first_of_each_named() {
        let lost = (0..30).map(|n| (Kind::AckLost, format!("e{n}")));
        let all = lost.chain([(Kind::Gap, "a gap".to_owned())]);
        let verdict = Verdict {
            seed: 7,
            deliver: "eager".into(),
            violations: all.map(|(kind, text)| Violation { kind, text }).collect(),
            ..Verdict::default()
        };
        let mut out = Vec::new();
        write(&verdict, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(
            text.contains("AckLost: e4\nVIOLATED Gap: a gap\n"),
            "{text}"
        );
        let end = "deliver=eager, seed 7: violations: 30 AckLost, 1 Gap\n";
        assert!(text.ends_with(end), "{text}");
    }
}
