//! What should be in the log: every event that was given, and what has become of it.

use std::collections::BTreeMap;

use crate::event::{Seq, SeqRange, StoredEvent, Stream};

/// What is known of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It must be there.
    Kept,
    /// It may be there or not: its user was erased.
    Erased,
    /// It was given and not acknowledged: it may be there after the next opening, or not.
    Given,
    /// Retention took it.
    Gone,
    /// It was not there after an opening, and must never be again.
    Lost,
    /// It was erased, or bytes of the log were changed behind its back: it must be there, or be said
    /// to be missing.
    Shaken,
}

/// A stream as its owner core and its viewers know it.
#[derive(Debug)]
pub struct Model {
    pub stream: Stream,
    /// All events that were ever given, by seq.
    pub events: BTreeMap<Seq, (StoredEvent, Fate)>,
    /// The last seq given, or the level above which the stream goes on.
    pub head: Seq,
}

impl Model {
    pub fn new(stream: Stream, head: Seq) -> Self {
        Self {
            stream,
            events: BTreeMap::new(),
            head,
        }
    }

    /// Compares what the log holds with what it should. What may be there or not is settled by it,
    /// but for what `is_under_way`.
    pub fn settle(
        &mut self,
        held: &[StoredEvent],
        missing: &[SeqRange],
        floor: Seq,
        is_under_way: impl Fn(Seq) -> bool,
    ) -> Result<(), String> {
        self.check(held, Seq(0))?;
        let name = self.stream.to_string();
        let first = held.first().map_or(Seq::MAX, |event| event.seq);
        for (seq, (_, fate)) in &mut self.events {
            let is_held = held.binary_search_by_key(seq, |event| event.seq).is_ok();
            *fate = match *fate {
                Fate::Given if is_under_way(*seq) => Fate::Given,
                Fate::Given if is_held => Fate::Kept,
                Fate::Given => Fate::Lost,
                Fate::Kept | Fate::Shaken if !is_held && *seq <= floor && *seq < first => {
                    Fate::Gone
                }
                Fate::Kept if !is_held => {
                    return Err(format!("{name}: {seq} was kept and is gone"));
                }
                Fate::Shaken if !is_held && !covers(missing, *seq) => {
                    return Err(format!("{name}: nobody says that {seq} is damaged"));
                }
                Fate::Gone if is_held => return Err(format!("{name}: {seq} came back")),
                fate => fate,
            };
        }
        Ok(())
    }

    /// Whether these are events of the stream after `after`, in order and as they were given.
    pub fn check(&self, held: &[StoredEvent], after: Seq) -> Result<(), String> {
        let name = self.stream.to_string();
        let mut last = after;
        for event in held {
            let seq = event.seq;
            if seq <= last {
                return Err(format!("{name}: {seq} after {last}"));
            }
            last = seq;
            match self.events.get(&seq) {
                None => return Err(format!("{name}: {seq} was never given")),
                Some((_, Fate::Lost)) => return Err(format!("{name}: {seq} came back")),
                Some((given, _)) if given != event => {
                    return Err(format!("{name}: {seq} is not as it was given"));
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// The events of a user are erased, of which no viewer is told.
    pub fn erase(&mut self, user: &Stream) {
        for (stored, fate) in self.events.values_mut() {
            let is_users = stored.event.user.as_ref() == Some(&user.id);
            if is_users && matches!(fate, Fate::Kept | Fate::Shaken) {
                *fate = Fate::Erased;
            }
        }
    }

    /// The last event up to `seq` that must be there.
    pub fn kept_up_to(&self, seq: Seq) -> Option<Seq> {
        let mut before = self.events.range(..=seq).rev();
        before
            .find(|(_, (_, fate))| *fate == Fate::Kept)
            .map(|(seq, _)| *seq)
    }

    /// The events after `seq` with one of these fates.
    pub fn after(&self, seq: Seq, fates: &[Fate]) -> Vec<Seq> {
        let after = self.events.range(Seq(seq.0 + 1)..);
        let some = after.filter(|(_, (_, fate))| fates.contains(fate));
        some.map(|(seq, _)| *seq).collect()
    }
}

pub fn covers(ranges: &[SeqRange], seq: Seq) -> bool {
    ranges
        .iter()
        .any(|range| range.from <= seq && seq <= range.to)
}
