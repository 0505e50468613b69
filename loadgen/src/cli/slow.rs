//! Viewers that read slowly.

use clap::Args;

use super::load::LoadArgs;
use super::server::{ServerArgs, UsageError};
use super::{USERS_MAX, parse_positive};
use crate::scenario::Group;
use crate::slow_consumer::SlowConsumer;

#[derive(Debug, Args)]
pub(crate) struct SlowArgs {
    /// Viewers that are slow, of the users in turn.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    slow: u32,
    /// Bytes a second that each of them reads; 0: it does not read at all.
    #[arg(long, default_value_t = 0)]
    slow_bytes_per_second: u64,
    /// Users.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..USERS_MAX))]
    users: u32,
    /// Connections of each user that read at once.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    connections_per_user: u32,
    /// Events a second, of all users together [default: 200].
    #[arg(long, value_parser = parse_positive)]
    rate: Option<f64>,
    #[command(flatten)]
    pub(crate) load: LoadArgs,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

impl SlowArgs {
    /// The scenario that this asks for.
    /// Errors: `TwoRates`.
    pub(crate) fn slow_consumer(&self) -> Result<SlowConsumer, UsageError> {
        let live = Group {
            name: "live",
            users: 0..self.users,
            connections_per_user: self.connections_per_user,
            events_per_second: self.load.run.rate(self.rate, 200.0)?,
        };
        Ok(SlowConsumer {
            live: self.load.load(vec![live]),
            slow: self.slow,
            bytes_per_second: self.slow_bytes_per_second,
        })
    }
}
