//! Answers: status line, headers, body, in one append. `Date` is left to who has a clock.

use std::io::Write;

use serde_json::Value;

use crate::wire::Refused;
use crate::wire::close::Refusal;

/// One answer, borrowed from wherever its parts are.
#[derive(Clone, Copy, Debug)]
pub struct Response<'a> {
    /// The status; 200 by default.
    pub status: u16,
    /// The media type of the body; JSON by default.
    pub content_type: &'a str,
    /// Further headers. Line breaks in a value are left out.
    pub headers: &'a [(&'a str, &'a str)],
    /// The body.
    pub body: &'a [u8],
    /// Whether the connection takes another request; by default it does not.
    pub keep_alive: bool,
    /// Whether to leave out the body, not its length: the answer to HEAD.
    pub head_only: bool,
}

impl Default for Response<'_> {
    fn default() -> Self {
        Self {
            status: 200,
            content_type: "application/json",
            headers: &[],
            body: b"",
            keep_alive: false,
            head_only: false,
        }
    }
}

/// One refusal as an answer, borrowed from wherever its parts are.
#[derive(Clone, Copy, Debug)]
pub struct RefusalResponse<'a> {
    /// What is refused; it says 1 in `Retry-After` where its row carries that and none is given.
    pub refused: &'a Refused,
    /// Further headers, such as CORS.
    pub headers: &'a [(&'a str, &'a str)],
    /// Whether the connection takes another request.
    pub keep_alive: bool,
    /// Whether to leave out the body: the answer to HEAD.
    pub head_only: bool,
}

/// Appends `response` to `out`. No content sniffing, no caching: all answers are of the moment.
pub fn write_response(out: &mut Vec<u8>, response: &Response<'_>) {
    let connection = if response.keep_alive {
        "keep-alive"
    } else {
        "close"
    };
    let (status, reason) = (response.status, reason_phrase(response.status));
    push(out, format_args!("HTTP/1.1 {status} {reason}\r\n"));
    // A 204 ends with its head; a length in it is forbidden. Source: RFC 9110 §8.6.
    if status != 204 {
        push_header(out, "Content-Type", response.content_type);
        push(
            out,
            format_args!("Content-Length: {}\r\n", response.body.len()),
        );
    }
    push_header(out, "Cache-Control", "no-store");
    push_header(out, "X-Content-Type-Options", "nosniff");
    push_header(out, "Connection", connection);
    for (name, value) in response.headers {
        push_header(out, name, value);
    }
    out.extend_from_slice(b"\r\n");
    if !response.head_only {
        out.extend_from_slice(response.body);
    }
}

/// Appends a refusal: `{"error":{"code":"…","message":"…"}}` and the headers that its row carries.
pub fn write_refusal(out: &mut Vec<u8>, response: &RefusalResponse<'_>) {
    let RefusalResponse {
        refused,
        headers,
        keep_alive,
        head_only,
    } = *response;
    let refusal = refused.refusal;
    let retry_after = refused
        .retry_after_s
        .or(refusal.has_retry_after().then_some(1));
    let retry_after = retry_after.map(|seconds| seconds.to_string());
    let mut headers = headers.to_vec();
    headers.extend(retry_after.as_deref().map(|value| ("Retry-After", value)));
    headers.extend(
        refusal
            .www_authenticate()
            .map(|value| ("WWW-Authenticate", value)),
    );
    headers.extend(
        refusal
            .websocket_version()
            .map(|value| ("Sec-WebSocket-Version", value)),
    );
    let body = refusal_body(refusal, &refused.message);
    let response = Response {
        status: refusal.status(),
        headers: &headers,
        body: body.as_bytes(),
        keep_alive,
        head_only,
        ..Response::default()
    };
    write_response(out, &response);
}

/// Appends the go-ahead for a body that waits for it. Source: RFC 9110 §10.1.1.
pub fn write_continue(out: &mut Vec<u8>) {
    out.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
}

fn refusal_body(refusal: Refusal, message: &str) -> String {
    let (code, message) = (refusal.code(), Value::from(message));
    format!(r#"{{"error":{{"code":"{code}","message":{message}}}}}"#)
}

fn push(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text)
        .expect("writing to a vector does not fail");
}

pub(in crate::wire) fn push_header(out: &mut Vec<u8>, name: &str, value: &str) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend(value.bytes().filter(|byte| !byte.is_ascii_control()));
    out.extend_from_slice(b"\r\n");
}

