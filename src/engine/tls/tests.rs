#![allow(clippy::unwrap_used)]

use std::io::Read;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::LazyLock;

use proptest::prelude::*;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConnection, ProtocolVersion, SupportedProtocolVersion};

use super::certificates::{Certificates, read_pair, server_config};
use super::*;
use crate::limits::{READ_BYTES_PER_TURN, TLS_SEAL_BYTES_MAX};

/// A stream, the client at the other end of its socket, and what the client heard.
struct Rig {
    server: TlsStream,
    scratch: Scratch,
    client: ClientConnection,
    wire: UnixStream,
    heard: Vec<u8>,
}

impl Rig {
    /// Before the first byte.
    fn new(version: &'static SupportedProtocolVersion) -> Self {
        static CONFIG: LazyLock<Arc<ServerConfig>> = LazyLock::new(|| {
            let (chain, key) = test_pair::pems();
            let pair = read_pair(chain.as_bytes(), key.as_bytes()).unwrap();
            server_config(Certificates::new(pair)).unwrap()
        });
        let (own, wire) = UnixStream::pair().unwrap();
        own.set_nonblocking(true).unwrap();
        wire.set_nonblocking(true).unwrap();
        let socket = Socket::Unix(mio::net::UnixStream::from_std(own));
        Self {
            server: TlsStream::new(socket, Arc::clone(&CONFIG)),
            scratch: Scratch::default(),
            client: test_pair::client(version),
            wire,
            heard: Vec::new(),
        }
    }

    /// After the handshake.
    fn open() -> Self {
        let mut rig = Self::new(&TLS13);
        let (terms, rest) = rig.shake(&|said| vec![said]);
        assert_eq!(rest, b"");
        assert!(terms.is_tls13 && !terms.is_resumed);
        rig
    }

    /// Shakes hands, the client's bytes cut by `cut`. Returns the terms, and what the server has
    /// read when the last of them is there.
    fn shake(&mut self, cut: &dyn Fn(Vec<u8>) -> Vec<Vec<u8>>) -> (Terms, Vec<u8>) {
        let (mut terms, mut read) = (None, Vec::new());
        loop {
            let said = self.said();
            if said.is_empty() {
                break (terms.unwrap(), read);
            }
            for piece in cut(said) {
                self.wire.write_all(&piece).unwrap();
                if terms.is_some() {
                    read.extend(self.read());
                    continue;
                }
                match self.server.handshake(&mut self.scratch).unwrap() {
                    Handshake::Finished(agreed) => {
                        terms = Some(agreed);
                        read.extend(self.read());
                    }
                    Handshake::Unfinished(_) => {}
                }
            }
            self.listen();
        }
    }

    /// What the client wants to say, sealed.
    fn said(&mut self) -> Vec<u8> {
        let mut said = Vec::new();
        while self.client.wants_write() {
            self.client.write_tls(&mut said).unwrap();
        }
        said
    }

    /// Bytes of the client, sealed.
    fn seal(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut sealed = Vec::new();
        for part in bytes.chunks(16 * 1024) {
            self.client.writer().write_all(part).unwrap();
            sealed.extend(self.said());
        }
        sealed
    }

    /// The client takes in what is on its way. Returns whether that is the end of it.
    fn listen(&mut self) -> bool {
        loop {
            match self.client.read_tls(&mut self.wire) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::WouldBlock);
                    return false;
                }
            }
            self.client.process_new_packets().unwrap();
            match self.client.reader().read_to_end(&mut self.heard) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                outcome => drop(outcome.unwrap()),
            }
        }
    }

    /// All that the server can read now.
    fn read(&mut self) -> Vec<u8> {
        let (mut read, mut buf) = (Vec::new(), [0; 4096]);
        loop {
            let received = self.server.read(&mut buf, &mut self.scratch).unwrap();
            read.extend_from_slice(&buf[..received.bytes]);
            if received.rest != Rest::More {
                return read;
            }
        }
    }

    fn write(&mut self, bytes: &[u8]) -> Written {
        self.server
            .write_vectored(&[IoSlice::new(bytes)], &mut self.scratch)
            .unwrap()
    }

    /// Writes pieces of this length until the kernel is full. Returns what was taken.
    fn fill(&mut self, length: u32) -> Vec<u8> {
        let mut taken: Vec<u8> = Vec::new();
        loop {
            let piece: Vec<u8> = (0..length)
                .map(|n| (n as usize + taken.len()) as u8)
                .collect();
            let written = self.write(&piece);
            assert!(written.bytes <= TLS_SEAL_BYTES_MAX, "{written:?}");
            taken.extend_from_slice(&piece[..written.bytes]);
            if written.is_blocked {
                return taken;
            }
        }
    }
}

