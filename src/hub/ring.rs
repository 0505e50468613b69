//! The recent past of the streams of one core, in memory: what most viewers that come back have
//! missed.
//!
//! A stream's ring is a chain of chunks without a gap, up to the last event that was fanned out; a
//! stream without one holds nothing. The owner core has the events themselves and encodes what
//! nobody took when it came, each event at most once a variant; another core has the frames that it
//! was sent. All rings of a core share one bound in bytes; what came first goes first, whatever the
//! stream, but not before the event log keeps it.

use std::collections::{HashMap, VecDeque};
use std::rc::Rc;

use bytes::Bytes;
use compact_str::CompactString;

use crate::dialect::StreamName;
use crate::event::{Event, Seq};
use crate::limits::CHUNK_BYTES_TARGET;

use super::encoder::Encoder;
use super::frames::{BatchBuilder, FrameBatch, FrameMeta, Numbered, Variant, Variants};
use super::streams::StreamSlot;

/// The rings of one core.
#[derive(Debug)]
pub struct Rings {
    rings: HashMap<StreamSlot, VecDeque<Link>, ahash::RandomState>,
    // Streams and their links in the order in which these began; some are gone.
    order: VecDeque<(StreamSlot, u64)>,
    links: usize,
    links_begun: u64,
    bytes: usize,
    bytes_max: usize,
    bytes_pushed: u64,
}

/// All events of a stream within a range of seqs, as far as this core has them.
#[derive(Debug)]
pub struct Chunk {
    after: Seq,
    last: Seq,
    // Either these are all, or there are none and the batches have all.
    events: Vec<(Seq, Event)>,
    // Each has all.
    batches: Vec<Rc<FrameBatch>>,
    bytes: usize,
}

/// What a chunk has of one variant.
#[derive(Debug)]
pub enum Frames {
    /// All frames of the chunk.
    Here(Rc<FrameBatch>),
    /// No event is in this range.
    None,
    /// Events that this core never had in the variant.
    Unknown,
}

/// How frames of a stream are made.
#[derive(Clone, Copy, Debug)]
pub struct Maker<'a> {
    /// The stream.
    pub stream: StreamSlot,
    /// Its name in envelopes.
    pub name: StreamName<'a>,
    /// The encoding.
    pub variant: Variant,
}

#[derive(Debug)]
struct Link {
    chunk: Chunk,
    id: u64,
    // The log keeps all of it once it keeps this many records of the core.
    through: u64,
    // Bytes pushed before it.
    begun: u64,
}

impl Rings {
    /// None yet, of together at most about `bytes_max` bytes.
    pub fn new(bytes_max: usize, seed: u64) -> Self {
        Self {
            rings: HashMap::with_hasher(ahash::RandomState::with_seeds(seed, 29, 31, 37)),
            order: VecDeque::new(),
            links: 0,
            links_begun: 0,
            bytes: 0,
            bytes_max,
            bytes_pushed: 0,
        }
    }