fn reason_phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        204 => "No Content",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        413 => "Content Too Large",
        415 => "Unsupported Media Type",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        507 => "Insufficient Storage",
        // A reason may be empty, its space may not: RFC 9112 §4.
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn answer(refused: &Refused, headers: &[(&str, &str)]) -> String {
        let mut out = Vec::new();
        let response = RefusalResponse {
            refused,
            headers,
            keep_alive: false,
            head_only: false,
        };
        write_refusal(&mut out, &response);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_response_states_its_length_and_whether_it_is_the_last() {
        let mut out = Vec::new();
        let headers = [("Vary", "Origin")];
        let response = Response {
            body: b"{}",
            headers: &headers,
            keep_alive: true,
            ..Response::default()
        };
        write_response(&mut out, &response);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\
             Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nConnection: keep-alive\r\n\
             Vary: Origin\r\n\r\n{}"
        );
    }

    #[test]
    fn the_answer_to_head_has_the_length_and_no_body() {
        let mut out = Vec::new();
        write_response(
            &mut out,
            &Response {
                body: b"abc",
                head_only: true,
                ..Response::default()
            },
        );
        let answer = String::from_utf8(out).unwrap();
        assert!(
            answer.contains("Content-Length: 3\r\n") && answer.ends_with("\r\n\r\n"),
            "{answer}"
        );
    }

    #[test]
    fn an_answer_without_content_has_no_length() {
        let mut out = Vec::new();
        let response = Response {
            status: 204,
            ..Response::default()
        };
        write_response(&mut out, &response);
        let answer = String::from_utf8(out).unwrap();
        assert!(answer.starts_with("HTTP/1.1 204 No Content\r\nCache-Control"));
        assert!(!answer.contains("\r\nContent-"), "{answer}");
    }

    #[test]
    fn refusals_carry_what_their_row_says() {
        let check = |refusal: Refusal, status_line: &str, header: &str| {
            let answer = answer(&Refused::new(refusal, "why"), &[]);
            let body = format!(
                r#"{{"error":{{"code":"{}","message":"why"}}}}"#,
                refusal.code()
            );
            assert!(
                answer.starts_with(&format!("HTTP/1.1 {status_line}\r\n")),
                "{answer}"
            );
            assert!(answer.contains(header), "{answer}");
            assert!(answer.contains("Connection: close\r\n"), "{answer}");
            assert!(answer.ends_with(&format!("\r\n\r\n{body}")), "{answer}");
        };
        check(
            Refusal::TokenMissing,
            "401 Unauthorized",
            "\r\nWWW-Authenticate: Bearer\r\n",
        );
        check(
            Refusal::TokenExpired,
            "401 Unauthorized",
            "\r\nWWW-Authenticate: Bearer error=\"invalid_token\"\r\n",
        );
        check(
            Refusal::UpgradeRequired,
            "426 Upgrade Required",
            "\r\nSec-WebSocket-Version: 13\r\n",
        );
        check(
            Refusal::NodeFull,
            "503 Service Unavailable",
            "\r\nRetry-After: 1\r\n",
        );
        check(
            Refusal::HeadTooLarge,
            "431 Request Header Fields Too Large",
            "",
        );
        let later = Refused {
            retry_after_s: Some(7),
            ..Refused::new(Refusal::UserLimit, "")
        };
        assert!(answer(&later, &[]).contains("\r\nRetry-After: 7\r\n"));
    }

    #[test]
    fn every_refusal_has_a_reason_phrase() {
        for refusal in Refusal::ALL {
            assert!(!reason_phrase(refusal.status()).is_empty(), "{refusal:?}");
        }
    }

    #[test]
    fn messages_are_escaped_and_headers_cannot_split_the_answer() {
        let refused = Refused::new(Refusal::BadRequest, "say \"no\"\n\u{1b}[0m");
        let answer = answer(&refused, &[("X-Echo", "a\r\nSet-Cookie: b")]);
        assert!(
            answer.contains("\r\nX-Echo: aSet-Cookie: b\r\n"),
            "{answer}"
        );
        let body = answer.split_once("\r\n\r\n").unwrap().1;
        let body: Value = serde_json::from_str(body).unwrap();
        assert_eq!(body["error"]["message"], "say \"no\"\n\u{1b}[0m");
    }
}
