//! Handshakes.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::arrival::Shape;
use super::server::{ServerArgs, UsageError};
use super::{USERS_MAX, parse_positive, parse_seconds};
use crate::connect_storm::ConnectStorm;
use crate::report::Bounds;

#[derive(Debug, Args)]
pub(crate) struct ConnectArgs {
    /// Connections of each round.
    #[arg(long, default_value_t = 5000, value_parser = clap::value_parser!(u32).range(1..))]
    connections: u32,
    /// Users, who get the connections in turn. Mind the tier's connections a user.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..USERS_MAX))]
    users: u32,
    /// Handshakes a second [default: as fast as the server answers, --in-flight at a time].
    #[arg(long, value_parser = parse_positive)]
    rate: Option<f64>,
    /// How they arrive, as of the other loads; `constant` and `poisson` need --rate.
    #[arg(long)]
    arrival: Option<Shape>,
    /// Rounds, each with connections of its own.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    repeat: u32,
    /// Seconds that the last handshakes may take, where there is a rate.
    #[arg(long, default_value = "10", value_parser = parse_seconds)]
    patience: Duration,
    /// Microseconds by which dials may be late (p99) before the run is generator-bound.
    #[arg(long, default_value_t = 1000)]
    slip_max_us: u64,
    /// Percent of its time that the generator may be busy before the run is generator-bound.
    #[arg(long, default_value = "98", value_parser = parse_positive)]
    busy_max_percent: f64,
    /// Writes all rounds' latencies here as a percentile distribution for HdrHistogram's plotter.
    #[arg(long, value_name = "FILE")]
    pub(crate) hgrm: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

impl ConnectArgs {
    /// The scenario that this asks for.
    /// Errors: `TwoRates`, `NoRate`.
    pub(crate) fn storm(&self) -> Result<ConnectStorm, UsageError> {
        let shape = self.arrival.unwrap_or(Shape::Constant);
        let pace = match (self.rate, shape.rate()) {
            (Some(_), Some(_)) => return Err(UsageError::TwoRates),
            (None, None) if self.arrival.is_some() => return Err(UsageError::NoRate),
            (None, None) => None,
            (Some(rate), None) | (None, Some(rate)) => Some((rate, shape.arrival())),
        };
        Ok(ConnectStorm {
            connections: self.connections,
            users: self.users,
            pace,
            repeat: self.repeat,
            patience: self.patience,
            bounds: Bounds {
                slip: Duration::from_micros(self.slip_max_us),
                busy: self.busy_max_percent / 100.0,
            },
        })
    }
}
