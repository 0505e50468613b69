//! An interval log (`.hlog`): a histogram for each stretch of time, as HistogramLogAnalyzer and
//! HdrHistogram's own tools read it. Source: HdrHistogram 2.2, `HistogramLogWriter.java`, format
//! 1.3.

use std::time::{Duration, SystemTime};

use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};

use crate::{Encoded, EncodedError};

/// What was recorded in one stretch of time.
#[derive(Debug, Clone, Copy)]
pub struct Interval<'a> {
    /// The series it belongs to. What a tag may not hold (commas, spaces, line ends) becomes `_`.
    pub series: &'a str,
    /// When it began, after the log's start.
    pub start: Duration,
    /// How long it lasted.
    pub length: Duration,
    /// Nanoseconds.
    pub histogram: &'a Encoded,
}

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum HlogError {
    /// An interval is no histogram.
    #[error(transparent)]
    Encoded(#[from] EncodedError),
    /// A histogram has no encoding: a count is beyond what the format holds (2^63).
    #[error("interval log: {0}")]
    Write(String),
}

/// Renders `intervals`, which are in order of their start, as the log of what began at `start`.
/// The maximum that each line tells is in milliseconds; the histograms hold nanoseconds.
/// Errors: `Encoded`, `Write`.
pub fn render(start: SystemTime, intervals: &[Interval<'_>]) -> Result<String, HlogError> {
    let (mut out, mut serializer) = (Vec::new(), V2DeflateSerializer::new());
    let mut writer = IntervalLogWriterBuilder::new()
        .add_comment("[Histogram log format version 1.3]")
        .with_start_time(start)
        .with_base_time(start)
        .with_max_value_divisor(crate::NS_PER_MS)
        .begin_log_with(&mut out, &mut serializer)
        .map_err(|error| HlogError::Write(error.to_string()))?;
    for interval in intervals {
        let Interval {
            start,
            length,
            histogram,
            ..
        } = *interval;
        let tag = tag(interval.series);
        let tag = Tag::new(&tag).filter(|tag| !tag.is_empty());
        writer
            .write_histogram(&histogram.decode()?, start, length, tag)
            .map_err(|error| HlogError::Write(error.to_string()))?;
    }
    Ok(String::from_utf8_lossy(&out).into_owned())
}

fn tag(series: &str) -> String {
    let allowed = |letter: char| match letter {
        ',' => '_',
        letter if letter.is_whitespace() || letter.is_control() => '_',
        letter => letter,
    };
    series.chars().map(allowed).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::latency_histogram;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    const START: Duration = Duration::from_millis(1_763_805_600_123);

    fn log(series: &str) -> String {
        let mut histogram = latency_histogram();
        histogram.saturating_record_n(2_000_000, 7);
        let histogram = Encoded::new(&histogram).unwrap();
        let interval = |seconds| Interval {
            series,
            start: Duration::from_secs(seconds),
            length: Duration::from_secs(1),
            histogram: &histogram,
        };
        let intervals = [interval(0), interval(1)];
        render(SystemTime::UNIX_EPOCH + START, &intervals).unwrap()
    }

    #[test]
    fn head_is_that_of_the_format() {
        let text = log("all");
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "#[Histogram log format version 1.3]");
        assert_eq!(
            lines[1],
            "#[StartTime: 1763805600.123 (seconds since epoch)]"
        );
        assert_eq!(
            lines[2],
            "#[BaseTime: 1763805600.123 (seconds since epoch)]"
        );
        assert!(
            lines[4].starts_with("Tag=all,0.000,1.000,2.001,HISTFAAA"),
            "{text}"
        );
        assert_eq!(lines.len(), 6, "{text}");
    }

    #[test]
    fn log_is_read_back_whatever_the_series_is_called() {
        for (series, expected) in [
            ("quiet", Some("quiet")),
            ("a, b\nc", Some("a__b_c")),
            ("", None),
        ] {
            let text = log(series);
            let entries = IntervalLogIterator::new(text.as_bytes()).map(Result::unwrap);
            let tags: Vec<_> = entries
                .filter_map(|entry| match entry {
                    LogEntry::Interval(interval) => {
                        Some(interval.tag().map(|tag| tag.as_str().to_owned()))
                    }
                    LogEntry::BaseTime(_) | LogEntry::StartTime(_) => None,
                })
                .collect();
            let expected = expected.map(ToOwned::to_owned);
            assert_eq!(tags, [expected.clone(), expected], "{series:?}");
        }
    }
}
