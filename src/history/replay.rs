//! Reading a stream from a cursor on: first what becomes of the cursor, then its events in batches.

use std::io;

use bytes::Bytes;

use super::catalog::{Catalog, Held, Place};
use super::resume::{Outcome, ResumePoint, Surroundings, decide, missing};
use super::storage::Storage;
use crate::event::record::{EventView, RecordView, read_verified};
use crate::event::{Seq, SeqRange, StoredEvent, Stream, StreamKey, StreamKind};

/// Where the reading of a stream has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replay {
    stream: Stream,
    key: StreamKey,
    after: Seq,
    up_to: Seq,
    // Holes within were stated, or are nobody's concern.
    stated: Option<SeqRange>,
    // Nothing within may be missing without being stated, even where no record tells.
    suspected: Suspected,
    // No record after `after` is in a segment before this one.
    segment: u64,
}

/// Where events may be missing that no record tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Suspected {
    /// To be found out before anything is read.
    Unknown,
    Within(Option<SeqRange>),
}

/// What a viewer is told of a stream, and how to go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resumed {
    /// What becomes of the cursor.
    pub outcome: Outcome,
    /// The earliest event that can be had; `None` where there is none.
    pub earliest: Option<Seq>,
    /// Reads what is to be replayed; `None` where nothing is.
    pub replay: Option<Replay>,
}

/// Some events of a stream, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplayBatch {
    /// The events.
    pub events: Vec<StoredEvent>,
    /// Events that follow these and cannot be had, where the reading came upon damage: they were not
    /// stated before. The next batch goes on after them. Erased ones are passed over.
    pub missing: Option<SeqRange>,
    /// Whether nothing follows up to the end of the replay.
    pub is_done: bool,
}

impl Replay {
    /// Goes on after what cannot be had, and states it where it was not.
    fn pass_over(&mut self, batch: &mut ReplayBatch, hole: SeqRange) {
        let from = match self.stated {
            Some(stated) if stated.from <= hole.from => hole.from.max(Seq(stated.to.0 + 1)),
            _ => hole.from,
        };
        self.after = hole.to;
        if from <= hole.to {
            let from = batch.missing.map_or(from, |missing| missing.from);
            batch.missing = Some(SeqRange { from, to: hole.to });
        }
    }

    /// Goes on after `to`, with nothing before it.
    fn pass_over_all(&mut self, batch: &mut ReplayBatch, to: Seq) {
        if let Some(hole) = self.rest_up_to(to) {
            self.pass_over(batch, hole);
        }
    }

    /// Everything up to `to` that was not read.
    fn rest_up_to(&self, to: Seq) -> Option<SeqRange> {
        let from = Seq(self.after.0 + 1);
        (from <= to).then_some(SeqRange { from, to })
    }

    /// What of it is suspected to be missing.
    fn suspected_up_to(&self, to: Seq) -> Option<SeqRange> {
        let Suspected::Within(Some(suspected)) = self.suspected else {
            return None;
        };
        let rest = self.rest_up_to(to.min(suspected.to))?;
        let from = rest.from.max(suspected.from);
        (from <= rest.to).then_some(SeqRange { from, ..rest })
    }

    /// The stream that is read.
    pub fn stream(&self) -> &Stream {
        &self.stream
    }

    /// All up to it was read.
    pub fn after(&self) -> Seq {
        self.after
    }

    /// Where it ends.
    pub fn up_to(&self) -> Seq {
        self.up_to
    }
}

impl<S: Storage> Catalog<S> {
    /// What becomes of a cursor in a stream whose head is `head`: the last seq given, or the level
    /// above which the stream goes on. Everything that was given up to the cursor must have been
    /// taken in by `handle_change`, or it would count as lost. Errors: of the storage.
    pub fn resume(
        &mut self,
        stream: &Stream,
        point: ResumePoint,
        head: Seq,
    ) -> io::Result<Resumed> {
        let key = self.key(stream);
        let earliest = self.first_of(key)?.map(|place| place.cell.seq);
        let (held, next) = self.surroundings(stream, point.seq, head)?;
        let outcome = decide(self.epoch(), point, &held);
        let replay = match (outcome, next) {
            (Outcome::Replay { missing, .. }, Some(place)) => Some(Replay {
                stream: stream.clone(),
                key,
                after: point.seq,
                up_to: head,
                stated: missing,
                suspected: Suspected::Within(None),
                segment: place.segment,
            }),
            _ => None,
        };
        Ok(Resumed {
            outcome,
            earliest,
            replay,
        })
    }

