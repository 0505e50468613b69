//! From a publisher's bytes to submissions on their way to owner cores.
//!
//! A body is parsed one event at a time within a budget. An event that finds no room waits, and
//! its connection is not read meanwhile; only when nothing of the publisher could be admitted for
//! `ADMISSION_PATIENCE_MS` is it refused, and then all that follows.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use bytes::Bytes;

use crate::auth::{self, Claims};
use crate::counters::Stage;
use crate::dialect::{Nack, encode_ack, encode_nack, is_continue};
use crate::event::{
    Body, BodyKind, Event, Parsed, Parser, Rejection, RejectionCode, Step, StreamKind,
};
use crate::limits::{ADMISSION_PATIENCE_MS, READ_BYTES_PER_TURN};

use crate::wire::close::CloseReason;

use super::bucket::Bucket;
use super::duplicates::fingerprint;
use super::keyed::Key;
use super::mail::{Receipt, Submission};
use super::peers::Peer;
use super::publisher::{Job, Publisher, RejectedRow, Request, Terms};
use super::{Action, Hub, LogStatus, Now};

/// How far a publisher's bodies were parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// All of them; feed more.
    Idle,
    /// The turn's budget is used up; call again in another turn.
    More,
    /// An event waits for room, or the publisher's own outbox is full; call again when a turn has
    /// made room.
    Stalled,
}

/// Milliseconds after which a refusal for overload is worth another try.
const OVERLOAD_RETRY_MS: u64 = 1_000;

impl Hub {
    /// A POST with the whole of its body. The answer comes as `Action::HttpPublished`, when the ack of
    /// its `terms` is true of all its events. Returns the publisher's name for `work`.
    pub fn handle_post(
        &mut self,
        now: Now,
        connection: Key,
        claims: Rc<Claims>,
        bytes: Bytes,
        kind: BodyKind,
        terms: Terms,
    ) -> Key {
        let publisher = Publisher::new(connection, claims, terms);
        let publisher = self.publishers.insert(publisher);
        self.stats.counters.publish_requests.add(1);
        self.add_job(now, publisher, 0, Body::new(bytes, kind));
        publisher
    }

    /// A text message of a publisher over WebSocket. Returns the publisher's name for `work`.
    pub fn handle_publisher_message(&mut self, now: Now, peer: Key, text: Bytes) -> Option<Key> {
        let key = self.peers.find(peer)?.publisher()?;
        let publisher = self.publishers.find_mut(key)?;
        if is_continue(&text) {
            if publisher.refusing != Some(RejectionCode::Draining) {
                publisher.refusing = None;
            }
            return Some(key);
        }
        publisher.messages += 1;
        let message = publisher.messages;
        self.stats.counters.publish_messages.add(1);
        self.add_job(now, key, message, Body::new(text, BodyKind::Json));
        Some(key)
    }

    /// The connection of a POST is gone: nobody waits for its answer any more. What was not parsed of
    /// it is dropped.
    pub fn handle_post_abandoned(&mut self, publisher: Key) {
        self.drop_publisher(publisher);
    }

    /// The publisher, while it is known.
    pub fn publisher(&self, key: Key) -> Option<&Publisher> {
        self.publishers.find(key)
    }

    /// Parses and routes a publisher's bodies, within one turn's budget.
    pub fn work(&mut self, now: Now, key: Key) -> Work {
        let work = self.parse_and_route(now, key);
        if let Some(publisher) = self.publishers.find_mut(key) {
            let was_stalled = std::mem::replace(&mut publisher.is_stalled, work == Work::Stalled);
            let peer = publisher
                .peer
                .filter(|_| was_stalled && work != Work::Stalled);
            if work != Work::Stalled {
                publisher.waits_since_ms = None;
            } else if !was_stalled {
                self.stalled.push(key);
            }
            if let Some(peer) = peer {
                // It was not read meanwhile: its silence was ours.
                self.peers.handle_heard(now, peer);
            }
        }
        work
    }

