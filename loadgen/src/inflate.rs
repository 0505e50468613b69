//! One inflater for all connections: messages stand alone (no context takeover), so nothing is
//! kept between two of them but the last result. Source: RFC 7692 §7.2.2.

use flate2::{Decompress, FlushDecompress, Status};

use crate::frames::MESSAGE_BYTES_MAX;

/// Inflates messages.
#[derive(Debug)]
pub(crate) struct Inflater {
    state: Decompress,
    /// What was inflated last. A fan-out brings the same bytes to each subscriber, and comparing
    /// them is an eighth of the work of inflating them.
    deflated: Vec<u8>,
    text: Vec<u8>,
}

impl Inflater {
    /// One for raw deflate.
    pub(crate) fn new() -> Self {
        Self {
            state: Decompress::new(false),
            deflated: Vec::new(),
            text: Vec::new(),
        }
    }

    /// The message whose payload is `deflated`; `None` where it does not inflate, or to more
    /// than [`MESSAGE_BYTES_MAX`].
    pub(crate) fn inflate(&mut self, deflated: &[u8]) -> Option<&[u8]> {
        if self.deflated != deflated {
            self.deflated.clear();
            if self.run_message(deflated).is_none() {
                self.text.clear();
                return None;
            }
            self.deflated.extend_from_slice(deflated);
        }
        Some(&self.text)
    }

    fn run_message(&mut self, deflated: &[u8]) -> Option<()> {
        self.text.clear();
        self.state.reset(false);
        if !self.run(deflated)? {
            self.run(&TAIL)?;
        }
        Some(())
    }

    /// Inflates all of `input`; says whether the stream has ended with it.
    fn run(&mut self, mut input: &[u8]) -> Option<bool> {
        loop {
            if self.text.len() == self.text.capacity() {
                self.text.reserve(TEXT_BYTES_STEP.max(self.text.len()));
            }
            let before = self.state.total_in();
            let status = self
                .state
                .decompress_vec(input, &mut self.text, FlushDecompress::Sync)
                .ok()?;
            input = &input[(self.state.total_in() - before) as usize..];
            if self.text.len() > MESSAGE_BYTES_MAX {
                return None;
            }
            let has_room = self.text.len() < self.text.capacity();
            match status {
                Status::StreamEnd => return Some(true),
                _ if input.is_empty() && has_room => return Some(false),
                // Room, and bytes that it does not take: it is stuck.
                Status::BufError if has_room => return None,
                Status::BufError | Status::Ok => {}
            }
        }
    }
}

/// What a sender leaves out of each message's end.
const TAIL: [u8; 4] = [0, 0, 0xFF, 0xFF];
/// Bytes by which a text grows at first.
const TEXT_BYTES_STEP: usize = 4096;

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use flate2::{Compress, Compression, FlushCompress};
    use proptest::prelude::*;

    /// `text` as a server at level 1 deflates it, the tail cut off.
    pub(crate) fn deflate(text: &[u8]) -> Vec<u8> {
        let mut state = Compress::new(Compression::new(1), false);
        let mut out = Vec::with_capacity(text.len() + 1024);
        state
            .compress_vec(text, &mut out, FlushCompress::Sync)
            .unwrap();
        assert!(out.ends_with(&TAIL), "all of it fits");
        out.truncate(out.len() - TAIL.len());
        out
    }

    #[test]
    fn message_that_ends_its_stream_is_whole_too() {
        let mut state = Compress::new(Compression::new(1), false);
        let mut out = Vec::with_capacity(1024);
        state
            .compress_vec(b"the end", &mut out, FlushCompress::Finish)
            .unwrap();
        assert_eq!(Inflater::new().inflate(&out), Some(b"the end".as_slice()));
    }

    #[test]
    fn bomb_and_garbage_are_refused_and_the_next_is_read() {
        let mut inflater = Inflater::new();
        let bomb = deflate(&vec![0; MESSAGE_BYTES_MAX + 1]);
        for bad in [bomb.as_slice(), &[0xFF, 0xFF, 0xFF], &[0x05]] {
            assert_eq!(inflater.inflate(bad), None);
            assert_eq!(
                inflater.inflate(&deflate(b"next")),
                Some(b"next".as_slice())
            );
        }
    }

    proptest! {
        #[test]
        fn inflates_what_was_deflated(
            texts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..9000), 1..4),
        ) {
            let mut inflater = Inflater::new();
            for text in texts.iter().flat_map(|text| [text, text]) {
                prop_assert_eq!(inflater.inflate(&deflate(text)), Some(text.as_slice()));
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Inflater::new().inflate(&bytes);
        }
    }
}
