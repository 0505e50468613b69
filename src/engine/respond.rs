//! Answers of a core: what was decided goes into a connection's buffer, and the connection is kept or
//! ended behind it.

use tracing::debug;

use crate::auth::{self};
use crate::counters::StatusClass;
use crate::hub::Now;
use crate::hub::keyed::Key;
use crate::limits::{CLOSE_TIMEOUT_MS, KEEP_ALIVE_TIMEOUT_MS};
use crate::wire::close::Refusal;
use crate::wire::http::{Response, write_response};
use crate::wire::origin::{cors_headers, preflight_headers};
use crate::wire::{Method, Refused, RequestHead, Upgrade};

use super::answer::{Framing, answer_json, refuse, refuse_by_close};
use super::connection::{Door, HttpState, Pending};
use super::event_loop::Core;
use super::pages::{Page, PageRequest, Rendering};
use super::requests::Caller;

impl Core {
    pub(super) fn answer_page(
        &mut self,
        now: Now,
        key: Key,
        head: &RequestHead,
        caller: &Caller,
        door: Door,
    ) {
        let framing = Framing::of(head, caller.origin.as_deref());
        if !matches!(head.method(), Method::Get | Method::Head) {
            let refused = Refused::new(Refusal::MethodNotAllowed, "this page is read by GET");
            return self.refuse(
                now,
                key,
                &refused,
                Framing {
                    keep_alive: false,
                    ..framing
                },
            );
        }
        if door == Door::Public && self.options.pages.needs_admin(head.path()) == Some(true) {
            let refused = match self.verify_request(now, key, head) {
                Ok((claims, _)) if auth::is_admin(&claims) => None,
                Ok(_) => Some(Refused::new(
                    Refusal::Forbidden,
                    "the token lacks permission admin",
                )),
                Err(refused) => Some(refused),
            };
            if let Some(refused) = refused {
                return self.refuse(now, key, &refused, framing);
            }
        }
        let request = PageRequest {
            path: head.path(),
            query: head.query(),
            is_draining: self.admission.is_draining(),
            core: self.index,
            connection: key,
        };
        match self.options.pages.page(request) {
            Err(refused) => self.refuse(now, key, &refused, framing),
            Ok(Rendering::Later) => {
                let pending = Pending::Page {
                    is_keep_alive: framing.keep_alive,
                    is_head_only: framing.head_only,
                    origin: caller.origin.clone(),
                };
                self.wait_for(now, key, pending);
            }
            Ok(Rendering::Now(page)) => self.answer_with_page(now, key, &page, framing),
        }
    }

    /// A page that was asked for has come.
    pub(super) fn finish_page(&mut self, now: Now, key: Key, page: &Page) {
        let Some(Pending::Page {
            is_keep_alive,
            is_head_only,
            origin,
        }) = self.take_pending(key)
        else {
            return;
        };
        let framing = Framing {
            keep_alive: is_keep_alive,
            head_only: is_head_only,
            origin: origin.as_deref(),
        };
        self.answer_with_page(now, key, page, framing);
    }

    fn answer_with_page(&mut self, now: Now, key: Key, page: &Page, framing: Framing<'_>) {
        let cors = framing.origin.map(cors_headers);
        let response = Response {
            status: page.status,
            content_type: page.content_type,
            headers: cors.as_ref().map_or(&[][..], |headers| headers),
            body: &page.body,
            keep_alive: framing.keep_alive,
            head_only: framing.head_only,
        };
        let Some(http) = self.http(key) else { return };
        write_response(&mut http.out, &response);
        self.finish_answer(now, key, page.status, framing.keep_alive);
    }

    pub(super) fn answer_preflight(
        &mut self,
        now: Now,
        key: Key,
        head: &RequestHead,
        caller: &Caller,
    ) {
        let headers = preflight_headers(caller.origin.as_deref().unwrap_or("null"));
        let headers = if caller.origin.is_some() {
            &headers[..]
        } else {
            &headers[1..]
        };
        let keep_alive = head.is_keep_alive();
        let response = Response {
            status: 204,
            headers,
            keep_alive,
            ..Response::default()
        };
        let Some(http) = self.http(key) else { return };
        write_response(&mut http.out, &response);
        self.finish_answer(now, key, 204, keep_alive);
    }

    pub(super) fn answer(
        &mut self,
        now: Now,
        key: Key,
        status: u16,
        body: &str,
        retry_after_s: Option<u64>,
        framing: Framing<'_>,
    ) {
        let Some(http) = self.http(key) else { return };
        answer_json(&mut http.out, status, body, retry_after_s, framing);
        self.finish_answer(now, key, status, framing.keep_alive);
    }

    pub(super) fn refuse(&mut self, now: Now, key: Key, refused: &Refused, framing: Framing<'_>) {
        self.stats
            .counters
            .refusals
            .at(refused.refusal.index())
            .add(1);
        debug!(code = refused.refusal.code(), "refused a request");
        self.release_body(key);
        let Some(http) = self.http(key) else { return };
        refuse(&mut http.out, refused, framing);
        self.finish_answer(now, key, refused.refusal.status(), framing.keep_alive);
    }

    pub(super) fn release_body(&mut self, key: Key) {
        let charged = self.http(key).and_then(|http| match &mut http.state {
            HttpState::Body(body) => Some(std::mem::take(&mut body.charged_bytes)),
            _ => None,
        });
        self.body_bytes -= charged.unwrap_or(0);
    }

    pub(super) fn finish_answer(&mut self, now: Now, key: Key, status: u16, keep_alive: bool) {
        self.stats
            .counters
            .http_responses
            .at(StatusClass::of(status) as usize)
            .add(1);
        if !keep_alive {
            return self.begin_closing(now, key);
        }
        if let Some(http) = self.http(key) {
            http.state = HttpState::Head;
        }
        self.set_deadline(key, now.ms() + KEEP_ALIVE_TIMEOUT_MS);
        self.mark_answered(key);
        self.mark_ready(key);
    }

    pub(super) fn begin_closing(&mut self, now: Now, key: Key) {
        if let Some(http) = self.http(key) {
            http.state = HttpState::Closing;
        }
        self.set_deadline(key, now.ms() + CLOSE_TIMEOUT_MS);
        self.mark_answered(key);
    }

    pub(super) fn mark_answered(&mut self, key: Key) {
        self.answered.push_back(key);
    }

    /// Refuses an upgrade, for a browser that asked for it as a message and a close; the connection
    /// ends in either case.
    pub(super) fn refuse_upgrade(
        &mut self,
        now: Now,
        key: Key,
        upgrade: Option<&Upgrade>,
        refused: &Refused,
    ) {
        let by_close = upgrade.and_then(|upgrade| refuse_by_close(upgrade, refused, now.wall_ms));
        match by_close {
            None => self.refuse(now, key, refused, Framing::default()),
            Some(bytes) => {
                self.stats
                    .counters
                    .refusals
                    .at(refused.refusal.index())
                    .add(1);
                if let Some(http) = self.http(key) {
                    http.out.extend_from_slice(&bytes);
                }
                self.begin_closing(now, key);
            }
        }
    }
}
