//! Publishing over HTTP/1.1 without a socket: requests of one keep-alive connection, and the
//! answers cut out of what comes. Source: RFC 9112; the contract, section 3.

use serde::Deserialize;

/// Why a connection is of no use any more. All of these are the server's doing.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub(crate) enum HttpError {
    /// No HTTP/1.1, or an answer whose length is not told by `Content-Length`.
    #[error("an answer that is not HTTP with a Content-Length")]
    BadAnswer,
    /// The first request was refused.
    #[error("refused with {status}: {body}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The beginning of the body.
        body: String,
    },
}

/// One answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Answer<'a> {
    /// The HTTP status.
    pub(crate) status: u16,
    /// All of it.
    pub(crate) body: &'a [u8],
}

/// What the server says of the events of one request.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct Receipt {
    /// Taken.
    pub(crate) accepted: u64,
    /// Known from before.
    pub(crate) duplicates: u64,
    /// The others, with the reason.
    pub(crate) rejected: Vec<Rejected>,
}

/// One event that was not taken.
#[derive(Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Rejected {
    /// The reason.
    pub(crate) code: String,
}

impl Answer<'_> {
    /// What became of the events; `None` where the request as a whole was refused.
    pub(crate) fn receipt(&self) -> Option<Receipt> {
        serde_json::from_slice(self.body).ok()
    }

    /// The code of a refusal as a whole: the server's own, or its status.
    pub(crate) fn refusal(&self) -> String {
        #[derive(Deserialize)]
        struct Body {
            error: Rejected,
        }
        let body: Option<Body> = serde_json::from_slice(self.body).ok();
        body.map_or_else(|| format!("status {}", self.status), |body| body.error.code)
    }

    /// Whether a request without events was taken, or refused for having none.
    /// Errors: `Refused`, where its sender is not welcome.
    pub(crate) fn require_welcome(&self) -> Result<(), HttpError> {
        let Self { status, body } = *self;
        if matches!(status, 200 | 400) && self.receipt().is_some() {
            return Ok(());
        }
        let body = &body[..body.len().min(BODY_BYTES_SHOWN)];
        let body = String::from_utf8_lossy(body).into_owned();
        Err(HttpError::Refused { status, body })
    }
}

/// The head of a POST of `media` to `path` at `host`, up to the number behind `Content-Length`.
pub(crate) fn head(host: &str, path: &str, token: &str, media: &str) -> Vec<u8> {
    format!(
        "POST {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n\
         Content-Type: {media}\r\nContent-Length: "
    )
    .into_bytes()
}

/// Appends the request that begins with `head` and has `body`.
pub(crate) fn encode_request(out: &mut Vec<u8>, head: &[u8], body: &[u8]) {
    out.extend_from_slice(head);
    out.extend_from_slice(body.len().to_string().as_bytes());
    out.extend_from_slice(b"\r\n\r\n");
    out.extend_from_slice(body);
}

/// Cuts a connection's bytes into answers.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct AnswerReader {
    /// The beginning of an answer whose end has not come.
    partial: Vec<u8>,
}

impl AnswerReader {
    /// Takes the next `input` of the stream and hands each answer that is whole to `handle`.
    /// Errors: `BadAnswer`, and those of `handle`.
    pub(crate) fn read(
        &mut self,
        input: &[u8],
        mut handle: impl FnMut(Answer<'_>) -> Result<(), HttpError>,
    ) -> Result<(), HttpError> {
        self.partial.extend_from_slice(input);
        let mut at = 0;
        while let Some(whole) = decode(&self.partial[at..])? {
            let body = &self.partial[at + whole.head_bytes..at + whole.bytes];
            let status = whole.status;
            handle(Answer { status, body })?;
            at += whole.bytes;
        }
        self.partial.drain(..at);
        Ok(())
    }
}

/// Where the parts of an answer lie.
struct Whole {
    status: u16,
    head_bytes: usize,
    bytes: usize,
}

/// The answer at the front of `input`; `None` until all of it is there.
fn decode(input: &[u8]) -> Result<Option<Whole>, HttpError> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut headers);
    let head_bytes = match response.parse(input) {
        Ok(httparse::Status::Complete(bytes)) => bytes,
        Ok(httparse::Status::Partial) if input.len() <= HEAD_BYTES_MAX => return Ok(None),
        Ok(httparse::Status::Partial) | Err(_) => return Err(HttpError::BadAnswer),
    };
    let length = response
        .headers
        .iter()
        .find(|header| header.name.eq_ignore_ascii_case("content-length"))
        .and_then(|header| {
            std::str::from_utf8(header.value)
                .ok()?
                .parse::<usize>()
                .ok()
        })
        .filter(|length| *length <= BODY_BYTES_MAX)
        .ok_or(HttpError::BadAnswer)?;
    let bytes = head_bytes + length;
    let status = response.code.unwrap_or(0);
    Ok((bytes <= input.len()).then_some(Whole {
        status,
        head_bytes,
        bytes,
    }))
}

