//! A hashed timing wheel: many deadlines, few of which matter exactly.
//!
//! An entry is never cancelled: its owner looks, when it fires, whether there is still something
//! to do, and inserts again if the time has moved. So a connection needs one entry, not one per
//! message.
//! Knows no clock: times are milliseconds of a monotonic clock, passed in.
//! Source: Varghese and Lauck, "Hashed and Hierarchical Timing Wheels" (1987), scheme 6.

/// Deadlines with a `K` each. No entry fires early; one fires less than a tick late, counted from
/// its deadline or, where that had passed, from the insertion, if `expired` is called often enough.
#[derive(Debug)]
pub struct Wheel<K> {
    tick_ms: u64,
    slots: Box<[Slot<K>]>,
    /// One bit for each slot that holds an entry.
    occupied: Box<[u64]>,
    /// All entries of earlier ticks have fired.
    tick: u64,
    /// The earliest tick that has an entry.
    next_tick: Option<u64>,
    len: usize,
}

impl<K: Copy> Wheel<K> {
    /// With `slots` slots (a multiple of 64) of `tick_ms` each. Beyond their product a deadline is
    /// still exact, but its entry is looked at once a revolution.
    pub fn new(tick_ms: u64, slots: usize) -> Self {
        assert!(tick_ms > 0 && slots > 0 && slots.is_multiple_of(64));
        Self {
            tick_ms,
            slots: (0..slots).map(|_| Slot::default()).collect(),
            occupied: vec![0; slots / 64].into(),
            tick: 0,
            next_tick: None,
            len: 0,
        }
    }

    /// Lets `key` come out of `expired` at the first whole tick from `deadline_ms` on.
    pub fn insert(&mut self, deadline_ms: u64, key: K) {
        let tick = deadline_ms.div_ceil(self.tick_ms).max(self.tick);
        let index = self.index(tick);
        self.slots[index].push(tick, key);
        self.occupied[index / 64] |= 1 << (index % 64);
        self.next_tick = Some(self.next_tick.map_or(tick, |next| next.min(tick)));
        self.len += 1;
    }

    /// Takes out every key whose deadline has passed and appends it to `keys`, earlier ticks first.
    pub fn expired(&mut self, now_ms: u64, keys: &mut Vec<K>) {
        let now_tick = now_ms / self.tick_ms;
        while let Some(tick) = self.next_tick.filter(|tick| *tick <= now_tick) {
            self.tick = tick;
            let index = self.index(tick);
            let taken = self.slots[index].take(tick, keys);
            self.len -= taken;
            if self.slots[index].entries.is_empty() {
                self.occupied[index / 64] &= !(1 << (index % 64));
            }
            self.next_tick = self.find_next_tick();
        }
        self.tick = self.tick.max(now_tick + 1);
    }

    /// The time, in milliseconds, at which `expired` will next have something to give.
    pub fn next_deadline(&self) -> Option<u64> {
        self.next_tick.map(|tick| tick.saturating_mul(self.tick_ms))
    }

    /// How many entries wait.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no entry waits.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// From the present place once around: the first slot whose earliest entry is due within this
    /// revolution has the next one; where there is none, the earliest of all has it.
    fn find_next_tick(&self) -> Option<u64> {
        let mut earliest: Option<u64> = None;
        for index in self.occupied_from(self.index(self.tick)) {
            let tick = self.slots[index].earliest_tick;
            if tick - self.tick < self.slots.len() as u64 {
                return Some(tick);
            }
            earliest = Some(earliest.map_or(tick, |least| least.min(tick)));
        }
        earliest
    }

    /// The indices of all occupied slots, in the order of the revolution that begins at `start`.
    fn occupied_from(&self, start: usize) -> impl Iterator<Item = usize> {
        let words = self.occupied.len();
        let high = !0 << (start % 64);
        // The first word is visited twice: its upper bits first, its lower ones last.
        (0..=words).flat_map(move |step| {
            let word = (start / 64 + step) % words;
            let mask = match step {
                0 => high,
                _ if step == words => !high,
                _ => !0,
            };
            bits(self.occupied[word] & mask).map(move |bit| word * 64 + bit)
        })
    }

    fn index(&self, tick: u64) -> usize {
        (tick % self.slots.len() as u64) as usize
    }
}

#[derive(Debug)]
struct Slot<K> {
    entries: Vec<(u64, K)>,
    /// The least tick in `entries`, of which there is at least one.
    earliest_tick: u64,
}

impl<K> Default for Slot<K> {
    fn default() -> Self {
        Self {
            entries: Vec::new(),
            earliest_tick: u64::MAX,
        }
    }
}

