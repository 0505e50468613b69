//! One log with its publishers, its disk and what befalls them.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use super::model::{Fate, Model};
use crate::event::{
    Epoch, Event, LogIdentity, NumberedEvent, RecordBatch, Seq, StoredEvent, Stream, StreamKind,
};
use crate::history::chain::Chain;
use crate::history::chores::{ChoreStep, Chores};
use crate::history::log::{EpochRule, Log, OpenError, OpenOptions, open};
use crate::history::retention::{Retention, RetentionOptions, RetentionStep};
use crate::history::segment::{index_name, parse_segment_name, segment_name};
use crate::history::sim_storage::{Faults, SimStorage};
use crate::history::storage::SPARE_END;
use crate::history::storage::Storage as _;
use crate::history::tail::Tail;
use crate::history::writer::{Durability, Step, WriterOptions};
use crate::limits::{COMMIT_INTERVAL_NS, COMMIT_INTERVAL_SPARSE_NS};

pub const CORES: usize = 2;
pub const STREAMS: usize = 6;

pub struct World {
    pub dice: fastrand::Rng,
    pub storage: SimStorage,
    pub log: Option<Log<SimStorage>>,
    pub options: WriterOptions,
    pub streams: Vec<Model>,
    pub epoch: Option<Epoch>,
    /// Whether bytes were changed behind the log's back.
    pub is_shaken: bool,
    chores: Chores<SimStorage>,
    retention: Retention,
    retention_options: RetentionOptions,
    /// Decisions about tokens that are durable.
    pub decisions: Vec<Bytes>,
    // What each core has pushed and does not know to be durable.
    waiting: Vec<VecDeque<Pushed>>,
    through: Vec<u64>,
    now_ns: u64,
    // Whether processes live long.
    is_calm: bool,
    shakes: bool,
    loses_files: bool,
    epoch_rule: EpochRule,
    is_new_epoch_due: bool,
    edges: BTreeMap<&'static str, u64>,
}

/// A batch of a core: how the core counts it, and the events, by stream and seq.
#[derive(Clone, Debug)]
struct Pushed {
    through: u64,
    given: Vec<(usize, Seq)>,
    decisions: Vec<Bytes>,
    // Whether retention waits for them.
    is_carrying: bool,
}

impl World {
    pub fn new(seed: u64) -> Self {
        let mut dice = fastrand::Rng::with_seed(seed);
        let durability = match dice.u8(0..4) {
            0 => Durability::Write,
            _ => Durability::Fsync,
        };
        let segment_bytes = dice.u64(2_000..20_000);
        // With `Write` the power alone may do as much.
        let trouble = if durability == Durability::Fsync {
            dice.u8(0..5)
        } else {
            4
        };
        let retention = RetentionOptions {
            age_max_ms: dice.i64(1_000..60_000),
            bytes_max: segment_bytes * dice.u64(2..30),
        };
        Self {
            storage: SimStorage::new(dice.u64(..)),
            log: None,
            options: WriterOptions {
                durability,
                segment_bytes,
                cores: CORES,
                sparse_interval_ns: dice.u64(COMMIT_INTERVAL_NS..=COMMIT_INTERVAL_SPARSE_NS),
            },
            streams: Vec::new(),
            epoch: None,
            is_shaken: false,
            chores: Chores::new(segment_bytes),
            retention: Retention::new(retention),
            retention_options: retention,
            decisions: Vec::new(),
            waiting: vec![VecDeque::new(); CORES],
            through: vec![0; CORES],
            now_ns: 0,
            is_calm: dice.bool(),
            shakes: trouble == 0,
            loses_files: trouble == 1,
            epoch_rule: EpochRule::Keep,
            is_new_epoch_due: false,
            edges: BTreeMap::new(),
            dice,
        }
    }

    pub fn edges(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.edges.iter().map(|(edge, times)| (*edge, *times))
    }

    pub fn edge(&mut self, name: &'static str) {
        *self.edges.entry(name).or_default() += 1;
    }

