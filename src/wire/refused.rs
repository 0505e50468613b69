//! A refusal as a peer is told of it, whoever refuses and by whatever road it goes out.

use std::borrow::Cow;

use super::close::Refusal;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Status, code word and close code.
    pub refusal: Refusal,
    /// For people; any text.
    pub message: Cow<'static, str>,
    /// Seconds after which another try is worth it, if that is known.
    pub retry_after_s: Option<u64>,
}

impl Refused {
    /// One that does not say when to try again.
    pub fn new(refusal: Refusal, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            refusal,
            message: message.into(),
            retry_after_s: None,
        }
    }
}