    /// At most about so many bytes from now on.
    pub fn set_bytes_max(&mut self, bytes_max: usize) {
        self.bytes_max = bytes_max;
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// An event that nobody takes now. `through`: how many records the log keeps when it keeps this.
    pub fn push_event(&mut self, stream: StreamSlot, seq: Seq, event: Event, through: u64) {
        let event = compact(event);
        let bytes = size_of::<(Seq, Event)>() + event.heap_bytes();
        let begun_min = self.bytes_pushed.saturating_sub(self.bytes_max as u64 / 8);
        let back = self.rings.get_mut(&stream).and_then(VecDeque::back_mut);
        let open = back.filter(|link| {
            // What joins goes with the first of them: that may not be much earlier than its turn.
            let is_young = link.begun >= begun_min;
            is_young && link.chunk.is_open() && link.chunk.bytes + bytes <= CHUNK_BYTES_TARGET
        });
        match open {
            Some(link) => {
                let bytes = link.chunk.push(seq, event);
                link.through = through;
                self.bytes += bytes;
                self.bytes_pushed += bytes as u64;
            }
            None => {
                let chunk = Chunk::of_events(before(seq), seq, vec![(seq, event)]);
                self.push(stream, chunk, through);
            }
        }
    }

    /// What was fanned out, and the events that it was made of: none on a core that was sent it.
    pub fn push_batch(
        &mut self,
        stream: StreamSlot,
        batch: &Rc<FrameBatch>,
        events: Vec<(Seq, Event)>,
        through: u64,
    ) {
        let Some(first) = batch.metas.first() else {
            return;
        };
        let events = events.into_iter().map(|(seq, event)| (seq, compact(event)));
        let mut events: Vec<(Seq, Event)> = events.collect();
        events.shrink_to_fit();
        let mut chunk = Chunk::of_events(before(first.seq), batch.last_seq(), events);
        chunk.add_batch(Rc::clone(batch));
        self.push(stream, chunk, through);
    }

    /// Nothing of the stream is held any more.
    pub fn remove(&mut self, stream: StreamSlot) {
        for link in self.rings.remove(&stream).unwrap_or_default() {
            self.bytes -= link.chunk.bytes;
            self.links -= 1;
        }
    }

    /// Nothing of this user's events is held any more, nor what came before them in their streams.
    pub fn forget_user(&mut self, user: &str) {
        for ring in self.rings.values_mut() {
            let last = ring.iter().rposition(|link| link.chunk.names(user));
            for link in ring.drain(..last.map_or(0, |at| at + 1)) {
                self.bytes -= link.chunk.bytes;
                self.links -= 1;
            }
        }
        self.rings.retain(|_, ring| !ring.is_empty());
    }

    /// Lets the oldest go, down to the bound, as far as they are among the `durable` records that the
    /// log keeps.
    pub fn evict(&mut self, durable: u64) {
        while self.bytes > self.bytes_max {
            let Some((stream, id)) = self.order.front().copied() else {
                return;
            };
            if let Some(ring) = self.rings.get_mut(&stream)
                && let Some(link) = ring.front().filter(|link| link.id == id)
            {
                if link.through > durable {
                    return;
                }
                self.bytes -= link.chunk.bytes;
                self.links -= 1;
                ring.pop_front();
                if ring.is_empty() {
                    self.rings.remove(&stream);
                }
            }
            self.order.pop_front();
        }
    }

    /// Every event after this seq is held; `None` where none is.
    pub fn base(&self, stream: StreamSlot) -> Option<Seq> {
        let ring = self.rings.get(&stream)?;
        ring.front().map(|link| link.chunk.after)
    }

    /// How many records of this core the log keeps when it keeps all that is held.
    pub fn through(&self, stream: StreamSlot) -> Option<u64> {
        let ring = self.rings.get(&stream)?;
        ring.back().map(|link| link.through)
    }

    /// The first event held.
    pub fn first(&self, stream: StreamSlot) -> Option<Seq> {
        let ring = self.rings.get(&stream)?;
        ring.front().and_then(|link| link.chunk.first())
    }

    /// The chunk with the next event after `after`, where that is held.
    pub fn chunk_after(&self, stream: StreamSlot, after: Seq) -> Option<&Chunk> {
        let ring = self.rings.get(&stream)?;
        let at = ring.partition_point(|link| link.chunk.last <= after);
        let link = ring.get(at).filter(|_| self.base(stream) <= Some(after))?;
        Some(&link.chunk)
    }

    /// The frames of the chunk with the next event after `after`, and the seq up to which it goes.
    pub fn frames_after(
        &mut self,
        after: Seq,
        maker: Maker<'_>,
        encoder: &mut Encoder,
    ) -> Option<(Frames, Seq)> {
        if self.base(maker.stream)? > after {
            return None;
        }
        let ring = self.rings.get_mut(&maker.stream)?;
        let at = ring.partition_point(|link| link.chunk.last <= after);
        let joined = join(ring, at);
        let chunk = &mut ring.get_mut(at)?.chunk;
        let bytes_before = chunk.bytes;
        let found = (chunk.frames(maker, encoder), chunk.last);
        self.bytes = self.bytes + joined.bytes_after - joined.bytes_before;
        self.bytes = self.bytes + chunk.bytes - bytes_before;
        self.links -= joined.links_gone;
        Some(found)
    }

    fn push(&mut self, stream: StreamSlot, chunk: Chunk, through: u64) {
        let ring = self.rings.entry(stream).or_default();
        debug_assert!(
            ring.back()
                .is_none_or(|link| link.chunk.last <= chunk.after),
            "a ring goes forward"
        );
        if ring.is_empty() {
            // Most rings have one.
            ring.reserve_exact(1);
        }
        self.links_begun += 1;
        self.links += 1;
        let (id, begun) = (self.links_begun, self.bytes_pushed);
        self.bytes += chunk.bytes;
        self.bytes_pushed += chunk.bytes as u64;
        ring.push_back(Link {
            chunk,
            id,
            through,
            begun,
        });
        self.order.push_back((stream, id));
        if self.order.len() > 2 * self.links + ORDER_SLACK {
            self.tidy_order();
        }
    }

    // Forgets the places of links that are gone.
    fn tidy_order(&mut self) {
        let rings = &self.rings;
        self.order.retain(|(stream, id)| {
            let ring = rings.get(stream);
            ring.is_some_and(|ring| ring.binary_search_by_key(id, |link| link.id).is_ok())
        });
    }
}

impl Chunk {
    /// The stream's events after `after` up to `last`.
    pub fn of_events(after: Seq, last: Seq, events: Vec<(Seq, Event)>) -> Self {
        let bytes = events.iter().map(|(_, event)| event.heap_bytes());
        let places = events.capacity() * size_of::<(Seq, Event)>();
        Self {
            after,
            last,
            bytes: CHUNK_BYTES + places + bytes.sum::<usize>(),
            events,
            batches: Vec::new(),
        }
    }

