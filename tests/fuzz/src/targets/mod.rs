//! All targets.

mod body;
mod command;
mod config;
mod deflate;
mod event;
mod gzip;
mod http;
mod keys;
mod query;
mod token;
mod websocket;

use crate::Target;

/// All targets, by name.
pub const ALL: &[Target] = &[
    body::TARGET,
    command::TARGET,
    config::TARGET,
    deflate::TARGET,
    event::TARGET,
    gzip::TARGET,
    http::TARGET,
    keys::TARGET,
    query::TARGET,
    token::TARGET,
    websocket::TARGET,
];

/// What time it is for targets: 2027-01-15, in milliseconds since the Unix epoch.
const NOW_MS: i64 = 1_800_000_000_000;