#[test]
fn a_handshake_cut_anywhere_is_the_same() {
    for version in [&TLS12, &TLS13] {
        let mut rig = Rig::new(version);
        rig.client.writer().write_all(b"and so on").unwrap();
        let length = rig.said().len();
        for at in 1..length {
            let mut rig = Rig::new(version);
            rig.client.writer().write_all(b"and so on").unwrap();
            let (terms, read) = rig.shake(&|said| {
                let (one, two) = said.split_at(at.min(said.len()));
                vec![one.to_vec(), two.to_vec()]
            });
            assert_eq!(terms.is_tls13, version.version == ProtocolVersion::TLSv1_3);
            assert_eq!(read, b"and so on", "cut at {at}");
        }
    }
}

#[test]
fn a_handshake_byte_by_byte_takes_no_longer_than_its_bytes() {
    let mut rig = Rig::new(&TLS13);
    let (_, read) = rig.shake(&|said| said.iter().map(|byte| vec![*byte]).collect());
    assert_eq!(read, b"");
    assert!(!rig.server.is_handshaking());
}

#[test]
fn a_first_message_in_many_records_is_the_same() {
    let mut rig = Rig::new(&TLS13);
    let first = rig.said();
    let (header, message) = first.split_at(5);
    for part in message.chunks(50) {
        let mut record = header[..3].to_vec();
        record.extend(u16::try_from(part.len()).unwrap().to_be_bytes());
        record.extend(part);
        rig.wire.write_all(&record).unwrap();
        rig.server.handshake(&mut rig.scratch).unwrap();
    }
    rig.listen();
    let (terms, read) = rig.shake(&|said| vec![said]);
    assert!(terms.is_tls13);
    assert_eq!(read, b"");
}

#[test]
fn who_keeps_others_waiting_shares_their_room() {
    let (mut one, mut two) = (Rig::open(), Rig::open());
    let (first, second) = (one.seal(b"of one"), two.seal(b"of the other"));
    one.wire.write_all(&first[..9]).unwrap();
    assert_eq!(one.read(), b"");
    std::mem::swap(&mut one.scratch, &mut two.scratch);
    two.wire.write_all(&second).unwrap();
    assert_eq!(two.read(), b"of the other");
    one.write(b"while a record is begun");
    std::mem::swap(&mut one.scratch, &mut two.scratch);
    one.wire.write_all(&first[9..]).unwrap();
    assert_eq!(one.read(), b"of one");
    one.listen();
    assert_eq!(one.heard, b"while a record is begun");
}

#[test]
fn records_cut_anywhere_are_the_same() {
    let mut rig = Rig::open();
    let length = rig.seal(b"some bytes").len();
    let mut rig = Rig::open();
    for at in 0..=length {
        let sealed = rig.seal(b"some bytes");
        rig.wire.write_all(&sealed[..at]).unwrap();
        let mut read = rig.read();
        rig.wire.write_all(&sealed[at..]).unwrap();
        read.extend(rig.read());
        assert_eq!(read, b"some bytes", "cut at {at}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// However bytes are sealed, cut, and read: those come out that went in, within each budget.
    #[test]
    fn bytes_come_out_as_they_went_in(
        messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20_000), 1..5),
        cuts in prop::collection::vec(1..9_000_usize, 1..8),
        rooms in prop::collection::vec(1..9_000_usize, 1..8),
    ) {
        let mut rig = Rig::open();
        let sealed: Vec<u8> = messages.iter().flat_map(|message| rig.seal(message)).collect();
        let (mut cuts, mut rooms) = (cuts.iter().cycle(), rooms.iter().cycle());
        let (mut rest, mut read) = (sealed.as_slice(), Vec::new());
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(rest.len().min(*cuts.next().unwrap()));
            rig.wire.write_all(piece).unwrap();
            rest = after;
            loop {
                let mut buf = vec![0; *rooms.next().unwrap()];
                let received = rig.server.read(&mut buf, &mut rig.scratch).unwrap();
                prop_assert!(received.cost() <= buf.len());
                read.extend_from_slice(&buf[..received.bytes]);
                if received.rest != Rest::More {
                    break;
                }
            }
        }
        prop_assert_eq!(read, messages.concat());
    }
}

