//! Questions about more of a project's past than memory knows: the event log counts, piece by piece.
//! A bounded number of pieces is under way at one time, of the questions in turns.

use crate::agents::activity::{Tally, TimeRange};
use crate::event::Seq;
use crate::hub::keyed::Key;
use crate::hub::mail::Told;
use crate::hub::reads::{Read, ReadFailed, ReadWhat};
use crate::hub::streams::StreamSlot;
use crate::hub::{Hub, Now};
use crate::limits::{COUNT_READ_BYTES, COUNTS_UNDER_WAY_MAX};

use super::{Open, Wanted};

/// How far a count is.
#[derive(Debug)]
pub(super) struct Counting {
    tally: Box<Tally>,
    last_ms: Option<i64>,
    // Of what, and after which event it goes on; `None`: nothing is left.
    left: Option<(StreamSlot, Seq)>,
}

impl Counting {
    /// What memory knew in full.
    pub fn done(tally: Tally, last_ms: Option<i64>) -> Self {
        Self {
            tally: Box::new(tally),
            last_ms,
            left: None,
        }
    }

    /// From the first event of the stream on. `last_ms`: the latest time of all.
    pub fn new(slot: StreamSlot, range: TimeRange, last_ms: Option<i64>) -> Self {
        Self {
            tally: Box::new(Tally::new(range)),
            last_ms,
            left: Some((slot, Seq(0))),
        }
    }

    /// Whether nothing is left to be counted.
    pub fn is_done(&self) -> bool {
        self.left.is_none()
    }

    /// What was counted, and the latest time of all.
    pub fn into_parts(self) -> (Box<Tally>, Option<i64>) {
        (self.tally, self.last_ms)
    }

    fn take_in(&mut self, counted: &Tally, last: Seq, is_done: bool) {
        self.tally.merge(counted);
        self.left = self.left.filter(|_| !is_done).map(|(slot, _)| (slot, last));
    }
}

impl Hub {
    /// Has the log count for those whose turn it is.
    pub(super) fn count_on(&mut self) {
        while self.reads.counts_len() < COUNTS_UNDER_WAY_MAX
            && let Some(key) = self.questions.counting.pop_front()
        {
            self.ask_for_count(key);
        }
    }

    /// The log has counted a piece.
    pub(in crate::hub) fn handle_count(
        &mut self,
        now: Now,
        key: Key,
        result: Result<Read, ReadFailed>,
    ) {
        match (self.counting_mut(key), result) {
            (
                Some(counting),
                Ok(Read::Count {
                    tally,
                    last,
                    is_done,
                }),
            ) => {
                counting.take_in(&tally, last, is_done);
                self.go_on_with_question(now, key);
            }
            _ => {
                if let Some(Open { from, id, .. }) = self.questions.open.remove(key) {
                    self.tell(now, from, id, Told::Unavailable);
                }
            }
        }
        self.count_on();
    }

    fn ask_for_count(&mut self, key: Key) {
        let left = self.counting_mut(key).and_then(|counting| counting.left);
        let range = self
            .counting_mut(key)
            .map(|counting| counting.tally.range());
        let (Some((slot, after)), Some(range)) = (left, range) else {
            return;
        };
        let Some(state) = self.streams.state(slot) else {
            return;
        };
        let what = ReadWhat::Count {
            range,
            after,
            up_to: state.given,
            bytes_max: COUNT_READ_BYTES,
            kept: self.kept_up_to_given(state.given),
        };
        self.reads.ask_for_count(key, state.name.clone(), what);
    }

    fn counting_mut(&mut self, key: Key) -> Option<&mut Counting> {
        match &mut self.questions.open.find_mut(key)?.wanted {
            Wanted::Activity { counting, .. } => counting.as_mut(),
            Wanted::Conversations { .. } => None,
        }
    }
}
