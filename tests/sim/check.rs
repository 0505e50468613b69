//! Judges what one viewer saw of one stream. Pure: marks and the stream's ledger in, the first
//! broken promise out; so the judge itself can be judged, at the end of this file.

use std::collections::BTreeMap;
use std::rc::Rc;

use sightline::event::{Stream, StreamKind};

use crate::events::{EventSpec, Events, FilterSpec};

/// What a viewer takes of a stream: whatever any of these matches.
pub type Wanted = Rc<[FilterSpec]>;

/// One thing that a viewer was told about one stream, in the order in which it was told.
#[derive(Clone, Debug)]
pub enum Mark {
    /// Attached: what follows `after` comes.
    Begin {
        after: u64,
        wanted: Wanted,
    },
    /// More is wanted from the seq after `at` on; of what was missed and is still to come, what was
    /// wanted before.
    Add {
        at: u64,
        wanted: Wanted,
    },
    /// From `after` on something else is wanted; `None`: less is, from a seq that was not told.
    Change {
        after: Option<u64>,
        wanted: Wanted,
    },
    /// Attached no more.
    End,
    Event {
        seq: u64,
        uid: u64,
    },
    /// All up to `seq` was delivered or did not match, the server says.
    Position {
        seq: u64,
    },
}

/// What a stream holds: seq to the event's number.
pub type Ledger = BTreeMap<u64, u64>;

/// A promise that was broken towards one viewer.
#[derive(Debug, PartialEq, Eq)]
pub enum Broken {
    /// The server went back behind what it had said or sent: `at`, a cursor.
    Backwards { from: u64, to: u64 },
    /// Twice, or too late.
    NotRising { seq: u64, after: u64 },
    /// Nobody asked for it, or it is the project's copy of the viewer's own event.
    Foreign { seq: u64 },
    /// It should have come before what was told at `until`.
    Missing { seq: u64, until: u64 },
    /// A stream that the viewer is not attached to.
    Unattached { seq: u64 },
    /// Another event than everybody else saw under this seq.
    WrongEvent { seq: u64, uid: u64 },
}

/// What must hold of the marks of one viewer and one stream.
pub struct Judge<'a> {
    pub user: &'a str,
    pub stream: &'a Stream,
    /// `None`: nobody saw all of the stream, so that gaps cannot be told.
    pub ledger: Option<&'a Ledger>,
    pub events: &'a Events,
}

