//! The run of one seed: cores, network and clients under a virtual clock, step by step; then calm,
//! in which everything must settle; then the drain.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sightline::auth::{KeySet, Revocations, SigningKey, Verifier};
use sightline::counters::CoreStats;
use sightline::event::Partition;
use sightline::hub::mail::Answer;
use sightline::hub::{Hub, Now, Trust};
use sightline::wire::close::Refusal;

use crate::core::{Arrival, Core, Report};
use crate::dice::Dice;
use crate::events::Events;
use crate::log::{Log, Logs};
use crate::network::{LinkId, Links};
use crate::post::Post;
use crate::publisher::{Fates, Item, Publisher};
use crate::scenario::Scenario;
use crate::viewer::{Sightings, Viewer};

pub const SECRET: &[u8] = b"a secret of the simulation, and long enough";
/// Milliseconds since the Unix epoch at which every run begins.
const WALL_MS: i64 = 1_800_000_000_000;
/// Virtual milliseconds in which everything must have settled once the faults stop. Newcomers wait
/// 2 s for others to give way, publishers 1 s for room.
const CALM_MS_MAX: u64 = 3_900;
/// `shutdown.drain_ms`.
const DRAIN_MS: u64 = 5_000;
/// The same in a drain, in which peers that do not answer are given 5 or 10 s to do so.
const DRAIN_MS_MAX: u64 = 16_000;

pub type Told = Result<(), String>;

pub struct World {
    pub dice: Dice,
    pub scenario: Scenario,
    pub partition: Partition,
    pub key: SigningKey,
    pub now_ms: u64,
    // Turns so far: no two have the same time.
    turns: u64,
    pub cores: Vec<Core>,
    pub post: Post,
    pub logs: Logs,
    pub links: Links,
    pub viewers: Vec<Viewer>,
    pub publishers: Vec<Publisher>,
    /// POSTs that are not answered.
    pub posts: BTreeMap<LinkId, Vec<Item>>,
    /// Administrators that are not answered.
    pub asks: BTreeSet<LinkId>,
    pub fates: Fates,
    pub events: Events,
    pub seen: Sightings,
    pub is_draining: bool,
    undisturbed_until_ms: u64,
    // When a drain is over for those who do not read.
    ends_at_ms: u64,
}

impl World {
    pub fn new(seed: u64, steps: usize) -> Self {
        let mut dice = Dice::new(seed);
        let scenario = Scenario::new(seed, steps, &mut dice);
        let verifier = Verifier {
            keys: KeySet::from_secret(SECRET).expect("a good secret"),
            issuer: None,
            audience: None,
        };
        let trust = Trust {
            verifier: Arc::new(verifier),
            revocations: Revocations::default(),
        };
        let cores = (0..scenario.cores).map(|index| {
            let stats = Arc::new(CoreStats::default());
            let hub = Hub::new(scenario.options(index), trust.clone(), Arc::clone(&stats));
            Core::new(
                index,
                hub.with_bounds(scenario.bounds),
                stats,
                scenario.writes_max,
            )
        });
        let delay_ms_max = scenario.log_delay_ms_max;
        let log = |_| Log::new(scenario.codec(), scenario.start, delay_ms_max);
        let logs = (0..scenario.cores).map(log).collect();
        let mut world = Self {
            partition: Partition::new(scenario.cores, seed),
            key: SigningKey::from_secret(SECRET).expect("a good secret"),
            now_ms: 1_000,
            turns: 0,
            cores: cores.collect(),
            post: Post::new(
                scenario.cores,
                scenario.mailbox_letters,
                scenario.mail_delay_ms_max,
            ),
            logs: Logs::new(logs, delay_ms_max),
            links: Links::default(),
            viewers: Vec::new(),
            publishers: Vec::new(),
            posts: BTreeMap::new(),
            asks: BTreeSet::new(),
            fates: Fates::default(),
            events: Events::new(),
            seen: Sightings::default(),
            is_draining: false,
            undisturbed_until_ms: 0,
            ends_at_ms: u64::MAX,
            dice,
            scenario,
        };
        world.connect_oracles();
        world
    }

