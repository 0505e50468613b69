//! The index of a sealed segment: which streams it has and where each of their records is. A file
//! of its own, made from the segment and made again where it is missing or damaged.
//!
//! Header (512 bytes, see [`Summary`]) | filter, first key of each block of rows, damaged places |
//! ids seen | rows | cells. A row says which cells are a stream's; rows are sorted by key, cells by
//! (key, seq). Decisions about tokens have a key of their own, and their place for a seq. Both stand in blocks of 4,096 bytes: 255 times 16 bytes and a CRC32C that knows the
//! segment and the block's place. In memory are only the header and what follows it.

use std::io;
use std::ops::Range;

use compact_str::CompactString;

use super::filter::StreamFilter;
use super::segment::{CRC_AT, FORMAT_MAJOR, FORMAT_MINOR, Found, HEADER_BYTES, check_version};
use super::storage::{StorageFile, read_exact};
use crate::event::record::{RecordCodec, RecordView};
use crate::event::{Seq, Stream, StreamKey, StreamKind};

/// What is known of a segment as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Which segment.
    pub number: u64,
    /// Where its records end.
    pub end: u64,
    /// Events in it.
    pub events: u64,
    /// Streams in it.
    pub streams: u64,
    /// Decisions about tokens in it.
    pub revocations: u64,
    /// The highest seq in it, of any stream.
    pub seq_max: Seq,
    /// When the first and the last of its events arrived, in milliseconds since the Unix epoch, by
    /// the clock and not by place; 0 where it has none.
    pub received_ms: (i64, i64),
    /// Bytes that are no record any more.
    pub damage: Vec<Range<u64>>,
}

/// Where a record of a stream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cell {
    /// Its number in the stream.
    pub seq: Seq,
    /// Where it begins in the segment.
    pub offset: u32,
    /// Its bytes, the filling included.
    pub length: u32,
}

/// The records of a stream before and after a place.
pub type Neighbours = (Option<Cell>, Option<Cell>);

/// An event with an id: what makes a later one a duplicate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenId {
    /// When it arrived, in milliseconds since the Unix epoch.
    pub received_ms: i64,
    /// Names (token's `sub`, `event_id`).
    pub fingerprint: u128,
    /// The stream that has it.
    pub stream: Stream,
}

/// Collects what an index says, record by record.
#[derive(Clone, Debug, Default)]
pub struct IndexBuilder {
    summary: Summary,
    cells: Vec<(StreamKey, Cell)>,
    seen: Vec<u8>,
}

impl IndexBuilder {
    /// Of the segment with this number.
    pub fn new(number: u64) -> Self {
        let summary = Summary {
            number,
            ..Summary::default()
        };
        Self {
            summary,
            ..Self::default()
        }
    }

    /// Takes in what a scanner found.
    pub fn add_found(&mut self, codec: &RecordCodec, found: &Found<'_>) {
        match found {
            Found::Damage(range) => self.add_damage(range.clone()),
            Found::Record {
                offset,
                bytes,
                view,
            } => self.add(codec, *offset, bytes.len(), view),
        }
    }

    /// Takes in the record at `offset`, `length` bytes long with its filling.
    pub fn add(&mut self, codec: &RecordCodec, offset: u64, length: usize, view: &RecordView<'_>) {
        let (offset, length) = (offset as u32, length as u32);
        match view {
            RecordView::Event(event) => {
                let key = codec.stream_key(event.kind, event.stream_id());
                self.cells.push((
                    key,
                    Cell {
                        seq: event.seq,
                        offset,
                        length,
                    },
                ));
                self.count(event.seq, event.received_ms);
                if let Some(fingerprint) = event.fingerprint {
                    let id = event.stream_id();
                    write_seen(
                        &mut self.seen,
                        event.received_ms,
                        fingerprint,
                        event.kind,
                        id,
                    );
                }
            }
            RecordView::Snapshot(snapshot) => {
                let key = codec.snapshot_key(snapshot.kind, snapshot.id, snapshot.part.index);
                self.cells.push((
                    key,
                    Cell {
                        seq: snapshot.seq,
                        offset,
                        length,
                    },
                ));
            }
            RecordView::Erasure(erasure) => {
                self.cells.push((
                    erasure.key,
                    Cell {
                        seq: erasure.seq,
                        offset,
                        length,
                    },
                ));
                self.summary.seq_max = self.summary.seq_max.max(erasure.seq);
            }
            RecordView::Tombstone(tombstone) => {
                let key = codec.stream_key(StreamKind::Project, tombstone.project);
                self.cells.push((
                    key,
                    Cell {
                        seq: tombstone.seq,
                        offset,
                        length,
                    },
                ));
                self.summary.seq_max = self.summary.seq_max.max(tombstone.seq);
            }
            RecordView::Revocation(_) => {
                self.summary.revocations += 1;
                let seq = Seq(u64::from(offset));
                self.cells.push((
                    StreamKey::REVOCATIONS,
                    Cell {
                        seq,
                        offset,
                        length,
                    },
                ));
            }
            RecordView::Mark(_) | RecordView::Unknown(_) => {}
        }
    }

