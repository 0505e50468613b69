//! The command line: what can be asked for, and its translation into scenarios.

mod arrival;
mod attack;
mod catch_up;
mod connect;
mod file;
mod load;
mod output;
mod reconnect;
mod returning;
mod server;
mod slow;
mod soak;

use std::time::Duration;

use clap::{Args, CommandFactory as _, Parser, Subcommand};

pub(crate) use self::attack::AttackArgs;
pub(crate) use self::catch_up::CatchUpArgs;
pub(crate) use self::connect::ConnectArgs;
pub(crate) use self::file::FileError;
use self::file::RunFile;
pub(crate) use self::load::{Fanout, Ingest, Mixed, RunArgs, Users};
pub(crate) use self::output::{CompareArgs, OutputArgs, ReportArgs};
pub(crate) use self::reconnect::ReconnectArgs;
pub(crate) use self::server::{ServerArgs, UsageError};
pub(crate) use self::slow::SlowArgs;
pub(crate) use self::soak::Soak;
use crate::scenario::Idle;

/// Open-loop load for servers that fan events out over WebSocket.
///
/// Latency counts from the intended send time; every delivery is checked. Exit codes: 0 clean,
/// 1 a delivery was lost, duplicated, reordered or foreign, or the run could not be made,
/// 2 usage, or summaries of different loads, 3 the generator itself was the bottleneck, 4 a clean
/// run that missed what --slo asks.
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
    /// M users with N connections each, and events of several types and sizes, as agents publish
    /// them.
    Mixed(Mixed),
    /// The mixture for a long time, interval by interval: memory and latency over time.
    Soak(Soak),
    /// Publishers alone: how soon what they send is acknowledged.
    Ingest(Ingest),
    /// Viewers that come back to what they have missed, beside a live load.
    #[command(alias = "catch-up")]
    Replay(CatchUpArgs),
    /// Viewers that are all cut off at once and come back with their cursors, beside a live load.
    ReconnectStorm(ReconnectArgs),
    /// Viewers that read slowly or not at all, beside others of the same streams.
    SlowConsumer(SlowArgs),
    /// Handshakes: how many a second, how long each takes, what they cost the server.
    ConnectStorm(ConnectArgs),
    /// Connections that only stay: handshakes a second, memory and CPU of each.
    Idle(IdleArgs),
    /// Two summaries beside each other: the ratio of the medians, and how sure it is.
    Compare(CompareArgs),
    /// Several summaries on one page.
    Report(ReportArgs),
    /// Peers that mean harm, many and for a while. Against your own server only.
    Attack(AttackArgs),
    /// A scenario file, such as those in perf/scenarios: TOML that names a scenario and holds what
    /// flags hold. Flags behind it win.
    Run(RunFile),
}

impl RunFile {
    /// The command that the file stands for; never another file. Where the flags behind it are
    /// wrong, this prints so and ends the process, with 2.
    /// Errors: the file is wrong.
    pub(crate) fn command(&self) -> Result<Command, FileError> {
        let arguments = self.arguments(&Cli::command())?;
        Ok(Cli::parse_from(arguments).command)
    }
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

/// User names have six digits, and the hot user needs a number too.
const USERS_MAX: i64 = 999_999;

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
    use crate::payload::Identity;
    use crate::scenario::Size;
    use crate::schedule::Arrival;

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
        let groups = users.load().unwrap().groups;
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
    fn publishing_has_users_and_no_subscribers() {
        let command = parse("ingest --users 7 --payload-bytes 600 --event-ids").unwrap();
        let Command::Ingest(ingest) = command else {
            unreachable!("the subcommand is ingest");
        };
        let load = ingest.load().unwrap();
        assert_eq!((load.users(), load.groups[0].connections()), (7, 0));
        assert_eq!(load.size, Size::Event(600));
        assert_eq!(load.identity, Identity::EventId);
    }

    #[test]
    fn arrivals_say_their_rate_or_leave_it_to_the_flag() {
        let rate = |arguments: &str| {
            let Command::Fanout(fanout) = parse(&format!("fanout {arguments}")).unwrap() else {
                unreachable!("the subcommand is fanout");
            };
            let load = fanout.load();
            load.map(|load| load.groups[0].events_per_second)
        };
        assert_eq!(rate("").unwrap(), 20.0);
        assert_eq!(rate("--rate 7 --arrival poisson").unwrap(), 7.0);
        assert_eq!(rate("--arrival ramp:10:30").unwrap(), 20.0);
        assert_eq!(rate("--arrival burst:5:0.5").unwrap(), 10.0);
        let both = rate("--rate 7 --arrival ramp:10:30");
        assert!(matches!(both, Err(UsageError::TwoRates)));
    }

    #[test]
    fn handshakes_have_a_pace_or_none() {
        let pace = |arguments: &str| {
            let command = parse(&format!("connect-storm {arguments}")).unwrap();
            let Command::ConnectStorm(connect) = command else {
                unreachable!("the subcommand is connect-storm");
            };
            connect.storm().map(|storm| storm.pace)
        };
        assert_eq!(pace("").unwrap(), None);
        assert_eq!(pace("--rate 5").unwrap(), Some((5.0, Arrival::Even)));
        let burst = pace("--arrival burst:100:0.1").unwrap();
        assert_eq!(burst, Some((1000.0, Arrival::Burst(100))));
        assert!(matches!(pace("--arrival poisson"), Err(UsageError::NoRate)));
        let both = pace("--rate 1 --arrival burst:100:0.1");
        assert!(matches!(both, Err(UsageError::TwoRates)));
    }

    #[test]
    fn live_users_are_none_of_those_that_come_back() {
        let most = "replay --users 300000 --live-users 300000";
        let Command::Replay(catch_up) = parse(most).unwrap() else {
            unreachable!("the subcommand is replay");
        };
        let catch_up = catch_up.catch_up();
        let live = &catch_up.live.groups[0].users;
        assert!(live.start >= catch_up.users.end, "{live:?}");
        assert!(i64::from(live.end) < USERS_MAX, "{live:?}");
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
            "fanout --frame-bytes 1 --payload-bytes 1",
            "fanout --arrival sometimes",
            "ingest --rate 0",
            "ingest --users 0",
            "ingest --publishers 0",
            "ingest --batch 0",
            "ingest --pipeline 0",
            "ingest --via pigeon",
            "ingest --ack never",
            "replay --viewers 0",
            "replay --users 300001",
            "replay --prepare a --cursors b",
            "attack",
            "attack --kind nothing",
            "attack --kind silent --connections 0",
            "attack --kind silent --connections 20001",
            "attack --kind silent --duration 3601",
            "fanout --slo p99<1",
            "compare a",
            "report a",
            "report -o a",
            "nothing",
        ] {
            assert!(parse(arguments).is_err(), "{arguments}");
        }
    }
}
