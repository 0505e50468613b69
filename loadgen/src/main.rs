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
//! `summary`, `soak` and `idle` (results), `slo`, `compare` and `page` (what they mean). `observer`
//! looks on from a thread of its own while a crew measures; `output` writes files, and `recorded`
//! reads a summary again.

mod attack;
mod catch_up;
mod cli;
mod compare;
mod connect_storm;
mod cpus;
mod crew;
mod dice;
mod driver;
mod environment;
mod filling;
mod frames;
mod http;
mod idle;
mod inbox;
mod inflate;
mod interval;
mod interval_row;
mod laggards;
mod link;
mod meter;
mod mix;
mod nats;
mod observer;
mod outbox;
mod output;
mod page;
mod payload;
mod phase;
mod poller;
mod proc;
mod progress;
mod protocol;
mod publish;
mod reconnect;
mod record;
mod recorded;
mod report;
mod returned;
mod returners;
mod scenario;
mod schedule;
mod session;
mod slo;
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

use crate::catch_up::{Backlog, BacklogError, CatchUpReport, Round};
use crate::cli::{
    AttackArgs, CatchUpArgs, Cli, Command, CompareArgs, ConnectArgs, FileError, IdleArgs, Ingest,
    OutputArgs, ReconnectArgs, ReportArgs, RunArgs, ServerArgs, SlowArgs, Soak, UsageError,
};
use crate::connect_storm::ConnectReport;
use crate::cpus::{NoCpu, Placement, pin};
use crate::driver::Settings;
use crate::environment::Environment;
use crate::output::{OutputError, print, write_hgrm, write_json};
use crate::proc::Process;
use crate::recorded::{Recorded, RecordedError};
use crate::report::Verdict;
use crate::scenario::{Load, ScenarioError};
use crate::soak::Growth;
use crate::summary::{Asked, Summary};
use crate::target::Target;
use crate::upgrade::Extension;

