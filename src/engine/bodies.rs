//! Bodies of requests: collected within bounds, handed to the hub, answered when it is done.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::counters::{Awaited, HandshakeFailure};
use crate::failpoint;
use crate::hub::keyed::Key;
use crate::hub::mail::Answer;
use crate::hub::publisher::Outcome;
use crate::hub::{LogStatus, Now, Work};
use crate::limits::{
    ADMISSION_PATIENCE_MS, BODY_BYTES_PER_SECOND_MIN, CLOSE_TIMEOUT_MS, HEAD_TIMEOUT_MS,
    LOG_PATIENCE_MS,
};
use crate::wire::close::Refusal;
use crate::wire::http::ContentCoding;
use crate::wire::http::write_continue;
use crate::wire::{BodyDecoder, Refused, RequestHead};

use super::admin::{self, Route};
use super::answer::{Framing, broken, events_unkept, order_unkept, publish_answer};
use super::connection::{BodyState, HttpState, Pending, Protocol, Purpose, Speaker, WebSocket};
use super::event_loop::Core;

impl Core {
    pub(super) fn begin_body(
        &mut self,
        now: Now,
        key: Key,
        head: RequestHead,
        purpose: Purpose,
        bytes_max: usize,
    ) {
        let origin = head.header("origin");
        // What is refused in any case is not inflated, and nobody is asked to send it.
        let (coding, is_refused) = match &purpose {
            Purpose::Discard(_) => (ContentCoding::Identity, true),
            _ => (head.content_coding(), false),
        };
        let decoder = BodyDecoder::new(head.framing(), coding, bytes_max);
        let refused = match (&decoder, &purpose) {
            (_, Purpose::Discard(refused)) if head.expects_continue() => {
                Some(refused.as_ref().clone())
            }
            (Err(error), _) => Some(Refused::new(error.refusal(), error.to_string())),
            _ => None,
        };
        if let Some(refused) = refused {
            return self.refuse(now, key, &refused, Framing::last(origin));
        }
        let Ok(decoder) = decoder else { return };
        let expects_continue = head.expects_continue() && !is_refused;
        let body = BodyState {
            head,
            decoder,
            purpose,
            began_ms: now.ms(),
            received_bytes: 0,
            charged_bytes: 0,
            held_since_ms: None,
        };
        let Some(http) = self.http(key) else { return };
        http.state = HttpState::Body(Box::new(body));
        if expects_continue {
            write_continue(&mut http.out);
            self.mark_answered(key);
        }
        self.set_deadline(key, now.ms() + HEAD_TIMEOUT_MS);
        // A body may be empty.
        self.handle_body_bytes(now, key, &[]);
    }

    pub(super) fn handle_body_bytes(&mut self, now: Now, key: Key, bytes: &[u8]) -> usize {
        let Some(body) = self.body(key) else { return 0 };
        let decoded = catch_unwind(AssertUnwindSafe(|| {
            failpoint::panic_at("body", bytes);
            body.decoder.decode(bytes)
        }));
        let Ok(decoded) = decoded else {
            let refused = self.handle_request_panic();
            self.refuse_body(now, key, &refused);
            return bytes.len();
        };
        match decoded {
            Ok((taken, is_whole)) => {
                body.received_bytes += taken as u64;
                if matches!(body.purpose, Purpose::Discard(_)) {
                    drop(body.decoder.take());
                }
                self.charge_body(now, key, is_whole);
                if is_whole {
                    self.finish_body(now, key);
                }
                taken
            }
            Err(error) => {
                let refused = Refused::new(error.refusal(), error.to_string());
                self.refuse_body(now, key, &refused);
                bytes.len()
            }
        }
    }

    // Counts what a body holds against the core's share. Past it the body is not read until others
    // have gone; one that is alone is never held.
    fn charge_body(&mut self, now: Now, key: Key, is_whole: bool) {
        let Some(body) = self.body(key) else { return };
        let bytes = body.decoder.buffered_bytes() as u64;
        let before = std::mem::replace(&mut body.charged_bytes, bytes);
        self.body_bytes = self.body_bytes - before + bytes;
        if is_whole || self.body_bytes <= self.options.body_bytes_max || self.body_bytes == bytes {
            return;
        }
        if let Some(body) = self.body(key) {
            body.held_since_ms = Some(now.ms());
        }
        self.held.push_back(key);
        self.set_deadline(key, now.ms() + ADMISSION_PATIENCE_MS);
    }