    fn parse_and_route(&mut self, now: Now, key: Key) -> Work {
        let mut budget = READ_BYTES_PER_TURN;
        loop {
            if self.is_nack_queue_full(key) {
                return Work::Stalled;
            }
            let Some(publisher) = self.publishers.find_mut(key) else {
                return Work::Idle;
            };
            let Some(job) = publisher.jobs.front_mut() else {
                return Work::Idle;
            };
            let (index, event) = match job.held.take() {
                Some((index, event)) => (index, Ok(event)),
                None => match self.parse_next(now, key, &mut budget) {
                    None => return Work::Idle,
                    Some(step) => match step {
                        Step::Working => return Work::More,
                        Step::Done => {
                            self.finish_job(key);
                            continue;
                        }
                        Step::Event(index, found) => {
                            self.handle_found(now, key);
                            let event = found.map(|parsed| self.take_parsed(parsed));
                            (u32::try_from(index).unwrap_or(u32::MAX), event)
                        }
                    },
                },
            };
            match event {
                Err(rejection) => self.reject(key, index, rejection, None),
                Ok(event) => {
                    if !self.offer(now, key, index, event) {
                        return Work::Stalled;
                    }
                }
            }
        }
    }

    /// The earliest moment at which the patience with a publisher that waits for room ends.
    pub(super) fn patience_ends_ms(&self) -> Option<u64> {
        let waiting = self
            .stalled
            .iter()
            .filter_map(|key| self.publishers.find(*key)?.waits_since_ms);
        waiting
            .min()
            .map(|since_ms| since_ms + ADMISSION_PATIENCE_MS)
    }

    /// Whether a stalled publisher could go on: room may have been made when its turn was over.
    pub(super) fn can_go_on(&self) -> bool {
        self.stalled.iter().any(|key| self.has_room_for_next(*key))
    }

    fn has_room_for_next(&self, key: Key) -> bool {
        let Some(publisher) = self.publishers.find(key) else {
            return false;
        };
        let held = publisher.jobs.front().and_then(|job| job.held.as_ref());
        let is_wanted = |(_, event): &(u32, Event)| {
            publisher.refusing.is_some()
                || self.ledger.status() == LogStatus::Full
                || self.has_room_for(event, cost(event))
        };
        publisher.is_stalled && !self.is_nack_queue_full(key) && held.is_none_or(is_wanted)
    }

    pub(super) fn forget_unstalled(&mut self) {
        let publishers = &self.publishers;
        self.stalled.retain(|key| {
            publishers
                .find(*key)
                .is_some_and(|publisher| publisher.is_stalled)
        });
    }

    // Lets one event through, or refuses it. Returns `false` where it has to wait.
    fn offer(&mut self, now: Now, key: Key, index: u32, event: Event) -> bool {
        let Some(publisher) = self.publishers.find(key) else {
            return true;
        };
        if let Some(code) = publisher.refusing {
            self.reject(key, index, refusal_of_rest(code), retry_after_ms(code));
            return true;
        }
        if !auth::may_publish_event(&publisher.claims, &event) {
            self.reject(key, index, forbidden_audience(&event), None);
            return true;
        }
        if self.ledger.status() == LogStatus::Full {
            self.refuse_from(key, index, RejectionCode::StorageFull);
            return true;
        }
        let bytes = cost(&event);
        if !self.has_room_for(&event, bytes) {
            return self.stall(now, key, index, event);
        }
        if let Err(retry_after_ms) = self.take_bytes(now, key, bytes) {
            let rejection = Rejection::new(
                RejectionCode::RateLimited,
                "this publisher sends more bytes a second than limits.publish_bytes_per_second allows: send it again later",
            );
            self.reject(key, index, rejection, Some(retry_after_ms));
            return true;
        }
        self.submit(now, key, index, event, bytes);
        true
    }

