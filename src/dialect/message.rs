//! What only the server says to a viewer: every message that is not an event. Owns their names,
//! fields and the envelope without `seq`; lacks the decision when to say them, which is the hub's.
//! Source: the contract, sections 5 to 7, and the two source documents for field names.

use std::borrow::Cow;

use compact_str::CompactString;
use serde::Serialize;
use serde_json::Value;

use super::json::{self, Object};
use super::{ActiveConversations, ProjectActivity};
use super::{MessageId, ResumeRow, StreamName, keen, observatory};
use crate::event::{Dialect, Epoch, Filter, Seq, SubscriptionKey};

/// A message that only the server sends. `id` is the viewer's own, of the command that is
/// answered. Times are milliseconds since the Unix epoch and leave as the dialect writes them.
#[derive(Clone, Debug, PartialEq)]
pub enum ServerMessage<'a> {
    /// The answer to `get_active_conversations`.
    ActiveConversations(ActiveConversations<'a>),
    /// The answer to `get_agent_tree`.
    AgentTree {
        /// The id of the `get_agent_tree`.
        id: Option<&'a MessageId>,
        /// An array of trees in this dialect, as `agents::encode_trees` writes it.
        trees: &'a [u8],
        /// All events of the user's stream up to here are in it. It follows them, unless the viewer is
        /// behind.
        at_seq: Seq,
    },
    /// How a tree is by now, or that it is none any more.
    AgentTreeUpdate {
        /// All of `data`, in this dialect, as `agents::Shown` or `agents::encode_removed` writes it.
        data: &'a [u8],
    },
    /// The first message of a connection.
    ConnectionEstablished(ConnectionEstablished<'a>),
    /// All events up to here were delivered or did not match.
    Cursor {
        /// The life of the log that the seqs belong to.
        epoch: Epoch,
        /// Each live stream with the last seq that is settled for this viewer.
        streams: &'a [(StreamName<'a>, Seq)],
    },
    /// A refusal; named `server_error` in keen and `error` in observatory.
    Error {
        /// The id of the command that failed, as far as it could be read.
        id: Option<&'a MessageId>,
        /// The code word, for example `INVALID_MESSAGE`.
        code: &'static str,
        /// For people.
        message: Cow<'a, str>,
        /// Milliseconds after which another try is worth it: `retryAfter`, also in `details`.
        retry_after_ms: Option<u64>,
    },
    /// The outbox passed half its bound, or is empty again.
    Lag {
        /// Bytes that wait in the outbox.
        queued_bytes: usize,
        /// Age of the oldest of them, in milliseconds.
        behind_ms: u64,
    },
    /// The answer to `ping`; its `timestamp` is milliseconds in both dialects.
    Pong {
        /// The id of the `ping`.
        id: Option<&'a MessageId>,
        /// The `timestamp` of the `ping`: a number or a string.
        echo: Option<&'a Value>,
    },
    /// The answer to `get_project_activity`.
    ProjectActivity(ProjectActivity<'a>),
    /// A stream's replay is over, also where nothing was missing.
    ReplayComplete {
        /// The id of the `replay` that is answered, where there was one.
        id: Option<&'a MessageId>,
        /// Which stream.
        stream: StreamName<'a>,
        /// The last seq that was looked at.
        seq: Seq,
        /// Of the answer to a `replay`: whether it ended before the end that was asked for.
        more: Option<bool>,
    },
    /// The server is going away; 1001 follows.
    ServerShutdown {
        /// For people.
        message: &'a str,
        /// Milliseconds to wait before reconnecting: spread over the viewers.
        reconnect_after_ms: u64,
    },
    /// The answer to `subscribe`.
    SubscriptionConfirmed {
        /// The id of the `subscribe`.
        id: Option<&'a MessageId>,
        /// What is installed now.
        subscribed: Subscribed<'a>,
        /// For each stream that the subscriptions reach, the seq after which they act.
        at: &'a [(StreamName<'a>, Seq)],
        /// Streams that this `subscribe` started at a cursor; left out where empty.
        resume: &'a [ResumeRow<'a>],
    },
    /// The refusal of a `subscribe`.
    SubscriptionError {
        /// The id of the `subscribe`.
        id: Option<&'a MessageId>,
        /// The code word, for example `INVALID_FILTERS`.
        code: &'static str,
        /// For people.
        message: Cow<'a, str>,
    },
    /// The token ends soon; the viewer should send `refresh_token`.
    TokenExpiring {
        /// The token's `exp`.
        expires_at_ms: i64,
    },
    /// The answer to `refresh_token`.
    TokenRefreshed {
        /// The id of the `refresh_token`.
        id: Option<&'a MessageId>,
        /// The new token's `exp`.
        expires_at_ms: i64,
        /// Streams that the new token may see and the old one might not.
        added: &'a [ResumeRow<'a>],
        /// Streams that are lost.
        removed: &'a [StreamName<'a>],
        /// Keys of the subscriptions that reach no stream any more and are gone.
        removed_subscriptions: &'a [SubscriptionKey],
    },
    /// What an `AgentTree` had no room for, said behind it; an error by name.
    TreesOmitted {
        /// The id of the `get_agent_tree`.
        id: Option<&'a MessageId>,
        /// How many trees.
        count: usize,
        /// An array of the sessions of their roots, as `agents::encode_sessions` writes it.
        sessions: &'a [u8],
    },
    /// The answer to `unsubscribe`.
    Unsubscribed {
        /// The id of the `unsubscribe`.
        id: Option<&'a MessageId>,
        /// Keys of the subscriptions that are gone.
        subscription_keys: &'a [SubscriptionKey],
    },
}

