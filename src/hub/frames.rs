//! Frames of one stream, encoded once and shared by every subscriber.
//!
//! A `FrameBatch` holds the consecutive frames that one stream gained in one turn, joined into one
//! chunk of bytes for each variant that somebody wants. It is plain data and may travel to another
//! core; inside a core it is shared through `Rc`.

use bytes::Bytes;

use crate::dialect::{StreamName, encode_event};
use crate::event::{Dialect, Event, EventKeys, Seq};
use crate::wire::frame::encode_text;

use super::streams::StreamSlot;

/// In how many encodings a frame can exist. The deflated twins take their places here.
pub const VARIANTS: usize = Dialect::ALL.len();

/// One encoding of a frame: which bytes a connection takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Variant(u8);

impl Variant {
    /// The uncompressed frames of a dialect.
    pub const fn plain(dialect: Dialect) -> Self {
        Self(dialect as u8)
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
        Dialect::ALL[self.index()]
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

    fn iter(self) -> impl Iterator<Item = Variant> {
        Variant::all().filter(move |variant| self.0 & 1 << variant.0 != 0)
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
    /// One entry a frame.
    pub metas: Vec<FrameMeta>,
    /// The frames of each variant, joined; empty where nobody wanted it.
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
        self.bytes.iter().map(Bytes::len).sum()
    }

    /// Whether every variant of `wanted` was encoded.
    pub fn has(&self, wanted: Variants) -> bool {
        wanted
            .iter()
            .all(|variant| !self.bytes[variant.index()].is_empty())
    }
}

/// Collects the frames that one stream gains in one turn.
#[derive(Debug, Default)]
pub struct BatchBuilder {
    metas: Vec<FrameMeta>,
    bytes: [Vec<u8>; VARIANTS],
    received_ns: u64,
    numbered_ns: u64,
}

/// One event with all that its envelope says beside it.
#[derive(Debug)]
pub struct Numbered<'a> {
    /// The stream's name in envelopes.
    pub stream: StreamName<'a>,
    /// Its number.
    pub seq: Seq,
    /// The event.
    pub event: Event,
    /// When it was received and numbered, in nanoseconds of the monotonic clock.
    pub received_ns: u64,
    /// See `received_ns`.
    pub numbered_ns: u64,
}

impl BatchBuilder {
    /// Encodes one event, once for each of `variants`. `scratch` is working space of the core.
    pub fn push(&mut self, variants: Variants, numbered: Numbered<'_>, scratch: &mut Vec<u8>) {
        if self.metas.is_empty() {
            self.received_ns = numbered.received_ns;
            self.numbered_ns = numbered.numbered_ns;
        }
        for variant in variants.iter() {
            scratch.clear();
            encode_event(
                variant.dialect(),
                numbered.stream,
                numbered.seq,
                &numbered.event,
                scratch,
            );
            encode_text(&mut self.bytes[variant.index()], scratch);
        }
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
            metas,
            bytes,
            received_ns,
            numbered_ns,
        } = self;
        let bytes = bytes.map(Bytes::from);
        (!metas.is_empty()).then_some(FrameBatch {
            stream,
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
    use crate::hub::rig::messages;
    use crate::hub::streams::tests::slot;

    const KEEN: Variant = Variant::plain(Dialect::Keen);
    const OBSERVATORY: Variant = Variant::plain(Dialect::Observatory);

    fn numbered(seq: u64) -> Numbered<'static> {
        let event = Event {
            event_type: "a".into(),
            user: Some("ada".into()),
            project: Some("7".into()),
            session: None,
            event_id: None,
            timestamp_ms: 0,
            data: Bytes::from("1".repeat(seq as usize)),
            message_type: None,
            tool_name: None,
        };
        Numbered {
            stream: StreamName::Project("7"),
            seq: Seq(seq),
            event,
            received_ns: seq * 10,
            numbered_ns: seq * 100,
        }
    }

    fn batch(variants: Variants, count: u64) -> FrameBatch {
        let mut builder = BatchBuilder::default();
        for seq in 1..=count {
            builder.push(variants, numbered(seq), &mut Vec::new());
        }
        assert_eq!(builder.first_seq(), Some(Seq(1)));
        builder.finish(slot()).expect("it holds frames")
    }

    #[test]
    fn each_wanted_variant_holds_every_frame_and_the_others_nothing() {
        let both = Variants::default().with(KEEN).with(OBSERVATORY);
        let batch = batch(both, 3);
        for variant in Variant::all() {
            let bytes = &batch.bytes[variant.index()];
            let all = messages(bytes);
            assert_eq!(all.len(), 3);
            for (index, whole) in all.iter().enumerate() {
                let end = batch.metas[index].ends[variant.index()];
                let start = batch.start(variant, index);
                assert_eq!(
                    &messages(&bytes[start as usize..end as usize]),
                    std::slice::from_ref(whole)
                );
                let places = [
                    batch.frame_at(variant, start),
                    batch.frame_at(variant, end - 1),
                ];
                assert_eq!(places, [index, index]);
            }
        }
        let keen = batch_of_keen();
        assert!(keen.has(Variants::default().with(KEEN)) && !keen.has(both));
        assert_eq!(keen.bytes_len(), keen.bytes[KEEN.index()].len());
    }

    fn batch_of_keen() -> FrameBatch {
        batch(Variants::default().with(KEEN), 2)
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
        assert!(both.contains(keen) && !keen.contains(both) && keen.contains(Variants::default()));
        assert!(Variants::default().is_empty() && !keen.is_empty());
    }
}
