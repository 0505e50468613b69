//! `loadgen`: open-loop load for servers that fan events out over WebSocket.
//!
//! `cli` reads what is asked for, `scenario` runs it, `driver` is the event loop over `link`,
//! `transport`, `tls` and `poller`, with `outbox` for what goes out and `inbox` for what comes;
//! `crew` has one on each CPU, with a load in common, and `session` a crew with its connections.
//! `connect_storm` and `slow_consumer` are scenarios of their own, and so are `catch_up` and
//! `reconnect`, with a second loop on a thread beside it; `attack` is a loop of its own. Pure parts:
//! `schedule` (what is due when), `dice` (chance by a seed), `payload`, `filling` and `mix` (the
//! events), `publish` (sending, and what is acknowledged), `upgrade`, `frames` and `inflate` (the
//! WebSocket protocol), `nats` (the one inside it), `http`, `protocol` (which of them is spoken),
//! `record` (checking deliveries), `returners` (viewers that come in the course of a phase), `storm`
//! (those that are cut off in it), `laggards` (those that hardly read), `report`, `returned`,
//! `summary`, `soak` and `idle` (results).

mod attack;
mod catch_up;
mod cli;
mod connect_storm;
mod cpus;
mod crew;
mod dice;
mod driver;
mod filling;
mod frames;
mod http;
mod idle;
mod inbox;
mod inflate;
mod laggards;
mod link;
mod meter;
mod mix;
mod nats;
mod outbox;
mod payload;
mod phase;
mod poller;
mod proc;
mod protocol;
mod publish;
mod reconnect;
mod record;
mod report;
mod returned;
mod returners;
mod scenario;
mod schedule;
mod session;
mod slow_consumer;
mod soak;
mod storm;
mod summary;
mod target;
mod timer;
mod tls;
mod token;
mod transport;
mod upgrade;

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser as _;
use hdrhistogram::Histogram;
use serde::Serialize;

use crate::catch_up::{Backlog, BacklogError, CatchUpReport, Round};
use crate::cli::{
    AttackArgs, CatchUpArgs, Cli, Command, ConnectArgs, FileError, IdleArgs, Ingest, ReconnectArgs,
    RunArgs, ServerArgs, SlowArgs, Soak, UsageError,
};
use crate::connect_storm::ConnectReport;
use crate::cpus::{NoCpu, Placement, pin};
use crate::driver::Settings;
use crate::proc::Process;
use crate::report::Verdict;
use crate::scenario::{Load, ScenarioError};
use crate::soak::Growth;
use crate::summary::Summary;
use crate::target::Target;
use crate::upgrade::Extension;