impl Judge<'_> {
    /// `is_settled`: the viewer is still connected and nothing is under way any more.
    pub fn check(&self, marks: &[Mark], is_settled: bool) -> Result<(), Broken> {
        let mut place: Option<Place> = None;
        for mark in marks {
            match mark {
                Mark::Begin { after, wanted } => {
                    place = Some(Place {
                        seq: *after,
                        wanted: vec![Rc::clone(wanted)],
                        earlier: Vec::new(),
                    });
                }
                Mark::End => place = None,
                Mark::Event { seq, uid } => {
                    let place = place.as_mut().ok_or(Broken::Unattached { seq: *seq })?;
                    self.check_event(place, *seq, *uid)?;
                    place.seq = *seq;
                }
                Mark::Add { at, wanted } => {
                    if let Some(place) = place.as_mut() {
                        let before = std::mem::replace(&mut place.wanted, vec![Rc::clone(wanted)]);
                        place.earlier.push((*at, before));
                    }
                }
                Mark::Change { after, wanted } => {
                    let Some(place) = place.as_mut() else {
                        continue;
                    };
                    if let Some(after) = *after {
                        self.check_passed(place, after)?;
                        place.wanted.clear();
                    }
                    place.wanted.push(Rc::clone(wanted));
                }
                Mark::Position { seq } => {
                    let place = place.as_mut().ok_or(Broken::Unattached { seq: *seq })?;
                    self.check_passed(place, *seq)?;
                    place.settle();
                }
            }
        }
        match (
            place,
            self.ledger.and_then(|ledger| ledger.keys().next_back()),
        ) {
            (Some(mut place), Some(head)) if is_settled => {
                let head = (*head).max(place.seq);
                self.check_passed(&mut place, head)
            }
            _ => Ok(()),
        }
    }

    fn check_event(&self, place: &mut Place, seq: u64, uid: u64) -> Result<(), Broken> {
        if seq <= place.seq {
            return Err(Broken::NotRising {
                seq,
                after: place.seq,
            });
        }
        let Some(event) = self.events.get(&uid) else {
            return Err(Broken::WrongEvent { seq, uid });
        };
        if self
            .ledger
            .is_some_and(|ledger| ledger.get(&seq) != Some(&uid))
        {
            return Err(Broken::WrongEvent { seq, uid });
        }
        self.check_gap(place, seq)?;
        // Where less is wanted since an unknown seq, the viewer was told so before this event.
        place.settle();
        if self.is_wanted_at(place, seq, event) {
            Ok(())
        } else {
            Err(Broken::Foreign { seq })
        }
    }

    // The server says that it is at `seq`: nothing up to there may be missing.
    fn check_passed(&self, place: &mut Place, seq: u64) -> Result<(), Broken> {
        if seq < place.seq {
            return Err(Broken::Backwards {
                from: place.seq,
                to: seq,
            });
        }
        self.check_gap(place, seq + 1)?;
        place.seq = seq;
        Ok(())
    }

    fn check_gap(&self, place: &Place, until: u64) -> Result<(), Broken> {
        let Some(ledger) = self.ledger else {
            return Ok(());
        };
        for (seq, uid) in ledger.range(place.seq + 1..until) {
            let event = &self.events[uid];
            if self.is_wanted_at(place, *seq, event) {
                return Err(Broken::Missing { seq: *seq, until });
            }
        }
        Ok(())
    }

    // Whether it is wanted by all that counts for this seq.
    fn is_wanted_at(&self, place: &Place, seq: u64, event: &EventSpec) -> bool {
        let earlier = place.earlier.iter().filter(|(at, _)| seq <= *at);
        let wanted = earlier.flat_map(|(_, wanted)| wanted).chain(&place.wanted);
        wanted
            .into_iter()
            .all(|wanted| self.is_wanted(wanted, event))
    }

    fn is_wanted(&self, wanted: &Wanted, event: &EventSpec) -> bool {
        let is_own = event.user == Some(self.user);
        let is_own_copy = self.stream.kind == StreamKind::Project && is_own;
        let is_audience = event.streams().contains(self.stream);
        is_audience && !is_own_copy && wanted.iter().any(|filter| filter.matches(event))
    }
}

// Where a viewer stands in a stream, and what it wants from there on: the last entry; while there
// are several, it is not known from which seq on that one holds.
struct Place {
    seq: u64,
    wanted: Vec<Wanted>,
    // What counts as well up to a seq.
    earlier: Vec<(u64, Vec<Wanted>)>,
}

