//! What one viewer went through, from its first connection to its last: where it stands in each
//! stream is followed line by line, and each step is held to what the log holds and what was stated.
//! Source: the contract, section 5.

use std::collections::{BTreeMap, HashMap};

use super::{Checker, Kind};
use crate::cast::{Cursor, EventFacts, ViewerPlan};
use crate::records::{Range, Row, ViewerLine};

/// One viewer's way through the run.
pub struct Walk<'c> {
    checker: &'c mut Checker,
    plan: &'c ViewerPlan,
    cycle: u32,
    /// The cursor of this connection.
    given: Cursor,
    streams: BTreeMap<String, Standing>,
    /// Where it got each event, but for what was taken back.
    got: HashMap<String, (String, u64)>,
}

/// Where it stands in a stream.
#[derive(Default)]
struct Standing {
    /// All up to it was delivered, did not match, or is stated as gone.
    position: u64,
    /// On this connection a row said where it begins.
    is_attached: bool,
    /// `replay_complete` is to come, and the head at which live begins.
    replay_to: Option<u64>,
    /// What it got and was not taken back.
    got: BTreeMap<u64, String>,
    /// Of this, what is not in the log, with the cycle in which it came.
    unkept: BTreeMap<u64, (u32, String)>,
}

impl<'c> Walk<'c> {
    /// One that has not begun.
    pub fn new(checker: &'c mut Checker, plan: &'c ViewerPlan) -> Self {
        Self {
            checker,
            plan,
            cycle: 0,
            given: Cursor::default(),
            streams: BTreeMap::new(),
            got: HashMap::new(),
        }
    }

    /// Takes the next line of its record.
    pub fn handle(&mut self, line: ViewerLine) {
        match line {
            ViewerLine::Opened { cycle, cursor } => self.open(cycle, cursor.unwrap_or_default()),
            ViewerLine::Rows { epoch, rows } => {
                self.check_epoch(epoch);
                for row in &rows {
                    self.handle_row(row);
                }
            }
            ViewerLine::Event {
                stream,
                seq,
                event_id,
                data,
            } => self.handle_event(&stream, seq, &event_id.unwrap_or_default(), &data),
            ViewerLine::Complete { stream, seq } => self.handle_complete(&stream, seq),
            ViewerLine::Cursor(cursor) => {
                self.check_epoch(cursor.epoch);
                for (stream, seq) in cursor.streams {
                    self.pass(&stream, seq, "a cursor");
                }
            }
            ViewerLine::Refused { status } => {
                self.fail(Kind::Refused, &format!("refused by {status}"));
            }
            ViewerLine::Told { what } => self.fail(Kind::Refused, &format!("told {what}")),
            ViewerLine::Closed { code } => {
                if let Some(code) = code.filter(|code| !HARMLESS.contains(code)) {
                    self.fail(Kind::Closed, &format!("closed with {code}"));
                }
            }
        }
    }

    /// Takes the end of its record: by then it has everything that is for it.
    pub fn finish(mut self) {
        for stream in self.plan.streams() {
            let standing = self.streams.entry(stream.clone()).or_default();
            let (position, is_done) = (
                standing.position,
                standing.is_attached && standing.replay_to.is_none(),
            );
            let unkept = std::mem::take(&mut standing.unkept);
            if !is_done {
                self.fail(
                    Kind::Behind,
                    &format!("{stream}: it was not caught up at the end"),
                );
            }
            self.check_held(Kind::Behind, &stream, position, u64::MAX);
            self.report_unkept(&stream, unkept);
        }
    }

    fn open(&mut self, cycle: u32, cursor: Cursor) {
        self.cycle = cycle;
        self.checker.verdict.counts.connections += 1;
        for standing in self.streams.values_mut() {
            standing.is_attached = false;
            standing.replay_to = None;
        }
        self.given = cursor;
    }

    fn check_epoch(&mut self, epoch: Option<String>) {
        let Some(epoch) = epoch else { return };
        let known = self.checker.epoch.get_or_insert_with(|| epoch.clone());
        if *known != epoch {
            let text = format!("{known} became {epoch}");
            self.fail(Kind::EpochChanged, &text);
        }
    }

