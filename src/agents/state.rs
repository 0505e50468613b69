//! What one stream's events have led to, as a whole: one value that is moved on by each event, written
//! down as a snapshot, and read again.
//!
//! A snapshot is a version, one byte, and what `postcard` makes of the parts. One of another version is
//! as if there were none: everything in it is made anew from the events.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::activity::Activity;
use super::conversations::Conversations;
use super::{Applied, Bounds, Forest, SavedForest, Stamp, is_agents};
use crate::event::known::AgentSpawned;
use crate::event::{Event, Known, KnownType, Seq, StoredEvent, StreamKind};

/// What the states of streams are made with: `agents.*`.
#[derive(Clone, Debug)]
pub struct StateOptions {
    /// The phases of an agent's work, in order; at least one.
    pub phases: Arc<[String]>,
    /// How much of a user's agents is kept.
    pub bounds: Bounds,
    /// Secret, and drawn once per process: nobody can choose names that crowd an index.
    pub seed: u64,
}

/// An event of the stream, with its number.
#[derive(Clone, Copy, Debug)]
pub struct Folded<'e> {
    /// Its number.
    pub seq: Seq,
    /// When it arrived, in milliseconds since the Unix epoch.
    pub received_ms: i64,
    /// The event.
    pub event: &'e Event,
}

impl<'e> From<&'e StoredEvent> for Folded<'e> {
    fn from(stored: &'e StoredEvent) -> Self {
        Self {
            seq: stored.seq,
            received_ms: stored.received_ms,
            event: &stored.event,
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct StreamState {
    // All events up to here are in it.
    at: Seq,
    own: Own,
    conversations: Conversations,
}

/// What streams of one kind have alone.
#[derive(Debug)]
enum Own {
    Project(Activity),
    User(Box<Forest>),
}

/// What a snapshot holds.
#[derive(Debug, Serialize, Deserialize)]
struct Saved<C, O> {
    at: Seq,
    conversations: C,
    own: O,
}

/// See `Own`.
#[derive(Debug, Serialize, Deserialize)]
enum SavedOwn<A, F> {
    Project(A),
    User(F),
}

impl StreamState {
    /// Of a stream without events.
    pub fn new(kind: StreamKind, options: &StateOptions) -> Self {
        let own = match kind {
            StreamKind::Project => Own::Project(Activity::default()),
            StreamKind::User => {
                let phase = first_phase(options);
                Own::User(Forest::new(options.bounds, phase, options.seed).into())
            }
        };
        Self {
            at: Seq(0),
            own,
            conversations: Conversations::default(),
        }
    }

    /// What was saved of a stream of this kind; `None` where the bytes are no such snapshot of this
    /// version.
    pub fn restore(kind: StreamKind, bytes: &[u8], options: &StateOptions) -> Option<Self> {
        let (&VERSION, rest) = bytes.split_first()? else {
            return None;
        };
        type Owned<'b> = Saved<Conversations, SavedOwn<Activity, SavedForest<'b>>>;
        let saved: Owned<'_> = postcard::from_bytes(rest).ok()?;
        let own = match (kind, saved.own) {
            (StreamKind::Project, SavedOwn::Project(activity)) => Own::Project(activity),
            (StreamKind::User, SavedOwn::User(forest)) => {
                let phase = first_phase(options);
                let forest = Forest::restore(forest, options.bounds, phase, options.seed);
                Own::User(forest.into())
            }
            _ => return None,
        };
        Some(Self {
            at: saved.at,
            own,
            conversations: saved.conversations,
        })
    }

    /// All that `restore` needs. Costs as much as there is in it.
    pub fn snapshot(&self) -> Vec<u8> {
        let saved = Saved {
            at: self.at,
            conversations: &self.conversations,
            own: match &self.own {
                Own::Project(activity) => SavedOwn::Project(activity),
                Own::User(forest) => SavedOwn::User(forest.save()),
            },
        };
        let bytes = postcard::to_extend(&saved, vec![VERSION]);
        bytes.expect("a vector takes all, and nothing in it has an unknown length")
    }

    /// Of which kind its stream is.
    pub fn kind(&self) -> StreamKind {
        match self.own {
            Own::Project(_) => StreamKind::Project,
            Own::User(_) => StreamKind::User,
        }
    }

    /// All events up to this seq are in it.
    pub fn at(&self) -> Seq {
        self.at
    }

    /// The agents, where it is a user's stream.
    pub fn forest(&self) -> Option<&Forest> {
        match &self.own {
            Own::Project(_) => None,
            Own::User(forest) => Some(forest),
        }
    }

    /// The same, to take what has changed.
    pub fn forest_mut(&mut self) -> Option<&mut Forest> {
        match &mut self.own {
            Own::Project(_) => None,
            Own::User(forest) => Some(forest),
        }
    }

    /// What was done, where it is a project's stream.
    pub fn activity(&self) -> Option<&Activity> {
        match &self.own {
            Own::Project(activity) => Some(activity),
            Own::User(_) => None,
        }
    }

    /// The conversations in it.
    pub fn conversations(&self) -> &Conversations {
        &self.conversations
    }

    /// How much there is in it: agents, conversations, and what activity takes beside them.
    pub fn entries_len(&self) -> usize {
        let own = match &self.own {
            Own::Project(activity) => activity.entries_len(),
            Own::User(forest) => forest.len(),
        };
        own + self.conversations.len()
    }

    /// Whether what an event of this type holds says anything here.
    pub fn reads(&self, known_type: KnownType) -> bool {
        let is_tree = matches!(self.own, Own::User(_)) && is_agents(known_type);
        is_tree || Conversations::concerns(known_type)
    }

    /// Takes in the next event of the stream. `known`: what it holds, where `reads` says that this is
    /// wanted.
    pub fn apply(&mut self, folded: Folded<'_>, known: Option<&Known<'_>>) -> Applied {
        let Folded {
            seq,
            received_ms,
            event,
        } = folded;
        self.at = seq;
        if let Some(known) = known {
            self.conversations.apply(known, event, seq, received_ms);
        }
        match (&mut self.own, known) {
            (Own::Project(activity), _) => {
                activity.apply(&event.event_type, event.timestamp_ms, received_ms);
                Applied::default()
            }
            (Own::User(forest), Some(known)) => {
                let stamp = Stamp {
                    timestamp_ms: event.timestamp_ms,
                    event_id: event.event_id.clone(),
                    seq,
                };
                forest.apply(known, event.session.as_deref(), &stamp, received_ms)
            }
            (Own::User(_), None) => Applied::default(),
        }
    }

    /// The sessions from the root to the child of a spawn that was taken in, both included. `session`:
    /// the event's. Of a child for which there was no room, those above it and itself.
    pub fn spawn_path<'a>(
        &'a self,
        spawned: &AgentSpawned<'a>,
        session: Option<&'a str>,
    ) -> Vec<&'a str> {
        let Some(child) = spawned.child_session else {
            return Vec::new();
        };
        let mut path = self.path(child);
        if path.is_empty() {
            path = spawned
                .parent_session
                .or(session)
                .map_or(path, |parent| self.path(parent));
            path.push(child);
        }
        path
    }

    fn path(&self, session: &str) -> Vec<&str> {
        let Some(forest) = self.forest() else {
            return Vec::new();
        };
        let path = forest.find(session).map(|node| forest.path(node));
        let nodes = path.unwrap_or_default().into_iter();
        nodes
            .filter_map(|node| Some(forest.node(node)?.session()))
            .collect()
    }
}