/// The codes of errors that viewers are told. Source: sections 4 and 6 of the contract.
pub const ERROR_CODES: [&str; 14] = [
    "FORBIDDEN",
    "INVALID_CURSOR",
    "INVALID_FILTERS",
    "INVALID_MESSAGE",
    "OVERLOADED",
    "RATE_LIMIT_EXCEEDED",
    "TOKEN_EXPIRED",
    "TOKEN_INVALID",
    "TOKEN_MISSING",
    "TOKEN_REVOKED",
    "TOKEN_SUBJECT",
    "TOO_MANY_SUBSCRIPTIONS",
    TREES_OMITTED,
    "UNKNOWN_MESSAGE_TYPE",
];

const TREES_OMITTED: &str = "TREES_OMITTED";

/// What a viewer learns first. `serverTime` is the message's own time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ConnectionEstablished<'a> {
    /// Sent as `connectionId` and as `clientId`.
    pub connection_id: &'a str,
    /// The life of the event log.
    pub epoch: Epoch,
    /// The sessions of the query.
    pub session_filters: &'a [CompactString],
    /// The initial subscriptions.
    pub subscriptions: &'a [Subscription<'a>],
    /// What this server can do, by name.
    pub capabilities: &'a [&'a str],
    /// What a viewer is held to.
    pub limits: ConnectionLimits,
    /// The token's `exp`, in milliseconds since the Unix epoch.
    pub expires_at_ms: i64,
    /// One row for each stream.
    pub resume: &'a [ResumeRow<'a>],
}

/// What a viewer is held to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// Messages in any minute.
    pub messages_per_minute: u32,
    /// Subscriptions at one time.
    pub subscriptions_max: usize,
    /// Bytes of one message from the viewer.
    pub message_bytes_max: usize,
    /// Milliseconds between two pings of the server.
    pub heartbeat_interval_ms: u64,
}

/// A subscription as it is shown to its viewer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscription<'a> {
    /// By which `unsubscribe` names it.
    pub key: SubscriptionKey,
    /// Shown in its canonical form.
    pub filter: &'a Filter,
}

/// What a `subscribe` installed; the answer has the shape of the question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subscribed<'a> {
    /// `filters` was an array: `subscriptionKeys` and an array answer it.
    Many(&'a [Subscription<'a>]),
    /// `filters` was an object: `subscriptionKey` and an object answer it.
    One(Subscription<'a>),
}

/// Appends a message in its envelope. `now_ms`: milliseconds since the Unix epoch.
pub fn encode_message(
    dialect: Dialect,
    message: &ServerMessage<'_>,
    now_ms: i64,
    out: &mut Vec<u8>,
) {
    let name = message.name(dialect);
    let mut envelope = Object::open(out);
    match dialect {
        Dialect::Keen => keen::push_message_head(&mut envelope, name, now_ms),
        Dialect::Observatory => observatory::push_message_head(&mut envelope, name, now_ms),
    }
    let times = Times { dialect, now_ms };
    let out = envelope.member("data");
    match message {
        ServerMessage::AgentTreeUpdate { data } => out.extend_from_slice(data),
        _ => {
            let mut data = Object::open(out);
            message.push_members(times, &mut data);
            push_id(message.id(), &mut data);
            data.close();
        }
    }
    envelope.close();
}

