//! How a phase goes, for somebody who watches a terminal: one line, written anew each second.

use std::fmt::Write as _;
use std::io::{self, Write as _};

use latency_report::value_at;

use crate::interval::Interval;
use crate::observer::Usage;

/// The line; it goes when this does.
#[derive(Debug)]
pub(crate) struct Progress(());

impl Progress {
    /// No line yet.
    pub(crate) fn new() -> Self {
        Self(())
    }

    /// Writes the line of the second `interval`, over the one before.
    pub(crate) fn show(&mut self, interval: &Interval, server: Option<Usage>) {
        write(&format!("\r{}{CLEAR}", line(interval, server)));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        write(&format!("\r{CLEAR}"));
    }
}

/// A terminal that is gone is no harm: nobody watches.
fn write(text: &str) {
    let mut out = io::stderr().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// What the second `interval` says: rates, latencies, slip.
fn line(interval: &Interval, server: Option<Usage>) -> String {
    let elapsed_s = (interval.start_ns + interval.length_ns) as f64 / 1e9;
    let events = interval.per_second(interval.slip_ns.len());
    let mut line = format!("{elapsed_s:4.0} s  {events:.0} events/s");
    let deliveries = interval.deliveries();
    let mut latency_ns = interval.acknowledged_ns.clone();
    if deliveries > 0 {
        let _ = write!(
            line,
            "  {:.0} deliveries/s",
            interval.per_second(deliveries)
        );
        latency_ns.clear();
        interval
            .groups
            .iter()
            .for_each(|group| latency_ns += &group.latency_ns);
    }
    for (name, quantile) in [("p50", 0.5), ("p99", 0.99)] {
        if let Some(ns) = value_at(&latency_ns, quantile) {
            let _ = write!(line, "  {name} {:.3}", ns as f64 / 1e6);
        }
    }
    let slip_ms = interval.slip_ns.max() as f64 / 1e6;
    let _ = write!(line, "  slip max {slip_ms:.3} ms");
    if let Some(share) = server.and_then(|server| server.cpu_share) {
        let _ = write!(line, "  server {:.0} % CPU", share * 100.0);
    }
    line
}

/// Erases from the cursor to the end of the line. Source: ECMA-48, EL.
const CLEAR: &str = "\x1b[K";

#[cfg(test)]
mod tests {
    use super::*;

    fn interval(deliveries: u64) -> Interval {
        let mut interval = Interval::new(2);
        (interval.start_ns, interval.length_ns) = (2_000_000_000, 1_000_000_000);
        interval.slip_ns.saturating_record_n(30_000, 20);
        interval.acknowledged_ns.saturating_record_n(7_000_000, 20);
        let latency_ns = &mut interval.groups[1].latency_ns;
        latency_ns.saturating_record_n(250_000, deliveries);
        interval
    }

    #[test]
    fn line_says_what_the_last_second_brought() {
        let spent = Usage {
            cpu_share: Some(0.5),
            rss_bytes: 0,
        };
        assert_eq!(
            line(&interval(2000), Some(spent)),
            "   3 s  20 events/s  2000 deliveries/s  p50 0.250  p99 0.250  slip max 0.030 ms  \
             server 50 % CPU"
        );
    }

    #[test]
    fn line_of_publishers_alone_tells_their_acknowledgements() {
        assert_eq!(
            line(&interval(0), None),
            "   3 s  20 events/s  p50 7.000  slip max 0.030 ms"
        );
    }
}
