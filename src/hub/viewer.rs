//! One viewer: what it is subscribed to, what it has asked for and not yet been answered.

use compact_str::CompactString;

use crate::auth::Claims;
use crate::dialect::{Cursor, MessageId, Replay, TreeMode, Unsubscribe};
use crate::event::{Dialect, Filter};

use super::catch_up::Behind;
use super::facts::Facts;
use super::frames::Variant;
use super::rate::MessageRate;
use super::seldom::SeldomQueue;
use super::streams::StreamSlot;
use super::subscriptions::Subscription;
use super::trees::TreeView;

/// The viewer's part of a connection.
#[derive(Debug)]
pub struct Viewer {
    /// The shape of the messages it takes.
    pub dialect: Dialect,
    /// The encoding of the frames it takes.
    pub variant: Variant,
    /// The sessions of its query.
    pub sessions: Box<[CompactString]>,
    /// How it wants to see agent trees.
    pub tree: Option<TreeMode>,
    /// What it has to do with agent trees, if anything.
    pub(super) trees: Option<Box<TreeView>>,
    /// At most `limits.subscriptions_max`, each key once.
    pub(super) subscriptions: Vec<Subscription>,
    // The streams that are live for it, and where in their lists it stands.
    pub(super) attachments: Vec<Attachment>,
    // What it has missed and is to be sent.
    pub(super) behind: Option<Box<Behind>>,
    // What it asked for, in order; the front one may be waiting for owner cores.
    pub(super) operations: SeldomQueue<Operation>,
    pub(super) waiting: Option<Box<Waiting>>,
    // Cursors of streams that no subscription reaches yet.
    pub(super) cursors: Option<Box<Cursor>>,
    pub(super) rate: MessageRate,
    // What came up before `connection_established`, which must be the first message, was said. A
    // viewer's rate bounds it.
    pub(super) early: SeldomQueue<Vec<u8>>,
    pub(super) is_established: bool,
    // Questions about conversations and projects that are not answered.
    pub(super) questions: u8,
    // Whether `token_expiring` was sent for the present token.
    pub(super) is_warned_of_expiry: bool,
}

/// A place in a stream's list of subscribers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attachment {
    pub stream: StreamSlot,
    pub position: usize,
}

/// What the front operation waits for.
#[derive(Debug)]
pub(super) struct Waiting {
    /// Streams of other cores and streams that begin, held by one entry in their `waiters` each.
    pub streams: Vec<StreamSlot>,
    /// What is known of those that begin.
    pub facts: Vec<Facts>,
    /// Whether the facts were asked for, and how many are not answered.
    pub is_judged: bool,
    /// See `is_judged`.
    pub asked: usize,
    pub deadline_ms: u64,
}

/// Something that a viewer asked for and that must happen in order.
#[derive(Debug)]
pub(super) enum Operation {
    /// The connection's first: attach the initial subscription, say `connection_established`.
    Establish { initial: Option<Subscription> },
    /// `refresh_token`, the new token being good.
    Refresh {
        id: Option<MessageId>,
        claims: Box<Claims>,
    },
    /// `replay`.
    Replay {
        id: Option<MessageId>,
        replay: Replay,
    },
    /// `subscribe`, its filters being good.
    Subscribe {
        id: Option<MessageId>,
        filters: Vec<Filter>,
        is_list: bool,
        cursor: Option<Cursor>,
    },
    /// `unsubscribe`.
    Unsubscribe {
        id: Option<MessageId>,
        what: Unsubscribe,
    },
}

// Every viewer has one: a byte more would take a class of the allocator more, 32 bytes.
const _: () = assert!(size_of::<Viewer>() <= 128);

impl Viewer {
    /// A viewer that has not been told anything yet.
    pub fn new(
        variant: Variant,
        sessions: Vec<CompactString>,
        tree: Option<TreeMode>,
        cursor: Option<Cursor>,
    ) -> Self {
        Self {
            dialect: variant.dialect(),
            variant,
            sessions: sessions.into(),
            tree,
            trees: None,
            subscriptions: Vec::new(),
            attachments: Vec::new(),
            behind: None,
            operations: SeldomQueue::default(),
            waiting: None,
            cursors: cursor.map(Box::new),
            rate: MessageRate::default(),
            early: SeldomQueue::default(),
            is_established: false,
            questions: 0,
            is_warned_of_expiry: false,
        }
    }

    /// Takes the next operation.
    pub(super) fn next_operation(&mut self) -> Option<Operation> {
        self.operations.pop_front()
    }

    /// Whether `connection_established` was said.
    pub fn is_established(&self) -> bool {
        self.is_established
    }

    /// Its present subscriptions.
    pub fn subscriptions(&self) -> &[Subscription] {
        &self.subscriptions
    }
}
