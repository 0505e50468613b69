//! What connections speak: how a message that is due is said to the server, and how large what comes
//! of it is.

use crate::frames::header_bytes;
use crate::nats;

/// What the connections to a server speak.
#[derive(Debug, Clone)]
pub(crate) enum Protocol {
    /// WebSocket on both sides. Each message is one that is due, or something that the server says.
    Events,
    /// The same to subscribers; publishers send a request for each message, on connections that
    /// are kept alive.
    Http(Posting),
    /// The operations of NATS inside WebSocket, as they come.
    Nats,
}

/// Publishing by requests.
#[derive(Debug, Clone)]
pub(crate) struct Posting {
    /// What every request begins with, up to the number behind `Content-Length`.
    pub(crate) head: Vec<u8>,
    /// Requests on one connection whose answers have not come; from 1.
    pub(crate) outstanding_max: usize,
}

impl Protocol {
    /// Bytes around the text of an event in a frame of `frame_bytes`, its header included: what a
    /// subscriber gets for an event that comes in a frame of its own.
    pub(crate) fn around_bytes(&self, frame_bytes: usize) -> usize {
        let header = header_bytes(frame_bytes);
        match self {
            Self::Events | Self::Http(_) => header,
            Self::Nats => header + nats::around_bytes(frame_bytes.saturating_sub(header)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frame_of_an_event_is_its_text_and_what_is_around_it() {
        assert_eq!(Protocol::Events.around_bytes(415), 4);
        // `MSG u000000 1 388`, two line ends, and the header of the frame.
        assert_eq!(Protocol::Nats.around_bytes(415), 4 + 17 + 4);
        assert!(Protocol::Nats.around_bytes(0) > 0);
    }
}
