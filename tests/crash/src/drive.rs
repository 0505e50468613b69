//! A run: the gateway's lives one after the other, with all clients on their threads, and at the end
//! the event log as it was left. Leaves everything in a folder, for `check`.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use fastrand::Rng;
use sightline_crash::cast::{self, PUBLISHERS, ViewerPlan};
use sightline_crash::records::{GatewayLine, Plan, Recorder, of_file, path_of};

use crate::gateway::{Gateway, Installation};
use crate::publisher::Publisher;
use crate::stage::{Life, Stage};
use crate::viewer::Viewer;

/// The arguments of `drive`.
#[derive(Args)]
pub struct DriveArgs {
    /// The binary of the gateway
    binary: PathBuf,
    /// Where data, logs and records go; it is made, and emptied where it is there
    folder: PathBuf,
    /// How often the gateway is killed
    #[arg(long, default_value_t = 200)]
    cycles: u32,
    /// From which all choices follow, but for the timing of threads [default: drawn, and told]
    #[arg(long)]
    seed: Option<u64>,
    /// When viewers see an event: history.deliver
    #[arg(long, default_value = "eager", value_parser = ["eager", "durable"])]
    deliver: String,
    /// Never kill it: at each cycle the clients reconnect to the same one
    #[arg(long)]
    without_kills: bool,
}

/// Runs gateway and clients. Errors: what kept the run from being one, in words; what it shows is for
/// `check` to say.
pub fn drive(args: &DriveArgs) -> Result<(), String> {
    let records = args.folder.join("records");
    let _ = std::fs::remove_dir_all(&args.folder);
    std::fs::create_dir_all(&records).map_err(|error| of_file(&records, &error))?;
    let folder = args.folder.canonicalize();
    let folder = folder.map_err(|error| of_file(&args.folder, &error))?;
    let seed = args.seed.unwrap_or_else(|| fastrand::u64(..));
    eprintln!(
        "crash: {} cycles, deliver={}, seed {seed}",
        args.cycles, args.deliver
    );
    let secret = format!("a secret of the crash test: {seed:032x}");
    let installation = Installation::create(&args.binary, &folder, &args.deliver, &secret)?;
    let plan = Plan {
        seed,
        cycles: args.cycles,
        deliver: args.deliver.clone(),
        viewers: cast::viewers(),
        publishers: (0..PUBLISHERS).map(|n| format!("publisher-{n}")).collect(),
    };
    write_plan(&records, &plan)?;
    let run = Run {
        plan: &plan,
        records: &records,
        installation: &installation,
        stage: Stage::default(),
        caught_up: plan.viewers.iter().map(|_| AtomicBool::default()).collect(),
        publishers_left: AtomicUsize::new(plan.publishers.len()),
        is_killing: !args.without_kills,
    };
    run.play()?;
    installation.export(&path_of(&records, "export"))
}

fn write_plan(records: &Path, plan: &Plan) -> Result<(), String> {
    let path = records.join("plan.json");
    let text = serde_json::to_string_pretty(plan).map_err(|error| error.to_string())?;
    std::fs::write(&path, text).map_err(|error| of_file(&path, &error))
}

struct Run<'r> {
    plan: &'r Plan,
    records: &'r Path,
    installation: &'r Installation,
    stage: Stage,
    caught_up: Vec<AtomicBool>,
    publishers_left: AtomicUsize,
    is_killing: bool,
}