    pub fn step(&mut self) -> Result<(), String> {
        if self.log.is_none() {
            return self.open();
        }
        match self.dice.u8(0..100) {
            0..35 => self.publish(),
            35..76 => self.poll(),
            76..83 => self.chore()?,
            83..85 => self.retain()?,
            85..87 => self.set_faults(),
            87..91 => self.resume()?,
            91 => self.check_all()?,
            92..94 => self.befall(),
            94..99 if self.is_calm && self.dice.u8(0..6) > 0 => {
                self.retain()?;
                self.chore()?;
            }
            94..96 => self.die("kill", SimStorage::kill),
            96..99 => self.die("power cut", SimStorage::power_cut),
            _ => self.close(),
        }
        Ok(())
    }

    fn set_faults(&mut self) {
        let faults = match self.dice.u8(0..6) {
            // With `Write` a file that fails may have a hole in what was acknowledged.
            0 | 1 | 3 if self.options.durability == Durability::Write => Faults::default(),
            0 => Faults {
                sync_error_percent: 40,
                ..Faults::default()
            },
            1 => Faults {
                write_error_percent: 40,
                ..Faults::default()
            },
            2 => Faults {
                capacity_bytes: Some(self.dice.u64(0..90_000)),
                ..Faults::default()
            },
            3 => Faults {
                is_read_only: true,
                ..Faults::default()
            },
            _ => Faults::default(),
        };
        self.storage.set_faults(faults);
    }

    /// Something that is not the log's to prevent.
    fn befall(&mut self) {
        if self.shakes {
            return self.shake();
        }
        if self.dice.u8(0..4) == 0 {
            let user = self.dice.usize(0..STREAMS);
            let Some(log) = &mut self.log else { return };
            log.writer.roll();
            if self.streams[user].stream.kind == StreamKind::User {
                let stream = self.streams[user].stream.clone();
                self.chores.erase(&log.catalog, &stream.id);
                for model in &mut self.streams {
                    model.erase(&stream);
                }
                self.edge("erasing");
            }
        }
    }

    /// Changes a byte of a file that is no longer written, or cuts the file off.
    fn shake(&mut self) {
        let mut names = self.storage.list().expect("no fault");
        names.sort();
        let newest = names
            .iter()
            .rfind(|name| parse_segment_name(name).is_some());
        let newest = newest.cloned();
        names.retain(|name| Some(name) != newest.as_ref() && !name.ends_with(SPARE_END));
        if names.is_empty() {
            return;
        }
        let name = &names[self.dice.usize(0..names.len())];
        let file = self.storage.open(name).expect("listed");
        let length = crate::history::storage::StorageFile::bytes_len(&file).expect("open");
        if length == 0 {
            return;
        }
        let at = self.dice.u64(0..length);
        match self.dice.u8(0..4) {
            0 => {
                self.storage.cut(name, at);
                self.edge("cut");
            }
            _ => self.storage.corrupt(name, at, self.dice.u8(1..)),
        }
        self.is_shaken = true;
        self.edge("shaken");
        for (_, fate) in self
            .streams
            .iter_mut()
            .flat_map(|model| model.events.values_mut())
        {
            *fate = match *fate {
                Fate::Kept => Fate::Shaken,
                Fate::Lost => Fate::Erased,
                fate => fate,
            };
        }
    }

    /// Takes files away while nobody looks, or puts an old copy back.
    fn lose_files(&mut self) {
        let chain = Chain::follow(&self.storage).expect("no fault");
        let tail = Tail::scan(&self.storage, &chain).expect("no fault");
        let links = chain.links.iter().map(|(header, _)| header.number);
        let mut numbers: Vec<u64> = links.filter(|number| *number >= tail.marks.first).collect();
        // A segment that was begun just now is not written down yet.
        let is_known = chain.known.map(|known| known.number) == numbers.last().copied();
        match self.dice.u8(0..4) {
            _ if numbers.is_empty() || self.epoch.is_none() => return,
            0 => {}
            1 if is_known => numbers = numbers.split_off(numbers.len() - 1),
            2 if numbers.len() > 2 => numbers = vec![numbers[numbers.len() / 2]],
            _ => {
                self.epoch_rule = EpochRule::Renew;
                numbers.clear();
            }
        }
        for number in numbers {
            self.storage
                .unlink(&segment_name(number))
                .expect("no fault");
            let _ = self.storage.unlink(&index_name(number));
        }
        self.storage.sync_dir().expect("no fault");
        self.edge("files lost");
        self.is_new_epoch_due = true;
    }

