//! The shell around a hub: one thread a core, with its sockets, timers and mailboxes.
//!
//! Owns everything that the pure modules lack: descriptors, the clock, threads' queues. `server`
//! builds the parts of each core and runs them; `pages` is the seam to `ops`.

mod admin;
pub mod admission;
mod answer;
mod bodies;
mod clock;
mod connection;
mod event_loop;
mod flush;
mod handoff;
mod handshakes;
pub mod listener;
pub mod log;
pub mod mailbox;
mod pages;
mod requests;
mod respond;
mod sockets;
pub mod timers;
pub mod tls;
pub mod transport;

pub use clock::Clock;
pub use connection::Door;
pub use event_loop::{Core, Letter, Options, Parts, WAKER, run_to_end};
pub use pages::{Page, PageRequest, Pages, Rendering};
