//! Frames of one stream, encoded once and shared by every subscriber.
//!
//! A `FrameBatch` holds the consecutive frames that one stream gained in one turn, joined into one
//! chunk of bytes for each variant that somebody wants. It is plain data and may travel to another
//! core; inside a core it is shared through `Rc`.
//!
//! The deflated twin of a frame is that frame's text alone, in a deflate stream of its own: no
//! stream ever holds two events, and so never the data of two users.

use std::rc::Rc;

use bytes::Bytes;

use crate::dialect::{StreamName, encode_event};
use crate::event::{Dialect, Event, EventKeys, Seq};
use crate::wire::frame::{Data, encode_text};

use super::encoder::Encoder;
use super::streams::StreamSlot;

/// In how many encodings a frame can exist: for each dialect the plain one and its deflated twin.
pub const VARIANTS: usize = 2 * Dialect::ALL.len();

/// One encoding of a frame: which bytes a connection takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Variant(u8);

impl Variant {
    /// The uncompressed frames of a dialect.
    pub const fn plain(dialect: Dialect) -> Self {
        Self(dialect as u8)
    }

    /// The frames of a dialect for those who agreed on permessage-deflate: each deflated where it
    /// is long enough and gets smaller, else as the plain one.
    pub const fn deflated(dialect: Dialect) -> Self {
        Self(Dialect::ALL.len() as u8 + dialect as u8)
    }

    /// Whether it is a deflated twin.
    pub fn is_deflated(self) -> bool {
        self.index() >= Dialect::ALL.len()
    }

    /// Position in tables that have one place for each variant.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }

    /// Every variant.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..VARIANTS as u8).map(Self)
    }

    /// The dialect that the frames speak.
    pub fn dialect(self) -> Dialect {
        Dialect::ALL[self.index() % Dialect::ALL.len()]
    }
}

/// A set of variants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Variants(u8);

impl Variants {
    /// With `variant` as well.
    #[must_use]
    pub fn with(self, variant: Variant) -> Self {
        Self(self.0 | 1 << variant.0)
    }

    /// All that either has.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether every variant of `other` is here.
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// What both have.
    #[must_use]
    pub fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Whether `variant` is here.
    pub fn has(self, variant: Variant) -> bool {
        self.0 & 1 << variant.0 != 0
    }
}

/// What is known of one frame of a batch.
#[derive(Clone, Debug)]
pub struct FrameMeta {
    /// Its event's number in the stream.
    pub seq: Seq,
    /// Where it ends in the bytes of each variant.
    pub ends: [u32; VARIANTS],
    /// What filters look at, and whose event it is.
    pub keys: EventKeys,
}

/// Consecutive frames of one stream. Invariant: `metas` is not empty and rises in seq and in ends.
#[derive(Clone, Debug)]
pub struct FrameBatch {
    /// The stream, as the core that holds the batch numbers its streams.
    pub stream: StreamSlot,
    /// The encodings in which every frame is here.
    pub variants: Variants,
    /// One entry a frame.
    pub metas: Vec<FrameMeta>,
    /// The frames of each variant, joined; empty where nobody wanted it. A twin of which no frame
    /// was deflated is the plain variant's very bytes, where that is there.
    pub bytes: [Bytes; VARIANTS],
    /// When the first event was received and numbered, in nanoseconds of the monotonic clock.
    pub received_ns: u64,
    /// See `received_ns`.
    pub numbered_ns: u64,
}

impl FrameBatch {
    /// Where frame `index` begins in the bytes of `variant`.
    pub fn start(&self, variant: Variant, index: usize) -> u32 {
        index
            .checked_sub(1)
            .map_or(0, |previous| self.metas[previous].ends[variant.index()])
    }

    /// The frame of `variant` that holds byte `offset`.
    pub fn frame_at(&self, variant: Variant, offset: u32) -> usize {
        self.metas
            .partition_point(|meta| meta.ends[variant.index()] <= offset)
    }

    /// The seq of the last frame.
    pub fn last_seq(&self) -> Seq {
        self.metas.last().map_or(Seq(0), |meta| meta.seq)
    }

    /// Bytes of all variants: what the batch costs in a mailbox.
    pub fn bytes_len(&self) -> usize {
        Variant::all()
            .filter(|variant| !self.is_plain_twin(*variant))
            .map(|variant| self.bytes[variant.index()].len())
            .sum()
    }

