//! The loads: who gets how much of what, for how long.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::arrival::Shape;
use super::output::OutputArgs;
use super::server::{ServerArgs, UsageError};
use super::{USERS_MAX, parse_positive, parse_seconds};
use crate::http;
use crate::payload::Identity;
use crate::protocol::{Posting, Protocol};
use crate::publish::Packing;
use crate::report::Bounds;
use crate::scenario::{Group, Load, Size};
use crate::target::Target;
use crate::upgrade::Extension;

#[derive(Debug, Args)]
pub(crate) struct Fanout {
    /// Connections of the one user.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    connections: u32,
    /// Events a second [default: 20].
    #[arg(long, value_parser = parse_positive)]
    rate: Option<f64>,
    #[command(flatten)]
    pub(crate) load: LoadArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

#[derive(Debug, Args)]
pub(crate) struct Users {
    #[command(flatten)]
    crowd: CrowdArgs,
    /// One user more, CONNECTIONS:RATE, who is measured apart; the others are then the quiet
    /// ones.
    #[arg(long, value_name = "CONNECTIONS:RATE")]
    hot: Option<Hot>,
    #[command(flatten)]
    pub(crate) load: LoadArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

/// Users with as many connections each.
#[derive(Debug, Args)]
struct CrowdArgs {
    /// Users.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..USERS_MAX))]
    users: u32,
    /// Connections of each user.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    connections_per_user: u32,
    /// Events a second, of all users together [default: 500].
    #[arg(long, value_parser = parse_positive)]
    rate: Option<f64>,
}

#[derive(Debug, Args)]
pub(crate) struct Mixed {
    #[command(flatten)]
    crowd: CrowdArgs,
    /// Subscribers offer permessage-deflate.
    #[arg(long)]
    compress: bool,
    #[command(flatten)]
    pub(crate) run: RunArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

#[derive(Debug, Args)]
pub(crate) struct Ingest {
    /// How events are published.
    #[arg(long, value_enum, default_value_t = Via::Websocket)]
    via: Via,
    /// Users, to whose streams the events go in turn.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..USERS_MAX))]
    users: u32,
    /// Events a second [default: 20000].
    #[arg(long, value_parser = parse_positive)]
    rate: Option<f64>,
    /// Events of each message, all due at the same time: lines of a request, or an array in a
    /// WebSocket message.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=BATCH_MAX))]
    batch: u32,
    /// What the answer to a request waits for (HTTP; a WebSocket publisher always hears of what is
    /// durable).
    #[arg(long, value_enum, default_value_t = Ack::Durable)]
    ack: Ack,
    /// Requests on one connection whose answers have not come (HTTP).
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pipeline: u32,
    /// Bytes of an event's text as it is published. It is filled with one letter.
    #[arg(long, default_value_t = 500)]
    payload_bytes: usize,
    /// Gives each event an `event_id` of its own.
    #[arg(long)]
    event_ids: bool,
    #[command(flatten)]
    pub(crate) run: RunArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

/// What carries events to the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Via {
    /// POSTs on connections that are kept alive.
    Http,
    /// Messages of a WebSocket.
    Websocket,
}

/// What an acknowledgement means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Ack {
    /// The events are on disk.
    Durable,
    /// The events are queued.
    Received,
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
    /// How events arrive: `constant`, `poisson` or `poisson:SEED` (independent of each other, at
    /// the same times for the same seed), `ramp:FROM:TO` (events a second at the beginning and at
    /// the end) or `burst:EVENTS:SECONDS` (so many at once, every so often). The last two say the
    /// rate themselves.
    #[arg(long, default_value = "constant")]
    arrival: Shape,
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
    /// Errors: `TwoRates`.
    pub(crate) fn load(&self) -> Result<Load, UsageError> {
        Ok(self.load.load(vec![Group {
            name: "all",
            users: 0..1,
            connections_per_user: self.connections,
            events_per_second: self.load.run.rate(self.rate, 20.0)?,
        }]))
    }
}

impl Users {
    /// The load that this asks for. The hot user's number follows those of the others.
    /// Errors: `TwoRates`.
    pub(crate) fn load(&self) -> Result<Load, UsageError> {
        let name = if self.hot.is_some() { "quiet" } else { "all" };
        let mut groups = vec![self.crowd.group(name, &self.load.run)?];
        groups.extend(self.hot.map(|hot| Group {
            name: "hot",
            users: self.crowd.users..self.crowd.users + 1,
            connections_per_user: hot.connections,
            events_per_second: hot.rate,
        }));
        Ok(self.load.load(groups))
    }
}

impl CrowdArgs {
    fn group(&self, name: &'static str, run: &RunArgs) -> Result<Group, UsageError> {
        Ok(Group {
            name,
            users: 0..self.users,
            connections_per_user: self.connections_per_user,
            events_per_second: run.rate(self.rate, 500.0)?,
        })
    }
}

fn extension(compress: bool) -> Extension {
    if compress {
        Extension::Deflate
    } else {
        Extension::None
    }
}

impl Mixed {
    /// The load that this asks for.
    /// Errors: `TwoRates`.
    pub(crate) fn load(&self) -> Result<Load, UsageError> {
        let users = self.crowd.group("all", &self.run)?;
        let extension = extension(self.compress);
        Ok(self.run.load(vec![users], Size::Mixed, extension))
    }
}

impl Ingest {
    /// The load that this asks for: users without subscribers.
    /// Errors: `TwoRates`.
    pub(crate) fn load(&self) -> Result<Load, UsageError> {
        let users = Group {
            name: "all",
            users: 0..self.users,
            connections_per_user: 0,
            events_per_second: self.run.rate(self.rate, 20_000.0)?,
        };
        let size = Size::Event(self.payload_bytes);
        let load = self.run.load(vec![users], size, Extension::None);
        let identity = if self.event_ids {
            Identity::EventId
        } else {
            Identity::None
        };
        let packing = match (self.batch, self.via) {
            (1, _) => Packing::Single,
            (events, Via::Http) => Packing::Lines(events),
            (events, Via::Websocket) => Packing::Array(events),
        };
        Ok(Load {
            identity,
            packing,
            ..load
        })
    }