    /// Takes note of bytes that are no record.
    pub fn add_damage(&mut self, range: Range<u64>) {
        match self.summary.damage.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => self.summary.damage.push(range),
        }
    }

    /// What is known so far, but for `streams`.
    pub fn summary(&self) -> &Summary {
        &self.summary
    }

    /// Whether no record was taken in, beside marks.
    pub fn is_empty(&self) -> bool {
        self.cells.is_empty()
    }

    fn count(&mut self, seq: Seq, received_ms: i64) {
        let summary = &mut self.summary;
        let (first, last) = match summary.events {
            0 => (received_ms, received_ms),
            _ => summary.received_ms,
        };
        summary.received_ms = (first.min(received_ms), last.max(received_ms));
        summary.events += 1;
        summary.seq_max = summary.seq_max.max(seq);
    }

    /// Of a segment that should end at `end` and whose last record ends at `reached`: what is between
    /// was there once.
    pub fn end_at(&mut self, reached: u64, end: u64) {
        self.summary.end = end;
        if reached < end {
            self.add_damage(reached..end);
        }
    }

    /// The index as stored.
    pub fn finish(mut self) -> Vec<u8> {
        self.cells.sort_unstable();
        let groups: Vec<_> = self.cells.chunk_by(|a, b| a.0 == b.0).collect();
        let has_revocations = self.summary.revocations > 0;
        self.summary.streams = (groups.len() - usize::from(has_revocations)) as u64;
        let mut filter = StreamFilter::with_capacity(groups.len());
        let (mut rows, mut first) = (Vec::with_capacity(groups.len()), 0);
        for group in groups {
            let (key, count) = (group[0].0, group.len() as u32);
            filter.insert(key);
            rows.push(Row { key, first, count });
            first += count;
        }
        let mut front = Vec::new();
        filter.encode(&mut front);
        for row in rows.iter().step_by(PER_BLOCK) {
            front.extend_from_slice(&row.key.0.to_le_bytes());
        }
        for damage in &self.summary.damage {
            front.extend_from_slice(&damage.start.to_le_bytes());
            front.extend_from_slice(&damage.end.to_le_bytes());
        }
        let sections = Sections {
            filter_bytes: filter.bytes_len() as u64,
            front_crc: crc32c::crc32c(&front),
            seen_bytes: self.seen.len() as u64,
            seen_crc: crc32c::crc32c(&self.seen),
            damage: self.summary.damage.len() as u64,
            rows: rows.len() as u64,
            cells: self.cells.len() as u64,
        };
        let mut out = encode_header(&self.summary, &sections).to_vec();
        out.extend_from_slice(&front);
        out.extend_from_slice(&self.seen);
        out.resize(out.len().next_multiple_of(BLOCK_BYTES), 0);
        let number = self.summary.number;
        let rows: Vec<_> = rows.iter().map(Row::encode).collect();
        let cells: Vec<_> = self.cells.iter().map(|(_, cell)| cell.encode()).collect();
        let blocks = rows.chunks(PER_BLOCK).chain(cells.chunks(PER_BLOCK));
        for (place, slots) in blocks.enumerate() {
            let start = out.len();
            out.extend_from_slice(slots.as_flattened());
            out.resize(start + PER_BLOCK * size_of::<Slot>(), 0);
            let crc = block_crc(number, place, &out[start..]);
            out.extend_from_slice(&crc.to_le_bytes());
            out.resize(start + BLOCK_BYTES, 0);
        }
        out
    }
}

/// A stream's cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Row {
    key: StreamKey,
    first: u32,
    count: u32,
}

/// Sixteen bytes of a block.
type Slot = [u8; 16];

