//! File, environment and flags become one checked [`Config`], from which `server` takes each
//! module's own options. Owns the names, defaults and ranges of all keys (`keys`); holds nothing
//! that runs. Driven by `cli`, once at the start. Source: section 10 of the contract.
//!
//! The road: [`Sources`] (what was written) → `Draft` (each key applied, in order of precedence:
//! flag over environment over file over default) → relations between keys → [`Config`].

mod credentials;
mod draft;
mod error;
mod keys;
mod nearest;
mod sources;
mod types;
mod value;

use std::{collections::BTreeMap, path::PathBuf};

use ipnet::IpNet;

pub use self::{
    credentials::read_key_file,
    draft::{Loaded, TokenSettings},
    error::{ConfigError, ConfigErrors, Place},
    sources::{Dev, Sources},
    types::{KeySource, OriginRule, Secret, parse_network},
};
pub use crate::engine::listener::ListenAddress;
use crate::event::Dialect;
use crate::history::writer::Durability;
use crate::hub::Deliver;

/// A whole, checked configuration. Every field obeys the range in `keys`; made by
/// [`Sources::load`] alone.
#[derive(Clone, Debug)]
pub struct Config {
    /// At least one; no two equal, but for port 0.
    pub listen: Vec<ListenAddress>,
    /// Event loops: from 1 to the cores that this process may use.
    pub cores: usize,
    /// Where the event log lives.
    pub data_dir: PathBuf,
    /// The dialect of `/` and `/ws` without a subprotocol.
    pub default_dialect: Dialect,
    /// Whether `/echo` sends messages back, for the conformance suite. No key says it, only
    /// `serve --echo`.
    pub has_echo: bool,
    /// How tokens are verified.
    pub auth: Auth,
    /// Who may connect from a browser, beside pages of the same host.
    pub origins: Vec<OriginRule>,
    /// Whose `X-Forwarded-*` headers are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Certificate and key. With them TLS is spoken on every TCP address of `listen`; unix sockets and
    /// `ops.listen` stay plain.
    pub tls: Option<Tls>,
    /// Bounds that an operator may move.
    pub limits: Limits,
    /// Connections per user by the name of the tier; `individual`, the tier of all that name no
    /// known one, is always there.
    pub tiers: BTreeMap<String, u32>,
    /// How silent peers are found.
    pub heartbeat: Heartbeat,
    /// permessage-deflate.
    pub compression: Compression,
    /// The event log.
    pub history: History,
    /// The agents' trees.
    pub agents: Agents,
    /// The end.
    pub shutdown: Shutdown,
    /// The operator's own listener.
    pub ops: Ops,
}

/// How tokens are verified.
#[derive(Clone, Debug)]
pub struct Auth {
    /// The one key source, read.
    pub keys: KeySource,
    /// `iss`, required where set.
    pub issuer: Option<String>,
    /// `aud`, required where set.
    pub audience: Option<String>,
}

/// Both files of a TLS listener; readable when the configuration was loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// The certificate chain, PEM.
    pub cert: PathBuf,
    /// The private key, PEM.
    pub key: PathBuf,
}

/// Bounds that an operator may move; `crate::limits` holds those that nobody may.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections of the node.
    pub connections_max: usize,
    /// Connections of one IP that have not shown a token.
    pub unauthenticated_per_ip: u32,
    /// Connections of one IP; 0: no bound.
    pub connections_per_ip: u32,
    /// Handshakes of one IP in one second.
    pub handshakes_per_second_per_ip: u32,
    /// A viewer's messages in any minute.
    pub messages_per_minute: u32,
    /// A viewer's messages in any second.
    pub messages_per_second: u32,
    /// Bytes of one message of a viewer.
    pub message_bytes_max: usize,
    /// Subscriptions of one connection.
    pub subscriptions_max: usize,
    /// Bytes that wait for one connection; at least `limits::OUTBOX_BYTES_MIN`.
    pub outbox_bytes_max: usize,
    /// Bytes that wait for all connections of the node; at least `outbox_bytes_max`.
    pub outbox_bytes_total: usize,
    /// Bytes that the publishers of one `sub` may bring in a second.
    pub publish_bytes_per_second: u64,
    /// Bytes received and not yet stored, of the node.
    pub ingest_bytes_in_flight_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 10_000,
            unauthenticated_per_ip: 10,
            connections_per_ip: 0,
            handshakes_per_second_per_ip: 20,
            messages_per_minute: 100,
            messages_per_second: 20,
            message_bytes_max: 16 * 1024,
            subscriptions_max: 50,
            outbox_bytes_max: 4 * 1024 * 1024,
            outbox_bytes_total: 512 * 1024 * 1024,
            publish_bytes_per_second: 64 * 1024 * 1024,
            ingest_bytes_in_flight_max: 256 * 1024 * 1024,
        }
    }
}

