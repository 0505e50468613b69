//! Peers of `serve --echo`, by which the conformance suite judges how we speak RFC 6455: whatever one
//! says goes back to it, on the road that server messages take. They have heartbeats, an outbox and a
//! token like anybody; no tier counts them.

use crate::wire::Refused;
use crate::wire::frame::Data;

use super::keyed::Key;
use super::peers::{Arrival, Role};
use super::{Hub, Now};

impl Hub {
    /// Lets such a peer in: its name among the peers. `takes_deflated`: it agreed on that.
    pub fn handle_echo_peer(
        &mut self,
        now: Now,
        arrival: Arrival,
        takes_deflated: bool,
    ) -> Result<Key, Refused> {
        self.check_arrival(now, &arrival.claims)?;
        let next_ping_ms = now.ms() + self.options.heartbeat_interval_ms;
        let role = Role::Echo { takes_deflated };
        let key = self.peers.insert(now, arrival, role, next_ping_ms);
        self.schedule_next(now, key);
        Ok(key)
    }

    /// Its message goes back. One that does not read what it said is a slow consumer.
    pub fn handle_echo(&mut self, key: Key, kind: Data, payload: &[u8]) {
        self.peers.push_data(key, kind, payload);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::rig::{OUTBOX_BYTES_MAX, Rig};

    #[test]
    fn what_is_said_comes_back_as_it_was() {
        let mut rig = Rig::new();
        let client = rig.echo("ada");
        rig.hub().handle_echo(client.key, Data::Text, b"a");
        rig.hub().handle_echo(client.key, Data::Binary, b"\xff");
        let written = rig.write(client, usize::MAX);
        assert!(written.ends_with(b"\r\n\r\n\x81\x01a\x82\x01\xff"));
        rig.check_balance();
    }

    #[test]
    fn who_does_not_read_its_echo_is_closed_but_one_message_of_any_size_comes_back() {
        let mut rig = Rig::new();
        let client = rig.echo("ada");
        rig.read(client);
        let large = format!("\"{}\"", "x".repeat(2 * OUTBOX_BYTES_MAX));
        rig.hub()
            .handle_echo(client.key, Data::Text, large.as_bytes());
        rig.turn();
        assert_eq!(rig.closing(client), None);
        rig.hub().handle_echo(client.key, Data::Text, b"1");
        rig.turn();
        assert_eq!(rig.names(client), ["4008"]);
        rig.check_balance();
    }

    #[test]
    fn it_counts_against_no_tier() {
        let mut rig = Rig::new();
        for _ in 0..5 {
            rig.echo("ada");
        }
        let viewer = rig.viewer("ada", &[]);
        assert_eq!(rig.names(viewer), ["connection_established"]);
        assert_eq!(rig.stats[0].counters.viewers.value(), 1);
    }
}
