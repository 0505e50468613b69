//! The attacks.

use std::time::Duration;

use clap::Args;

use super::parse_seconds;
use super::server::{ServerArgs, UsageError};
use crate::attack::{Attack, Kind, Script};

#[derive(Debug, Args)]
pub(crate) struct AttackArgs {
    /// What the peers do; where the URL says `wss://` they do it under TLS, the silent ones before
    /// it.
    #[arg(long, value_enum)]
    kind: Kind,
    /// Peers at a time; one that is closed comes again.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=PEERS_MAX))]
    connections: u32,
    /// Seconds that the attack lasts, at most an hour.
    #[arg(long, default_value = "10", value_parser = parse_duration)]
    duration: Duration,
    /// Microseconds between two bytes of a header; 0: as fast as the socket takes them.
    #[arg(long, default_value_t = 0)]
    byte_interval_us: u64,
    /// Bytes of a bomb once inflated.
    #[arg(long, default_value_t = 1024 * 1024 * 1024)]
    bomb_bytes: u64,
    /// Milliseconds before a peer that was closed comes again.
    #[arg(long, default_value_t = 0)]
    redial_ms: u64,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

impl AttackArgs {
    /// The attack that this asks for. Peers that authenticate do it as one user of their own.
    pub(crate) fn attack(&self) -> Result<Attack, UsageError> {
        let upgrade_path = if self.kind.authenticates() {
            Some(self.server.target()?.subscriber_path(USER))
        } else {
            None
        };
        let mut server = self.server.server()?;
        if self.kind.is_below_tls() {
            server.tls = None;
        }
        Ok(Attack {
            kind: self.kind,
            script: Script::new(self.kind, &server.host, self.bomb_bytes),
            upgrade_path,
            server,
            peers: self.connections as usize,
            duration: self.duration,
            write_interval: Duration::from_micros(self.byte_interval_us),
            redial: Duration::from_millis(self.redial_ms),
            in_flight_max: self.server.in_flight(),
        })
    }
}

/// Far from the numbers that loads begin with.
const USER: u32 = 900_000;
/// A process has so many descriptors here and there.
const PEERS_MAX: i64 = 20_000;
const DURATION_MAX: Duration = Duration::from_secs(3600);

fn parse_duration(text: &str) -> Result<Duration, String> {
    let duration = parse_seconds(text)?;
    if duration > DURATION_MAX {
        return Err("an attack lasts an hour at most".to_owned());
    }
    Ok(duration)
}
