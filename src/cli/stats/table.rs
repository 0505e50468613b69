//! A reading as a table for a person.

use std::time::Duration;

use super::reading::{Core, Numbers, Percentiles, Reading};
use crate::cli::client::printable;
use crate::counters::Stage;

/// The lines for `reading` of the gateway at `url`; with what came each second since `before`.
pub(super) fn lines(url: &str, reading: &Reading, before: Option<&Reading>) -> Vec<String> {
    // One that was started anew counts from nothing.
    let before = before.filter(|before| before.uptime_ms < reading.uptime_ms);
    let mut lines = vec![headline(url, reading), String::new()];
    lines.extend(aligned(1, &numbers(reading, before)));
    lines.push(String::new());
    lines.extend(aligned(2, &stages(reading)));
    lines
}

fn headline(url: &str, reading: &Reading) -> String {
    let version = printable(&reading.version);
    let up = duration(Duration::from_millis(reading.uptime_ms));
    let cores = reading.cores.len();
    let plural = if cores == 1 { "core" } else { "cores" };
    format!("sightline {version} at {url}, up {up}, {cores} {plural}")
}

/// The heads, a row for the node and one for each core. The times are those of the stage `total`.
pub(crate) fn numbers(reading: &Reading, before: Option<&Reading>) -> Vec<Vec<String>> {
    let elapsed_ms = before.map(|before| reading.uptime_ms - before.uptime_ms);
    let row = |name: String, now: &Numbers, then: Option<&Numbers>, times: Option<&Percentiles>| {
        let rate = |of: fn(&Numbers) -> u64| match (then, elapsed_ms) {
            (Some(then), Some(ms)) => per_second(of(now).saturating_sub(of(then)), ms),
            _ => NOTHING.to_owned(),
        };
        let time = |q, of: fn(&Percentiles) -> f64| {
            times.map_or(NOTHING.to_owned(), |times| microseconds(times, q, of))
        };
        vec![
            name,
            grouped(now.connections.open),
            grouped(now.connections.viewers),
            grouped(now.connections.publishers),
            grouped(now.events.received),
            rate(|of| of.events.received),
            grouped(now.deliveries.written),
            rate(|of| of.deliveries.written),
            bytes(now.outbox_bytes),
            time(0.5, |times| times.p50),
            time(0.99, |times| times.p99),
            time(1.0, |times| times.max),
        ]
    };
    let heads = [
        "",
        "sockets",
        "viewers",
        "publishers",
        "events",
        "/s",
        "deliveries",
        "/s",
        "outboxes",
        "p50 µs",
        "p99 µs",
        "max µs",
    ];
    let all = row(
        "total".to_owned(),
        &reading.total,
        before.map(|before| &before.total),
        reading.stages_us.get(Stage::Total.name()),
    );
    let of_core = |(at, core): (usize, &Core)| {
        let then = before.and_then(|before| before.cores.get(at));
        let times = core.stages_us.get(Stage::Total.name());
        row(
            format!("core {at}"),
            &core.numbers,
            then.map(|then| &then.numbers),
            times,
        )
    };
    let mut rows = vec![heads.map(String::from).to_vec(), all];
    rows.extend(reading.cores.iter().enumerate().map(of_core));
    rows
}

fn stages(reading: &Reading) -> Vec<Vec<String>> {
    let heads = [
        "stage",
        "since the start",
        "count",
        "p50 µs",
        "p90",
        "p99",
        "p99.9",
        "p99.99",
        "max",
    ];
    let nothing = Percentiles::default();
    let row = |stage: Stage| {
        let times = reading.stages_us.get(stage.name()).unwrap_or(&nothing);
        let time = |q, of: fn(&Percentiles) -> f64| microseconds(times, q, of);
        vec![
            stage.name().to_owned(),
            stage.span().to_owned(),
            grouped(times.count),
            time(0.5, |times| times.p50),
            time(0.9, |times| times.p90),
            time(0.99, |times| times.p99),
            time(0.999, |times| times.p99_9),
            time(0.9999, |times| times.p99_99),
            time(1.0, |times| times.max),
        ]
    };
    let mut rows = vec![heads.map(String::from).to_vec()];
    rows.extend(Stage::ALL.map(row));
    rows
}

/// Columns as wide as their widest cell: the first `left` begin at the left, the others end at the
/// right.
fn aligned(left: usize, rows: &[Vec<String>]) -> Vec<String> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width_of = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width_of).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).enumerate();
        let cells = cells.map(|(column, (cell, width))| match column < left {
            true => format!("{cell:<width$}"),
            false => format!("{cell:>width$}"),
        });
        let line = cells.collect::<Vec<_>>().join("  ");
        line.trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

/// The time at quantile `q`, where enough samples lie beyond it.
fn microseconds(times: &Percentiles, q: f64, of: fn(&Percentiles) -> f64) -> String {
    let is_carried = if q < 1.0 {
        latency_report::is_carried(times.count, q)
    } else {
        times.count > 0
    };
    let us = of(times);
    match us {
        _ if !is_carried => NOTHING.to_owned(),
        _ if us <= LEAST_US => format!("≤{LEAST_US}"),
        _ if us < 1_000.0 => format!("{us:.1}"),
        _ => grouped(us as u64),
    }
}

fn per_second(count: u64, ms: u64) -> String {
    let rate = count as f64 * 1e3 / ms as f64;
    if rate > 0.0 && rate < 10.0 {
        format!("{rate:.1}")
    } else {
        grouped(rate.round() as u64)
    }
}

