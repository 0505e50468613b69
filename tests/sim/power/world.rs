//! The run of one seed: a gateway's lives one after the other on one storage, the clients that come
//! back each time, and at the end what the checker says.

use sightline::cli::history::export::{self, ExportArgs};
use sightline::history::inspect::Inspection;
use sightline::history::sim_storage::{Faults, SimStorage};
use sightline::history::storage::Storage as _;
use sightline::hub::{Bounds, Deliver};
use sightline_crash::cast::{self, PUBLISHERS};
use sightline_crash::check::{Checker, Counts, Verdict, Walk};
use sightline_crash::records::{GatewayLine, Plan};

use super::clients::{Moment, Publisher, Viewer};
use super::gateway::{Gateway, Setting};
use crate::core::Report;
use crate::dice::Dice;
use crate::edges::Edges;
use crate::world::Told;

/// Ends of a gateway in each run, before the last.
const CUTS: u32 = 8;
/// Viewers in each run.
const VIEWERS: usize = 8;
/// Steps within which everything must have settled in the last life.
const SETTLING_STEPS_MAX: u64 = 6_000;
/// Steps after that, in which nothing is published: what was delivered then has arrived.
const QUIET_STEPS: u64 = 150;

/// See the module.
pub struct World {
    seed: u64,
    dice: Dice,
    setting: Setting,
    storage: SimStorage,
    now_ms: u64,
    cycle: u32,
    publishers: Vec<Publisher>,
    viewers: Vec<Viewer>,
    lines: Vec<GatewayLine>,
    pub edges: Edges,
}

impl World {
    pub fn new(seed: u64) -> Self {
        let mut dice = Dice::new(seed ^ 0x9e37_79b9);
        let setting = Setting {
            deliver: match seed % 2 {
                0 => Deliver::Eager,
                _ => Deliver::Durable,
            },
            segment_bytes: dice.pick(&[16_384, 65_536, 1 << 20]),
            ingest_bytes_in_flight_max: dice.pick(&[1 << 19, 1 << 23]),
            ring_bytes_max: dice.pick(&[2_000, 30_000, Bounds::default().ring_bytes_max]),
            streams_idle_max: dice.pick(&[1, Bounds::default().streams_idle_max]),
            mail_delay_ms_max: dice.pick(&[0, 5]),
        };
        let mut plans = cast::viewers();
        dice.shuffle(&mut plans);
        plans.truncate(VIEWERS);
        let publisher = |n| {
            let name = format!("publisher-{n}");
            Publisher::new(&name, fastrand::Rng::with_seed(seed ^ n as u64))
        };
        Self {
            seed,
            storage: SimStorage::new(seed),
            setting,
            now_ms: 1_000,
            cycle: 0,
            publishers: (0..PUBLISHERS).map(publisher).collect(),
            viewers: plans.into_iter().map(Viewer::new).collect(),
            lines: Vec::new(),
            edges: Edges::default(),
            dice,
        }
    }

    /// The whole run. Errors: the first things that broke a promise.
    pub fn run(&mut self) -> Told {
        while self.cycle < CUTS {
            self.live()?;
        }
        self.settle()?;
        let verdict = self.judge()?;
        if !verdict.violations.is_empty() {
            let violations = verdict.violations.iter().take(6);
            let violations: Vec<String> = violations.map(ToString::to_string).collect();
            return Err(violations.join("\n"));
        }
        self.note(&verdict.counts);
        Ok(())
    }

    /// All that was written down, to be compared with another run.
    pub fn records(&self) -> String {
        let publishers = self.publishers.iter().map(|publisher| &publisher.lines);
        let viewers = self.viewers.iter().map(|viewer| &viewer.lines);
        let all = (publishers.collect::<Vec<_>>(), viewers.collect::<Vec<_>>());
        format!("{all:?}")
    }

    // One life, to its unexpected end.
    fn live(&mut self) -> Told {
        let dies_opening = self.dice.chance(10).then(|| self.dice.between(0, 10));
        let Some(mut gateway) = self.start(dies_opening)? else {
            return Ok(());
        };
        self.storage.set_faults(Faults {
            dies_after_changes: Some(self.dice.between(0, 90)),
            sync_error_percent: self.dice.pick(&[0, 0, 0, 10]),
            write_error_percent: self.dice.pick(&[0, 0, 0, 5]),
            ..Faults::default()
        });
        for _ in 0..self.dice.between(10, 160) {
            if self.step(&mut gateway, false)? {
                break;
            }
        }
        self.end(gateway)
    }

