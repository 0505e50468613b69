//! What a viewer with a cursor gets: everything, a part with the hole stated, or nothing. Pure; what
//! must be known of the stream is looked up before.
//!
//! The events of a stream that are held are all its events from some point on, but for damage:
//! retention takes whole segments, the oldest first. A record says what the stream's head was before
//! it, so a hole shows. A cursor at an event that should be held and is not has seen what an unclean
//! stop took.
//!
//! Source: the contract, section 5.

use crate::event::{Epoch, Seq, SeqRange};

/// Where a viewer says that it stands in a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResumePoint {
    /// The epoch that the seq belongs to.
    pub epoch: Option<Epoch>,
    /// All up to it was seen. 0: all that is held is wanted.
    pub seq: Seq,
}

/// What is held of the stream around a cursor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// The last seq given, or a level above it: the stream's head on its owner core.
    pub head: Seq,
    /// The level above which the running process numbers every stream.
    pub start: Seq,
    /// The highest seq that retention took, of any stream.
    pub floor: Seq,
    /// The last event up to the cursor.
    pub before: Option<Seq>,
    /// The first event after the cursor, and the stream's head before that one.
    pub next: Option<(Seq, Seq)>,
    /// Where events after the cursor are damaged, or may be.
    pub damaged: Option<SeqRange>,
}

/// What becomes of a cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing is replayed.
    Reset,
    /// What is held after the cursor is replayed.
    Replay {
        /// What of it is not held any more: `truncated`. `None`: `resumed`.
        missing: Option<SeqRange>,
        /// What the viewer saw and no unclean stop left.
        lost: Option<SeqRange>,
    },
}

/// Decides what becomes of a cursor in a log of this epoch.
pub fn decide(epoch: Epoch, point: ResumePoint, held: &Surroundings) -> Outcome {
    let is_foreign = match point.epoch {
        None => point.seq != Seq(0),
        Some(other) => other != epoch,
    };
    if is_foreign || point.seq > held.head {
        return Outcome::Reset;
    }
    Outcome::Replay {
        missing: missing(point.seq, held),
        lost: lost(point.seq, held),
    }
}

/// What is not held any more of a stream after `cursor`.
pub(super) fn missing(cursor: Seq, held: &Surroundings) -> Option<SeqRange> {
    let untold = match held.next {
        // An event: it was there.
        Some((_, previous)) if !previous.is_level() => Some(previous),
        // Nothing that the record knows of. Retention may have taken what was before it, as long as
        // nothing older than the cursor is held.
        Some((_, level)) if held.before.is_none() => Some(held.floor.min(level)),
        None if held.before.is_none() => Some(held.floor.min(held.head)),
        _ => None,
    };
    let hole = untold.filter(|to| *to > cursor).map(|to| SeqRange {
        from: Seq(cursor.0 + 1),
        to,
    });
    match (hole, held.damaged) {
        (Some(hole), Some(damaged)) => Some(SeqRange {
            from: hole.from.min(damaged.from),
            to: hole.to.max(damaged.to),
        }),
        (hole, damaged) => hole.or(damaged),
    }
}