impl<K: Copy> Slot<K> {
    fn push(&mut self, tick: u64, key: K) {
        if self.entries.len() == self.entries.capacity() {
            // Each connection has an entry, and most wait for long: twice the room would be half empty.
            let more = SLOT_ENTRIES_ADDED_MIN.max(self.entries.len() / 8);
            self.entries.reserve_exact(more);
        }
        self.entries.push((tick, key));
        self.earliest_tick = self.earliest_tick.min(tick);
    }

    /// Moves the keys of `tick` to the end of `keys`; the entries of later revolutions stay.
    fn take(&mut self, tick: u64, keys: &mut Vec<K>) -> usize {
        let before = self.entries.len();
        self.entries.retain(|(entry_tick, key)| {
            if *entry_tick == tick {
                keys.push(*key);
            }
            *entry_tick != tick
        });
        self.earliest_tick = self
            .entries
            .iter()
            .map(|(tick, _)| *tick)
            .min()
            .unwrap_or(u64::MAX);
        // A herd passes through the slots one after another; none may keep the room for all of it.
        self.entries
            .shrink_to(SLOT_ENTRIES_KEPT.max(self.entries.len()));
        before - self.entries.len()
    }
}

fn bits(mut word: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let bit = (word != 0).then(|| word.trailing_zeros() as usize)?;
        word &= word - 1;
        Some(bit)
    })
}

/// Entries for which a full slot takes memory, at least.
const SLOT_ENTRIES_ADDED_MIN: usize = 4;
/// Entries for which an emptied slot keeps its memory.
const SLOT_ENTRIES_KEPT: usize = 16;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn expired(wheel: &mut Wheel<u32>, now_ms: u64) -> Vec<u32> {
        let mut keys = Vec::new();
        wheel.expired(now_ms, &mut keys);
        keys
    }

    #[test]
    fn a_deadline_is_rounded_up_to_a_tick() {
        let mut wheel = Wheel::new(10, 64);
        wheel.insert(100, 1);
        wheel.insert(101, 2);
        assert_eq!(wheel.next_deadline(), Some(100));
        assert!(expired(&mut wheel, 99).is_empty());
        assert_eq!(expired(&mut wheel, 100), [1]);
        assert_eq!(wheel.next_deadline(), Some(110));
        assert!(expired(&mut wheel, 109).is_empty());
        assert_eq!(expired(&mut wheel, 110), [2]);
        assert_eq!(wheel.next_deadline(), None);
    }

    #[test]
    fn a_deadline_in_the_past_fires_at_the_next_tick() {
        let mut wheel = Wheel::new(10, 64);
        expired(&mut wheel, 1_000);
        wheel.insert(5, 1);
        assert_eq!(wheel.next_deadline(), Some(1_010));
        assert_eq!(expired(&mut wheel, 1_010), [1]);
    }

    #[test]
    fn beyond_the_horizon_an_entry_waits_for_its_revolution() {
        let mut wheel = Wheel::new(10, 64);
        let far = 10 * 64 * 1_000 + 50;
        wheel.insert(far, 1);
        wheel.insert(50, 2);
        assert_eq!(expired(&mut wheel, 60), [2]);
        assert_eq!(wheel.next_deadline(), Some(far));
        assert!(expired(&mut wheel, far - 1).is_empty());
        assert_eq!(expired(&mut wheel, far), [1]);
        assert!(wheel.is_empty());
    }

    #[test]
    fn the_end_of_time_is_no_special_case() {
        let mut wheel = Wheel::new(10, 64);
        wheel.insert(u64::MAX, 1);
        assert!(expired(&mut wheel, u64::MAX - 10).is_empty());
        assert_eq!(wheel.len(), 1);
    }

    proptest! {
        /// As a sorted map of deadlines rounded up to ticks, in order from tick to tick.
        #[test]
        fn fires_what_a_sorted_map_would(
            steps in prop::collection::vec((any::<bool>(), 0..3_000_u64), 1..200),
        ) {
            let mut wheel = Wheel::new(10, 64);
            let mut model: BTreeMap<u64, Vec<u32>> = BTreeMap::new();
            let (mut now_ms, mut tick) = (0_u64, 0);
            for (key, (is_insert, ms)) in (0..).zip(steps) {
                if is_insert {
                    let deadline_ms = (now_ms + ms).saturating_sub(100);
                    wheel.insert(deadline_ms, key);
                    model.entry(deadline_ms.div_ceil(10).max(tick)).or_default().push(key);
                } else {
                    now_ms += ms;
                    tick = now_ms / 10 + 1;
                    let later = model.split_off(&tick);
                    let due = std::mem::replace(&mut model, later);
                    let due: Vec<u32> = due.into_values().flatten().collect();
                    prop_assert_eq!(expired(&mut wheel, now_ms), due);
                }
                prop_assert_eq!(wheel.len(), model.values().map(Vec::len).sum::<usize>());
                prop_assert_eq!(wheel.next_deadline(), model.keys().next().map(|tick| tick * 10));
            }
        }
    }
}