impl Run<'_> {
    fn play(&self) -> Result<(), String> {
        let mut publishers = Vec::new();
        for name in &self.plan.publishers {
            publishers.push(self.publisher(name)?);
        }
        let mut viewers = Vec::new();
        for (plan, caught_up) in self.plan.viewers.iter().zip(&self.caught_up) {
            viewers.push(self.viewer(plan, caught_up)?);
        }
        thread::scope(|scope| {
            let mut clients = Vec::new();
            for publisher in publishers {
                clients.push(scope.spawn(|| {
                    let outcome = publisher.run(&self.stage);
                    self.publishers_left.fetch_sub(1, Ordering::Relaxed);
                    outcome
                }));
            }
            for viewer in viewers {
                clients.push(scope.spawn(|| viewer.run(&self.stage)));
            }
            let outcome = self.lives();
            // Whatever happened, nobody is left waiting.
            self.stage.end();
            let outcomes = clients.into_iter().map(|client| {
                let joined = client.join();
                joined.unwrap_or_else(|_| Err("a client panicked".into()))
            });
            // The driver's reason comes before what follows from it.
            outcome.and(outcomes.collect())
        })
    }

    fn publisher(&self, name: &str) -> Result<Publisher, String> {
        let permissions = ["--sub", name, "--permissions", "publish:any"];
        let token = self.installation.token(&permissions)?;
        let record = Recorder::create(self.records, name)?;
        Ok(Publisher::new(name, token, self.dice(name), record))
    }

    fn viewer<'p>(
        &self,
        plan: &ViewerPlan,
        is_caught_up: &'p AtomicBool,
    ) -> Result<Viewer<'p>, String> {
        let projects = plan.projects.join(",");
        let mut arguments = vec!["--sub", &plan.user, "--tier", "enterprise"];
        if !projects.is_empty() {
            arguments.extend(["--projects", &projects]);
        }
        let token = self.installation.token(&arguments)?;
        let record = Recorder::create(self.records, &plan.name)?;
        let dice = self.dice(&plan.name);
        Ok(Viewer::new(plan, token, dice, record, is_caught_up))
    }

    // Each has its own, so that what one draws does not hang on the others' timing.
    fn dice(&self, name: &str) -> Rng {
        let start = Rng::with_seed(self.plan.seed);
        name.bytes().fold(start, |mut dice, byte| {
            Rng::with_seed(dice.u64(..) ^ u64::from(byte))
        })
    }

    fn lives(&self) -> Result<(), String> {
        let mut record = Recorder::create(self.records, "gateway")?;
        let mut dice = self.dice("gateway");
        let mut gateway = self.start(&mut record)?;
        for cycle in 0..self.plan.cycles {
            self.stage.begin(life(cycle, &gateway, false));
            thread::sleep(Duration::from_millis(dice.u64(50..=500)) - PRESS);
            self.stage.press();
            thread::sleep(PRESS);
            if self.is_killing {
                let complaints = gateway.kill();
                self.stage.interrupt();
                record.write(&GatewayLine::Killed)?;
                complain(&mut record, complaints)?;
                gateway = self.start(&mut record)?;
            } else {
                self.stage.interrupt();
            }
        }
        self.stage.begin(life(self.plan.cycles, &gateway, true));
        let ended = self.settle();
        self.stage.end();
        complain(&mut record, gateway.stop())?;
        complain(&mut record, ended.err())?;
        complain(&mut record, self.installation.verify().err())?;
        record.finish()
    }

    fn start(&self, record: &mut Recorder) -> Result<Gateway, String> {
        let gateway = self.installation.start()?;
        let ready_ms = u64::try_from(gateway.ready.as_millis()).unwrap_or(u64::MAX);
        record.write(&GatewayLine::Started { ready_ms })?;
        Ok(gateway)
    }

    // Everything is acknowledged and everybody has caught up.
    fn settle(&self) -> Result<(), String> {
        let left = || self.publishers_left.load(Ordering::Relaxed) > 0;
        wait_until("the publishers to be acknowledged", || !left())?;
        let is_caught_up = || {
            let mut viewers = self.caught_up.iter();
            viewers.all(|viewer| viewer.load(Ordering::Relaxed))
        };
        wait_until("the viewers to catch up", is_caught_up)?;
        thread::sleep(QUIET);
        wait_until("the viewers to catch up again", is_caught_up)
    }
}

fn life(cycle: u32, gateway: &Gateway, is_last: bool) -> Life {
    Life {
        cycle,
        address: gateway.address,
        is_last,
    }
}

fn complain(
    record: &mut Recorder,
    complaints: impl IntoIterator<Item = String>,
) -> Result<(), String> {
    for what in complaints {
        record.write(&GatewayLine::Misbehaved { what })?;
    }
    Ok(())
}

fn wait_until(what: &str, is_so: impl Fn() -> bool) -> Result<(), String> {
    let end = Instant::now() + DEADLINE;
    while !is_so() {
        if Instant::now() > end {
            return Err(format!("waited in vain for {what}"));
        }
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// How long the clients may take to finish in the last life.
const DEADLINE: Duration = Duration::from_secs(60);

/// How long before a kill publishers make haste.
const PRESS: Duration = Duration::from_millis(20);

/// How long nothing is published before the end: what was delivered then has arrived.
const QUIET: Duration = Duration::from_millis(1_000);