    /// Reads bodies on that were held, while there is room.
    pub(super) fn release_held(&mut self, now: Now) {
        while self.body_bytes <= self.options.body_bytes_max {
            let Some(key) = self.held.pop_front() else {
                return;
            };
            let Some(body) = self.body(key) else { continue };
            // The time that it was held is not the peer's.
            let held_ms = body
                .held_since_ms
                .take()
                .map_or(0, |since_ms| now.ms() - since_ms);
            body.began_ms += held_ms;
            let deadline_ms = body.began_ms + HEAD_TIMEOUT_MS;
            self.set_deadline(key, deadline_ms.max(now.ms() + 1));
            self.mark_ready(key);
        }
    }

    fn body(&mut self, key: Key) -> Option<&mut BodyState> {
        match &mut self.http(key)?.state {
            HttpState::Body(body) => Some(body),
            _ => None,
        }
    }

    // Refuses in the middle of a body: the rest is not read, and the connection ends.
    fn refuse_body(&mut self, now: Now, key: Key, refused: &Refused) {
        let origin: Option<Box<str>> = self
            .body(key)
            .and_then(|body| body.head.header("origin").map(Into::into));
        self.refuse(now, key, refused, Framing::last(origin.as_deref()));
    }

    fn finish_body(&mut self, now: Now, key: Key) {
        let Some(http) = self.http(key) else { return };
        let state = std::mem::replace(&mut http.state, HttpState::Head);
        let HttpState::Body(body) = state else { return };
        let BodyState {
            head,
            mut decoder,
            purpose,
            charged_bytes,
            ..
        } = *body;
        let origin: Option<Box<str>> = head.header("origin").map(Into::into);
        match purpose {
            Purpose::Admin(route) => {
                self.body_bytes -= charged_bytes;
                let asked = self.guarded(|| {
                    let text = decoder.take();
                    failpoint::panic_at("admin", &text);
                    route.ask(&text, now.wall_s())
                });
                match asked.and_then(|asked| asked) {
                    Ok(ask) => {
                        let is_keep_alive = head.is_keep_alive();
                        self.wait_for(
                            now,
                            key,
                            Pending::Admin {
                                route,
                                is_keep_alive,
                                origin,
                            },
                        );
                        self.hub.handle_administrator(now, key, &ask);
                    }
                    Err(refused) => {
                        self.refuse(now, key, &refused, Framing::of(&head, origin.as_deref()))
                    }
                }
            }
            Purpose::Discard(refused) => {
                self.body_bytes -= charged_bytes;
                self.refuse(now, key, &refused, Framing::of(&head, origin.as_deref()));
            }
            Purpose::Publish {
                claims,
                kind,
                terms,
            } => {
                let body = decoder.take();
                let publisher = self.hub.handle_post(now, key, claims, body, kind, terms);
                let is_keep_alive = head.is_keep_alive();
                self.wait_for(
                    now,
                    key,
                    Pending::Publish {
                        publisher,
                        is_keep_alive,
                        origin,
                        charged_bytes,
                    },
                );
                self.work_on_publisher(now, key);
            }
        }
    }

    /// Parses what a publisher has sent. Returns whether its connection may be read.
    pub(super) fn work_on_publisher(&mut self, now: Now, key: Key) -> bool {
        let Some(connection) = self.connections.find_mut(key) else {
            return false;
        };
        let (publisher, is_post) = match &connection.protocol {
            Protocol::WebSocket(WebSocket {
                speaker: Speaker::Publisher(publisher),
                ..
            }) => (*publisher, false),
            Protocol::WebSocket(_) => return true,
            Protocol::Http(http) => match &http.state {
                HttpState::Waiting(Pending::Publish { publisher, .. }) => (*publisher, true),
                HttpState::Waiting(_) => return false,
                _ => return true,
            },
        };
        let work = self.hub.work(now, publisher);
        let may_read = work == Work::Idle;
        if let Some(socket) = self.web_socket(key) {
            socket.is_stalled = !may_read;
        }
        let waiting = match work {
            Work::Idle => return !is_post,
            Work::More => &mut self.busy,
            Work::Stalled => &mut self.stalled,
        };
        if let Some(connection) = self.connections.find_mut(key)
            && !std::mem::replace(&mut connection.is_waiting, true)
        {
            waiting.push_back(key);
        }
        false
    }