impl Row {
    fn encode(&self) -> Slot {
        slot(self.key.0, self.first, self.count)
    }

    fn decode(slot: &Slot) -> Self {
        let (key, first, count) = unslot(slot);
        Self {
            key: StreamKey(key),
            first,
            count,
        }
    }
}

impl Cell {
    fn encode(&self) -> Slot {
        slot(self.seq.0, self.offset, self.length)
    }

    fn decode(slot: &Slot) -> Self {
        let (seq, offset, length) = unslot(slot);
        Self {
            seq: Seq(seq),
            offset,
            length,
        }
    }
}

fn slot(a: u64, b: u32, c: u32) -> Slot {
    let mut slot = [0; 16];
    slot[..8].copy_from_slice(&a.to_le_bytes());
    slot[8..12].copy_from_slice(&b.to_le_bytes());
    slot[12..].copy_from_slice(&c.to_le_bytes());
    slot
}

fn unslot(slot: &Slot) -> (u64, u32, u32) {
    let number = u128::from_le_bytes(*slot);
    (number as u64, (number >> 64) as u32, (number >> 96) as u32)
}

/// An index, on disk but for its front.
#[derive(Debug)]
pub struct SealedIndex<F> {
    summary: Summary,
    sections: Sections,
    filter: StreamFilter,
    row_blocks: Vec<StreamKey>,
    source: Source<F>,
}

/// Where an index is read from.
#[derive(Debug)]
enum Source<F> {
    // See `SealedIndex::attach`.
    Closed,
    File(F),
    Memory(Vec<u8>),
}

impl<F: StorageFile> SealedIndex<F> {
    /// The index in `file`, of the segment with this number.
    /// Errors: of the file; `InvalidData` where it is damaged or another version's, so that it must
    /// be made again.
    pub fn open(number: u64, file: F) -> io::Result<Self> {
        Self::read(number, Source::File(file))
    }

    /// The index in `bytes`, as [`IndexBuilder::finish`] made it. Errors: as `open`.
    pub fn from_bytes(number: u64, bytes: Vec<u8>) -> io::Result<Self> {
        Self::read(number, Source::Memory(bytes))
    }

    fn read(number: u64, source: Source<F>) -> io::Result<Self> {
        let header = source.read(0, HEADER_BYTES as usize)?;
        let header = header.first_chunk().ok_or_else(damaged)?;
        let (mut summary, sections) = decode_header(header).ok_or_else(damaged)?;
        // Every length below is within the file.
        if summary.number != number || sections.bytes_len() != Some(source.bytes_len()?) {
            return Err(damaged());
        }
        let front = source.read(HEADER_BYTES, sections.front_bytes())?;
        if crc32c::crc32c(&front) != sections.front_crc {
            return Err(damaged());
        }
        let (filter, rest) = front
            .split_at_checked(sections.filter_bytes as usize)
            .ok_or_else(damaged)?;
        let (keys, damage) = rest
            .split_at_checked(8 * sections.row_blocks())
            .ok_or_else(damaged)?;
        let number = |bytes: &[u8; 8]| u64::from_le_bytes(*bytes);
        let pair = |pair: &[[u8; 8]]| number(&pair[0])..number(&pair[1]);
        summary.damage = damage.as_chunks().0.chunks_exact(2).map(pair).collect();
        Ok(Self {
            summary,
            filter: StreamFilter::decode(filter).ok_or_else(damaged)?,
            row_blocks: keys
                .as_chunks()
                .0
                .iter()
                .map(|key| StreamKey(number(key)))
                .collect(),
            sections,
            source,
        })
    }

    /// What is known of the segment as a whole.
    pub fn summary(&self) -> &Summary {
        &self.summary
    }

    /// Its bytes as stored.
    pub fn bytes_len(&self) -> u64 {
        self.sections.bytes_len().unwrap_or_default()
    }

    /// Whether this is the index that `builder` would make. Errors: as `open`.
    pub fn is_of(&self, builder: &IndexBuilder) -> io::Result<bool> {
        let stored = self.source.read(0, self.bytes_len() as usize)?;
        Ok(stored == builder.clone().finish())
    }