fn first_phase(options: &StateOptions) -> &str {
    options.phases.first().map_or("", String::as_str)
}

/// Of the snapshots that are written, and the only one that is read.
const VERSION: u8 = 2;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::event::Parser;

    const USER: StreamKind = StreamKind::User;

    fn options() -> StateOptions {
        StateOptions {
            phases: ["EXPLORE", "PLAN"].map(String::from).into(),
            bounds: Bounds {
                nodes_max: 8,
                finished_trees_max: 2,
                finished_max_ms: 50,
            },
            seed: 7,
        }
    }

    // An event as a few numbers: what, of which session, on which, when.
    type Draft = (u8, u8, u8, i64);

    fn event((what, session, on, timestamp_ms): Draft) -> Event {
        let session = format!("s-{}", session % 6);
        let (event_type, data) = match what % 6 {
            0 => (
                "agent_spawned",
                json!({"child_session": format!("s-{}", on % 6)}),
            ),
            1 => (
                "progress_update",
                json!({"tokens_used": on, "phase": "PLAN"}),
            ),
            2 => (
                "git_operation",
                json!({"operation_type": "commit", "files_changed": ["a"]}),
            ),
            3 => ("completion", json!({"success": on % 2 == 0})),
            4 => (
                "message_added",
                json!({"conversationId": session, "message": {}}),
            ),
            _ => ("note", json!({})),
        };
        let text = json!({
            "type": event_type, "user_id": "ada", "project_id": 7, "session_id": session,
            "timestamp": timestamp_ms, "data": data,
        });
        let parsed = Parser::new().parse(&text.to_string().into(), 0);
        parsed.unwrap().event
    }

    fn take(state: &mut StreamState, seq: u64, event: &Event) {
        let folded = Folded {
            seq: Seq(seq),
            received_ms: 10 * seq as i64,
            event,
        };
        let known_type = KnownType::find(&event.event_type);
        let known_type = known_type.filter(|known_type| state.reads(*known_type));
        match known_type {
            Some(known_type) => {
                let apply = |known: &Known<'_>| state.apply(folded, Some(known));
                Parser::new().with_known(known_type, &event.data, apply);
            }
            None => drop(state.apply(folded, None)),
        }
    }

    fn after(kind: StreamKind, drafts: &[Draft]) -> StreamState {
        let mut state = StreamState::new(kind, &options());
        for (at, draft) in drafts.iter().enumerate() {
            take(&mut state, at as u64 + 1, &event(*draft));
        }
        state
    }

    fn drafts() -> impl Strategy<Value = Vec<Draft>> {
        prop::collection::vec((any::<u8>(), any::<u8>(), any::<u8>(), 0..200_i64), 0..40)
    }

    fn kinds() -> impl Strategy<Value = StreamKind> {
        prop::sample::select(vec![StreamKind::Project, USER])
    }

    proptest! {
        #[test]
        fn a_restored_state_goes_on_as_if_nothing_had_been(
            kind in kinds(),
            before in drafts(),
            later in drafts(),
        ) {
            let mut state = after(kind, &before);
            let snapshot = state.snapshot();
            let mut restored = StreamState::restore(kind, &snapshot, &options()).unwrap();
            prop_assert_eq!(restored.snapshot(), snapshot);
            prop_assert_eq!((restored.at(), restored.entries_len()), (state.at(), state.entries_len()));
            for (at, draft) in later.into_iter().enumerate() {
                let (seq, event) = ((before.len() + at) as u64 + 1, event(draft));
                take(&mut state, seq, &event);
                take(&mut restored, seq, &event);
            }
            prop_assert_eq!(restored.snapshot(), state.snapshot());
        }

        #[test]
        fn bytes_that_are_no_snapshot_do_no_harm(
            kind in kinds(),
            before in drafts(),
            harm in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut bytes = after(kind, &before).snapshot();
            for (at, byte) in harm {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            bytes.truncate(cut.index(bytes.len()) + 1);
            if let Some(mut state) = StreamState::restore(kind, &bytes, &options()) {
                take(&mut state, 1_000, &event((0, 1, 2, 3)));
                state.snapshot();
            }
        }

        #[test]
        fn no_bytes_do(kind in kinds(), bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let versioned = [&[VERSION], &bytes[..]].concat();
            for bytes in [bytes, versioned] {
                StreamState::restore(kind, &bytes, &options());
            }
        }
    }

    #[test]
    fn a_snapshot_of_another_version_or_kind_is_none() {
        let mut bytes = after(USER, &[(0, 0, 1, 1)]).snapshot();
        assert!(StreamState::restore(USER, &bytes, &options()).is_some());
        assert!(StreamState::restore(StreamKind::Project, &bytes, &options()).is_none());
        bytes[0] = VERSION + 1;
        assert!(StreamState::restore(USER, &bytes, &options()).is_none());
        assert!(StreamState::restore(USER, &[], &options()).is_none());
    }

    #[test]
    fn a_child_for_which_there_is_no_room_has_its_path_all_the_same() {
        let mut state = after(USER, &[(0, 0, 1, 1), (0, 1, 2, 2)]);
        let spawned = |child| AgentSpawned {
            parent_session: None,
            child_session: child,
            git_branch: None,
            purpose: None,
            sub_vision: None,
            estimated_duration: None,
            resource_limits: None,
            agent_depth: None,
            spawn_reason: None,
            agent_tree_path: None,
            estimated_completion: None,
            resource_allocation: None,
        };
        assert_eq!(
            state.spawn_path(&spawned(Some("s-2")), Some("s-1")),
            ["s-0", "s-1", "s-2"]
        );
        assert_eq!(
            state.spawn_path(&spawned(Some("other")), Some("s-1")),
            ["s-0", "s-1", "other"]
        );
        assert_eq!(state.spawn_path(&spawned(Some("other")), None), ["other"]);
        assert!(state.spawn_path(&spawned(None), Some("s-1")).is_empty());
        take(&mut state, 9, &event((5, 0, 0, 0)));
        assert_eq!(state.at(), Seq(9));
    }
}
