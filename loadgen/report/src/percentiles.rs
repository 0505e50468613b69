//! What may be said of a distribution: a percentile only where at least ten samples lie beyond
//! it, and the maximum always.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

/// What is shown of a distribution, in this order, and from which quantile it is read (the
/// maximum from none).
pub const SHOWN: [(&str, Option<f64>); 7] = [
    ("p50", Some(0.5)),
    ("p90", Some(0.9)),
    ("p99", Some(0.99)),
    ("p99.9", Some(0.999)),
    ("p99.99", Some(0.9999)),
    ("p99.999", Some(0.99999)),
    ("max", None),
];

/// The values of [`SHOWN`] by name, in the histogram's unit, where enough samples carry them;
/// nothing of nothing.
pub fn percentiles(histogram: &Histogram<u64>) -> BTreeMap<&'static str, u64> {
    let value = |quantile: Option<f64>| match quantile {
        None => (!histogram.is_empty()).then(|| histogram.max()),
        Some(quantile) => value_at(histogram, quantile),
    };
    SHOWN
        .iter()
        .filter_map(|(name, quantile)| Some((*name, value(*quantile)?)))
        .collect()
}

/// The value at `quantile` (0 to 1), or `None` where fewer than ten samples lie beyond it.
pub fn value_at(histogram: &Histogram<u64>, quantile: f64) -> Option<u64> {
    is_carried(histogram.len(), quantile).then(|| histogram.value_at_quantile(quantile))
}

/// Whether at least ten of `samples` lie beyond `quantile` (0 to 1).
pub fn is_carried(samples: u64, quantile: f64) -> bool {
    let beyond = samples as f64 * (1.0 - quantile);
    // A thousand samples carry p99; the product is a hair below ten.
    beyond > SAMPLES_BEYOND_MIN - 1e-6
}

const SAMPLES_BEYOND_MIN: f64 = 10.0;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::latency_histogram;

    fn check(samples: u64, expected: &[&str]) {
        let mut histogram = latency_histogram();
        histogram.saturating_record_n(5_000_000, samples);
        let names: Vec<_> = percentiles(&histogram).into_keys().collect();
        assert_eq!(names, expected, "{samples} samples");
    }

    #[test]
    fn percentile_needs_ten_samples_beyond_it() {
        check(0, &[]);
        check(19, &["max"]);
        check(20, &["max", "p50"]);
        check(999, &["max", "p50", "p90"]);
        check(1000, &["max", "p50", "p90", "p99"]);
        check(100_000, &["max", "p50", "p90", "p99", "p99.9", "p99.99"]);
    }
}
