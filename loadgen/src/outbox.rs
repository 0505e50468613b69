//! Which connection takes which message, and as what: a WebSocket publisher at once, whatever it
//! still has to send; an HTTP one when it has room for a request more.
//!
//! Knows links but writes no socket; `driver` does.

use std::collections::VecDeque;

use tungstenite::protocol::frame::coding::{Data, OpCode};

use crate::frames::MaskSequence;
use crate::http;
use crate::link::Link;
use crate::nats;
use crate::protocol::{Posting, Protocol};
use crate::publish::{Acknowledgements, DueMessage};

/// The publishers' connections, and what waits for one of them.
#[derive(Debug)]
pub(crate) struct Outbox {
    protocol: Protocol,
    /// Whether what is sent will be acknowledged.
    acknowledges: bool,
    /// How many loops share the users; this one has each that comes to it in turn.
    loops: usize,
    /// The links that publish, in the order of their role's index.
    publishers: Vec<usize>,
    /// The publisher that has its turn where any will do.
    turn: usize,
    /// Publishers with something new to write.
    touched: Vec<usize>,
    /// What the latest message's publisher had not got rid of before.
    unwritten_bytes: usize,
    waiting: VecDeque<Waiting>,
    waiting_bytes: usize,
    /// The operation that publishes the present message, where the protocol has any.
    operation: Vec<u8>,
}

/// A message for which no connection has room.
#[derive(Debug)]
struct Waiting {
    intended_ns: u64,
    events: u32,
    text: Vec<u8>,
}

impl Outbox {
    /// One without publishers, of one of `loops` loops that share the users.
    pub(crate) fn new(protocol: Protocol, acknowledges: bool, loops: usize) -> Self {
        Self {
            protocol,
            acknowledges,
            loops,
            publishers: Vec::new(),
            turn: 0,
            touched: Vec::new(),
            unwritten_bytes: 0,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            operation: Vec::new(),
        }
    }

    /// The next publisher is the link `index`.
    pub(crate) fn add_publisher(&mut self, index: usize) {
        self.publishers.push(index);
    }

    /// Queues `message` on its connection, or lets it wait for one.
    pub(crate) fn send(
        &mut self,
        message: &DueMessage<'_>,
        links: &mut [Link],
        masks: &mut MaskSequence,
        acknowledgements: &mut Acknowledgements,
    ) {
        if let Protocol::Http(posting) = &self.protocol {
            let outstanding_max = posting.outstanding_max;
            return match self.with_room(outstanding_max, acknowledgements) {
                Some(index) if self.waiting.is_empty() => {
                    self.post(index, message, links, acknowledgements);
                }
                _ => self.wait(message),
            };
        }
        let publisher = self.of_message(message);
        let index = self.publishers[publisher];
        let link = &mut links[index];
        self.unwritten_bytes = link.backlog_bytes();
        if self.unwritten_bytes == 0 {
            self.touched.push(index);
        }
        link.queue(
            OpCode::Data(Data::Text),
            self.payload(message),
            masks.next(),
        );
        if self.acknowledges {
            acknowledgements.note_sent(publisher, message.intended_ns, message.events);
        }
    }

    /// Queues what waits, as far as there is room.
    pub(crate) fn send_waiting(
        &mut self,
        links: &mut [Link],
        acknowledgements: &mut Acknowledgements,
    ) {
        let Protocol::Http(Posting {
            outstanding_max, ..
        }) = self.protocol
        else {
            return;
        };
        while !self.waiting.is_empty()
            && let Some(index) = self.with_room(outstanding_max, acknowledgements)
            && let Some(waiting) = self.waiting.pop_front()
        {
            self.waiting_bytes -= waiting.text.len();
            let message = DueMessage {
                user: 0,
                intended_ns: waiting.intended_ns,
                events: waiting.events,
                text: &waiting.text,
            };
            self.post(index, &message, links, acknowledgements);
        }
    }

    /// The next link that has something new to write.
    pub(crate) fn pop_touched(&mut self) -> Option<usize> {
        self.touched.pop()
    }

    /// Whether anything waits for a connection.
    pub(crate) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Lets nothing wait any more; returns how many events did.
    pub(crate) fn drop_waiting(&mut self) -> u64 {
        self.waiting_bytes = 0;
        let events = self.waiting.drain(..).map(|waiting| waiting.events);
        events.map(u64::from).sum()
    }

    /// Bytes that the server has not taken from one publisher, or from all requests together.
    pub(crate) fn backlog_bytes(&self) -> usize {
        self.unwritten_bytes + self.waiting_bytes
    }

    /// A user's events keep to one publisher; of messages of several users each goes to another.
    fn of_message(&mut self, message: &DueMessage<'_>) -> usize {
        if message.events == 1 {
            return message.user as usize / self.loops % self.publishers.len();
        }
        self.turn = (self.turn + 1) % self.publishers.len();
        self.turn
    }

    /// A publisher that may have one request more, those in turn that have none first.
    fn with_room(
        &mut self,
        outstanding_max: usize,
        acknowledgements: &Acknowledgements,
    ) -> Option<usize> {
        let count = self.publishers.len();
        let in_turn = (1..=count).map(|step| (self.turn + step) % count);
        let least = in_turn.min_by_key(|index| acknowledgements.awaited(*index))?;
        let has_room = acknowledgements.awaited(least) < outstanding_max;
        has_room.then(|| {
            self.turn = least;
            least
        })
    }

    /// What publishes `message` in WebSocket.
    fn payload<'a>(&'a mut self, message: &DueMessage<'a>) -> &'a [u8] {
        if !matches!(self.protocol, Protocol::Nats) {
            return message.text;
        }
        self.operation.clear();
        nats::encode_publish(&mut self.operation, message.user, message.text);
        &self.operation
    }

    fn post(
        &mut self,
        publisher: usize,
        message: &DueMessage<'_>,
        links: &mut [Link],
        acknowledgements: &mut Acknowledgements,
    ) {
        let Protocol::Http(posting) = &self.protocol else {
            return;
        };
        let index = self.publishers[publisher];
        links[index].queue_bytes(|out| http::encode_request(out, &posting.head, message.text));
        self.touched.push(index);
        acknowledgements.note_sent(publisher, message.intended_ns, message.events);
    }

    fn wait(&mut self, message: &DueMessage<'_>) {
        self.waiting_bytes += message.text.len();
        self.waiting.push_back(Waiting {
            intended_ns: message.intended_ns,
            events: message.events,
            text: message.text.to_vec(),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(protocol: Protocol, expected: &[u8]) {
        let mut outbox = Outbox::new(protocol, false, 1);
        let message = DueMessage {
            user: 1,
            intended_ns: 5,
            events: 1,
            text: b"{}",
        };
        // The first leaves nothing to the second.
        assert_eq!(outbox.payload(&message), expected);
        assert_eq!(outbox.payload(&message), expected);
    }

    #[test]
    fn message_is_said_as_the_protocol_has_it() {
        check(Protocol::Events, b"{}");
        check(Protocol::Nats, b"PUB u000001 2\r\n{}\r\n");
    }
}
