#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;
use crate::limits::BODY_BYTES_MAX;
use crate::wire::deflate::Deflater;
use crate::wire::frame::encode_client_frame;

const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
const MESSAGE_BYTES_MAX: usize = 16 * 1024;
const TEXT: OpCode = OpCode::Data(Data::Text);
const BINARY: OpCode = OpCode::Data(Data::Binary);
const CONTINUE: OpCode = OpCode::Data(Data::Continue);
const PING: OpCode = OpCode::Control(Control::Ping);

fn frame(opcode: OpCode, is_final: bool, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    encode_client_frame(&mut out, opcode, is_final, KEY, payload);
    out
}

fn close(payload: &[u8]) -> Vec<u8> {
    frame(OpCode::Control(Control::Close), true, payload)
}

fn text(message: &str) -> Incoming {
    Incoming::Text(Bytes::copy_from_slice(message.as_bytes()))
}

fn ping(payload: &[u8]) -> Incoming {
    let mut echoed = ControlPayload::default();
    echoed.push(payload);
    Incoming::Ping(echoed)
}

fn plain(message_bytes_max: usize) -> Assembler {
    Assembler::new(Intake::text(message_bytes_max))
}

fn inflating(message_bytes_max: usize) -> Assembler {
    Assembler::new(Intake {
        takes_deflated: true,
        ..Intake::text(message_bytes_max)
    })
}

/// The frame with its first reserved bit set.
fn marked(mut frame: Vec<u8>) -> Vec<u8> {
    frame[0] |= 0x40;
    frame
}

fn deflated(message: &str) -> Vec<u8> {
    let mut deflater = Deflater::new(1);
    deflater.deflate(message.as_bytes()).unwrap().to_vec()
}

type Transcript = (Vec<Incoming>, Option<WireError>);

/// Feeds `parts` as separate reads until an error, a close or their end.
fn read_parts<'a>(assembler: &mut Assembler, parts: impl Iterator<Item = &'a [u8]>) -> Transcript {
    let (mut messages, mut inflater) = (Vec::new(), Inflater::default());
    for part in parts {
        let mut input = part.to_vec();
        let mut rest = &mut input[..];
        loop {
            let (consumed, outcome) = assembler.feed(rest, &mut inflater);
            rest = &mut rest[consumed..];
            match outcome {
                Err(error) => return (messages, Some(error)),
                Ok(None) => break assert!(rest.is_empty(), "all of it is taken"),
                Ok(Some(close @ Incoming::Close { .. })) => {
                    messages.push(close);
                    return (messages, None);
                }
                Ok(Some(message)) => messages.push(message),
            }
        }
    }
    (messages, None)
}

/// Checks what `bytes` mean, whole, byte by byte, and cut once at each place.
fn check(bytes: &[u8], expected: &[Incoming], error: Option<WireError>) {
    check_of(|| plain(MESSAGE_BYTES_MAX), bytes, expected, error);
}

/// The same where permessage-deflate was agreed on.
fn check_deflated(bytes: &[u8], expected: &[Incoming], error: Option<WireError>) {
    check_of(|| inflating(MESSAGE_BYTES_MAX), bytes, expected, error);
}

fn check_of(
    new: impl Fn() -> Assembler,
    bytes: &[u8],
    expected: &[Incoming],
    error: Option<WireError>,
) {
    let expected = (expected.to_vec(), error);
    assert_eq!(
        read_parts(&mut new(), [bytes].into_iter()),
        expected,
        "{bytes:x?}"
    );
    assert_eq!(
        read_parts(&mut new(), bytes.chunks(1)),
        expected,
        "{bytes:x?} by the byte"
    );
    for cut in 0..bytes.len().min(600) {
        let (front, back) = bytes.split_at(cut);
        let found = read_parts(&mut new(), [front, back].into_iter());
        assert_eq!(found, expected, "{bytes:x?} cut at {cut}");
    }
}

fn check_error(bytes: &[u8], error: WireError, code: u16) {
    check(bytes, &[], Some(error));
    assert_eq!(error.close_reason().code(), code, "{error:?}");
}

