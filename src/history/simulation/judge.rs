//! What readers are told, held against the model.

use std::collections::HashSet;

use super::model::{Fate, Model, covers};
use super::world::{STREAMS, World};
use crate::event::{Seq, SeqRange, StoredEvent};
use crate::history::index::SeenId;
use crate::history::replay::Replay;
use crate::history::resume::{Outcome, ResumePoint};

impl World {
    /// Reads all streams from the beginning.
    pub fn check_all(&mut self) -> Result<(), String> {
        for index in 0..STREAMS.min(self.streams.len()) {
            let (held, missing) = self.read_all(index)?;
            let Some(log) = &self.log else { return Ok(()) };
            let floor = log.catalog.floor();
            let given = self.streams[index].after(Seq(0), &[Fate::Given]);
            let mut under_way = given;
            under_way.retain(|seq| self.is_under_way(index, *seq));
            let model = &mut self.streams[index];
            model.settle(&held, &missing, floor, |seq| under_way.contains(&seq))?;
            // A header that cannot be read no longer says where the segment before it ends.
            let lost = model
                .events
                .values_mut()
                .filter(|(_, fate)| *fate == Fate::Lost);
            if self.is_shaken {
                lost.for_each(|(_, fate)| *fate = Fate::Erased);
            }
        }
        if self.dice.u8(0..4) == 0 {
            self.check_seen()?;
        }
        Ok(())
    }

    /// A whole stream, and what is said to be missing of it.
    pub fn read_all(&mut self, index: usize) -> Result<(Vec<StoredEvent>, Vec<SeqRange>), String> {
        let point = ResumePoint {
            epoch: self.epoch,
            seq: Seq(0),
        };
        let Some(log) = &mut self.log else {
            return Ok(Default::default());
        };
        let model = &self.streams[index];
        let resumed = log.catalog.resume(&model.stream, point, model.head);
        let resumed = resumed.map_err(|error| error.to_string())?;
        let Outcome::Replay { missing, .. } = resumed.outcome else {
            return Err(format!("{}: 0 was reset", model.stream));
        };
        let (held, more) = self.read(resumed.replay)?;
        Ok((held, missing.into_iter().chain(more).collect()))
    }

    fn read(
        &mut self,
        replay: Option<Replay>,
    ) -> Result<(Vec<StoredEvent>, Vec<SeqRange>), String> {
        let (mut events, mut missing) = (Vec::new(), Vec::new());
        let bytes_max = self.dice.usize(1..5_000);
        let (Some(mut replay), Some(log)) = (replay, &mut self.log) else {
            return Ok((events, missing));
        };
        loop {
            let batch = log.catalog.read(&mut replay, bytes_max);
            let batch = batch.map_err(|error| error.to_string())?;
            events.extend(batch.events);
            missing.extend(batch.missing);
            if batch.is_done {
                return Ok((events, missing));
            }
        }
    }

    /// A viewer comes back with a cursor that it may have.
    pub fn resume(&mut self) -> Result<(), String> {
        let index = self.dice.usize(0..STREAMS);
        let (Some(seq), Some(log)) = (self.some_cursor(index), &mut self.log) else {
            return Ok(());
        };
        let model = &self.streams[index];
        let point = ResumePoint {
            epoch: self.epoch,
            seq,
        };
        let resumed = log.catalog.resume(&model.stream, point, model.head);
        let resumed = resumed.map_err(|error| error.to_string())?;
        let floor = log.catalog.floor();
        let (held, met) = self.read(resumed.replay.clone())?;
        let verdict = self.judge(index, seq, floor, resumed.outcome, &held, &met);
        verdict.map_err(|why| {
            let name = &self.streams[index].stream;
            format!("{name}: {why} at {seq}, floor {floor}: {resumed:?}, {met:?}")
        })?;
        self.read_on(index, seq)
    }

    /// A viewer that has all up to `seq` goes on.
    fn read_on(&mut self, index: usize, seq: Seq) -> Result<(), String> {
        let Some(log) = &self.log else { return Ok(()) };
        let model = &self.streams[index];
        let replay = log.catalog.replay_from(&model.stream, seq, model.head);
        let (held, stated) = self.read(Some(replay))?;
        let model = &self.streams[index];
        model.check(&held, seq)?;
        check_whole(model, seq, &held, &stated).map_err(|why| format!("{}: {why}", model.stream))
    }