    /// What the connections to `target` speak.
    /// Errors: `NeedsSightline`.
    pub(crate) fn protocol(&self, target: &Target) -> Result<Protocol, UsageError> {
        if self.via == Via::Websocket {
            return Ok(target.protocol());
        }
        let token = target.publisher_token();
        let token = token.ok_or(UsageError::NeedsSightline("ingest"))?;
        let path = match self.ack {
            Ack::Durable => "/v1/events?ack=durable",
            Ack::Received => "/v1/events?ack=received",
        };
        let media = if self.batch == 1 {
            "application/json"
        } else {
            "application/x-ndjson"
        };
        let host = self.server.server()?.host;
        Ok(Protocol::Http(Posting {
            head: http::head(&host, path, &token, media),
            outstanding_max: self.pipeline as usize,
        }))
    }
}

impl LoadArgs {
    /// The load of `groups`.
    pub(super) fn load(&self, groups: Vec<Group>) -> Load {
        let size = match self.payload_bytes {
            Some(bytes) => Size::Payload(bytes),
            None => Size::Frame(self.frame_bytes),
        };
        self.run.load(groups, size, extension(self.compress))
    }
}

impl RunArgs {
    /// The mean rate: `given`, else that of the arrivals, else `default`.
    /// Errors: `TwoRates`, where both are said.
    pub(super) fn rate(&self, given: Option<f64>, default: f64) -> Result<f64, UsageError> {
        match (given, self.arrival.rate()) {
            (Some(_), Some(_)) => Err(UsageError::TwoRates),
            (rate, None) | (None, rate) => Ok(rate.unwrap_or(default)),
        }
    }

    fn load(&self, groups: Vec<Group>, size: Size, extension: Extension) -> Load {
        Load {
            groups,
            duration: self.duration,
            warmup: self.warmup,
            size,
            identity: Identity::None,
            arrival: self.arrival.arrival(),
            packing: Packing::Single,
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

/// Events of a message; a request has at most 8 MiB.
const BATCH_MAX: i64 = 100_000;

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
