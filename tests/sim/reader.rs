//! Who reads the simulated event log for the cores: knows what the logs of all cores keep, and
//! answers after a while, in small pieces.

use std::collections::BTreeMap;

use bytes::Bytes;
use sightline::agents::activity::Tally;
use sightline::event::{Epoch, Seq, StoredEvent, Stream};
use sightline::hub::reads::{LogOutcome, Read, ReadAnswer, ReadRequest, ReadWhat};

use crate::dice::Dice;
use crate::log::KeptRecord;
use crate::scenario::EPOCH;

/// See the module.
pub struct Reader {
    delay_ms_max: u64,
    streams: BTreeMap<Stream, Vec<StoredEvent>>,
    snapshots: BTreeMap<Stream, (Seq, Bytes)>,
    // The records of each core that are kept.
    kept: Vec<u64>,
    // Not answered: when they may be, and by whom they were asked.
    asked: Vec<(u64, usize, ReadRequest)>,
}

impl Reader {
    pub fn new(cores: usize, delay_ms_max: u64) -> Self {
        Self {
            delay_ms_max,
            streams: BTreeMap::new(),
            snapshots: BTreeMap::new(),
            kept: vec![0; cores],
            asked: Vec::new(),
        }
    }

    /// A core's log keeps these records, and so many in all.
    pub fn take_in(&mut self, core: usize, records: Vec<KeptRecord>, durable: u64) {
        for record in records {
            match record {
                KeptRecord::Event(event) => {
                    let id = event.event.audience(event.kind).unwrap_or_default().into();
                    let kind = event.kind;
                    let stream = Stream { kind, id };
                    self.streams.entry(stream).or_default().push(event);
                }
                KeptRecord::Snapshot(stream, seq, payload) => {
                    self.snapshots.insert(stream, (seq, payload));
                }
            }
        }
        self.kept[core] = durable;
    }

    /// The events of all streams.
    pub fn streams(&self) -> impl Iterator<Item = (&Stream, &[StoredEvent])> {
        let streams = self.streams.iter();
        streams.map(|(stream, events)| (stream, events.as_slice()))
    }

    pub fn ask(&mut self, now_ms: u64, core: usize, request: ReadRequest, dice: &mut Dice) {
        let ready_ms = now_ms + dice.between(0, self.delay_ms_max);
        self.asked.push((ready_ms, core, request));
    }

    /// Whether a core is about to be answered.
    pub fn has_answer_for(&self, core: usize, now_ms: u64) -> bool {
        self.asked
            .iter()
            .any(|asked| self.is_due(core, now_ms, asked))
    }

    /// The next answer for a core.
    pub fn answer(&mut self, core: usize, now_ms: u64, dice: &mut Dice) -> Option<ReadAnswer> {
        let mut asked = self.asked.iter();
        let at = asked.position(|asked| self.is_due(core, now_ms, asked))?;
        let (_, _, request) = self.asked.remove(at);
        Some(ReadAnswer {
            id: request.id,
            result: Ok(self.read(&request, dice)),
        })
    }

    /// Whether nobody waits.
    pub fn is_idle(&self) -> bool {
        self.asked.is_empty()
    }

    /// No more delay.
    pub fn calm(&mut self) {
        self.delay_ms_max = 0;
        for (ready_ms, ..) in &mut self.asked {
            *ready_ms = 0;
        }
    }

    fn is_due(&self, core: usize, now_ms: u64, asked: &(u64, usize, ReadRequest)) -> bool {
        let (ready_ms, asker, request) = asked;
        let kept = request.what.kept();
        let is_kept = kept.is_none_or(|(owner, through)| self.kept[owner] >= through);
        *asker == core && *ready_ms <= now_ms && is_kept
    }

    fn read(&self, request: &ReadRequest, dice: &mut Dice) -> Read {
        let events = self.streams.get(&request.stream);
        let events = events.map_or(&[][..], |events| events.as_slice());
        match &request.what {
            ReadWhat::Count {
                range,
                after,
                up_to,
                ..
            } => {
                let is_left = |event: &&StoredEvent| event.seq > *after && event.seq <= *up_to;
                let left: Vec<_> = events.iter().filter(is_left).collect();
                let count = (dice.between(1, 12) as usize).min(left.len());
                let mut tally = Box::new(Tally::new(*range));
                for StoredEvent { event, .. } in &left[..count] {
                    tally.add(&event.event_type, event.timestamp_ms, 1);
                }
                Read::Count {
                    tally,
                    last: left[..count].last().map_or(*after, |last| last.seq),
                    is_done: count == left.len(),
                }
            }
            ReadWhat::Events { after, up_to, .. } => {
                let wanted = events
                    .iter()
                    .filter(|event| event.seq > *after && event.seq <= *up_to);
                let all: Vec<StoredEvent> = wanted.cloned().collect();
                let count = (dice.between(1, 12) as usize).min(all.len());
                Read::Events {
                    is_done: count == all.len(),
                    events: all[..count].to_vec(),
                    missing: None,
                }
            }
            ReadWhat::Resume { cursor, head, .. } => Read::Resume {
                outcome: cursor.map(|cursor| outcome(cursor, *head)),
                earliest: events.first().map(|event| event.seq),
            },
            ReadWhat::Snapshot { .. } => Read::Snapshot {
                latest: self.snapshots.get(&request.stream).cloned(),
                last: events.last().map(|event| event.seq),
            },
        }
    }
}

// Nothing is ever lost here, nor taken away.
fn outcome((epoch, seq): (Option<Epoch>, Seq), head: Seq) -> LogOutcome {
    if epoch.is_none_or(|epoch| epoch != EPOCH) || seq > head {
        return LogOutcome::Reset;
    }
    LogOutcome::Replay {
        missing: None,
        lost: None,
    }
}
