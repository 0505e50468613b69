//! From the one configuration to each module's own options.

use std::io;
use std::sync::Arc;

use crate::agents::{Bounds, StateOptions};
use crate::auth::{KeyError, KeySet, Verifier};
use crate::config::{Agents, Auth, Config, KeySource, Limits, OriginRule};
use crate::engine::admission::AdmissionOptions;
use crate::engine::{self, Clock, Pages};
use crate::event::{Epoch, LogIdentity, Partition};
use crate::history::log::Log;
use crate::history::storage::DiskStorage;
use crate::hub;
use crate::wire::{Endpoints, OriginPolicy};

/// What is drawn once per process.
pub(super) struct Secrets {
    pub seed: u64,
    /// Who the event log is if it is a new one; of an old one the epoch of a new life.
    pub identity: LogIdentity,
}

impl Secrets {
    /// Errors: the system has no randomness.
    pub fn draw() -> io::Result<Self> {
        let draw = || {
            let mut bytes = [0; 8];
            getrandom::fill(&mut bytes).map_err(io::Error::other)?;
            io::Result::Ok(u64::from_le_bytes(bytes))
        };
        Ok(Self {
            seed: draw()?,
            identity: LogIdentity {
                epoch: Epoch(draw()? as u32),
                secret: [draw()?, draw()?],
            },
        })
    }
}

pub(super) fn verifier(auth: &Auth) -> Result<Verifier, KeyError> {
    let keys = match &auth.keys {
        KeySource::Jwks(text) => KeySet::from_jwks(text.as_bytes()),
        KeySource::PublicKeyPem(text) => KeySet::from_public_pem(text.as_bytes()),
        KeySource::Secret(secret) => KeySet::from_secret(secret.as_bytes()),
    }?;
    Ok(Verifier {
        keys,
        issuer: auth.issuer.clone(),
        audience: auth.audience.clone(),
    })
}

pub(super) fn admission(limits: &Limits) -> AdmissionOptions {
    AdmissionOptions {
        connections_max: limits.connections_max,
        unauthenticated_per_ip: limits.unauthenticated_per_ip as usize,
        connections_per_ip: limits.connections_per_ip as usize,
        handshakes_per_second_per_ip: limits.handshakes_per_second_per_ip,
    }
}

pub(super) fn hub(
    config: &Config,
    core: usize,
    partition: &Partition,
    seed: u64,
    log: &Log<DiskStorage>,
) -> hub::Options {
    let limits = &config.limits;
    hub::Options {
        core,
        partition: partition.clone(),
        codec: log.codec.clone(),
        start: log.report.start,
        deliver: config.history.deliver,
        seed,
        limits: hub::Limits {
            messages_per_minute: limits.messages_per_minute as usize,
            messages_per_second: limits.messages_per_second as usize,
            message_bytes_max: limits.message_bytes_max,
            subscriptions_max: limits.subscriptions_max,
            outbox_bytes_max: limits.outbox_bytes_max,
            outbox_bytes_total: limits.outbox_bytes_total,
            publish_bytes_per_second: limits.publish_bytes_per_second,
            ingest_bytes_in_flight_max: limits.ingest_bytes_in_flight_max as u64,
            dedup_ids_max: config.history.dedup_ids_max,
        },
        tiers: config
            .tiers
            .iter()
            .map(|(tier, most)| (tier.into(), *most as usize))
            .collect(),
        compression: hub::Compression {
            level: config.compression.level,
            threshold_bytes: config.compression.threshold_bytes,
        },
        heartbeat_interval_ms: config.heartbeat.interval_ms,
        heartbeat_grace_ms: config.heartbeat.grace_ms,
        conversation_silence_ms: config.agents.conversation_silence_minutes as i64 * 60_000,
        states: states(&config.agents, seed),
    }
}

fn states(agents: &Agents, seed: u64) -> StateOptions {
    let finished_max_ms = agents.finished_max_hours as i64 * 60 * 60 * 1_000;
    StateOptions {
        phases: agents.phases.as_slice().into(),
        bounds: Bounds {
            nodes_max: agents.nodes_per_user_max,
            finished_trees_max: agents.finished_trees_max,
            finished_max_ms,
        },
        seed,
    }
}

pub(super) fn engine(config: &Config, clock: Clock, pages: Arc<dyn Pages>) -> engine::Options {
    engine::Options {
        clock,
        endpoints: Endpoints {
            default_dialect: config.default_dialect,
            has_echo: config.has_echo,
        },
        origins: origins(&config.origins),
        trusted_proxies: config.trusted_proxies.clone(),
        message_bytes_max: config.limits.message_bytes_max,
        is_compression_enabled: config.compression.enabled,
        body_bytes_max: (config.limits.ingest_bytes_in_flight_max / config.cores) as u64,
        pages,
    }
}

fn origins(rules: &[OriginRule]) -> OriginPolicy {
    let texts: Vec<String> = rules
        .iter()
        .filter_map(|rule| match rule {
            OriginRule::Any => Some("*".to_owned()),
            OriginRule::Exact(origin) => Some(origin.clone()),
            OriginRule::Loopback => None,
        })
        .collect();
    let allows_loopback = rules.contains(&OriginRule::Loopback);
    OriginPolicy::new(&texts, allows_loopback).expect("config has checked each origin")
}
