//! Viewers that come, go or lag in the course of a phase: who is dialled, cut off or read when.

use tungstenite::protocol::frame::coding::{Control, OpCode};

use super::{Dial, Driver, DriverError};
use crate::inbox::Inbox;
use crate::laggards::Laggards;
use crate::link::{Role, State};
use crate::storm::Cut;

impl Driver {
    /// Dials the next returning viewer where it is due: one, so that a crowd that is due at once
    /// holds up nobody else.
    pub(super) fn dial_due(&mut self) -> Result<(), DriverError> {
        let now_ns = self.poller.now_ns();
        let returners = self.inbox.returners.as_mut();
        let Some((index, path)) = returners.and_then(|returners| returners.poll_dial(now_ns))
        else {
            return Ok(());
        };
        let (path, role) = (path.to_owned(), Role::Returner(index));
        self.dial(&Dial { path, role })
    }

    /// When a slow viewer reads next.
    pub(super) fn laggards_ns(&self) -> Option<u64> {
        self.inbox.laggards.as_ref().and_then(Laggards::next_ns)
    }

    /// Reads what slow viewers read now, where it is time.
    pub(super) fn read_laggards(&mut self) {
        let now_ns = self.poller.now_ns();
        let laggards = self.inbox.laggards.as_mut();
        if let Some(quota) = laggards.and_then(|laggards| laggards.poll_quota(now_ns)) {
            for index in self.resident..self.links.len() {
                self.read_bytes(index, quota);
            }
        }
    }

    /// Lets the slow viewers read all that there is for them, for `drain_ns` at most.
    pub(super) fn relieve(&mut self, drain_ns: u64) -> Result<(), DriverError> {
        self.is_relieving = true;
        let until_ns = self.poller.tick() + drain_ns;
        let is_lagging =
            |inbox: &Inbox| inbox.laggards.as_ref().is_some_and(|it| !it.are_settled());
        if is_lagging(&self.inbox) {
            // Their edges came while they did not read.
            self.unfinished.extend(self.resident..self.links.len());
        }
        while is_lagging(&self.inbox) && self.poller.now_ns() < until_ns {
            self.turn(until_ns)?;
            self.poller.tick();
        }
        self.is_relieving = false;
        Ok(())
    }

    /// Cuts off all viewers where that is due, or dials the next one again.
    pub(super) fn storm_due(&mut self) -> Result<(), DriverError> {
        let now_ns = self.poller.now_ns();
        let Some(storm) = &mut self.inbox.storm else {
            return Ok(());
        };
        if let Some(cut) = storm.poll_cut(now_ns) {
            (0..self.links.len()).for_each(|index| self.cut_off(index, cut));
            return Ok(());
        }
        let Some((index, path)) = storm.poll_dial(now_ns) else {
            return Ok(());
        };
        let cursors = self.inbox.cursors.as_ref();
        let query = cursors.map_or_else(String::new, |cursors| cursors.query(index));
        let (path, role) = (format!("{path}{query}"), Role::Subscriber(index));
        self.dial_at(index, &Dial { path, role })
    }

    /// Ends the connection of a viewer as `cut` says; nothing more is read of it.
    fn cut_off(&mut self, index: usize, cut: Cut) {
        let link = &mut self.links[index];
        if !matches!(link.role, Role::Subscriber(_)) || link.state == State::Closed {
            return;
        }
        link.state = State::Closed;
        let _ = link.transport.deregister(self.poller.registry());
        // A socket that refuses is one that the server has ended already.
        let _ = match cut {
            Cut::Fin => link.transport.end(),
            Cut::Rst => link.transport.reset(),
            Cut::Silence => Ok(()),
        };
    }

    /// Ends the connections of the returning viewers.
    pub(super) fn dismiss(&mut self) {
        for link in &mut self.links[self.resident..] {
            let normal = 1000_u16.to_be_bytes();
            link.queue(
                OpCode::Control(Control::Close),
                &normal,
                self.codec.masks.next(),
            );
            // Whether the server hears of it or finds out does not matter any more.
            let _ = link.flush();
        }
        self.links.truncate(self.resident);
        self.ghosts.clear();
    }
}