    /// The bytes of frames `first..end` in `variant`.
    pub fn range(&self, variant: Variant, first: usize, end: usize) -> (u32, u32) {
        (self.start(variant, first), self.start(variant, end))
    }

    // Whether the bytes of this variant are the plain one's.
    fn is_plain_twin(&self, variant: Variant) -> bool {
        let plain = &self.bytes[Variant::plain(variant.dialect()).index()];
        variant.is_deflated() && plain.as_ptr() == self.bytes[variant.index()].as_ptr()
    }

    /// The frames of all `parts`, one behind the other; `None` where there are none. All are in the
    /// same variants.
    pub fn join(parts: &[Rc<Self>]) -> Option<Self> {
        let first = parts.first()?;
        let variants = first.variants;
        debug_assert!(parts.iter().all(|part| part.variants == variants));
        let mut bytes: [Bytes; VARIANTS] = Default::default();
        for variant in Variant::all().filter(|variant| variants.has(*variant)) {
            let plain = Variant::plain(variant.dialect());
            let is_shared = variants.has(plain) && parts.iter().all(|p| p.is_plain_twin(variant));
            bytes[variant.index()] = if is_shared {
                bytes[plain.index()].clone()
            } else {
                let pieces = parts.iter().map(|part| &part.bytes[variant.index()][..]);
                Bytes::from(pieces.collect::<Vec<_>>().concat())
            };
        }
        let mut metas = Vec::with_capacity(parts.iter().map(|part| part.metas.len()).sum());
        let mut before = [0; VARIANTS];
        for part in parts {
            metas.extend(part.metas.iter().map(|meta| FrameMeta {
                ends: std::array::from_fn(|index| before[index] + meta.ends[index]),
                ..meta.clone()
            }));
            before = metas.last().map_or(before, |meta| meta.ends);
        }
        Some(Self {
            stream: first.stream,
            variants,
            metas,
            bytes,
            received_ns: first.received_ns,
            numbered_ns: first.numbered_ns,
        })
    }
}

/// Collects the frames that one stream gains in one turn.
#[derive(Debug, Default)]
pub struct BatchBuilder {
    metas: Vec<FrameMeta>,
    bytes: [Vec<u8>; VARIANTS],
    // The encodings of every event so far; `None` before the first.
    variants: Option<Variants>,
    // The twins of which a frame was deflated.
    deflated: Variants,
    received_ns: u64,
    numbered_ns: u64,
}

/// One event with all that its envelope says beside it.
#[derive(Clone, Copy, Debug)]
pub struct Numbered<'a> {
    /// The stream's name in envelopes.
    pub stream: StreamName<'a>,
    /// Its number.
    pub seq: Seq,
    /// The event.
    pub event: &'a Event,
    /// When it was received and numbered, in nanoseconds of the monotonic clock.
    pub received_ns: u64,
    /// See `received_ns`.
    pub numbered_ns: u64,
}

impl BatchBuilder {
    /// Encodes one event, once for each of `variants`.
    pub fn push(&mut self, variants: Variants, numbered: Numbered<'_>, encoder: &mut Encoder) {
        if self.metas.is_empty() {
            // Most batches have one.
            self.metas.reserve_exact(1);
            self.received_ns = numbered.received_ns;
            self.numbered_ns = numbered.numbered_ns;
        }
        let all = self.variants.unwrap_or(variants);
        self.variants = Some(all.intersection(variants));
        let mut text = std::mem::take(&mut encoder.scratch);
        for dialect in Dialect::ALL {
            let (plain, twin) = (Variant::plain(dialect), Variant::deflated(dialect));
            if !variants.has(plain) && !variants.has(twin) {
                continue;
            }
            text.clear();
            let Numbered { stream, seq, .. } = numbered;
            encode_event(dialect, stream, seq, numbered.event, &mut text);
            if variants.has(plain) {
                encode_text(&mut self.bytes[plain.index()], &text);
            }
            if variants.has(twin)
                && encoder.encode_deflated(&mut self.bytes[twin.index()], Data::Text, &text)
            {
                self.deflated = self.deflated.with(twin);
            }
        }
        encoder.scratch = text;
        let ends = std::array::from_fn(|index| {
            u32::try_from(self.bytes[index].len())
                .expect("a batch is cut at CHUNK_BYTES_TARGET and one frame")
        });
        self.metas.push(FrameMeta {
            seq: numbered.seq,
            ends,
            keys: EventKeys::from(numbered.event),
        });
    }