impl<'a> ServerMessage<'a> {
    /// The message's name on the wire.
    pub fn name(&self, dialect: Dialect) -> &'static str {
        match self {
            Self::ActiveConversations(_) => "active_conversations",
            Self::AgentTree { .. } => "agent_tree",
            Self::AgentTreeUpdate { .. } => "agent_tree_update",
            Self::ConnectionEstablished(_) => "connection_established",
            Self::Cursor { .. } => "cursor",
            Self::Error { .. } | Self::TreesOmitted { .. } => match dialect {
                Dialect::Keen => keen::SERVER_ERROR,
                Dialect::Observatory => observatory::SERVER_ERROR,
            },
            Self::Lag { .. } => "lag",
            Self::Pong { .. } => "pong",
            Self::ProjectActivity(_) => "project_activity",
            Self::ReplayComplete { .. } => "replay_complete",
            Self::ServerShutdown { .. } => "server_shutdown",
            Self::SubscriptionConfirmed { .. } => "subscription_confirmed",
            Self::SubscriptionError { .. } => "subscription_error",
            Self::TokenExpiring { .. } => "token_expiring",
            Self::TokenRefreshed { .. } => "token_refreshed",
            Self::Unsubscribed { .. } => "unsubscribed",
        }
    }

    /// Where the code of an error stands in [`ERROR_CODES`]; past its end for one that is not there.
    /// `None`: it is no error.
    pub fn error_index(&self) -> Option<usize> {
        let code = match self {
            Self::Error { code, .. } | Self::SubscriptionError { code, .. } => *code,
            Self::TreesOmitted { .. } => TREES_OMITTED,
            _ => return None,
        };
        let place = ERROR_CODES.iter().position(|known| *known == code);
        debug_assert!(place.is_some(), "{code} is not among the codes");
        Some(place.unwrap_or(ERROR_CODES.len()))
    }

    fn id(&self) -> Option<&'a MessageId> {
        match self {
            Self::ActiveConversations(answer) => answer.id,
            Self::ProjectActivity(answer) => answer.id,
            Self::AgentTree { id, .. }
            | Self::Error { id, .. }
            | Self::Pong { id, .. }
            | Self::ReplayComplete { id, .. }
            | Self::SubscriptionConfirmed { id, .. }
            | Self::SubscriptionError { id, .. }
            | Self::TokenRefreshed { id, .. }
            | Self::TreesOmitted { id, .. }
            | Self::Unsubscribed { id, .. } => *id,
            Self::AgentTreeUpdate { .. }
            | Self::ConnectionEstablished(_)
            | Self::Cursor { .. }
            | Self::Lag { .. }
            | Self::ServerShutdown { .. }
            | Self::TokenExpiring { .. } => None,
        }
    }

    fn push_members(&self, times: Times, data: &mut Object<'_>) {
        match self {
            Self::ActiveConversations(answer) => answer.push_members(times, data),
            Self::ProjectActivity(answer) => answer.push_members(times, data),
            Self::AgentTree { trees, at_seq, .. } => {
                data.member("trees").extend_from_slice(trees);
                data.integer("at_seq", at_seq.0);
            }
            // Its data is ready.
            Self::AgentTreeUpdate { .. } => {}
            Self::ConnectionEstablished(established) => established.push_members(times, data),
            Self::Cursor { epoch, streams } => {
                push_epoch(*epoch, data);
                push_seqs(streams, data.member("streams"));
            }
            Self::Error {
                code,
                message,
                retry_after_ms,
                ..
            } => {
                data.string("code", code);
                data.string("message", message);
                if let Some(retry_after_ms) = retry_after_ms {
                    // Beside the code, and in `details` where the source document has such things.
                    data.integer("retryAfter", *retry_after_ms);
                    let mut details = Object::open(data.member("details"));
                    details.integer("retryAfter", *retry_after_ms);
                    details.close();
                }
            }
            Self::Lag {
                queued_bytes,
                behind_ms,
            } => {
                data.integer("queuedBytes", *queued_bytes);
                data.integer("behindMs", *behind_ms);
            }
            Self::Pong { echo, .. } => {
                data.integer("timestamp", times.now_ms);
                if let Some(echo) = echo {
                    push_serialized(*echo, data.member("echo"));
                }
            }
            Self::ReplayComplete {
                stream, seq, more, ..
            } => {
                stream.push_json(data.member("stream"));
                data.integer("seq", seq.0);
                if let Some(more) = more {
                    push_serialized(more, data.member("more"));
                }
            }
            Self::ServerShutdown {
                message,
                reconnect_after_ms,
            } => {
                data.string("message", message);
                data.integer("reconnectAfter", *reconnect_after_ms);
            }
            Self::SubscriptionConfirmed {
                subscribed,
                at,
                resume,
                ..
            } => {
                subscribed.push_members(data);
                push_seqs(at, data.member("at"));
                if !resume.is_empty() {
                    push_rows(resume, data.member("resume"));
                }
            }
            Self::SubscriptionError { code, message, .. } => {
                data.string("code", code);
                data.string("message", message);
            }
            Self::TokenExpiring { expires_at_ms } => {
                times.push(*expires_at_ms, data.member("expiresAt"));
            }
            Self::TokenRefreshed {
                expires_at_ms,
                added,
                removed,
                removed_subscriptions,
                ..
            } => {
                times.push(*expires_at_ms, data.member("expiresAt"));
                push_rows(added, data.member("added"));
                json::push_array(*removed, data.member("removed"), |stream, out| {
                    stream.push_json(out);
                });
                push_keys(removed_subscriptions, data.member("removedSubscriptions"));
            }
            Self::TreesOmitted {
                count, sessions, ..
            } => {
                data.string("code", TREES_OMITTED);
                let message = format!(
                    "{count} trees found no room in the answer: ask for each by its session"
                );
                data.string("message", &message);
                let mut details = Object::open(data.member("details"));
                details.integer("count", *count);
                details.member("sessions").extend_from_slice(sessions);
                details.close();
            }
            Self::Unsubscribed {
                subscription_keys, ..
            } => push_keys(subscription_keys, data.member("subscriptionKeys")),
        }
    }
}