#[test]
fn bytes_that_yield_nothing_use_up_the_budget() {
    let mut rig = Rig::open();
    let sealed = rig.seal(&[7; 16_000]);
    rig.wire.write_all(&sealed[..9_000]).unwrap();
    let mut buf = vec![0; READ_BYTES_PER_TURN];
    let received = rig
        .server
        .read(&mut buf[..4_000], &mut rig.scratch)
        .unwrap();
    let expected = Received {
        bytes: 0,
        taken: 4_000,
        rest: Rest::More,
    };
    assert_eq!(received, expected);
    assert_eq!(received.cost(), 4_000);
    let received = rig.server.read(&mut buf, &mut rig.scratch).unwrap();
    assert_eq!((received.bytes, received.taken), (0, 5_000));
    assert_eq!(received.rest, Rest::Short);
    rig.wire.write_all(&sealed[9_000..]).unwrap();
    // What was taken before yields more than this read takes.
    let received = rig.server.read(&mut buf, &mut rig.scratch).unwrap();
    assert_eq!(received.bytes, 16_000);
    assert!(received.taken < 8_000, "{received:?}");
}

#[test]
fn bytes_inside_are_told_of_though_the_socket_is_empty() {
    let mut rig = Rig::open();
    let sealed = rig.seal(b"0123456789");
    rig.wire.write_all(&sealed).unwrap();
    let mut buf = [0; 4];
    for expected in [&b"0123"[..], b"4567", b"89"] {
        let mut all = Vec::new();
        let rest = loop {
            let received = rig.server.read(&mut buf, &mut rig.scratch).unwrap();
            all.extend_from_slice(&buf[..received.bytes]);
            if received.bytes > 0 || received.rest != Rest::More {
                break received.rest;
            }
        };
        assert_eq!(all, expected);
        assert_eq!(rest == Rest::More, expected.len() == 4);
    }
}

#[test]
fn a_handshake_that_goes_on_and_on_is_refused() {
    let mut rig = Rig::new(&TLS13);
    // The beginning of a ClientHello of 65,535 bytes, in records of 4,000.
    let mut hello = vec![1, 0, 0xff, 0xff];
    hello.resize(60_000, 0);
    let mut records = Vec::new();
    for part in hello.chunks(4_000) {
        records.extend([22, 3, 1]);
        records.extend(u16::try_from(part.len()).unwrap().to_be_bytes());
        records.extend(part);
    }
    let (allowed, more) = records.split_at(TLS_HANDSHAKE_BYTES_MAX - 1);
    rig.wire.write_all(allowed).unwrap();
    let step = rig.server.handshake(&mut rig.scratch).unwrap();
    assert_eq!(step, Handshake::Unfinished(Rest::Short));
    rig.wire.write_all(more).unwrap();
    let error = rig.server.handshake(&mut rig.scratch).unwrap_err();
    assert!(matches!(error, HandshakeError::TooLong), "{error}");
}

#[test]
fn many_small_frames_leave_as_one_record() {
    let mut rig = Rig::open();
    let frames: Vec<Vec<u8>> = (0..64).map(|n| vec![n; 100]).collect();
    let slices: Vec<_> = frames.iter().map(|frame| IoSlice::new(frame)).collect();
    let written = rig
        .server
        .write_vectored(&slices, &mut rig.scratch)
        .unwrap();
    assert_eq!((written.bytes, written.is_blocked), (6_400, false));
    let mut sealed = vec![0; 10_000];
    let length = rig.wire.read(&mut sealed).unwrap();
    let (head, body) = sealed[..length].split_at(5);
    assert_eq!(
        usize::from(u16::from_be_bytes([head[3], head[4]])),
        body.len()
    );
    rig.client.read_tls(&mut &sealed[..4_096]).unwrap();
    rig.client.read_tls(&mut &sealed[4_096..length]).unwrap();
    rig.client.process_new_packets().unwrap();
    rig.listen();
    let mut heard = vec![0; 6_400];
    rig.client.reader().read_exact(&mut heard).unwrap();
    assert_eq!(heard, frames.concat());
}

#[test]
fn what_is_sealed_and_left_over_goes_first() {
    for length in [1_000, 100_000] {
        let mut rig = Rig::open();
        let mut taken = rig.fill(length);
        assert!(rig.server.wants_write());
        let refused = rig.write(b"not yet");
        assert_eq!((refused.bytes, refused.is_blocked), (0, true));
        // What the kernel has not is at most what was sealed at once.
        rig.listen();
        let missing = taken.len() - rig.heard.len();
        assert!(missing <= TLS_SEAL_BYTES_MAX.min(length as usize));
        rig.server.flush().unwrap();
        assert!(!rig.server.wants_write());
        let written = rig.write(b"and now this");
        assert_eq!((written.bytes, written.is_blocked), (12, false));
        taken.extend_from_slice(b"and now this");
        rig.listen();
        assert!(rig.heard == taken);
    }
}

