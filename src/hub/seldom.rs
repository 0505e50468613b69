//! A queue that is empty nearly always, for what every connection may have and few do: one word while
//! there is nothing in it.

use std::collections::VecDeque;

/// First in, first out.
#[derive(Debug)]
#[expect(
    clippy::box_collection,
    reason = "one word, not four, while it is empty"
)]
pub(super) struct SeldomQueue<T>(Option<Box<VecDeque<T>>>);

impl<T> Default for SeldomQueue<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T> SeldomQueue<T> {
    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// How many are in it.
    pub fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |queue| queue.len())
    }

    /// The one that came first.
    pub fn front(&self) -> Option<&T> {
        self.0.as_ref()?.front()
    }

    /// Puts one behind the others.
    pub fn push_back(&mut self, value: T) {
        self.0.get_or_insert_default().push_back(value);
    }

    /// Takes the one that came first.
    pub fn pop_front(&mut self) -> Option<T> {
        let queue = self.0.as_mut()?;
        let first = queue.pop_front();
        if queue.is_empty() {
            self.0 = None;
        }
        first
    }

    /// Lets go of all.
    pub fn clear(&mut self) {
        self.0 = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_come_out_in_order_and_leave_nothing() {
        let mut queue = SeldomQueue::default();
        assert!(queue.is_empty() && queue.pop_front().is_none());
        for round in 1..4 {
            for value in 0..round {
                queue.push_back(value);
            }
            assert_eq!((queue.len(), queue.front()), (round, Some(&0)));
            let all: Vec<usize> = std::iter::from_fn(|| queue.pop_front()).collect();
            assert_eq!(all, (0..round).collect::<Vec<_>>());
            assert!(queue.is_empty() && queue.0.is_none());
        }
        queue.push_back(7);
        queue.clear();
        assert_eq!((queue.len(), queue.front()), (0, None));
    }
}
