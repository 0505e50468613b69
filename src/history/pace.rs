//! When the log's writer writes a group. A sync costs as much as hundreds of records, so groups are
//! as few as what arrives lets them be, and nobody waits long for company. Pure.
//!
//! After silence a group is written at once, and where many records come, every
//! `COMMIT_INTERVAL_NS`. The few that come otherwise wait for each other, up to an interval that is
//! chosen. But who publishes one event after the other, each once the last is acknowledged, would wait
//! for nobody: so where as many records as the last group had come at once, they are taken for the
//! next ones of the same publishers, and for all that will come.

use crate::limits::{COMMIT_BYTES_TARGET, COMMIT_INTERVAL_NS, COMMIT_RECORDS_TARGET};

/// See the module.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    sparse_interval_ns: u64,
    last: Option<Last>,
}

/// The group written last.
#[derive(Clone, Copy, Debug)]
struct Last {
    at_ns: u64,
    records: usize,
    kept_ns: Option<u64>,
}

/// What waits to be written.
#[derive(Clone, Copy, Debug)]
pub struct Pending {
    /// How many records; above `COMMIT_RECORDS_TARGET` it does not matter.
    pub records: usize,
    /// Their bytes.
    pub bytes: usize,
}

impl Pace {
    /// With a group every `sparse_interval_ns` while few records come, at least
    /// `COMMIT_INTERVAL_NS`.
    pub fn new(sparse_interval_ns: u64) -> Self {
        Self {
            sparse_interval_ns,
            last: None,
        }
    }

    /// A group is being written, of so many records.
    pub fn note_group(&mut self, now_ns: u64, records: usize) {
        self.last = Some(Last {
            at_ns: now_ns,
            records,
            kept_ns: None,
        });
    }

    /// The last group is kept, for all that its publishers know by now.
    pub fn note_kept(&mut self, now_ns: u64) {
        if let Some(last) = &mut self.last {
            last.kept_ns.get_or_insert(now_ns);
        }
    }

    /// When the last group was written.
    pub fn last_ns(&self) -> Option<u64> {
        self.last.map(|last| last.at_ns)
    }

    /// When what is pending is to be looked at again if nothing joins it; to be written, if that is
    /// not after `now_ns`.
    pub fn due_ns(&self, now_ns: u64, pending: Pending) -> u64 {
        let Some(last) = self.last else {
            return now_ns;
        };
        let soon_ns = last.soon_ns();
        if pending.bytes >= COMMIT_BYTES_TARGET {
            now_ns
        } else if now_ns < soon_ns {
            soon_ns
        } else if pending.records >= last.enough(now_ns) {
            now_ns
        } else {
            last.at_ns + self.sparse_interval_ns
        }
    }

    /// How many records more are worth a look before what is pending is due.
    pub fn lacking(&self, now_ns: u64, pending: Pending) -> usize {
        let Some(last) = self.last.filter(|_| pending.records > 0) else {
            return 1;
        };
        if now_ns < last.soon_ns() {
            return usize::MAX;
        }
        last.enough(now_ns).saturating_sub(pending.records).max(1)
    }
}

impl Last {
    /// Before then nothing is looked at, whatever comes, and many bytes alone are written.
    fn soon_ns(&self) -> u64 {
        self.at_ns + COMMIT_INTERVAL_NS
    }