    fn handle_row(&mut self, row: &Row) {
        let rows = &mut self.checker.verdict.counts.rows;
        *rows.entry(row.outcome.clone()).or_default() += 1;
        let cursor = self.given.streams.get(&row.stream).copied();
        let is_about_cursor = row.from == cursor;
        match (row.outcome.as_str(), row.to, cursor) {
            ("pending", _, Some(_)) if is_about_cursor => {}
            ("fresh", Some(to), None) => self.attach(&row.stream, to),
            ("fresh", Some(to), Some(cursor)) => {
                let text = format!("{}: fresh at {to} for cursor {cursor}", row.stream);
                self.fail(Kind::Forgotten, &text);
                self.attach(&row.stream, to);
            }
            ("reset", to, _) => {
                self.fail(Kind::Reset, &format!("{row:?}"));
                self.attach(&row.stream, to.unwrap_or_default());
            }
            ("resumed" | "truncated", Some(to), Some(cursor)) => {
                if !is_about_cursor {
                    self.fail(Kind::Unknown, &format!("cursor {cursor} and {row:?}"));
                }
                self.resume(row, cursor, to);
            }
            _ => self.fail(Kind::Unknown, &format!("cursor {cursor:?} and {row:?}")),
        }
    }

    fn attach(&mut self, stream: &str, to: u64) {
        let standing = self.streams.entry(stream.to_owned()).or_default();
        standing.is_attached = true;
        standing.position = to;
    }

    fn resume(&mut self, row: &Row, cursor: u64, to: u64) {
        let stream = &row.stream;
        if let Some(missing) = row.missing {
            self.check_gone(stream, missing, "missing");
        }
        if let Some(lost) = row.lost {
            self.take_back(stream, lost);
        }
        let standing = self.streams.entry(stream.clone()).or_default();
        let is_known = standing.position == cursor;
        standing.is_attached = true;
        standing.replay_to = Some(to);
        let missed = row.missing.map_or(0, |missing| missing.to);
        standing.position = standing.position.max(missed);
        // What came in this life of the gateway was still on its way to the log.
        let unkept = std::mem::take(&mut standing.unkept).into_iter();
        let (on_its_way, unkept) = unkept.partition(|(_, (cycle, _))| *cycle >= self.cycle);
        standing.unkept = on_its_way;
        if !is_known {
            self.fail(
                Kind::Unknown,
                &format!("{stream}: cursor {cursor} was never told"),
            );
        }
        self.report_unkept(stream, unkept);
    }

    fn take_back(&mut self, stream: &str, lost: Range) {
        self.checker.verdict.counts.lost_stated += 1;
        self.check_gone(stream, lost, "lost");
        if self.checker.verdict.deliver == "durable" {
            self.fail(Kind::LostUnderDurable, &format!("{stream}: lost {lost:?}"));
        }
        let standing = self.streams.entry(stream.to_owned()).or_default();
        let is_lost = |seq: &u64| (lost.from..=lost.to).contains(seq);
        standing.unkept.retain(|seq, _| !is_lost(seq));
        let taken: Vec<u64> = standing.got.keys().copied().filter(is_lost).collect();
        self.checker.verdict.counts.lost_deliveries += taken.len() as u64;
        for seq in taken {
            let event_id = standing.got.remove(&seq).unwrap_or_default();
            self.got.remove(&event_id);
        }
    }

    // What is stated as gone must not be there.
    fn check_gone(&mut self, stream: &str, gone: Range, word: &str) {
        if gone.from > gone.to {
            self.fail(Kind::Unknown, &format!("{stream}: {word} {gone:?}"));
            return;
        }
        let kept = self.checker.log.get(&self.plan.full_name(stream));
        let kept = kept.and_then(|kept| kept.range(gone.from..=gone.to).next());
        if let Some((seq, event_id)) = kept {
            let text = format!("{stream}: {word} {gone:?}, but {seq} is there: {event_id}");
            self.fail(Kind::StatedButHeld, &text);
        }
    }

    fn handle_event(&mut self, stream: &str, seq: u64, event_id: &str, data: &str) {
        self.checker.verdict.counts.delivered += 1;
        let place = format!("{stream} {seq}: {event_id}");
        let wanted = self.checker.events.get(event_id);
        let wanted = wanted.map(|event| (self.plan.wants(stream, event), event.data == data));
        match wanted {
            None => self.fail(Kind::Unknown, &format!("{place}: nobody published it")),
            Some((false, _)) => self.fail(Kind::Foreign, &place),
            Some((true, false)) => self.fail(Kind::Changed, &place),
            Some((true, true)) => {}
        }
        let standing = self.streams.entry(stream.to_owned()).or_default();
        if standing.replay_to.is_some_and(|to| seq > to) {
            self.fail(Kind::LiveBeforeComplete, &place);
        }
        self.check_name(stream, seq, event_id);
        self.check_new(stream, seq, event_id);
        self.pass(stream, seq, event_id);
    }

