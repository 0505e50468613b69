//! A segment: one file of the log. What its header says, how it is called, and how its records are
//! found again, whatever happened to it.
//!
//! The header takes the first 512 bytes, one sector, and is on disk before the segment has its
//! name. Little-endian: magic, major and minor version, epoch, secret, number, the segment before
//! and where that one ends, then what the log knew when the segment began; CRC32C at the end.
//! A later major version keeps magic, version and CRC where they are.

use std::io;
use std::ops::Range;

use thiserror::Error;

use super::storage::{StorageFile, read_exact};
use crate::event::record::{ALIGNMENT, HEAD_BYTES, RecordError, RecordView, read_verified};
use crate::event::{Epoch, LogIdentity, RecordCodec, Seq};
use crate::limits::RECORD_BYTES_MAX;

/// Where a segment's records begin.
pub const HEADER_BYTES: u64 = 512;

/// What a segment says about itself and about the log at the time when it began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// Whose it is.
    pub identity: LogIdentity,
    /// From 1, rising; numbers may be left out.
    pub number: u64,
    /// The segment before, 0 where there is none.
    pub previous: u64,
    /// Where that one ends: what it has after this is not part of the log.
    pub previous_end: u64,
    /// The oldest segment that is kept.
    pub first: u64,
    /// The highest seq that retention took, of any stream.
    pub floor: Seq,
    /// The level above which this process numbers every stream.
    pub start: Seq,
    /// No seq above it is given before a mark or header with a higher one is on disk.
    pub reserve: Seq,
    /// Where this segment ends, where it was written again; 0 where the next one says it.
    pub rewritten_end: u64,
}

/// Why 512 bytes are no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum HeaderError {
    /// No header, or a damaged one.
    #[error("the header is damaged")]
    Damaged,
    /// Written by a later version, which this one would misread.
    #[error("format version {0} is later than {FORMAT_MAJOR}, the last one known here")]
    Version(u16),
}

impl SegmentHeader {
    /// As stored.
    pub fn encode(&self) -> [u8; HEADER_BYTES as usize] {
        let mut bytes = [0; HEADER_BYTES as usize];
        bytes[..8].copy_from_slice(SEGMENT_MAGIC);
        bytes[8..10].copy_from_slice(&FORMAT_MAJOR.to_le_bytes());
        bytes[10..12].copy_from_slice(&FORMAT_MINOR.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.identity.epoch.0.to_le_bytes());
        let [low, high] = self.identity.secret;
        let (floor, start, reserve) = (self.floor.0, self.start.0, self.reserve.0);
        let place = [self.number, self.previous, self.previous_end, self.first];
        let numbers =
            [low, high]
                .into_iter()
                .chain(place)
                .chain([floor, start, reserve, self.rewritten_end]);
        for (place, number) in bytes[16..].chunks_exact_mut(8).zip(numbers) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        let crc = crc32c::crc32c(&bytes[..CRC_AT]);
        bytes[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads what `encode` has written. Errors: [`HeaderError`].
    pub fn decode(bytes: &[u8; HEADER_BYTES as usize]) -> Result<Self, HeaderError> {
        check_version(bytes, SEGMENT_MAGIC)?;
        let number = |index: usize| number_at(bytes, 16 + 8 * index);
        let epoch = Epoch(number_at(bytes, 12) as u32);
        Ok(Self {
            identity: LogIdentity {
                epoch,
                secret: [number(0), number(1)],
            },
            number: number(2),
            previous: number(3),
            previous_end: number(4),
            first: number(5),
            floor: Seq(number(6)),
            start: Seq(number(7)),
            reserve: Seq(number(8)),
            rewritten_end: number(9),
        })
    }

    /// Reads the header of an open segment. Errors: of the file; a file that is too short has a
    /// damaged header.
    pub fn read(file: &impl StorageFile) -> io::Result<Result<Self, HeaderError>> {
        match read_exact(file, 0, HEADER_BYTES as usize) {
            Ok(bytes) => Ok(bytes
                .first_chunk()
                .map_or(Err(HeaderError::Damaged), Self::decode)),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Ok(Err(HeaderError::Damaged))
            }
            Err(error) => Err(error),
        }
    }
}

/// Whether a header of 512 bytes, of a segment or an index, is one that can be read here.
/// Errors: [`HeaderError`].
pub fn check_version(bytes: &[u8; 512], magic: &[u8; 8]) -> Result<(), HeaderError> {
    let crc = crc32c::crc32c(&bytes[..CRC_AT]).to_le_bytes();
    if bytes[..8] != magic[..] || bytes[CRC_AT..] != crc {
        return Err(HeaderError::Damaged);
    }
    match u16::from_le_bytes([bytes[8], bytes[9]]) {
        FORMAT_MAJOR => Ok(()),
        later => Err(HeaderError::Version(later)),
    }
}

/// Rises when an older reader would misread what is written.
pub const FORMAT_MAJOR: u16 = 1;
/// Rises when something is added that an older reader may skip.
pub const FORMAT_MINOR: u16 = 0;
/// Where a header's CRC is.
pub const CRC_AT: usize = 508;

const SEGMENT_MAGIC: &[u8; 8] = b"SIGHTLOG";

fn number_at(bytes: &[u8], at: usize) -> u64 {
    let field = bytes.get(at..).and_then(|rest| rest.first_chunk());
    field.map_or(0, |field| u64::from_le_bytes(*field))
}

/// A segment's file; names sort as numbers do.
pub fn segment_name(number: u64) -> String {
    format!("{number:016x}.log")
}

/// The file of a segment's index.
pub fn index_name(number: u64) -> String {
    format!("{number:016x}.idx")
}

/// The files of a segment, the one that is to be taken away first at the end: an index alone is
/// nothing, a segment alone could still be read.
pub(super) fn file_names(number: u64) -> [String; 2] {
    [index_name(number), segment_name(number)]
}

/// The number in the name of a segment.
pub fn parse_segment_name(name: &str) -> Option<u64> {
    parse_name(name, ".log")
}

/// The number in the name of an index.
pub fn parse_index_name(name: &str) -> Option<u64> {
    parse_name(name, ".idx")
}

fn parse_name(name: &str, end: &str) -> Option<u64> {
    let digits = name.strip_suffix(end).filter(|digits| digits.len() == 16)?;
    let number = u64::from_str_radix(digits, 16).ok()?;
    // One spelling only.
    (format!("{number:016x}") == digits).then_some(number)
}

/// What a scanner found.
#[derive(Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "one at a time, on the stack")]
pub enum Found<'b> {
    /// Bytes that are no record, with one that is after them.
    Damage(Range<u64>),
    /// A whole record.
    Record {
        /// Where it begins.
        offset: u64,
        /// All of it.
        bytes: &'b [u8],
        /// What it says.
        view: RecordView<'b>,
    },
}