    /// The whole run. Errors: the first promise that was broken, and when.
    pub fn run(&mut self) -> Told {
        let outcome = self.run_phases();
        outcome.map_err(|error| format!("at {} ms: {error}", self.now_ms))
    }

    pub fn now(&self) -> Now {
        Now {
            monotonic_ns: self.now_ms * 1_000_000 + self.turns % 1_000_000,
            wall_ms: WALL_MS + self.now_ms as i64,
        }
    }

    pub fn now_s(&self) -> u64 {
        self.now().wall_s()
    }

    fn run_phases(&mut self) -> Told {
        // The oracles see everything only if they are there first.
        self.run_until_quiet()?;
        for _ in 0..self.scenario.steps {
            self.step()?;
        }
        if !self.scenario.drains_under_load {
            self.calm();
            self.run_until_quiet()?;
            self.verify()?;
        }
        self.drain()?;
        self.verify()?;
        self.verify_empty()
    }

    fn step(&mut self) -> Told {
        self.now_ms += match self.dice.below(100) {
            0..60 => self.dice.between(0, 5),
            60..93 => self.dice.between(5, 60),
            _ => self.dice.between(60, 900),
        };
        if self.scenario.has_jams {
            self.disturb();
        }
        for _ in 0..self.dice.below(4) {
            self.act();
        }
        self.step_clients(70)?;
        self.step_cores(85)
    }

    // One thing at a time, with a pause after it: what waits for other cores is closed after 5 s.
    fn disturb(&mut self) {
        if self.now_ms < self.undisturbed_until_ms || !self.dice.chance(10) {
            return;
        }
        let (from, to) = (
            self.dice.below(self.cores.len()),
            self.dice.below(self.cores.len()),
        );
        let until_ms = self.now_ms + self.dice.between(50, 1_500);
        self.undisturbed_until_ms = until_ms + 1_000;
        if self.dice.chance(60) {
            self.post.jam(from, to, until_ms);
        } else {
            self.cores[from].stopped_until_ms = until_ms;
        }
    }

    /// No more faults: everybody reads, everything arrives.
    fn calm(&mut self) {
        self.post.calm();
        self.links.calm();
        self.logs.calm();
        for core in &mut self.cores {
            core.stopped_until_ms = 0;
        }
        for viewer in &mut self.viewers {
            viewer.habits.reads = usize::MAX;
            viewer.habits.is_answering |= !self.is_draining;
        }
        for publisher in &mut self.publishers {
            publisher.reads = usize::MAX;
            publisher.is_answering |= !self.is_draining;
        }
    }

    fn run_until_quiet(&mut self) -> Told {
        let patience_ms = if self.is_draining {
            DRAIN_MS_MAX
        } else {
            CALM_MS_MAX
        };
        let until_ms = self.now_ms + patience_ms;
        while !self.is_quiet() {
            if self.now_ms > until_ms {
                let now = self.now();
                let busy = self.cores.iter().filter(|core| {
                    core.is_awake(now, &mut self.links, &self.post, &self.logs) || !core.is_idle()
                });
                let busy: Vec<String> = busy.map(Core::describe).collect();
                let waiting = self.unsettled();
                return Err(format!(
                    "not settled after {patience_ms} ms: {waiting}; busy cores: {busy:?}"
                ));
            }
            self.now_ms += 10;
            if self.now_ms >= self.ends_at_ms {
                // The engine ends whatever is left.
                for publisher in self
                    .publishers
                    .iter()
                    .filter(|publisher| publisher.reads == 0)
                {
                    self.links.get(publisher.link).is_client_gone = true;
                }
            }
            self.step_clients(100)?;
            self.step_cores(100)?;
        }
        Ok(())
    }

