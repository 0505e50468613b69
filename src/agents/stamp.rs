//! When a value was said: of two values the one with the later stamp counts, in whatever order they
//! arrive. Source: contract section 8.

use compact_str::CompactString;
use serde::{Deserialize, Serialize};

use crate::event::Seq;

/// An event's place among those of its stream: by its own time, then by its id (one without comes
/// first), then by its number.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Stamp {
    /// Milliseconds since the Unix epoch, as the producer says.
    pub timestamp_ms: i64,
    /// The producer's name for the event, 1 to 64 bytes.
    pub event_id: Option<CompactString>,
    /// Its number in the user's stream.
    pub seq: Seq,
}

impl Stamp {
    /// Bytes of memory that it takes beside its own place.
    pub(super) fn heap_bytes(&self) -> usize {
        self.event_id.as_ref().map_or(0, text_heap_bytes)
    }
}

/// What was said last, if anything was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamped<T>(Option<(Stamp, T)>);

impl<T> Default for Stamped<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T: PartialEq> Stamped<T> {
    /// Takes `value`, said at `stamp`, unless something later is known. Returns whether the value
    /// is another one now.
    pub fn say(&mut self, stamp: &Stamp, value: T) -> bool {
        match &mut self.0 {
            Some((known, _)) if *known >= *stamp => false,
            Some((known, held)) => {
                known.clone_from(stamp);
                let differs = *held != value;
                *held = value;
                differs
            }
            None => {
                self.0 = Some((stamp.clone(), value));
                true
            }
        }
    }
}

impl<T> Stamped<T> {
    /// The value.
    pub fn value(&self) -> Option<&T> {
        self.0.as_ref().map(|(_, value)| value)
    }

    /// When it was said.
    pub fn stamp(&self) -> Option<&Stamp> {
        self.0.as_ref().map(|(stamp, _)| stamp)
    }

    /// Bytes of memory that the stamp takes beside its own place.
    pub(super) fn stamp_heap_bytes(&self) -> usize {
        self.stamp().map_or(0, Stamp::heap_bytes)
    }
}

/// Bytes of memory that a text takes beside its own place.
pub(super) fn text_heap_bytes(text: &CompactString) -> usize {
    match text.is_heap_allocated() {
        true => text.capacity(),
        false => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(timestamp_ms: i64, event_id: Option<&str>, seq: u64) -> Stamp {
        Stamp {
            timestamp_ms,
            event_id: event_id.map(CompactString::from),
            seq: Seq(seq),
        }
    }

    #[test]
    fn stamps_go_by_time_then_by_id_then_by_number() {
        let sorted = [
            stamp(-1, Some("z"), 9),
            stamp(5, None, 7),
            stamp(5, None, 8),
            stamp(5, Some("a"), 6),
            stamp(5, Some("b"), 1),
            stamp(6, None, 0),
        ];
        assert!(sorted.is_sorted_by(|a, b| a < b));
    }

    #[test]
    fn the_later_stamp_counts_whichever_came_first() {
        let (early, late) = (stamp(1, None, 2), stamp(2, None, 1));
        let mut said = Stamped::default();
        assert!(said.say(&late, "late"));
        assert!(!said.say(&early, "early"));
        assert!(!said.say(&late, "again"));
        assert_eq!(said.value(), Some(&"late"));
        let mut said = Stamped::default();
        assert!(said.say(&early, "same"));
        assert!(!said.say(&late, "same"));
        assert_eq!(said.stamp(), Some(&late));
    }
}