    /// How many records are not kept waiting. However long the disk took, whoever comes back begins to
    /// do so once the last group is kept.
    fn enough(&self, now_ns: u64) -> usize {
        let soon_ns = self.soon_ns();
        let since_ns = self.kept_ns.map_or(soon_ns, |kept_ns| kept_ns.max(soon_ns));
        if now_ns < since_ns + COMMIT_INTERVAL_NS / 2 {
            self.records.clamp(1, COMMIT_RECORDS_TARGET)
        } else {
            COMMIT_RECORDS_TARGET
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Records that come one by one, in microseconds.
    struct Load {
        sparse_interval_us: u64,
        /// How long the disk takes.
        sync_us: u64,
        arrivals: Vec<u64>,
        /// How long after its acknowledgement each is followed by another.
        again_us: Option<u64>,
    }

    const SPARSE_US: u64 = 6_000;

    fn open(arrivals: impl IntoIterator<Item = u64>) -> Load {
        Load {
            sparse_interval_us: SPARSE_US,
            sync_us: 200,
            arrivals: arrivals.into_iter().collect(),
            again_us: None,
        }
    }

    fn every(interval_us: u64) -> Load {
        open((0..100).map(|event| event * interval_us))
    }

    fn in_turn(publishers: usize, again_us: u64) -> Load {
        Load {
            again_us: Some(again_us),
            ..open(vec![0; publishers])
        }
    }

    impl Load {
        /// The first `count` groups: when each is written, and its records.
        fn groups(mut self, count: usize) -> Vec<(u64, usize)> {
            let mut pace = Pace::new(self.sparse_interval_us * 1_000);
            let (mut now_us, mut groups) = (0, Vec::new());
            while groups.len() < count {
                let is_here = |at_us: &&u64| **at_us <= now_us;
                let records = self.arrivals.iter().filter(is_here).count();
                let next_us = self
                    .arrivals
                    .iter()
                    .copied()
                    .filter(|at_us| *at_us > now_us);
                let next_us = next_us.min().unwrap_or(u64::MAX);
                let pending = Pending { records, bytes: 0 };
                let due_us = match records {
                    0 => next_us,
                    _ => pace.due_ns(now_us * 1_000, pending) / 1_000,
                };
                if due_us > now_us {
                    now_us = due_us.min(next_us);
                    continue;
                }
                groups.push((now_us, records));
                pace.note_group(now_us * 1_000, records);
                self.arrivals.retain(|at_us| *at_us > now_us);
                now_us += self.sync_us;
                pace.note_kept(now_us * 1_000);
                let again_us = self.again_us.map(|again_us| now_us + again_us);
                self.arrivals.extend(again_us.iter().cycle().take(records));
            }
            groups
        }
    }

    fn check(what: &str, load: Load, expected: &[(u64, usize)]) {
        assert_eq!(load.groups(expected.len()), expected, "{what}");
    }

    #[test]
    fn groups_are_as_few_as_what_arrives_lets_them_be() {
        check("after silence", open([50, 6_050]), &[(50, 1), (6_050, 1)]);
        let few = [(0, 1), (6_000, 3), (12_000, 3), (18_000, 3)];
        check("500 a second", every(2_000), &few);
        let many = [(0, 1), (1_000, 20), (2_000, 20), (3_000, 20)];
        check("20,000 a second", every(50), &many);
        let viewers_wait = Load {
            sparse_interval_us: 1_000,
            ..every(400)
        };
        let steady = [(0, 1), (1_000, 2), (2_000, 3), (3_000, 2)];
        check("where viewers wait", viewers_wait, &steady);
    }

    #[test]
    fn a_load_at_random_does_not_pass_for_one_that_comes_back() {
        let check = |events_per_second: f64, groups_per_second_max: f64| {
            let mut dice = fastrand::Rng::with_seed(1);
            let mut at_us = 0.0;
            let arrivals = std::iter::repeat_with(|| {
                at_us -= dice.f64().max(f64::MIN_POSITIVE).ln() * 1e6 / events_per_second;
                at_us as u64
            });
            let arrivals = arrivals.take_while(|at_us| *at_us < 1_200_000);
            let groups = open(arrivals).groups(150);
            let seconds = groups[149].0 as f64 / 1e6;
            let groups_per_second = 150.0 / seconds;
            assert!(
                groups_per_second < groups_per_second_max,
                "{events_per_second}: {groups_per_second}"
            );
        };
        check(500.0, 250.0);
        check(2_000.0, 250.0);
        check(5_000.0, 400.0);
    }

    #[test]
    fn who_comes_back_at_once_is_not_kept_waiting() {
        let one = [(0, 1), (1_000, 1), (2_000, 1), (3_000, 1)];
        check("one", in_turn(1, 300), &one);
        check("five", in_turn(5, 300), &[(0, 5), (1_000, 5), (2_000, 5)]);
        let slow_disk = Load {
            sync_us: 2_000,
            ..in_turn(1, 200)
        };
        check("slow disk", slow_disk, &[(0, 1), (2_200, 1), (4_400, 1)]);
        let thoughtful = [(0, 1), (6_000, 1), (12_000, 1)];
        check("after some thought", in_turn(1, 3_000), &thoughtful);
        check("from afar", in_turn(1, 9_000), &[(0, 1), (9_200, 1)]);
        let late = open([0, 2_500, 2_600]);
        check("others, later", late, &[(0, 1), (6_000, 2)]);
    }

    #[test]
    fn many_bytes_do_not_wait() {
        let mut pace = Pace::new(SPARSE_US * 1_000);
        pace.note_group(0, 1);
        let pending = |bytes| Pending { records: 1, bytes };
        let due_ns = |bytes| pace.due_ns(10, pending(bytes));
        assert_eq!(due_ns(COMMIT_BYTES_TARGET), 10);
        assert_eq!(due_ns(COMMIT_BYTES_TARGET - 1), COMMIT_INTERVAL_NS);
    }

    #[test]
    fn a_look_is_worth_it_when_there_may_be_enough() {
        let mut pace = Pace::new(SPARSE_US * 1_000);
        let lacking =
            |pace: &Pace, now_ns, records| pace.lacking(now_ns, Pending { records, bytes: 0 });
        assert_eq!(lacking(&pace, 0, 0), 1);
        pace.note_group(0, 5);
        assert_eq!(lacking(&pace, 10, 1), usize::MAX, "whatever comes");
        assert_eq!(lacking(&pace, 10, 0), 1);
        let soon_ns = COMMIT_INTERVAL_NS;
        pace.note_kept(soon_ns);
        assert_eq!(lacking(&pace, soon_ns, 1), 4, "they may come again");
        assert_eq!(lacking(&pace, soon_ns, 9), 1);
        assert_eq!(lacking(&pace, 3 * soon_ns, 1), COMMIT_RECORDS_TARGET - 1);
    }
}
