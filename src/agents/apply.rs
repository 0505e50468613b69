//! What an event does to a forest. Source: contract section 8.

use super::node::Node;
use super::{Forest, NodeId, Stamp};
use crate::event::known::AgentSpawned;
use crate::event::{Known, KnownType};
use crate::limits::SESSION_ID_BYTES_MAX;

/// What an event did beside changing nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Parents that were refused: they would have closed a cycle.
    pub cycles_refused: u32,
    /// Nodes that were not made for want of room.
    pub nodes_refused: u32,
    /// Trees that were let go of.
    pub trees_evicted: u32,
}

impl Forest {
    /// Takes in an event of one of the seven types of agents (another one changes nothing).
    /// `session` is the event's, `received_ms` when it arrived. Trees that are too old by then go
    /// before.
    pub fn apply(
        &mut self,
        known: &Known<'_>,
        session: Option<&str>,
        stamp: &Stamp,
        received_ms: i64,
    ) -> Applied {
        if !is_agents(known.known_type()) {
            return Applied::default();
        }
        self.received_ms = self.received_ms.max(received_ms);
        self.named.clear();
        let mut applied = Applied {
            trees_evicted: self.evict(self.received_ms),
            ..Applied::default()
        };
        match known {
            Known::AgentSpawned(spawn) => {
                self.apply_spawn(spawn, known, session, stamp, &mut applied)
            }
            _ => {
                self.apply_own(known, session, stamp, &mut applied);
            }
        }
        self.note_trees();
        applied.trees_evicted += self.evict_finished();
        applied
    }

    /// An agent says something. Returns its node.
    fn apply_own(
        &mut self,
        known: &Known<'_>,
        session: Option<&str>,
        stamp: &Stamp,
        applied: &mut Applied,
    ) -> Option<NodeId> {
        let speaker = self.find_or_make(session?, stamp, applied)?;
        self.update(speaker, |node| node.apply_own(known, stamp));
        Some(speaker)
    }

    /// An agent, or nobody, says that one began another: an event of the speaker's own, never of the
    /// child's. A parent that names itself is refused as a cycle is.
    fn apply_spawn(
        &mut self,
        spawn: &AgentSpawned<'_>,
        known: &Known<'_>,
        session: Option<&str>,
        stamp: &Stamp,
        applied: &mut Applied,
    ) {
        let child = spawn.child_session.filter(|session| is_session(session));
        let speaker = session.filter(|session| Some(*session) != child);
        let claimed = spawn.parent_session.filter(|session| is_session(session));
        let claimed = claimed.or(speaker);
        let parent = claimed.filter(|session| Some(*session) != child);
        applied.cycles_refused += u32::from(claimed != parent);
        // Making room for one of them must not let go of another one.
        let sessions = [speaker, parent, child].into_iter().flatten();
        sessions.for_each(|session| self.named.extend(self.find(session)));

        let speaker_node = self.apply_own(known, speaker, stamp, applied);
        let parent = match parent == speaker {
            true => speaker_node,
            false => parent.and_then(|parent| self.find_or_make(parent, stamp, applied)),
        };
        let child = child.and_then(|child| self.find_or_make(child, stamp, applied));
        if let Some(child) = child {
            self.update(child, |node| node.apply_spawn(spawn, stamp));
            self.claim(child, parent, stamp, applied);
        }
        // As in the keen document, the parent is the node that was updated last.
        parent.iter().for_each(|parent| self.touch(*parent, false));
    }

    fn claim(
        &mut self,
        child: NodeId,
        parent: Option<NodeId>,
        stamp: &Stamp,
        applied: &mut Applied,
    ) {
        if let Some(parent) = parent {
            let settled = self.claims.claim(child.index, parent.index, stamp);
            applied.cycles_refused += settled.refused as u32;
            self.relink(settled.children);
        }
    }

    /// The node of `session`, which an event at `stamp` names. `None` where there is none and no
    /// room for one more either.
    fn find_or_make(
        &mut self,
        session: &str,
        stamp: &Stamp,
        applied: &mut Applied,
    ) -> Option<NodeId> {
        if let Some(id) = self.find(session) {
            self.update(id, |node| node.mention(stamp));
            return Some(id);
        }
        while self.len() >= self.bounds.nodes_max {
            if !self.evict_silent() {
                applied.nodes_refused += 1;
                return None;
            }
            applied.trees_evicted += 1;
        }
        let id = self.insert(Node::new(session, stamp));
        self.touch(id, true);
        Some(id)
    }

    /// Lets go of the tree that has been silent longest, but for those that the present event
    /// names. Returns whether there was one.
    fn evict_silent(&mut self) -> bool {
        let is_named = |tree| self.named.iter().any(|id| self.tree_of(*id) == Some(tree));
        let silent = self.trees.by_silence().find(|tree| !is_named(*tree));
        silent.inspect(|tree| self.evict_tree(*tree)).is_some()
    }

    /// Lets go of the trees that have been finished longest, where there are too many. Returns how
    /// many went.
    fn evict_finished(&mut self) -> u32 {
        let mut evicted = 0;
        while self.trees.finished_count() > self.bounds.finished_trees_max {
            let Some(tree) = self.trees.longest_finished() else {
                break;
            };
            self.evict_tree(tree);
            evicted += 1;
        }
        evicted
    }

    /// The trees that the present event touched were not silent.
    fn note_trees(&mut self) {
        for place in 0..self.named.len() {
            if let Some(tree) = self.tree_of(self.named[place]) {
                self.trees.note(tree, self.received_ms);
            }
        }
    }
}

/// Whether events of this type make a user's trees.
pub fn is_agents(known_type: KnownType) -> bool {
    matches!(
        known_type,
        KnownType::AgentError
            | KnownType::AgentSpawned
            | KnownType::Completion
            | KnownType::GitOperation
            | KnownType::PhaseTransition
            | KnownType::ProgressUpdate
            | KnownType::ToolExecution
    )
}

/// Whether a session may be called that.
fn is_session(text: &str) -> bool {
    (1..=SESSION_ID_BYTES_MAX).contains(&text.len())
}
