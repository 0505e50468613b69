//! The one table of keys: name, where it lives, what it takes, what it looks like. File,
//! environment, flags and `check-config` all go through it, so that a key exists everywhere or
//! nowhere. Source: section 10 of the contract.

use std::{collections::BTreeMap, path::PathBuf};

use ipnet::IpNet;

use super::{
    Agents, Compression, Heartbeat, History, Limits, ListenAddress, Ops, OriginRule, Secret,
    Shutdown,
    types::parse_network,
    value::{
        Read, Show, Value, boolean, integer, list, one_of, parsed, path, quoted, secret, text,
    },
};
use crate::{
    event::Dialect,
    history::writer::Durability,
    hub::Deliver,
    limits::{BODY_BYTES_MAX, EVENT_BYTES_MAX, MESSAGES_PER_MINUTE_CLOSE, OUTBOX_BYTES_MIN},
};

/// Every setting, each valid by itself; how they fit together is checked in `draft`.
pub(super) struct Settings {
    pub(super) listen: Vec<ListenAddress>,
    pub(super) cores: usize,
    pub(super) data_dir: PathBuf,
    pub(super) default_dialect: Dialect,
    pub(super) auth: AuthSettings,
    pub(super) origins: Vec<OriginRule>,
    pub(super) trusted_proxies: Vec<IpNet>,
    pub(super) tls: TlsSettings,
    pub(super) limits: Limits,
    pub(super) tiers: BTreeMap<String, u32>,
    pub(super) heartbeat: Heartbeat,
    pub(super) compression: Compression,
    pub(super) history: History,
    pub(super) agents: Agents,
    pub(super) shutdown: Shutdown,
    pub(super) ops: Ops,
}

/// The keys of `[auth]`, files not yet read.
#[derive(Default)]
pub(super) struct AuthSettings {
    pub(super) jwt_secret: Option<Secret>,
    pub(super) jwt_secret_file: Option<PathBuf>,
    pub(super) public_key_file: Option<PathBuf>,
    pub(super) jwks_file: Option<PathBuf>,
    pub(super) issuer: Option<String>,
    pub(super) audience: Option<String>,
}

/// The keys of `[tls]`.
#[derive(Default)]
pub(super) struct TlsSettings {
    pub(super) cert: Option<PathBuf>,
    pub(super) key: Option<PathBuf>,
}

impl Settings {
    /// The defaults, on a machine that gives this process `cores`.
    pub(super) fn new(cores: usize) -> Self {
        let tiers = [
            ("free", 2),
            ("individual", 10),
            ("team", 50),
            ("enterprise", 1000),
        ];
        Self {
            listen: address("127.0.0.1:4040").into_iter().collect(),
            cores,
            data_dir: "./sightline-data".into(),
            default_dialect: Dialect::Observatory,
            auth: AuthSettings::default(),
            origins: Vec::new(),
            trusted_proxies: Vec::new(),
            tls: TlsSettings::default(),
            limits: Limits::default(),
            tiers: tiers.map(|(name, max)| (name.to_string(), max)).into(),
            heartbeat: Heartbeat::default(),
            compression: Compression::default(),
            history: History::default(),
            agents: Agents::default(),
            shutdown: Shutdown::default(),
            ops: Ops::default(),
        }
    }

    /// Sets one tier. Its name is free.
    pub(super) fn set_tier(&mut self, name: &str, value: &Value) -> Read<()> {
        self.tiers
            .insert(name.into(), integer(value, 1, 1_000_000)?);
        Ok(())
    }

    /// All settings as lines of TOML, tables spelled out; those not set as comments.
    pub(super) fn lines(&self) -> Vec<String> {
        let keys = KEYS.iter().map(|key| match (key.show)(self) {
            Some(value) => format!("{} = {value}", key.name),
            None => format!("# {} is not set", key.name),
        });
        let tiers = self.tiers.iter().map(|(name, max)| match is_bare(name) {
            true => format!("{TIERS}{name} = {max}"),
            false => format!("{TIERS}{} = {max}", quoted(name)),
        });
        keys.chain(tiers).collect()
    }
}

/// Whether TOML takes it as a key without quotes.
fn is_bare(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

/// One key.
pub(super) struct Key {
    /// Its full name, tables included.
    pub(super) name: &'static str,
    /// A value that does, in TOML: the default where there is one.
    pub(super) example: &'static str,
    /// Reads a value into its place.
    pub(super) set: fn(&mut Settings, &Value) -> Read<()>,
    /// The present value in TOML, secrets left out; `None` where it is not set.
    pub(super) show: fn(&Settings) -> Option<String>,
}

/// The prefix of the keys with free names.
pub(super) const TIERS: &str = "tiers.";

/// A value that does for a tier.
pub(super) const TIER_EXAMPLE: &str = "10";

fn address(text: &str) -> Option<ListenAddress> {
    text.parse().ok()
}

/// The key of this name.
pub(super) fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

/// The names of all tables.
pub(super) fn tables() -> impl Iterator<Item = &'static str> {
    let mut names: Vec<&str> = KEYS
        .iter()
        .filter_map(|key| key.name.split_once('.').map(|(table, _)| table))
        .chain([TIERS.trim_end_matches('.')])
        .collect();
    names.dedup();
    names.into_iter()
}

/// A row: name, place in `Settings`, reader with its bounds, example.
macro_rules! key {
    ($name:literal, $($field:ident).+, $read:ident($($bound:expr),*), $example:literal) => {
        Key {
            name: $name,
            example: $example,
            set: |settings, value| {
                settings.$($field).+ = $read(value $(, $bound)*)?;
                Ok(())
            },
            show: |settings| settings.$($field).+.show(),
        }
    };
}

