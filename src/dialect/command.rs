//! What a viewer may say, in either dialect: bytes of a text message become a [`Command`], or a
//! [`CommandError`] that knows its own answer. Lacks every check that needs the viewer's rights or
//! subscriptions; those are the hub's. Source: the contract, section 6.

use std::borrow::Cow;
use std::{fmt, slice};

use compact_str::CompactString;
use serde_json::{Map, Number, Value};

use super::strict::Strict;
use super::{ActivityError, ActivityQuestion, ConversationsError, ConversationsQuestion};
use super::{Cursor, CursorError, Replay, ReplayError, ServerMessage};
use crate::event::{Filter, FilterError, SubscriptionKey};
use crate::limits::{FILTERS_PER_MESSAGE_MAX, MESSAGE_ID_BYTES_MAX};

/// One thing that a viewer wants.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Tell what was done in a project.
    Activity(ActivityQuestion),
    /// Tell which conversations go on.
    Conversations(ConversationsQuestion),
    /// Show agent trees.
    AgentTree {
        /// One of the subtree's root; `None`: all trees of the viewer's user.
        session: Option<CompactString>,
    },
    /// Answer with `pong`.
    Ping {
        /// The viewer's `timestamp`, a number or a string, which goes back as `echo`.
        echo: Option<Value>,
    },
    /// Go on under a new token.
    RefreshToken(TokenText),
    /// Send events again.
    Replay(Replay),
    /// Install subscriptions.
    Subscribe(Subscribe),
    /// Remove subscriptions.
    Unsubscribe(Unsubscribe),
}

/// Subscriptions to install, all or none.
#[derive(Clone, Debug, PartialEq)]
pub struct Subscribe {
    /// 1 to `limits::FILTERS_PER_MESSAGE_MAX`.
    pub filters: Vec<Filter>,
    /// Whether they came as an array, so that the answer has keys rather than a key.
    pub is_array: bool,
    /// Where streams that become live by this shall start.
    pub cursor: Option<Cursor>,
}

/// Subscriptions to remove.
#[derive(Clone, Debug, PartialEq)]
pub enum Unsubscribe {
    /// Every one.
    All,
    /// Those with one of these filters.
    Filters(Vec<Filter>),
    /// The one with this key.
    Key(SubscriptionKey),
}

/// A token as a viewer sent it; never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenText(String);

/// A viewer's own name for its message: comes back as `data.id` of the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MessageId {
    /// Any integer from -2^63 to 2^64 - 1.
    Integer(i128),
    /// At most `limits::MESSAGE_ID_BYTES_MAX` bytes.
    Text(CompactString),
}

impl Command {
    /// Reads one text message and the `id` that its answer shall carry.
    /// Errors are the viewer's fault; the connection goes on.
    pub fn parse(text: &[u8]) -> Result<(Self, Option<MessageId>), CommandError> {
        let strict = Strict::parse(text);
        let has_duplicates = strict.as_ref().is_some_and(|strict| strict.has_duplicates);
        let Some(Value::Object(message)) = strict.map(|strict| strict.value) else {
            return Err(CommandError {
                id: None,
                complaint: Complaint::NotAnObject,
            });
        };
        let id = message.get("id");
        let has_bad_id = id.is_some_and(|id| MessageId::read(id).is_none());
        let id = id.and_then(MessageId::read);
        let command = if has_duplicates {
            Err(Complaint::DuplicateMember)
        } else if has_bad_id {
            Err(Complaint::Id)
        } else {
            Self::read(&message)
        };
        match command {
            Ok(command) => Ok((command, id)),
            Err(complaint) => Err(CommandError { id, complaint }),
        }
    }

    fn read(message: &Map<String, Value>) -> Result<Self, Complaint> {
        let name = message.get("type").and_then(Value::as_str);
        let data = message.get("data");
        match name.ok_or(Complaint::NoType)? {
            "get_active_conversations" => {
                Ok(Self::Conversations(ConversationsQuestion::read(data)?))
            }
            "get_project_activity" => Ok(Self::Activity(ActivityQuestion::read(data)?)),
            "get_agent_tree" => read_agent_tree(data),
            "ping" => read_ping(data),
            "refresh_token" => read_refresh_token(data),
            "replay" => Ok(Self::Replay(Replay::read(data)?)),
            "subscribe" => Subscribe::read(data).map(Self::Subscribe),
            "unsubscribe" => Unsubscribe::read(data).map(Self::Unsubscribe),
            unknown => Err(Complaint::unknown_type(unknown)),
        }
    }
}

