//! A publisher on its thread: connects whenever there is a gateway, leaves by itself now and then,
//! and writes down what it sent and was told. Source: the contract, section 3.

use std::time::{Duration, Instant};

use fastrand::Rng;
use sightline_crash::publishing::Publishing;
use sightline_crash::records::{PublisherLine, Recorder};

use crate::socket::{Heard, NotOpen, Socket};
use crate::stage::{Life, Stage};

/// One publisher through all lives of the gateway.
pub struct Publisher {
    publishing: Publishing,
    token: String,
    dice: Rng,
    record: Recorder,
}

/// One connection.
struct Session {
    socket: Socket,
    leave_at: Option<Instant>,
    next_at: Instant,
    is_sendable: bool,
}

impl Publisher {
    /// One that has made nothing yet.
    pub fn new(name: &str, token: String, mut dice: Rng, record: Recorder) -> Self {
        Self {
            publishing: Publishing::new(name, dice.fork()),
            token,
            dice,
            record,
        }
    }

    /// Publishes until the last life, and there until all is acknowledged. Errors: of the record.
    pub fn run(mut self, stage: &Stage) -> Result<(), String> {
        while let Some(life) = stage.wait(0) {
            if self.meet(life, stage)? {
                break;
            }
        }
        self.record.finish()
    }

    // One connection. Returns whether all is done.
    fn meet(&mut self, life: Life, stage: &Stage) -> Result<bool, String> {
        let socket = match Socket::open(life.address, "/v1/publish?ack=durable", &self.token) {
            Ok(socket) => socket,
            Err(why) => {
                if let NotOpen::Refused(status) = why {
                    let what = format!("refused by {status}");
                    self.record.write(&PublisherLine::Told { what })?;
                }
                std::thread::sleep(RETRY);
                return Ok(false);
            }
        };
        let mut session = self.begin(socket, life);
        let is_done = loop {
            if life.is_last && self.publishing.is_done() {
                session.socket.close();
                break true;
            }
            let is_time = session.leave_at.is_some_and(|at| at <= Instant::now());
            if is_time || stage.is_past(life) {
                break false;
            }
            if session.is_sendable {
                session.is_sendable = self.send(&mut session, stage.is_pressing())?;
            }
            // What was answered before the end still counts.
            if !self.hear(&mut session)? {
                break false;
            }
        };
        self.publishing.end();
        Ok(is_done)
    }

    fn begin(&mut self, socket: Socket, life: Life) -> Session {
        let new_max = if life.is_last { 20 } else { usize::MAX };
        self.publishing.begin(new_max);
        let leaves = !life.is_last && self.dice.u8(..) < 32;
        let leave_at = leaves.then(|| Instant::now() + self.millis(10..150));
        Session {
            socket,
            leave_at,
            next_at: Instant::now(),
            is_sendable: true,
        }
    }

    // Sends a few messages where it is time and there is room. Returns whether that goes on.
    fn send(&mut self, session: &mut Session, is_pressing: bool) -> Result<bool, String> {
        let now = Instant::now();
        if now < session.next_at && !is_pressing {
            return Ok(true);
        }
        session.next_at = now + self.millis(0..12);
        for _ in 0..self.dice.usize(1..=4) {
            let Some(text) = self.publishing.poll_message() else {
                break;
            };
            // Before it is sent: its answer may be the last thing that is heard.
            self.write_lines()?;
            if !session.socket.say(&text) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    // Returns whether the connection lives.
    fn hear(&mut self, session: &mut Session) -> Result<bool, String> {
        match session.socket.hear() {
            Heard::Text(text) => {
                if let Some(reply) = self.publishing.handle(&text) {
                    session.socket.say(reply);
                }
                self.write_lines()?;
            }
            Heard::Nothing => {}
            Heard::End(_) => return Ok(false),
        }
        Ok(true)
    }

    fn write_lines(&mut self) -> Result<(), String> {
        while let Some(line) = self.publishing.poll_line() {
            self.record.write(&line)?;
        }
        Ok(())
    }

    fn millis(&mut self, range: std::ops::Range<u64>) -> Duration {
        Duration::from_millis(self.dice.u64(range))
    }
}

/// Before another try where there is no connection.
const RETRY: Duration = Duration::from_millis(5);
