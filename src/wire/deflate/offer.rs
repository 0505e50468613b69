//! What a client offers in `Sec-WebSocket-Extensions`, and what of it is taken.
//!
//! No offer is an error: one that cannot be taken is passed over for the next, and without any the
//! connection speaks plain frames. Source: RFC 7692 §5 and §7.1, RFC 6455 §9.1.

use std::borrow::Cow;

use super::WINDOW_BITS;
use crate::wire::http::is_token_byte;

/// permessage-deflate, agreed on. No side keeps context from message to message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agreement {
    /// The window that the client asked of us, in bits.
    server_window_bits: Option<u8>,
}

impl Agreement {
    /// Whether our frames may be deflated: for a smaller window than theirs they all go plain, which
    /// the RFC leaves to each sender.
    pub fn takes_deflated(self) -> bool {
        self.server_window_bits
            .is_none_or(|bits| bits >= WINDOW_BITS)
    }

    /// The answer's `Sec-WebSocket-Extensions`.
    pub fn answer(self) -> String {
        let mut answer = format!("{NAME}; {SERVER_NO_CONTEXT}; {CLIENT_NO_CONTEXT}");
        if let Some(bits) = self.server_window_bits {
            answer += &format!("; {SERVER_WINDOW}={}", bits.min(WINDOW_BITS));
        }
        answer
    }
}

/// Takes the first offer that can be taken, in the client's order. `values`: each header's. One
/// that is malformed offers nothing.
pub fn negotiate<'a>(values: impl IntoIterator<Item = &'a str>) -> Option<Agreement> {
    values
        .into_iter()
        .find_map(|value| Scanner { rest: value }.first_offer().flatten())
}

const NAME: &str = "permessage-deflate";
const SERVER_NO_CONTEXT: &str = "server_no_context_takeover";
const CLIENT_NO_CONTEXT: &str = "client_no_context_takeover";
const SERVER_WINDOW: &str = "server_max_window_bits";
const CLIENT_WINDOW: &str = "client_max_window_bits";

/// The parameters of one offer, so far as they were read.
#[derive(Default)]
struct Offer {
    server_no_context: bool,
    client_no_context: bool,
    server_window_bits: Option<u8>,
    client_window: bool,
}

impl Offer {
    /// The offer with one parameter more; `None` where that makes it one that cannot be taken.
    fn with(mut self, name: &str, value: Option<&str>) -> Option<Self> {
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        let (is_repeated, is_valid) = if is(SERVER_NO_CONTEXT) {
            let repeated = std::mem::replace(&mut self.server_no_context, true);
            (repeated, value.is_none())
        } else if is(CLIENT_NO_CONTEXT) {
            let repeated = std::mem::replace(&mut self.client_no_context, true);
            (repeated, value.is_none())
        } else if is(SERVER_WINDOW) {
            let bits = value.and_then(window_bits);
            (
                self.server_window_bits.is_some(),
                std::mem::replace(&mut self.server_window_bits, bits).is_none() && bits.is_some(),
            )
        } else if is(CLIENT_WINDOW) {
            // Our inflater looks back as far as any stream may: there is nothing to ask for.
            let repeated = std::mem::replace(&mut self.client_window, true);
            (
                repeated,
                value.is_none_or(|bits| window_bits(bits).is_some()),
            )
        } else {
            (false, false)
        };
        (is_valid && !is_repeated).then_some(self)
    }
}

/// 8 to 15, in decimal without leading zeros.
fn window_bits(value: &str) -> Option<u8> {
    let is_plain = value.bytes().all(|byte| byte.is_ascii_digit()) && !value.starts_with('0');
    let bits = value.parse().ok().filter(|_| is_plain)?;
    (8..=15).contains(&bits).then_some(bits)
}

/// Reads one header's value from front to back.
struct Scanner<'a> {
    rest: &'a str,
}

impl<'a> Scanner<'a> {
    /// The first offer of ours that can be taken, if any. `None`: the value is malformed.
    fn first_offer(mut self) -> Option<Option<Agreement>> {
        let mut first = None;
        loop {
            // Empty elements of a list say nothing.
            while self.takes(',') {}
            if self.rest.is_empty() {
                return Some(first);
            }
            let offer = self.extension()?;
            first = first.or(offer.map(|offer| Agreement {
                server_window_bits: offer.server_window_bits,
            }));
            if !self.rest.is_empty() && !self.takes(',') {
                return None;
            }
        }
    }

