//! `sightline history erase`: takes a user's events out of the log that no gateway has open. The
//! segments that have any are written again without them.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use clap::Args;

use super::{HistoryError, Outcome};
use crate::{
    history::{
        chores::{ChoreStep, Chores},
        log::{EpochRule, Log, OpenError},
        storage::Storage,
        writer::Step,
    },
    limits::SEGMENT_BYTES,
};

/// The arguments of `history erase`.
#[derive(Args, Debug)]
pub struct EraseArgs {
    /// Whose events go, those in projects included
    #[arg(long, value_name = "ID")]
    pub user: String,
}

/// Erases, and writes how many records went. Errors: of the log and of `out`; `InUse` where a
/// gateway has the log.
pub fn run<S: Storage>(args: &EraseArgs, storage: &S, out: &mut impl Write) -> Outcome {
    let mut log = match super::open(storage, EpochRule::Keep) {
        Err(HistoryError::Open(OpenError::Locked)) => {
            let user = args.user.clone();
            return Err(HistoryError::InUse { user });
        }
        log => log?,
    };
    close_open_segment(&mut log)?;
    let mut chores = Chores::new(SEGMENT_BYTES);
    chores.erase(&log.catalog, &args.user);
    while !matches!(chores.step(&mut log.catalog)?, ChoreStep::Idle) {}
    log.writer.close()?;
    writeln!(out, "records erased: {}", chores.erased())?;
    Ok(ExitCode::SUCCESS)
}

/// What an unclean stop left behind was written into the segment that was begun just now.
fn close_open_segment<S: Storage>(log: &mut Log<S>) -> io::Result<()> {
    log.writer.roll();
    loop {
        let step = log.writer.poll(0);
        while let Some(change) = log.writer.poll_change() {
            log.catalog.handle_change(change);
        }
        match step {
            Step::Failed => return Err(io::Error::other("the log cannot be written")),
            Step::Idle(_) => return Ok(()),
            Step::Began | Step::Synced | Step::Wrote => {}
        }
    }
}