/// Goes through a segment's records in order, and over what is none. Bytes that cannot be read are
/// taken for damaged.
pub struct Scanner<'f, F> {
    file: &'f F,
    codec: &'f RecordCodec,
    at: u64,
    end: u64,
    buffer: Vec<u8>,
    // Where the buffer begins in the file.
    buffer_at: u64,
    // A record that was found after damage, still to be returned.
    is_after_damage: bool,
}

impl<'f, F: StorageFile> Scanner<'f, F> {
    /// Over the records within `range`, which begins where a record does.
    pub fn new(file: &'f F, codec: &'f RecordCodec, range: Range<u64>) -> Self {
        Self {
            file,
            codec,
            at: range.start,
            end: range.end,
            buffer: Vec::new(),
            buffer_at: range.start,
            is_after_damage: false,
        }
    }

    /// What comes next; `None` where no record follows. Then `offset` tells whether anything does.
    pub fn read_next(&mut self) -> Option<Found<'_>> {
        if !self.is_after_damage && self.verify(self.at).is_none() {
            let damaged = self.at..self.search(self.at + ALIGNMENT as u64)?;
            self.at = damaged.end;
            self.is_after_damage = true;
            return Some(Found::Damage(damaged));
        }
        self.is_after_damage = false;
        let offset = self.at;
        let length = self.verify(offset)?;
        self.at += length as u64;
        let bytes = self.buffered(offset, length);
        // The checksum fits: what is inside is as it was written, by a version that knew why.
        let view = read_verified(bytes).unwrap_or(RecordView::Unknown(0));
        Some(Found::Record {
            offset,
            bytes,
            view,
        })
    }

    /// Where the record returned last ends.
    pub fn offset(&self) -> u64 {
        self.at
    }

    /// The length of the record at `offset`, which is in the buffer afterwards.
    fn verify(&mut self, offset: u64) -> Option<usize> {
        let mut wanted = HEAD_BYTES;
        loop {
            self.fill(offset, wanted);
            match self.codec.verify(self.buffered(offset, wanted)) {
                Ok(length) => return Some(length),
                Err(RecordError::Partial(length)) if length > wanted => wanted = length,
                Err(_) => return None,
            }
        }
    }

    /// Where the next record begins, at `offset` or after.
    fn search(&mut self, mut offset: u64) -> Option<u64> {
        while offset + HEAD_BYTES as u64 <= self.end {
            self.fill(offset, HEAD_BYTES);
            let rest = self.buffered(offset, usize::MAX);
            // The file ends before it should.
            if rest.len() < HEAD_BYTES {
                return None;
            }
            let is_candidate = |head: &[u8]| {
                head.first_chunk()
                    .is_some_and(|head| self.codec.is_plausible(head))
            };
            let starts = (0..rest.len().saturating_sub(HEAD_BYTES - 1)).step_by(ALIGNMENT);
            let candidate = starts.clone().find(|&at| is_candidate(&rest[at..]));
            match candidate {
                Some(at) if self.verify(offset + at as u64).is_some() => {
                    return Some(offset + at as u64);
                }
                Some(at) => offset += (at + ALIGNMENT) as u64,
                None => offset += (starts.len() * ALIGNMENT) as u64,
            }
        }
        None
    }

    /// Up to `length` bytes from `offset` on, as far as they are in the buffer.
    fn buffered(&self, offset: u64, length: usize) -> &[u8] {
        let rest = self.buffer.get((offset - self.buffer_at) as usize..);
        let rest = rest.unwrap_or_default();
        &rest[..rest.len().min(length)]
    }

    /// Brings the bytes from `offset` on into the buffer: `length` of them, or all up to the end.
    fn fill(&mut self, offset: u64, length: usize) {
        let is_there = offset >= self.buffer_at
            && (offset - self.buffer_at) as usize + length <= self.buffer.len();
        if is_there || offset >= self.end {
            return;
        }
        let rest = usize::try_from(self.end - offset).unwrap_or(usize::MAX);
        self.buffer.resize(rest.min(length.max(READ_BYTES)), 0);
        self.buffer_at = offset;
        let read = match self.file.read_at(offset, &mut self.buffer) {
            Ok(read) => read,
            Err(_) => self.read_what_can_be_read(offset),
        };
        self.buffer.truncate(read);
    }

    /// Fills the buffer page by page, with zeros where a page cannot be read.
    fn read_what_can_be_read(&mut self, offset: u64) -> usize {
        let mut read = 0;
        for (index, page) in self.buffer.chunks_mut(PAGE_BYTES).enumerate() {
            let at = offset + (index * PAGE_BYTES) as u64;
            match self.file.read_at(at, page) {
                Ok(count) => read += count,
                Err(_) => {
                    page.fill(0);
                    read += page.len();
                }
            }
        }
        read
    }
}

