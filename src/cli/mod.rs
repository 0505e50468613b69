//! The command line: which command, with which flags, and what a failure looks like. One file for
//! each command; each has its arguments (`…Args`) and a `run` that returns the exit code.
//!
//! Exit codes: 0, 1 failed, 2 usage, 78 configuration. A failure is one line on standard error
//! for each thing that is wrong, beginning with `error: `.

pub mod check_config;
pub mod client;
mod config_args;
pub mod dev;
pub mod history;
pub mod logging;
pub mod publish;
pub mod report;
mod screen;
pub mod serve;
pub mod stats;
pub mod tail;
pub mod token;
pub mod watch_git;

use std::{
    fmt,
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
    time::{SystemTime, UNIX_EPOCH},
};

use clap::{Args, Parser, Subcommand};

use self::client::ClientError;
pub use self::config_args::ConfigArgs;
use crate::config::{ConfigErrors, Secret, Sources};

/// A real-time gateway for the activity of AI coding agents.
#[derive(Debug, Parser)]
#[command(name = "sightline", version, about, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// What is logged: off, error, warn, info, debug, trace, or a list of target=level
    #[arg(
        long,
        global = true,
        env = "SIGHTLINE_LOG",
        hide_env_values = true,
        value_name = "LEVEL",
        default_value = "info"
    )]
    log_level: String,
}

/// One row for each command; the line below [`Command::run`] is the other half of the table.
#[derive(Debug, Subcommand)]
enum Command {
    /// Check the configuration and print what is in effect
    CheckConfig(check_config::CheckConfigArgs),
    /// Look into the event log: erase, export, new-epoch, stats, verify
    History(history::HistoryArgs),
    // What has no line here is described by its arguments.
    Publish(publish::PublishArgs),
    Report(report::ReportArgs),
    /// Start the gateway
    Serve(serve::ServeArgs),
    Stats(stats::StatsArgs),
    Tail(tail::TailArgs),
    /// Print a token, signed with the configured secret or the given key
    Token(TokenCommand),
    WatchGit(watch_git::WatchGitArgs),
}

/// `token`, and where the configuration is that fills in what no flag says.
#[derive(Debug, Args)]
struct TokenCommand {
    /// Configuration file [default: ./sightline.toml where it exists]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    token: token::TokenArgs,
}

impl TokenCommand {
    fn run(&self) -> Result<ExitCode, CliError> {
        let settings = Sources::of_process(self.config.as_deref())?.token_settings()?;
        let defaults = token::TokenDefaults {
            secret: settings.secret.as_ref().map(Secret::as_bytes),
            issuer: settings.issuer.as_deref(),
            audience: settings.audience.as_deref(),
        };
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        token::run(&self.token, defaults, now.as_secs(), &mut io::stdout())
            .map_err(|error| CliError::new(error.exit_code(), error))?;
        Ok(ExitCode::SUCCESS)
    }
}

impl Command {
    fn run(self) -> Result<ExitCode, CliError> {
        match self {
            Self::CheckConfig(args) => check_config::run(&args, &mut io::stdout()),
            Self::History(args) => history::run(args),
            Self::Publish(args) => done(publish::run(&args)),
            Self::Report(args) => done(report::run(&args)),
            Self::Serve(args) => serve::run(&args),
            Self::Stats(args) => done(stats::run(&args)),
            Self::Tail(args) => done(tail::run(&args)),
            Self::Token(command) => command.run(),
            Self::WatchGit(args) => done(watch_git::run(&args)),
        }
    }
}

/// The exit code of a client command.
fn done(outcome: Result<(), ClientError>) -> Result<ExitCode, CliError> {
    outcome.map(|()| ExitCode::SUCCESS).map_err(CliError::from)
}

/// Runs the command that this process was started with.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are "errors" too, with code 0; a closed pipe is no reason to fail.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(CliError::FAILED));
        }
    };
    let outcome = logging::init(&cli.log_level).and_then(|()| cli.command.run());
    outcome.unwrap_or_else(|error| {
        let _ = write!(io::stderr(), "{error}");
        ExitCode::from(error.exit_code)
    })
}

/// Why a command failed.
#[derive(Debug)]
pub struct CliError {
    /// What the process exits with; not 0.
    pub exit_code: u8,
    /// For the operator, without `error: `; a line for each thing that is wrong.
    pub message: String,
}

impl CliError {
    /// The command could not do its work.
    pub const FAILED: u8 = 1;
    /// The arguments make no sense.
    pub const USAGE: u8 = 2;
    /// The configuration is wrong (`EX_CONFIG` of BSD's sysexits).
    pub const CONFIGURATION: u8 = 78;

    /// With one of the codes above.
    pub fn new(exit_code: u8, message: impl fmt::Display) -> Self {
        Self {
            exit_code,
            message: message.to_string(),
        }
    }
}

impl fmt::Display for CliError {
    /// Each line begins with `error: ` and ends with a newline.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.message
            .lines()
            .try_for_each(|line| writeln!(f, "error: {line}"))
    }
}

impl From<ConfigErrors> for CliError {
    fn from(errors: ConfigErrors) -> Self {
        Self::new(Self::CONFIGURATION, errors)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flags_of_all_commands_agree_with_each_other() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }

    #[test]
    fn each_line_of_a_failure_says_that_it_is_one() {
        let error = CliError::new(CliError::CONFIGURATION, "first\nsecond");
        assert_eq!(error.to_string(), "error: first\nerror: second\n");
    }

    #[test]
    fn wrong_usage_ends_with_2_and_help_with_0() {
        let check = |arguments: &[&str], expected: i32| {
            let words = ["sightline"].iter().chain(arguments);
            let code = Cli::try_parse_from(words).map_or_else(|error| error.exit_code(), |_| -1);
            assert_eq!(code, expected, "{arguments:?}");
        };
        check(&[], 2);
        check(&["serv"], 2);
        check(&["check-config", "--prot", "1"], 2);
        check(&["check-config", "--set", "limits.connections_max"], 2);
        check(&["--help"], 0);
        check(&["check-config", "--help"], 0);
        check(&["--version"], 0);
        check(&["check-config", "--cores", "many"], -1);
    }
}
