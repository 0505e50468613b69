//! What came of an attack.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use super::Attack;
use super::peer::{End, Peer};
use crate::report::MIB;

/// Counts what the peers did and how they ended.
#[derive(Debug, Default)]
pub(super) struct Tally {
    connections: u64,
    deflating: u64,
    bytes_said: u64,
    ended: BTreeMap<String, u64>,
    open: u64,
    pub(super) seconds: f64,
}

impl Tally {
    /// A connection was made.
    pub(super) fn note_connected(&mut self) {
        self.connections += 1;
    }

    /// A connection that `peer` had, or tried to have, is over.
    pub(super) fn note_end(&mut self, end: End, peer: Option<&Peer>) {
        *self.ended.entry(end.to_string()).or_default() += 1;
        peer.into_iter().for_each(|peer| self.add(peer));
    }

    /// The attack is over, and `peer` had not ended.
    pub(super) fn note_open(&mut self, peer: &Peer) {
        self.open += u64::from(peer.is_connected());
        self.add(peer);
    }

    fn add(&mut self, peer: &Peer) {
        self.bytes_said += peer.said();
        self.deflating += u64::from(peer.is_deflating());
    }
}

/// What came of an attack, for reading and as JSON.
#[derive(Debug, Serialize)]
pub(crate) struct AttackReport {
    schema: &'static str,
    kind: String,
    peers: usize,
    seconds: f64,
    /// Connections that were made.
    pub(crate) connections: u64,
    /// How many of them agreed to permessage-deflate.
    deflating: u64,
    /// Bytes that went out, upgrades left out.
    bytes_sent: u64,
    /// How they ended.
    ended: BTreeMap<String, u64>,
    /// Those that were open at the attack's end.
    open: u64,
}

impl AttackReport {
    /// Sums up `attack`.
    pub(super) fn new(attack: &Attack, tally: Tally) -> Self {
        Self {
            schema: "loadgen/attack/1",
            kind: attack.kind.name(),
            peers: attack.peers,
            seconds: tally.seconds,
            connections: tally.connections,
            deflating: tally.deflating,
            bytes_sent: tally.bytes_said,
            ended: tally.ended,
            open: tally.open,
        }
    }

    /// The report for people.
    pub(crate) fn lines(&self) -> Vec<String> {
        let mut line = format!(
            "attack {} {} peers {:.1} s: {} connections ({:.0}/s, {} deflating), {:.1} MiB sent; \
             open at the end {}",
            self.kind,
            self.peers,
            self.seconds,
            self.connections,
            self.connections as f64 / self.seconds,
            self.deflating,
            self.bytes_sent as f64 / MIB,
            self.open,
        );
        for (end, count) in &self.ended {
            let _ = write!(line, ", {end}: {count}");
        }
        vec![line]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn report_is_one_line() {
        let ended = [("close 1008", 9), ("reset", 1)];
        let report = AttackReport {
            schema: "loadgen/attack/1",
            kind: "fragments".to_owned(),
            peers: 1,
            seconds: 2.0,
            connections: 11,
            deflating: 0,
            bytes_sent: 3 * 1024 * 1024,
            ended: ended.map(|(end, count)| (end.to_owned(), count)).into(),
            open: 1,
        };
        assert_eq!(
            report.lines(),
            [
                "attack fragments 1 peers 2.0 s: 11 connections (6/s, 0 deflating), 3.0 MiB sent; \
              open at the end 1, close 1008: 9, reset: 1"
            ]
        );
    }
}