#[test]
fn an_end_waits_for_what_was_taken_before() {
    let mut rig = Rig::open();
    let taken = rig.fill(100_000);
    rig.server.shutdown_write().unwrap();
    assert!(rig.server.wants_write());
    assert!(!rig.listen(), "ended before all was there");
    rig.server.flush().unwrap();
    assert!(!rig.server.wants_write());
    assert!(rig.listen());
    assert!(rig.heard == taken);
    // The goodbye came: the client's own reading ends cleanly, and the socket too.
    assert_eq!(rig.client.reader().read(&mut [0]).unwrap(), 0);
    rig.wire.set_nonblocking(false).unwrap();
    assert_eq!(rig.wire.read(&mut [0]).unwrap(), 0);
    // The other half lives on.
    let sealed = rig.seal(b"answer");
    rig.wire.write_all(&sealed).unwrap();
    assert_eq!(rig.read(), b"answer");
}

#[test]
fn an_end_is_an_end_with_or_without_a_goodbye() {
    for says_goodbye in [false, true] {
        let mut rig = Rig::open();
        let mut sealed = rig.seal(b"last words");
        if says_goodbye {
            rig.client.send_close_notify();
            sealed.extend(rig.said());
            sealed.extend(b"what follows a goodbye is nothing");
        }
        rig.wire.write_all(&sealed).unwrap();
        rig.wire.shutdown(Shutdown::Write).unwrap();
        let mut buf = [0; 64];
        let received = rig.server.read(&mut buf, &mut rig.scratch).unwrap();
        assert_eq!(&buf[..received.bytes], b"last words");
        for _ in 0..3 {
            let received = rig.server.read(&mut buf, &mut rig.scratch).unwrap();
            assert_eq!((received.bytes, received.rest), (0, Rest::End));
        }
    }
}

#[test]
fn new_keys_are_taken_and_answered() {
    let mut rig = Rig::open();
    for _ in 0..3 {
        rig.client.refresh_traffic_keys().unwrap();
        let sealed = rig.seal(b"under new keys");
        rig.wire.write_all(&sealed).unwrap();
        assert_eq!(rig.read(), b"under new keys");
        assert!(!rig.server.wants_write());
        rig.write(b"as are these");
        rig.listen();
        assert_eq!(std::mem::take(&mut rig.heard), b"as are these");
    }
}

#[test]
fn a_broken_record_is_an_error_and_the_peer_is_told() {
    let mut rig = Rig::open();
    let mut sealed = rig.seal(b"some bytes");
    *sealed.last_mut().unwrap() ^= 1;
    rig.wire.write_all(&sealed).unwrap();
    let error = rig.server.read(&mut [0; 64], &mut rig.scratch).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidData);
    rig.client.read_tls(&mut rig.wire).unwrap();
    let told = rig.client.process_new_packets().unwrap_err();
    assert!(matches!(told, rustls::Error::AlertReceived(_)), "{told}");
    rig.server.shutdown_write().unwrap();
    assert_eq!(rig.wire.read(&mut [0]).unwrap(), 0, "no goodbye behind it");
}

#[test]
fn a_session_that_broke_inside_a_message_is_left_alone() {
    let mut rig = Rig::new(&TLS13);
    // A message that has only begun, and a record that may not come before its end.
    rig.wire.write_all(&[22, 3, 1, 0, 1, 1]).unwrap();
    rig.wire.write_all(&[23, 3, 3, 0, 1, 0]).unwrap();
    let error = rig.server.handshake(&mut rig.scratch).unwrap_err();
    assert!(matches!(error, HandshakeError::Protocol(_)), "{error}");
    // rustls would look for the message in what it is shown now.
    let _ = rig
        .server
        .write_vectored(&[IoSlice::new(b"more")], &mut rig.scratch);
    rig.server.shutdown_write().unwrap();
}

#[test]
fn who_does_not_speak_tls_is_told_apart() {
    let refused = |first: &[u8]| {
        let mut rig = Rig::new(&TLS13);
        rig.wire.write_all(first).unwrap();
        rig.wire.shutdown(Shutdown::Write).unwrap();
        loop {
            match rig.server.handshake(&mut rig.scratch) {
                Ok(Handshake::Unfinished(_)) => {}
                Ok(Handshake::Finished(_)) => panic!("{first:?} is no handshake"),
                Err(error) => break error,
            }
        }
    };
    assert!(matches!(refused(b""), HandshakeError::Gone));
    assert!(matches!(refused(b"\x16\x03\x01"), HandshakeError::Gone));
    assert!(matches!(refused(b"G"), HandshakeError::PlainHttp));
    assert!(matches!(
        refused(b"POST / HTTP/1.1\r\n"),
        HandshakeError::PlainHttp
    ));
    for garbage in [&[0xff; 64][..], &[0; 64], b"\x16\x03\x01\xff\xff......"] {
        let error = refused(garbage);
        assert!(matches!(error, HandshakeError::Protocol(_)), "{error}");
    }
}