const ADDRESS: &str = "an address like 127.0.0.1:4040, [::1]:4040 or unix:/run/sightline.sock";
const NETWORK: &str = "a network like 10.0.0.0/8 or an address";
const ORIGIN: &str = "an origin like https://app.example.com (no path, no wildcard), or *";
const MEBIBYTE: u64 = 1024 * 1024;
const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// All keys but the tiers, tables together.
#[rustfmt::skip]
pub(super) const KEYS: &[Key] = &[
    key!("listen", listen, list(ADDRESS, address), r#"["127.0.0.1:4040"]"#),
    key!("cores", cores, integer(1, 4096), "1"),
    key!("data_dir", data_dir, path(), r#""./sightline-data""#),
    key!("default_dialect", default_dialect, one_of(&Dialect::ALL, Dialect::name), r#""observatory""#),
    key!("origins", origins, list(ORIGIN, OriginRule::parse), r#"["https://app.example.com"]"#),
    key!("trusted_proxies", trusted_proxies, list(NETWORK, parse_network), r#"["10.0.0.0/8"]"#),

    key!("auth.jwt_secret", auth.jwt_secret, secret(), ""),
    key!("auth.jwt_secret_file", auth.jwt_secret_file, path(), r#""jwt.secret""#),
    key!("auth.public_key_file", auth.public_key_file, path(), r#""jwt.pub.pem""#),
    key!("auth.jwks_file", auth.jwks_file, path(), r#""jwks.json""#),
    key!("auth.issuer", auth.issuer, text(), r#""https://login.example.com""#),
    key!("auth.audience", auth.audience, text(), r#""sightline""#),

    key!("tls.cert", tls.cert, path(), r#""cert.pem""#),
    key!("tls.key", tls.key, path(), r#""key.pem""#),

    key!("limits.connections_max", limits.connections_max, integer(1, 10_000_000), "10000"),
    key!("limits.unauthenticated_per_ip", limits.unauthenticated_per_ip, integer(1, 1_000_000), "10"),
    key!("limits.connections_per_ip", limits.connections_per_ip, integer(0, 10_000_000), "0"),
    key!("limits.handshakes_per_second_per_ip", limits.handshakes_per_second_per_ip, integer(1, 1_000_000), "20"),
    key!("limits.messages_per_minute", limits.messages_per_minute, integer(1, MESSAGES_PER_MINUTE_CLOSE as u64), "100"),
    key!("limits.messages_per_second", limits.messages_per_second, integer(1, MESSAGES_PER_MINUTE_CLOSE as u64), "20"),
    key!("limits.message_bytes_max", limits.message_bytes_max, integer(1024, BODY_BYTES_MAX as u64), "16384"),
    key!("limits.subscriptions_max", limits.subscriptions_max, integer(1, 1000), "50"),
    key!("limits.outbox_bytes_max", limits.outbox_bytes_max, integer(OUTBOX_BYTES_MIN as u64, 1024 * MEBIBYTE), "4194304"),
    key!("limits.outbox_bytes_total", limits.outbox_bytes_total, integer(OUTBOX_BYTES_MIN as u64, MEBIBYTE * MEBIBYTE), "536870912"),
    key!("limits.publish_bytes_per_second", limits.publish_bytes_per_second, integer(EVENT_BYTES_MAX as u64, MEBIBYTE * MEBIBYTE), "67108864"),
    key!("limits.ingest_bytes_in_flight_max", limits.ingest_bytes_in_flight_max, integer(BODY_BYTES_MAX as u64, MEBIBYTE * MEBIBYTE), "268435456"),

    key!("heartbeat.interval_ms", heartbeat.interval_ms, integer(10, DAY_MS), "30000"),
    key!("heartbeat.grace_ms", heartbeat.grace_ms, integer(10, DAY_MS), "5000"),

    key!("compression.enabled", compression.enabled, boolean(), "true"),
    key!("compression.threshold_bytes", compression.threshold_bytes, integer(0, EVENT_BYTES_MAX as u64), "1024"),
    key!("compression.level", compression.level, integer(1, 9), "1"),

    key!("history.durability", history.durability, one_of(&Durability::ALL, Durability::name), r#""fsync""#),
    key!("history.deliver", history.deliver, one_of(&Deliver::ALL, Deliver::name), r#""eager""#),
    key!("history.age_max_hours", history.age_max_hours, integer(1, 1_000_000), "168"),
    key!("history.bytes_max", history.bytes_max, integer(64 * MEBIBYTE, MEBIBYTE * MEBIBYTE * 1024), "4294967296"),
    key!("history.dedup_ids_max", history.dedup_ids_max, integer(1, 1_000_000_000), "1000000"),

    key!("agents.phases", agents.phases, list("a name of 1 to 64 bytes", phase), r#"["EXPLORE", "PLAN", "EXECUTE", "VERIFY", "COMPLETE"]"#),
    key!("agents.nodes_per_user_max", agents.nodes_per_user_max, integer(1, 10_000_000), "20000"),
    key!("agents.finished_trees_max", agents.finished_trees_max, integer(0, 10_000_000), "1000"),
    key!("agents.finished_max_hours", agents.finished_max_hours, integer(0, 1_000_000), "24"),
    key!("agents.conversation_silence_minutes", agents.conversation_silence_minutes, integer(1, 1_000_000), "30"),

    key!("shutdown.drain_ms", shutdown.drain_ms, integer(0, DAY_MS), "5000"),

    key!("ops.listen", ops.listen, parsed(ADDRESS, address), r#""127.0.0.1:4041""#),
];

fn phase(text: &str) -> Option<String> {
    (text.len() <= 64).then(|| text.to_string())
}
