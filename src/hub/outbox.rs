//! The bytes that one connection still has to be sent: references into shared batches, and frames
//! of its own, which others may be sent as well. Order is the order of pushing, but for urgent frames (ping, pong), which go
//! ahead of everything that is not yet on its way, never into the middle of a frame.
//!
//! Invariant: `bytes` is the sum of the unwritten bytes of all chunks.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::rc::Rc;

use crate::event::Seq;
use crate::limits::PONGS_QUEUED_MAX;

use super::frames::{FrameBatch, Variant};
use super::streams::StreamSlot;

/// What a chunk of the connection's own is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnKind {
    /// One WebSocket frame: a server message, an ack, a close.
    Frame,
    /// A heartbeat's ping.
    Ping,
    /// The answer to a ping of the peer's.
    Pong,
    /// Bytes that are no frame: an HTTP answer.
    Raw,
}

#[derive(Debug)]
enum Chunk {
    Own {
        bytes: Rc<[u8]>,
        kind: OwnKind,
    },
    Shared {
        batch: Rc<FrameBatch>,
        variant: Variant,
        // Sent as it came, and not long after: how long it took is looked at.
        is_live: bool,
        start: u32,
        end: u32,
    },
}

/// What a write or a discard has done to the outbox.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gone {
    /// Bytes that left.
    pub bytes: usize,
    /// Frames whose last byte left.
    pub frames: usize,
    /// Whether a heartbeat's ping was among them.
    pub ping: bool,
}

/// A connection's queue of bytes to write.
#[derive(Debug, Default)]
pub struct Outbox {
    chunks: VecDeque<Chunk>,
    // Bytes of the front chunk that are written already.
    front_offset: usize,
    bytes: usize,
}

/// Chunks whose memory an idle connection keeps: an event alone, as most come, then allocates nothing.
const CHUNKS_KEPT: usize = 1;

impl Outbox {
    /// Unwritten bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether everything is written.
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// Queues frames `first..=last` of a shared batch.
    pub fn push_shared(
        &mut self,
        batch: &Rc<FrameBatch>,
        variant: Variant,
        first: usize,
        last: usize,
    ) {
        let range = batch.range(variant, first, last + 1);
        self.push_range(batch, variant, range, true);
    }

    /// The same of frames that were missed: they are old, whoever writes them.
    pub fn push_missed(
        &mut self,
        batch: &Rc<FrameBatch>,
        variant: Variant,
        first: usize,
        last: usize,
    ) {
        let range = batch.range(variant, first, last + 1);
        self.push_range(batch, variant, range, false);
    }

    fn push_range(
        &mut self,
        batch: &Rc<FrameBatch>,
        variant: Variant,
        (start, end): (u32, u32),
        is_live: bool,
    ) {
        self.bytes += (end - start) as usize;
        if let Some(Chunk::Shared {
            batch: back,
            end: back_end,
            ..
        }) = self.chunks.back_mut()
            && Rc::ptr_eq(back, batch)
            && *back_end == start
        {
            *back_end = end;
            return;
        }
        self.chunks.push_back(Chunk::Shared {
            batch: Rc::clone(batch),
            variant,
            is_live,
            start,
            end,
        });
    }

    /// Queues bytes behind all others.
    pub fn push_own(&mut self, bytes: impl Into<Rc<[u8]>>, kind: OwnKind) {
        let bytes = bytes.into();
        self.bytes += bytes.len();
        self.chunks.push_back(Chunk::Own { bytes, kind });
    }

    /// Queues a control frame ahead of everything that is not yet on its way, behind others of its
    /// like. Of pongs at most `PONGS_QUEUED_MAX` wait, of pings one: a further one displaces the
    /// oldest (RFC 6455 §5.5.3 asks that the latest ping be answered). Returns what that was.
    pub fn push_urgent(&mut self, bytes: Vec<u8>, kind: OwnKind) -> Gone {
        let mut at = self.cut_front();
        let (mut oldest, mut alike) = (at, 0);
        while let Some(waiting) = self.chunks.get(at).and_then(Chunk::urgent_kind) {
            if waiting == kind {
                if alike == 0 {
                    oldest = at;
                }
                alike += 1;
            }
            at += 1;
        }
        let alike_max = match kind {
            OwnKind::Pong => PONGS_QUEUED_MAX,
            OwnKind::Frame | OwnKind::Ping | OwnKind::Raw => 1,
        };
        let mut gone = Gone::default();
        if alike == alike_max {
            gone = self.remove(oldest);
            at -= 1;
        }
        self.insert_own(at, bytes, kind);
        gone
    }