fn lost(cursor: Seq, held: &Surroundings) -> Option<SeqRange> {
    // A level stands for no event, and no unclean stop came after what this process has given.
    if cursor.is_level() || held.before == Some(cursor) || cursor > held.start {
        return None;
    }
    // What a kept event knows of was kept too, whatever has become of it since.
    let is_known = |(_, previous): (Seq, Seq)| previous >= cursor && !previous.is_level();
    if held.next.is_some_and(is_known) {
        return None;
    }
    // What retention took was not lost.
    let kept = held.before.unwrap_or(held.floor);
    (kept < cursor).then_some(SeqRange {
        from: Seq(kept.0 + 1),
        to: cursor,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const EPOCH: Epoch = Epoch(7);

    fn at(seq: u64) -> ResumePoint {
        ResumePoint {
            epoch: Some(EPOCH),
            seq: Seq(seq),
        }
    }

    fn range(from: u64, to: u64) -> Option<SeqRange> {
        Some(SeqRange {
            from: Seq(from),
            to: Seq(to),
        })
    }

    fn replay(missing: Option<SeqRange>, lost: Option<SeqRange>) -> Outcome {
        Outcome::Replay { missing, lost }
    }

    const LEVEL: u64 = Seq::LEVEL_STEP;

    /// A stream with the events `held`, each after the one before and the first after `previous`.
    fn stream(held: &[u64], previous: u64, floor: u64, cursor: u64) -> Surroundings {
        let next = held.iter().position(|seq| *seq > cursor);
        Surroundings {
            head: Seq(held.last().copied().unwrap_or(0).max(2 * LEVEL)),
            start: Seq(2 * LEVEL),
            floor: Seq(floor),
            before: held
                .iter()
                .rfind(|seq| **seq <= cursor)
                .map(|seq| Seq(*seq)),
            next: next.map(|at| {
                let before = if at == 0 { previous } else { held[at - 1] };
                (Seq(held[at]), Seq(before))
            }),
            ..Surroundings::default()
        }
    }

    #[test]
    fn a_cursor_of_another_life_or_from_the_future_is_reset() {
        let check = |epoch, seq, expected| {
            let point = ResumePoint {
                epoch,
                seq: Seq(seq),
            };
            let held = Surroundings {
                head: Seq(9),
                ..stream(&[8, 9], 0, 0, seq)
            };
            assert_eq!(
                decide(EPOCH, point, &held) == Outcome::Reset,
                expected,
                "{point:?}"
            );
        };
        check(Some(Epoch(8)), 9, true);
        check(Some(Epoch(8)), 0, true);
        check(None, 9, true);
        check(None, 0, false);
        check(Some(EPOCH), 9, false);
        check(Some(EPOCH), 10, true);
    }

    #[test]
    fn what_is_held_is_replayed_and_holes_are_stated() {
        let check = |held: &[u64], previous, floor, cursor, missing, lost| {
            let surroundings = stream(held, previous, floor, cursor);
            let outcome = decide(EPOCH, at(cursor), &surroundings);
            assert_eq!(outcome, replay(missing, lost), "{held:?} {cursor}");
        };
        // Nothing was ever taken.
        check(&[1, 2, 3], 0, 0, 0, None, None);
        check(&[1, 2, 3], 0, 0, 2, None, None);
        check(&[1, 2, 3], 0, 0, 3, None, None);
        // Retention took 1 to 4, and up to 90 of other streams.
        check(&[5, 6], 4, 90, 0, range(1, 4), None);
        check(&[5, 6], 4, 90, 3, range(4, 4), None);
        check(&[5, 6], 4, 90, 4, None, None);
        // The first that is held knows nothing of what was before.
        check(&[LEVEL + 1], LEVEL, 90, 3, range(4, 90), None);
        check(&[LEVEL + 1], LEVEL, 90, 90, None, None);
        check(&[LEVEL + 1], LEVEL, 0, 0, None, None);
        // Nothing is held at all.
        check(&[], 0, 90, 3, range(4, 90), None);
        check(&[], 0, 0, 0, None, None);
        // An unclean stop took 4 and 5, and the stream went on above the level, or not at all.
        check(&[3, LEVEL + 1], 0, 0, 5, None, range(4, 5));
        check(&[3], 0, 0, 5, None, range(4, 5));
        check(&[3], 0, 0, 3, None, None);
        check(&[], 0, 0, 5, None, range(1, 5));
        check(&[], 0, 3, 5, None, range(4, 5));
        // A level is the place between: nothing was seen there.
        check(&[3, LEVEL + 1], 0, 0, LEVEL, None, None);
        check(&[3], 0, 0, LEVEL, None, None);
        check(&[], 0, 0, LEVEL, None, None);
    }

    #[test]
    fn a_hole_does_not_reach_above_the_head() {
        // Retention took more of another stream than this one ever had.
        let held = Surroundings {
            head: Seq(10),
            ..stream(&[], 0, 90, 3)
        };
        assert_eq!(decide(EPOCH, at(3), &held), replay(range(4, 10), None));
    }

    #[test]
    fn what_was_kept_and_is_gone_is_not_lost() {
        let check = |held: &Surroundings, cursor| {
            let Outcome::Replay { lost, .. } = decide(EPOCH, at(cursor), held) else {
                panic!("a reset");
            };
            assert_eq!(lost, None, "{held:?}");
        };
        // Damage took 4 and 5; 6 says that 5 was there.
        check(&stream(&[6, 7], 5, 0, 4), 4);
        check(&stream(&[6, 7], 5, 0, 5), 5);
        // This process gave it, and has not stopped.
        let held = Surroundings {
            start: Seq(LEVEL),
            ..stream(&[3], 0, 0, LEVEL + 5)
        };
        check(&held, LEVEL + 5);
    }

    #[test]
    fn damage_is_a_hole_like_any_other() {
        let check = |change: &dyn Fn(&mut Surroundings), cursor, missing| {
            let mut held = stream(&[5, 6, 9], 4, 90, cursor);
            change(&mut held);
            let outcome = decide(EPOCH, at(cursor), &held);
            assert_eq!(outcome, replay(missing, None), "{held:?}");
        };
        // A record was passed over: the next one knows.
        check(&|held| held.next = Some((Seq(9), Seq(8))), 6, range(7, 8));
        check(&|held| held.damaged = range(7, 8), 5, range(7, 8));
        check(&|held| held.damaged = range(7, 8), 3, range(4, 8));
    }
}