    /// One extension with its parameters, whichever it is; inside, the offer if it can be taken.
    fn extension(&mut self) -> Option<Option<Offer>> {
        let is_ours = self.token()?.eq_ignore_ascii_case(NAME);
        let mut offer = is_ours.then(Offer::default);
        while self.takes(';') {
            let name = self.token()?;
            let value = if self.takes('=') {
                Some(self.value()?)
            } else {
                None
            };
            offer = offer.and_then(|offer| offer.with(name, value.as_deref()));
        }
        Some(offer)
    }

    fn value(&mut self) -> Option<Cow<'a, str>> {
        if !self.takes('"') {
            return self.token().map(Cow::Borrowed);
        }
        let (mut value, mut is_escaped) = (String::new(), false);
        for (at, next) in self.rest.char_indices() {
            match next {
                '"' if !is_escaped => {
                    self.rest = self.rest[at + 1..].trim_start_matches(SPACE);
                    // Unescaped, it must be a token as well.
                    let is_token = !value.is_empty() && value.bytes().all(is_token_byte);
                    return is_token.then_some(Cow::Owned(value));
                }
                '\\' if !is_escaped => is_escaped = true,
                _ => {
                    value.push(next);
                    is_escaped = false;
                }
            }
        }
        None
    }

    /// A token and the space behind it; `None` where there is none.
    fn token(&mut self) -> Option<&'a str> {
        let is_other = |byte: u8| !is_token_byte(byte);
        let end = self
            .rest
            .bytes()
            .position(is_other)
            .unwrap_or(self.rest.len());
        let (token, rest) = self.rest.split_at(end);
        self.rest = rest.trim_start_matches(SPACE);
        (!token.is_empty()).then_some(token)
    }

    /// Whether `mark` comes next, with space around it; if so, goes past it.
    fn takes(&mut self, mark: char) -> bool {
        self.rest = self.rest.trim_start_matches(SPACE);
        let rest = self.rest.strip_prefix(mark);
        if let Some(rest) = rest {
            // What is quoted keeps its spaces.
            self.rest = if mark == '"' {
                rest
            } else {
                rest.trim_start_matches(SPACE)
            };
        }
        rest.is_some()
    }
}