fn main() -> ExitCode {
    let result = run(&Cli::parse().command);
    match result {
        Ok(Verdict::Clean) => ExitCode::SUCCESS,
        Ok(Verdict::Failed) => ExitCode::from(1),
        Ok(Verdict::GeneratorBound) => ExitCode::from(3),
        Err(error) => {
            // Where standard error is gone too, the exit code has to do.
            let _ = writeln!(io::stderr(), "loadgen: {error}");
            ExitCode::from(if matches!(error, Error::File(_) | Error::Usage(_)) {
                2
            } else {
                1
            })
        }
    }
}

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Backlog(#[from] BacklogError),
    #[error(transparent)]
    Cpu(#[from] NoCpu),
    #[error(transparent)]
    File(#[from] FileError),
    #[error("--server-pid {pid}: {source}")]
    NoServer { pid: u32, source: io::Error },
    #[error("{path}: {source}")]
    Output { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Scenario(#[from] ScenarioError),
    #[error(transparent)]
    Usage(#[from] UsageError),
}

fn run(command: &Command) -> Result<Verdict, Error> {
    match command {
        Command::Fanout(args) => load("fanout", &args.load()?, &args.load.run, &args.server),
        Command::Users(args) => load("users", &args.load()?, &args.load.run, &args.server),
        Command::Mixed(args) => load("mixed", &args.load()?, &args.run, &args.server),
        Command::Soak(args) => soak(args),
        Command::Ingest(args) => ingest(args),
        Command::Replay(args) => catch_up(args),
        Command::ReconnectStorm(args) => reconnect(args),
        Command::SlowConsumer(args) => slow_consumer(args),
        Command::ConnectStorm(args) => connect(args),
        Command::Idle(args) => stay(args),
        Command::Attack(args) => harm(args),
        Command::Run(file) => run(&file.command()?),
    }
}

fn ingest(arguments: &Ingest) -> Result<Verdict, Error> {
    let (server, load) = (&arguments.server, arguments.load()?);
    let target = server.sightline("ingest")?;
    let settings = Settings {
        protocol: arguments.protocol(&target)?,
        ..server.settings(&target, load.extension)?
    };
    let summary = measure("ingest", &target, &settings, &load, server)?;
    finish(&summary, &arguments.run, server)
}

fn soak(arguments: &Soak) -> Result<Verdict, Error> {
    let (server, load) = (&arguments.mixed.server, arguments.load()?);
    let target = server.target()?;
    let settings = server.settings(&target, load.extension)?;
    let mut summary = measure("soak", &target, &settings, &load, server)?;
    summary.growth = Growth::new(&summary.rss_bytes(), load.duration.as_secs_f64());
    if let Some(growth) = &summary.growth {
        print(&[growth.line()])?;
    }
    let verdict = finish(&summary, &arguments.mixed.run, server)?;
    let Some(reason) = arguments.growth_failure(summary.growth) else {
        return Ok(verdict);
    };
    print(&[format!("  FAILED: {reason}")])?;
    Ok(Verdict::Failed)
}

fn load(
    scenario: &'static str,
    load: &Load,
    arguments: &RunArgs,
    server: &ServerArgs,
) -> Result<Verdict, Error> {
    let target = server.target()?;
    let settings = server.settings(&target, load.extension)?;
    let summary = measure(scenario, &target, &settings, load, server)?;
    finish(&summary, arguments, server)
}

/// Runs `load` and prints each run as it ended.
fn measure(
    scenario: &'static str,
    target: &Target,
    settings: &Settings,
    load: &Load,
    server: &ServerArgs,
) -> Result<Summary, Error> {
    let Watched { process, placement } = prepare(server)?;
    let mut runs = Vec::new();
    let mut unprinted = Ok(());
    let connected = scenario::run_load(target, settings, load, process, |run| {
        let printed = print(&run.lines(scenario));
        unprinted = std::mem::replace(&mut unprinted, Ok(())).and(printed);
        runs.push(run);
    })?;
    unprinted?;
    let mut summary = Summary::new(command(), scenario, target.name(), load, &connected, runs);
    summary.placement = placement;
    Ok(summary)
}

/// Prints what the runs come to, and writes the files that were asked for.
fn finish(summary: &Summary, arguments: &RunArgs, server: &ServerArgs) -> Result<Verdict, Error> {
    print(&summary.spread_lines())?;
    write_json(server.json.as_deref(), summary)?;
    let (verdict, latencies) = (summary.verdict(), summary.merged_latencies());
    write_hgrm(arguments.hgrm.as_deref(), verdict, &latencies)?;
    Ok(verdict)
}

fn catch_up(arguments: &CatchUpArgs) -> Result<Verdict, Error> {
    let server = &arguments.server;
    let (target, catch_up) = (arguments.target()?, arguments.catch_up());
    let settings = server.settings(&target, catch_up.live.extension)?;
    let backlog = arguments
        .cursors
        .as_deref()
        .map(Backlog::read)
        .transpose()?;
    let process = prepare(server)?.process;
    if let Some(path) = &arguments.prepare {
        let backlog = catch_up::prepare(&target, &settings, &catch_up, process)?;
        backlog.write(path)?;
        print(&[backlog.line()])?;
        return Ok(Verdict::Clean);
    }
    let mut rounds = Rounds::default();
    catch_up::run(&target, &settings, &catch_up, process, backlog, |round| {
        rounds.add(round);
    })?;
    rounds.report("loadgen/catch-up/1", &arguments.load.run, server)
}

fn reconnect(arguments: &ReconnectArgs) -> Result<Verdict, Error> {
    let server = &arguments.server;
    let (target, reconnect) = (arguments.target()?, arguments.reconnect());
    let settings = server.settings(&target, reconnect.live.extension)?;
    let process = prepare(server)?.process;
    let mut rounds = Rounds::default();
    reconnect::run(&target, &settings, &reconnect, process, |round| {
        rounds.add(round);
    })?;
    rounds.report("loadgen/reconnect-storm/1", &arguments.load.run, server)
}

fn slow_consumer(arguments: &SlowArgs) -> Result<Verdict, Error> {
    let (server, slow) = (&arguments.server, arguments.slow_consumer()?);
    let target = server.target()?;
    let settings = server.settings(&target, slow.live.extension)?;
    let process = prepare(server)?.process;
    let mut rounds = Rounds::default();
    slow_consumer::run(&target, &settings, &slow, process, |round| {
        rounds.add(round)
    })?;
    rounds.report("loadgen/slow-consumer/1", &arguments.load.run, server)
}

/// Rounds, each printed as it ended.
struct Rounds {
    all: Vec<Round>,
    printed: Result<(), Error>,
}

impl Default for Rounds {
    fn default() -> Self {
        let (all, printed) = (Vec::new(), Ok(()));
        Self { all, printed }
    }
}

impl Rounds {
    fn add(&mut self, round: Round) {
        let printed = print(&round.lines());
        self.printed = std::mem::replace(&mut self.printed, Ok(())).and(printed);
        self.all.push(round);
    }

    /// Sums them up, prints that, and writes the files that were asked for.
    fn report(
        self,
        schema: &'static str,
        arguments: &RunArgs,
        server: &ServerArgs,
    ) -> Result<Verdict, Error> {
        self.printed?;
        let report = CatchUpReport::new(schema, command(), self.all);
        print(&report.lines())?;
        write_json(server.json.as_deref(), &report)?;
        let verdict = report.verdict();
        let latencies = report.merged_latencies();
        write_hgrm(arguments.hgrm.as_deref(), verdict, &latencies)?;
        Ok(verdict)
    }
}

fn connect(arguments: &ConnectArgs) -> Result<Verdict, Error> {
    let (server, storm) = (&arguments.server, arguments.storm()?);
    let target = server.target()?;
    let settings = server.settings(&target, Extension::None)?;
    let process = prepare(server)?.process;
    let mut rounds = Vec::new();
    let mut printed = Ok(());
    connect_storm::run(&target, &settings, storm, process, |round| {
        let now = print(&round.lines());
        printed = std::mem::replace(&mut printed, Ok(())).and(now);
        rounds.push(round);
    })?;
    printed?;
    let report = ConnectReport::new(command(), rounds);
    print(&report.lines())?;
    write_json(server.json.as_deref(), &report)?;
    let (verdict, latencies) = (report.verdict(), report.merged_latencies());
    write_hgrm(arguments.hgrm.as_deref(), verdict, &latencies)?;
    Ok(verdict)
}

fn stay(arguments: &IdleArgs) -> Result<Verdict, Error> {
    let server = &arguments.server;
    let target = server.target()?;
    let settings = server.settings(&target, Extension::None)?;
    let process = prepare(server)?.process;
    let report = scenario::run_idle(&target, &settings, arguments.idle(), process)?;
    print(&report.lines())?;
    write_json(server.json.as_deref(), &report)?;
    Ok(if report.closed.is_empty() {
        Verdict::Clean
    } else {
        Verdict::Failed
    })
}

fn harm(arguments: &AttackArgs) -> Result<Verdict, Error> {
    let attack = arguments.attack()?;
    prepare(&arguments.server)?;
    let report = attack::run(&attack)?;
    print(&report.lines())?;
    write_json(arguments.server.json.as_deref(), &report)?;
    Ok(if report.connections > 0 {
        Verdict::Clean
    } else {
        Verdict::Failed
    })
}

/// The server's process, where it is known.
#[derive(Debug, Default)]
struct Watched {
    process: Option<Process>,
    placement: Option<Placement>,
}

/// Pins this thread and finds the server's process; says where both run.
fn prepare(server: &ServerArgs) -> Result<Watched, Error> {
    let cpus = server.cpus.as_ref();
    cpus.map_or(Ok(()), |cpus| {
        cpus.as_slice().iter().rev().try_for_each(|cpu| pin(*cpu))
    })?;
    let Some(pid) = server.server_pid else {
        return Ok(Watched::default());
    };
    let unreadable = |source| Error::NoServer { pid, source };
    let process = Process::watch(pid).map_err(unreadable)?;
    let placement = Placement::of(process, cpus).map_err(unreadable)?;
    print(&[placement.line()])?;
    Ok(Watched {
        process: Some(process),
        placement: Some(placement),
    })
}

fn print(lines: &[String]) -> Result<(), Error> {
    let mut out = io::stdout().lock();
    let written = lines.iter().try_for_each(|line| writeln!(out, "{line}"));
    written.map_err(output_error(Path::new("standard output")))
}

fn write_json(path: Option<&Path>, report: &impl Serialize) -> Result<(), Error> {
    let Some(path) = path else {
        return Ok(());
    };
    let mut text = serde_json::to_string_pretty(report)
        .map_err(|error| output_error(path)(io::Error::new(io::ErrorKind::InvalidData, error)))?;
    text.push('\n');
    std::fs::write(path, text).map_err(output_error(path))
}

/// Writes `path`, or one file for each group beside it: `latency.hgrm`, `latency.hot.hgrm`.
/// A run whose latency does not stand writes none.
fn write_hgrm(
    path: Option<&Path>,
    verdict: Verdict,
    groups: &[(&str, Histogram<u64>)],
) -> Result<(), Error> {
    let Some(path) = path.filter(|_| verdict == Verdict::Clean) else {
        return Ok(());
    };
    for (name, histogram) in groups {
        let path = if groups.len() > 1 {
            path.with_extension(format!("{name}.hgrm"))
        } else {
            path.into()
        };
        std::fs::write(&path, latency_report::hgrm::render_ms(histogram))
            .map_err(output_error(&path))?;
    }
    Ok(())
}

fn output_error(path: &Path) -> impl Fn(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Output {
        path: path.clone(),
        source,
    }
}

/// The command line as it was given, the secret left out.
fn command() -> String {
    let mut arguments: Vec<_> = std::env::args().collect();
    let mut is_secret = false;
    for argument in &mut arguments {
        if is_secret {
            *argument = "…".to_owned();
        } else if argument.starts_with("--secret=") {
            *argument = "--secret=…".to_owned();
        }
        is_secret = argument == "--secret";
    }
    arguments.join(" ")
}