/// Where the last byte is that is not zero, of the record that may have been begun at `offset`;
/// `offset` where there is none. Errors: of the file.
pub(super) fn written_end(file: &impl StorageFile, offset: u64) -> io::Result<u64> {
    let left = file.bytes_len()?.saturating_sub(offset);
    let mut bytes = vec![0; RECORD_BYTES_MAX.min(left as usize)];
    let read = file.read_at(offset, &mut bytes)?;
    let last = bytes[..read].iter().rposition(|byte| *byte != 0);
    Ok(last.map_or(offset, |last| offset + last as u64 + 1))
}

/// Bytes read at once.
const READ_BYTES: usize = 1024 * 1024;
const PAGE_BYTES: usize = 4096;
const _: () = assert!(RECORD_BYTES_MAX < u32::MAX as usize);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::io::IoSlice;

    use super::super::sim_storage::{SimFile, SimStorage};
    use super::super::storage::Storage as _;
    use super::*;
    use crate::event::record::{MARK_BYTES, Mark};

    fn header() -> SegmentHeader {
        SegmentHeader {
            identity: LogIdentity {
                epoch: Epoch(0xabcd),
                secret: [1, 2],
            },
            number: 7,
            previous: 5,
            previous_end: 4_096,
            first: 3,
            floor: Seq(10),
            start: Seq(1 << 16),
            reserve: Seq(1 << 20),
            rewritten_end: 9_000,
        }
    }

    fn codec() -> RecordCodec {
        RecordCodec::new(header().identity)
    }

    /// A file that holds marks, each with its place as `synced`.
    fn segment(records: u64) -> (SimFile, u64) {
        let mut bytes = header().encode().to_vec();
        for index in 0..records {
            let mark = Mark {
                synced: index,
                ..Mark::default()
            };
            codec().encode_mark(&mark, &mut bytes);
        }
        let file = SimStorage::new(0).create("a").unwrap();
        file.write_at(0, &mut [IoSlice::new(&bytes)]).unwrap();
        (file, bytes.len() as u64)
    }

    /// What is found: records by their `synced`, damage by its range, then where it ends.
    fn scan(file: &SimFile, end: u64) -> (Vec<u64>, Vec<Range<u64>>, u64) {
        let codec = codec();
        let mut scanner = Scanner::new(file, &codec, HEADER_BYTES..end);
        let (mut records, mut damage) = (Vec::new(), Vec::new());
        while let Some(found) = scanner.read_next() {
            match found {
                Found::Damage(range) => damage.push(range),
                Found::Record {
                    view: RecordView::Mark(mark),
                    ..
                } => records.push(mark.synced),
                Found::Record { view, .. } => panic!("{view:?}"),
            }
        }
        (records, damage, scanner.offset())
    }

    fn at(record: u64) -> u64 {
        HEADER_BYTES + record * MARK_BYTES as u64
    }

    #[test]
    fn a_header_comes_back_and_any_damage_shows() {
        let good = header().encode();
        assert_eq!(SegmentHeader::decode(&good), Ok(header()));
        for at in 0..good.len() {
            let mut bad = good;
            bad[at] ^= 0x10;
            assert_eq!(
                SegmentHeader::decode(&bad),
                Err(HeaderError::Damaged),
                "{at}"
            );
        }
    }

    #[test]
    fn a_later_minor_version_is_read_and_a_later_major_one_refused() {
        let check = |at: usize, expected: Result<SegmentHeader, HeaderError>| {
            let mut bytes = header().encode();
            bytes[at] += 1;
            let crc = crc32c::crc32c(&bytes[..CRC_AT]).to_le_bytes();
            bytes[CRC_AT..].copy_from_slice(&crc);
            assert_eq!(SegmentHeader::decode(&bytes), expected);
        };
        check(8, Err(HeaderError::Version(2)));
        check(10, Ok(header()));
    }

    #[test]
    fn names_sort_as_numbers_and_have_one_spelling() {
        assert!(segment_name(9) < segment_name(10));
        assert_eq!(parse_segment_name(&segment_name(255)), Some(255));
        assert_eq!(parse_index_name(&index_name(u64::MAX)), Some(u64::MAX));
        for other in [
            "lock",
            "1.log",
            "00000000000000FF.log",
            "+0000000000000ff.log",
        ] {
            assert_eq!(parse_segment_name(other), None, "{other}");
        }
    }

    #[test]
    fn a_scan_finds_all_records_up_to_the_end() {
        let (file, end) = segment(5);
        assert_eq!(scan(&file, end), ((0..5).collect(), vec![], end));
        file.allocate(end + 100_000).unwrap();
        assert_eq!(scan(&file, end + 100_000), ((0..5).collect(), vec![], end));
    }

    #[test]
    fn a_scan_ends_where_the_file_does() {
        for cut in at(3)..=at(4) {
            let storage = SimStorage::new(0);
            let (whole, end) = segment(5);
            let bytes = read_exact(&whole, 0, cut as usize).unwrap();
            let file = storage.create("b").unwrap();
            file.write_at(0, &mut [IoSlice::new(&bytes)]).unwrap();
            let whole = (cut - HEADER_BYTES) / MARK_BYTES as u64;
            for end in [end, u64::MAX] {
                let expected = ((0..whole).collect(), vec![], at(whole));
                assert_eq!(scan(&file, end), expected, "{cut}");
            }
        }
    }

    #[test]
    fn a_scan_passes_over_damage_and_says_where_it_was() {
        for offset in at(2)..at(3) {
            let (file, end) = segment(5);
            file.write_at(offset, &mut [IoSlice::new(&[0xee])]).unwrap();
            let (records, damage, ended) = scan(&file, end);
            assert_eq!((records, ended), (vec![0, 1, 3, 4], end), "{offset}");
            assert_eq!(
                damage.as_slice(),
                std::slice::from_ref(&(at(2)..at(3))),
                "{offset}"
            );
        }
    }

    #[test]
    fn a_torn_tail_ends_the_scan_at_every_byte() {
        for cut in at(4) + 1..at(5) {
            let (file, end) = segment(5);
            let zeros = vec![0; (end - cut) as usize];
            file.write_at(cut, &mut [IoSlice::new(&zeros)]).unwrap();
            // The last bytes of a mark may be zeros anyhow.
            let (records, damage, ended) = scan(&file, end);
            assert!(damage.is_empty());
            assert!(
                (records.len(), ended) == (4, at(4)) || (records.len(), ended) == (5, end),
                "{cut}: {records:?}, {ended}"
            );
        }
    }
}