#[test]
fn an_echo_takes_binary_messages_and_more_fragments() {
    let bytes = [
        frame(BINARY, true, b"\xff"),
        frame(BINARY, false, b"\xff"),
        frame(PING, true, b""),
        frame(CONTINUE, false, b"\xfe"),
        frame(CONTINUE, true, b""),
        frame(TEXT, true, b"a"),
        frame(TEXT, false, b"\xff"),
    ]
    .concat();
    let binary = |bytes: &'static [u8]| Incoming::Binary(Bytes::from_static(bytes));
    let messages = vec![binary(b"\xff"), ping(b""), binary(b"\xff\xfe"), text("a")];
    for part in 1..bytes.len() {
        let mut assembler = Assembler::new(Intake::ECHO);
        let found = read_parts(&mut assembler, bytes.chunks(part));
        assert_eq!(
            found,
            (messages.clone(), Some(WireError::NotUtf8)),
            "{part}"
        );
    }
    let fragments = |count: usize| {
        let middle = frame(CONTINUE, false, b"").repeat(count - 2);
        [
            frame(BINARY, false, b""),
            middle,
            frame(CONTINUE, true, b""),
        ]
        .concat()
    };
    let read = |bytes: &[u8]| {
        let mut assembler = Assembler::new(Intake::ECHO);
        read_parts(&mut assembler, [bytes].into_iter())
    };
    let most = ECHO_FRAGMENTS_MAX as usize;
    assert_eq!(read(&fragments(most)), (vec![binary(b"")], None));
    let too_many = (vec![], Some(WireError::TooManyFragments));
    assert_eq!(read(&fragments(most + 1)), too_many);
}

#[test]
fn messages_whole_and_in_fragments() {
    check(&frame(TEXT, true, b"hello"), &[text("hello")], None);
    check(&frame(TEXT, true, b""), &[text("")], None);
    check(
        &frame(TEXT, true, &[b'a'; 126]),
        &[text(&"a".repeat(126))],
        None,
    );
    let two = [frame(TEXT, true, b"one"), frame(TEXT, true, b"two")].concat();
    check(&two, &[text("one"), text("two")], None);
    let fragments = [
        frame(TEXT, false, b"a"),
        frame(CONTINUE, false, b""),
        frame(CONTINUE, true, b"b"),
    ];
    check(&fragments.concat(), &[text("ab")], None);
    let cut_in_a_character = [
        frame(TEXT, false, b"\xe2\x82"),
        frame(CONTINUE, true, b"\xac"),
    ];
    check(&cut_in_a_character.concat(), &[text("€")], None);
    check(
        &frame(OpCode::Control(Control::Pong), true, b"x"),
        &[Incoming::Pong],
        None,
    );
}

#[test]
fn control_frames_stand_between_fragments() {
    let bytes = [
        frame(TEXT, false, b"a"),
        frame(PING, true, b"are you there"),
        frame(CONTINUE, true, b"b"),
        frame(PING, true, &[b'p'; 125]),
    ];
    let expected = [ping(b"are you there"), text("ab"), ping(&[b'p'; 125])];
    check(&bytes.concat(), &expected, None);
}

#[test]
fn header_violations_close_with_1002() {
    check_error(&[0x81, 0x01, b'a'], WireError::Unmasked, 1002);
    for rsv in [0x40, 0x20, 0x10] {
        check_error(
            &[0x81 | rsv, 0x80, 0, 0, 0, 0],
            WireError::ReservedBits,
            1002,
        );
    }
    for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        check_error(
            &[0x80 | opcode, 0x80, 0, 0, 0, 0],
            WireError::UnknownOpcode,
            1002,
        );
    }
    check_error(&frame(PING, false, b""), WireError::ControlFragmented, 1002);
    check_error(
        &frame(PING, true, &[0; 126]),
        WireError::ControlTooLong,
        1002,
    );
    check_error(
        &[0x89, 0xff, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0],
        WireError::ControlTooLong,
        1002,
    );
}

