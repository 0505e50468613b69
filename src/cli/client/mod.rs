//! What the commands that talk to a running gateway share: the address and the token, one
//! WebSocket at a time, reconnecting with backoff, and what a refusal means (contract, sections
//! 3 and 4).
//!
//! A command is a `Conversation`: a state machine that takes texts and yields texts, and knows
//! neither socket nor clock. `Client` drives it on the calling thread, on a mio poll, so that
//! reading, writing, other threads' input and signals are waited for together. `Pages` reads what
//! is there by plain HTTP, on the same connections.

mod address;
mod args;
mod backoff;
mod bell;
mod drive;
mod ending;
mod error;
mod pages;
mod say;
mod socket;
mod stop;
mod stream;
#[cfg(test)]
pub(crate) mod test_certificates;
#[cfg(test)]
pub(crate) mod test_server;
mod tls;
mod token;

pub(crate) use args::ConnectArgs;
pub(crate) use bell::Bell;
pub(crate) use drive::{Client, Conversation};
pub use error::ClientError;
pub(crate) use pages::{PageError, Pages};
pub(crate) use say::{printable, say};
pub(crate) use stop::Stop;