    // `None`: the power went before it was there.
    fn start(&mut self, dies_after_changes: Option<u64>) -> Result<Option<Gateway>, String> {
        self.storage.set_faults(Faults {
            dies_after_changes,
            ..Faults::default()
        });
        let gateway = Gateway::start(&self.storage, &self.setting, self.now_ms, &mut self.dice);
        match gateway {
            Ok(gateway) => {
                self.note_opening(&gateway);
                Ok(Some(gateway))
            }
            Err(_) if self.storage.has_died() => {
                self.edges.count("cut while opening", 1);
                self.cut();
                Ok(None)
            }
            Err(error) => Err(format!("the gateway does not start: {error}")),
        }
    }

    // Moves everybody once, in any order. Returns whether the power is gone.
    fn step(&mut self, gateway: &mut Gateway, is_last: bool) -> Result<bool, String> {
        self.now_ms += match self.dice.below(40) {
            0 => self.dice.between(50, 1_200),
            _ => self.dice.between(0, 4),
        };
        let moment = Moment {
            now_ms: self.now_ms,
            cycle: self.cycle,
            is_last,
        };
        let mut actors = vec![Actor::Clients, Actor::Reader, Actor::Writer, Actor::Writer];
        actors.extend((0..gateway.cores.len()).flat_map(|core| [Actor::Core(core); 2]));
        self.dice.shuffle(&mut actors);
        for actor in actors {
            if !self.dice.chance(85) {
                continue;
            }
            match actor {
                Actor::Clients => self.step_clients(gateway, moment)?,
                Actor::Core(core) => gateway.turn(core, self.now_ms, &mut self.dice)?,
                Actor::Reader => {
                    for _ in 0..self.dice.between(1, 12) {
                        gateway.read(self.now_ms);
                    }
                }
                Actor::Writer => gateway.write(self.now_ms),
            }
            if self.storage.has_died() {
                return Ok(true);
            }
        }
        self.handle_reports(gateway)?;
        Ok(false)
    }

    fn step_clients(&mut self, gateway: &mut Gateway, moment: Moment) -> Told {
        let dice = &mut self.dice;
        for publisher in &mut self.publishers {
            if dice.chance(80) {
                publisher.step(gateway, moment, dice)?;
            }
        }
        for viewer in &mut self.viewers {
            if dice.chance(80) {
                viewer.step(gateway, moment, dice)?;
            }
        }
        Ok(())
    }

    fn handle_reports(&mut self, gateway: &mut Gateway) -> Told {
        for report in std::mem::take(&mut gateway.reports) {
            let Report::Posted(link, outcome) = report else {
                return Err(format!("nobody expects {report:?}"));
            };
            for publisher in &mut self.publishers {
                publisher.handle_posted(link, &outcome);
            }
        }
        Ok(())
    }

    fn end(&mut self, mut gateway: Gateway) -> Told {
        self.note_end(&gateway);
        for publisher in &mut self.publishers {
            publisher.handle_cut(&mut gateway.links, &mut self.dice)?;
        }
        for viewer in &mut self.viewers {
            viewer.handle_cut(&mut gateway.links, &mut self.dice)?;
        }
        self.cut();
        Ok(())
    }

    fn cut(&mut self) {
        let files = |storage: &SimStorage| storage.list().map_or(0, |names| names.len());
        let before = files(&self.storage);
        if self.dice.chance(10) {
            self.storage.kill();
            self.edges.count("kill", 1);
        } else {
            self.storage.power_cut();
            self.edges.count("power cut", 1);
        }
        let after = files(&self.storage);
        self.edges.count("names lost", u64::from(after < before));
        self.lines.push(GatewayLine::Killed);
        self.cycle += 1;
        self.now_ms += self.dice.between(1, 400);
    }