    /// The seq of the first frame collected.
    pub fn first_seq(&self) -> Option<Seq> {
        self.metas.first().map(|meta| meta.seq)
    }

    /// Bytes collected, over all variants.
    pub fn bytes_len(&self) -> usize {
        self.bytes.iter().map(Vec::len).sum()
    }

    /// The batch, or `None` where nothing was collected.
    pub fn finish(self, stream: StreamSlot) -> Option<FrameBatch> {
        let Self {
            mut metas,
            bytes,
            variants,
            deflated,
            received_ns,
            numbered_ns,
        } = self;
        // What is kept for those who come back takes no more than it needs.
        let mut bytes = bytes.map(|bytes| Bytes::from(bytes.into_boxed_slice()));
        metas.shrink_to_fit();
        for dialect in Dialect::ALL {
            let (plain, twin) = (Variant::plain(dialect), Variant::deflated(dialect));
            let ends_alike = |meta: &FrameMeta| meta.ends[plain.index()] == meta.ends[twin.index()];
            if !deflated.has(twin) && metas.iter().all(ends_alike) {
                bytes[twin.index()] = bytes[plain.index()].clone();
            }
        }
        (!metas.is_empty()).then_some(FrameBatch {
            stream,
            variants: variants.unwrap_or_default(),
            metas,
            bytes,
            received_ns,
            numbered_ns,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::rig::{encoder, messages};
    use crate::hub::streams::tests::slot;

    const KEEN: Variant = Variant::plain(Dialect::Keen);
    const OBSERVATORY: Variant = Variant::plain(Dialect::Observatory);
    const DEFLATED: Variant = Variant::deflated(Dialect::Keen);

    /// What the rig's encoder deflates, with its threshold of 1,000 bytes.
    const LONG: usize = 2_000;

    fn event(data: String) -> Event {
        Event {
            event_type: "a".into(),
            user: Some("ada".into()),
            project: Some("7".into()),
            session: None,
            event_id: None,
            timestamp_ms: 0,
            data: Bytes::from(data),
            message_type: None,
            tool_name: None,
        }
    }

    /// A batch whose events have texts of these lengths as data.
    fn batch(variants: &[Variant], lens: &[usize]) -> FrameBatch {
        let variants = variants
            .iter()
            .copied()
            .fold(Variants::default(), Variants::with);
        let (mut builder, mut encoder) = (BatchBuilder::default(), encoder());
        for (seq, len) in (1..).zip(lens) {
            let numbered = Numbered {
                stream: StreamName::Project("7"),
                seq: Seq(seq),
                event: &event(format!("\"{}\"", "x".repeat(*len))),
                received_ns: seq * 10,
                numbered_ns: seq * 100,
            };
            builder.push(variants, numbered, &mut encoder);
        }
        assert_eq!(builder.first_seq(), Some(Seq(1)));
        builder.finish(slot()).expect("it holds frames")
    }

    fn frame(batch: &FrameBatch, variant: Variant, index: usize) -> &[u8] {
        let end = batch.metas[index].ends[variant.index()];
        let start = batch.start(variant, index);
        &batch.bytes[variant.index()][start as usize..end as usize]
    }

    #[test]
    fn each_wanted_variant_holds_every_frame_and_the_others_nothing() {
        let all: Vec<Variant> = Variant::all().collect();
        let batch = batch(&all, &[1, LONG, 3]);
        for variant in all {
            let bytes = &batch.bytes[variant.index()];
            let all = messages(bytes);
            assert_eq!(all.len(), 3);
            for (index, whole) in all.iter().enumerate() {
                let frame = frame(&batch, variant, index);
                assert_eq!(&messages(frame), std::slice::from_ref(whole));
                let (start, end) = (
                    batch.start(variant, index),
                    batch.metas[index].ends[variant.index()],
                );
                let places = [
                    batch.frame_at(variant, start),
                    batch.frame_at(variant, end - 1),
                ];
                assert_eq!(places, [index, index]);
            }
            let plain = &batch.bytes[Variant::plain(variant.dialect()).index()];
            assert_eq!(all, messages(plain), "the twin says the same");
        }
        let keen = batch_of_keen();
        for variant in Variant::all() {
            assert_eq!(keen.bytes[variant.index()].is_empty(), variant != KEEN);
        }
        assert_eq!(keen.bytes_len(), keen.bytes[KEEN.index()].len());
    }

    fn batch_of_keen() -> FrameBatch {
        batch(&[KEEN], &[1, 2])
    }

    #[test]
    fn a_twin_holds_deflated_frames_beside_plain_ones() {
        for wanted in [&[KEEN, DEFLATED][..], &[DEFLATED]] {
            let batch = batch(wanted, &[1, LONG, 2, LONG]);
            let firsts = (0..4).map(|index| frame(&batch, DEFLATED, index)[0]);
            assert_eq!(firsts.collect::<Vec<u8>>(), [0x81, 0xc1, 0x81, 0xc1]);
            assert!(batch.bytes[DEFLATED.index()].len() < LONG);
        }
    }

    #[test]
    fn a_twin_without_deflated_frame_shares_the_plain_bytes() {
        let shared = batch(&[KEEN, DEFLATED], &[1, 900, 2]);
        let bytes = [KEEN, DEFLATED].map(|variant| &shared.bytes[variant.index()]);
        assert_eq!(bytes[0].as_ptr(), bytes[1].as_ptr());
        assert_eq!((bytes[0], shared.bytes_len()), (bytes[1], bytes[0].len()));
        let own = batch(&[KEEN, DEFLATED], &[1, LONG]);
        let bytes = [KEEN, DEFLATED].map(|variant| &own.bytes[variant.index()]);
        assert_ne!(bytes[0].as_ptr(), bytes[1].as_ptr());
        assert_eq!(own.bytes_len(), bytes[0].len() + bytes[1].len());
        let alone = batch(&[DEFLATED], &[1]);
        assert!(alone.bytes[KEEN.index()].is_empty() && alone.bytes_len() > 0);
    }

    #[test]
    fn what_does_not_get_smaller_goes_plain() {
        let mut dice = fastrand::Rng::with_seed(5);
        let noise: Vec<u8> = (0..LONG).map(|_| dice.alphanumeric() as u8).collect();
        let mut out = Vec::new();
        assert!(!encoder().encode_deflated(&mut out, Data::Text, &noise));
        assert_eq!((out[0], &out[4..]), (0x81, &noise[..]));
    }

    #[test]
    fn the_threshold_is_of_the_text() {
        let mut encoder = encoder();
        for (len, is_deflated) in [(999, false), (1_000, true)] {
            let mut out = Vec::new();
            assert_eq!(
                encoder.encode_deflated(&mut out, Data::Text, &vec![b' '; len]),
                is_deflated,
                "{len}"
            );
        }
    }

    #[test]
    fn a_batch_tells_its_last_seq_and_when_its_first_event_came() {
        let batch = batch_of_keen();
        assert_eq!(
            (batch.last_seq(), batch.received_ns, batch.numbered_ns),
            (Seq(2), 10, 100)
        );
        assert_eq!(batch.metas[0].keys.user.as_deref(), Some("ada"));
        assert!(BatchBuilder::default().finish(slot()).is_none());
    }

    #[test]
    fn sets_of_variants_contain_what_they_were_given() {
        let keen = Variants::default().with(KEEN);
        let both = keen.union(Variants::default().with(OBSERVATORY));
        assert!(both.contains(keen) && !both.contains(keen.with(DEFLATED)) && !keen.contains(both));
        assert!(keen.contains(Variants::default()));
        assert!(Variants::default().is_empty() && !keen.is_empty());
    }

    #[test]
    fn each_variant_has_a_place_and_a_dialect() {
        let found: Vec<(usize, Dialect, bool)> = Variant::all()
            .map(|variant| (variant.index(), variant.dialect(), variant.is_deflated()))
            .collect();
        let (keen, observatory) = (Dialect::Keen, Dialect::Observatory);
        let expected = [
            (0, keen, false),
            (1, observatory, false),
            (2, keen, true),
            (3, observatory, true),
        ];
        assert_eq!(found, expected);
    }
}
