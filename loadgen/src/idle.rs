//! The result of connections that only stay.

use std::fmt::Write as _;

use latency_report::percentiles::SHOWN;
use serde::Serialize;

use crate::driver::Connected;
use crate::report::MIB;
use crate::scenario::Idle;
use crate::summary::HandshakeReport;

/// Resident bytes of the server.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct MemoryReport {
    /// Before the first connection.
    pub(crate) before: u64,
    /// With all of them, at the end of the hold.
    pub(crate) after: u64,
}

/// Connections that only stayed.
#[derive(Debug, Serialize)]
pub(crate) struct IdleReport {
    schema: &'static str,
    users: u32,
    handshakes: HandshakeReport,
    hold_seconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    server_rss_bytes: Option<MemoryReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    server_rss_bytes_per_connection: Option<f64>,
    /// Microseconds of CPU in each second of the hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    server_cpu_us_per_connection_second: Option<f64>,
    /// Any connection that did not stay.
    pub(crate) closed: Vec<String>,
}

impl IdleReport {
    /// Sums up what `idle` has shown; `cpu_ns` is the server's over the hold.
    pub(crate) fn new(
        idle: Idle,
        connected: &Connected,
        memory: Option<MemoryReport>,
        cpu_ns: Option<u64>,
        closed: Vec<String>,
    ) -> Self {
        let connections = f64::from(idle.connections);
        let grown = |memory: MemoryReport| memory.after as f64 - memory.before as f64;
        let connection_seconds = connections * idle.hold.as_secs_f64();
        let cpu_us = |cpu_ns: u64| cpu_ns as f64 / 1e3 / connection_seconds;
        Self {
            schema: "loadgen/idle/1",
            users: idle.users,
            handshakes: HandshakeReport::new(connected),
            hold_seconds: idle.hold.as_secs_f64(),
            server_rss_bytes: memory,
            server_rss_bytes_per_connection: memory.map(|memory| grown(memory) / connections),
            server_cpu_us_per_connection_second: cpu_ns.map(cpu_us).filter(|us| us.is_finite()),
            closed,
        }
    }

    /// The report for people.
    pub(crate) fn lines(&self) -> Vec<String> {
        let handshakes = &self.handshakes;
        let mut line = format!(
            "idle {} users {} conns: {:.0} handshakes/s{}",
            self.users,
            handshakes.connections,
            handshakes.per_second,
            handshakes.tls.text()
        );
        for (name, _) in SHOWN
            .iter()
            .filter(|(name, _)| handshakes.handshake_ns.contains_key(name))
        {
            let _ = write!(
                line,
                "  {name} {:.3}",
                handshakes.handshake_ns[name] as f64 / 1e6
            );
        }
        line.push_str(" ms");
        if let (Some(memory), Some(each)) =
            (self.server_rss_bytes, self.server_rss_bytes_per_connection)
        {
            let (before, after) = (memory.before as f64 / MIB, memory.after as f64 / MIB);
            let _ = write!(
                line,
                "  server RSS {before:.1} → {after:.1} MiB, {each:.0} B/connection"
            );
        }
        if let Some(cpu_us) = self.server_cpu_us_per_connection_second {
            let _ = write!(line, ", {cpu_us:.2} µs CPU/s/connection");
        }
        let closed = self
            .closed
            .iter()
            .map(|reason| format!("  FAILED: {reason}"));
        std::iter::once(line).chain(closed).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::summary::tests::connected;
    use std::time::Duration;

    #[test]
    fn idle_report_divides_by_the_connections() {
        let idle = Idle {
            connections: 2000,
            users: 2,
            hold: Duration::from_secs(10),
        };
        let memory = MemoryReport {
            before: 1_000_000,
            after: 5_000_000,
        };
        let report = IdleReport::new(
            idle,
            &connected(),
            Some(memory),
            Some(20_000_000),
            Vec::new(),
        );
        assert_eq!(report.server_rss_bytes_per_connection, Some(2000.0));
        assert_eq!(report.server_cpu_us_per_connection_second, Some(1.0));
        assert!(
            report.lines()[0].contains("4000 handshakes/s"),
            "{:?}",
            report.lines()
        );
    }
}
