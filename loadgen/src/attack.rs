//! Hostile peers: many connections that do one thing wrong, for a while, and come again when they
//! are closed. They measure nothing; whether others notice is for a load beside them to show.
//!
//! `script` is what a peer says, `peer` one connection, `crowd` the loop that drives them all,
//! `tally` what came of it.

mod crowd;
mod peer;
mod script;
mod tally;

use std::time::Duration;

use crate::link::Server;
use crate::scenario::{ScenarioError, require_descriptors};

use self::crowd::Crowd;
pub(crate) use self::script::{Kind, Script};
pub(crate) use self::tally::AttackReport;

/// An attack, bounded in peers and time.
#[derive(Debug)]
pub(crate) struct Attack {
    /// What kind it is.
    pub(crate) kind: Kind,
    /// What each peer says.
    pub(crate) script: Script,
    /// Path and query that each peer upgrades first; `None` where it says its script at once.
    pub(crate) upgrade_path: Option<String>,
    /// Where to connect.
    pub(crate) server: Server,
    /// Peers at a time.
    pub(crate) peers: usize,
    /// How long it lasts.
    pub(crate) duration: Duration,
    /// Between two writes of a peer; zero: as fast as its socket takes them.
    pub(crate) write_interval: Duration,
    /// From a peer's end to its next connection.
    pub(crate) redial: Duration,
    /// Connections that may be on their way at a time.
    pub(crate) in_flight_max: usize,
}

/// Runs `attack` to its end.
/// Errors: the machine gives no descriptors or no poll; what the server does is no error.
pub(crate) fn run(attack: &Attack) -> Result<AttackReport, ScenarioError> {
    require_descriptors(attack.peers)?;
    let tally = Crowd::new(attack)?.run()?;
    Ok(AttackReport::new(attack, tally))
}