/// How silent peers are found.
#[derive(Clone, Debug)]
pub struct Heartbeat {
    /// Milliseconds between two pings.
    pub interval_ms: u64,
    /// Milliseconds after a ping in which any frame must come; at most `interval_ms`.
    pub grace_ms: u64,
}

impl Default for Heartbeat {
    fn default() -> Self {
        Self {
            interval_ms: 30_000,
            grace_ms: 5_000,
        }
    }
}

/// permessage-deflate, without context takeover.
#[derive(Clone, Debug)]
pub struct Compression {
    /// Whether it is offered.
    pub enabled: bool,
    /// Bytes below which a message goes out plain.
    pub threshold_bytes: usize,
    /// 1 (fast) to 9 (small).
    pub level: u32,
}

impl Default for Compression {
    fn default() -> Self {
        Self {
            enabled: true,
            threshold_bytes: 1024,
            level: 1,
        }
    }
}

/// The event log.
#[derive(Clone, Debug)]
pub struct History {
    /// What a durable acknowledgement means.
    pub durability: Durability,
    /// When viewers see an event.
    pub deliver: Deliver,
    /// Hours from arrival after which an event may go.
    pub age_max_hours: u64,
    /// Bytes above which the oldest events go.
    pub bytes_max: u64,
    /// `event_id`s that a core remembers.
    pub dedup_ids_max: usize,
}

impl Default for History {
    fn default() -> Self {
        Self {
            durability: Durability::Fsync,
            deliver: Deliver::Eager,
            age_max_hours: 168,
            bytes_max: 4 * 1024 * 1024 * 1024,
            dedup_ids_max: 1_000_000,
        }
    }
}

/// The agents' trees.
#[derive(Clone, Debug)]
pub struct Agents {
    /// In order, for `progress_percentage`; at least one, no two equal.
    pub phases: Vec<String>,
    /// Nodes in one user's trees.
    pub nodes_per_user_max: usize,
    /// Finished trees kept for one user.
    pub finished_trees_max: usize,
    /// Hours for which a finished tree is kept.
    pub finished_max_hours: u64,
    /// Minutes of silence after which a conversation is no longer active.
    pub conversation_silence_minutes: u64,
}

impl Default for Agents {
    fn default() -> Self {
        Self {
            phases: ["EXPLORE", "PLAN", "EXECUTE", "VERIFY", "COMPLETE"]
                .map(String::from)
                .to_vec(),
            nodes_per_user_max: 20_000,
            finished_trees_max: 1_000,
            finished_max_hours: 24,
            conversation_silence_minutes: 30,
        }
    }
}

/// The end.
#[derive(Clone, Debug)]
pub struct Shutdown {
    /// Milliseconds that outboxes have to empty.
    pub drain_ms: u64,
}

impl Default for Shutdown {
    fn default() -> Self {
        Self { drain_ms: 5_000 }
    }
}

/// The operator's own listener.
#[derive(Clone, Debug, Default)]
pub struct Ops {
    /// Metrics and health without a token; not there where absent.
    pub listen: Option<ListenAddress>,
}

#[cfg(test)]
mod tests;