    /// Opens the log, perhaps in several attempts, and looks at all that it holds.
    fn open(&mut self) -> Result<(), String> {
        self.storage.set_faults(Faults::default());
        if self.loses_files && !self.is_new_epoch_due && self.dice.u8(0..3) == 0 {
            self.lose_files();
        }
        if self.dice.u8(0..4) == 0 {
            let (fault, faults) = match self.dice.u8(0..4) {
                0 => {
                    let capacity_bytes = Some(self.dice.u64(0..90_000));
                    let faults = Faults {
                        capacity_bytes,
                        ..Faults::default()
                    };
                    ("no room to open", faults)
                }
                _ => {
                    let dies_after_changes = Some(self.dice.u64(0..12));
                    let faults = Faults {
                        dies_after_changes,
                        ..Faults::default()
                    };
                    ("died while opening", faults)
                }
            };
            self.storage.set_faults(faults);
            let outcome = self.try_open();
            self.storage.set_faults(Faults::default());
            if outcome.is_err() {
                self.edge(fault);
            }
            drop(outcome);
            self.fall("kill", SimStorage::kill);
            if self.dice.bool() {
                self.fall("power cut", SimStorage::power_cut);
            }
        }
        let log = self
            .try_open()
            .map_err(|error| format!("not opened: {error}"))?;
        self.check_opened(&log)?;
        let start = log.report.start;
        for index in 0..STREAMS {
            match self.streams.get_mut(index) {
                Some(model) => model.head = start,
                None => self.streams.push(Model::new(stream(index), start)),
            }
        }
        self.waiting = vec![VecDeque::new(); CORES];
        self.through = vec![0; CORES];
        self.chores = Chores::new(self.options.segment_bytes);
        self.retention = Retention::new(self.retention_options);
        self.log = Some(log);
        if std::mem::take(&mut self.is_new_epoch_due) {
            self.forget_what_is_gone()?;
        }
        self.check_all()?;
        for _ in 0..4 {
            self.resume()?;
        }
        Ok(())
    }

    fn try_open(&mut self) -> Result<Log<SimStorage>, OpenError> {
        let fresh = LogIdentity {
            epoch: Epoch(self.dice.u32(..)),
            secret: [self.dice.u64(..), self.dice.u64(..)],
        };
        let options = OpenOptions {
            writer: self.options,
            fresh,
            epoch: self.epoch_rule,
        };
        open(&self.storage, options)
    }

    fn check_opened(&mut self, log: &Log<SimStorage>) -> Result<(), String> {
        let report = log.report;
        let epoch = log.catalog.epoch();
        let is_new = self.epoch.is_some_and(|known| known != epoch);
        if is_new != self.is_new_epoch_due && !self.is_shaken {
            return Err(format!("{:?}, then {epoch:?}: {report:?}", self.epoch));
        }
        self.is_new_epoch_due |= is_new;
        self.epoch = Some(epoch);
        self.epoch_rule = EpochRule::Keep;
        let highest = self
            .streams
            .iter()
            .filter_map(|model| model.events.keys().next_back());
        if highest.copied().max() > Some(report.start) {
            return Err(format!("seqs start again at {}", report.start));
        }
        if log.writer.levels_kept().reserve <= report.start || !report.start.is_level() {
            return Err(format!(
                "nothing is reserved: {:?}",
                log.writer.levels_kept()
            ));
        }
        Ok(())
    }

    /// In a new life of the log nothing must be there any more that is not.
    fn forget_what_is_gone(&mut self) -> Result<(), String> {
        for index in 0..STREAMS {
            let (held, _) = self.read_all(index)?;
            for (seq, (_, fate)) in &mut self.streams[index].events {
                let is_held = held.binary_search_by_key(seq, |event| event.seq).is_ok();
                *fate = if is_held { Fate::Shaken } else { Fate::Erased };
            }
        }
        self.is_shaken = true;
        Ok(())
    }

