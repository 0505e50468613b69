//! Viewers that are cut off and come back.

use std::time::Duration;

use clap::Args;

use super::load::LoadArgs;
use super::returning::{LIVE_USER, LiveArgs, RETURNING_USER, USERS_EACH_MAX};
use super::server::{ServerArgs, UsageError};
use super::{parse_positive, parse_seconds};
use crate::reconnect::Reconnect;
use crate::report::Bounds;
use crate::scenario::{Group, Load};
use crate::storm::Cut;
use crate::target::Target;

#[derive(Debug, Args)]
pub(crate) struct ReconnectArgs {
    /// Viewers that are cut off.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    viewers: u32,
    /// Users, who have as many of the viewers each. Mind the tier's connections a user: a viewer
    /// that was cut off in silence counts until the server has found out.
    #[arg(long, default_value_t = 10,
          value_parser = clap::value_parser!(u32).range(1..=USERS_EACH_MAX))]
    users: u32,
    /// Events a second of all these users together, which go on during the cut.
    #[arg(long, default_value = "100", value_parser = parse_positive)]
    viewers_rate: f64,
    /// How they are cut off.
    #[arg(long, value_enum, default_value_t = Cut::Rst)]
    cut: Cut,
    /// Seconds from the first event of a round to the cut.
    #[arg(long, default_value = "0.5", value_parser = parse_seconds)]
    after: Duration,
    /// Seconds over which they are dialled again, from the cut on.
    #[arg(long, default_value = "0.2", value_parser = parse_seconds)]
    within: Duration,
    /// Seconds that they may take.
    #[arg(long, default_value = "30", value_parser = parse_seconds)]
    patience: Duration,
    #[command(flatten)]
    live: LiveArgs,
    #[command(flatten)]
    pub(crate) load: LoadArgs,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

impl ReconnectArgs {
    /// The scenario that this asks for.
    pub(crate) fn reconnect(&self) -> Reconnect {
        let viewers = Group {
            name: "viewers",
            users: RETURNING_USER..RETURNING_USER + self.users,
            connections_per_user: self.viewers.div_ceil(self.users),
            events_per_second: self.viewers_rate,
        };
        Reconnect {
            live: self.load.load(vec![self.live.group(LIVE_USER)]),
            // Their latency has the cut in it, and says nothing of its own.
            viewers: Load {
                bounds: Bounds::NONE,
                ..self.load.load(vec![viewers])
            },
            cut: self.cut,
            after: self.after,
            within: self.within,
            patience: self.patience,
        }
    }

    /// The target.
    /// Errors: `NeedsSightline` where it keeps nothing, and those of [`ServerArgs::target`].
    pub(crate) fn target(&self) -> Result<Target, UsageError> {
        self.server.sightline("reconnect-storm")
    }
}
