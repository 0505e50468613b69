//! What one viewer was sent of its user's agent trees, and what it is owed. Trees are state: of each
//! at most one message is owed, made when it can be sent, and at most one is sent in
//! `limits::TREE_INTERVAL_MS`. Knows trees by the session of their root, and of what was sent (`S`)
//! nothing but that the next message builds on it.

use std::collections::{BTreeMap, BTreeSet};

use compact_str::CompactString;

use crate::agents::GoneRoot;
use crate::limits::TREE_INTERVAL_MS;

/// The trees of one viewer. Invariant: `owed` has each tree that owes something, under its time.
#[derive(Debug)]
pub(in crate::hub) struct Updates<S> {
    trees: BTreeMap<CompactString, Tree<S>>,
    owed: BTreeSet<(u64, CompactString)>,
}

/// One tree that the viewer is shown, or will be.
#[derive(Debug)]
struct Tree<S> {
    // What the next message builds on; `None`: it brings the whole tree.
    base: Option<S>,
    // When something was last sent; `None`: the viewer knows nothing of it.
    sent_ms: Option<u64>,
    // What, and from when on it may be sent.
    owes: Option<(u64, Owes)>,
}

/// What a tree owes its viewer.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Owes {
    /// That it is gone, and which tree has its nodes.
    Removal(Option<CompactString>),
    /// Its present state.
    Update,
}

/// A message that may be sent now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::hub) enum Due<S> {
    /// That a tree is gone.
    Removal(GoneRoot),
    /// A tree's present state.
    Update {
        /// The session of its root.
        root: CompactString,
        /// What the viewer was sent of it.
        base: Option<S>,
    },
}

impl<S> Default for Updates<S> {
    fn default() -> Self {
        Self {
            trees: BTreeMap::new(),
            owed: BTreeSet::new(),
        }
    }
}

impl<S> Default for Tree<S> {
    fn default() -> Self {
        Self {
            base: None,
            sent_ms: None,
            owes: None,
        }
    }
}

impl<S> Tree<S> {
    fn is_shown(&self) -> bool {
        !matches!(self.owes, Some((_, Owes::Removal(_))))
    }
}

impl<S: Copy> Updates<S> {
    /// Whether the viewer is shown this tree, or will be, and is not owed its end.
    pub fn shows(&self, root: &str) -> bool {
        self.trees.get(root).is_some_and(Tree::is_shown)
    }

    /// The trees of which that is so.
    pub fn shown(&self) -> impl Iterator<Item = &CompactString> {
        let trees = self.trees.iter().filter(|(_, tree)| tree.is_shown());
        trees.map(|(root, _)| root)
    }

    /// A tree changed that the viewer is shown, or will be from now on.
    pub fn note_changed(&mut self, now_ms: u64, root: &CompactString) {
        self.owe(now_ms, root, Owes::Update);
    }

    /// A tree is gone.
    pub fn note_removed(&mut self, now_ms: u64, gone: &GoneRoot) {
        let root = &gone.session;
        match self.trees.get(root).map(|tree| tree.sent_ms) {
            Some(Some(_)) => self.owe(now_ms, root, Owes::Removal(gone.moved_to.clone())),
            Some(None) => self.handle_removal_sent(root),
            None => {}
        }
    }

    /// Nothing that was sent can be built on any more. What `is_there` says no to is gone.
    pub fn note_all_new(&mut self, now_ms: u64, is_there: impl Fn(&str) -> bool) {
        let roots: Vec<CompactString> = self.trees.keys().cloned().collect();
        for session in roots {
            let is_there = is_there(&session);
            let gone = GoneRoot {
                session,
                moved_to: None,
            };
            self.note_removed(now_ms, &gone);
            if is_there {
                self.note_changed(now_ms, &gone.session);
            }
        }
    }

    /// A message was made that brings the viewer to `sent`; the next is due an interval after `now_ms`.
    pub fn handle_sent(&mut self, now_ms: u64, root: &CompactString, sent: S) {
        let tree = self.trees.entry(root.clone()).or_default();
        if let Some((due_ms, _)) = tree.owes.take() {
            self.owed.remove(&(due_ms, root.clone()));
        }
        tree.base = Some(sent);
        tree.sent_ms = Some(now_ms);
    }

    /// The viewer was told that a tree is gone.
    pub fn handle_removal_sent(&mut self, root: &CompactString) {
        let tree = self.trees.remove(root);
        if let Some((due_ms, _)) = tree.and_then(|tree| tree.owes) {
            self.owed.remove(&(due_ms, root.clone()));
        }
    }

    /// The next message that may be sent. It stays owed until it was.
    pub fn due(&self, now_ms: u64) -> Option<Due<S>> {
        let (due_ms, root) = self.owed.first()?;
        let tree = self.trees.get(root).filter(|_| *due_ms <= now_ms)?;
        let (_, owes) = tree.owes.as_ref()?;
        let root = root.clone();
        Some(match owes {
            Owes::Removal(moved_to) => Due::Removal(GoneRoot {
                session: root,
                moved_to: moved_to.clone(),
            }),
            Owes::Update => Due::Update {
                root,
                base: tree.base,
            },
        })
    }

