//! Events for tests, and a forest that hears them.

use compact_str::CompactString;
use serde_json::{Value, json};

use super::{Applied, Bounds, Forest, Node, NodeId, Stamp};
use crate::event::{KnownType, Parser, Seq};

/// Room for all that a test does not mean to fill up.
pub(super) const WIDE: Bounds = Bounds {
    nodes_max: 100_000,
    finished_trees_max: 100_000,
    finished_max_ms: i64::MAX,
};

/// An event, as a producer would say it.
#[derive(Clone, Debug)]
pub(super) struct Said {
    pub(super) event_type: &'static str,
    pub(super) session: Option<String>,
    pub(super) timestamp_ms: i64,
    pub(super) event_id: Option<String>,
    pub(super) data: Value,
}

/// `event_type`, said by `session` at `timestamp_ms`.
pub(super) fn said(
    event_type: &'static str,
    session: &str,
    timestamp_ms: i64,
    data: Value,
) -> Said {
    Said {
        event_type,
        session: Some(session.to_owned()),
        timestamp_ms,
        event_id: None,
        data,
    }
}

/// `parent` says at `timestamp_ms` that it began `child`.
pub(super) fn spawn(parent: &str, child: &str, timestamp_ms: i64) -> Said {
    let data = json!({ "child_session": child });
    said("agent_spawned", parent, timestamp_ms, data)
}

/// A forest, and how many events it has heard.
pub(super) struct Rig {
    pub(super) forest: Forest,
    parser: Parser,
    seq: Seq,
    pub(super) received_ms: i64,
}

impl Rig {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self {
            forest: Forest::new(bounds, "EXPLORE", 7),
            parser: Parser::new(),
            seq: Seq::default(),
            received_ms: 1_000,
        }
    }

    /// A forest that has heard `events`.
    pub(super) fn after<'s>(events: impl IntoIterator<Item = &'s Said>) -> Self {
        let mut rig = Self::new(WIDE);
        for said in events {
            rig.hear(said);
        }
        rig
    }

    /// The next event arrives.
    pub(super) fn hear(&mut self, said: &Said) -> Applied {
        self.seq = self.seq.next();
        let stamp = Stamp {
            timestamp_ms: said.timestamp_ms,
            event_id: said.event_id.as_deref().map(CompactString::from),
            seq: self.seq,
        };
        let event_type = KnownType::find(said.event_type).expect("a known type");
        let (data, session) = (said.data.to_string(), said.session.as_deref());
        let (forest, received_ms) = (&mut self.forest, self.received_ms);
        let applied = self
            .parser
            .with_known(event_type, data.as_bytes(), |known| {
                forest.apply(known, session, &stamp, received_ms)
            });
        applied.expect("data is an object")
    }

    /// The next event arrives at `received_ms`.
    pub(super) fn hear_at(&mut self, received_ms: i64, said: &Said) -> Applied {
        self.received_ms = received_ms;
        self.hear(said)
    }

    /// The next event is one that the forest has heard before.
    pub(super) fn hear_nothing(&mut self) {
        self.seq = self.seq.next();
    }

    pub(super) fn id(&self, session: &str) -> NodeId {
        self.forest.find(session).expect("the session has a node")
    }

    pub(super) fn parent(&self, session: &str) -> Option<&str> {
        let parent = self.forest.parent(self.id(session))?;
        Some(session_of(&self.forest, parent))
    }

    pub(super) fn children(&self, session: &str) -> Vec<&str> {
        let children = self.forest.children(self.id(session)).iter();
        children.map(|id| session_of(&self.forest, *id)).collect()
    }

    /// Sorted.
    pub(super) fn roots(&self) -> Vec<&str> {
        let roots = self.forest.roots().map(|id| session_of(&self.forest, id));
        let mut roots = Vec::from_iter(roots);
        roots.sort_unstable();
        roots
    }
}

pub(super) fn session_of(forest: &Forest, id: NodeId) -> &str {
    forest.node(id).expect("the node is there").session()
}

/// What viewers can be shown of an agent itself, its children left out and times as numbers.
pub(super) fn own_members(forest: &Forest, id: NodeId) -> Value {
    let node = forest.node(id).expect("the node is there");
    let parent = forest.parent(id).and_then(|parent| forest.node(parent));
    json!({
        "session_id": node.session(),
        "parent_session": parent.map(Node::session),
        "git_branch": node.branch(),
        "status": node.status().as_str(),
        "current_phase": forest.current_phase(id),
        "purpose": forest.purpose(id),
        "progress": number(node.progress()),
        "metrics": {
            "start_time": node.start_ms(),
            "tokens_used": node.tokens_used(),
            "cost_so_far": number(node.cost_so_far()),
            "files_created": node.files_created(),
            "files_modified": node.files_modified(),
            "git_commits": node.git_commits(),
        },
        "git_info": {
            "branch": node.git_branch(),
            "latest_commit": node.latest_commit(),
            "commits_count": node.git_commits(),
            "files_changed": node.files_changed().collect::<Vec<_>>(),
        },
    })
}

/// What is whole is written without a fraction, as far as a float holds it.
fn number(value: f64) -> Value {
    match value.fract() == 0.0 && value.abs() < 1e15 {
        true => json!(value as i64),
        false => json!(value),
    }
}