    fn drain(&mut self) -> Told {
        self.is_draining = true;
        let (dice, viewers, publishers) = (&mut self.dice, &mut self.viewers, &mut self.publishers);
        for viewer in viewers.iter_mut() {
            viewer.closable.insert(1001);
            viewer.habits.is_answering &= viewer.is_oracle || dice.chance(80);
            // Without an answer to a ping it may also be taken for dead, in the time that is left.
            viewer
                .closable
                .extend((!viewer.habits.is_answering).then_some(4009));
        }
        for publisher in publishers.iter_mut() {
            publisher.closable.insert(1001);
        }
        self.calm();
        let mut order: Vec<usize> = (0..self.cores.len()).collect();
        self.dice.shuffle(&mut order);
        for core in order {
            self.cores[core].arrivals.push_back(Arrival::Drain);
            for _ in 0..self.dice.below(4) {
                self.now_ms += self.dice.between(0, 10);
                self.act();
                self.step_clients(70)?;
                self.step_cores(85)?;
            }
        }
        self.calm();
        // Some do not read to the end: that holds up nobody but them.
        for viewer in self.viewers.iter_mut().filter(|viewer| !viewer.is_oracle) {
            if self.dice.chance(8) {
                viewer.habits.reads = 0;
                viewer.closable.insert(4009);
            }
        }
        for publisher in &mut self.publishers {
            if self.dice.chance(15) {
                publisher.reads = 0;
                publisher.closable.insert(4009);
                if publisher.is_free() {
                    publisher.say_nonsense(self.links.get(publisher.link), 60, &mut self.fates);
                }
            }
        }
        self.ends_at_ms = self.now_ms + DRAIN_MS;
        self.run_until_quiet()
    }

    fn step_clients(&mut self, percent: u64) -> Told {
        for viewer in &mut self.viewers {
            if viewer.is_oracle || self.dice.chance(percent) {
                let link = self.links.get(viewer.link);
                let told = viewer.step(link, &self.events, &mut self.seen);
                told.map_err(|error| {
                    format!("viewer {} of {}: {error}", viewer.link, viewer.user)
                })?;
                link.is_client_gone |= link.is_server_gone && !link.has_received();
            }
        }
        for publisher in &mut self.publishers {
            if self.dice.chance(percent) {
                let link = self.links.get(publisher.link);
                let told = publisher.step(link, &mut self.fates);
                told.map_err(|error| format!("publisher {}: {error}", publisher.link))?;
                link.is_client_gone |= link.is_server_gone && !link.has_received();
            }
        }
        Ok(())
    }

    fn step_cores(&mut self, percent: u64) -> Told {
        let mut order: Vec<usize> = (0..self.cores.len()).collect();
        self.dice.shuffle(&mut order);
        for index in order {
            for _ in 0..3 {
                self.turns += 1;
                let now = self.now();
                let core = &mut self.cores[index];
                if !core.is_awake(now, &mut self.links, &self.post, &self.logs)
                    || !self.dice.chance(percent)
                {
                    break;
                }
                let all: usize = self
                    .cores
                    .iter()
                    .map(|core| core.hub.peers().outbox_bytes())
                    .sum();
                let core = &mut self.cores[index];
                let foreign = all - core.hub.peers().outbox_bytes();
                core.turn(
                    now,
                    &mut self.links,
                    &mut self.post,
                    &mut self.logs,
                    foreign,
                    &mut self.dice,
                );
                if !core.is_awake(now, &mut self.links, &self.post, &self.logs) {
                    core.check_sleep(now, foreign)?;
                }
                let reports = std::mem::take(&mut core.reports);
                self.verify_core(index)?;
                for report in reports {
                    self.handle_report(report)?;
                }
            }
        }
        Ok(())
    }