impl ConnectionEstablished<'_> {
    fn push_members(&self, times: Times, data: &mut Object<'_>) {
        data.string("connectionId", self.connection_id);
        data.string("clientId", self.connection_id);
        times.push(times.now_ms, data.member("serverTime"));
        push_epoch(self.epoch, data);
        push_strings(self.session_filters, data.member("sessionFilters"));
        json::push_array(
            self.subscriptions,
            data.member("subscriptions"),
            |subscription, out| subscription.push_json(out),
        );
        push_strings(self.capabilities, data.member("capabilities"));
        self.limits.push_json(data.member("limits"));
        times.push(self.expires_at_ms, data.member("expiresAt"));
        push_rows(self.resume, data.member("resume"));
    }
}

impl ConnectionLimits {
    fn push_json(self, out: &mut Vec<u8>) {
        let mut limits = Object::open(out);
        limits.integer("messageRateLimit", self.messages_per_minute);
        limits.integer("maxSubscriptions", self.subscriptions_max);
        limits.integer("maxMessageBytes", self.message_bytes_max);
        limits.integer("heartbeatIntervalMs", self.heartbeat_interval_ms);
        limits.close();
    }
}

impl Subscription<'_> {
    fn push_json(self, out: &mut Vec<u8>) {
        let mut object = Object::open(out);
        self.push_members(&mut object);
        object.close();
    }

    fn push_members(self, object: &mut Object<'_>) {
        json::push_plain(self.key, object.member("subscriptionKey"));
        push_serialized(self.filter, object.member("filters"));
    }
}

impl Subscribed<'_> {
    fn push_members(self, data: &mut Object<'_>) {
        match self {
            Self::Many(subscriptions) => {
                let keys = subscriptions.iter().map(|subscription| subscription.key);
                json::push_array(keys, data.member("subscriptionKeys"), json::push_plain);
                let filters = subscriptions.iter().map(|subscription| subscription.filter);
                json::push_array(filters, data.member("filters"), push_serialized);
            }
            Self::One(subscription) => subscription.push_members(data),
        }
    }
}

/// How the message at hand writes times.
#[derive(Clone, Copy)]
pub(super) struct Times {
    dialect: Dialect,
    now_ms: i64,
}

impl Times {
    pub(super) fn push(self, time_ms: i64, out: &mut Vec<u8>) {
        match self.dialect {
            Dialect::Keen => keen::push_time(time_ms, out),
            Dialect::Observatory => observatory::push_time(time_ms, out),
        }
    }
}

fn push_epoch(epoch: Epoch, data: &mut Object<'_>) {
    json::push_plain(epoch, data.member("epoch"));
}

fn push_id(id: Option<&MessageId>, data: &mut Object<'_>) {
    match id {
        Some(MessageId::Integer(integer)) => data.integer("id", *integer),
        Some(MessageId::Text(text)) => data.string("id", text),
        None => {}
    }
}

fn push_keys(keys: &[SubscriptionKey], out: &mut Vec<u8>) {
    json::push_array(keys, out, json::push_plain);
}

fn push_rows(rows: &[ResumeRow<'_>], out: &mut Vec<u8>) {
    json::push_array(rows, out, |row, out| row.push_json(out));
}

fn push_seqs(streams: &[(StreamName<'_>, Seq)], out: &mut Vec<u8>) {
    let mut object = Object::open(out);
    for (stream, seq) in streams {
        let value = object.member_named(|out| stream.push_json(out));
        json::push_integer(seq.0, value);
    }
    object.close();
}

fn push_strings(texts: &[impl AsRef<str>], out: &mut Vec<u8>) {
    json::push_array(texts, out, |text, out| {
        json::push_string(text.as_ref(), out);
    });
}

fn push_serialized(value: &impl Serialize, out: &mut Vec<u8>) {
    serde_json::to_writer(out, value).expect("only JSON values and filters: text keys, no failure");
}

#[cfg(test)]
mod tests;
