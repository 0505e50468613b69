//! A histogram as the percentile distribution that HdrHistogram's plotter reads (`.hgrm`).
//!
//! The layout is that of Java's `AbstractHistogram.outputPercentileDistribution`, which the
//! `hdrhistogram` crate does not write. Source: HdrHistogram 2.2, `AbstractHistogram.java`.

use std::fmt::Write as _;

use hdrhistogram::Histogram;

use crate::NS_PER_MS;

/// Renders `histogram` (of nanoseconds) in milliseconds, five ticks a half distance.
pub fn render_ms(histogram: &Histogram<u64>) -> String {
    let mut out = String::from("       Value     Percentile TotalCount 1/(1-Percentile)\n\n");
    let mut count = 0;
    for step in histogram.iter_quantiles(TICKS_PER_HALF_DISTANCE) {
        count += step.count_since_last_iteration();
        let quantile = step.quantile_iterated_to();
        let value = step.value_iterated_to() as f64 / NS_PER_MS;
        write_row(&mut out, value, quantile, count);
    }
    write_footer(&mut out, histogram);
    out
}

fn write_row(out: &mut String, value: f64, quantile: f64, count: u64) {
    let row = if quantile < 1.0 {
        let inverse = 1.0 / (1.0 - quantile);
        writeln!(
            out,
            "{value:12.3} {quantile:2.12} {count:10} {inverse:14.2}"
        )
    } else {
        writeln!(out, "{value:12.3} {quantile:2.12} {count:10}")
    };
    row.expect("a String takes every write");
}

fn write_footer(out: &mut String, histogram: &Histogram<u64>) {
    let mean = histogram.mean() / NS_PER_MS;
    let deviation = histogram.stdev() / NS_PER_MS;
    let max = histogram.max() as f64 / NS_PER_MS;
    let count = histogram.len();
    let buckets = histogram.buckets();
    let sub_buckets = (2 * 10_u32.pow(u32::from(histogram.sigfig()))).next_power_of_two();
    write!(
        out,
        "#[Mean    = {mean:12.3}, StdDeviation   = {deviation:12.3}]\n\
         #[Max     = {max:12.3}, Total count    = {count:12}]\n\
         #[Buckets = {buckets:12}, SubBuckets     = {sub_buckets:12}]\n"
    )
    .expect("a String takes every write");
}

const TICKS_PER_HALF_DISTANCE: u32 = 5;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::latency_histogram;

    /// The file was written by HdrHistogram's JavaScript port from the same values; its maximum
    /// is the one thing that Java writes differently (as the highest equivalent value).
    #[test]
    fn distribution_equals_the_reference() {
        let mut histogram = latency_histogram();
        let mut state = 1_u64;
        for index in 0..1999 {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let outlier = if index % 200 == 0 { 40_000_000 } else { 0 };
            histogram.saturating_record(1_000 + (state >> 40) % 9_000_000 + outlier);
        }
        assert_eq!(
            render_ms(&histogram),
            include_str!("../tests/data/golden.hgrm")
        );
    }

    #[test]
    fn empty_histogram_is_a_header_and_a_footer() {
        let text = render_ms(&latency_histogram());
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 5, "{text}");
        assert!(
            lines[3].ends_with("Total count    =            0]"),
            "{text}"
        );
    }
}