    fn publish(&mut self) {
        let core = self.dice.usize(0..CORES);
        let mut batch = RecordBatch::default();
        let mut given = Vec::new();
        for _ in 0..self.dice.usize(1..5) {
            // A stream belongs to one core.
            let index = self.dice.usize(0..STREAMS / CORES) * CORES + core;
            let Some(seq) = self.next_seq(index) else {
                continue;
            };
            let stored = self.event(index, seq);
            let Some(log) = &self.log else { return };
            let numbered = NumberedEvent {
                kind: stored.kind,
                seq,
                previous: stored.previous,
                received_ms: stored.received_ms,
                fingerprint: stored.fingerprint,
                event: &stored.event,
            };
            batch.push_event(&log.codec, &numbered).expect("short");
            let model = &mut self.streams[index];
            model.head = seq;
            let before = model.events.insert(seq, (stored, Fate::Given));
            assert!(before.is_none(), "{}: {seq} given twice", model.stream);
            given.push((index, seq));
        }
        let decisions = match self.dice.u8(0..20) {
            0 => vec![Bytes::from(self.dice.u64(..).to_string())],
            _ => Vec::new(),
        };
        self.push(core, batch, given, decisions, false);
    }

    fn push(
        &mut self,
        core: usize,
        mut batch: RecordBatch,
        given: Vec<(usize, Seq)>,
        decisions: Vec<Bytes>,
        is_carrying: bool,
    ) {
        let Some(log) = &mut self.log else { return };
        for decision in &decisions {
            batch.push_revocation(&log.codec, decision).expect("short");
        }
        if batch.is_empty() {
            return;
        }
        self.through[core] += batch.entries.len() as u64;
        log.writer.push(core, self.through[core], batch);
        self.waiting[core].push_back(Pushed {
            through: self.through[core],
            given,
            decisions,
            is_carrying,
        });
    }

    fn next_seq(&mut self, index: usize) -> Option<Seq> {
        let reserve = self.log.as_ref()?.writer.levels_kept().reserve;
        let jump = if self.dice.u8(0..50) == 0 { 400_000 } else { 0 };
        let seq = Seq(self.streams[index].head.0 + jump).next();
        (seq <= reserve).then_some(seq)
    }

    fn event(&mut self, index: usize, seq: Seq) -> StoredEvent {
        let bytes = self.dice.usize(0..600);
        let data: Vec<u8> = (0..bytes).map(|_| self.dice.u8(..)).collect();
        let model = &self.streams[index];
        let is_user = model.stream.kind == StreamKind::User;
        // A project's events have users too.
        let other = self.dice.usize(0..STREAMS);
        let other = self.streams[other].stream.clone();
        let has_user = !is_user && other.kind == StreamKind::User;
        StoredEvent {
            kind: model.stream.kind,
            seq,
            previous: model.head,
            received_ms: self.now_ms(),
            fingerprint: self.dice.bool().then(|| self.dice.u128(..)),
            event: Event {
                event_type: "note".into(),
                user: (is_user.then(|| model.stream.id.clone()))
                    .or_else(|| has_user.then_some(other.id)),
                project: (!is_user).then(|| model.stream.id.clone()),
                session: None,
                event_id: None,
                timestamp_ms: 7,
                data: Bytes::from(data),
                message_type: None,
                tool_name: None,
            },
        }
    }

    fn now_ms(&self) -> i64 {
        (self.now_ns / 1_000_000) as i64
    }

    fn poll(&mut self) {
        self.now_ns += match self.dice.u8(0..10) {
            0 => self.dice.u64(0..2_000_000_000),
            _ => self.dice.u64(0..2_000_000),
        };
        let Some(log) = &mut self.log else { return };
        let first = log.writer.levels_kept().first;
        let step = log.writer.poll(self.now_ns);
        let is_full = self.storage.free_bytes() == 0;
        let is_marked = is_full && log.writer.levels_kept().first > first;
        while let Some(change) = log.writer.poll_change() {
            log.catalog.handle_change(change);
        }
        if step == Step::Failed {
            self.edge("write failed");
        }
        if is_marked {
            self.edge("floor on a full disk");
        }
        self.settle_acks();
    }

