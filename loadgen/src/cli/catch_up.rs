//! Viewers that come back.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::load::LoadArgs;
use super::server::{ServerArgs, UsageError};
use super::{parse_positive, parse_seconds};
use crate::catch_up::CatchUp;
use crate::scenario::Group;
use crate::target::Target;

#[derive(Debug, Args)]
pub(crate) struct CatchUpArgs {
    /// Viewers that come back.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    viewers: u32,
    /// Users, who have the viewers in turn. Mind the tier's connections a user.
    #[arg(long, default_value_t = 10,
          value_parser = clap::value_parser!(u32).range(1..=USERS_EACH_MAX))]
    users: u32,
    /// Events that each of them has missed.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    events: u32,
    /// Events a second while those are published.
    #[arg(long, default_value = "5000", value_parser = parse_positive)]
    events_rate: f64,
    /// Seconds over which the viewers come back.
    #[arg(long, default_value = "0.2", value_parser = parse_seconds)]
    within: Duration,
    /// Seconds that they may take.
    #[arg(long, default_value = "30", value_parser = parse_seconds)]
    patience: Duration,
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
    /// Stops when the events are published, and writes here what a second run needs.
    #[arg(long, value_name = "FILE")]
    pub(crate) prepare: Option<PathBuf>,
    /// Begins with what an earlier run has prepared: its viewers, users and events.
    #[arg(long, value_name = "FILE", conflicts_with = "prepare")]
    pub(crate) cursors: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) load: LoadArgs,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

impl CatchUpArgs {
    /// The scenario that this asks for.
    pub(crate) fn catch_up(&self) -> CatchUp {
        let live = Group {
            name: "live",
            users: LIVE_USER..LIVE_USER + self.live_users,
            connections_per_user: self.live_connections_per_user,
            events_per_second: self.live_rate,
        };
        CatchUp {
            live: self.load.load(vec![live]),
            viewers: self.viewers as usize,
            users: RETURNING_USER..RETURNING_USER + self.users,
            events: self.events,
            events_per_second: self.events_rate,
            within: self.within,
            patience: self.patience,
        }
    }

    /// The target.
    /// Errors: `NeedsSightline` where it keeps nothing, and those of [`ServerArgs::target`].
    pub(crate) fn target(&self) -> Result<Target, UsageError> {
        self.server.sightline("catch-up")
    }
}

/// The first user of those who come back, and of the live load: far from each other and from those
/// that other loads begin with, who may have published to the same server in between.
const RETURNING_USER: u32 = 300_000;
const LIVE_USER: u32 = 600_000;
const USERS_EACH_MAX: i64 = 300_000;
