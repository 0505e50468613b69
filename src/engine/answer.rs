//! HTTP answers as this server gives them: publish outcomes, refusals, refusals as a close.

use serde_json::json;

use crate::dialect::{ServerMessage, encode_message};
use crate::event::RejectionCode;
use crate::hub::publisher::{Outcome, RejectedRow};
use crate::wire::close::Refusal;
use crate::wire::frame::{encode_close, encode_text};
use crate::wire::handshake::write_switching_protocols;
use crate::wire::http::{RefusalResponse, Response, write_refusal, write_response};
use crate::wire::origin::cors_headers;
use crate::wire::{Method, Refused, RequestHead, Role, Upgrade};

/// How an answer goes out.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Framing<'a> {
    /// Whether the connection takes another request.
    pub keep_alive: bool,
    /// Whether to leave out the body: the answer to HEAD.
    pub head_only: bool,
    /// The page's origin, which the policy allows.
    pub origin: Option<&'a str>,
}

impl<'a> Framing<'a> {
    /// How the last answer of a connection goes out.
    pub fn last(origin: Option<&'a str>) -> Self {
        Self {
            origin,
            ..Self::default()
        }
    }

    /// How the answer to a request goes out.
    pub fn of(head: &RequestHead, origin: Option<&'a str>) -> Self {
        Self {
            keep_alive: head.is_keep_alive(),
            head_only: head.method() == Method::Head,
            origin,
        }
    }
}

/// The answer where we failed in the middle of a POST: a refusal, though what stands before the fault
/// was taken. Whoever sends all of it again has the events' ids to tell them by.
pub(super) fn broken(outcome: &Outcome) -> Refused {
    let accepted = outcome.accepted;
    let message = format!(
        "the server failed while reading this body, after accepting {accepted} events of it"
    );
    Refused::new(Refusal::Internal, message)
}

/// The answer to a POST whose events wait for a disk that takes nothing: a refusal, though they may
/// be kept yet. Whoever sends all of it again has the events' ids to tell them by.
pub(super) fn events_unkept(refusal: Refusal) -> Refused {
    let message = "the disk takes nothing now, and what was taken of this may be kept later: send all of it again with the same event_ids";
    Refused {
        retry_after_s: Some(1),
        ..Refused::new(refusal, message)
    }
}

/// The answer to an administrator whose order waits for such a disk.
pub(super) fn order_unkept(refusal: Refusal) -> Refused {
    let message = "the disk takes nothing now: the order holds while this process runs, but is kept only when there is room; give it again later";
    Refused {
        retry_after_s: Some(1),
        ..Refused::new(refusal, message)
    }
}

/// Appends a refusal.
pub(super) fn refuse(out: &mut Vec<u8>, refused: &Refused, framing: Framing<'_>) {
    let cors = framing.origin.map(cors_headers);
    let response = RefusalResponse {
        refused,
        headers: cors.as_ref().map_or(&[][..], |headers| headers),
        keep_alive: framing.keep_alive,
        head_only: framing.head_only,
    };
    write_refusal(out, &response);
}

/// Appends JSON.
pub(super) fn answer_json(
    out: &mut Vec<u8>,
    status: u16,
    body: &str,
    retry_after_s: Option<u64>,
    framing: Framing<'_>,
) {
    let retry_after = retry_after_s.map(|seconds| seconds.to_string());
    let mut headers: Vec<(&str, &str)> = Vec::new();
    let cors = framing.origin.map(cors_headers);
    headers.extend(cors.iter().flatten());
    headers.extend(
        retry_after
            .as_deref()
            .map(|seconds| ("Retry-After", seconds)),
    );
    let response = Response {
        status,
        headers: &headers,
        body: body.as_bytes(),
        keep_alive: framing.keep_alive,
        head_only: framing.head_only,
        ..Response::default()
    };
    write_response(out, &response);
}

/// A refused upgrade for a browser, which cannot read the answer: 101, one `error` message, close.
/// `None` where this refusal is plain HTTP all the same.
pub(super) fn refuse_by_close(
    upgrade: &Upgrade,
    refused: &Refused,
    now_ms: i64,
) -> Option<Vec<u8>> {
    let reason = refused
        .refusal
        .close()
        .filter(|_| upgrade.refusals_as_close)?;
    let dialect = match upgrade.role {
        Role::Echo | Role::Publisher => crate::event::Dialect::Observatory,
        Role::Viewer(dialect) => dialect,
    };
    let error = ServerMessage::Error {
        id: None,
        code: refused.refusal.code(),
        message: refused.message.clone(),
        retry_after_ms: refused.retry_after_s.map(|seconds| seconds * 1_000),
    };
    let mut text = Vec::new();
    encode_message(dialect, &error, now_ms, &mut text);
    let mut out = Vec::new();
    write_switching_protocols(&mut out, upgrade);
    encode_text(&mut out, &text);
    encode_close(&mut out, reason, refused.refusal.code());
    Some(out)
}

/// The status, body and `Retry-After` of a POST.
pub(super) fn publish_answer(outcome: &Outcome) -> (u16, String, Option<u64>) {
    let rows: Vec<_> = outcome
        .rejected
        .rows
        .iter()
        .map(
            |RejectedRow {
                 index,
                 code,
                 message,
             }| json!({"index": index, "code": code.as_str(), "message": message}),
        )
        .collect();
    let listed = rows.len() as u64;
    let mut body =
        json!({"accepted": outcome.accepted, "duplicates": outcome.duplicates, "rejected": rows});
    if outcome.rejected.count > listed {
        body["rejectedOmitted"] = json!(outcome.rejected.count - listed);
    }
    let status = publish_status(outcome);
    let retry_after_s = matches!(status, 429 | 503 | 507).then_some(1);
    (status, body.to_string(), retry_after_s)
}

fn publish_status(outcome: &Outcome) -> u16 {
    if outcome.accepted + outcome.duplicates > 0 {
        return 200;
    }
    let all = |codes: &[RejectionCode]| {
        !outcome.rejected.rows.is_empty()
            && outcome
                .rejected
                .rows
                .iter()
                .all(|row| codes.contains(&row.code))
    };
    if all(&[RejectionCode::Draining]) {
        503
    } else if all(&[RejectionCode::StorageFull]) {
        507
    } else if all(&[RejectionCode::Overloaded, RejectionCode::RateLimited]) {
        429
    } else {
        400
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::publisher::Rejected;

    fn check(accepted: u64, codes: &[RejectionCode], expected: u16) {
        let rows: Vec<RejectedRow> = (0..)
            .zip(codes)
            .map(|(index, code)| RejectedRow {
                index,
                code: *code,
                message: String::new(),
            })
            .collect();
        let count = rows.len() as u64;
        let outcome = Outcome {
            accepted,
            duplicates: 0,
            rejected: Rejected { rows, count },
            is_broken: false,
        };
        assert_eq!(
            publish_answer(&outcome).0,
            expected,
            "{accepted} accepted, {codes:?}"
        );
    }

    #[test]
    fn the_status_follows_from_what_became_of_all() {
        use RejectionCode::{Draining, NoAudience, Overloaded, RateLimited, StorageFull};
        check(1, &[NoAudience], 200);
        check(0, &[NoAudience, Overloaded], 400);
        check(0, &[Overloaded, RateLimited], 429);
        check(0, &[Draining, Draining], 503);
        check(0, &[StorageFull], 507);
        check(0, &[], 400);
    }
}