    /// The bytes to write next, at most `slices.len()` pieces; returns how many were filled.
    pub fn io_slices<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut filled = 0;
        for (slice, chunk) in slices.iter_mut().zip(&self.chunks) {
            let skip = if filled == 0 { self.front_offset } else { 0 };
            *slice = IoSlice::new(&chunk.bytes()[skip..]);
            filled += 1;
        }
        filled
    }

    /// All there is to write, where it is one piece.
    pub fn only_piece(&self) -> Option<&[u8]> {
        let is_one = self.chunks.len() == 1;
        let chunk = self.chunks.front().filter(|_| is_one)?;
        Some(&chunk.bytes()[self.front_offset..])
    }

    /// Takes `written` bytes off the front. `on_batch` sees each live chunk that is now written.
    pub fn handle_written(
        &mut self,
        written: usize,
        mut on_batch: impl FnMut(&FrameBatch),
    ) -> Gone {
        debug_assert!(written <= self.bytes);
        let mut gone = Gone {
            bytes: written,
            ..Gone::default()
        };
        let mut left = written;
        while let Some(front) = self.chunks.front() {
            let rest = front.bytes().len() - self.front_offset;
            if left < rest {
                gone.frames += front.frames_ending(self.front_offset, self.front_offset + left);
                self.front_offset += left;
                break;
            }
            left -= rest;
            gone.frames += front.frames_ending(self.front_offset, self.front_offset + rest);
            gone.ping |= matches!(
                front,
                Chunk::Own {
                    kind: OwnKind::Ping,
                    ..
                }
            );
            if let Chunk::Shared {
                batch,
                is_live: true,
                ..
            } = front
            {
                on_batch(batch);
            }
            self.chunks.pop_front();
            self.front_offset = 0;
        }
        self.bytes -= written;
        if self.chunks.is_empty() && self.chunks.capacity() > CHUNKS_KEPT {
            self.chunks.shrink_to(CHUNKS_KEPT);
        }
        self.check_invariants();
        gone
    }

    /// Throws away all but the rest of a frame that is partly written, which must go out whole or
    /// the peer could not read what follows.
    pub fn discard(&mut self) -> Gone {
        let keep = self.cut_front();
        let mut gone = Gone::default();
        while self.chunks.len() > keep {
            let removed = self.remove(self.chunks.len() - 1);
            gone.bytes += removed.bytes;
            gone.frames += removed.frames;
        }
        self.chunks.shrink_to(CHUNKS_KEPT);
        self.check_invariants();
        gone
    }

    /// For each shared chunk, the stream and the first seq that `discard` would throw away.
    pub fn undelivered(&mut self) -> impl Iterator<Item = (StreamSlot, Seq)> {
        let keep = self.cut_front();
        self.chunks
            .iter()
            .skip(keep)
            .filter_map(|chunk| match chunk {
                Chunk::Own { .. } => None,
                Chunk::Shared {
                    batch,
                    variant,
                    start,
                    ..
                } => Some((
                    batch.stream,
                    batch.metas[batch.frame_at(*variant, *start)].seq,
                )),
            })
    }

    /// When the oldest live frame that still waits was numbered, in monotonic nanoseconds.
    pub fn oldest_numbered_ns(&self) -> Option<u64> {
        self.chunks.iter().find_map(|chunk| match chunk {
            Chunk::Shared {
                batch,
                is_live: true,
                ..
            } => Some(batch.numbered_ns),
            Chunk::Own { .. } | Chunk::Shared { .. } => None,
        })
    }

    /// Frames not yet written, the partly written one included.
    pub fn frames(&self) -> usize {
        let written = self
            .chunks
            .front()
            .map_or(0, |front| front.frames_ending(0, self.front_offset));
        self.chunks
            .iter()
            .map(|chunk| chunk.frames_ending(0, chunk.bytes().len()))
            .sum::<usize>()
            - written
    }

    // Cuts the front chunk where the frame that is on its way ends. Returns how many chunks (0 or
    // 1) must stay in front: no frame goes before the HTTP answer either.
    fn cut_front(&mut self) -> usize {
        if self.front_offset == 0 {
            let is_raw = |chunk: &Chunk| {
                matches!(
                    chunk,
                    Chunk::Own {
                        kind: OwnKind::Raw,
                        ..
                    }
                )
            };
            return usize::from(self.chunks.front().is_some_and(is_raw));
        }
        let Some(Chunk::Shared {
            batch,
            variant,
            is_live,
            start,
            end,
        }) = self.chunks.front_mut()
        else {
            return 1;
        };
        let written =
            *start + u32::try_from(self.front_offset).expect("a chunk is shorter than 4 GiB");
        let partly = batch.frame_at(*variant, written);
        let cut = if batch.start(*variant, partly) == written {
            written
        } else {
            batch.metas[partly].ends[variant.index()]
        };
        if cut < *end {
            let rest = Chunk::Shared {
                batch: Rc::clone(batch),
                variant: *variant,
                is_live: *is_live,
                start: cut,
                end: *end,
            };
            *end = cut;
            self.chunks.insert(1, rest);
        }
        if cut > written {
            return 1;
        }
        // The front chunk was written to its very end by the cut.
        self.chunks.pop_front();
        self.front_offset = 0;
        0
    }

    fn insert_own(&mut self, at: usize, bytes: Vec<u8>, kind: OwnKind) {
        self.bytes += bytes.len();
        self.chunks.insert(
            at,
            Chunk::Own {
                bytes: bytes.into(),
                kind,
            },
        );
        self.check_invariants();
    }

    fn remove(&mut self, at: usize) -> Gone {
        let Some(chunk) = self.chunks.remove(at) else {
            return Gone::default();
        };
        let bytes = chunk.bytes().len();
        self.bytes -= bytes;
        Gone {
            bytes,
            frames: chunk.frames_ending(0, bytes),
            ping: false,
        }
    }

    fn check_invariants(&self) {
        debug_assert_eq!(
            self.bytes + self.front_offset,
            self.chunks
                .iter()
                .map(|chunk| chunk.bytes().len())
                .sum::<usize>()
        );
        debug_assert!(self.front_offset == 0 || self.front_offset < self.chunks[0].bytes().len());
    }
}

