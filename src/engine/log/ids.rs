//! What the log knows of events that publishers may send again after a restart.

use std::io;

use crate::event::Partition;
use crate::history::catalog::Catalog;
use crate::history::storage::Storage;
use crate::hub::{Duplicates, KnownId, Now};
use crate::limits::DUPLICATE_WINDOW_MS;

/// The ids of late, at most `ids_max` for each core, in the core's own window.
/// Errors: of the storage.
pub fn ids_of_late<S: Storage>(
    catalog: &mut Catalog<S>,
    partition: &Partition,
    ids_max: usize,
    now: Now,
) -> io::Result<Vec<Duplicates>> {
    let since_ms = now.wall_ms.saturating_sub(DUPLICATE_WINDOW_MS as i64);
    let count = ids_max.saturating_mul(partition.cores());
    let cores = 0..partition.cores();
    let mut ids: Vec<_> = cores.map(|_| Duplicates::new(ids_max)).collect();
    catalog.seen_since(since_ms, count, |seen| {
        let core = partition.core_of(seen.stream.kind, &seen.stream.id);
        let known = KnownId {
            received_ms: seen.received_ms,
            fingerprint: seen.fingerprint,
        };
        ids[core].restore(now, known);
    })?;
    Ok(ids)
}
