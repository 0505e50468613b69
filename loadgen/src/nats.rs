//! The protocol of NATS, as far as publishing and subscribing need it, without a socket.
//!
//! It is a stream of operations. Inside WebSocket, a message may hold several of them, and a part
//! of one. Deliberately small: a connection has one subscription, and neither headers nor queue
//! groups are asked for. Source: docs.nats.io, "Client Protocol".

use std::io::Write as _;

use memchr::memchr;

use crate::frames::MESSAGE_BYTES_MAX;
use crate::payload::user_name;

/// What a server may not say; the stream is of no use after it.
#[derive(Debug, Clone, Copy, thiserror::Error, PartialEq, Eq)]
#[error("bad NATS operation: {0}")]
pub(crate) struct NatsError(&'static str);

/// What a server says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Operation<'a> {
    /// What it does not like. Most often it ends the connection.
    Error(&'a [u8]),
    /// The text of a message to the subscription.
    Message(&'a [u8]),
    /// About itself, or that it has done something: nothing follows from it.
    Notice,
    /// To be answered with [`PONG`].
    Ping,
    /// The answer to a `PING`: all that was said before it is done.
    Pong,
}

/// Cuts a connection's bytes into operations.
#[derive(Debug, Default)]
pub(crate) struct OperationReader {
    /// The beginning of an operation whose end has not arrived.
    partial: Vec<u8>,
}

impl OperationReader {
    /// Takes the next `input` of the stream and hands each operation that is whole to `handle`.
    pub(crate) fn read(
        &mut self,
        input: &[u8],
        mut handle: impl FnMut(Operation<'_>),
    ) -> Result<(), NatsError> {
        if self.partial.is_empty() {
            let consumed = read_operations(input, &mut handle)?;
            self.partial.extend_from_slice(&input[consumed..]);
        } else {
            self.partial.extend_from_slice(input);
            let consumed = read_operations(&self.partial, &mut handle)?;
            self.partial.drain(..consumed);
        }
        Ok(())
    }

    /// Whether an operation has begun whose end has not arrived.
    pub(crate) fn is_amid_operation(&self) -> bool {
        !self.partial.is_empty()
    }
}

/// What a publisher says first. It is ready once the `PONG` has come.
pub(crate) fn greeting() -> String {
    format!("{CONNECT}PING\r\n")
}

/// What a subscriber to `user`'s events says first. It is ready once the `PONG` has come.
pub(crate) fn subscription(user: u32) -> String {
    format!("{CONNECT}SUB {} {SID}\r\nPING\r\n", user_name(user))
}

/// Appends the operation that publishes `text` to `user`'s subject.
pub(crate) fn encode_publish(out: &mut Vec<u8>, user: u32, text: &[u8]) {
    write!(out, "PUB {} {}\r\n", user_name(user), text.len()).expect("a Vec takes every write");
    out.extend_from_slice(text);
    out.extend_from_slice(LINE_END);
}

/// Bytes around the text of a message that is to take `message_bytes` as a subscriber gets it. One
/// byte more text may take one digit more to say so: where no text takes exactly that many, it is
/// the next smaller.
pub(crate) fn around_bytes(message_bytes: usize) -> usize {
    let fixed = format!("MSG {} {SID} \r\n\r\n", user_name(0)).len();
    let fits = |digits: &usize| {
        let text_bytes = message_bytes.saturating_sub(fixed + digits);
        text_bytes.to_string().len() <= *digits
    };
    fixed + (1..).find(fits).unwrap_or(1)
}

/// The answer to a `PING`.
pub(crate) const PONG: &[u8] = b"PONG\r\n";

const CONNECT: &str = "CONNECT {\"verbose\":false,\"pedantic\":false}\r\n";
/// The number of a connection's only subscription.
const SID: u32 = 1;
const LINE_END: &[u8] = b"\r\n";
/// Bytes of a line; `INFO` is the longest, with the addresses of a whole cluster.
const LINE_BYTES_MAX: usize = 64 * 1024;

/// Handles the whole operations at the front of `input`; returns how many bytes they take.
fn read_operations(
    input: &[u8],
    handle: &mut impl FnMut(Operation<'_>),
) -> Result<usize, NatsError> {
    let mut at = 0;
    while let Some((operation, bytes)) = decode(&input[at..])? {
        handle(operation);
        at += bytes;
    }
    Ok(at)
}

/// Decodes the operation at the front of `buf`, with the bytes that it takes, or `None` until all
/// of it is there.
fn decode(buf: &[u8]) -> Result<Option<(Operation<'_>, usize)>, NatsError> {
    let Some(newline) = memchr(b'\n', &buf[..buf.len().min(LINE_BYTES_MAX)]) else {
        return if buf.len() < LINE_BYTES_MAX {
            Ok(None)
        } else {
            Err(NatsError("a line of more than 64 KiB"))
        };
    };
    let (line, after) = (&buf[..newline], newline + 1);
    let line = line
        .strip_suffix(b"\r")
        .ok_or(NatsError("a line that does not end in CR LF"))?;
    let (name, arguments) = split_word(line);
    let operation = match name {
        b"MSG" => return decode_message(arguments, buf, after),
        b"INFO" | b"+OK" => Operation::Notice,
        b"PING" => Operation::Ping,
        b"PONG" => Operation::Pong,
        b"-ERR" => Operation::Error(arguments),
        _ => return Err(NatsError("an unknown operation")),
    };
    Ok(Some((operation, after)))
}

/// Decodes the message whose line has these `arguments` (`subject sid [reply-to] bytes`) and whose
/// text begins at `buf[start]`.
fn decode_message<'a>(
    arguments: &[u8],
    buf: &'a [u8],
    start: usize,
) -> Result<Option<(Operation<'a>, usize)>, NatsError> {
    let count = arguments.rsplit(|byte| *byte == b' ').next();
    let bytes = count
        .and_then(|count| std::str::from_utf8(count).ok()?.parse::<usize>().ok())
        .ok_or(NatsError("a message without a size"))?;
    if bytes > MESSAGE_BYTES_MAX {
        return Err(NatsError("a message of more than 16 MiB"));
    }
    let (end, after) = (start + bytes, start + bytes + LINE_END.len());
    let Some(line_end) = buf.get(end..after) else {
        return Ok(None);
    };
    if line_end != LINE_END {
        return Err(NatsError("a message that is longer than it says"));
    }
    Ok(Some((Operation::Message(&buf[start..end]), after)))
}

/// The first word of `line`, and what follows the space after it.
fn split_word(line: &[u8]) -> (&[u8], &[u8]) {
    match memchr(b' ', line) {
        Some(space) => (&line[..space], &line[space + 1..]),
        None => (line, &[]),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use proptest::prelude::*;

    /// An operation in a form that owns.
    #[derive(Debug, Clone, PartialEq, Eq)]
    enum Seen {
        Error(Vec<u8>),
        Message(Vec<u8>),
        Notice,
        Ping,
        Pong,
    }

    impl From<Operation<'_>> for Seen {
        fn from(operation: Operation<'_>) -> Self {
            match operation {
                Operation::Error(reason) => Self::Error(reason.to_vec()),
                Operation::Message(text) => Self::Message(text.to_vec()),
                Operation::Notice => Self::Notice,
                Operation::Ping => Self::Ping,
                Operation::Pong => Self::Pong,
            }
        }
    }

    impl Seen {
        /// Appends it as a server would say it.
        fn write_to(&self, out: &mut Vec<u8>) {
            match self {
                Self::Error(reason) => {
                    out.extend_from_slice(b"-ERR ");
                    out.extend_from_slice(reason);
                    out.extend_from_slice(LINE_END);
                }
                Self::Message(text) => out.extend(message("", text)),
                Self::Notice => out.extend_from_slice(b"INFO {\"max_payload\":1048576} \r\n"),
                Self::Ping => out.extend_from_slice(b"PING\r\n"),
                Self::Pong => out.extend_from_slice(PONG),
            }
        }
    }

    fn message(reply_to: &str, text: &[u8]) -> Vec<u8> {
        let head = format!("MSG {} {SID} {reply_to}{}\r\n", user_name(3), text.len());
        [head.as_bytes(), text, LINE_END].concat()
    }

    fn read_cut(
        mut bytes: &[u8],
        cuts: impl IntoIterator<Item = usize>,
    ) -> Result<Vec<Seen>, NatsError> {
        let mut reader = OperationReader::default();
        let mut seen = Vec::new();
        for cut in cuts.into_iter().chain([usize::MAX]) {
            let (taken, left) = bytes.split_at(cut.min(bytes.len()));
            bytes = left;
            reader.read(taken, |operation| seen.push(operation.into()))?;
        }
        Ok(seen)
    }

    /// Reads `bytes` at once and byte by byte; `Err` holds what is wrong with them.
    fn check(bytes: &[u8], expected: Result<&[Seen], &'static str>) {
        let expected = expected.map(<[_]>::to_vec).map_err(NatsError);
        let shown = &bytes[..bytes.len().min(80)];
        for cuts in [vec![], vec![1; shown.len()]] {
            assert_eq!(read_cut(bytes, cuts), expected, "{}", shown.escape_ascii());
        }
    }

    #[test]
    fn what_a_server_says() {
        check(b"", Ok(&[]));
        let notices = [Seen::Ping, Seen::Pong, Seen::Notice];
        check(b"PING\r\nPONG\r\n+OK\r\nPIN", Ok(&notices));
        let error = Seen::Error(b"'Slow Consumer'".to_vec());
        check(b"-ERR 'Slow Consumer'\r\n", Ok(&[error]));
        let text = b"PING\r\nis no operation in here";
        check(&message("", text), Ok(&[Seen::Message(text.to_vec())]));
        check(
            &message("answer.to ", b""),
            Ok(&[Seen::Message(Vec::new())]),
        );
    }

    #[test]
    fn what_a_server_may_not_say() {
        let cases: [(&[u8], &str); 9] = [
            (b"PING\n", "a line that does not end in CR LF"),
            (b"HMSG u 1 2 2\r\n", "an unknown operation"),
            (b"\r\n", "an unknown operation"),
            (b"MSG\r\n", "a message without a size"),
            (b"MSG u 1 -1\r\n", "a message without a size"),
            (
                b"MSG u 1 99999999999999999999\r\n",
                "a message without a size",
            ),
            (b"MSG u 1 16777217\r\n", "a message of more than 16 MiB"),
            (
                b"MSG u 1 2\r\nabc\r\n",
                "a message that is longer than it says",
            ),
            (&[b'x'; LINE_BYTES_MAX], "a line of more than 64 KiB"),
        ];
        for (bytes, reason) in cases {
            check(bytes, Err(reason));
        }
    }

    #[test]
    fn what_a_client_says() {
        assert!(greeting().ends_with("}\r\nPING\r\n"));
        assert!(subscription(3).ends_with("}\r\nSUB u000003 1\r\nPING\r\n"));
        let mut out = Vec::new();
        encode_publish(&mut out, 3, b"hello");
        assert_eq!(out, b"PUB u000003 5\r\nhello\r\n");
    }

    #[test]
    fn text_and_what_is_around_it_make_up_the_message() {
        for (message_bytes, short_by) in [(411, 0), (1020, 0), (19, 0), (120, 1), (1021, 1)] {
            let text_bytes = message_bytes - around_bytes(message_bytes);
            let message = message("", &vec![b'x'; text_bytes]);
            assert_eq!(message.len() + short_by, message_bytes);
        }
        assert!(around_bytes(0) > 0);
    }

    fn seen() -> impl Strategy<Value = Seen> {
        prop_oneof![
            prop::collection::vec(any::<u8>(), 0..300).prop_map(Seen::Message),
            "[ -~]{0,30}".prop_map(|reason| Seen::Error(reason.into_bytes())),
            Just(Seen::Notice),
            Just(Seen::Ping),
            Just(Seen::Pong),
        ]
    }

    proptest! {
        #[test]
        fn any_cutting_gives_the_same_operations(
            said in prop::collection::vec(seen(), 0..20),
            cuts in prop::collection::vec(0_usize..200, 0..60),
        ) {
            let mut bytes = Vec::new();
            said.iter().for_each(|one| one.write_to(&mut bytes));
            prop_assert_eq!(read_cut(&bytes, cuts), Ok(said));
        }

        #[test]
        fn any_bytes_are_survived_and_cut_alike(
            bytes in prop::collection::vec(
                prop_oneof![any::<u8>(), Just(b'\r'), Just(b'\n'), Just(b' ')], 0..200),
            cuts in prop::collection::vec(0_usize..20, 0..40),
        ) {
            prop_assert_eq!(read_cut(&bytes, cuts), read_cut(&bytes, []));
        }

        #[test]
        fn message_takes_what_is_asked_for_or_a_byte_less(message_bytes in 24_usize..200_000) {
            let text = vec![b'x'; message_bytes - around_bytes(message_bytes)];
            let taken = message("", &text).len();
            prop_assert!((message_bytes - 1..=message_bytes).contains(&taken), "{}", taken);
        }
    }
}
