//! `sightline publish`: events from standard input, one a line, until each is acknowledged.
//!
//! A thread reads; the calling thread delivers. Nothing that was read is forgotten: a line is
//! acknowledged, or refused for good and named on standard error, or counted as unacknowledged.

pub(crate) mod delivery;
mod event_id;
pub(crate) mod intake;
mod stdin;
pub(crate) mod window;

use std::time::UNIX_EPOCH;

use clap::Args;

use super::client::{ClientError, ConnectArgs, Stop};

/// Publish events from standard input, one JSON object a line
///
/// Retries until every event is acknowledged. An event without an event_id is given one, so that
/// the gateway recognises a retry. Refused events are named on standard error, by line.
#[derive(Args, Clone, Debug)]
pub struct PublishArgs {
    #[command(flatten)]
    connect: ConnectArgs,
}

/// Publishes standard input to its end. Errors: `Incomplete` where an event was refused or is
/// unacknowledged (after a signal), and what `Client` and the input can fail with.
pub fn run(args: &PublishArgs) -> Result<(), ClientError> {
    let stop = Stop::on_signals().map_err(ClientError::System)?;
    delivery::deliver(&args.connect, stop, |intake| {
        stdin::read_lines(std::io::stdin().lock(), &id_prefix(), intake)
    })
}

/// What this run's event ids begin with: no other run has the same.
fn id_prefix() -> String {
    format!("pub-{:016x}", run_id())
}

/// A number that no other run of a command has, for the event ids that it makes up.
pub(crate) fn run_id() -> u64 {
    // Without randomness the clock tells runs apart.
    getrandom::u64().unwrap_or_else(|_| {
        let since = UNIX_EPOCH.elapsed().unwrap_or_default();
        since.as_nanos() as u64
    })
}