/// With commas between thousands.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn bytes(count: u64) -> String {
    const UNITS: [&str; 3] = ["KiB", "MiB", "GiB"];
    if count < 1_024 {
        return format!("{count} B");
    }
    let mut left = count as f64 / 1_024.0;
    let mut units = UNITS.into_iter().peekable();
    while let Some(unit) = units.next() {
        if left < 1_024.0 || units.peek().is_none() {
            return format!("{left:.1} {unit}");
        }
        left /= 1_024.0;
    }
    String::new()
}

/// The two largest units of it.
pub(crate) fn duration(up: Duration) -> String {
    let seconds = up.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, ..) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

/// Where there is nothing to say.
pub(crate) const NOTHING: &str = "–";
/// What is shorter counts as that much.
const LEAST_US: f64 = 1.0;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::{Value, json};

    use super::*;

    fn numbers_of(n: u64) -> Value {
        json!({
            "connections": {"open": 3 * n, "viewers": 2 * n, "publishers": n},
            "events": {"received": 1_000 * n}, "deliveries": {"written": 250_000 * n},
            "outboxBytes": 1_536 * n,
        })
    }

    fn reading(uptime_ms: u64, n: u64) -> Reading {
        let times = json!({"count": 5_000, "mean": 9.0, "p50": 12.34, "p90": 99.9, "p99": 1_234.5,
            "p99.9": 2.0, "p99.99": 3.0, "max": 98_765.4});
        let stages = json!({"total": times, "parsed": {"count": 0}, "unheard": times});
        let mut core = numbers_of(n);
        core["stagesUs"] = stages.clone();
        let page = json!({"version": "1.2.3\u{1b}[2J", "uptimeMs": uptime_ms, "more": [1],
            "total": numbers_of(2 * n), "cores": [core, core], "stagesUs": stages});
        Reading::parse(&page.to_string()).unwrap()
    }

    fn cells(line: &str) -> Vec<&str> {
        line.split("  ")
            .map(str::trim)
            .filter(|cell| !cell.is_empty())
            .collect()
    }

    #[test]
    fn a_node_and_its_cores_stand_in_rows() {
        let lines = lines("ws://gate", &reading(8_000_000, 1_000), None);
        assert_eq!(
            lines[0],
            "sightline 1.2.3\\u{1b}[2J at ws://gate, up 2 h 13 min, 2 cores"
        );
        assert_eq!(
            cells(&lines[3]),
            [
                "total",
                "6,000",
                "4,000",
                "2,000",
                "2,000,000",
                "–",
                "500,000,000",
                "–",
                "2.9 MiB",
                "12.3",
                "1,234",
                "98,765"
            ]
        );
        assert_eq!(cells(&lines[4])[..2], ["core 0", "3,000"]);
        assert_eq!(cells(&lines[5])[..2], ["core 1", "3,000"]);
        assert_eq!(lines.len(), 6 + 1 + 1 + Stage::ALL.len());
        // Five thousand times carry p99 and not p99.9.
        assert_eq!(
            cells(lines.last().unwrap()),
            [
                "total",
                "read → written",
                "5,000",
                "12.3",
                "99.9",
                "1,234",
                "–",
                "–",
                "98,765"
            ]
        );
        let ends = lines[8..].iter().map(|line| line.chars().count());
        assert_eq!(
            ends.collect::<std::collections::HashSet<_>>().len(),
            1,
            "{lines:#?}"
        );
    }

    #[test]
    fn rates_are_over_the_gateways_own_time() {
        let check = |before: Option<Reading>, expected: [&str; 2]| {
            let lines = lines("ws://gate", &reading(20_000, 5), before.as_ref());
            let total = cells(&lines[3]);
            assert_eq!([total[5], total[7]], expected, "{lines:#?}");
        };
        check(Some(reading(18_000, 4)), ["1,000", "250,000"]);
        check(Some(reading(10_000, 5)), ["0", "0"]);
        // Started anew in between.
        check(Some(reading(30_000, 4)), ["–", "–"]);
        check(None, ["–", "–"]);
        assert_eq!(per_second(1, 2_000), "0.5");
    }

    #[test]
    fn a_page_of_another_kind_is_shown_as_far_as_it_goes_or_refused() {
        let empty = lines("ws://gate", &Reading::parse("{}").unwrap(), None);
        assert!(empty[0].contains("0 cores"), "{empty:#?}");
        for page in ["", "[", "7", r#"{"cores": 3}"#] {
            assert!(Reading::parse(page).is_err(), "{page}");
        }
    }

    #[test]
    fn numbers_are_written_for_people() {
        let check = |number: u64, in_groups: &str, in_bytes: &str| {
            assert_eq!(grouped(number), in_groups);
            assert_eq!(bytes(number), in_bytes);
        };
        check(0, "0", "0 B");
        check(999, "999", "999 B");
        check(1_000, "1,000", "1000 B");
        check(123_456, "123,456", "120.6 KiB");
        check(1 << 31, "2,147,483,648", "2.0 GiB");
        check(1 << 51, "2,251,799,813,685,248", "2097152.0 GiB");
        let check = |seconds, expected: &str| {
            assert_eq!(duration(Duration::from_secs(seconds)), expected);
        };
        let shortest = Percentiles {
            count: 20,
            p50: 1.0,
            ..Percentiles::default()
        };
        assert_eq!(microseconds(&shortest, 0.5, |times| times.p50), "≤1");
        check(59, "59 s");
        check(61, "1 min 1 s");
        check(86_399, "23 h 59 min");
        check(200_000, "2 d 7 h");
    }
}