#[test]
fn length_forms_close_with_1002() {
    check_error(&[0x81, 0xfe, 0, 125, 0, 0, 0, 0], WireError::Length, 1002);
    check_error(
        &[0x81, 0xff, 0, 0, 0, 0, 0, 0, 255, 255, 0, 0, 0, 0],
        WireError::Length,
        1002,
    );
    check_error(
        &[0x81, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        WireError::Length,
        1002,
    );
    check_error(
        &[
            0x81, 0xff, 255, 255, 255, 255, 255, 255, 255, 255, 0, 0, 0, 0,
        ],
        WireError::Length,
        1002,
    );
}

#[test]
fn continuation_rules_close_with_1002() {
    check_error(&frame(CONTINUE, true, b"x"), WireError::Continuation, 1002);
    let interrupted = [frame(TEXT, false, b"a"), frame(TEXT, true, b"b")].concat();
    check_error(&interrupted, WireError::MessageInterrupted, 1002);
    let closed = [
        frame(TEXT, false, b"a"),
        frame(CONTINUE, true, b"b"),
        frame(CONTINUE, true, b"c"),
    ];
    check(
        &closed.concat(),
        &[text("ab")],
        Some(WireError::Continuation),
    );
}

#[test]
fn text_that_is_not_utf8_closes_with_1007() {
    check_error(&frame(TEXT, true, b"a\xffb"), WireError::NotUtf8, 1007);
    check_error(&frame(TEXT, true, b"\xe2\x82"), WireError::NotUtf8, 1007);
    let open_ended = [frame(TEXT, false, b"\xe2"), frame(CONTINUE, true, b"")].concat();
    check_error(&open_ended, WireError::NotUtf8, 1007);
}

#[test]
fn wrong_utf8_is_refused_before_the_message_ends() {
    let mut assembler = plain(MESSAGE_BYTES_MAX);
    let bytes = frame(TEXT, true, b"a\xffbcdef");
    let (messages, error) = read_parts(&mut assembler, [&bytes[..8]].into_iter());
    assert_eq!((messages, error), (vec![], Some(WireError::NotUtf8)));
}

#[test]
fn binary_closes_with_1003() {
    check_error(
        &frame(OpCode::Data(Data::Binary), true, b"x"),
        WireError::Binary,
        1003,
    );
    check_error(
        &frame(OpCode::Data(Data::Binary), false, b""),
        WireError::Binary,
        1003,
    );
}

#[test]
fn close_payloads() {
    let expect = |code: Option<u16>, reason: &str| Incoming::Close {
        code,
        reason: reason.into(),
    };
    check(&close(b""), &[expect(None, "")], None);
    check(&close(b"\x03\xe8bye"), &[expect(Some(1000), "bye")], None);
    check(&close(b"\x13\x87"), &[expect(Some(4999), "")], None);
    let followed = [close(b"\x03\xe8"), frame(TEXT, true, b"late")].concat();
    check(&followed, &[expect(Some(1000), "")], None);
    check_error(&close(b"\x03"), WireError::CloseLength, 1002);
    for code in [
        0u16, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535,
    ] {
        check_error(&close(&code.to_be_bytes()), close_code_error(code), 1002);
    }
    check_error(&close(b"\x03\xe8\xff"), WireError::NotUtf8, 1007);
}

fn close_code_error(code: u16) -> WireError {
    assert!(!(3000..5000).contains(&code));
    WireError::CloseCode
}

#[test]
fn the_size_limit_holds_over_fragments_and_before_the_payload() {
    let whole = frame(TEXT, true, &[b'a'; MESSAGE_BYTES_MAX]);
    check(&whole, &[text(&"a".repeat(MESSAGE_BYTES_MAX))], None);
    let over = frame(TEXT, true, &[b'a'; MESSAGE_BYTES_MAX + 1]);
    check_error(&over[..8], WireError::MessageTooBig, 1009);
    let joined = [
        frame(TEXT, false, &[b'a'; 10_000]),
        frame(CONTINUE, true, &[b'b'; 6_385]),
    ];
    check_error(&joined.concat(), WireError::MessageTooBig, 1009);
    check_error(
        &[
            0x81, 0xff, 0x7f, 255, 255, 255, 255, 255, 255, 255, 0, 0, 0, 0,
        ],
        WireError::MessageTooBig,
        1009,
    );
}

#[test]
fn more_than_64_fragments_close_with_1008() {
    let mut bytes = frame(TEXT, false, b"a");
    for _ in 1..FRAGMENTS_MAX - 1 {
        bytes.extend(frame(CONTINUE, false, b""));
    }
    let complete = [bytes.clone(), frame(CONTINUE, true, b"z")].concat();
    check(&complete, &[text("az")], None);
    bytes.extend(frame(CONTINUE, false, b""));
    bytes.extend(frame(CONTINUE, true, b""));
    check_error(&bytes, WireError::TooManyFragments, 1008);
}

#[test]
fn deflated_messages_are_read_beside_plain_ones() {
    let long = "ab€ ".repeat(50);
    let payload = deflated(&long);
    let (front, back) = payload.split_at(5);
    let bytes = [
        frame(TEXT, true, b"plain"),
        marked(frame(TEXT, true, &payload)),
        marked(frame(TEXT, false, front)),
        frame(PING, true, b"between"),
        frame(CONTINUE, false, b""),
        frame(CONTINUE, true, back),
        frame(TEXT, false, b"pl"),
        frame(CONTINUE, true, b"ain"),
        marked(frame(TEXT, true, &[0])),
    ];
    let expected = [
        text("plain"),
        text(&long),
        ping(b"between"),
        text(&long),
        text("plain"),
        text(""),
    ];
    check_deflated(&bytes.concat(), &expected, None);
}

#[test]
fn the_reserved_bits_are_of_the_first_frame_of_a_deflated_message_alone() {
    let check = |bytes: &[u8], error: WireError, code: u16| {
        check_deflated(bytes, &[], Some(error));
        assert_eq!(error.close_reason().code(), code, "{error:?}");
    };
    let payload = deflated(&"a".repeat(100));
    let continued = [
        marked(frame(TEXT, false, &payload)),
        marked(frame(CONTINUE, true, b"")),
    ];
    check(&continued.concat(), WireError::ReservedBits, 1002);
    let late = [
        frame(TEXT, false, b""),
        marked(frame(CONTINUE, true, &payload)),
    ];
    check(&late.concat(), WireError::ReservedBits, 1002);
    check(
        &marked(frame(PING, true, b"")),
        WireError::ReservedBits,
        1002,
    );
    check(&marked(close(b"")), WireError::ReservedBits, 1002);
    for bit in [0x20, 0x10, 0x60, 0x70] {
        let header = [0x81 | bit, 0x80, 0, 0, 0, 0];
        check(&header, WireError::ReservedBits, 1002);
    }
    let binary = frame(OpCode::Data(Data::Binary), true, &payload);
    check(&marked(binary), WireError::Binary, 1003);
    check_error(
        &marked(frame(TEXT, true, &payload)),
        WireError::ReservedBits,
        1002,
    );
}

#[test]
fn what_cannot_be_inflated_or_read_closes_with_1007() {
    let check = |payload: &[u8], error: WireError| {
        check_deflated(&marked(frame(TEXT, true, payload)), &[], Some(error));
        let (front, back) = payload.split_at(payload.len() / 2);
        let parts = [
            marked(frame(TEXT, false, front)),
            frame(CONTINUE, true, back),
        ];
        check_deflated(&parts.concat(), &[], Some(error));
        assert_eq!(error.close_reason().code(), 1007);
    };
    check(b"", WireError::Deflated);
    check(b"no deflate", WireError::Deflated);
    let whole = deflated(&"abc".repeat(100));
    check(&whole[..whole.len() - 1], WireError::Deflated);
    let mut latin = Deflater::new(1);
    check(latin.deflate(&[0xe9; 200]).unwrap(), WireError::NotUtf8);
}

#[test]
fn the_size_limit_holds_before_and_after_inflating() {
    let check = |bytes: &[u8]| {
        check_deflated(bytes, &[], Some(WireError::MessageTooBig));
    };
    let fits = "a".repeat(MESSAGE_BYTES_MAX);
    let bytes = marked(frame(TEXT, true, &deflated(&fits)));
    check_deflated(&bytes, &[text(&fits)], None);
    check(&marked(frame(TEXT, true, &deflated(&(fits + "a")))));
    // Only claimed, whole and in parts.
    check(&[0xc1, 0xff, 0, 0, 0, 0, 0, 0x10, 0, 0, 0, 0, 0, 0]);
    let parts = [
        marked(frame(TEXT, false, &[0; 16_000])),
        frame(CONTINUE, true, &[0; 3_000]),
    ];
    check(&parts.concat());
    // A plain message has its own limit still.
    check(&frame(TEXT, true, &[b'a'; MESSAGE_BYTES_MAX + 1])[..8]);
}

#[test]
fn a_claimed_length_reserves_only_what_arrives() {
    let mut assembler = plain(BODY_BYTES_MAX);
    let whole = frame(TEXT, true, &vec![b'a'; BODY_BYTES_MAX]);
    read_parts(&mut assembler, [&whole[..15]].into_iter());
    assert!(
        assembler.buffered_bytes() <= 64,
        "{}",
        assembler.buffered_bytes()
    );
    read_parts(&mut assembler, [&whole[15..100_000]].into_iter());
    assert!(
        assembler.buffered_bytes() <= 200_000,
        "{}",
        assembler.buffered_bytes()
    );
    read_parts(
        &mut assembler,
        whole[100_000..whole.len() - 1].chunks(65_536),
    );
    assert!(
        assembler.buffered_bytes() <= BODY_BYTES_MAX,
        "{}",
        assembler.buffered_bytes()
    );
    let (messages, error) = read_parts(&mut assembler, [&whole[whole.len() - 1..]].into_iter());
    assert_eq!((messages.len(), error), (1, None));
}

#[test]
fn an_idle_connection_holds_nothing() {
    assert!(size_of::<Assembler>() <= 40, "{}", size_of::<Assembler>());
    let mut assembler = plain(MESSAGE_BYTES_MAX);
    let bytes = [
        frame(TEXT, false, b"a"),
        frame(PING, true, b"p"),
        frame(CONTINUE, true, b"b"),
    ];
    let bytes = bytes.concat();
    read_parts(&mut assembler, bytes[..bytes.len() - 1].chunks(1));
    assert!(!assembler.is_idle());
    read_parts(&mut assembler, [&bytes[bytes.len() - 1..]].into_iter());
    assert!(assembler.is_idle() && assembler.partial.is_none());
    read_parts(&mut assembler, frame(PING, true, b"payload").chunks(1));
    assert!(assembler.is_idle() && assembler.partial.is_none());
}

/// A run of frames that a client may send, and what the server then sees.
fn conversation() -> impl Strategy<Value = (Vec<u8>, Vec<Incoming>)> {
    let message = prop_oneof![
        (
            any::<String>(),
            proptest::collection::vec(any::<prop::sample::Index>(), 0..5),
            any::<[u8; 4]>()
        )
            .prop_map(|(message, cuts, key)| fragmented(&message, &cuts, key)),
        (proptest::collection::vec(any::<u8>(), 0..=125))
            .prop_map(|payload| (frame(PING, true, &payload), vec![ping(&payload)])),
    ];
    proptest::collection::vec(message, 1..6).prop_map(|messages| {
        let (bytes, seen): (Vec<_>, Vec<_>) = messages.into_iter().unzip();
        (bytes.concat(), seen.concat())
    })
}

/// One text in fragments, with a ping after each but the last.
fn fragmented(
    message: &str,
    cuts: &[prop::sample::Index],
    key: [u8; 4],
) -> (Vec<u8>, Vec<Incoming>) {
    let mut places: Vec<usize> = cuts
        .iter()
        .map(|cut| cut.index(message.len() + 1))
        .collect();
    places.extend([0, message.len()]);
    places.sort_unstable();
    let (mut bytes, mut seen) = (Vec::new(), Vec::new());
    let parts: Vec<_> = places
        .windows(2)
        .map(|w| &message.as_bytes()[w[0]..w[1]])
        .collect();
    for (index, part) in parts.iter().enumerate() {
        let is_final = index + 1 == parts.len();
        let opcode = if index == 0 { TEXT } else { CONTINUE };
        encode_client_frame(&mut bytes, opcode, is_final, key, part);
        if !is_final {
            bytes.extend(frame(PING, true, b"between"));
            seen.push(ping(b"between"));
        }
    }
    seen.push(text(message));
    (bytes, seen)
}

/// `bytes` in parts whose lengths repeat `lens`.
fn cut<'a>(mut bytes: &'a [u8], lens: &'a [usize]) -> impl Iterator<Item = &'a [u8]> {
    lens.iter().cycle().map_while(move |len| {
        let (part, rest) = bytes.split_at((*len).min(bytes.len()));
        bytes = rest;
        (!part.is_empty()).then_some(part)
    })
}

proptest! {
    #[test]
    fn what_clients_encode_is_what_we_read_however_it_is_cut(
        (bytes, seen) in conversation(),
        lens in proptest::collection::vec(1usize..40, 1..8),
    ) {
        let mut assembler = plain(MESSAGE_BYTES_MAX);
        let found = read_parts(&mut assembler, cut(&bytes, &lens));
        prop_assert_eq!(found, (seen, None));
        prop_assert!(assembler.is_idle());
    }

    #[test]
    fn any_bytes_mean_the_same_however_they_are_cut(
        bytes in proptest::collection::vec(
            prop_oneof![
                any::<u8>(), Just(0x81), Just(0x01), Just(0x80), Just(0x89), Just(0x83), Just(0xc1),
            ],
            0..200,
        ),
        lens in proptest::collection::vec(1usize..20, 1..8),
    ) {
        for new in [plain, inflating] {
            let whole = read_parts(&mut new(100), [&bytes[..]].into_iter());
            let parts = read_parts(&mut new(100), cut(&bytes, &lens));
            prop_assert_eq!(parts, whole);
        }
    }
}
