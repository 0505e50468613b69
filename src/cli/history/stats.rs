//! `sightline history stats`: what the log holds, as TOML.

use std::{io::Write, process::ExitCode};

use super::Outcome;
use crate::{
    event::time::write_rfc3339_ms,
    history::{inspect::Inspection, storage::Storage},
};

/// Writes what the log holds. Errors: of the log and of `out`.
pub fn run<S: Storage>(inspection: &Inspection<S>, out: &mut impl Write) -> Outcome {
    let Some(newest) = inspection.newest else {
        writeln!(out, "segments = 0")?;
        return Ok(ExitCode::SUCCESS);
    };
    let summaries = inspection.summaries()?;
    let with_events = || summaries.iter().filter(|summary| summary.events > 0);
    let damaged: usize = summaries.iter().map(|summary| summary.damage.len()).sum();
    writeln!(out, "epoch = \"{}\"", newest.identity.epoch)?;
    writeln!(out, "closed = {}", inspection.is_clean)?;
    writeln!(out, "segments = {}", summaries.len())?;
    writeln!(
        out,
        "bytes = {}",
        summaries.iter().map(|s| s.end).sum::<u64>()
    )?;
    writeln!(
        out,
        "events = {}",
        summaries.iter().map(|s| s.events).sum::<u64>()
    )?;
    let first = with_events().map(|summary| summary.received_ms.0).min();
    let last = with_events().map(|summary| summary.received_ms.1).max();
    for (key, ms) in [("earliest", first), ("latest", last)] {
        if let Some(ms) = ms {
            let mut text = Vec::new();
            write_rfc3339_ms(&mut text, ms);
            writeln!(out, "{key} = {}", String::from_utf8_lossy(&text))?;
        }
    }
    let highest = summaries.iter().map(|summary| summary.seq_max).max();
    writeln!(out, "seq_highest = {}", highest.unwrap_or_default())?;
    writeln!(out, "damaged_places = {damaged}")?;
    writeln!(out, "damaged_headers = {}", inspection.headless)?;
    if let Some(why) = inspection.new_epoch {
        writeln!(out, "# the next start begins a new epoch: {why}")?;
    }
    Ok(ExitCode::SUCCESS)
}
