//! Answers to `get_agent_tree`: trees as they are now, in one message.

use std::cmp::Reverse;

use compact_str::CompactString;

use crate::agents::{Forest, NodeId, encode_sessions, encode_trees};
use crate::dialect::ServerMessage;
use crate::hub::Hub;
use crate::hub::keyed::Key;

use super::look::Look;
use super::meant::Meant;
use super::{Question, TreeView};

impl Hub {
    /// Answers what a viewer has asked. `false`: something has to wait.
    pub(super) fn answer_for_trees(&mut self, key: Key, look: &mut Look) -> bool {
        let has_questions = |view: &TreeView| !view.questions.is_empty();
        while self.tree_view(key).is_some_and(has_questions) {
            if self.folds.live(look.slot).is_none() || !self.has_room_for_tree(key) {
                return false;
            }
            if look.frames.are_enough() {
                look.again(look.now.ms());
                return false;
            }
            self.make_tree_answer(key, look);
            if !self.release_trees(key, look) {
                return false;
            }
        }
        true
    }

    fn make_tree_answer(&mut self, key: Key, look: &mut Look) {
        let Some(viewer) = self.peers.viewer_mut(key) else {
            return;
        };
        let (variant, dialect) = (viewer.variant, viewer.dialect);
        let question = viewer
            .trees
            .as_mut()
            .and_then(|view| view.questions.pop_front());
        let Some(Question { id, session }) = question else {
            return;
        };
        let Some((at_seq, forest)) = self
            .folds
            .live(look.slot)
            .and_then(|state| Some((state.at(), state.forest()?)))
        else {
            return;
        };
        let tops = match &session {
            Some(session) => forest.find(session).into_iter().collect(),
            None => roots_for(&viewer.sessions, forest),
        };
        let mut trees = Vec::new();
        let count = encode_trees(forest, &tops, dialect, &mut trees);
        let id = id.as_ref();
        let answer = ServerMessage::AgentTree {
            id,
            trees: &trees,
            at_seq,
        };
        let encoder = &mut self.peers.encoder;
        let mut frames = vec![look.frames.frame(variant, &answer, encoder)];
        let omitted = &tops[count..];
        if !omitted.is_empty() {
            let mut sessions = Vec::new();
            encode_sessions(forest, omitted, &mut sessions);
            let error = ServerMessage::TreesOmitted {
                id,
                count: omitted.len(),
                sessions: &sessions,
            };
            frames.push(look.frames.frame(variant, &error, encoder));
            self.peers.count_error(&error);
        }
        for frame in frames {
            self.peers.hold(key, frame, at_seq);
        }
    }
}

/// The roots of the trees that a viewer means, those that began last first.
fn roots_for(sessions: &[CompactString], forest: &Forest) -> Vec<NodeId> {
    let meant = Meant::new(sessions, forest);
    let roots = forest.roots().filter(|root| meant.has(*root));
    let mut roots: Vec<NodeId> = roots.collect();
    roots.sort_by_cached_key(|root| {
        let node = forest.node(*root);
        node.map(|node| {
            (
                Reverse(node.start_ms()),
                CompactString::from(node.session()),
            )
        })
    });
    roots
}
