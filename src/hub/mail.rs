//! What cores say to each other. Mail is plain data: nothing in it is shared without an atomic
//! count, and nothing in it names a socket. Between two cores it arrives in the order of sending.

use compact_str::CompactString;

use crate::agents::activity::{Tally, TimeRange};
use crate::agents::conversations::Conversation;
use crate::auth::Revocation;
use crate::event::{Event, Seq, Stream, StreamKind};

use super::duplicates::Fingerprint;
use super::frames::{FrameBatch, Variants};
use super::keyed::Key;

/// One message from a core to another.
#[derive(Debug)]
pub enum Mail {
    /// To every core: an administrator's order or question, answered by `Answer`.
    Ask {
        /// Names the asker's request.
        id: Key,
        /// What is wanted.
        ask: Ask,
    },
    /// The answer to an `Ask`.
    Answer {
        /// The asker's request.
        id: Key,
        /// This core's part of the answer.
        answer: Answer,
    },
    /// To every core: this user's events are gone from the event log.
    Erased(CompactString),
    /// To every core: nothing of this user that the event log has erased comes from the sender any more.
    Forget(CompactString),
    /// Owner core to an interested core: frames of a project, from the head that was answered on.
    Frames {
        /// The project.
        project: CompactString,
        /// The interest that they serve; older ones are ignored.
        generation: u32,
        /// The frames, at least in the variants that were asked for.
        batch: Box<FrameBatch>,
        /// The log keeps their events once it keeps so many records of the owner core.
        through: u64,
    },
    /// A core with viewers of a project to the project's owner core: send frames from now on.
    Interest {
        /// The project.
        project: CompactString,
        /// Rises with each interest of this core; the same while one goes on and takes more.
        generation: u32,
        /// Which encodings the viewers take.
        variants: Variants,
    },
    /// The answer: every frame after `head` follows on this queue, under this generation.
    Interested {
        /// The project.
        project: CompactString,
        /// The interest that is answered.
        generation: u32,
        /// In which encodings the frames that follow are, at least.
        variants: Variants,
        /// The last seq given before the first frame that will be sent.
        head: Seq,
        /// The log keeps all up to there once it keeps so many records of the owner core.
        through: u64,
        /// The seq up to which the owner core has let everything go, and the same count for it.
        base: (Seq, u64),
    },
    /// No event follows from this core: it drains.
    NoMoreEvents,
    /// No frame follows either.
    NoMoreFrames,
    /// Events for streams that the receiving core owns, in the publisher's order.
    Publish(Vec<Submission>),
    /// To an owner core: what a viewer wants to know of streams that it owns, answered by `Told`.
    Question {
        /// Names the asker's question.
        id: Key,
        /// What is wanted.
        question: Question,
    },
    /// Owner core to the publisher's core: what became of submissions.
    Receipts(Vec<Receipt>),
    /// The answer to a `Question`.
    Told {
        /// The asker's question.
        id: Key,
        /// This core's part of the answer.
        told: Told,
    },
    /// The core has no viewer of the project left.
    Uninterest {
        /// The project.
        project: CompactString,
        /// The interest that ends.
        generation: u32,
    },
}

/// One event on its way to the owner core of one of its streams.
#[derive(Debug)]
pub struct Submission {
    /// The publish request that it belongs to, on the sender's core.
    pub ticket: Key,
    /// Its place in the request.
    pub index: u32,
    /// Which of the event's audiences this is for.
    pub kind: StreamKind,
    /// Names the event in its stream, where it has an id: what makes a duplicate.
    pub fingerprint: Option<Fingerprint>,
    /// When its receipt is due.
    pub ack: Ack,
    /// What it costs of the window between the two cores, in bytes.
    pub bytes: u32,
    /// When it was received, in monotonic nanoseconds.
    pub received_ns: u64,
    /// The event.
    pub event: Event,
}

/// What a publisher waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ack {
    /// Its events are kept.
    #[default]
    Durable,
    /// Its events are numbered.
    Received,
}

/// What became of the submissions of one request at one owner core.
#[derive(Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The request, on the receiver's core.
    pub ticket: Key,
    /// How many submissions this settles, duplicates included.
    pub settled: u32,
    /// The bytes of the window that they give back.
    pub bytes: u64,
    /// Which of them were duplicates, by place in the request.
    pub duplicates: Vec<u32>,
}

/// An administrator's order or question to one core.
#[derive(Clone, Debug)]
pub enum Ask {
    /// List the connections.
    Connections,
    /// Close the connections of a user, or one connection.
    Disconnect(Target),
    /// Forget what is held in memory of a user's events; the event log is another's business.
    Erase(CompactString),
    /// Take this revocation to heart and close what it hits.
    Revoke(Revocation),
    /// Forget a revocation.
    Unrevoke(Revocation),
}

/// What a viewer wants to know of streams of one core, all of which its token shows.
#[derive(Clone, Debug)]
pub enum Question {
    /// How often what was done in a project.
    Activity {
        /// Which.
        project: CompactString,
        /// When.
        range: TimeRange,
    },
    /// Which conversations go on.
    Conversations {
        /// Where.
        streams: Vec<Stream>,
        /// Only those about this project.
        project: Option<CompactString>,
        /// How many are of use: the newest.
        limit: usize,
    },
}

/// One core's part of the answer.
#[derive(Debug)]
pub enum Told {
    /// Of a project.
    Activity {
        /// How often what was done.
        tally: Box<Tally>,
        /// When something was last done at all, in milliseconds since the Unix epoch.
        last_ms: Option<i64>,
    },
    /// Conversations, each with the kind of stream that it was found in.
    Conversations(Vec<(StreamKind, Conversation)>),
    /// It cannot be had at present: too many ask, or the log does not answer.
    Unavailable,
}

/// Whom to disconnect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// The connection with this id.
    Connection(CompactString),
    /// Every connection of this user.
    User(CompactString),
}

/// One core's part of an answer.
#[derive(Debug)]
pub enum Answer {
    /// How many connections were closed, or revocations forgotten.
    Count(u64),
    /// The core cannot remember a further revocation.
    Full,
    /// The core's connections.
    Rows(Vec<ConnectionRow>),
}

/// One connection, as an administrator sees it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ConnectionRow {
    /// Its id, as told in `connection_established`.
    pub connection_id: String,
    /// The token's `sub`.
    pub user_id: CompactString,
    /// `keen`, `observatory` or `publisher`.
    pub role: &'static str,
    /// The client's address, where there is one.
    pub remote: Option<CompactString>,
    /// Milliseconds since the Unix epoch.
    pub connected_at: i64,
    /// The core that holds it.
    pub core: usize,
    /// Bytes waiting to be written.
    pub queued_bytes: usize,
    /// Frames written so far.
    pub frames_written: u64,
    /// Present subscriptions.
    pub subscriptions: usize,
}