    /// When a message may next be sent, in milliseconds of the monotonic clock.
    pub fn next_due_ms(&self) -> Option<u64> {
        self.owed.first().map(|(due_ms, _)| *due_ms)
    }

    fn owe(&mut self, now_ms: u64, root: &CompactString, owes: Owes) {
        let tree = self.trees.entry(root.clone()).or_default();
        let due_ms = match &tree.owes {
            Some((due_ms, _)) => *due_ms,
            None => {
                let earliest_ms = tree.sent_ms.map_or(now_ms, |sent| sent + TREE_INTERVAL_MS);
                self.owed.insert((earliest_ms, root.clone()));
                earliest_ms
            }
        };
        if matches!(owes, Owes::Removal(_)) {
            // Whatever has its name later is another tree, with versions of its own.
            tree.base = None;
        }
        tree.owes = Some((due_ms, owes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn update(root: &str, base: Option<u64>) -> Option<Due<u64>> {
        let root = root.into();
        Some(Due::Update { root, base })
    }

    fn removal(root: &str, moved_to: Option<&str>) -> Option<Due<u64>> {
        Some(Due::Removal(gone(root, moved_to)))
    }

    fn gone(root: &str, moved_to: Option<&str>) -> GoneRoot {
        GoneRoot {
            session: root.into(),
            moved_to: moved_to.map(CompactString::from),
        }
    }

    #[test]
    fn the_first_message_goes_at_once_and_the_next_after_the_interval() {
        let (mut updates, root) = (Updates::<u64>::default(), "a".into());
        updates.note_changed(1_000, &root);
        assert_eq!(updates.due(1_000), update("a", None));
        updates.handle_sent(1_000, &root, 7);
        assert_eq!((updates.due(1_000), updates.next_due_ms()), (None, None));
        updates.note_changed(1_001, &root);
        updates.note_changed(1_050, &root);
        assert_eq!(updates.due(999 + TREE_INTERVAL_MS), None);
        assert_eq!(updates.next_due_ms(), Some(1_000 + TREE_INTERVAL_MS));
        let due = updates.due(1_000 + TREE_INTERVAL_MS);
        assert_eq!(due, update("a", Some(7)));
        assert_eq!(
            updates.due(9_000),
            update("a", Some(7)),
            "until it was sent"
        );
        updates.handle_sent(9_000, &root, 9);
        assert_eq!(updates.due(99_000), None);
    }

    #[test]
    fn trees_do_not_wait_for_each_other() {
        let mut updates = Updates::<u64>::default();
        let [a, b] = ["a", "b"].map(CompactString::from);
        updates.handle_sent(1_000, &a, 1);
        updates.note_changed(1_010, &a);
        updates.note_changed(1_020, &b);
        assert_eq!(updates.due(1_020), update("b", None));
        updates.handle_sent(1_020, &b, 1);
        assert_eq!(updates.next_due_ms(), Some(1_000 + TREE_INTERVAL_MS));
    }

    #[test]
    fn only_what_was_shown_is_told_to_be_gone() {
        let mut updates = Updates::<u64>::default();
        let [a, b] = ["a", "b"].map(CompactString::from);
        updates.handle_sent(1_000, &a, 1);
        updates.note_changed(1_000, &b);
        for root in ["a", "b", "c"] {
            updates.note_removed(2_000, &gone(root, Some("c")));
        }
        assert_eq!(updates.due(2_000), removal("a", Some("c")));
        updates.handle_removal_sent(&a);
        assert_eq!((updates.due(9_000), updates.next_due_ms()), (None, None));
        assert!(!updates.shows("a") && !updates.shows("b"));
    }

    #[test]
    fn a_tree_that_comes_back_before_its_end_was_told_is_sent_whole() {
        let (mut updates, root) = (Updates::<u64>::default(), "a".into());
        updates.handle_sent(1_000, &root, 5);
        updates.note_removed(1_010, &gone("a", None));
        updates.note_changed(1_020, &root);
        assert_eq!(updates.due(2_000), update("a", None));
        // And where it goes again, the viewer still has what it was sent first.
        updates.note_removed(1_030, &gone("a", None));
        assert_eq!(updates.due(2_000), removal("a", None));
    }

    #[test]
    fn what_was_made_anew_is_sent_whole_and_what_is_not_there_any_more_is_gone() {
        let mut updates = Updates::<u64>::default();
        let [a, b, c] = ["a", "b", "c"].map(CompactString::from);
        for root in [&a, &b] {
            updates.handle_sent(1_000, root, 1);
        }
        updates.note_changed(1_000, &c);
        updates.note_all_new(3_000, |root| root == "b");
        assert_eq!(updates.due(3_000), removal("a", None));
        updates.handle_removal_sent(&a);
        assert_eq!(updates.due(3_000), update("b", None));
        assert!(!updates.shows("c"));
    }
}
