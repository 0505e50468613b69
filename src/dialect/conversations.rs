//! `get_active_conversations`: which conversations go on. Reads the question and writes the answer;
//! who may see which is the hub's to judge. Source: the contract, section 6.

use compact_str::CompactString;
use serde_json::Value;

use super::json::{self, Object};
use super::message::Times;
use super::{MessageId, project};
use crate::agents::conversations::Conversation;
use crate::limits::{CONVERSATIONS_PER_ANSWER_MAX, CONVERSATIONS_USUAL};

/// Which conversations a viewer wants to be told of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConversationsQuestion {
    /// Only those about this project, as text.
    pub project: Option<CompactString>,
    /// How many at most, from 1 to `limits::CONVERSATIONS_PER_ANSWER_MAX`.
    pub limit: usize,
}

/// What is wrong with a `get_active_conversations`. The viewer's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConversationsError {
    /// `data` is there and no object.
    #[error("data is not an object")]
    Data,
    /// `limit` is no count.
    #[error("data.limit is not an integer from 1 to 2^53 - 1")]
    Limit,
    /// `projectId` is no id.
    #[error("data.projectId is neither an integer nor a string")]
    Project,
}

impl ConversationsQuestion {
    /// Reads `data`. A limit beyond what one answer holds stands for that.
    pub(super) fn read(data: Option<&Value>) -> Result<Self, ConversationsError> {
        let data = match data {
            None => &serde_json::Map::new(),
            Some(data) => data.as_object().ok_or(ConversationsError::Data)?,
        };
        let project = data.get("projectId").map(|id| {
            let project = project::read_id(id);
            project.ok_or(ConversationsError::Project)
        });
        let limit = data.get("limit");
        let limit = limit.map_or(Some(CONVERSATIONS_USUAL as u64), Value::as_u64);
        let limit = limit.filter(|limit| (1..1 << 53).contains(limit));
        let limit = limit.ok_or(ConversationsError::Limit)?;
        Ok(Self {
            project: project.transpose()?,
            limit: limit.min(CONVERSATIONS_PER_ANSWER_MAX as u64) as usize,
        })
    }
}

/// The answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ActiveConversations<'a> {
    /// The id of the question.
    pub id: Option<&'a MessageId>,
    /// The newest first.
    pub conversations: &'a [Conversation],
}

impl ActiveConversations<'_> {
    pub(super) fn push_members(&self, times: Times, data: &mut Object<'_>) {
        let out = data.member("conversations");
        json::push_array(self.conversations, out, |conversation, out| {
            push_conversation(conversation, times, out);
        });
    }
}

fn push_conversation(conversation: &Conversation, times: Times, out: &mut Vec<u8>) {
    let mut object = Object::open(out);
    object.string("conversationId", conversation.id());
    match conversation.session() {
        Some(session) => object.string("sessionId", session),
        None => object.member("sessionId").extend_from_slice(b"null"),
    }
    project::push_id(conversation.project(), object.member("projectId"));
    times.push(conversation.start_ms(), object.member("startTime"));
    times.push(conversation.last_ms(), object.member("lastActivity"));
    object.integer("messageCount", conversation.message_count());
    object.integer("toolUsageCount", conversation.tool_usage_count());
    object.close();
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::json;

    use super::*;
    use crate::agents::conversations::Conversations;
    use crate::dialect::{ServerMessage, encode_message};
    use crate::event::{Dialect, KnownType, Parser, Seq};

    fn check(data: Option<&Value>, expected: Result<(Option<&str>, usize), ConversationsError>) {
        let expected = expected.map(|(project, limit)| ConversationsQuestion {
            project: project.map(CompactString::from),
            limit,
        });
        assert_eq!(ConversationsQuestion::read(data), expected, "{data:?}");
    }

    #[test]
    fn a_question_names_a_project_a_limit_or_nothing() {
        check(None, Ok((None, 100)));
        check(Some(&json!({})), Ok((None, 100)));
        check(
            Some(&json!({"projectId": 7, "limit": 3})),
            Ok((Some("7"), 3)),
        );
        check(
            Some(&json!({"projectId": "a/b", "x": 1})),
            Ok((Some("a/b"), 100)),
        );
        check(Some(&json!({"limit": 5_000})), Ok((None, 1_000)));
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        check(Some(&json!([])), Err(ConversationsError::Data));
        check(Some(&Value::Null), Err(ConversationsError::Data));
        for limit in [
            json!(0),
            json!(-1),
            json!(1.5),
            json!("9"),
            json!(null),
            json!(1_u64 << 53),
        ] {
            check(
                Some(&json!({"limit": limit})),
                Err(ConversationsError::Limit),
            );
        }
        for project in [json!(null), json!(1.5), json!([]), json!("")] {
            check(
                Some(&json!({"projectId": project})),
                Err(ConversationsError::Project),
            );
        }
    }

    fn heard(events: &[Value]) -> Conversations {
        let mut conversations = Conversations::default();
        for (seq, event) in (1..).map(Seq).zip(events) {
            let event = Parser::new()
                .parse(&event.to_string().into(), 0)
                .unwrap()
                .event;
            let known = KnownType::find(&event.event_type).unwrap();
            Parser::new().with_known(known, &event.data, |known| {
                conversations.apply(known, &event, seq, 0);
            });
        }
        conversations
    }

    #[test]
    fn the_answer_has_times_as_its_dialect_has_them() {
        let said = heard(&[
            json!({
                "type": "conversation_started", "user_id": "ada", "project_id": 7,
                "session_id": "s\"", "timestamp": 1_795_341_600_000_i64,
                "data": {"conversationId": "c-1"},
            }),
            json!({
                "type": "message_added", "user_id": "ada", "timestamp": 1_795_345_200_000_i64,
                "data": {"conversationId": "c-1", "message": {}},
            }),
        ]);
        let conversations: Vec<Conversation> = said.active().cloned().collect();
        let answer = |dialect| {
            let (mut out, id) = (Vec::new(), MessageId::Integer(4));
            let answer = ServerMessage::ActiveConversations(ActiveConversations {
                id: Some(&id),
                conversations: &conversations,
            });
            encode_message(dialect, &answer, 0, &mut out);
            let answer: Value = serde_json::from_slice(&out).unwrap();
            answer["data"].clone()
        };
        let expected = |start: Value, last: Value| {
            json!({"conversations": [{
                "conversationId": "c-1", "sessionId": "s\"", "projectId": 7, "startTime": start,
                "lastActivity": last, "messageCount": 1, "toolUsageCount": 0,
            }], "id": 4})
        };
        assert_eq!(
            answer(Dialect::Keen),
            expected(
                json!("2026-11-22T10:00:00.000Z"),
                json!("2026-11-22T11:00:00.000Z")
            )
        );
        assert_eq!(
            answer(Dialect::Observatory),
            expected(json!(1_795_341_600_000_i64), json!(1_795_345_200_000_i64))
        );
    }
}
