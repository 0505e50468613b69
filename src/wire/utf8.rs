//! UTF-8 checked as it arrives: a message in fragments is refused at its first wrong byte.
//! The whole-message check is the standard library's; this one only carries a character over a
//! cut. Source: RFC 6455 §8.1, RFC 3629.

/// What a text holds that is not UTF-8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidUtf8;

/// The state between two parts of one text: the bytes of a character that a cut went through.
#[derive(Clone, Copy, Debug, Default)]
pub struct Utf8Validator {
    pending: [u8; 4],
    pending_len: u8,
}

impl Utf8Validator {
    /// Takes the next part of the text. Errors as soon as no continuation could make it valid.
    pub fn handle_part(&mut self, part: &[u8]) -> Result<(), InvalidUtf8> {
        let rest = self.complete_pending(part)?;
        self.check(rest)
    }

    /// Ends the text. Errors where its last character is incomplete.
    pub fn finish(self) -> Result<(), InvalidUtf8> {
        if self.pending_len == 0 {
            Ok(())
        } else {
            Err(InvalidUtf8)
        }
    }

    /// Adds bytes of `part` to the pending character until it is whole; returns what follows it.
    fn complete_pending<'a>(&mut self, part: &'a [u8]) -> Result<&'a [u8], InvalidUtf8> {
        let mut rest = part;
        while self.pending_len > 0
            && let Some((&byte, following)) = rest.split_first()
        {
            let len = usize::from(self.pending_len);
            // No character is longer than four bytes, so three pending ones are the most.
            self.pending[len] = byte;
            self.pending_len = 0;
            rest = following;
            let pending = self.pending;
            self.check(&pending[..=len])?;
        }
        Ok(rest)
    }

    /// Checks `bytes` and keeps the start of a character at their end.
    fn check(&mut self, bytes: &[u8]) -> Result<(), InvalidUtf8> {
        let Err(error) = std::str::from_utf8(bytes) else {
            return Ok(());
        };
        if error.error_len().is_some() {
            return Err(InvalidUtf8);
        }
        let tail = &bytes[error.valid_up_to()..];
        self.pending[..tail.len()].copy_from_slice(tail);
        self.pending_len = tail.len() as u8;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Utf8Validator;

    fn is_valid_in_parts<'a>(parts: impl Iterator<Item = &'a [u8]>) -> bool {
        let mut validator = Utf8Validator::default();
        for part in parts {
            if validator.handle_part(part).is_err() {
                return false;
            }
        }
        validator.finish().is_ok()
    }

    #[test]
    fn wrong_bytes_are_refused_at_once() {
        let check = |bytes: &[u8], accepted_bytes: usize| {
            let mut validator = Utf8Validator::default();
            let accepted = bytes
                .iter()
                .take_while(|b| validator.handle_part(&[**b]).is_ok());
            assert_eq!(accepted.count(), accepted_bytes, "{bytes:x?}");
        };
        check(&[0x80], 0); // a continuation without a start
        check(&[0xc0, 0x80], 0); // overlong
        check(&[0xe0, 0x80, 0x80], 1); // overlong, known at the second byte
        check(&[0xed, 0xa0, 0x80], 1); // a surrogate
        check(&[0xf4, 0x90, 0x80, 0x80], 1); // past U+10FFFF
        check(&[0xf8], 0);
        check(&[0xe2, 0x82, b'a'], 2);
        check("€".as_bytes(), 3);
    }

    proptest! {
        #[test]
        fn any_bytes_in_any_parts_equal_the_whole(
            bytes in proptest::collection::vec(
                prop_oneof![any::<u8>(), 0x80u8..0xc0, Just(0xe2), Just(0xf0), Just(b'a')],
                0..24,
            ),
            part_len in 1usize..6,
        ) {
            let whole = std::str::from_utf8(&bytes).is_ok();
            prop_assert_eq!(is_valid_in_parts(bytes.chunks(part_len)), whole);
        }

        #[test]
        fn text_in_any_parts_is_valid(text: String, part_len in 1usize..6) {
            prop_assert!(is_valid_in_parts(text.as_bytes().chunks(part_len)));
        }
    }
}
