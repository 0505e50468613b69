//! What the log keeps of administrators' decisions about tokens.

use std::io;

use crate::auth::{Decision, Revocations};
use crate::history::catalog::Catalog;
use crate::history::storage::Storage;

/// The revocations that a log leads to, at `now_s` since the Unix epoch. Errors: of the storage.
pub fn revocations_in_force<S: Storage>(
    catalog: &mut Catalog<S>,
    now_s: u64,
) -> io::Result<Revocations> {
    let mut revocations = Revocations::default();
    let payloads = catalog.revocations()?;
    for decision in payloads.iter().filter_map(|bytes| Decision::decode(bytes)) {
        // Where there is no room for one it was refused in its time.
        let _ = revocations.restore(decision, now_s);
    }
    revocations.handle_tick(now_s);
    Ok(revocations)
}
