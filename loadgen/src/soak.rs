//! How a server's memory grows over a long load.

use serde::Serialize;

use crate::report::MIB;

/// Resident memory over the runs of a load, one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Growth {
    first_bytes: u64,
    last_bytes: u64,
    /// Of the straight line that fits all runs best (least squares), the first third left out:
    /// what a server takes once is no leak.
    pub(crate) bytes_per_minute: f64,
}

impl Growth {
    /// The growth over `rss_bytes`, taken every `interval_seconds`; `None` where fewer than three
    /// are left to fit a line to.
    pub(crate) fn new(rss_bytes: &[u64], interval_seconds: f64) -> Option<Self> {
        let settled = &rss_bytes[rss_bytes.len() / 3..];
        if settled.len() < 3 || interval_seconds <= 0.0 {
            return None;
        }
        let minute = |index: usize| index as f64 * interval_seconds / 60.0;
        let points = settled.iter().enumerate();
        let points: Vec<_> = points
            .map(|(index, rss)| (minute(index), *rss as f64))
            .collect();
        Some(Self {
            first_bytes: rss_bytes[0],
            last_bytes: rss_bytes[rss_bytes.len() - 1],
            bytes_per_minute: slope(&points),
        })
    }

    /// The line for people.
    pub(crate) fn line(&self) -> String {
        let (first, last) = (self.first_bytes as f64 / MIB, self.last_bytes as f64 / MIB);
        let slope = self.bytes_per_minute / 1024.0;
        format!("server RSS {first:.1} → {last:.1} MiB, {slope:+.1} KiB a minute")
    }
}

/// Of the line that fits `points` best; their first coordinates differ.
fn slope(points: &[(f64, f64)]) -> f64 {
    let count = points.len() as f64;
    let mean_x = points.iter().map(|(x, _)| x).sum::<f64>() / count;
    let mean_y = points.iter().map(|(_, y)| y).sum::<f64>() / count;
    let both: f64 = points
        .iter()
        .map(|(x, y)| (x - mean_x) * (y - mean_y))
        .sum();
    let square: f64 = points.iter().map(|(x, _)| (x - mean_x).powi(2)).sum();
    both / square
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn growth_is_that_of_the_settled_runs() {
        // It takes 50 MiB at first, and then 6 KiB a run of half a minute.
        let rss = [10 * 1024, 50 * 1024, 60 * 1024];
        let grown = (0..7).map(|run| 60 * 1024 + 6 * run);
        let rss: Vec<u64> = rss.into_iter().chain(grown).map(|kib| kib * 1024).collect();
        let growth = Growth::new(&rss, 30.0).unwrap();
        assert!(
            (growth.bytes_per_minute - 12.0 * 1024.0).abs() < 1.0,
            "{growth:?}"
        );
        assert_eq!(
            growth.line(),
            "server RSS 10.0 → 60.0 MiB, +12.0 KiB a minute"
        );
    }

    #[test]
    fn few_runs_have_no_slope() {
        assert_eq!(Growth::new(&[], 30.0), None);
        assert_eq!(Growth::new(&[1, 2, 3], 30.0), None);
        assert!(Growth::new(&[5, 5, 5, 5], 30.0).is_some());
        assert_eq!(Growth::new(&[5, 5, 5, 5], 0.0), None);
    }
}