    /// The records that begin within these bytes of the segment. Errors: as `open`.
    pub fn cells_within(&self, range: &Range<u64>) -> io::Result<Vec<(StreamKey, Cell)>> {
        let mut found = Vec::new();
        for at in 0..self.sections.rows as u32 {
            let block = self.block(0, at)?;
            let slot = block.as_chunks().0.get(at as usize % PER_BLOCK);
            let row = slot.map(Row::decode).ok_or_else(damaged)?;
            for cell in self.cells_of(&row)? {
                let cell = self.cell(cell)?;
                if range.contains(&u64::from(cell.offset)) {
                    found.push((row.key, cell));
                }
            }
        }
        Ok(found)
    }

    /// Whether the stream may be in the segment; asks no file.
    pub fn may_contain(&self, key: StreamKey) -> bool {
        self.filter.may_contain(key)
    }

    /// The bytes as stored, where they are in memory and not yet in a file.
    pub fn unsaved(&self) -> Option<&[u8]> {
        match &self.source {
            Source::Closed | Source::File(_) => None,
            Source::Memory(bytes) => Some(bytes),
        }
    }

    /// Whether its file must be attached before it can be asked for records.
    pub fn is_closed(&self) -> bool {
        matches!(self.source, Source::Closed)
    }

    /// Lets go of its file, where it has one. What is known as a whole stays known.
    pub fn close(&mut self) {
        if matches!(self.source, Source::File(_)) {
            self.source = Source::Closed;
        }
    }

    /// Gives it its file again.
    pub fn attach(&mut self, file: F) {
        self.source = Source::File(file);
    }

    /// The first and the last of a stream's records. Errors: as `open`.
    pub fn ends(&self, key: StreamKey) -> io::Result<Option<(Cell, Cell)>> {
        let Some(cells) = self.find(key)? else {
            return Ok(None);
        };
        Ok(Some((self.cell(cells.start)?, self.cell(cells.end - 1)?)))
    }

    /// The last of a stream's records up to `seq`. Errors: as `open`.
    pub fn last_up_to(&self, key: StreamKey, seq: Seq) -> io::Result<Option<Cell>> {
        let Some(cells) = self.find(key)? else {
            return Ok(None);
        };
        match self.first_where(&cells, |cell| cell.seq > seq)? {
            after if after > cells.start => self.cell(after - 1).map(Some),
            _ => Ok(None),
        }
    }

    /// A stream's records after `seq`, at most `count` of them. Errors: as `open`.
    pub fn after(&self, key: StreamKey, seq: Seq, count: usize) -> io::Result<Vec<Cell>> {
        let Some(cells) = self.find(key)? else {
            return Ok(Vec::new());
        };
        let start = self.first_where(&cells, |cell| cell.seq > seq)?;
        let end = cells.end.min(start.saturating_add(count as u32));
        let mut found = Vec::with_capacity((end - start) as usize);
        let mut at = start;
        while at < end {
            let block = self.block(self.sections.row_blocks(), at)?;
            let within = at as usize % PER_BLOCK;
            let count = (PER_BLOCK - within).min((end - at) as usize);
            let slots = block.as_chunks().0.iter().skip(within).take(count);
            found.extend(slots.map(Cell::decode));
            at += count as u32;
        }
        Ok(found)
    }

    /// The records of a stream next to a place of the segment. Errors: as `open`.
    pub fn around(&self, key: StreamKey, offset: u64) -> io::Result<Neighbours> {
        let Some(cells) = self.find(key)? else {
            return Ok((None, None));
        };
        let at = self.first_where(&cells, |cell| u64::from(cell.offset) >= offset)?;
        let cell = |at| cells.contains(&at).then(|| self.cell(at)).transpose();
        let before = at.checked_sub(1).map(cell).transpose()?;
        Ok((before.flatten(), cell(at)?))
    }

    /// The events with an id, in the order of the log. Errors: as `open`.
    pub fn seen(&self) -> io::Result<Vec<SeenId>> {
        let at = HEADER_BYTES + self.sections.front_bytes() as u64;
        let bytes = self.source.read(at, self.sections.seen_bytes as usize)?;
        if crc32c::crc32c(&bytes) != self.sections.seen_crc {
            return Err(damaged());
        }
        read_seen(&bytes).ok_or_else(damaged)
    }

