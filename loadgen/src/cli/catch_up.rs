//! Viewers that come back.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::load::LoadArgs;
use super::returning::{LIVE_USER, LiveArgs, RETURNING_USER, USERS_EACH_MAX};
use super::server::{ServerArgs, UsageError};
use super::{parse_positive, parse_seconds};
use crate::catch_up::CatchUp;
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
    #[command(flatten)]
    live: LiveArgs,
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
        CatchUp {
            live: self.load.load(vec![self.live.group(LIVE_USER)]),
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
        self.server.sightline("replay")
    }
}