    fn stall(&mut self, now: Now, key: Key, index: u32, event: Event) -> bool {
        let Some(publisher) = self.publishers.find_mut(key) else {
            return true;
        };
        let since_ms = *publisher.waits_since_ms.get_or_insert(now.ms());
        if now.ms() < since_ms + ADMISSION_PATIENCE_MS {
            if let Some(job) = publisher.jobs.front_mut() {
                job.held = Some((index, event));
            }
            return false;
        }
        self.refuse_from(key, index, RejectionCode::Overloaded);
        true
    }

    // Refuses an event and all that follow it: order is never broken by a retry.
    fn refuse_from(&mut self, key: Key, index: u32, code: RejectionCode) {
        if let Some(publisher) = self.publishers.find_mut(key) {
            publisher.waits_since_ms = None;
            publisher.refusing = Some(code);
        }
        self.reject(key, index, refusal_of_rest(code), retry_after_ms(code));
    }

    fn submit(&mut self, now: Now, key: Key, index: u32, event: Event, bytes: u64) {
        let Some(publisher) = self.publishers.find_mut(key) else {
            return;
        };
        publisher.waits_since_ms = None;
        let Some(job) = publisher.jobs.front() else {
            return;
        };
        let (ticket, received_ns, ack) = (job.request, job.received_ns, publisher.terms.ack);
        let claims = Rc::clone(&publisher.claims);
        let audiences = u32::from(event.user.is_some()) + u32::from(event.project.is_some());
        if let Some(request) = self.requests.find_mut(ticket) {
            request.handle_submitted(index, audiences);
        }
        let codec = self.ledger.codec().clone();
        let submission = |kind, event: Event| Submission {
            ticket,
            index,
            kind,
            fingerprint: event.event_id.as_ref().map(|event_id| {
                let stream = event.audience(kind).unwrap_or_default();
                fingerprint(&codec, &claims.sub, kind, stream, event_id)
            }),
            ack,
            bytes: bytes as u32,
            received_ns,
            event,
        };
        match (event.user.is_some(), event.project.is_some()) {
            (true, true) => {
                self.route(now, submission(StreamKind::Project, event.clone()));
                self.route(now, submission(StreamKind::User, event));
            }
            (false, _) => self.route(now, submission(StreamKind::Project, event)),
            (true, false) => self.route(now, submission(StreamKind::User, event)),
        }
    }

    // A receipt for a request of this core, from whichever owner core.
    pub(super) fn handle_receipt(&mut self, receipt: &Receipt) {
        let Some(request) = self.requests.find_mut(receipt.ticket) else {
            return;
        };
        request.handle_receipt(receipt);
        self.settle(receipt.ticket);
    }

    fn settle(&mut self, ticket: Key) {
        let Some(request) = self
            .requests
            .find(ticket)
            .filter(|request| request.is_settled())
        else {
            return;
        };
        let key = request.publisher;
        let is_post = self
            .publishers
            .find(key)
            .is_none_or(|publisher| publisher.peer.is_none());
        let Some(request) = self.requests.remove(ticket) else {
            return;
        };
        let outcome = request.into_outcome();
        self.stats.counters.events_accepted.add(outcome.accepted);
        self.stats.counters.events_duplicate.add(outcome.duplicates);
        if is_post {
            if let Some(publisher) = self.publishers.remove(key) {
                self.actions.push_back(Action::HttpPublished {
                    connection: publisher.connection,
                    outcome,
                });
            }
        } else {
            self.advance_through(key);
        }
    }

    // Moves `through` over the messages that are settled; the ack goes out at the end of the turn.
    fn advance_through(&mut self, key: Key) {
        let Some(publisher) = self.publishers.find_mut(key) else {
            return;
        };
        while publisher
            .unsettled
            .front()
            .is_some_and(|ticket| self.requests.find(*ticket).is_none())
        {
            publisher.unsettled.pop_front();
            publisher.through += 1;
        }
        if publisher.through > publisher.through_sent && !publisher.is_ack_due {
            publisher.is_ack_due = true;
            self.acks_due.push(key);
        }
    }