    /// Which cells are the stream's.
    fn find(&self, key: StreamKey) -> io::Result<Option<Range<u32>>> {
        if !self.may_contain(key) {
            return Ok(None);
        }
        let Some(block) = self
            .row_blocks
            .partition_point(|first| *first <= key)
            .checked_sub(1)
        else {
            return Ok(None);
        };
        let rows = (self.sections.rows as usize - block * PER_BLOCK).min(PER_BLOCK);
        let slots = self.block(0, (block * PER_BLOCK) as u32)?;
        let slots = &slots.as_chunks().0[..rows];
        let place = slots.partition_point(|slot| Row::decode(slot).key < key);
        let row = slots.get(place).map(Row::decode);
        let row = row.filter(|row| row.key == key && row.count > 0);
        row.map(|row| self.cells_of(&row)).transpose()
    }

    /// The places of a row's cells. Errors: as `open`.
    fn cells_of(&self, row: &Row) -> io::Result<Range<u32>> {
        let end = row.first.checked_add(row.count);
        let end = end.filter(|end| u64::from(*end) <= self.sections.cells);
        Ok(row.first..end.ok_or_else(damaged)?)
    }

    /// The place of the first of `cells` that `is_after`, as all that follow it are, or their end.
    fn first_where(&self, cells: &Range<u32>, is_after: impl Fn(&Cell) -> bool) -> io::Result<u32> {
        let (mut low, mut high) = (cells.start, cells.end);
        while low < high {
            let middle = low + (high - low) / 2;
            if is_after(&self.cell(middle)?) {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        Ok(low)
    }

    fn cell(&self, at: u32) -> io::Result<Cell> {
        let block = self.block(self.sections.row_blocks(), at)?;
        let slot = block.as_chunks().0.get(at as usize % PER_BLOCK);
        slot.map(Cell::decode).ok_or_else(damaged)
    }

    /// The slots of the block that has the slot `at`, of the rows or, past `blocks_before`, cells.
    fn block(&self, blocks_before: usize, at: u32) -> io::Result<Vec<u8>> {
        let place = blocks_before + at as usize / PER_BLOCK;
        let offset = self.sections.blocks_at() + (place * BLOCK_BYTES) as u64;
        let mut block = self.source.read(offset, BLOCK_BYTES)?;
        let crc = block.split_off(PER_BLOCK * size_of::<Slot>());
        if crc[..4] != block_crc(self.summary.number, place, &block).to_le_bytes() {
            return Err(damaged());
        }
        Ok(block)
    }
}

impl<F: StorageFile> Source<F> {
    fn bytes_len(&self) -> io::Result<u64> {
        match self {
            Self::Closed => Err(closed()),
            Self::File(file) => file.bytes_len(),
            Self::Memory(bytes) => Ok(bytes.len() as u64),
        }
    }

    fn read(&self, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        match self {
            Self::Closed => Err(closed()),
            Self::File(file) => match read_exact(file, offset, length) {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(damaged()),
                bytes => bytes,
            },
            Self::Memory(bytes) => {
                let rest = bytes.get(offset as usize..).unwrap_or_default();
                rest.get(..length).map(<[u8]>::to_vec).ok_or_else(damaged)
            }
        }
    }
}

fn closed() -> io::Error {
    io::Error::other("the index is not open")
}

fn damaged() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the index is damaged")
}

/// How the parts of an index are laid out.
#[derive(Clone, Copy, Debug, Default)]
struct Sections {
    filter_bytes: u64,
    front_crc: u32,
    seen_bytes: u64,
    seen_crc: u32,
    damage: u64,
    rows: u64,
    cells: u64,
}

impl Sections {
    fn front_bytes(&self) -> usize {
        self.filter_bytes as usize + 8 * self.row_blocks() + 16 * self.damage as usize
    }

    fn row_blocks(&self) -> usize {
        (self.rows as usize).div_ceil(PER_BLOCK)
    }

    /// Bytes of the whole index; `None` where no index has so many.
    fn bytes_len(&self) -> Option<u64> {
        let parts = [
            (self.filter_bytes, 1),
            (self.seen_bytes, 1),
            (self.damage, 16),
            (self.rows, size_of::<Slot>()),
            (self.cells, size_of::<Slot>()),
        ];
        let is_sound = |(count, bytes): &(u64, usize)| *count <= INDEX_BYTES_MAX / *bytes as u64;
        if !parts.iter().all(is_sound) {
            return None;
        }
        let blocks = self.row_blocks() + (self.cells as usize).div_ceil(PER_BLOCK);
        Some(self.blocks_at() + (blocks * BLOCK_BYTES) as u64)
    }

