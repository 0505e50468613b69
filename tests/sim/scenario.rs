//! What kind of world a seed makes: how many cores, how small the bounds, how bad the network.

use std::collections::HashMap;

use sightline::agents::{self, StateOptions};
use sightline::event::{Epoch, LogIdentity, Partition, RecordCodec, Seq};
use sightline::hub::{Bounds, Compression, Deliver, Limits, Options};

use crate::dice::Dice;

/// See the module.
pub struct Scenario {
    pub cores: usize,
    pub steps: usize,
    pub seed: u64,
    pub mailbox_letters: usize,
    pub mail_delay_ms_max: u64,
    pub link_bytes: usize,
    pub writes_max: usize,
    /// Whether the cores are stopped, and mail held up, now and then.
    pub has_jams: bool,
    /// Whether the drain begins while everything is under way.
    pub drains_under_load: bool,
    pub heartbeat_interval_ms: u64,
    /// Whether clients that misbehave hardly ever stop it.
    pub is_stubborn: bool,
    /// Bytes from which frames are deflated.
    pub threshold_bytes: usize,
    /// The level above which all streams are numbered.
    pub start: Seq,
    pub deliver: Deliver,
    /// Milliseconds that the log takes at most to keep what it is given.
    pub log_delay_ms_max: u64,
    pub limits: Limits,
    pub bounds: Bounds,
}

pub const EPOCH: Epoch = Epoch(0xabcd_0123);
/// Connections of one user.
pub const TIER: usize = 4;

impl Scenario {
    pub fn new(seed: u64, steps: usize, dice: &mut Dice) -> Self {
        let cores = dice.between(1, 4) as usize;
        let outbox_bytes_max = dice.between(12_000, 50_000) as usize;
        let is_crowded = dice.chance(15);
        let is_metered = dice.chance(15);
        let window_bytes = dice.between(600, 12_000);
        Self {
            cores,
            steps,
            seed,
            mailbox_letters: dice.between(1, 4) as usize,
            mail_delay_ms_max: dice.pick(&[0, 5, 60]),
            link_bytes: dice.pick(&[600, 4_000, 30_000]),
            writes_max: dice.pick(&[6, 64]),
            has_jams: dice.chance(60),
            drains_under_load: dice.chance(40),
            is_stubborn: dice.chance(40),
            heartbeat_interval_ms: dice.pick(&[2_000, 60_000]),
            threshold_bytes: dice.pick(&[0, 150, 1_024]),
            start: Seq(dice.pick(&[0, 3]) * Seq::LEVEL_STEP),
            deliver: dice.pick(&[Deliver::Eager, Deliver::Durable]),
            log_delay_ms_max: dice.pick(&[0, 4, 40]),
            limits: Limits {
                messages_per_minute: 100,
                messages_per_second: dice.between(4, 20) as usize,
                message_bytes_max: 16_384,
                subscriptions_max: dice.between(2, 6) as usize,
                outbox_bytes_max,
                outbox_bytes_total: if is_crowded {
                    outbox_bytes_max
                } else {
                    1 << 30
                },
                publish_bytes_per_second: if is_metered { 5_000 } else { 1 << 30 },
                ingest_bytes_in_flight_max: window_bytes * (cores * cores) as u64,
                dedup_ids_max: 100_000,
            },
            bounds: Bounds {
                mail_bytes_pending_max: dice.between(1_000, 30_000) as usize,
                nack_bytes_queued_max: dice.between(500, 4_000) as usize,
                ring_bytes_max: dice.between(2_000, 60_000) as usize,
                streams_idle_max: dice.between(1, 4) as usize,
                states_max: dice.between(1, 6) as usize,
                state_entries_max: dice.between(4, 60) as usize,
                snapshot_bytes_min: dice.between(200, 8_000) as usize,
            },
        }
    }

    pub fn codec(&self) -> RecordCodec {
        RecordCodec::new(LogIdentity {
            epoch: EPOCH,
            secret: [self.seed, 1],
        })
    }

    pub fn options(&self, core: usize) -> Options {
        Options {
            core,
            partition: Partition::new(self.cores, self.seed),
            codec: self.codec(),
            start: self.start,
            deliver: self.deliver,
            seed: self.seed,
            limits: self.limits.clone(),
            tiers: HashMap::from([("individual".into(), TIER)]),
            compression: Compression {
                level: 1,
                threshold_bytes: self.threshold_bytes,
            },
            heartbeat_interval_ms: self.heartbeat_interval_ms,
            heartbeat_grace_ms: 3_500,
            conversation_silence_ms: 20_000,
            states: states(self.seed),
        }
    }
}

/// What agents' states keep: little, so that every bound is met within a run.
pub fn states(seed: u64) -> StateOptions {
    StateOptions {
        phases: ["EXPLORE", "PLAN"].map(String::from).into(),
        bounds: agents::Bounds {
            nodes_max: 20,
            finished_trees_max: 3,
            finished_max_ms: 60_000,
        },
        seed,
    }
}
