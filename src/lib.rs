//! Sightline: a real-time gateway for the activity of AI coding agents.
//!
//! The modules in import order; a module imports only from those above it (`tests/tidy.rs` holds
//! the table). Everything down to `hub` is pure: no socket, file, clock, thread or randomness.

pub mod failpoint; // faults that tests ask for
pub mod limits; // every hard cap, with its unit

pub mod counters; // what each core counts and measures

pub mod event; // what an event is, and how bytes become one

pub mod agents; // what events have come to: trees, conversations, activity
pub mod auth; // tokens, keys, revocation, grants
pub mod history; // the event log on disk
pub mod wire; // HTTP/1.1 and RFC 6455, sans-IO

pub mod dialect; // the two envelopes, and what a viewer may say

pub mod hub; // the heart of one core: numbering, subscriptions, outboxes

pub mod engine; // the shell around a hub: sockets, timers, mailboxes
pub mod ops; // metrics, health, statistics

pub mod config; // file, environment and flags become options

pub mod server; // binds, spawns the cores, drains

pub mod cli; // one file for each command
