//! The mail between cores: for each pair a queue of few letters, in order, each delayed.

use std::collections::VecDeque;

use sightline::hub::mail::Mail;

use crate::dice::Dice;

/// See the module.
pub struct Post {
    lanes: Vec<Vec<Lane>>,
    pub capacity: usize,
    pub delay_ms_max: u64,
    /// Bytes of frames in one letter, the most so far.
    pub letter_bytes_max: usize,
}

#[derive(Default)]
struct Lane {
    letters: VecDeque<(u64, Vec<Mail>)>,
    ready_ms: u64,
    is_starved: bool,
}

impl Post {
    pub fn new(cores: usize, capacity: usize, delay_ms_max: u64) -> Self {
        let lanes = (0..cores)
            .map(|_| (0..cores).map(|_| Lane::default()).collect())
            .collect();
        Self {
            lanes,
            capacity,
            delay_ms_max,
            letter_bytes_max: 0,
        }
    }

    pub fn cores(&self) -> usize {
        self.lanes.len()
    }

    /// Nothing from `from` to `to` arrives before `until_ms`.
    pub fn jam(&mut self, from: usize, to: usize, until_ms: u64) {
        let lane = &mut self.lanes[from][to];
        lane.ready_ms = lane.ready_ms.max(until_ms);
        for (ready_ms, _) in &mut lane.letters {
            *ready_ms = (*ready_ms).max(until_ms);
        }
    }

    /// Whatever is on its way arrives at once.
    pub fn calm(&mut self) {
        self.delay_ms_max = 0;
        for lane in self.lanes.iter_mut().flatten() {
            lane.ready_ms = 0;
            lane.letters
                .iter_mut()
                .for_each(|(ready_ms, _)| *ready_ms = 0);
        }
    }

    pub fn is_empty(&self) -> bool {
        self.lanes
            .iter()
            .flatten()
            .all(|lane| lane.letters.is_empty())
    }

    pub fn has_mail_for(&self, to: usize, now_ms: u64) -> bool {
        let mut lanes = self.lanes.iter().map(|row| &row[to]);
        lanes.any(|lane| {
            lane.letters
                .front()
                .is_some_and(|(ready_ms, _)| *ready_ms <= now_ms)
        })
    }

    /// The receiver has made room for one who found none.
    pub fn has_room_again(&self, from: usize) -> bool {
        let mut lanes = self.lanes[from].iter();
        lanes.any(|lane| lane.is_starved && lane.letters.len() < self.capacity)
    }

    pub fn take(&mut self, from: usize, to: usize, now_ms: u64) -> Option<Vec<Mail>> {
        let lane = &mut self.lanes[from][to];
        let is_there = lane
            .letters
            .front()
            .is_some_and(|(ready_ms, _)| *ready_ms <= now_ms);
        let letter = if is_there {
            lane.letters.pop_front()
        } else {
            None
        };
        letter.map(|(_, letter)| letter)
    }

    pub fn has_room(&mut self, from: usize, to: usize) -> bool {
        let lane = &mut self.lanes[from][to];
        lane.is_starved = lane.letters.len() >= self.capacity;
        !lane.is_starved
    }

    pub fn send(
        &mut self,
        from: usize,
        to: usize,
        now_ms: u64,
        letter: Vec<Mail>,
        dice: &mut Dice,
    ) {
        let frame_bytes = letter.iter().map(|mail| match mail {
            Mail::Frames { batch, .. } => batch.bytes_len(),
            _ => 0,
        });
        self.letter_bytes_max = self.letter_bytes_max.max(frame_bytes.sum());
        let lane = &mut self.lanes[from][to];
        lane.ready_ms = lane
            .ready_ms
            .max(now_ms + dice.between(0, self.delay_ms_max));
        lane.letters.push_back((lane.ready_ms, letter));
    }
}