fn main() -> ExitCode {
    let result = run(&Cli::parse().command);
    match result {
        Ok(Verdict::Clean) => ExitCode::SUCCESS,
        Ok(Verdict::Failed) => ExitCode::from(1),
        Ok(Verdict::GeneratorBound) => ExitCode::from(3),
        Ok(Verdict::Missed) => ExitCode::from(4),
        Err(error) => {
            // Where standard error is gone too, the exit code has to do.
            let _ = writeln!(io::stderr(), "loadgen: {error}");
            let is_usage = matches!(
                error,
                Error::Different(_) | Error::File(_) | Error::Usage(_)
            );
            ExitCode::from(if is_usage { 2 } else { 1 })
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
    #[error("the loads differ, and so would their numbers (--anyway compares them):\n  {}", .0.join("\n  "))]
    Different(Vec<String>),
    #[error(transparent)]
    File(#[from] FileError),
    #[error("--server-pid {pid}: {source}")]
    NoServer { pid: u32, source: io::Error },
    #[error(transparent)]
    Output(#[from] OutputError),
    #[error("{path}: {source}")]
    Recorded {
        path: PathBuf,
        source: RecordedError,
    },
    #[error(transparent)]
    Scenario(#[from] ScenarioError),
    #[error(transparent)]
    Usage(#[from] UsageError),
}

fn run(command: &Command) -> Result<Verdict, Error> {
    match command {
        Command::Fanout(args) => {
            let (load, run) = (args.load()?, &args.load.run);
            Plain::new("fanout", load, run, &args.output, &args.server).run()
        }
        Command::Users(args) => {
            let (load, run) = (args.load()?, &args.load.run);
            Plain::new("users", load, run, &args.output, &args.server).run()
        }
        Command::Mixed(args) => {
            Plain::new("mixed", args.load()?, &args.run, &args.output, &args.server).run()
        }
        Command::Soak(args) => soak(args),
        Command::Ingest(args) => ingest(args),
        Command::Replay(args) => catch_up(args),
        Command::ReconnectStorm(args) => reconnect(args),
        Command::SlowConsumer(args) => slow_consumer(args),
        Command::ConnectStorm(args) => connect(args),
        Command::Idle(args) => stay(args),
        Command::Compare(args) => compare(args),
        Command::Report(args) => report(args),
        Command::Attack(args) => harm(args),
        Command::Run(file) => run(&file.command()?),
    }
}

fn ingest(arguments: &Ingest) -> Result<Verdict, Error> {
    let Ingest {
        run,
        output,
        server,
        ..
    } = arguments;
    let plain = Plain::new("ingest", arguments.load()?, run, output, server);
    let target = server.sightline("ingest")?;
    let settings = Settings {
        protocol: arguments.protocol(&target)?,
        ..server.settings(&target, plain.load.extension)?
    };
    plain.finish(&plain.measure(&target, &settings)?)
}

fn soak(arguments: &Soak) -> Result<Verdict, Error> {
    let (mixed, load) = (&arguments.mixed, arguments.load()?);
    let plain = Plain::new("soak", load, &mixed.run, &mixed.output, &mixed.server);
    let target = mixed.server.target()?;
    let settings = mixed.server.settings(&target, plain.load.extension)?;
    let mut summary = plain.measure(&target, &settings)?;
    summary.growth = Growth::new(&summary.rss_bytes(), plain.load.duration.as_secs_f64());
    if let Some(growth) = &summary.growth {
        print(&[growth.line()])?;
    }
    let failure = arguments.growth_failure(summary.growth);
    if let Some(reason) = &failure {
        summary.verdict = Verdict::Failed;
        print(&[format!("  FAILED: {reason}")])?;
    }
    plain.finish(&summary)
}

/// A load with nothing beside it, and what becomes of its results.
struct Plain<'a> {
    scenario: &'static str,
    load: Load,
    run: &'a RunArgs,
    output: &'a OutputArgs,
    server: &'a ServerArgs,
}

impl<'a> Plain<'a> {
    fn new(
        scenario: &'static str,
        load: Load,
        run: &'a RunArgs,
        output: &'a OutputArgs,
        server: &'a ServerArgs,
    ) -> Self {
        Self {
            scenario,
            load,
            run,
            output,
            server,
        }
    }

    fn run(&self) -> Result<Verdict, Error> {
        let target = self.server.target()?;
        let settings = self.server.settings(&target, self.load.extension)?;
        self.finish(&self.measure(&target, &settings)?)
    }

    /// Runs the load and prints each run as it ended. `settings` are those from before this thread
    /// is pinned.
    fn measure(&self, target: &Target, settings: &Settings) -> Result<Summary, Error> {
        output::prepare_folder(self.output.report.as_deref())?;
        let Watched { process, placement } = prepare(self.server)?;
        let server = &settings.server;
        let environment = Environment::look(server.address, server.tls.is_some(), process);
        let mut runs = Ended::default();
        let connected = scenario::run_load(target, settings, &self.load, process, |run| {
            let lines = run.lines(self.scenario);
            runs.add(run, &lines);
        })?;
        let runs = runs.all()?;
        let asked = Asked {
            command: command(),
            scenario: self.scenario,
            target: target.name(),
            slo: self.output.slo.as_ref(),
        };
        let mut summary = Summary::new(asked, &self.load, &connected, environment, runs);
        summary.placement = placement;
        Ok(summary)
    }

    /// Prints what the runs come to, and writes the files that were asked for.
    fn finish(&self, summary: &Summary) -> Result<Verdict, Error> {
        print(&summary.spread_lines())?;
        print(&summary.objective_lines())?;
        write_json(self.server.json.as_deref(), summary)?;
        output::write_folder(self.output.report.as_deref(), &self.load, summary)?;
        let (hgrm, latencies) = (self.run.hgrm.as_deref(), summary.merged_latencies());
        write_latencies(hgrm, summary.verdict, &latencies)
    }
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
    let mut rounds = Ended::default();
    catch_up::run(&target, &settings, &catch_up, process, backlog, |round| {
        let lines = round.lines();
        rounds.add(round, &lines);
    })?;
    report_rounds("loadgen/catch-up/1", rounds, &arguments.load.run, server)
}

fn reconnect(arguments: &ReconnectArgs) -> Result<Verdict, Error> {
    let server = &arguments.server;
    let (target, reconnect) = (arguments.target()?, arguments.reconnect());
    let settings = server.settings(&target, reconnect.live.extension)?;
    let process = prepare(server)?.process;
    let mut rounds = Ended::default();
    reconnect::run(&target, &settings, &reconnect, process, |round| {
        let lines = round.lines();
        rounds.add(round, &lines);
    })?;
    report_rounds(
        "loadgen/reconnect-storm/1",
        rounds,
        &arguments.load.run,
        server,
    )
}

fn slow_consumer(arguments: &SlowArgs) -> Result<Verdict, Error> {
    let (server, slow) = (&arguments.server, arguments.slow_consumer()?);
    let target = server.target()?;
    let settings = server.settings(&target, slow.live.extension)?;
    let process = prepare(server)?.process;
    let mut rounds = Ended::default();
    slow_consumer::run(&target, &settings, &slow, process, |round| {
        let lines = round.lines();
        rounds.add(round, &lines);
    })?;
    report_rounds(
        "loadgen/slow-consumer/1",
        rounds,
        &arguments.load.run,
        server,
    )
}

/// What has ended, each printed as it did.
struct Ended<T> {
    all: Vec<T>,
    printed: Result<(), OutputError>,
}

impl<T> Default for Ended<T> {
    fn default() -> Self {
        let (all, printed) = (Vec::new(), Ok(()));
        Self { all, printed }
    }
}

impl<T> Ended<T> {
    fn add(&mut self, one: T, lines: &[String]) {
        let printed = print(lines);
        self.printed = std::mem::replace(&mut self.printed, Ok(())).and(printed);
        self.all.push(one);
    }

    /// All of them. Errors: one could not be printed.
    fn all(self) -> Result<Vec<T>, OutputError> {
        self.printed.map(|()| self.all)
    }
}

/// Sums up rounds with viewers that come back, prints that, and writes the files that were asked for.
fn report_rounds(
    schema: &'static str,
    rounds: Ended<Round>,
    arguments: &RunArgs,
    server: &ServerArgs,
) -> Result<Verdict, Error> {
    let report = CatchUpReport::new(schema, command(), rounds.all()?);
    print(&report.lines())?;
    write_json(server.json.as_deref(), &report)?;
    let (hgrm, verdict) = (arguments.hgrm.as_deref(), report.verdict());
    write_latencies(hgrm, verdict, &report.merged_latencies())
}

fn write_latencies(
    path: Option<&Path>,
    verdict: Verdict,
    latencies: &[(&str, Histogram<u64>)],
) -> Result<Verdict, Error> {
    if verdict.stands() {
        write_hgrm(path, latencies)?;
    }
    Ok(verdict)
}

fn connect(arguments: &ConnectArgs) -> Result<Verdict, Error> {
    let (server, storm) = (&arguments.server, arguments.storm()?);
    let target = server.target()?;
    let settings = server.settings(&target, Extension::None)?;
    let process = prepare(server)?.process;
    let mut rounds = Ended::default();
    connect_storm::run(&target, &settings, storm, process, |round| {
        let lines = round.lines();
        rounds.add(round, &lines);
    })?;
    let report = ConnectReport::new(command(), rounds.all()?);
    print(&report.lines())?;
    write_json(server.json.as_deref(), &report)?;
    let (hgrm, verdict) = (arguments.hgrm.as_deref(), report.verdict());
    write_latencies(hgrm, verdict, &report.merged_latencies())
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

fn compare(arguments: &CompareArgs) -> Result<Verdict, Error> {
    let [first, second] = [&arguments.first, &arguments.second].map(|path| recorded(path));
    let (first, second) = (first?, second?);
    let differences = compare::differences(&first, &second);
    if !differences.is_empty() && !arguments.anyway {
        return Err(Error::Different(differences));
    }
    let names = [&arguments.first, &arguments.second].map(|path| path.display().to_string());
    print(&compare::lines(&first, &second, [&names[0], &names[1]]))?;
    Ok(Verdict::Clean)
}

fn report(arguments: &ReportArgs) -> Result<Verdict, Error> {
    let named = |path: &PathBuf| Ok((path.display().to_string(), recorded(path)?));
    let summaries: Result<Vec<_>, Error> = arguments.summaries.iter().map(named).collect();
    output::write_page(&arguments.output, &summaries?)?;
    Ok(Verdict::Clean)
}

fn recorded(path: &Path) -> Result<Recorded, Error> {
    Recorded::read(path).map_err(|source| Error::Recorded {
        path: path.to_owned(),
        source,
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