    pub(super) fn send_acks(&mut self) {
        for key in std::mem::take(&mut self.acks_due) {
            let Some(publisher) = self.publishers.find_mut(key) else {
                continue;
            };
            publisher.is_ack_due = false;
            publisher.through_sent = publisher.through;
            let Some(peer) = publisher.peer else { continue };
            let mut text = Vec::new();
            encode_ack(publisher.through, &mut text);
            self.peers.push_text(peer, &text);
        }
    }

    // Forgets a publisher; its events that are on their way are numbered all the same.
    pub(super) fn drop_publisher(&mut self, key: Key) {
        let Some(publisher) = self.publishers.remove(key) else {
            return;
        };
        // Bodies that were not parsed to their end bring nothing more.
        for job in publisher.jobs {
            if let Some(request) = self.requests.find_mut(job.request) {
                if job.held.is_some() {
                    let (code, message) = (RejectionCode::Overloaded, String::new());
                    self.stats.counters.events_refused.at(code.index()).add(1);
                    request.handle_rejected(RejectedRow {
                        index: 0,
                        code,
                        message,
                    });
                }
                request.handle_parsed();
            }
            self.settle(job.request);
        }
    }

    fn add_job(&mut self, now: Now, key: Key, message: u64, body: Body) {
        let request = self.requests.insert(Request::new(key, message));
        let Some(publisher) = self.publishers.find_mut(key) else {
            return;
        };
        if self.drain.is_draining() {
            publisher.refusing = Some(RejectionCode::Draining);
        }
        publisher.unsettled.push_back(request);
        publisher.jobs.push_back(Job {
            request,
            body: body.with_strictness(publisher.terms.strictness),
            received_ns: now.monotonic_ns,
            held: None,
        });
    }

    fn finish_job(&mut self, key: Key) {
        let Some(job) = self
            .publishers
            .find_mut(key)
            .and_then(|publisher| publisher.jobs.pop_front())
        else {
            return;
        };
        if let Some(request) = self.requests.find_mut(job.request) {
            request.handle_parsed();
        }
        self.settle(job.request);
    }

    // Cuts and reads the next event of a publisher's first body. A panic in there ends the connection
    // that brought the bytes, and nobody else notices: the parser is made anew. `None`: so it was.
    fn parse_next(&mut self, now: Now, key: Key, budget: &mut usize) -> Option<Step> {
        let job = self.publishers.find_mut(key)?.jobs.front_mut()?;
        let (body, parser) = (&mut job.body, &mut self.parser);
        let request = job.request;
        let step = catch_unwind(AssertUnwindSafe(|| body.next(parser, now.wall_ms, budget)));
        if let Ok(step) = step {
            return Some(step);
        }
        self.stats.counters.panics.add(1);
        self.parser = Parser::new();
        if let Some(request) = self.requests.find_mut(request) {
            request.handle_broken();
        }
        match self.publishers.find(key)?.peer {
            Some(peer) => self.close_peer(now, peer, CloseReason::Internal),
            None => self.finish_job(key),
        }
        None
    }

    fn handle_found(&mut self, now: Now, key: Key) {
        self.stats.counters.events_received.add(1);
        let job = self
            .publishers
            .find(key)
            .and_then(|publisher| publisher.jobs.front());
        let Some(job) = job else { return };
        let waited_ns = now.monotonic_ns.saturating_sub(job.received_ns);
        self.stages.record(Stage::Parsed, waited_ns, 1);
        if let Some(request) = self.requests.find_mut(job.request) {
            request.handle_event();
        }
    }

    // A slip in the shape of its `data` is told by a number: it must not hide the event.
    fn take_parsed(&self, Parsed { event, shape_error }: Parsed) -> Event {
        if let Some(error) = shape_error {
            let counters = &self.stats.counters;
            counters
                .event_shape_errors
                .at(error.event_type.index())
                .add(1);
        }
        event
    }

