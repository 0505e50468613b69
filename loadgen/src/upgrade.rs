//! The upgrade of one connection to WebSocket, without a socket: the request, and the server's
//! answer read as it comes. Source: RFC 6455 §4.1, RFC 7692 §5.

use tungstenite::handshake::client::generate_key;
use tungstenite::handshake::derive_accept_key;

/// Why an upgrade failed. All of these are the server's doing.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum UpgradeError {
    /// An extension that was not offered, or one that keeps its context: all connections share
    /// one inflater.
    #[error("the server answered with the extension {0:?}")]
    BadExtension(String),
    /// The answer is no HTTP, or its head is longer than [`HEAD_BYTES_MAX`].
    #[error("the answer to the upgrade is not HTTP")]
    BadResponse,
    /// It was answered with another status than 101.
    #[error("refused with {status}: {body}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The beginning of the body, as far as it came along.
        body: String,
    },
    /// 101, but `Sec-WebSocket-Accept` does not fit the key.
    #[error("Sec-WebSocket-Accept does not fit the key")]
    WrongAccept,
}

/// What a connection offers beside the protocol itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extension {
    /// permessage-deflate without context takeover.
    Deflate,
    /// Nothing.
    None,
}

/// An upgrade on its way.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Upgrade {
    key: String,
    offered: Extension,
    /// The head of the answer, as far as it has come.
    head: Vec<u8>,
}

/// An upgrade that the server has accepted.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Accepted {
    /// What the server agreed to.
    pub(crate) extension: Extension,
    /// What came behind the answer: the first frames.
    pub(crate) rest: Vec<u8>,
}

impl Upgrade {
    /// One with a fresh key.
    pub(crate) fn new(offered: Extension) -> Self {
        Self {
            key: generate_key(),
            offered,
            head: Vec::new(),
        }
    }

    /// The request that upgrades `path` at `host`.
    pub(crate) fn request(&self, host: &str, path: &str) -> Vec<u8> {
        let extensions = match self.offered {
            Extension::Deflate => DEFLATE_OFFER,
            Extension::None => "",
        };
        format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {}\r\n{extensions}\r\n",
            self.key
        )
        .into_bytes()
    }

    /// Takes the next bytes of the answer; `None` until its head is whole.
    pub(crate) fn handle_response(
        &mut self,
        input: &[u8],
    ) -> Result<Option<Accepted>, UpgradeError> {
        self.head.extend_from_slice(input);
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut response = httparse::Response::new(&mut headers);
        let head_bytes = match response.parse(&self.head) {
            Ok(httparse::Status::Complete(bytes)) => bytes,
            Ok(httparse::Status::Partial) if self.head.len() <= HEAD_BYTES_MAX => return Ok(None),
            Ok(httparse::Status::Partial) | Err(_) => return Err(UpgradeError::BadResponse),
        };
        let status = response.code.unwrap_or(0);
        let rest = &self.head[head_bytes..];
        if status != 101 {
            let body = &rest[..rest.len().min(BODY_BYTES_SHOWN)];
            return Err(UpgradeError::Refused {
                status,
                body: String::from_utf8_lossy(body).into_owned(),
            });
        }
        if header(&response, "sec-websocket-accept")
            != Some(&derive_accept_key(self.key.as_bytes()))
        {
            return Err(UpgradeError::WrongAccept);
        }
        let extension = match header(&response, "sec-websocket-extensions") {
            None => Extension::None,
            Some(answer) if self.offered == Extension::Deflate && is_deflate(answer) => {
                Extension::Deflate
            }
            Some(answer) => return Err(UpgradeError::BadExtension(answer.to_owned())),
        };
        let rest = rest.to_vec();
        Ok(Some(Accepted { extension, rest }))
    }
}

/// The text of the header `name`; `None` where it is absent or no text.
fn header<'a>(response: &httparse::Response<'_, 'a>, name: &str) -> Option<&'a str> {
    let found = response
        .headers
        .iter()
        .find(|header| header.name.eq_ignore_ascii_case(name))?;
    std::str::from_utf8(found.value).ok()
}

/// Whether `answer` is permessage-deflate of which each message stands alone.
fn is_deflate(answer: &str) -> bool {
    let mut parts = answer.split(';').map(str::trim);
    parts.next() == Some("permessage-deflate")
        && parts.any(|part| part == "server_no_context_takeover")
}

const DEFLATE_OFFER: &str = "Sec-WebSocket-Extensions: permessage-deflate; \
                             server_no_context_takeover; client_no_context_takeover\r\n";