    /// Goes on with publishers whose bodies did not fit into the last turn.
    pub(super) fn serve_busy(&mut self, now: Now) {
        for _ in 0..self.busy.len() {
            let Some(key) = self.busy.pop_front() else {
                return;
            };
            self.go_on_working(now, key);
        }
    }

    /// Goes on with publishers that waited for room.
    pub(super) fn retry_stalled(&mut self, now: Now) {
        for _ in 0..self.stalled.len() {
            let Some(key) = self.stalled.pop_front() else {
                return;
            };
            self.go_on_working(now, key);
        }
    }

    fn go_on_working(&mut self, now: Now, key: Key) {
        if let Some(connection) = self.connections.find_mut(key) {
            connection.is_waiting = false;
        }
        if self.work_on_publisher(now, key) {
            self.mark_ready(key);
        }
    }

    /// Everything in a POST is settled.
    pub(super) fn finish_post(&mut self, now: Now, key: Key, outcome: &Outcome) {
        let Some(Pending::Publish {
            is_keep_alive,
            origin,
            charged_bytes,
            ..
        }) = self.take_pending(key)
        else {
            return;
        };
        self.body_bytes -= charged_bytes;
        let framing = Framing {
            keep_alive: is_keep_alive,
            head_only: false,
            origin: origin.as_deref(),
        };
        if outcome.is_broken {
            return self.refuse(now, key, &broken(outcome), framing);
        }
        let (status, body, retry_after_s) = publish_answer(outcome);
        self.answer(now, key, status, &body, retry_after_s, framing);
    }

    /// Answers an administrator.
    pub(super) fn finish_admin(&mut self, now: Now, key: Key, answer: &Answer) {
        let Some(Pending::Admin {
            route,
            is_keep_alive,
            origin,
            ..
        }) = self.take_pending(key)
        else {
            return;
        };
        let (status, body) = admin::answer(route, answer);
        let framing = Framing {
            keep_alive: is_keep_alive,
            head_only: false,
            origin: origin.as_deref(),
        };
        self.answer(now, key, status, &body, None, framing);
    }

    /// A connection's entry in the wheel has fired.
    pub(super) fn handle_connection_deadline(&mut self, now: Now, key: Key) {
        let Some(http) = self.http(key) else {
            return self.handle_partial_deadline(now, key);
        };
        // An entry that was overtaken by a nearer one has nothing to say.
        if now.ms() < http.timer_ms {
            return;
        }
        http.timer_ms = u64::MAX;
        let deadline_ms = http.deadline_ms;
        if now.ms() < deadline_ms {
            return self.set_deadline(key, deadline_ms);
        }
        self.handle_overdue(now, key);
    }

    fn handle_overdue(&mut self, now: Now, key: Key) {
        let Some(connection) = self.connections.find(key) else {
            return;
        };
        let Protocol::Http(http) = &connection.protocol else {
            return;
        };
        match &http.state {
            HttpState::Waiting(_) => self.handle_long_wait(now, key),
            HttpState::Closing => self.let_go(now, key),
            HttpState::Head if connection.transport.is_handshaking() => {
                self.fail_handshake(key, HandshakeFailure::Timeout)
            }
            HttpState::Head if !http.out.is_empty() => self.let_go(now, key),
            HttpState::Head if connection.spill.is_empty() => {
                self.count_timeout(Awaited::Request);
                self.remove(key);
            }
            HttpState::Head => {
                self.count_timeout(Awaited::Head);
                let refused = Refused::new(
                    Refusal::RequestTimeout,
                    "the request head did not come in time",
                );
                self.refuse(now, key, &refused, Framing::default());
            }
            HttpState::Body(body) => {
                if body.held_since_ms.is_some() {
                    let message =
                        "the server holds as many bytes of requests as it may: send it again later";
                    let refused = Refused {
                        retry_after_s: Some(1),
                        ..Refused::new(Refusal::Overloaded, message)
                    };
                    return self.refuse_body(now, key, &refused);
                }
                let allowed_ms =
                    HEAD_TIMEOUT_MS + body.received_bytes * 1_000 / BODY_BYTES_PER_SECOND_MIN;
                let deadline_ms = body.began_ms + allowed_ms;
                if now.ms() < deadline_ms {
                    return self.set_deadline(key, deadline_ms);
                }
                self.count_timeout(Awaited::Body);
                let refused =
                    Refused::new(Refusal::RequestTimeout, "the request body comes too slowly");
                self.refuse_body(now, key, &refused);
            }
        }
    }