    /// What is held around a cursor, and where the next record is.
    fn surroundings(
        &mut self,
        stream: &Stream,
        cursor: Seq,
        head: Seq,
    ) -> io::Result<(Surroundings, Option<Place>)> {
        let key = self.key(stream);
        let before = self.last_up_to(key, cursor)?;
        let next = self.first_after(key, cursor)?;
        let held = Surroundings {
            head,
            start: self.newest().map_or(Seq(0), |newest| newest.start),
            floor: self.floor(),
            before: before.map(|place| place.cell.seq),
            next: match next {
                Some(place) => {
                    let previous = self.previous_of(stream, place, cursor)?;
                    Some((place.cell.seq, previous))
                }
                None => None,
            },
            damaged: self.damage_after(stream, cursor, before, head)?,
        };
        Ok((held, next))
    }

    /// Reads a stream again, whatever a viewer has seen: the events after `after` up to `up_to`. What
    /// cannot be had is left out.
    pub fn replay(&self, stream: &Stream, after: Seq, up_to: Seq) -> Replay {
        let key = self.key(stream);
        Replay {
            stream: stream.clone(),
            key,
            after,
            up_to,
            stated: Some(SeqRange {
                from: Seq(0),
                to: Seq::MAX,
            }),
            suspected: Suspected::Within(None),
            segment: 0,
        }
    }

    /// Reads a stream on after `after`, up to `up_to`, for a viewer that has all before: every hole is
    /// stated, in its place.
    pub fn replay_from(&self, stream: &Stream, after: Seq, up_to: Seq) -> Replay {
        Replay {
            stated: None,
            suspected: Suspected::Unknown,
            ..self.replay(stream, after, up_to)
        }
    }

    /// The next events: at least one, then up to about `bytes_max` bytes of records.
    /// Errors: of the storage; the same call may be made again.
    pub fn read(&mut self, replay: &mut Replay, bytes_max: usize) -> io::Result<ReplayBatch> {
        if replay.suspected == Suspected::Unknown {
            let (held, _) = self.surroundings(&replay.stream, replay.after, replay.up_to)?;
            replay.suspected = Suspected::Within(missing(replay.after, &held));
        }
        let mut batch = ReplayBatch::default();
        let mut bytes_left = bytes_max;
        let mut at = self.position(replay.segment);
        while at < self.segments_len() {
            let number = self.segments[at].header.number;
            let (key, after) = (replay.key, replay.after);
            let cells = self.with_index(at, key, |index| index.after(key, after, CELLS_AT_ONCE))?;
            let mut cells = cells.unwrap_or_default();
            cells.retain(|cell| cell.seq <= replay.up_to);
            if cells.is_empty() {
                at += 1;
                continue;
            }
            replay.segment = number;
            let is_first = batch.events.is_empty();
            let count = cells.iter().scan(0, |total, cell| {
                *total += cell.length as usize;
                Some(*total)
            });
            let fitting = count.take_while(|total| *total <= bytes_left).count();
            if fitting == 0 && !is_first {
                return Ok(batch);
            }
            cells.truncate(fitting.max(1));
            for (cell, held) in cells.iter().zip(self.records(number, &cells)?) {
                let place = Place {
                    segment: number,
                    cell: *cell,
                };
                if self.take(replay, &mut batch, place, held) {
                    return Ok(batch);
                }
                bytes_left = bytes_left.saturating_sub(cell.length as usize);
            }
            if bytes_left == 0 {
                return Ok(batch);
            }
        }
        if let Some(hole) = replay.suspected_up_to(replay.up_to) {
            replay.pass_over(&mut batch, hole);
        }
        self.end(replay, &mut batch)?;
        batch.is_done = batch.missing.is_none();
        Ok(batch)
    }

    /// Nothing follows up to the end. Where nothing of the stream is held at all, retention may have
    /// taken what did while it was read.
    fn end(&mut self, replay: &mut Replay, batch: &mut ReplayBatch) -> io::Result<()> {
        let gone = self.floor().min(replay.up_to);
        if gone > replay.after && self.last_up_to(replay.key, replay.after)?.is_none() {
            replay.pass_over_all(batch, gone);
        }
        Ok(())
    }