impl Place {
    fn settle(&mut self) {
        self.wanted.drain(..self.wanted.len() - 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dice::Dice;

    // Events 1 to 5 of project 7, of which 3 is ada's own too.
    fn check(marks: &[Mark], is_settled: bool, expected: &Result<(), Broken>) {
        let events: Events = (1..=5)
            .map(|uid| {
                let mut event = EventSpec::random(&mut Dice::new(uid), uid, &["ada"], &["7"]);
                (event.user, event.project) = ((uid == 3).then_some("ada"), Some("7"));
                event.event_type = if uid % 2 == 0 { "even" } else { "odd" };
                (uid, event)
            })
            .collect();
        let ledger: Ledger = (1..=5).map(|seq| (seq, seq)).collect();
        let stream = Stream::project("7");
        let judge = Judge {
            user: "ada",
            stream: &stream,
            ledger: Some(&ledger),
            events: &events,
        };
        assert_eq!(judge.check(marks, is_settled), *expected, "{marks:?}");
    }

    fn everything() -> Wanted {
        [FilterSpec::default()].into()
    }

    fn even() -> Wanted {
        [FilterSpec {
            types: vec!["even".into()],
            ..FilterSpec::default()
        }]
        .into()
    }

    fn begin(after: u64) -> Mark {
        Mark::Begin {
            after,
            wanted: everything(),
        }
    }

    fn event(seq: u64) -> Mark {
        Mark::Event { seq, uid: seq }
    }

    #[test]
    fn what_was_promised_passes() {
        let less = |after| Mark::Change {
            after,
            wanted: even(),
        };
        check(
            &[begin(0), event(1), event(2), event(4), event(5)],
            true,
            &Ok(()),
        );
        check(
            &[begin(3), event(4), event(5), Mark::Position { seq: 5 }],
            true,
            &Ok(()),
        );
        check(
            &[begin(0), event(1), less(Some(1)), event(2), event(4)],
            true,
            &Ok(()),
        );
        check(
            &[begin(0), less(None), event(2), Mark::End, begin(4)],
            false,
            &Ok(()),
        );
        check(&[begin(0), event(1)], false, &Ok(()));
    }

    #[test]
    fn what_was_missed_comes_as_it_was_wanted_then() {
        let even_then_all = |events: &[u64]| {
            let begin = Mark::Begin {
                after: 0,
                wanted: even(),
            };
            let add = Mark::Add {
                at: 3,
                wanted: everything(),
            };
            let events = events.iter().map(|seq| event(*seq));
            [begin, add]
                .into_iter()
                .chain(events)
                .collect::<Vec<Mark>>()
        };
        check(&even_then_all(&[2, 4, 5]), true, &Ok(()));
        let foreign = Err(Broken::Foreign { seq: 1 });
        check(&even_then_all(&[1, 2, 4, 5]), true, &foreign);
        let missing = Err(Broken::Missing { seq: 2, until: 4 });
        check(&even_then_all(&[4, 5]), true, &missing);
    }

    #[test]
    fn a_gap_is_seen_at_the_next_event_at_a_cursor_and_at_rest() {
        let missing = |seq, until| Err(Broken::Missing { seq, until });
        check(&[begin(0), event(1), event(4)], false, &missing(2, 4));
        check(
            &[begin(0), event(1), Mark::Position { seq: 2 }],
            false,
            &missing(2, 3),
        );
        check(
            &[begin(0), event(1), event(2), event(4)],
            true,
            &missing(5, 6),
        );
        let more = Mark::Change {
            after: Some(2),
            wanted: everything(),
        };
        check(&[begin(0), event(1), more], false, &missing(2, 3));
    }

    #[test]
    fn what_comes_twice_or_late_is_seen() {
        check(
            &[begin(0), event(1), event(1)],
            false,
            &Err(Broken::NotRising { seq: 1, after: 1 }),
        );
        check(
            &[begin(2), event(2)],
            false,
            &Err(Broken::NotRising { seq: 2, after: 2 }),
        );
        let back = Mark::Position { seq: 1 };
        check(
            &[begin(0), event(1), event(2), back],
            false,
            &Err(Broken::Backwards { from: 2, to: 1 }),
        );
    }

    #[test]
    fn what_is_not_for_this_viewer_is_seen() {
        check(
            &[begin(2), event(3)],
            false,
            &Err(Broken::Foreign { seq: 3 }),
        );
        check(&[event(3)], false, &Err(Broken::Unattached { seq: 3 }));
        check(
            &[begin(0), Mark::End, event(3)],
            false,
            &Err(Broken::Unattached { seq: 3 }),
        );
        let less = Mark::Change {
            after: None,
            wanted: even(),
        };
        check(
            &[begin(0), less, event(1)],
            false,
            &Err(Broken::Foreign { seq: 1 }),
        );
        let other = Mark::Event { seq: 1, uid: 2 };
        check(
            &[begin(0), other],
            false,
            &Err(Broken::WrongEvent { seq: 1, uid: 2 }),
        );
    }
}
