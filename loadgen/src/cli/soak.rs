//! Long loads.

use std::time::Duration;

use clap::Args;

use super::load::Mixed;
use super::server::UsageError;
use super::{parse_positive, parse_seconds};
use crate::scenario::Load;
use crate::soak::Growth;

#[derive(Debug, Args)]
pub(crate) struct Soak {
    /// Seconds of all intervals together, of which each takes --duration; --repeat is not heeded.
    #[arg(long, default_value = "3600", value_parser = parse_seconds)]
    total: Duration,
    /// KiB a minute by which the server's memory may grow once it has settled [default: any].
    #[arg(long, value_parser = parse_positive)]
    growth_max_kib: Option<f64>,
    #[command(flatten)]
    pub(crate) mixed: Mixed,
}

impl Soak {
    /// The load that this asks for: a run for each interval.
    /// Errors: `TwoRates`.
    pub(crate) fn load(&self) -> Result<Load, UsageError> {
        let load = self.mixed.load()?;
        let intervals = self.total.as_secs_f64() / load.duration.as_secs_f64().max(0.001);
        Ok(Load {
            repeat: (intervals.ceil() as u32).max(1),
            ..load
        })
    }

    /// Why `growth` is too much, where it is, or is not known.
    pub(crate) fn growth_failure(&self, growth: Option<Growth>) -> Option<String> {
        let bound = self.growth_max_kib?;
        let Some(growth) = growth else {
            return Some("how memory grows is not known (--server-pid, four intervals)".to_owned());
        };
        let kib = growth.bytes_per_minute / 1024.0;
        (kib > bound)
            .then(|| format!("memory grows by {kib:.1} KiB a minute, the bound is {bound}"))
    }
}