    /// It has every event after this one.
    pub fn after(&self) -> Seq {
        self.after
    }

    /// Up to this one.
    pub fn last(&self) -> Seq {
        self.last
    }

    /// What it takes of memory, about.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The events; none where only frames of them are known.
    pub fn events(&self) -> &[(Seq, Event)] {
        &self.events
    }

    /// Its frames, encoded now where that was not done before.
    pub fn frames(&mut self, maker: Maker<'_>, encoder: &mut Encoder) -> Frames {
        if let Some(batch) = self.batch_of(maker.variant) {
            return Frames::Here(Rc::clone(batch));
        }
        if self.events.is_empty() {
            return match self.batches.is_empty() {
                true => Frames::None,
                false => Frames::Unknown,
            };
        }
        let mut builder = BatchBuilder::default();
        for (seq, event) in &self.events {
            let numbered = Numbered {
                stream: maker.name,
                seq: *seq,
                event,
                received_ns: 0,
                numbered_ns: 0,
            };
            builder.push(Variants::default().with(maker.variant), numbered, encoder);
        }
        let Some(batch) = builder.finish(maker.stream).map(Rc::new) else {
            return Frames::None;
        };
        self.add_batch(Rc::clone(&batch));
        Frames::Here(batch)
    }

    fn names(&self, user: &str) -> bool {
        let is_theirs = |name: &Option<CompactString>| name.as_deref() == Some(user);
        let metas = self.batches.iter().flat_map(|batch| &batch.metas);
        self.events.iter().any(|(_, event)| is_theirs(&event.user))
            || metas.into_iter().any(|meta| is_theirs(&meta.keys.user))
    }

    fn first(&self) -> Option<Seq> {
        let event = self.events.first().map(|(seq, _)| *seq);
        let frame = self.batches.first().and_then(|batch| batch.metas.first());
        event.or(frame.map(|meta| meta.seq))
    }

    fn batch_of(&self, variant: Variant) -> Option<&Rc<FrameBatch>> {
        self.batches
            .iter()
            .find(|batch| batch.variants.has(variant))
    }

