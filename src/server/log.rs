//! Opens the event log as the configuration says, and takes from it what a process must know from
//! its first event on.

use std::path::PathBuf;

use thiserror::Error;
use tracing::{info, warn};

use crate::auth::Revocations;
use crate::config::{Config, History};
use crate::engine::log::{ids_of_late, revocations_in_force};
use crate::event::{LogIdentity, Partition};
use crate::history::log::{EpochRule, Log, NewEpoch, OpenError, OpenOptions, OpenReport, open};
use crate::history::retention::RetentionOptions;
use crate::history::storage::DiskStorage;
use crate::history::writer::WriterOptions;
use crate::hub::{Deliver, Duplicates, Now};
use crate::limits::{COMMIT_INTERVAL_NS, COMMIT_INTERVAL_SPARSE_NS, SEGMENT_BYTES};

/// The log, and what it knows of before the start.
pub(super) struct OpenLog {
    pub log: Log<DiskStorage>,
    pub revocations: Revocations,
    /// Ids of late, for each core those of its streams.
    pub ids: Vec<Duplicates>,
}

/// Why the event log cannot be opened. The operator's to solve.
#[derive(Debug, Error)]
#[error("the event log in {}: {error}: {}", folder.display(), advice(error))]
pub struct LogError {
    folder: PathBuf,
    error: OpenError,
}

fn advice(error: &OpenError) -> &'static str {
    match error {
        OpenError::Io(_) => "data_dir must name a directory that can be read and written",
        OpenError::Locked => "end that process, or name another data_dir",
        OpenError::Version { .. } => "start a version that knows it, or name another data_dir",
    }
}

/// Opens the log in `data_dir`. `fresh`: who it is if it is a new one.
pub(super) fn open_log(
    config: &Config,
    fresh: LogIdentity,
    partition: &Partition,
    now: Now,
) -> Result<OpenLog, LogError> {
    let options = OpenOptions {
        writer: WriterOptions {
            durability: config.history.durability,
            segment_bytes: SEGMENT_BYTES,
            cores: config.cores,
            sparse_interval_ns: sparse_interval_ns(&config.history),
        },
        fresh,
        epoch: EpochRule::Keep,
    };
    let opened = DiskStorage::create(&config.data_dir)
        .map_err(OpenError::Io)
        .and_then(|storage| {
            let mut log = open(&storage, options)?;
            let revocations = revocations_in_force(&mut log.catalog, now.wall_s())?;
            let ids_max = config.history.dedup_ids_max;
            let ids = ids_of_late(&mut log.catalog, partition, ids_max, now)?;
            Ok(OpenLog {
                log,
                revocations,
                ids,
            })
        });
    opened.map_err(|error| LogError {
        folder: config.data_dir.clone(),
        error,
    })
}

/// How much of the log is kept.
pub(super) fn retention(config: &Config) -> RetentionOptions {
    let hours = i64::try_from(config.history.age_max_hours).unwrap_or(i64::MAX);
    RetentionOptions {
        age_max_ms: hours.saturating_mul(60 * 60 * 1_000),
        bytes_max: config.history.bytes_max,
    }
}

/// Whoever looks on does not wait for company; who publishes is told once for all that went.
fn sparse_interval_ns(history: &History) -> u64 {
    match history.deliver {
        Deliver::Durable => COMMIT_INTERVAL_NS,
        Deliver::Eager => COMMIT_INTERVAL_SPARSE_NS,
    }
}

impl OpenLog {
    /// Tells the operator what was found.
    pub fn report(&self, config: &Config) {
        let OpenReport {
            is_clean,
            new_epoch,
            start,
            cut_bytes,
            recovered,
            damaged,
            headless,
            unindexed,
        } = self.log.report;
        let epoch = self.log.codec.identity().epoch;
        info!(
            folder = %config.data_dir.display(),
            %epoch,
            %start,
            is_clean,
            segments = self.log.catalog.segments_len(),
            bytes = self.log.catalog.bytes_len(),
            recovered,
            cut_bytes,
            unindexed,
            ids = self.ids.iter().map(Duplicates::len).sum::<usize>(),
            revocations = self.revocations.len(),
            "the event log is open"
        );
        if damaged + headless > 0 {
            warn!(
                damaged,
                headless,
                "parts of the event log cannot be read any more: sightline history verify names them"
            );
        }
        if let Some(reason @ (NewEpoch::Backwards | NewEpoch::Lost)) = new_epoch {
            warn!(%reason, "the event log begins a new epoch: cursors from before are reset");
        }
    }
}