impl Subscribe {
    fn read(data: Option<&Value>) -> Result<Self, Complaint> {
        let data = data.and_then(Value::as_object);
        let filters = data.and_then(|data| data.get("filters"));
        let (Some(data), Some(filters)) = (data, filters) else {
            return Err(Complaint::SubscribeFilters(FiltersError::Kind));
        };
        Ok(Self {
            filters: read_filters(filters).map_err(Complaint::SubscribeFilters)?,
            is_array: filters.is_array(),
            cursor: read_cursor(data)?,
        })
    }
}

impl Unsubscribe {
    fn read(data: Option<&Value>) -> Result<Self, Complaint> {
        let data = match data {
            None => return Ok(Self::All),
            Some(Value::Object(data)) => data,
            Some(_) => return Err(Complaint::Data),
        };
        match (data.get("subscriptionKey"), data.get("filters")) {
            (None, None) => Ok(Self::All),
            (None, Some(filters)) => read_filters(filters)
                .map(Self::Filters)
                .map_err(Complaint::UnsubscribeFilters),
            (Some(Value::String(key)), None) => SubscriptionKey::parse(key)
                .map(Self::Key)
                .ok_or(Complaint::SubscriptionKey),
            (Some(_), _) => Err(Complaint::SubscriptionKey),
        }
    }
}

impl TokenText {
    /// The token itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for TokenText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenText(…)")
    }
}

impl MessageId {
    fn read(value: &Value) -> Option<Self> {
        match value {
            Value::Number(number) => number.as_i128().map(Self::Integer),
            Value::String(text) if text.len() <= MESSAGE_ID_BYTES_MAX => {
                Some(Self::Text(text.into()))
            }
            _ => None,
        }
    }
}

/// Why a message was not understood, and whom to answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{complaint}")]
pub struct CommandError {
    /// The message's id, as far as it could be read.
    pub id: Option<MessageId>,
    /// What is wrong.
    pub complaint: Complaint,
}

/// What is wrong with a viewer's message. Always the viewer's fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Complaint {
    /// A `get_project_activity` that cannot be read.
    #[error(transparent)]
    Activity(#[from] ActivityError),
    /// A `get_active_conversations` that cannot be read.
    #[error(transparent)]
    Conversations(#[from] ConversationsError),
    /// `subscribe` with an unreadable `epoch` or `resume`.
    #[error(transparent)]
    Cursor(#[from] CursorError),
    /// `data` is not what this type takes.
    #[error("data is not an object")]
    Data,
    /// An object holds a member twice.
    #[error("a member stands twice in one object")]
    DuplicateMember,
    /// An `id` of another kind.
    #[error("id is neither an integer nor a string of at most {MESSAGE_ID_BYTES_MAX} bytes")]
    Id,
    /// Not JSON, or JSON that is not an object.
    #[error("not a JSON object")]
    NotAnObject,
    /// No `type`, or one that is not a string.
    #[error("type is missing or not a string")]
    NoType,
    /// `ping` with a `timestamp` that cannot be echoed.
    #[error("data.timestamp is neither a string nor a number below 2^64")]
    PingTimestamp,
    /// A `replay` that cannot be read.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// `get_agent_tree` with what cannot be a session.
    #[error("data.sessionId is not a string")]
    SessionId,
    /// `subscribe` without usable `filters`.
    #[error(transparent)]
    SubscribeFilters(FiltersError),
    /// `unsubscribe` with what cannot be a key, or with a key and filters.
    #[error("data.subscriptionKey is not 16 hex digits, or data.filters stands beside it")]
    SubscriptionKey,
    /// `refresh_token` without a token.
    #[error("data.token is missing or not a string")]
    Token,
    /// A type that viewers do not send.
    #[error("unknown message type: {0}")]
    UnknownType(
        /// The type, its first `UNKNOWN_TYPE_CHARS_SHOWN` characters at most.
        CompactString,
    ),
    /// `unsubscribe` with unusable `filters`.
    #[error(transparent)]
    UnsubscribeFilters(FiltersError),
}

/// What is wrong with `data.filters`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FiltersError {
    /// An array of none, or of more than `limits::FILTERS_PER_MESSAGE_MAX`.
    #[error("data.filters holds not 1 to {FILTERS_PER_MESSAGE_MAX} filters")]
    Count,
    /// One filter cannot be read.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// Missing, or something else.
    #[error("data.filters is neither an object nor an array of objects")]
    Kind,
}

impl Complaint {
    /// The code word of the answer.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Cursor(error) => error.code(),
            Self::SubscribeFilters(_) | Self::UnsubscribeFilters(_) => FilterError::CODE,
            Self::UnknownType(_) => "UNKNOWN_MESSAGE_TYPE",
            Self::Activity(_)
            | Self::Conversations(_)
            | Self::Data
            | Self::DuplicateMember
            | Self::Id
            | Self::NoType
            | Self::NotAnObject
            | Self::PingTimestamp
            | Self::Replay(_)
            | Self::SessionId
            | Self::SubscriptionKey
            | Self::Token => "INVALID_MESSAGE",
        }
    }

    fn unknown_type(name: &str) -> Self {
        Self::UnknownType(name.chars().take(UNKNOWN_TYPE_CHARS_SHOWN).collect())
    }
}

