//! The two envelopes, and what a viewer may say.
//!
//! Owns every byte of JSON that leaves for a client and every word that a viewer may send: event
//! envelopes ([`encode_event`]), the server's own messages ([`ServerMessage`]), cursors
//! ([`Cursor`]), commands ([`Command`]) and the query of a viewer's request ([`ConnectQuery`]).
//! Knows no connection, no subscription state and no clock: `now` is an argument, and the bytes
//! are appended to the caller's buffer. The hub drives it.
//! Source: the contract, sections 3 and 5 to 7.

mod activity;
mod command;
mod connect;
mod conversations;
mod cursor;
mod encode;
mod keen;
mod message;
mod observatory;
mod project;
mod publisher;
mod replay;
mod resume;
mod stream_name;
mod strict;

use crate::event::json;

pub use activity::{ActivityError, ActivityQuestion, ProjectActivity};
pub use command::{
    Command, CommandError, Complaint, FiltersError, MessageId, Subscribe, TokenText, Unsubscribe,
};
pub use connect::{ConnectError, ConnectQuery, SubscribeScope, TreeMode};
pub use conversations::{ActiveConversations, ConversationsError, ConversationsQuestion};
pub use cursor::{Cursor, CursorError};
pub use encode::{encode_event, encode_replayed_event};
pub use message::{
    ConnectionEstablished, ConnectionLimits, ERROR_CODES, ServerMessage, Subscribed, Subscription,
    encode_message,
};
pub use publisher::{Nack, encode_ack, encode_nack, is_continue};
pub use replay::{Replay, ReplayError};
pub use resume::{Outcome, ResumeRow};
pub use stream_name::StreamName;