    fn reject(&mut self, key: Key, index: u32, rejection: Rejection, retry_after_ms: Option<u64>) {
        let Rejection { code, message } = rejection;
        self.stats.counters.events_refused.at(code.index()).add(1);
        let Some(publisher) = self.publishers.find(key) else {
            return;
        };
        let Some(job) = publisher.jobs.front() else {
            return;
        };
        let Some(request) = self.requests.find_mut(job.request) else {
            return;
        };
        if let Some(peer) = publisher.peer {
            let nack = Nack {
                message: request.message,
                index: index as usize,
                code: code.as_str(),
                reason: &message,
                retry_after_ms,
            };
            let mut text = Vec::new();
            encode_nack(&nack, &mut text);
            self.peers.push_text(peer, &text);
        }
        request.handle_rejected(RejectedRow {
            index,
            code,
            message,
        });
    }

    fn take_bytes(&mut self, now: Now, key: Key, bytes: u64) -> Result<(), u64> {
        let per_second_max = self.options.limits.publish_bytes_per_second;
        let Some(publisher) = self.publishers.find(key) else {
            return Ok(());
        };
        let sub = &publisher.claims.sub;
        if let Some(rate) = self.byte_rates.get_mut(sub) {
            return rate.take(now.ms(), bytes, per_second_max);
        }
        if self.byte_rates.len() >= BYTE_RATES_SWEPT_AT {
            self.byte_rates
                .retain(|_, rate| !rate.is_full(now.ms(), per_second_max));
        }
        let mut rate = Bucket::default();
        let taken = rate.take(now.ms(), bytes, per_second_max);
        self.byte_rates.insert(sub.clone(), rate);
        taken
    }

    // A publisher that does not read its nacks is not read either.
    fn is_nack_queue_full(&self, key: Key) -> bool {
        let peer = self
            .publishers
            .find(key)
            .and_then(|publisher| publisher.peer);
        peer.and_then(|peer| self.peers.find(peer))
            .map(Peer::outbox)
            .is_some_and(|outbox| outbox.bytes() > self.bounds.nack_bytes_queued_max)
    }
}

// What an event takes of the windows, in bytes.
fn cost(event: &Event) -> u64 {
    event.data.len() as u64 + EVENT_BYTES_BESIDE_DATA
}

/// What an event costs of the windows beside its `data`: its strings and its place in queues.
const EVENT_BYTES_BESIDE_DATA: u64 = 256;

/// Publishers' buckets past which the full ones, which say nothing, are forgotten.
const BYTE_RATES_SWEPT_AT: usize = 4_096;

fn refusal_of_rest(code: RejectionCode) -> Rejection {
    let message = match code {
        RejectionCode::Draining => {
            "the server is shutting down: send it to another, or again later"
        }
        RejectionCode::StorageFull => {
            "there is no room to keep it: say continue and send it again later"
        }
        _ => {
            "the server could admit nothing of this publisher for a second: say continue and send it again later"
        }
    };
    Rejection::new(code, message)
}

fn retry_after_ms(code: RejectionCode) -> Option<u64> {
    matches!(
        code,
        RejectionCode::Overloaded | RejectionCode::StorageFull | RejectionCode::Draining
    )
    .then_some(OVERLOAD_RETRY_MS)
}

fn forbidden_audience(event: &Event) -> Rejection {
    let what = match (&event.user, &event.project) {
        (Some(_), Some(_)) => "user_id and project_id are not both within the token's scope",
        (Some(_), None) => "user_id is not the token's own sub",
        _ => "project_id is not one of the token's projectIds",
    };
    Rejection::new(
        RejectionCode::ForbiddenAudience,
        format!("{what}: publish with a token that allows it, or with permission publish:any"),
    )
}

#[cfg(test)]
mod tests;
