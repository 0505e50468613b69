//! The loads: who gets how much of what, for how long.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::Args;

use super::server::ServerArgs;
use super::{USERS_MAX, parse_positive, parse_seconds};
use crate::payload::Identity;
use crate::report::Bounds;
use crate::scenario::{Group, Load, Size};
use crate::upgrade::Extension;

#[derive(Debug, Args)]
pub(crate) struct Fanout {
    /// Connections of the one user.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    connections: u32,
    /// Events a second.
    #[arg(long, default_value = "20", value_parser = parse_positive)]
    rate: f64,
    #[command(flatten)]
    pub(crate) load: LoadArgs,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

#[derive(Debug, Args)]
pub(crate) struct Users {
    /// Users.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..USERS_MAX))]
    users: u32,
    /// Connections of each user.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    connections_per_user: u32,
    /// Events a second, of all users together.
    #[arg(long, default_value = "500", value_parser = parse_positive)]
    rate: f64,
    /// One user more, CONNECTIONS:RATE, who is measured apart; the others are then the quiet
    /// ones.
    #[arg(long, value_name = "CONNECTIONS:RATE")]
    hot: Option<Hot>,
    #[command(flatten)]
    pub(crate) load: LoadArgs,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

#[derive(Debug, Args)]
pub(crate) struct Publish {
    /// Users, to whose streams the events go in turn.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..USERS_MAX))]
    users: u32,
    /// Events a second, each a message of its own.
    #[arg(long, default_value = "20000", value_parser = parse_positive)]
    rate: f64,
    /// Bytes of an event's text as it is published. It is filled with one letter.
    #[arg(long, default_value_t = 500)]
    payload_bytes: usize,
    /// Gives each event an `event_id` of its own.
    #[arg(long)]
    event_ids: bool,
    #[command(flatten)]
    pub(crate) run: RunArgs,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

/// How long it goes on, how often, and when it stands.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Seconds of each measured run.
    #[arg(long, default_value = "30", value_parser = parse_seconds)]
    duration: Duration,
    /// Seconds before the first run that are checked and not measured.
    #[arg(long, default_value = "3", value_parser = parse_seconds)]
    warmup: Duration,
    /// Measured runs, one after the other on the same connections.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    repeat: u32,
    /// Publisher connections, where the target leaves it open (a topic has its own always).
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    publishers: u32,
    /// Seconds to wait for outstanding deliveries after the last event.
    #[arg(long, default_value = "10", value_parser = parse_seconds)]
    drain: Duration,
    /// Microseconds of schedule slip (p99) beyond which the run is generator-bound.
    #[arg(long, default_value_t = 1000)]
    slip_max_us: u64,
    /// Percent of its time that the generator may be busy before the run is generator-bound.
    #[arg(long, default_value = "98", value_parser = parse_positive)]
    busy_max_percent: f64,
    /// Writes all runs' latencies here as a percentile distribution for HdrHistogram's plotter;
    /// with several groups, one file for each.
    #[arg(long, value_name = "FILE")]
    pub(crate) hgrm: Option<PathBuf>,
}

/// What is sent to subscribers, and how long.
#[derive(Debug, Args)]
pub(crate) struct LoadArgs {
    /// Bytes of the frame that a subscriber gets, header included. The event is filled with one
    /// letter.
    #[arg(long, default_value_t = 415)]
    frame_bytes: usize,
    /// Bytes of the text that a subscriber gets, before it is deflated or framed. The event is
    /// filled with an agent's output, different each time.
    #[arg(long, conflicts_with = "frame_bytes")]
    payload_bytes: Option<usize>,
    /// Subscribers offer permessage-deflate.
    #[arg(long)]
    compress: bool,
    #[command(flatten)]
    pub(crate) run: RunArgs,
}

impl Fanout {
    /// The load that this asks for.
    pub(crate) fn load(&self) -> Load {
        self.load.load(vec![Group {
            name: "all",
            users: 0..1,
            connections_per_user: self.connections,
            events_per_second: self.rate,
        }])
    }
}

impl Users {
    /// The load that this asks for. The hot user's number follows those of the others.
    pub(crate) fn load(&self) -> Load {
        let mut groups = vec![Group {
            name: if self.hot.is_some() { "quiet" } else { "all" },
            users: 0..self.users,
            connections_per_user: self.connections_per_user,
            events_per_second: self.rate,
        }];
        groups.extend(self.hot.map(|hot| Group {
            name: "hot",
            users: self.users..self.users + 1,
            connections_per_user: hot.connections,
            events_per_second: hot.rate,
        }));
        self.load.load(groups)
    }
}

impl Publish {
    /// The load that this asks for: users without subscribers.
    pub(crate) fn load(&self) -> Load {
        let users = Group {
            name: "all",
            users: 0..self.users,
            connections_per_user: 0,
            events_per_second: self.rate,
        };
        let size = Size::Event(self.payload_bytes);
        let load = self.run.load(vec![users], size, Extension::None);
        let identity = if self.event_ids {
            Identity::EventId
        } else {
            Identity::None
        };
        Load { identity, ..load }
    }
}

impl LoadArgs {
    /// The load of `groups`.
    pub(super) fn load(&self, groups: Vec<Group>) -> Load {
        let size = match self.payload_bytes {
            Some(bytes) => Size::Payload(bytes),
            None => Size::Frame(self.frame_bytes),
        };
        let extension = if self.compress {
            Extension::Deflate
        } else {
            Extension::None
        };
        self.run.load(groups, size, extension)
    }
}

impl RunArgs {
    fn load(&self, groups: Vec<Group>, size: Size, extension: Extension) -> Load {
        Load {
            groups,
            duration: self.duration,
            warmup: self.warmup,
            size,
            identity: Identity::None,
            extension,
            repeat: self.repeat,
            publishers: self.publishers,
            drain: self.drain,
            bounds: Bounds {
                slip: Duration::from_micros(self.slip_max_us),
                busy: self.busy_max_percent / 100.0,
            },
        }
    }
}

/// A user with a load of its own.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Hot {
    connections: u32,
    rate: f64,
}

impl FromStr for Hot {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (connections, rate) = text.split_once(':').ok_or("expected CONNECTIONS:RATE")?;
        let connections = connections
            .parse()
            .ok()
            .filter(|connections| *connections > 0);
        Ok(Self {
            connections: connections.ok_or("connections are a number from 1")?,
            rate: parse_positive(rate)?,
        })
    }
}
