//! All chance of a run: one seed, so that a run can be had again.

/// A deterministic source of choices.
pub struct Dice(fastrand::Rng);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(fastrand::Rng::with_seed(seed))
    }

    /// 0 to `count - 1`; 0 where `count` is 0.
    pub fn below(&mut self, count: usize) -> usize {
        self.0.usize(0..count.max(1))
    }

    /// `low` to `high`, both included.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        self.0.u64(low..=high)
    }

    /// True in so many of 100 cases.
    pub fn chance(&mut self, percent: u64) -> bool {
        self.0.u64(0..100) < percent
    }

    /// One of `choices`, which are not empty.
    pub fn pick<T: Clone>(&mut self, choices: &[T]) -> T {
        choices[self.0.usize(0..choices.len())].clone()
    }

    /// Some of `choices`, in order; none of them every time.
    pub fn some_of<T: Clone>(&mut self, choices: &[T], percent: u64) -> Vec<T> {
        let chosen = choices.iter().filter(|_| self.0.u64(0..100) < percent);
        chosen.cloned().collect()
    }

    pub fn bits(&mut self) -> u64 {
        self.0.u64(..)
    }

    pub fn shuffle<T>(&mut self, list: &mut [T]) {
        self.0.shuffle(list);
    }
}
