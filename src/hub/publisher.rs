//! One publisher's state, and one publish request's account. Pure bookkeeping: parsing and routing
//! are in `publish`, numbering in `route`.

use std::collections::VecDeque;
use std::rc::Rc;

use crate::auth::Claims;
use crate::event::{Body, Event, RejectionCode, Strictness};
use crate::limits::REJECTED_ROWS_MAX;

use super::keyed::Key;
use super::mail::{Ack, Receipt};

/// Someone who publishes: a WebSocket connection, or one POST.
#[derive(Debug)]
pub struct Publisher {
    /// The engine's name for the connection.
    pub connection: Key,
    /// What the token says.
    pub claims: Rc<Claims>,
    /// Where acks and nacks go; `None` for a POST, which is answered when all is settled.
    pub peer: Option<Key>,
    pub(super) terms: Terms,
    // Bodies not yet parsed to their end, in order.
    pub(super) jobs: VecDeque<Job>,
    // The code that all further events get.
    pub(super) refusing: Option<RejectionCode>,
    // Whether it waits: for room, or for its own outbox to be read.
    pub(super) is_stalled: bool,
    // Since when nothing of it found room, in milliseconds of the monotonic clock.
    pub(super) waits_since_ms: Option<u64>,
    // Messages received so far.
    pub(super) messages: u64,
    // Requests in order, from the first that is not settled; the message before it is `through`.
    pub(super) unsettled: VecDeque<Key>,
    pub(super) through: u64,
    pub(super) through_sent: u64,
    pub(super) is_ack_due: bool,
}

/// How a publisher wants its events to be taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// What makes them settled.
    pub ack: Ack,
    /// What becomes of those of a known type that have another shape.
    pub strictness: Strictness,
}

/// One body that is being parsed.
#[derive(Debug)]
pub(super) struct Job {
    pub request: Key,
    pub body: Body,
    pub received_ns: u64,
    // Parsed, and waiting for room.
    pub held: Option<(u32, Event)>,
}

impl Publisher {
    /// One that has sent nothing yet.
    pub fn new(connection: Key, claims: Rc<Claims>, terms: Terms) -> Self {
        Self {
            connection,
            claims,
            peer: None,
            terms,
            jobs: VecDeque::new(),
            refusing: None,
            is_stalled: false,
            waits_since_ms: None,
            messages: 0,
            unsettled: VecDeque::new(),
            through: 0,
            through_sent: 0,
            is_ack_due: false,
        }
    }
}

/// The account of one request: a POST, or one message over WebSocket.
#[derive(Debug)]
pub struct Request {
    pub(super) publisher: Key,
    // The message's number, from 1; 0 for a POST.
    pub(super) message: u64,
    // Submissions that no receipt has settled yet.
    outstanding: u32,
    // Whether the body was parsed to its end.
    is_parsed: bool,
    events: u64,
    // Places of events with two audiences, rising, and of duplicates (an event of two audiences stands
    // here once for each stream that knew it).
    pairs: Vec<u32>,
    duplicates: Vec<u32>,
    rejected: Rejected,
    is_broken: bool,
}

/// Events that were refused.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Rejected {
    /// The first of them, at most `REJECTED_ROWS_MAX`.
    pub rows: Vec<RejectedRow>,
    /// How many there are.
    pub count: u64,
}

/// One event that was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RejectedRow {
    /// Its place in the body, from 0.
    pub index: u32,
    /// Why.
    pub code: RejectionCode,
    /// For people: what, where and what to do.
    pub message: String,
}

/// What became of a request.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Events numbered.
    pub accepted: u64,
    /// Events known already.
    pub duplicates: u64,
    /// Events refused.
    pub rejected: Rejected,
    /// We failed on the way: of what stands behind the events above nothing is known.
    pub is_broken: bool,
}

impl Request {
    pub(super) fn new(publisher: Key, message: u64) -> Self {
        Self {
            publisher,
            message,
            outstanding: 0,
            is_parsed: false,
            events: 0,
            pairs: Vec::new(),
            duplicates: Vec::new(),
            rejected: Rejected::default(),
            is_broken: false,
        }
    }

    // An event was found in the body.
    pub(super) fn handle_event(&mut self) {
        self.events += 1;
    }

    // An event is on its way to `audiences` owner cores (1 or 2).
    pub(super) fn handle_submitted(&mut self, index: u32, audiences: u32) {
        self.outstanding += audiences;
        if audiences > 1 {
            self.pairs.push(index);
        }
    }

    pub(super) fn handle_rejected(&mut self, row: RejectedRow) {
        self.rejected.count += 1;
        if self.rejected.rows.len() < REJECTED_ROWS_MAX {
            self.rejected.rows.push(row);
        }
    }

    // What is left of the body cannot be read, by our fault.
    pub(super) fn handle_broken(&mut self) {
        self.is_broken = true;
    }

    pub(super) fn handle_parsed(&mut self) {
        self.is_parsed = true;
    }

    pub(super) fn handle_receipt(&mut self, receipt: &Receipt) {
        debug_assert!(receipt.settled <= self.outstanding);
        self.outstanding -= receipt.settled;
        self.duplicates.extend(&receipt.duplicates);
    }

    pub(super) fn is_settled(&self) -> bool {
        self.is_parsed && self.outstanding == 0
    }

    // The account. With two audiences an event is a duplicate only where both streams knew it.
    pub(super) fn into_outcome(mut self) -> Outcome {
        self.duplicates.sort_unstable();
        let duplicates = self
            .duplicates
            .chunk_by(|a, b| a == b)
            .filter(|marks| marks.len() > 1 || self.pairs.binary_search(&marks[0]).is_err())
            .count() as u64;
        let accepted = self.events - duplicates - self.rejected.count;
        Outcome {
            accepted,
            duplicates,
            rejected: self.rejected,
            is_broken: self.is_broken,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::keyed::Keyed;

    fn receipt(ticket: Key, settled: u32, duplicates: &[u32]) -> Receipt {
        Receipt {
            ticket,
            settled,
            bytes: 0,
            duplicates: duplicates.to_vec(),
        }
    }

    #[test]
    fn an_event_of_two_audiences_is_a_duplicate_only_where_both_streams_knew_it() {
        let key = Keyed::default().insert(());
        let mut request = Request::new(key, 1);
        for index in 0..3 {
            request.handle_event();
            request.handle_submitted(index, 2);
        }
        request.handle_parsed();
        request.handle_receipt(&receipt(key, 3, &[0, 1]));
        assert!(!request.is_settled());
        request.handle_receipt(&receipt(key, 3, &[1]));
        assert!(request.is_settled());
        assert_eq!(
            request.into_outcome(),
            Outcome {
                accepted: 2,
                duplicates: 1,
                rejected: Rejected::default(),
                is_broken: false,
            }
        );
    }

    #[test]
    fn the_account_balances() {
        let key = Keyed::default().insert(());
        let mut request = Request::new(key, 1);
        for index in 0..4 {
            request.handle_event();
            if index == 2 {
                let row = RejectedRow {
                    index,
                    code: RejectionCode::NoAudience,
                    message: String::new(),
                };
                request.handle_rejected(row);
            } else {
                request.handle_submitted(index, 1);
            }
        }
        request.handle_parsed();
        request.handle_receipt(&receipt(key, 3, &[3]));
        let outcome = request.into_outcome();
        assert_eq!(
            (outcome.accepted, outcome.duplicates, outcome.rejected.count),
            (2, 1, 1)
        );
    }
}
