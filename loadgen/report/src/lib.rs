//! Latency histograms as people and programs want them: percentiles that enough samples carry,
//! HdrHistogram's text formats, CSV, and one HTML page that needs nothing else.
//!
//! Pure: histograms of nanoseconds come as arguments, text goes back. It knows neither the load
//! generator nor the server, and both use it.

mod csv;
mod encoded;
pub mod hgrm;
pub mod hlog;
pub mod page;
pub mod percentiles;

pub use self::csv::render as render_csv;
pub use self::encoded::{Encoded, EncodedError};
pub use self::page::{Page, render};
pub use self::percentiles::{is_carried, percentiles, value_at};

use hdrhistogram::Histogram;

/// An empty histogram of nanoseconds: 1 µs to 60 s, three digits, never resized (resizing
/// allocates). What is longer is to be recorded as 60 s (`saturating_record`).
pub fn latency_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1_000, 60_000_000_000, 3).expect("the bounds are in order")
}

const NS_PER_MS: f64 = 1e6;