const SPACE: [char; 2] = [' ', '\t'];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PLAIN: &str =
        "permessage-deflate; server_no_context_takeover; client_no_context_takeover";

    /// What several headers are answered; the number is the window that is echoed.
    fn check_all(values: &[&str], expected: Option<Option<u8>>) {
        let found = negotiate(values.iter().copied());
        let answer = expected.map(|window| match window {
            None => PLAIN.to_owned(),
            Some(bits) => format!("{PLAIN}; server_max_window_bits={bits}"),
        });
        assert_eq!(found.map(Agreement::answer), answer, "{values:?}");
        let takes_deflated = expected.map(|window| window.is_none_or(|bits| bits == 12));
        assert_eq!(
            found.map(Agreement::takes_deflated),
            takes_deflated,
            "{values:?}"
        );
    }

    fn check(value: &str, expected: Option<Option<u8>>) {
        check_all(&[value], expected);
    }

    #[test]
    fn what_clients_offer_is_taken_without_context() {
        for value in [
            "permessage-deflate",
            "permessage-deflate; client_max_window_bits",
            "permessage-deflate; client_max_window_bits=15",
            "permessage-deflate; client_max_window_bits=8",
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
            "Permessage-Deflate;CLIENT_MAX_WINDOW_BITS",
            " \tpermessage-deflate \t;\tclient_max_window_bits = 10 ",
            "permessage-deflate;client_max_window_bits=\"10\"",
            "permessage-deflate;client_max_window_bits=\"\\1\\0\"",
            ",, permessage-deflate ,,",
        ] {
            check(value, Some(None));
        }
    }

    #[test]
    fn a_window_is_echoed_and_at_most_ours() {
        for bits in 8..=15 {
            let value = format!("permessage-deflate; server_max_window_bits={bits}");
            check(&value, Some(Some(bits.min(12))));
        }
        check(
            "permessage-deflate; server_max_window_bits=\"13\"",
            Some(Some(12)),
        );
    }

    #[test]
    fn a09_extension_offers_that_cannot_be_taken_are_declined() {
        for value in [
            "",
            " ",
            ",",
            "x-webkit-deflate-frame",
            "permessage-deflat",
            "permessage-deflate; server_max_window_bits",
            "permessage-deflate; server_max_window_bits=7",
            "permessage-deflate; server_max_window_bits=16",
            "permessage-deflate; server_max_window_bits=abc",
            "permessage-deflate; server_max_window_bits=\"abc\"",
            "permessage-deflate; server_max_window_bits=012",
            "permessage-deflate; server_max_window_bits=+12",
            "permessage-deflate; server_max_window_bits=-12",
            "permessage-deflate; server_max_window_bits=268",
            "permessage-deflate; server_max_window_bits=99999999999999999999999999",
            "permessage-deflate; client_max_window_bits=7",
            "permessage-deflate; client_max_window_bits=16",
            "permessage-deflate; client_max_window_bits=0",
            "permessage-deflate; server_no_context_takeover=1",
            "permessage-deflate; client_no_context_takeover=true",
            "permessage-deflate; server_no_context_takeover; server_no_context_takeover",
            "permessage-deflate; client_no_context_takeover; Client_no_context_takeover",
            "permessage-deflate; client_max_window_bits; client_max_window_bits=9",
            "permessage-deflate; server_max_window_bits=9; server_max_window_bits=9",
            "permessage-deflate; mystery",
            "permessage-deflate; mystery=1",
        ] {
            check(value, None);
        }
    }

    #[test]
    fn a09_malformed_headers_offer_nothing() {
        for value in [
            "permessage-deflate;",
            "permessage-deflate; ;client_max_window_bits",
            "permessage-deflate; client_max_window_bits=",
            "permessage-deflate; client_max_window_bits=\"\"",
            "permessage-deflate; client_max_window_bits=\"10",
            "permessage-deflate; client_max_window_bits=\"10\\",
            "permessage-deflate; client_max_window_bits=\" 10\"",
            "permessage-deflate; client_max_window_bits=\"10\"x",
            "permessage-deflate client_max_window_bits",
            "permessage-deflate, =",
            "permessage-deflate, x; y=\"",
            "\"permessage-deflate\"",
            "permessage-deflate\u{e9}",
            "=permessage-deflate",
        ] {
            check(value, None);
        }
    }

    #[test]
    fn the_first_offer_that_can_be_taken_counts() {
        check(
            "permessage-deflate; server_max_window_bits=16, permessage-deflate",
            Some(None),
        );
        check(
            "x; y=\", permessage-deflate\"z, permessage-deflate; server_max_window_bits=9",
            None,
        );
        check(
            "x; y=\"z\", permessage-deflate; server_max_window_bits=10, permessage-deflate",
            Some(Some(10)),
        );
        check_all(&["x", "permessage-deflate"], Some(None));
        check_all(
            &["permessage-deflate; a, \"", "permessage-deflate"],
            Some(None),
        );
        check_all(
            &[
                "permessage-deflate;;",
                "permessage-deflate; server_max_window_bits=14",
            ],
            Some(Some(12)),
        );
        check_all(&[], None);
    }

    #[test]
    fn a09_bombs_of_offers_are_read_once_from_front_to_back() {
        check(&"a,".repeat(4_000), None);
        check(&"permessage-deflate; x,".repeat(350), None);
        check(&format!("permessage-deflate{}", "; x".repeat(2_500)), None);
        check(
            &format!("permessage-deflate; x=\"{}\"", "\\a".repeat(4_000)),
            None,
        );
        let last = format!("{}permessage-deflate", "permessage-deflate; x,".repeat(350));
        check(&last, Some(None));
    }

    proptest! {
        #[test]
        fn any_header_is_answered_by_something_that_was_offered(
            value in "[ -~\\t]{0,60}",
            pieces in proptest::collection::vec(
                prop_oneof![
                    Just("permessage-deflate"), Just(";"), Just(","), Just("="), Just("\""),
                    Just("\\"), Just(" "), Just("server_max_window_bits"), Just("12"), Just("9"),
                    Just("client_max_window_bits"), Just("server_no_context_takeover"),
                ],
                0..14,
            ),
        ) {
            let pieces = pieces.concat();
            for value in [value.as_str(), pieces.as_str()] {
                let agreed = negotiate([value]);
                prop_assert!(agreed.is_none() || value.to_ascii_lowercase().contains(NAME));
                // Our own answer is an offer that we would take.
                let again = agreed.map(Agreement::answer);
                let again = again.as_deref().map(|answer| negotiate([answer]));
                prop_assert!(again.is_none_or(|again| again.is_some()));
            }
        }
    }
}
