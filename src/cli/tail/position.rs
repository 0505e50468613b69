//! Where a viewer is in its streams, through all its connections (contract, section 5).

use super::super::client::ClientError;
use crate::dialect::{Cursor, StreamName};
use crate::event::{Epoch, Seq};

/// The epoch, and the last seq of every stream that the viewer has dealt with. Streams go by the
/// names that the envelopes give them: `user`, `project/7`, the id as it is. Other names are kept
/// by nobody.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Position {
    cursor: Cursor,
}

impl Position {
    /// From the flags: `123`, or `user=123,project/7=456` with percent-encoded ids.
    /// Errors: `Cursor`.
    pub(crate) fn parse(epoch: Option<&str>, resume: Option<&str>) -> Result<Self, ClientError> {
        let cursor = Cursor::parse(epoch, resume)?.unwrap_or_default();
        Ok(Self { cursor })
    }

    /// The epoch, once it is known.
    pub(crate) fn epoch(&self) -> Option<Epoch> {
        self.cursor.epoch
    }

    /// The last seq of `stream`.
    pub(crate) fn seq(&self, stream: &str) -> Option<u64> {
        self.cursor.seq(named(stream)?).map(|seq| seq.0)
    }

    /// The life that the server is in. In another one no old seq means anything.
    pub(crate) fn enter_epoch(&mut self, epoch: Epoch) {
        if self.cursor.epoch.is_some_and(|known| known != epoch) {
            self.cursor = Cursor::default();
        }
        self.cursor.epoch = Some(epoch);
    }

    /// Everything up to `seq` was dealt with; never goes back.
    pub(crate) fn advance(&mut self, stream: &str, seq: u64) {
        self.set(stream, self.seq(stream).unwrap_or(0).max(seq));
    }

    /// The stream goes on from `seq`, wherever it was.
    pub(crate) fn set(&mut self, stream: &str, seq: u64) {
        if let Some(stream) = named(stream) {
            self.cursor.insert(stream, Seq(seq));
        }
    }

    /// In the form of `resume`; `None` where there is nothing to resume.
    pub(crate) fn resume(&self) -> Option<String> {
        (!self.cursor.is_empty()).then(|| self.cursor.to_string())
    }

    /// As flags of this command.
    pub(crate) fn flags(&self) -> Option<String> {
        let (epoch, resume) = (self.epoch()?, self.resume()?);
        Some(format!("--epoch {epoch} --resume {resume}"))
    }
}

fn named(stream: &str) -> Option<StreamName<'_>> {
    match stream {
        OWN => Some(StreamName::Own),
        other => other.strip_prefix("project/").map(StreamName::Project),
    }
}

/// The name of the viewer's own stream.
pub(crate) const OWN: &str = "user";

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn flags_are_read_and_told_again() {
        let position = Position::parse(Some("0a1b2c3d"), Some("project/a%2Cb=2,user=1")).unwrap();
        assert_eq!(position.seq("project/a,b"), Some(2));
        let flags = "--epoch 0a1b2c3d --resume user=1,project/a%2Cb=2";
        assert_eq!(position.flags().unwrap(), flags);
        assert_eq!(Position::parse(None, None).unwrap().flags(), None);
        let error = Position::parse(Some("xyz"), Some("1")).unwrap_err();
        assert_eq!(error.exit_code(), 2);
    }

    #[test]
    fn a_new_epoch_forgets_and_the_first_does_not() {
        let mut position = Position::parse(None, Some("5")).unwrap();
        position.enter_epoch(Epoch(1));
        assert_eq!(position.seq(OWN), Some(5));
        position.advance(OWN, 4);
        assert_eq!(position.seq(OWN), Some(5));
        position.enter_epoch(Epoch(2));
        assert_eq!(
            (position.seq(OWN), position.epoch()),
            (None, Some(Epoch(2)))
        );
    }
}