impl CommandError {
    /// The answer: `subscription_error` where a `subscribe` was refused, an error otherwise.
    pub fn answer(&self) -> ServerMessage<'_> {
        let (id, code) = (self.id.as_ref(), self.complaint.code());
        let message = Cow::Owned(self.complaint.to_string());
        match self.complaint {
            Complaint::Cursor(_) | Complaint::SubscribeFilters(_) => {
                ServerMessage::SubscriptionError { id, code, message }
            }
            _ => ServerMessage::Error {
                id,
                code,
                message,
                retry_after_ms: None,
            },
        }
    }
}

fn read_agent_tree(data: Option<&Value>) -> Result<Command, Complaint> {
    let session = match data {
        None => None,
        Some(Value::Object(data)) => data.get("sessionId"),
        Some(_) => return Err(Complaint::Data),
    };
    let session = session.map(|session| session.as_str().ok_or(Complaint::SessionId));
    let session = session.transpose()?.map(CompactString::from);
    Ok(Command::AgentTree { session })
}

fn read_ping(data: Option<&Value>) -> Result<Command, Complaint> {
    let echo = match data {
        None => None,
        Some(Value::Object(data)) => data.get("timestamp").cloned(),
        Some(_) => return Err(Complaint::Data),
    };
    match echo {
        Some(Value::Number(number)) if is_rounded(&number) => Err(Complaint::PingTimestamp),
        None | Some(Value::Number(_) | Value::String(_)) => Ok(Command::Ping { echo }),
        Some(_) => Err(Complaint::PingTimestamp),
    }
}

/// Whether a number is an integer that did not fit, and so would come back as another one.
fn is_rounded(number: &Number) -> bool {
    let float = number.as_f64().filter(|_| number.is_f64());
    float.is_some_and(|float| float.abs() >= 2_f64.powi(63))
}

fn read_refresh_token(data: Option<&Value>) -> Result<Command, Complaint> {
    let data = data.and_then(Value::as_object).ok_or(Complaint::Data)?;
    let token = data.get("token").and_then(Value::as_str);
    let token = token.ok_or(Complaint::Token)?;
    Ok(Command::RefreshToken(TokenText(token.into())))
}

/// One filter or an array of them. An empty array asks for nothing and is taken for a mistake:
/// in `unsubscribe` it would otherwise stand close to "all".
fn read_filters(filters: &Value) -> Result<Vec<Filter>, FiltersError> {
    let filters = match filters {
        Value::Array(filters) => filters.as_slice(),
        Value::Object(_) => slice::from_ref(filters),
        _ => return Err(FiltersError::Kind),
    };
    if !(1..=FILTERS_PER_MESSAGE_MAX).contains(&filters.len()) {
        return Err(FiltersError::Count);
    }
    let filters = filters.iter().map(Filter::from_json);
    Ok(filters.collect::<Result<_, _>>()?)
}

/// `epoch` and `resume` of a `subscribe`. The own stream's cursor may be a number too, since that
/// is what it is everywhere else in JSON.
fn read_cursor(data: &Map<String, Value>) -> Result<Option<Cursor>, CursorError> {
    let epoch = match data.get("epoch") {
        None => None,
        Some(Value::String(epoch)) => Some(epoch.as_str()),
        Some(_) => return Err(CursorError::Epoch),
    };
    match data.get("resume") {
        None => Cursor::parse(epoch, None),
        Some(Value::String(resume)) => Cursor::parse(epoch, Some(resume)),
        Some(Value::Number(seq)) => Cursor::parse(epoch, Some(&seq.to_string())),
        Some(_) => Err(CursorError::Stream),
    }
}

