//! What the scenarios of returning viewers share: the load beside them, and whose numbers are whose.

use clap::Args;

use super::parse_positive;
use crate::scenario::Group;

/// The load of those who stay.
#[derive(Debug, Args)]
pub(super) struct LiveArgs {
    /// Users of the live load beside them.
    #[arg(long, default_value_t = 100,
          value_parser = clap::value_parser!(u32).range(1..=USERS_EACH_MAX))]
    live_users: u32,
    /// Connections of each of those.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    live_connections_per_user: u32,
    /// Events a second of the live load.
    #[arg(long, default_value = "500", value_parser = parse_positive)]
    live_rate: f64,
}

impl LiveArgs {
    /// Their group, whose first user is `first`.
    pub(super) fn group(&self, first: u32) -> Group {
        Group {
            name: "live",
            users: first..first + self.live_users,
            connections_per_user: self.live_connections_per_user,
            events_per_second: self.live_rate,
        }
    }
}

/// The first user of those who come back, and of the live load: far from each other and from those
/// that other loads begin with, who may have published to the same server in between.
pub(super) const RETURNING_USER: u32 = 300_000;
pub(super) const LIVE_USER: u32 = 600_000;
pub(super) const USERS_EACH_MAX: i64 = 300_000;