    // Whether further events may join: no frames were made of them yet.
    fn is_open(&self) -> bool {
        self.batches.is_empty()
    }

    // Returns the bytes that this takes.
    fn push(&mut self, seq: Seq, event: Event) -> usize {
        let places_before = self.events.capacity();
        let bytes = event.heap_bytes();
        self.events.push((seq, event));
        self.last = seq;
        let places = self.events.capacity() - places_before;
        let bytes = bytes + places * size_of::<(Seq, Event)>();
        self.bytes += bytes;
        bytes
    }

    fn add_batch(&mut self, batch: Rc<FrameBatch>) {
        self.bytes += batch_bytes(&batch);
        self.batches.push(batch);
    }

    // Whether the two can be one without anything being encoded again.
    fn can_join(&self, next: &Self) -> bool {
        let variants = self.batches.iter().map(|batch| batch.variants);
        let is_alike = variants.eq(next.batches.iter().map(|batch| batch.variants));
        is_alike && self.events.is_empty() == next.events.is_empty()
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Joined {
    links_gone: usize,
    bytes_before: usize,
    bytes_after: usize,
}

// What was fanned out in many turns is in many chunks. Whoever is sent it late gets it in few: the
// chunks from `at` on become one, up to the usual size.
fn join(ring: &mut VecDeque<Link>, at: usize) -> Joined {
    let Some(first) = ring.get(at) else {
        return Joined::default();
    };
    let mut bytes = first.chunk.bytes;
    let mut fitting = ring.range(at + 1..).take_while(|link| {
        bytes += link.chunk.bytes;
        bytes <= CHUNK_BYTES_TARGET && first.chunk.can_join(&link.chunk)
    });
    let links_gone = fitting.by_ref().count();
    if links_gone == 0 {
        return Joined::default();
    }
    let mut links = ring.drain(at..=at + links_gone).collect::<VecDeque<Link>>();
    let bytes_before: usize = links.iter().map(|link| link.chunk.bytes).sum();
    let Some(mut joined) = links.pop_front() else {
        return Joined::default();
    };
    let batches = std::mem::take(&mut joined.chunk.batches).into_iter();
    let mut parts: Vec<Vec<Rc<FrameBatch>>> = batches.map(|batch| vec![batch]).collect();
    for link in links {
        (joined.id, joined.through) = (link.id, link.through);
        joined.chunk.last = link.chunk.last;
        joined.chunk.events.extend(link.chunk.events);
        for (parts, batch) in parts.iter_mut().zip(link.chunk.batches) {
            parts.push(batch);
        }
    }
    let (after, last) = (joined.chunk.after, joined.chunk.last);
    let events = std::mem::take(&mut joined.chunk.events);
    joined.chunk = Chunk::of_events(after, last, events);
    for batch in parts.iter().filter_map(|parts| FrameBatch::join(parts)) {
        joined.chunk.add_batch(Rc::new(batch));
    }
    let bytes_after = joined.chunk.bytes;
    ring.insert(at, joined);
    Joined {
        links_gone,
        bytes_before,
        bytes_after,
    }
}

// The event with memory of its own: its data may be a small slice of a large message.
fn compact(event: Event) -> Event {
    Event {
        data: Bytes::copy_from_slice(&event.data),
        ..event
    }
}

// The place before an event: whoever is there has missed nothing before it.
fn before(seq: Seq) -> Seq {
    Seq(seq.0 - 1)
}

fn batch_bytes(batch: &FrameBatch) -> usize {
    let names = batch.metas.iter().map(|meta| meta.keys.heap_bytes());
    let places = batch.metas.capacity() * size_of::<FrameMeta>();
    size_of::<FrameBatch>() + batch.bytes_len() + places + names.sum::<usize>()
}

/// Bytes that a chunk takes beside events and frames, about.
const CHUNK_BYTES: usize = 256;
/// Places of links that are gone, above which they are looked for.
const ORDER_SLACK: usize = 1_024;

#[cfg(test)]
mod tests;