/// Bytes of an answer's head.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Bytes of an answer's body: a row for each event of the largest request.
const BODY_BYTES_MAX: usize = 64 * 1024 * 1024;
const BODY_BYTES_SHOWN: usize = 200;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use proptest::prelude::*;

    fn answer(status: u16, body: &str) -> Vec<u8> {
        let length = body.len();
        format!("HTTP/1.1 {status} X\r\nA: b\r\ncontent-length: {length}\r\n\r\n{body}")
            .into_bytes()
    }

    fn read_cut(bytes: &[u8], cuts: &[usize]) -> Result<Vec<(u16, Vec<u8>)>, HttpError> {
        let (mut reader, mut seen) = (AnswerReader::default(), Vec::new());
        let mut rest = bytes;
        for cut in cuts.iter().copied().chain([bytes.len()]) {
            let (part, later) = rest.split_at(cut.min(rest.len()));
            rest = later;
            reader.read(part, |answer| {
                seen.push((answer.status, answer.body.to_vec()));
                Ok(())
            })?;
        }
        Ok(seen)
    }

    #[test]
    fn request_is_a_head_and_a_body() {
        let head = head("h:1", "/v1/events?ack=received", "t", "application/json");
        let mut out = b"before".to_vec();
        encode_request(&mut out, &head, b"{}");
        let text = String::from_utf8(out).unwrap();
        assert_eq!(
            text,
            "beforePOST /v1/events?ack=received HTTP/1.1\r\nHost: h:1\r\nAuthorization: Bearer \
             t\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
        );
    }

    #[test]
    fn answers_are_cut_wherever_they_are_read() {
        let bytes = [answer(200, "one"), answer(400, ""), answer(507, "three")].concat();
        let expected = [(200, "one"), (400, ""), (507, "three")]
            .map(|(status, body)| (status, body.as_bytes().to_vec()))
            .to_vec();
        assert_eq!(read_cut(&bytes, &[]), Ok(expected.clone()));
        assert_eq!(read_cut(&bytes, &vec![1; bytes.len()]), Ok(expected));
    }

    #[test]
    fn answer_of_unknown_length_is_refused() {
        for bytes in [
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec(),
            b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n".to_vec(),
            b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n".to_vec(),
            b"\x81\x02hi".to_vec(),
            [b"HTTP/1.1 200 OK\r\nA: ".to_vec(), vec![b'a'; 20_000]].concat(),
        ] {
            assert_eq!(read_cut(&bytes, &[]), Err(HttpError::BadAnswer));
        }
    }

    #[test]
    fn receipt_and_refusal_are_told_apart() {
        let (status, body) = (
            200,
            r#"{"accepted":2,"duplicates":1,"rejected":[{"index":3,
            "code":"NO_AUDIENCE","message":"x"}]}"#,
        );
        let answer = Answer {
            status,
            body: body.as_bytes(),
        };
        let code = "NO_AUDIENCE".to_owned();
        let expected = Receipt {
            accepted: 2,
            duplicates: 1,
            rejected: vec![Rejected { code }],
        };
        assert_eq!(answer.receipt(), Some(expected));
        assert_eq!(answer.require_welcome(), Ok(()));
        let full = Answer {
            status: 507,
            body: br#"{"error":{"code":"STORAGE_FULL"}}"#,
        };
        assert_eq!(
            (full.receipt(), full.refusal()),
            (None, "STORAGE_FULL".to_owned())
        );
        let other = Answer {
            status: 502,
            body: b"bad gateway",
        };
        assert_eq!(
            (other.receipt(), other.refusal()),
            (None, "status 502".to_owned())
        );
        let refused = other.require_welcome().unwrap_err();
        assert_eq!(refused.to_string(), "refused with 502: bad gateway");
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300),
                                       cuts in prop::collection::vec(0_usize..50, 0..10)) {
            let _ = read_cut(&bytes, &cuts);
            let _ = read_cut(&[&b"HTTP/1.1 200 OK\r\n"[..], &bytes].concat(), &cuts);
        }
    }
}