    fn handle_report(&mut self, report: Report) -> Told {
        match report {
            Report::Answered(link, answer) => match (self.asks.remove(&link), answer) {
                (true, Answer::Count(_) | Answer::Rows(_)) => Ok(()),
                (_, answer) => Err(format!("an administrator was answered {answer:?}")),
            },
            Report::Abandoned(link) => {
                self.posts.remove(&link);
                Ok(())
            }
            Report::Posted(link, outcome) => {
                let items = self.posts.remove(&link).ok_or("an answer to no POST")?;
                self.fates.handle_posted(&items, &outcome)
            }
            Report::Refused(link, refusal) => {
                self.viewers.retain(|viewer| viewer.link != link);
                self.publishers.retain(|publisher| publisher.link != link);
                let is_due = match refusal {
                    Refusal::Draining => self.is_draining,
                    Refusal::UserLimit | Refusal::TokenExpired | Refusal::TokenRevoked => true,
                    _ => false,
                };
                if is_due {
                    Ok(())
                } else {
                    Err(format!("refused: {refusal:?}"))
                }
            }
        }
    }

    fn is_quiet(&mut self) -> bool {
        let now = self.now();
        let (post, logs) = (&self.post, &self.logs);
        let is_asleep = |core: &Core, links: &mut Links| {
            !core.is_awake(now, links, post, logs) && core.is_idle()
        };
        let cores_sleep = self
            .cores
            .iter()
            .all(|core| is_asleep(core, &mut self.links));
        cores_sleep && self.post.is_empty() && self.logs.is_idle() && self.unsettled().is_empty()
    }

    /// Who waits for something, in words; empty where nobody does.
    fn unsettled(&mut self) -> String {
        let mut waiting = BTreeSet::new();
        for viewer in &self.viewers {
            let link = self.links.get(viewer.link);
            let is_open = viewer.close.is_none() && !link.is_client_gone && viewer.habits.reads > 0;
            let unanswered = viewer.pending.len() + viewer.garbage;
            if link.has_received() && !link.is_client_gone && viewer.habits.reads > 0 {
                waiting.insert(format!("viewer {} has bytes to read", viewer.link));
            }
            if is_open
                && (unanswered != viewer.dropped || !viewer.is_established || self.is_draining)
            {
                waiting.insert(format!(
                    "viewer {}: {unanswered} messages without answer, {} dropped",
                    viewer.link, viewer.dropped
                ));
            }
        }
        for viewer in self.viewers.iter().filter(|viewer| viewer.is_replayed_to()) {
            let is_gone = self.links.get(viewer.link).is_client_gone;
            if !is_gone && viewer.close.is_none() && viewer.habits.reads > 0 {
                waiting.insert(format!("viewer {} waits for what it missed", viewer.link));
            }
        }
        for publisher in &self.publishers {
            let link = self.links.get(publisher.link);
            let is_open = publisher.close.is_none() && !link.is_client_gone && publisher.reads > 0;
            if is_open && (!publisher.is_settled() || self.is_draining) {
                waiting.insert(format!(
                    "publisher {}: {} of {}",
                    publisher.link,
                    publisher.through,
                    publisher.sent()
                ));
            }
        }
        for link in self.posts.keys() {
            waiting.insert(format!("POST {link}"));
        }
        for link in &self.asks {
            waiting.insert(format!("administrator {link}"));
        }
        for core in self.cores.iter().filter(|core| {
            self.is_draining && !(core.hub.is_drained() && core.hub.peers().is_empty())
        }) {
            waiting.insert(format!(
                "core {} is not drained, {} peers",
                core.index,
                core.hub.peers().len()
            ));
        }
        // The last state of a tree comes at its time.
        let soon_ms = self.now().ms() + 200;
        let is_soon = |due_ms: u64| due_ms < soon_ms;
        for core in &self.cores {
            if core.hub.next_deadline_ms().is_some_and(is_soon) {
                waiting.insert(format!("core {} is due soon", core.index));
            }
        }
        for core in self
            .cores
            .iter()
            .filter(|core| core.hub.peers().outbox_bytes() > 0)
        {
            waiting.insert(format!("core {} has outboxes", core.index));
        }
        Vec::from_iter(waiting).join("; ")
    }
}