    fn settle_acks(&mut self) {
        let Some(log) = &self.log else { return };
        let mut acked = 0;
        for (core, waiting) in self.waiting.iter_mut().enumerate() {
            let durable = log.writer.progress(core).durable;
            let count = waiting.partition_point(|pushed| pushed.through <= durable);
            for pushed in waiting.drain(..count) {
                acked += pushed.given.len() as u64;
                for (index, seq) in pushed.given {
                    keep(&mut self.streams[index], seq);
                }
                if pushed.is_carrying {
                    self.retention.handle_revocations_kept();
                } else {
                    self.decisions.extend(pushed.decisions);
                }
            }
        }
        *self.edges.entry("acked").or_default() += acked;
    }

    /// A bit of the work that may take its time, which may fail.
    fn chore(&mut self) -> Result<(), String> {
        let Some(log) = &mut self.log else {
            return Ok(());
        };
        if self.dice.u8(0..4) == 0 {
            self.chores.want_spare();
        }
        match self.chores.step(&mut log.catalog) {
            Ok(ChoreStep::Spare(name, file)) => log.writer.offer_spare(name, file),
            Ok(ChoreStep::Idle | ChoreStep::Worked) => {}
            Err(_) => self.edge("chore failed"),
        }
        if self.dice.u8(0..8) == 0 {
            self.check_all()?;
        }
        Ok(())
    }

    fn retain(&mut self) -> Result<(), String> {
        let now_ms = self.now_ms();
        let Some(log) = &mut self.log else {
            return Ok(());
        };
        let kept = log.writer.levels_kept();
        match self.retention.poll(now_ms, kept, &mut log.catalog) {
            Ok(RetentionStep::SetFloor { first, floor }) => {
                log.writer.set_floor(first, floor);
                if self.dice.u8(0..4) == 0 {
                    self.storage.set_faults(Faults {
                        capacity_bytes: Some(0),
                        ..Faults::default()
                    });
                }
            }
            Ok(RetentionStep::Forgot(_)) => {
                self.edge("retention");
                self.check_all()?;
            }
            Ok(RetentionStep::Idle) => {}
            Ok(RetentionStep::KeepRevocations) => {
                let mut waiting = self.waiting.iter().flatten();
                let decisions = self.decisions.clone();
                if decisions.is_empty() {
                    self.retention.handle_revocations_kept();
                } else if !waiting.any(|pushed| pushed.is_carrying) {
                    self.push(0, RecordBatch::default(), Vec::new(), decisions, true);
                    self.edge("decisions carried");
                }
            }
            Err(error) => return Err(format!("retention: {error}")),
        }
        Ok(())
    }

    fn die(&mut self, name: &'static str, how: fn(&SimStorage)) {
        self.log = None;
        self.fall(name, how);
    }

    fn fall(&mut self, name: &'static str, how: fn(&SimStorage)) {
        how(&self.storage);
        self.edge(name);
        // With `Write` an acknowledgement says nothing about power.
        if name == "power cut" && self.options.durability == Durability::Write {
            self.decisions.clear();
            for (_, fate) in self
                .streams
                .iter_mut()
                .flat_map(|model| model.events.values_mut())
            {
                *fate = match *fate {
                    Fate::Kept => Fate::Given,
                    Fate::Shaken => Fate::Erased,
                    fate => fate,
                };
            }
        }
    }

    fn close(&mut self) {
        let Some(log) = self.log.take() else { return };
        // What was pushed is kept, or the closing failed and nobody was told.
        if log.writer.close().is_ok() {
            self.edge("clean close");
            for pushed in self.waiting.iter_mut().flat_map(std::mem::take) {
                for (index, seq) in pushed.given {
                    keep(&mut self.streams[index], seq);
                }
                self.decisions.extend(pushed.decisions);
            }
        }
        self.storage.kill();
    }

    /// Whether an event was pushed and is not acknowledged.
    pub fn is_under_way(&self, index: usize, seq: Seq) -> bool {
        let waiting = self.waiting.iter().flatten();
        let mut waiting = waiting.flat_map(|pushed| &pushed.given);
        waiting.any(|given| *given == (index, seq))
    }
}

fn keep(model: &mut Model, seq: Seq) {
    if let Some((_, fate @ Fate::Given)) = model.events.get_mut(&seq) {
        *fate = Fate::Kept;
    }
}

fn stream(index: usize) -> Stream {
    match index % 3 {
        0 => Stream::project(&index.to_string()),
        _ => Stream::user(&index.to_string()),
    }
}
