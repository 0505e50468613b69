//! The command line: what can be asked for, and its translation into scenarios.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::driver::Settings;
use crate::report::Bounds;
use crate::scenario::{Group, Idle, Load};
use crate::target::{Dialect, Target};
use crate::token::Minter;

/// Open-loop load for servers that fan events out over WebSocket.
///
/// Latency counts from the intended send time; every delivery is checked. Exit codes: 0 clean,
/// 1 a delivery was lost, duplicated, reordered or foreign, or the run could not be made,
/// 2 usage, 3 the generator itself was the bottleneck.
#[derive(Debug, Parser)]
#[command(version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// One user, N connections: every event goes to all of them.
    Fanout(Fanout),
    /// M users with N connections each; every event goes to one user's connections.
    Users(Users),
    /// Connections that only stay: handshakes a second, memory and CPU of each.
    Idle(IdleArgs),
}

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
pub(crate) struct IdleArgs {
    /// Connections.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    connections: u32,
    /// Users, who get the connections in turn. Mind the tier's connections a user.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..USERS_MAX))]
    users: u32,
    /// Seconds that the connections stay.
    #[arg(long, default_value = "5", value_parser = parse_seconds)]
    hold: Duration,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

/// What is sent, and how long.
#[derive(Debug, Args)]
pub(crate) struct LoadArgs {
    /// Seconds of each measured run.
    #[arg(long, default_value = "30", value_parser = parse_seconds)]
    duration: Duration,
    /// Seconds before the first run that are checked and not measured.
    #[arg(long, default_value = "3", value_parser = parse_seconds)]
    warmup: Duration,
    /// Measured runs, one after the other on the same connections.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    repeat: u32,
    /// Bytes of the frame that a subscriber gets, header included.
    #[arg(long, default_value_t = 415)]
    frame_bytes: usize,
    /// Publisher connections, where the target leaves it open (a topic has its own always).
    #[arg(long, default_value_t = 1)]
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

/// Which server, and where it is watched.
#[derive(Debug, Args)]
pub(crate) struct ServerArgs {
    /// Where the server listens.
    #[arg(long, default_value = "ws://127.0.0.1:4040")]
    url: String,
    /// What the server is.
    #[arg(long, value_enum, default_value_t = TargetKind::Sightline)]
    target: TargetKind,
    /// The viewers' dialect (sightline).
    #[arg(long, value_enum, default_value_t = Dialect::Keen)]
    dialect: Dialect,
    /// HS256 secret for the tokens. Required by sightline; a topic target gets tokens with it.
    #[arg(long, conflicts_with = "secret_file")]
    secret: Option<String>,
    /// File that holds the secret; a line end after it is left out.
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
    /// The tokens' `subscription_tier`.
    #[arg(long, default_value = "enterprise")]
    tier: String,
    /// The server's process, to watch its CPU time and memory.
    #[arg(long, value_name = "PID")]
    pub(crate) server_pid: Option<u32>,
    /// CPU to run on; choose one on which the server is not.
    #[arg(long)]
    pub(crate) cpu: Option<usize>,
    /// Connections that are opened at a time.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..))]
    in_flight: u32,
    /// Writes the report here as JSON.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Microseconds to waste after each read: shows that a slow generator is found out.
    #[arg(long, default_value_t = 0, hide = true)]
    stall_us: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum TargetKind {
    /// The gateway.
    Sightline,
    /// Any server that fans out `/pub?topic=T` to `/ws?topic=T`.
    Topic,
}

/// Why the arguments do not make a scenario.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UsageError {
    /// Not `ws://host:port`, or the host has no address.
    #[error("--url {url}: {reason}")]
    BadUrl {
        /// As given.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Sightline takes nobody without a token.
    #[error("--target sightline needs --secret or --secret-file")]
    NoSecret,
    /// The secret's file cannot be read.
    #[error("--secret-file {path}: {source}")]
    SecretFile {
        /// As given.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
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

impl IdleArgs {
    /// The scenario that this asks for.
    pub(crate) fn idle(&self) -> Idle {
        Idle {
            connections: self.connections,
            users: self.users,
            hold: self.hold,
        }
    }
}

impl LoadArgs {
    fn load(&self, groups: Vec<Group>) -> Load {
        Load {
            groups,
            duration: self.duration,
            warmup: self.warmup,
            frame_bytes: self.frame_bytes,
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

impl ServerArgs {
    /// The target, with its tokens.
    /// Errors: `NoSecret`, `SecretFile`.
    pub(crate) fn target(&self) -> Result<Target, UsageError> {
        let secret = self.secret()?;
        let minter = secret.map(|secret| Minter::new(&secret, &self.tier, TOKEN_LIFETIME));
        Ok(match self.target {
            TargetKind::Sightline => Target::Sightline {
                dialect: self.dialect,
                minter: minter.ok_or(UsageError::NoSecret)?,
            },
            TargetKind::Topic => Target::Topic { minter },
        })
    }

    /// How to reach and treat `target`.
    /// Errors: `BadUrl`.
    pub(crate) fn settings(&self, target: &Target) -> Result<Settings, UsageError> {
        let (address, host) = resolve(&self.url)?;
        Ok(Settings {
            address,
            host,
            greets: target.greets(),
            acknowledges: target.acknowledges(),
            in_flight_max: self.in_flight as usize,
            stall: Duration::from_micros(self.stall_us),
        })
    }

    fn secret(&self) -> Result<Option<Vec<u8>>, UsageError> {
        let Some(path) = &self.secret_file else {
            return Ok(self
                .secret
                .as_ref()
                .map(|secret| secret.clone().into_bytes()));
        };
        let text = std::fs::read(path).map_err(|source| UsageError::SecretFile {
            path: path.clone(),
            source,
        })?;
        Ok(Some(text.trim_ascii_end().to_vec()))
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

/// User names have six digits, and the hot user needs a number too.
const USERS_MAX: i64 = 999_999;
const TOKEN_LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// The address and the `Host` header for `ws://host:port`.
fn resolve(url: &str) -> Result<(SocketAddr, String), UsageError> {
    let bad = |reason: &str| UsageError::BadUrl {
        url: url.to_owned(),
        reason: reason.to_owned(),
    };
    let host = url
        .strip_prefix("ws://")
        .ok_or_else(|| bad("expected ws://host:port"))?;
    let host = host.trim_end_matches('/');
    let mut addresses = host
        .to_socket_addrs()
        .map_err(|error| bad(&error.to_string()))?;
    let address = addresses
        .next()
        .ok_or_else(|| bad("the host has no address"))?;
    Ok((address, host.to_owned()))
}

fn parse_positive(text: &str) -> Result<f64, String> {
    let value: Option<f64> = text.parse().ok();
    let is_usable = |value: &f64| *value > 0.0 && value.is_finite();
    value
        .filter(is_usable)
        .ok_or_else(|| "expected a number above 0".to_owned())
}

fn parse_seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text
        .parse()
        .map_err(|_| "expected a number of seconds".to_owned())?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use clap::CommandFactory as _;

    fn parse(arguments: &str) -> Result<Command, clap::Error> {
        let arguments = std::iter::once("loadgen").chain(arguments.split_ascii_whitespace());
        Ok(Cli::try_parse_from(arguments)?.command)
    }

    #[test]
    fn definition_holds() {
        Cli::command().debug_assert();
    }

    #[test]
    fn hot_user_follows_the_quiet_ones() {
        let command = parse("users --users 100 --connections-per-user 1 --rate 100 --hot 1000:20");
        let Command::Users(users) = command.unwrap() else {
            unreachable!("the subcommand is users");
        };
        let groups = users.load().groups;
        let seen: Vec<_> = groups
            .iter()
            .map(|group| (group.name, group.users.clone()))
            .collect();
        assert_eq!(seen, [("quiet", 0..100), ("hot", 100..101)]);
        assert_eq!(
            (groups[1].connections(), groups[1].events_per_second),
            (1000, 20.0)
        );
    }

    #[test]
    fn nonsense_is_refused() {
        for arguments in [
            "fanout --connections 0",
            "fanout --rate 0",
            "fanout --rate inf",
            "fanout --rate x",
            "fanout --duration -1",
            "users --users 0",
            "users --users 1000000",
            "users --hot 10",
            "users --hot 0:1",
            "users --hot 1:0",
            "idle --hold x",
            "fanout --secret a --secret-file b",
            "nothing",
        ] {
            assert!(parse(arguments).is_err(), "{arguments}");
        }
    }

    fn server(arguments: &str) -> ServerArgs {
        let Command::Fanout(fanout) = parse(&format!("fanout {arguments}")).unwrap() else {
            unreachable!("the subcommand is fanout");
        };
        fanout.server
    }

    #[test]
    fn secret_comes_from_the_flag_or_the_file() {
        assert!(matches!(server("").target(), Err(UsageError::NoSecret)));
        assert!(server("--target topic").target().is_ok());
        assert_eq!(
            server("--secret abc").secret().unwrap(),
            Some(b"abc".to_vec())
        );
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secret");
        std::fs::write(&file, "from the file\r\n").unwrap();
        let arguments = format!("--secret-file {}", file.display());
        assert_eq!(
            server(&arguments).secret().unwrap(),
            Some(b"from the file".to_vec())
        );
        let missing = server("--secret-file /nonexistent/secret").target();
        assert!(matches!(missing, Err(UsageError::SecretFile { .. })));
    }

    #[test]
    fn url_is_resolved() {
        let (address, host) = resolve("ws://127.0.0.1:9100/").unwrap();
        assert_eq!(
            (address.to_string().as_str(), host.as_str()),
            ("127.0.0.1:9100", "127.0.0.1:9100")
        );
        for url in [
            "http://127.0.0.1:1",
            "ws://127.0.0.1",
            "ws://",
            "127.0.0.1:1",
        ] {
            assert!(resolve(url).is_err(), "{url}");
        }
    }
}