/// How much of an unknown type the answer repeats.
const UNKNOWN_TYPE_CHARS_SHOWN: usize = 32;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::dialect::{StreamName, encode_message};
    use crate::event::{Dialect, Epoch, Seq};

    fn check(text: &str, expected: Command) {
        assert_eq!(
            Command::parse(text.as_bytes()),
            Ok((expected, None)),
            "{text}"
        );
    }

    /// Checks what a refused message is answered: the name, the code, and the id as JSON.
    fn check_refused(text: &str, name: &str, code: &str, id: &Value) {
        let error = Command::parse(text.as_bytes()).unwrap_err();
        let mut out = Vec::new();
        encode_message(Dialect::Observatory, &error.answer(), 0, &mut out);
        let answer: Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(answer["type"], name, "{text}");
        assert_eq!(answer["data"]["code"], code, "{text}");
        assert_eq!(&answer["data"]["id"], id, "{text}");
        assert!(!answer["data"]["message"].as_str().unwrap().is_empty());
    }

    fn filter(value: &Value) -> Filter {
        Filter::from_json(value).unwrap()
    }

    fn subscribe(filters: Vec<Filter>, is_array: bool, cursor: Option<Cursor>) -> Command {
        Command::Subscribe(Subscribe {
            filters,
            is_array,
            cursor,
        })
    }

    #[test]
    fn subscribe_takes_one_filter_or_several() {
        let tools = filter(&json!({"toolNames": ["Bash"]}));
        check(
            r#"{"type":"subscribe","data":{"filters":{},"clientInfo":{"name":"x"}}}"#,
            subscribe(vec![Filter::default()], false, None),
        );
        check(
            r#"{"data":{"filters":[{"toolNames":["Bash"]},{}]},"type":"subscribe","x":[1]}"#,
            subscribe(vec![tools, Filter::default()], true, None),
        );
        let many = format!(
            r#"{{"type":"subscribe","data":{{"filters":[{}{{}}]}}}}"#,
            "{},".repeat(49)
        );
        check(&many, subscribe(vec![Filter::default(); 50], true, None));
    }

    #[test]
    fn subscribe_takes_a_cursor_as_the_query_does() {
        let check_cursor = |members: &str, epoch: Option<Epoch>, own: Option<u64>| {
            let text = format!(r#"{{"type":"subscribe","data":{{"filters":{{}},{members}}}}}"#);
            let cursor = own.map(|seq| {
                let mut cursor = Cursor::new(epoch);
                cursor.insert(StreamName::Own, Seq(seq));
                cursor
            });
            check(&text, subscribe(vec![Filter::default()], false, cursor));
        };
        check_cursor(
            r#""epoch":"0000000a","resume":"12""#,
            Some(Epoch(10)),
            Some(12),
        );
        check_cursor(
            r#""epoch":"0000000a","resume":12"#,
            Some(Epoch(10)),
            Some(12),
        );
        check_cursor(r#""resume":"user=0""#, None, Some(0));
        check_cursor(r#""epoch":"0000000a""#, None, None);
    }

    #[test]
    fn unsubscribe_names_all_one_or_those_with_a_filter() {
        let unsubscribe = |data: &str| format!(r#"{{"type":"unsubscribe"{data}}}"#);
        let check = |data, expected| check(&unsubscribe(data), Command::Unsubscribe(expected));
        check("", Unsubscribe::All);
        check(r#","data":{}"#, Unsubscribe::All);
        check(
            r#","data":{"subscriptionKey":"44136fa355b3678a"}"#,
            Unsubscribe::Key(Filter::default().key()),
        );
        check(
            r#","data":{"filters":{}}"#,
            Unsubscribe::Filters(vec![Filter::default()]),
        );
        check(
            r#","data":{"filters":[{"sessionIds":["s"]}]}"#,
            Unsubscribe::Filters(vec![filter(&json!({"sessionIds": ["s"]}))]),
        );
    }

    #[test]
    fn ping_and_refresh_token_are_read() {
        let ping = |echo| Command::Ping { echo };
        check(r#"{"type":"ping"}"#, ping(None));
        check(r#"{"type":"ping","data":{}}"#, ping(None));
        check(
            r#"{"type":"ping","data":{"timestamp":1763805600000}}"#,
            ping(Some(json!(1_763_805_600_000_u64))),
        );
        check(
            r#"{"type":"ping","data":{"timestamp":"t"}}"#,
            ping(Some(json!("t"))),
        );
        check(
            r#"{"type":"refresh_token","data":{"token":"a.b.c"}}"#,
            Command::RefreshToken(TokenText("a.b.c".into())),
        );
    }

    #[test]
    fn get_agent_tree_is_read() {
        let trees = |session: Option<&str>| Command::AgentTree {
            session: session.map(CompactString::from),
        };
        check(r#"{"type":"get_agent_tree"}"#, trees(None));
        check(r#"{"type":"get_agent_tree","data":{}}"#, trees(None));
        check(
            r#"{"type":"get_agent_tree","data":{"sessionId":"s-1"}}"#,
            trees(Some("s-1")),
        );
    }

    #[test]
    fn replay_is_read() {
        let replay = Replay {
            stream: None,
            from: Seq(1),
            to: Some(Seq(2)),
            limit: 5,
        };
        check(
            r#"{"type":"replay","data":{"from":1,"to":2,"limit":5}}"#,
            Command::Replay(replay),
        );
    }

    #[test]
    fn questions_are_read() {
        check(
            r#"{"type":"get_active_conversations"}"#,
            Command::Conversations(ConversationsQuestion {
                project: None,
                limit: 100,
            }),
        );
        check(
            r#"{"type":"get_project_activity","data":{"projectId":7}}"#,
            Command::Activity(ActivityQuestion {
                project: "7".into(),
                range: None,
            }),
        );
        let asked = r#"{"type":"get_project_activity","id":5}"#;
        check_refused(asked, "error", "INVALID_MESSAGE", &json!(5));
        let asked = r#"{"type":"get_active_conversations","id":5,"data":[]}"#;
        check_refused(asked, "error", "INVALID_MESSAGE", &json!(5));
    }

    #[test]
    fn a_token_is_never_shown() {
        let text = br#"{"type":"refresh_token","data":{"token":"SECRET"}}"#;
        let command = Command::parse(text).unwrap();
        assert!(!format!("{command:?}").contains("SECRET"));
        let Command::RefreshToken(token) = command.0 else {
            panic!("another command");
        };
        assert_eq!(token.as_str(), "SECRET");
    }

    #[test]
    fn an_id_is_a_short_string_or_an_integer() {
        let check_id = |id: &str, expected: Option<MessageId>| {
            let text = format!(r#"{{"type":"ping","id":{id}}}"#);
            let read = Command::parse(text.as_bytes());
            match expected {
                Some(expected) => assert_eq!(read.unwrap().1, Some(expected)),
                None => check_refused(&text, "error", "INVALID_MESSAGE", &Value::Null),
            }
        };
        let longest = "é".repeat(MESSAGE_ID_BYTES_MAX / 2);
        check_id(r#""a""#, Some(MessageId::Text("a".into())));
        check_id(r#""""#, Some(MessageId::Text("".into())));
        check_id(
            &format!(r#""{longest}""#),
            Some(MessageId::Text(longest.as_str().into())),
        );
        check_id("-7", Some(MessageId::Integer(-7)));
        check_id(
            "18446744073709551615",
            Some(MessageId::Integer(u64::MAX.into())),
        );
        for id in [
            "18446744073709551616",
            "1.5",
            "1.0",
            "null",
            "true",
            "[]",
            "{}",
        ] {
            check_id(id, None);
        }
        check_id(&format!(r#""{longest}x""#), None);
    }

    #[test]
    fn what_is_no_message_is_refused() {
        let check = |text, id: Value| check_refused(text, "error", "INVALID_MESSAGE", &id);
        for text in [
            "",
            "x",
            "{",
            "[]",
            "1",
            "\"ping\"",
            "null",
            r#"{"type":"ping"} {}"#,
        ] {
            check(text, Value::Null);
        }
        check(r#"{"id":1}"#, json!(1));
        check(r#"{"id":"a","type":7}"#, json!("a"));
        check(r#"{"event_type":"ping","id":1}"#, json!(1));
        check(r#"{"id":1,"type":"ping","type":"ping"}"#, json!(1));
        check(
            r#"{"id":1,"type":"subscribe","data":{"filters":{},"filters":{}}}"#,
            json!(1),
        );
        check(r#"{"id":1,"type":"ping","data":[]}"#, json!(1));
        check(
            r#"{"id":1,"type":"ping","data":{"timestamp":{}}}"#,
            json!(1),
        );
        check(
            r#"{"id":1,"type":"ping","data":{"timestamp":null}}"#,
            json!(1),
        );
        check(r#"{"id":1,"type":"replay"}"#, json!(1));
        check(r#"{"id":1,"type":"replay","data":{"from":-1}}"#, json!(1));
        // It would come back as another number.
        check(
            r#"{"id":1,"type":"ping","data":{"timestamp":18446744073709551616}}"#,
            json!(1),
        );
        check(r#"{"id":1,"type":"get_agent_tree","data":[]}"#, json!(1));
        check(
            r#"{"id":1,"type":"get_agent_tree","data":{"sessionId":7}}"#,
            json!(1),
        );
        check(r#"{"id":1,"type":"refresh_token"}"#, json!(1));
        check(
            r#"{"id":1,"type":"refresh_token","data":{"token":7}}"#,
            json!(1),
        );
        check(r#"{"id":1,"type":"unsubscribe","data":null}"#, json!(1));
        check(
            r#"{"id":1,"type":"unsubscribe","data":{"subscriptionKey":"x"}}"#,
            json!(1),
        );
        check(
            r#"{"id":1,"type":"unsubscribe","data":{"subscriptionKey":null}}"#,
            json!(1),
        );
        check(
            r#"{"id":1,"type":"unsubscribe","data":{"subscriptionKey":"44136fa355b3678a","filters":{}}}"#,
            json!(1),
        );
    }

    #[test]
    fn other_types_are_unknown() {
        for name in ["get_agent_trees", "replays", "PING", "", "pong"] {
            let text = format!(r#"{{"type":"{name}","id":5}}"#);
            check_refused(&text, "error", "UNKNOWN_MESSAGE_TYPE", &json!(5));
        }
        let long = format!(r#"{{"type":"{}"}}"#, "é".repeat(1_000));
        let error = Command::parse(long.as_bytes()).unwrap_err();
        assert_eq!(
            error.complaint,
            Complaint::UnknownType("é".repeat(32).into())
        );
    }

    #[test]
    fn a_refused_subscribe_has_its_own_answer() {
        let too_many = format!("[{}{{}}]", "{},".repeat(FILTERS_PER_MESSAGE_MAX));
        for filters in [
            "null",
            "7",
            "\"\"",
            "[]",
            "[{},7]",
            r#"{"x":[]}"#,
            &too_many,
        ] {
            let text = format!(r#"{{"type":"subscribe","id":5,"data":{{"filters":{filters}}}}}"#);
            check_refused(&text, "subscription_error", "INVALID_FILTERS", &json!(5));
            let text = format!(r#"{{"type":"unsubscribe","id":5,"data":{{"filters":{filters}}}}}"#);
            check_refused(&text, "error", "INVALID_FILTERS", &json!(5));
        }
        for data in ["", r#","data":7"#, r#","data":{}"#] {
            let text = format!(r#"{{"type":"subscribe","id":5{data}}}"#);
            check_refused(&text, "subscription_error", "INVALID_FILTERS", &json!(5));
        }
        for cursor in [
            r#""resume":"x""#,
            r#""resume":-1"#,
            r#""resume":1.5"#,
            r#""resume":null"#,
            r#""epoch":"x""#,
            r#""epoch":1"#,
        ] {
            let text =
                format!(r#"{{"type":"subscribe","id":5,"data":{{"filters":{{}},{cursor}}}}}"#);
            check_refused(&text, "subscription_error", "INVALID_CURSOR", &json!(5));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in any::<Vec<u8>>()) {
            let _ = Command::parse(&bytes);
        }

        #[test]
        fn any_message_is_read_or_gets_its_id_back(
            name in "get_active_conversations|get_agent_tree|get_project_activity|ping|replay|subscribe|unsubscribe|refresh_token|[a-z]{0,8}",
            key in "filters|from|limit|projectId|resume|epoch|sessionId|timeRange|timestamp|token|subscriptionKey|[a-z]{0,3}",
            value in r#"\{\}|\[\]|\[\{\}\]|null|-?[1-9][0-9]{0,17}|"[0-9a-f]{0,16}"|true"#,
            id in any::<i64>(),
        ) {
            let text = format!(r#"{{"id":{id},"type":"{name}","data":{{"{key}":{value}}}}}"#);
            let id = Some(MessageId::Integer(id.into()));
            match Command::parse(text.as_bytes()) {
                Ok((_, read)) => prop_assert_eq!(read, id),
                Err(error) => prop_assert_eq!(error.id, id),
            }
        }
    }
}
