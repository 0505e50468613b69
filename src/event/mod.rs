//! What an event is, how bytes become one, and which filters it matches.
//!
//! A publish body is cut by [`Body`], each cut is read by the core's [`Parser`], and what comes out
//! is an [`Event`] or a [`Rejection`]. Pure: the time of arrival is an argument, and the rights of
//! the publisher are `auth`'s business.

pub mod batch;
pub mod body;
#[expect(clippy::module_inception, reason = "the module is about this one noun")]
mod event;
pub mod filter;
pub mod json;
pub mod known;
pub mod parse;
pub mod record;
mod rejection;
mod syntax;
mod tape;
pub mod time;

pub use batch::{RecordBatch, RecordContent, RecordEntry};
pub use body::{Body, BodyKind, Step, Strictness};
pub use event::{Dialect, Epoch, Event, Partition, Seq, SeqRange, Stream, StreamKind};
pub use filter::{EventKeys, Filter, FilterError, SubscriptionKey};
pub use known::{Known, KnownType, ShapeError};
pub use parse::{Parsed, Parser};
pub use record::{LogIdentity, NumberedEvent, RecordCodec, SnapshotPart, StoredEvent, StreamKey};
pub use rejection::{Rejection, RejectionCode};
