//! A viewer on its thread: connects whenever there is a gateway, leaves by itself now and then, and
//! writes down what it is told. Source: the contract, sections 4 to 6.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use fastrand::Rng;
use sightline_crash::cast::ViewerPlan;
use sightline_crash::records::{Recorder, ViewerLine};
use sightline_crash::viewing::Viewing;

use crate::socket::{Heard, NotOpen, Socket};
use crate::stage::{Life, Stage};

/// One viewer through all lives of the gateway.
pub struct Viewer<'s> {
    viewing: Viewing,
    token: String,
    dice: Rng,
    record: Recorder,
    /// Connected to all streams, and done with replay.
    is_caught_up: &'s AtomicBool,
}

impl<'s> Viewer<'s> {
    /// One that has seen nothing yet.
    pub fn new(
        plan: &ViewerPlan,
        token: String,
        dice: Rng,
        record: Recorder,
        is_caught_up: &'s AtomicBool,
    ) -> Self {
        Self {
            viewing: Viewing::new(plan),
            token,
            dice,
            record,
            is_caught_up,
        }
    }

    /// Watches until it is over. Errors: of the record.
    pub fn run(mut self, stage: &Stage) -> Result<(), String> {
        let mut not_before = 0;
        while let Some(life) = stage.wait(not_before) {
            self.meet(life, stage)?;
            // Some stay away for a few lives.
            let is_away = self.dice.u8(..) < 24;
            let lives = if is_away { self.dice.u32(1..4) } else { 0 };
            not_before = life.cycle + lives;
        }
        self.record.finish()
    }

    fn meet(&mut self, life: Life, stage: &Stage) -> Result<(), String> {
        let target = self.viewing.target();
        let mut socket = match Socket::open(life.address, &target, &self.token) {
            Ok(socket) => socket,
            Err(why) => {
                if let NotOpen::Refused(status) = why {
                    self.record.write(&ViewerLine::Refused { status })?;
                }
                std::thread::sleep(RETRY);
                return Ok(());
            }
        };
        self.record.write(&self.viewing.begin(life.cycle))?;
        let code = self.watch(&mut socket, life, stage)?;
        self.is_caught_up.store(false, Ordering::Relaxed);
        self.record.write(&ViewerLine::Closed { code })
    }

    // Until the end of the connection; returns the code of its close.
    fn watch(
        &mut self,
        socket: &mut Socket,
        life: Life,
        stage: &Stage,
    ) -> Result<Option<u16>, String> {
        let leaves = !life.is_last && self.dice.u8(..) < 64;
        let leave_at =
            leaves.then(|| Instant::now() + Duration::from_millis(self.dice.u64(5..200)));
        let mut is_leaving = false;
        loop {
            match socket.hear() {
                Heard::Text(text) => self.handle(socket, &text)?,
                Heard::Nothing => {}
                Heard::End(code) => return Ok(code),
            }
            let is_time = leave_at.is_some_and(|at| at <= Instant::now()) || stage.is_past(life);
            if is_time && !is_leaving {
                is_leaving = true;
                // Without a word, or with one: then what is under way still counts.
                if self.dice.bool() {
                    return Ok(None);
                }
                socket.close();
            }
        }
    }

    fn handle(&mut self, socket: &mut Socket, text: &str) -> Result<(), String> {
        let reaction = self.viewing.handle(text);
        let is_caught_up = self.viewing.is_caught_up();
        self.is_caught_up.store(is_caught_up, Ordering::Relaxed);
        if let Some(answer) = reaction.answer {
            socket.say(&answer);
        }
        let line = reaction.line;
        line.map_or(Ok(()), |line| self.record.write(&line))
    }
}

/// Before another try where there is no connection.
const RETRY: Duration = Duration::from_millis(5);