    /// What is asked of all segments: decisions about tokens, and the ids that make duplicates.
    fn check_seen(&mut self) -> Result<(), String> {
        let Some(log) = &mut self.log else {
            return Ok(());
        };
        let held = log.catalog.revocations();
        let held: HashSet<_> = held
            .map_err(|error| error.to_string())?
            .into_iter()
            .collect();
        let gone = self
            .decisions
            .iter()
            .find(|decision| !held.contains(*decision));
        if let Some(gone) = gone.filter(|_| !self.is_shaken) {
            return Err(format!("decision {gone:?} is gone"));
        }
        let mut seen = HashSet::new();
        let each = |id: SeenId| seen.extend([id.fingerprint]);
        let read = log.catalog.seen_since(i64::MIN, usize::MAX, each);
        read.map_err(|error| error.to_string())?;
        let events = self.streams.iter().flat_map(|model| model.events.values());
        let mut kept = events.filter(|(_, fate)| *fate == Fate::Kept);
        let unseen =
            kept.find_map(|(stored, _)| stored.fingerprint.filter(|id| !seen.contains(id)));
        unseen.map_or(Ok(()), |id| Err(format!("{id:x} is not known any more")))
    }

    fn some_cursor(&mut self, index: usize) -> Option<Seq> {
        let start = self.log.as_ref()?.report.start;
        let seqs: Vec<Seq> = self.streams[index].events.keys().copied().collect();
        let seq = match self.dice.u8(0..8) {
            0 => Seq(0),
            1 => start,
            _ if seqs.is_empty() => return None,
            _ => seqs[self.dice.usize(0..seqs.len())],
        };
        // What is under way is in the ring of the core, and not asked of the log.
        (!self.is_under_way(index, seq)).then_some(seq)
    }

    fn judge(
        &mut self,
        index: usize,
        seq: Seq,
        floor: Seq,
        outcome: Outcome,
        held: &[StoredEvent],
        met: &[SeqRange],
    ) -> Result<(), String> {
        let model = &self.streams[index];
        let Outcome::Replay { missing, lost } = outcome else {
            return Err("a reset".into());
        };
        model.check(held, seq)?;
        let head = model.head;
        if missing.is_some_and(|range| range.to > head || range.from > range.to) {
            return Err(format!("a hole reaches beyond the head {head}"));
        }
        let stated: Vec<SeqRange> = missing.into_iter().chain(met.iter().copied()).collect();
        check_whole(model, seq, held, &stated)?;
        let fate = model.events.get(&seq).map(|(_, fate)| *fate);
        let was_kept = match fate {
            Some(Fate::Kept) => true,
            Some(Fate::Erased | Fate::Gone | Fate::Shaken) => !self.is_shaken,
            _ => false,
        };
        if was_kept && lost.is_some() {
            return Err("what was kept is called lost".into());
        }
        let is_untouched = |(_, fate): &(_, Fate)| !matches!(fate, Fate::Erased | Fate::Shaken);
        if self.is_shaken || !model.events.values().all(is_untouched) {
            return Ok(());
        }
        let before = model.kept_up_to(seq);
        let is_taken = !model.after(seq, &[Fate::Gone]).is_empty();
        let may_be_taken = before.is_none() && floor > seq;
        if !met.is_empty() || (missing.is_some() && !is_taken && !may_be_taken) {
            return Err("a hole is stated for nothing".into());
        }
        let is_known = before.is_some() || seq > floor;
        let is_lost = fate == Some(Fate::Lost) && is_known;
        match lost {
            None if is_lost => return Err("a loss is not stated".into()),
            Some(_) if !is_lost => return Err("a loss is stated for nothing".into()),
            Some(range) if range.to != seq || Some(range.from) <= before => {
                return Err("the wrong loss is stated".into());
            }
            _ => {}
        }
        if lost.is_some() {
            self.edge("lost stated");
        }
        if missing.is_some() {
            self.edge("hole stated");
        }
        Ok(())
    }
}

/// Whether a viewer that has all up to `seq` gets what is held, and is told of what is not.
fn check_whole(
    model: &Model,
    seq: Seq,
    held: &[StoredEvent],
    stated: &[SeqRange],
) -> Result<(), String> {
    let is_held = |seq: &Seq| held.binary_search_by_key(seq, |event| event.seq).is_ok();
    let must_be_there = model.after(seq, &[Fate::Kept]);
    if let Some(absent) = must_be_there.iter().find(|seq| !is_held(seq)) {
        return Err(format!("{absent} is not replayed"));
    }
    let mut must_be_stated = model.after(seq, &[Fate::Gone, Fate::Shaken]).into_iter();
    match must_be_stated.find(|seq| !is_held(seq) && !covers(stated, *seq)) {
        Some(unstated) => Err(format!("nobody says that {unstated} is missing")),
        None => Ok(()),
    }
}