impl Chunk {
    // Whether it is a ping or a pong.
    fn urgent_kind(&self) -> Option<OwnKind> {
        match self {
            Self::Own {
                kind: kind @ (OwnKind::Ping | OwnKind::Pong),
                ..
            } => Some(*kind),
            Self::Own { .. } | Self::Shared { .. } => None,
        }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Self::Own { bytes, .. } => bytes,
            Self::Shared {
                batch,
                variant,
                start,
                end,
                ..
            } => &batch.bytes[variant.index()][*start as usize..*end as usize],
        }
    }

    // How many frames have their last byte in `from..to` of this chunk.
    fn frames_ending(&self, from: usize, to: usize) -> usize {
        match self {
            Self::Own {
                kind: OwnKind::Raw, ..
            } => 0,
            Self::Own { bytes, .. } => usize::from(from < bytes.len() && to == bytes.len()),
            Self::Shared {
                batch,
                variant,
                start,
                ..
            } => {
                let (from, to) = (*start + from as u32, *start + to as u32);
                if from == to {
                    return 0;
                }
                let ended = |offset: u32| {
                    batch
                        .metas
                        .partition_point(|meta| meta.ends[variant.index()] <= offset)
                };
                ended(to) - ended(from)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::dialect::StreamName;
    use crate::event::{Dialect, Event};
    use crate::hub::frames::{BatchBuilder, Numbered, Variants};
    use crate::hub::rig::{encoder, messages};
    use crate::wire::frame::{Control, encode_control, encode_text};

    const TEXT: Variant = Variant::plain(Dialect::Observatory);

    // Events `first..first + count` of one stream, in one batch.
    fn batch(first: u64, count: u64) -> Rc<FrameBatch> {
        let mut builder = BatchBuilder::default();
        for seq in first..first + count {
            let event = Event {
                event_type: "a".into(),
                user: Some("u".into()),
                project: None,
                session: None,
                event_id: None,
                timestamp_ms: 0,
                data: bytes::Bytes::from(format!("\"{}\"", "x".repeat(seq as usize * 37 % 200))),
                message_type: None,
                tool_name: None,
            };
            let numbered = Numbered {
                stream: StreamName::Own,
                seq: Seq(seq),
                event: &event,
                received_ns: seq,
                numbered_ns: seq,
            };
            builder.push(Variants::default().with(TEXT), numbered, &mut encoder());
        }
        let slot = crate::hub::streams::tests::slot();
        Rc::new(builder.finish(slot).expect("it holds events"))
    }

    fn text(n: usize) -> Vec<u8> {
        let mut frame = Vec::new();
        encode_text(&mut frame, format!("{{\"own\":{n}}}").as_bytes());
        frame
    }

    fn control(control: Control, payload: &str) -> Vec<u8> {
        let mut frame = Vec::new();
        encode_control(&mut frame, control, payload.as_bytes());
        frame
    }

    // Writes at most `bytes_max` bytes, in slices of which there are few.
    fn write(outbox: &mut Outbox, bytes_max: usize) -> (Vec<u8>, Gone) {
        let mut slices = [IoSlice::new(&[]); 3];
        let filled = outbox.io_slices(&mut slices);
        let mut bytes = slices[..filled]
            .iter()
            .flat_map(|slice| slice.to_vec())
            .collect::<Vec<u8>>();
        bytes.truncate(bytes_max);
        let gone = outbox.handle_written(bytes.len(), |_| {});
        (bytes, gone)
    }

    fn write_all(outbox: &mut Outbox) -> Vec<u8> {
        let mut all = Vec::new();
        while !outbox.is_empty() {
            all.extend(write(outbox, usize::MAX).0);
        }
        all
    }

    // What a client sees, in short: `e5` is the event with seq 5, `o2` the second own message.
    fn seen(bytes: &[u8]) -> Vec<String> {
        let short = |message: serde_json::Value| match (&message["seq"], &message["own"]) {
            (serde_json::Value::Number(seq), _) => format!("e{seq}"),
            (_, serde_json::Value::Number(own)) => format!("o{own}"),
            _ if message["pong"].is_null() => "ping".to_owned(),
            _ => message["pong"].as_str().unwrap_or_default().to_owned(),
        };
        messages(bytes).into_iter().map(short).collect()
    }

    #[test]
    fn frames_leave_in_order_and_pings_go_ahead_of_what_is_not_on_its_way() {
        let mut outbox = Outbox::default();
        outbox.push_shared(&batch(1, 3), TEXT, 0, 2);
        outbox.push_own(text(1), OwnKind::Frame);
        let (mut bytes, _) = write(&mut outbox, 5);
        outbox.push_urgent(control(Control::Ping, ""), OwnKind::Ping);
        outbox.push_urgent(control(Control::Pong, "a"), OwnKind::Pong);
        outbox.push_urgent(control(Control::Pong, "b"), OwnKind::Pong);
        bytes.extend(write_all(&mut outbox));
        assert_eq!(seen(&bytes), ["e1", "ping", "a", "b", "e2", "e3", "o1"]);
    }

    #[test]
    fn of_many_pongs_that_wait_the_oldest_give_way() {
        let mut outbox = Outbox::default();
        for n in 0..PONGS_QUEUED_MAX + 2 {
            let gone = outbox.push_urgent(control(Control::Pong, &n.to_string()), OwnKind::Pong);
            assert_eq!(gone.frames, usize::from(n >= PONGS_QUEUED_MAX));
        }
        let expected: Vec<String> = (2..PONGS_QUEUED_MAX + 2).map(|n| n.to_string()).collect();
        assert_eq!(seen(&write_all(&mut outbox)), expected);
    }

    #[test]
    fn nothing_goes_before_the_http_answer_and_it_is_never_thrown_away() {
        let mut outbox = Outbox::default();
        outbox.push_own(b"HTTP".to_vec(), OwnKind::Raw);
        outbox.push_shared(&batch(1, 1), TEXT, 0, 0);
        outbox.push_urgent(control(Control::Ping, ""), OwnKind::Ping);
        assert_eq!(outbox.frames(), 2);
        assert_eq!(outbox.discard().frames, 2);
        assert_eq!(write_all(&mut outbox), b"HTTP");
    }

    #[test]
    fn what_is_thrown_away_is_all_but_the_frame_on_its_way_and_told_by_its_first_seq() {
        let (mut outbox, first) = (Outbox::default(), batch(1, 3));
        outbox.push_shared(&first, TEXT, 0, 2);
        outbox.push_shared(&batch(7, 1), TEXT, 0, 0);
        let on_its_way = first.metas[0].ends[TEXT.index()] as usize;
        let (mut bytes, _) = write(&mut outbox, on_its_way + 1);
        let lost: Vec<u64> = outbox.undelivered().map(|(_, seq)| seq.0).collect();
        assert_eq!(lost, [3, 7]);
        assert_eq!(outbox.discard().frames, 2);
        bytes.extend(write_all(&mut outbox));
        assert_eq!(seen(&bytes), ["e1", "e2"]);
    }

    #[test]
    fn a_ping_is_told_to_be_written_once_all_of_it_is() {
        let mut outbox = Outbox::default();
        outbox.push_urgent(control(Control::Ping, "ab"), OwnKind::Ping);
        assert!(!write(&mut outbox, 3).1.ping);
        assert!(write(&mut outbox, 1).1.ping);
    }

    #[derive(Clone, Debug)]
    enum Op {
        Discard,
        Own,
        Shared { count: u64, skipped: Option<usize> },
        Urgent(bool),
        Write(usize),
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            1 => Just(Op::Discard),
            3 => Just(Op::Own),
            4 => (1_u64..5, proptest::option::of(0_usize..5))
                .prop_map(|(count, skipped)| Op::Shared { count, skipped }),
            3 => any::<bool>().prop_map(Op::Urgent),
            6 => (0_usize..600).prop_map(Op::Write),
        ]
    }

    proptest! {
        #[test]
        fn what_leaves_is_whole_frames_in_order_and_every_frame_is_accounted_for(
            ops in proptest::collection::vec(op(), 1..60),
        ) {
            let (mut outbox, mut bytes, mut next) = (Outbox::default(), Vec::new(), 1);
            let (mut queued, mut gone) = (0, Gone::default());
            let mut own = 0;
            for op in ops {
                let result = match op {
                    Op::Discard => outbox.discard(),
                    Op::Own => {
                        own += 1;
                        queued += 1;
                        outbox.push_own(text(own), OwnKind::Frame);
                        Gone::default()
                    }
                    Op::Shared { count, skipped } => {
                        let batch = batch(next, count);
                        next += count;
                        for index in (0..count as usize).filter(|index| Some(*index) != skipped) {
                            outbox.push_shared(&batch, TEXT, index, index);
                            queued += 1;
                        }
                        Gone::default()
                    }
                    Op::Urgent(is_ping) => {
                        queued += 1;
                        let (code, kind) = if is_ping {
                            (Control::Ping, OwnKind::Ping)
                        } else {
                            (Control::Pong, OwnKind::Pong)
                        };
                        outbox.push_urgent(control(code, ""), kind)
                    }
                    Op::Write(bytes_max) => {
                        let (written, gone) = write(&mut outbox, bytes_max);
                        bytes.extend(written);
                        gone
                    }
                };
                gone.frames += result.frames;
                prop_assert_eq!(queued, gone.frames + outbox.frames());
            }
            bytes.extend(write_all(&mut outbox));
            prop_assert_eq!(outbox.bytes(), 0);
            for kind in ["e", "o"] {
                let seen = seen(&bytes);
                let numbers = seen.iter().filter_map(|name| name.strip_prefix(kind)?.parse().ok());
                let numbers: Vec<u64> = numbers.collect();
                prop_assert!(numbers.is_sorted_by(|a, b| a < b), "{:?}", numbers);
            }
        }
    }
}