    // The last life: nothing fails any more, everything is acknowledged and everybody catches up.
    fn settle(&mut self) -> Told {
        let Some(mut gateway) = self.start(None)? else {
            return Err("the power went without a cut".into());
        };
        let mut quiet = 0;
        for _ in 0..SETTLING_STEPS_MAX {
            self.step(&mut gateway, true)?;
            let is_done = self.publishers.iter().all(Publisher::is_done)
                && self.viewers.iter().all(Viewer::is_caught_up);
            quiet = if is_done { quiet + 1 } else { 0 };
            if quiet > QUIET_STEPS {
                return self.end(gateway);
            }
        }
        Err("not everybody is done at the end".into())
    }

    // Of the storage as the last cut left it, before any opening.
    fn judge(&self) -> Result<Verdict, String> {
        let plan = Plan {
            seed: self.seed,
            cycles: self.cycle,
            deliver: match self.setting.deliver {
                Deliver::Durable => "durable".into(),
                Deliver::Eager => "eager".into(),
            },
            viewers: Vec::new(),
            publishers: Vec::new(),
        };
        let mut checker = Checker::new(&plan);
        for line in &self.lines {
            checker.handle_gateway(line.clone());
        }
        for (n, publisher) in self.publishers.iter().enumerate() {
            for line in &publisher.lines {
                checker.handle_publisher(&n.to_string(), line.clone());
            }
        }
        let inspection = Inspection::new(self.storage.clone()).map_err(|e| e.to_string())?;
        let found = inspection.verify().map_err(|error| error.to_string())?;
        for damaged in found.damaged {
            let what = format!("{damaged:?}");
            checker.handle_gateway(GatewayLine::Misbehaved { what });
        }
        let mut export = Vec::new();
        export::run(&ExportArgs::default(), &inspection, &mut export).map_err(|e| e.to_string())?;
        for line in export
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
        {
            let line = serde_json::from_slice(line).map_err(|error| error.to_string())?;
            checker.handle_logged(&line);
        }
        checker.check_acknowledged();
        for viewer in &self.viewers {
            let mut walk = Walk::new(&mut checker, &viewer.plan);
            for line in &viewer.lines {
                walk.handle(line.clone());
            }
            walk.finish();
        }
        Ok(checker.finish())
    }

    fn note_opening(&mut self, gateway: &Gateway) {
        let opened = gateway.opened;
        let edges = &mut self.edges;
        edges.count("torn tail", u64::from(opened.cut_bytes > 0));
        edges.count(
            "unsynced records recovered",
            u64::from(opened.recovered > 0),
        );
        edges.count("index to be made again", u64::from(opened.unindexed > 0));
        edges.count("ids known from before", gateway.ids_known as u64);
    }

    fn note_end(&mut self, gateway: &Gateway) {
        let mut publishers = self.publishers.iter();
        let is_busy = publishers.any(Publisher::has_in_flight);
        let edges = &mut self.edges;
        edges.count("cut with events in flight", u64::from(is_busy));
        let is_later = u64::from(self.cycle > 0);
        let duplicates = gateway.sum(|stats| stats.counters.events_duplicate.value());
        edges.count("duplicates after a cut", duplicates * is_later);
        let misses = gateway.sum(|stats| stats.counters.ring_misses.value());
        edges.count("resumed from the log", misses);
        let hits = gateway.sum(|stats| stats.counters.ring_hits.value());
        edges.count("resumed from memory", hits);
    }

    fn note(&mut self, counts: &Counts) {
        let edges = &mut self.edges;
        edges.count("published", counts.published);
        edges.count("sent again", counts.repeated);
        edges.count("acknowledged", counts.acknowledged);
        edges.count("delivered", counts.delivered);
        edges.count("refused for the time being", counts.nacked);
        for (outcome, name) in [("fresh", "rows fresh"), ("resumed", "rows resumed")] {
            edges.count(name, counts.rows.get(outcome).copied().unwrap_or(0));
        }
        edges.count("lost stated", counts.lost_stated);
        edges.count("deliveries lost", counts.lost_deliveries);
    }
}

/// Who moves in a step.
#[derive(Clone, Copy)]
enum Actor {
    Clients,
    Core(usize),
    Reader,
    Writer,
}
