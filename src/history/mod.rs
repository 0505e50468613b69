//! The event log: one append-only log for all streams, in segments, on disk.
//!
//! [`log::open`] finds out where the log ends and returns its two halves, one for each of two
//! threads. The [`writer`] takes batches of records from all cores, commits them in groups, and says
//! how far they are kept. The [`catalog`] knows what is held, by what the writer tells it and by the
//! [`index`] of each sealed segment; it answers what becomes of a viewer's cursor ([`resume`]) and
//! reads events back ([`replay`]). On the catalog's thread, in bounded steps, [`chores`] seal, unlink
//! and erase, and [`retention`] decides what goes. [`inspect`] is for operators.
//!
//! A record is `event::record`'s business, a segment is [`segment`]'s. No thread, clock or
//! randomness here: `now` and secrets are arguments. Files are reached through [`storage`] alone,
//! which tests replace by one that fails.
//!
//! What holds, whatever fails: what was acknowledged as durable is there after the next opening,
//! exactly once and as it was; no seq is given twice; nothing damaged is served, and nothing is
//! missing without being stated.

pub mod catalog;
mod chain;
pub mod chores;
mod damage;
mod durability;
pub mod filter;
pub mod index;
pub mod inspect;
pub mod log;
pub mod open_index;
mod pace;
pub mod replay;
pub mod resume;
pub mod retention;
pub mod segment;
#[cfg(any(test, feature = "failpoints"))]
pub mod sim_storage;
pub mod storage;
mod tail;
pub mod writer;

#[cfg(test)]
mod golden;
#[cfg(test)]
mod rig;
#[cfg(test)]
mod simulation;