    /// Takes one record into a batch; tells whether the batch ends before it.
    fn take(
        &mut self,
        replay: &mut Replay,
        batch: &mut ReplayBatch,
        at: Place,
        held: Held,
    ) -> bool {
        let seq = at.cell.seq;
        let Held::Record(bytes) = held else {
            self.damaged.insert(replay.key, seq);
            replay.pass_over_all(batch, seq);
            return false;
        };
        let own = own_record(&replay.stream, replay.key, &bytes);
        let Some(StreamRecord { event, .. }) = own.filter(|own| own.seq == seq) else {
            // Another stream's, of the same key.
            return false;
        };
        let Some(event) = event else {
            // Erased on order: it is not missing.
            replay.after = seq;
            return false;
        };
        let previous = event.previous;
        let told = replay.rest_up_to(previous).filter(|_| !previous.is_level());
        let hole = told.or_else(|| replay.suspected_up_to(Seq(seq.0 - 1)));
        if let Some(hole) = hole {
            replay.pass_over(batch, hole);
        }
        if batch.missing.is_some() {
            return true;
        }
        replay.after = seq;
        batch.events.push(event.to_stored(&bytes));
        false
    }

    /// The stream's head before the record at `place`, or `reached` where that is among what the record
    /// says was erased; the record itself where that is damaged, so that it is missing.
    pub(super) fn previous_of(
        &mut self,
        stream: &Stream,
        place: Place,
        reached: Seq,
    ) -> io::Result<Seq> {
        let (key, seq) = (self.key(stream), place.cell.seq);
        if let Held::Record(bytes) = self.record(place)?
            && let Some(record) = own_record(stream, key, &bytes)
        {
            return Ok(match record.is_erasure {
                true => record.previous.max(reached),
                false => record.previous,
            });
        }
        self.damaged.insert(key, seq);
        Ok(seq)
    }
}

/// What a stream's cells lead to.
struct StreamRecord<'b> {
    seq: Seq,
    /// The stream's head before all that it stands for.
    previous: Seq,
    /// It stands for all that was erased between the two.
    is_erasure: bool,
    /// `None`: it was erased.
    event: Option<EventView<'b>>,
}

fn own_record<'b>(stream: &Stream, key: StreamKey, bytes: &'b Bytes) -> Option<StreamRecord<'b>> {
    match read_verified(bytes) {
        Ok(RecordView::Erasure(erasure)) => (erasure.key == key).then_some(StreamRecord {
            seq: erasure.seq,
            previous: erasure.previous,
            is_erasure: true,
            event: None,
        }),
        Ok(RecordView::Event(event)) => {
            let is_own = event.kind == stream.kind && event.stream_id() == stream.id;
            is_own.then_some(StreamRecord {
                seq: event.seq,
                previous: event.previous,
                is_erasure: false,
                event: Some(event),
            })
        }
        Ok(RecordView::Tombstone(tombstone)) => {
            let is_own = stream.kind == StreamKind::Project && tombstone.project == stream.id;
            is_own.then_some(StreamRecord {
                seq: tombstone.seq,
                previous: tombstone.previous,
                is_erasure: false,
                event: None,
            })
        }
        _ => None,
    }
}

/// Cells that are taken from an index at once.
const CELLS_AT_ONCE: usize = 256;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::history::rig::Rig;

    // What a viewer at `after` is told while it reads on up to 9.
    fn read_on(rig: &mut Rig, after: u64) -> (Vec<u64>, Option<SeqRange>) {
        let catalog = &mut rig.log.catalog;
        let mut replay = catalog.replay_from(&Stream::user("ada"), Seq(after), Seq(9));
        let batch = catalog.read(&mut replay, 1_000).unwrap();
        let seqs = batch.events.iter().map(|event| event.seq.0).collect();
        (seqs, batch.missing)
    }

    #[test]
    fn what_retention_takes_while_a_viewer_reads_is_stated() {
        let range = |from, to| SeqRange {
            from: Seq(from),
            to: Seq(to),
        };
        let mut rig = Rig::new();
        rig.write("ada", 1..=3);
        rig.roll();
        rig.write("bob", 1..=1);
        assert_eq!(read_on(&mut rig, 1), (vec![2, 3], None));
        let second = rig.log.catalog.numbers().nth(1).unwrap();
        rig.log.catalog.forget_before(second, Seq(3));
        assert_eq!(read_on(&mut rig, 1), (vec![], Some(range(2, 3))));
        assert_eq!(read_on(&mut rig, 3), (vec![], None));
        rig.write("ada", 4..=5);
        assert_eq!(read_on(&mut rig, 3), (vec![4, 5], None));
        assert_eq!(read_on(&mut rig, 1), (vec![], Some(range(2, 3))));
    }
}
