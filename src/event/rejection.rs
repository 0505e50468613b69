//! Why an event was not taken: the codes of publishing and their messages.
//!
//! The first seven codes are found here, in `parse`; the others by those who ask whether the
//! publisher may (auth) and whether there is room (hub). Source: contract sections 2 and 3.

use std::fmt;

/// One event's refusal. It is the publisher's to mend; its neighbours are untouched.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Rejection {
    /// The word for programs.
    pub code: RejectionCode,
    /// The sentence for people: what, where and what to do. Never more than a few words of input.
    pub message: String,
}

impl Rejection {
    /// A refusal with `code`, explained by `message`.
    pub fn new(code: RejectionCode, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { code, message }
    }
}

/// Every code that a row of `rejected` or a `nack` may carry, in the order in which they hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RejectionCode {
    /// Not JSON, or not UTF-8.
    InvalidJson,
    /// Nested deeper than `EVENT_DEPTH_MAX`.
    TooDeep,
    /// Longer than `EVENT_BYTES_MAX`.
    EventTooLarge,
    /// A routing field twice, under one name or two.
    DuplicateField,
    /// A field is missing, mistyped or out of range.
    InvalidField,
    /// The event's type is one that only the server sends.
    ReservedType,
    /// Neither a user nor a project: it would reach nobody.
    NoAudience,
    /// The token does not speak for this audience.
    ForbiddenAudience,
    /// No room could be found for it within the patience of admission.
    Overloaded,
    /// The publisher's bytes per second are used up.
    RateLimited,
    /// The disk is full.
    StorageFull,
    /// The server is shutting down.
    Draining,
}

impl RejectionCode {
    /// All, in the order of their indices.
    pub const ALL: [Self; 12] = [
        Self::InvalidJson,
        Self::TooDeep,
        Self::EventTooLarge,
        Self::DuplicateField,
        Self::InvalidField,
        Self::ReservedType,
        Self::NoAudience,
        Self::ForbiddenAudience,
        Self::Overloaded,
        Self::RateLimited,
        Self::StorageFull,
        Self::Draining,
    ];

    /// Position in tables that have one place for each code.
    pub fn index(self) -> usize {
        self as usize
    }

    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidJson => "INVALID_JSON",
            Self::TooDeep => "TOO_DEEP",
            Self::EventTooLarge => "EVENT_TOO_LARGE",
            Self::DuplicateField => "DUPLICATE_FIELD",
            Self::InvalidField => "INVALID_FIELD",
            Self::ReservedType => "RESERVED_TYPE",
            Self::NoAudience => "NO_AUDIENCE",
            Self::ForbiddenAudience => "FORBIDDEN_AUDIENCE",
            Self::Overloaded => "OVERLOADED",
            Self::RateLimited => "RATE_LIMITED",
            Self::StorageFull => "STORAGE_FULL",
            Self::Draining => "DRAINING",
        }
    }
}

impl fmt::Display for RejectionCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_stand_at_their_index_under_their_own_word() {
        for (index, code) in RejectionCode::ALL.into_iter().enumerate() {
            assert_eq!(code.index(), index);
            let same = RejectionCode::ALL
                .iter()
                .filter(|c| c.as_str() == code.as_str());
            assert_eq!(same.count(), 1, "{code}");
        }
    }
}
