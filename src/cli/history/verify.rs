//! `sightline history verify`: whether every record is as it was written. What is damaged is a line
//! of its own; the exit code is 1 then, and where a segment is gone.

use std::{io::Write, process::ExitCode};

use super::Outcome;
use crate::{
    cli::CliError,
    history::{inspect::Inspection, log::NewEpoch, storage::Storage},
};

/// Reads every byte and writes what was found. Errors: of the log and of `out`.
pub fn run<S: Storage>(inspection: &Inspection<S>, out: &mut impl Write) -> Outcome {
    let found = inspection.verify()?;
    for record in &found.damaged {
        write!(
            out,
            "{}: {} bytes at {}",
            record.segment, record.length, record.offset
        )?;
        match (&record.stream, record.seq) {
            (Some(stream), Some(seq)) => write!(out, ": {stream} seq {seq}")?,
            (None, Some(seq)) => write!(out, ": seq {seq} of a stream without other events")?,
            _ => write!(out, ": of nobody knows which stream")?,
        }
        writeln!(out, " is damaged")?;
    }
    for index in &found.indices {
        writeln!(
            out,
            "# {index} is missing or damaged, and will be made again"
        )?;
    }
    if inspection.headless > 0 {
        writeln!(out, "# damaged headers: {}", inspection.headless)?;
    }
    if let Some(why) = inspection.new_epoch {
        writeln!(out, "# the next start begins a new epoch: {why}")?;
    }
    let (segments, events) = (found.segments, found.events);
    let damaged = found.damaged.len();
    writeln!(
        out,
        "# segments: {segments}, events: {events}, damaged: {damaged}"
    )?;
    let is_gone = matches!(
        inspection.new_epoch,
        Some(NewEpoch::Backwards | NewEpoch::Lost)
    );
    let is_whole = damaged == 0 && inspection.headless == 0 && !is_gone;
    Ok(if is_whole {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(CliError::FAILED)
    })
}