    fn blocks_at(&self) -> u64 {
        let at = HEADER_BYTES + self.front_bytes() as u64 + self.seen_bytes;
        at.next_multiple_of(BLOCK_BYTES as u64)
    }
}

/// More than any segment's index has; what is below can be added and multiplied.
const INDEX_BYTES_MAX: u64 = 1 << 40;
const INDEX_MAGIC: &[u8; 8] = b"SIGHTIDX";
const BLOCK_BYTES: usize = 4096;
/// Slots of one block.
const PER_BLOCK: usize = 255;

fn block_crc(number: u64, place: usize, slots: &[u8]) -> u32 {
    let crc = crc32c::crc32c(&number.to_le_bytes());
    let crc = crc32c::crc32c_append(crc, &(place as u64).to_le_bytes());
    crc32c::crc32c_append(crc, slots)
}

fn encode_header(summary: &Summary, sections: &Sections) -> [u8; HEADER_BYTES as usize] {
    let mut bytes = [0; HEADER_BYTES as usize];
    bytes[..8].copy_from_slice(INDEX_MAGIC);
    bytes[8..10].copy_from_slice(&FORMAT_MAJOR.to_le_bytes());
    bytes[10..12].copy_from_slice(&FORMAT_MINOR.to_le_bytes());
    let numbers = [
        summary.number,
        summary.end,
        summary.events,
        summary.streams,
        summary.revocations,
        summary.seq_max.0,
        summary.received_ms.0.cast_unsigned(),
        summary.received_ms.1.cast_unsigned(),
        sections.filter_bytes,
        u64::from(sections.front_crc),
        sections.seen_bytes,
        u64::from(sections.seen_crc),
        sections.damage,
        sections.rows,
        sections.cells,
    ];
    for (place, number) in bytes[16..].as_chunks_mut::<8>().0.iter_mut().zip(numbers) {
        *place = number.to_le_bytes();
    }
    let crc = crc32c::crc32c(&bytes[..CRC_AT]);
    bytes[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// `None` where it is damaged or a later version's. `damage` is not in it.
fn decode_header(bytes: &[u8; HEADER_BYTES as usize]) -> Option<(Summary, Sections)> {
    check_version(bytes, INDEX_MAGIC).ok()?;
    let numbers = bytes[16..].as_chunks::<8>().0;
    let number = |index: usize| u64::from_le_bytes(numbers[index]);
    let summary = Summary {
        number: number(0),
        end: number(1),
        events: number(2),
        streams: number(3),
        revocations: number(4),
        seq_max: Seq(number(5)),
        received_ms: (number(6).cast_signed(), number(7).cast_signed()),
        damage: Vec::new(),
    };
    let sections = Sections {
        filter_bytes: number(8),
        front_crc: number(9) as u32,
        seen_bytes: number(10),
        seen_crc: number(11) as u32,
        damage: number(12),
        rows: number(13),
        cells: number(14),
    };
    Some((summary, sections))
}

/// An id seen: time 8, fingerprint 16, kind 1, length of the id 1, id.
fn write_seen(out: &mut Vec<u8>, received_ms: i64, fingerprint: u128, kind: StreamKind, id: &str) {
    // A stream's id has at most 128 bytes; one that had more would only not be recognised.
    let Ok(length) = u8::try_from(id.len()) else {
        return;
    };
    out.extend_from_slice(&received_ms.to_le_bytes());
    out.extend_from_slice(&fingerprint.to_le_bytes());
    out.extend_from_slice(&[u8::from(kind == StreamKind::User), length]);
    out.extend_from_slice(id.as_bytes());
}

fn read_seen(mut bytes: &[u8]) -> Option<Vec<SeenId>> {
    let mut seen = Vec::new();
    while !bytes.is_empty() {
        let (received_ms, rest) = bytes.split_first_chunk()?;
        let (fingerprint, rest) = rest.split_first_chunk()?;
        let (&[is_user, length], rest) = rest.split_first_chunk()?;
        let (id, rest) = rest.split_at_checked(usize::from(length))?;
        let id = CompactString::from_utf8(id).ok()?;
        let kind = if is_user == 0 {
            StreamKind::Project
        } else {
            StreamKind::User
        };
        seen.push(SeenId {
            received_ms: i64::from_le_bytes(*received_ms),
            fingerprint: u128::from_le_bytes(*fingerprint),
            stream: Stream { kind, id },
        });
        bytes = rest;
    }
    Some(seen)
}

#[cfg(test)]
mod tests;