    // A request has waited for long. If that is for a disk that takes nothing, it is told so, and what
    // was taken of it stays on its way there. A publisher over WebSocket waits on: an ack may come
    // late, and the rest of what it says is answered meanwhile.
    fn handle_long_wait(&mut self, now: Now, key: Key) {
        let status = self.log_status_for(key);
        let refusal = match status {
            LogStatus::Failing => Refusal::Overloaded,
            LogStatus::Full => Refusal::StorageFull,
            LogStatus::Writing => {
                return self.set_deadline(key, now.ms() + ADMISSION_PATIENCE_MS);
            }
        };
        match self.take_pending(key) {
            Some(Pending::Admin { origin, .. }) => {
                // The order's own answer comes when it is kept, and nobody may take it for another's.
                let framing = Framing::last(origin.as_deref());
                self.refuse(now, key, &order_unkept(refusal), framing);
            }
            Some(Pending::Publish {
                publisher,
                is_keep_alive,
                origin,
                charged_bytes,
            }) => {
                self.body_bytes -= charged_bytes;
                self.hub.handle_post_abandoned(publisher);
                let framing = Framing {
                    keep_alive: is_keep_alive,
                    head_only: false,
                    origin: origin.as_deref(),
                };
                self.refuse(now, key, &events_unkept(refusal), framing);
            }
            Some(Pending::Admission(_) | Pending::Page { .. }) | None => {}
        }
    }

    // How the log is, as far as a request waits for it.
    fn log_status_for(&mut self, key: Key) -> LogStatus {
        let status = self.hub.log_status();
        match self.http(key).map(|http| &http.state) {
            Some(HttpState::Waiting(Pending::Admin { route, .. })) => match route {
                Route::Connections | Route::Disconnect => LogStatus::Writing,
                Route::Erase if status == LogStatus::Writing => self.log.chores_status(),
                Route::Erase | Route::Revoke | Route::Unrevoke => status,
            },
            Some(HttpState::Waiting(Pending::Publish { .. })) => status,
            _ => LogStatus::Writing,
        }
    }

    // Ends a connection whose peer does not take its answer, or has taken it and does not go. One that
    // takes it slowly, but no slower than a body may come, is given as much time again.
    fn let_go(&mut self, now: Now, key: Key) {
        let Some(http) = self.http(key) else { return };
        let taken = std::mem::take(&mut http.written);
        if taken as u64 >= CLOSE_TIMEOUT_MS * BODY_BYTES_PER_SECOND_MIN / 1_000 {
            http.out.drain(..taken);
            return self.set_deadline(key, now.ms() + CLOSE_TIMEOUT_MS);
        }
        self.count_timeout(Awaited::End);
        self.remove(key);
    }

    fn count_timeout(&self, awaited: Awaited) {
        let timeouts = &self.stats.counters.http_timeouts;
        timeouts.at(awaited as usize).add(1);
    }

    pub(super) fn wait_for(&mut self, now: Now, key: Key, pending: Pending) {
        if let Some(http) = self.http(key) {
            http.state = HttpState::Waiting(pending);
        }
        self.set_deadline(key, now.ms() + LOG_PATIENCE_MS);
    }

    // What a request waits for, if it does; it is about to be answered.
    pub(super) fn take_pending(&mut self, key: Key) -> Option<Pending> {
        let state = &mut self.http(key)?.state;
        match std::mem::replace(state, HttpState::Head) {
            HttpState::Waiting(pending) => Some(pending),
            other => {
                *state = other;
                None
            }
        }
    }
}
