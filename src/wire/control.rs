//! Control frames: what one carries, and how many a peer may send. `now` is an argument.

use std::ops::Deref;

use super::message::WireError;
use crate::limits::{CONTROL_BYTES_MAX, CONTROL_FRAMES_PER_SECOND_MAX};

/// The payload of a control frame, held inline: at most 125 bytes (RFC 6455 §5.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ControlPayload {
    len: u8,
    bytes: [u8; CONTROL_BYTES_MAX],
}

impl ControlPayload {
    /// Appends as much of `bytes` as fits; the frame's header was checked before.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        let start = usize::from(self.len);
        let taken = bytes.len().min(CONTROL_BYTES_MAX - start);
        debug_assert_eq!(
            taken,
            bytes.len(),
            "control frames are checked to be at most 125 bytes"
        );
        self.bytes[start..start + taken].copy_from_slice(&bytes[..taken]);
        self.len += taken as u8;
    }
}

impl Default for ControlPayload {
    fn default() -> Self {
        Self {
            len: 0,
            bytes: [0; CONTROL_BYTES_MAX],
        }
    }
}

impl Deref for ControlPayload {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// Counts one peer's control frames by the second.
#[derive(Clone, Copy, Debug, Default)]
pub struct ControlRate {
    second: u64,
    count: u32,
}

impl ControlRate {
    /// Counts one frame at `now_ms` (any monotonic milliseconds).
    /// Errors: `ControlFlood` past `CONTROL_FRAMES_PER_SECOND_MAX` in one second; closes with 1008.
    pub fn handle_frame(&mut self, now_ms: u64) -> Result<(), WireError> {
        let second = now_ms / 1_000;
        if self.second != second {
            *self = Self { second, count: 0 };
        }
        self.count = self.count.saturating_add(1);
        if self.count > CONTROL_FRAMES_PER_SECOND_MAX {
            return Err(WireError::ControlFlood);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_refused_and_the_next_second_is_free_again() {
        let mut rate = ControlRate::default();
        for _ in 0..CONTROL_FRAMES_PER_SECOND_MAX {
            assert_eq!(rate.handle_frame(5_100), Ok(()));
        }
        assert_eq!(rate.handle_frame(5_999), Err(WireError::ControlFlood));
        assert_eq!(rate.handle_frame(6_000), Ok(()));
    }
}