/// Bytes of the answer's head.
const HEAD_BYTES_MAX: usize = 16 * 1024;
const BODY_BYTES_SHOWN: usize = 200;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use proptest::prelude::*;

    const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
    const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

    fn upgrade(offered: Extension) -> Upgrade {
        let (key, head) = (KEY.to_owned(), Vec::new());
        Upgrade { key, offered, head }
    }

    fn answer(accept: &str, more: &str) -> String {
        format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {accept}\r\n{more}\r\n"
        )
    }

    fn accepted(extension: Extension, rest: &str) -> Result<Option<Accepted>, UpgradeError> {
        let rest = rest.as_bytes().to_vec();
        Ok(Some(Accepted { extension, rest }))
    }

    fn check(offered: Extension, text: &str, expected: &Result<Option<Accepted>, UpgradeError>) {
        let result = upgrade(offered).handle_response(text.as_bytes());
        assert_eq!(&result, expected, "{text}");
    }

    #[test]
    fn answers() {
        let plain = Extension::None;
        let whole = answer(ACCEPT, "");
        check(plain, &whole, &accepted(plain, ""));
        check(plain, &format!("{whole}\u{1}x"), &accepted(plain, "\u{1}x"));
        check(plain, &whole[..whole.len() - 1], &Ok(None));
        check(plain, "", &Ok(None));
        check(plain, &answer("x", ""), &Err(UpgradeError::WrongAccept));
        check(plain, "nonsense\r\n\r\n", &Err(UpgradeError::BadResponse));
        let refused = UpgradeError::Refused {
            status: 429,
            body: "{}".to_owned(),
        };
        let text = "HTTP/1.1 429 Too Many\r\nContent-Length: 2\r\n\r\n{}";
        check(plain, text, &Err(refused));
        let endless = format!("HTTP/1.1 101 S\r\nA: {}", "x".repeat(HEAD_BYTES_MAX));
        check(plain, &endless, &Err(UpgradeError::BadResponse));
    }

    #[test]
    fn extension_is_taken_only_as_it_was_offered() {
        let deflate = Extension::Deflate;
        let with = |value: &str| answer(ACCEPT, &format!("Sec-WebSocket-Extensions: {value}\r\n"));
        let check = |offered, value: &str, expected| check(offered, &with(value), &expected);
        let both = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
        check(deflate, both, accepted(deflate, ""));
        check(
            deflate,
            "permessage-deflate;server_no_context_takeover",
            accepted(deflate, ""),
        );
        let bad = |value: &str| Err(UpgradeError::BadExtension(value.to_owned()));
        check(deflate, "permessage-deflate", bad("permessage-deflate"));
        check(
            deflate,
            "x; server_no_context_takeover",
            bad("x; server_no_context_takeover"),
        );
        check(Extension::None, both, bad(both));
        let declined = upgrade(deflate).handle_response(answer(ACCEPT, "").as_bytes());
        assert_eq!(declined, accepted(Extension::None, ""));
    }

    fn headers_of(offered: Extension) -> Vec<(String, String)> {
        let request = upgrade(offered).request("127.0.0.1:1", "/ws?topic=u000001");
        let mut headers = [httparse::EMPTY_HEADER; 8];
        let mut parsed = httparse::Request::new(&mut headers);
        assert!(parsed.parse(&request).unwrap().is_complete());
        assert_eq!(
            (parsed.method, parsed.path),
            (Some("GET"), Some("/ws?topic=u000001"))
        );
        let text = |value: &[u8]| String::from_utf8(value.to_vec()).unwrap();
        let headers = parsed.headers.iter();
        headers
            .map(|header| (header.name.to_owned(), text(header.value)))
            .collect()
    }

    #[test]
    fn request_is_one_that_a_server_reads() {
        let plain = headers_of(Extension::None);
        assert!(plain.contains(&("Sec-WebSocket-Key".to_owned(), KEY.to_owned())));
        let offering = headers_of(Extension::Deflate);
        assert_eq!(offering.len(), plain.len() + 1);
        let (_, offer) = offering.last().unwrap();
        assert!(is_deflate(offer), "{offer}");
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..500)) {
            let _ = upgrade(Extension::Deflate).handle_response(&bytes);
        }

        #[test]
        fn cut_answer_is_read_as_the_whole(cut in 0_usize..160) {
            let text = answer(ACCEPT, "") + "frames";
            let (first, second) = text.split_at(cut.min(text.len()));
            let mut upgrade = upgrade(Extension::None);
            let mut seen = Vec::new();
            for part in [first, second] {
                match upgrade.handle_response(part.as_bytes()).unwrap() {
                    Some(accepted) => seen.extend(accepted.rest),
                    None => continue,
                }
                upgrade.head.clear();
                break;
            }
            prop_assert!(b"frames".starts_with(seen.as_slice()));
        }
    }
}