    // That the seq names this event, here, in the log and to everybody else.
    fn check_name(&mut self, stream: &str, seq: u64, event_id: &str) {
        let full_name = self.plan.full_name(stream);
        let kept = self.checker.log.get(&full_name);
        let named = kept.and_then(|kept| kept.get(&seq)).cloned();
        let is_kept = named.is_some();
        let named = named.unwrap_or_else(|| {
            let unkept = &mut self.checker.unkept;
            let name = unkept.entry((full_name, seq));
            name.or_insert_with(|| event_id.to_owned()).clone()
        });
        if named != event_id {
            let text = format!("{stream} {seq} is {named} and {event_id}");
            self.fail(Kind::TwoEvents, &text);
        }
        if !is_kept {
            let standing = self.streams.entry(stream.to_owned()).or_default();
            standing
                .unkept
                .insert(seq, (self.cycle, event_id.to_owned()));
        }
    }

    fn check_new(&mut self, stream: &str, seq: u64, event_id: &str) {
        let place = (stream.to_owned(), seq);
        if let Some((other, first)) = self.got.insert(event_id.to_owned(), place) {
            let text = format!("{event_id} at {other} {first} and {stream} {seq}");
            self.fail(Kind::DeliveredTwice, &text);
        }
        let standing = self.streams.entry(stream.to_owned()).or_default();
        standing.got.insert(seq, event_id.to_owned());
    }

    fn handle_complete(&mut self, stream: &str, seq: u64) {
        let standing = self.streams.entry(stream.to_owned()).or_default();
        match standing.replay_to.take() {
            Some(to) if seq >= to => {}
            replay_to => {
                let text = format!("{stream}: replay_complete at {seq}, replay to {replay_to:?}");
                self.fail(Kind::Unknown, &text);
            }
        }
        self.pass(stream, seq, "replay_complete");
    }

    // It is at `seq` now: an event, or a word that all up to it is settled.
    fn pass(&mut self, stream: &str, seq: u64, what: &str) {
        let standing = self.streams.entry(stream.to_owned()).or_default();
        let (before, is_attached) = (standing.position, standing.is_attached);
        let is_event = standing.got.get(&seq).is_some_and(|id| id == what);
        standing.position = seq;
        if !is_attached {
            self.fail(Kind::Unattached, &format!("{stream} {seq}: {what}"));
        } else if seq < before || (is_event && seq == before) {
            self.fail(
                Kind::WrongOrder,
                &format!("{stream} {seq}: {what}, after {before}"),
            );
        } else {
            let last = if is_event { seq - 1 } else { seq };
            self.check_held(Kind::Gap, stream, before, last);
        }
    }

    // That the log holds nothing for this viewer after `before`, up to `last`.
    fn check_held(&mut self, kind: Kind, stream: &str, before: u64, last: u64) {
        if last <= before {
            return;
        }
        let Some(kept) = self.checker.log.get(&self.plan.full_name(stream)) else {
            return;
        };
        let is_wanted = |event_id: &String| {
            let event: Option<&EventFacts> = self.checker.events.get(event_id);
            event.is_some_and(|event| self.plan.wants(stream, event))
        };
        let mut skipped = kept.range(before + 1..=last);
        let first = skipped.find(|(_, event_id)| is_wanted(event_id));
        let others = skipped.filter(|(_, event_id)| is_wanted(event_id)).count();
        if let Some((seq, event_id)) = first {
            let text = format!(
                "{stream}: at {before}, then past {last}, without {seq}: {event_id} \
                 and {others} more"
            );
            self.fail(kind, &text);
        }
    }

    fn report_unkept(&mut self, stream: &str, unkept: BTreeMap<u64, (u32, String)>) {
        for (seq, (_, event_id)) in unkept {
            let text = format!("{stream} {seq}: {event_id} is not in the log");
            self.fail(Kind::Unkept, &text);
        }
    }

    fn fail(&mut self, kind: Kind, text: &str) {
        let text = format!("{}, cycle {}: {text}", self.plan.name, self.cycle);
        self.checker.fail(kind, text);
    }
}

/// Of a viewer that left, of a gateway that was asked to stop, and of a viewer on a machine so busy
/// that it does not answer a ping in time.
const HARMLESS: [u16; 4] = [1000, 1001, 1005, 4009];
