//! The conversations of one stream: what was said in each, and which of them go on.
//!
//! Built from `conversation_started`, `message_added`, `conversation_ended`, and `tool_execution`, which
//! counts for the conversation of its session that was heard of last, or for the first one that comes.
//! Where a session holds one conversation, its events lead to the same state in whatever order they
//! arrive. A conversation goes on until its end, by the events' times; one in which something is said
//! later than that goes on again. Silence is counted from arrival: what happened long ago and is told
//! now is no silence. Bounded; what is over goes first, then what was silent for longest. Source:
//! contract section 8; the observatory document's server events.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::Hasher as _;
use std::ops::Bound;

use bytes::Bytes;
use compact_str::{CompactString, format_compact};
use serde::{Deserialize, Serialize, Serializer};
use siphasher::sip128::{Hasher128 as _, SipHasher13};

use crate::event::known::Id;
use crate::event::{Event, Known, KnownType, Seq, time};
use crate::limits::{
    CONVERSATION_ID_BYTES_MAX, CONVERSATIONS_MAX, SESSION_ID_BYTES_MAX, TOKEN_PROJECT_BYTES_MAX,
    TOOL_SESSIONS_WAITING_MAX,
};

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(from = "Kept<Vec<Conversation>, BTreeMap<CompactString, ToolUses>>")]
pub struct Conversations {
    by_id: BTreeMap<CompactString, Conversation>,
    // Whether it goes on, when it was heard of last, its id: what goes first is first.
    by_age: BTreeSet<(bool, Heard, CompactString)>,
    by_session: BTreeSet<(CompactString, Heard, CompactString)>,
    // By session, until a conversation is known of it.
    tool_uses: BTreeMap<CompactString, ToolUses>,
}

/// What of it is kept; the rest follows.
#[derive(Serialize, Deserialize)]
struct Kept<C, T> {
    conversations: C,
    tool_uses: T,
}

impl Conversations {
    /// Whether events of this type say something about conversations.
    pub fn concerns(event_type: KnownType) -> bool {
        event_type == KnownType::ToolExecution || is_of_conversations(event_type)
    }

    /// Takes in an event of the stream, which holds `known` and has the number `seq` there.
    pub fn apply(&mut self, known: &Known<'_>, event: &Event, seq: Seq, received_ms: i64) {
        let heard = Heard {
            received_ms,
            seq: seq.0,
        };
        if let Known::ToolExecution(_) = known {
            self.count_tool_use(event, heard);
        } else if let Some(part) = Part::of(known, event) {
            self.take_part(&part, event, heard);
        }
    }

    /// Those that go on.
    pub fn active(&self) -> impl Iterator<Item = &Conversation> {
        let first = (true, Heard::FIRST, CompactString::default());
        let ids = self.by_age.range(first..).map(|(_, _, id)| id);
        ids.filter_map(|id| self.by_id.get(id))
    }

    /// The one of those that go on that was heard of longest ago, where that was `silence_ms` ago at
    /// `now_ms` at least.
    pub fn silent(&self, now_ms: i64, silence_ms: i64) -> Option<&Conversation> {
        let first = self.active().next()?;
        (first.silent_at_ms(silence_ms) <= now_ms).then_some(first)
    }

    /// When the next one will have been silent for `silence_ms`, as things are.
    pub fn next_silence_ms(&self, silence_ms: i64) -> Option<i64> {
        Some(self.active().next()?.silent_at_ms(silence_ms))
    }

    /// How many there are, those that are over and still remembered included.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether nothing was heard of any, nor of a tool that might be used in one.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty() && self.tool_uses.is_empty()
    }

    fn take_part(&mut self, part: &Part<'_>, event: &Event, heard: Heard) {
        let known = self.remove(part.id);
        let mut conversation = known.unwrap_or_else(|| Conversation::new(part.id));
        conversation.take(part, event, heard);
        if let Some(uses) = conversation
            .session()
            .and_then(|s| self.tool_uses.remove(s))
        {
            conversation.add_tool_uses(&uses);
        }
        self.insert(conversation);
    }

    fn count_tool_use(&mut self, event: &Event, heard: Heard) {
        let Some(session) = &event.session else {
            return;
        };
        let one = ToolUses {
            count: 1,
            last_ms: event.timestamp_ms,
            heard,
        };
        let id = self.last_of(session).cloned();
        let conversation = id.and_then(|id| self.remove(&id));
        let Some(mut conversation) = conversation else {
            return self.keep_tool_use(session, one);
        };
        conversation.add_tool_uses(&one);
        conversation.heard = heard;
        self.insert(conversation);
    }

    fn keep_tool_use(&mut self, session: &CompactString, one: ToolUses) {
        if let Some(uses) = self.tool_uses.get_mut(session) {
            return uses.add(one);
        }
        if self.tool_uses.len() >= TOOL_SESSIONS_WAITING_MAX {
            let oldest = self.tool_uses.iter().min_by_key(|(_, uses)| uses.heard);
            let oldest = oldest.map(|(session, _)| session.clone());
            oldest.and_then(|session| self.tool_uses.remove(&session));
        }
        self.tool_uses.insert(session.clone(), one);
    }

    /// The conversation of this session that was heard of last.
    fn last_of(&self, session: &CompactString) -> Option<&CompactString> {
        let first = (session.clone(), Heard::FIRST, CompactString::default());
        let of_session = (Bound::Included(first), Bound::Unbounded);
        let of_session = self.by_session.range(of_session);
        let of_session = of_session.take_while(|(of, _, _)| of == session);
        of_session.last().map(|(_, _, id)| id)
    }

    fn insert(&mut self, conversation: Conversation) {
        let (id, heard) = (conversation.id.clone(), conversation.heard);
        let is_active = conversation.is_active();
        self.by_age.insert((is_active, heard, id.clone()));
        if let Some(session) = conversation.session() {
            self.by_session.insert((session.into(), heard, id.clone()));
        }
        self.by_id.insert(id, conversation);
        while self.by_id.len() > CONVERSATIONS_MAX {
            let Some((_, _, first)) = self.by_age.first().cloned() else {
                return;
            };
            self.remove(&first);
        }
    }

    fn remove(&mut self, id: &str) -> Option<Conversation> {
        let conversation = self.by_id.remove(id)?;
        let (id, heard) = (conversation.id.clone(), conversation.heard);
        if let Some(session) = conversation.session() {
            let entry = (session.into(), heard, id.clone());
            self.by_session.remove(&entry);
        }
        self.by_age.remove(&(conversation.is_active(), heard, id));
        Some(conversation)
    }
}

impl Serialize for Conversations {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let kept = Kept {
            conversations: self.by_id.values().collect::<Vec<_>>(),
            tool_uses: &self.tool_uses,
        };
        kept.serialize(serializer)
    }
}

impl From<Kept<Vec<Conversation>, BTreeMap<CompactString, ToolUses>>> for Conversations {
    fn from(kept: Kept<Vec<Conversation>, BTreeMap<CompactString, ToolUses>>) -> Self {
        let mut conversations = Self {
            tool_uses: kept.tool_uses,
            ..Self::default()
        };
        for conversation in kept.conversations {
            // One of each, whatever the bytes say.
            conversations.remove(&conversation.id);
            conversations.insert(conversation);
        }
        conversations
    }
}

/// One conversation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Conversation {
    id: CompactString,
    session: Option<Latest>,
    // Whom its events were for.
    user: Option<Latest>,
    project: Option<Latest>,
    // The project that they name beside that.
    about: Option<Latest>,
    // The earliest beginning that was told.
    started_ms: Option<i64>,
    // Of what was said and told, by the events' times: the first and the last.
    first_ms: i64,
    said_ms: i64,
    // The same with the uses of tools.
    last_ms: i64,
    ended_ms: Option<i64>,
    message_count: u64,
    tool_usage_count: u64,
    heard: Heard,
}

impl Conversation {
    fn new(id: &str) -> Self {
        Self {
            id: id.into(),
            session: None,
            user: None,
            project: None,
            about: None,
            started_ms: None,
            first_ms: time::MS_MAX,
            said_ms: time::MS_MIN,
            last_ms: time::MS_MIN,
            ended_ms: None,
            message_count: 0,
            tool_usage_count: 0,
            heard: Heard::FIRST,
        }
    }

    /// The producer's name for it, at most `CONVERSATION_ID_BYTES_MAX` bytes.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The session that it is held in.
    pub fn session(&self) -> Option<&str> {
        self.session.as_ref().map(|latest| &*latest.value)
    }

    /// The project that it is about, as text: whom its events were for says more than what they say.
    pub fn project(&self) -> Option<&str> {
        let project = self.project.as_ref().or(self.about.as_ref());
        project.map(|latest| &*latest.value)
    }

    /// When it began, in milliseconds since the Unix epoch.
    pub fn start_ms(&self) -> i64 {
        self.started_ms.unwrap_or(self.first_ms)
    }

    /// The latest time of what happened in it, in milliseconds since the Unix epoch.
    pub fn last_ms(&self) -> i64 {
        self.last_ms
    }

    /// Messages in it.
    pub fn message_count(&self) -> u64 {
        self.message_count
    }

    /// Uses of tools in its session.
    pub fn tool_usage_count(&self) -> u64 {
        self.tool_usage_count
    }

    /// Whether it goes on.
    pub fn is_active(&self) -> bool {
        let is_over = self.ended_ms.is_some_and(|ended| ended >= self.said_ms);
        !is_over
    }

    /// Whether nothing was heard of it after `before_ms`, by arrival.
    pub fn is_silent_since(&self, before_ms: i64) -> bool {
        self.heard.received_ms <= before_ms
    }

    /// Sorts the newest first.
    pub fn newness(&self) -> impl Ord + use<> {
        Reverse((self.start_ms(), self.last_ms, self.id.clone()))
    }

    /// The `conversation_ended` by which the server tells that it has been silent for `silence_ms`,
    /// for the audiences that its events had. Wherever it is inferred from the same events, it has
    /// the same `event_id`.
    pub fn inferred_end(&self, silence_ms: i64) -> Event {
        let at_ms = self.silent_at_ms(silence_ms).max(self.last_ms);
        let value = |latest: &Option<Latest>| latest.as_ref().map(|latest| latest.value.clone());
        Event {
            event_type: KnownType::ConversationEnded.as_str().into(),
            user: value(&self.user),
            project: value(&self.project),
            session: value(&self.session),
            event_id: Some(self.inferred_id()),
            timestamp_ms: at_ms.clamp(time::MS_MIN, time::MS_MAX),
            data: self.inferred_data(),
            message_type: None,
            tool_name: None,
        }
    }

    // Names the conversation and how far it went, in 40 bytes.
    fn inferred_id(&self) -> CompactString {
        let mut hasher = SipHasher13::new();
        hasher.write(self.id.as_bytes());
        hasher.write_i64(self.last_ms);
        format_compact!("silence-{:032x}", hasher.finish128().as_u128())
    }

    fn inferred_data(&self) -> Bytes {
        let ended = InferredEnd {
            conversation_id: &self.id,
            duration: self.last_ms.saturating_sub(self.start_ms()).max(0),
            message_count: self.message_count,
            tool_usage_count: self.tool_usage_count,
            end_time: self.last_ms,
            inferred: true,
        };
        // Numbers and a string: it cannot fail, and would not be worth a panic.
        serde_json::to_vec(&ended).unwrap_or_default().into()
    }

    fn silent_at_ms(&self, silence_ms: i64) -> i64 {
        self.heard.received_ms.saturating_add(silence_ms)
    }

    fn take(&mut self, part: &Part<'_>, event: &Event, heard: Heard) {
        let at_ms = event.timestamp_ms;
        offer(&mut self.session, at_ms, part.session);
        offer(&mut self.user, at_ms, event.user.as_deref());
        offer(&mut self.project, at_ms, event.project.as_deref());
        offer(&mut self.about, at_ms, part.about.as_deref());
        match part.what {
            What::Ended => self.ended_ms = self.ended_ms.max(Some(at_ms)),
            What::Said => self.message_count = self.message_count.saturating_add(1),
            What::Started { start_ms } => {
                let before = self.started_ms.unwrap_or(start_ms);
                self.started_ms = Some(start_ms.min(before));
            }
        }
        if !matches!(part.what, What::Ended) {
            self.first_ms = self.first_ms.min(at_ms);
            self.said_ms = self.said_ms.max(at_ms);
            self.last_ms = self.last_ms.max(at_ms);
        }
        self.heard = heard;
    }

    fn add_tool_uses(&mut self, uses: &ToolUses) {
        self.tool_usage_count = self.tool_usage_count.saturating_add(uses.count);
        self.last_ms = self.last_ms.max(uses.last_ms);
    }
}

/// The `data` of an end that the server has inferred.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct InferredEnd<'c> {
    conversation_id: &'c str,
    duration: i64,
    message_count: u64,
    tool_usage_count: u64,
    end_time: i64,
    inferred: bool,
}

/// When something was heard, and as what number of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Heard {
    received_ms: i64,
    seq: u64,
}

impl Heard {
    /// Before everything.
    const FIRST: Self = Self {
        received_ms: i64::MIN,
        seq: 0,
    };
}

/// What the latest event that says something of it says; at the same time, the greater.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Latest {
    at_ms: i64,
    value: CompactString,
}

/// Whether events of this type are a conversation's own.
pub fn is_of_conversations(event_type: KnownType) -> bool {
    matches!(
        event_type,
        KnownType::ConversationEnded | KnownType::ConversationStarted | KnownType::MessageAdded
    )
}

fn offer(latest: &mut Option<Latest>, at_ms: i64, value: Option<&str>) {
    let Some(value) = value else { return };
    let is_later = |known: &Latest| (known.at_ms, &*known.value) < (at_ms, value);
    if latest.as_ref().is_none_or(is_later) {
        let value = value.into();
        *latest = Some(Latest { at_ms, value });
    }
}

/// Uses of tools in a session.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct ToolUses {
    count: u64,
    // By the events' times.
    last_ms: i64,
    heard: Heard,
}

impl ToolUses {
    fn add(&mut self, other: Self) {
        self.count = self.count.saturating_add(other.count);
        self.last_ms = self.last_ms.max(other.last_ms);
        self.heard = other.heard;
    }
}

/// What an event says of a conversation.
struct Part<'e> {
    id: &'e str,
    session: Option<&'e str>,
    about: Option<CompactString>,
    what: What,
}

enum What {
    Ended,
    Said,
    Started { start_ms: i64 },
}

impl<'e> Part<'e> {
    fn of(known: &Known<'e>, event: &'e Event) -> Option<Self> {
        let (id, session, about, what) = match known {
            Known::ConversationEnded(ended) => (ended.conversation_id, None, None, What::Ended),
            Known::ConversationStarted(started) => {
                let start_ms = started.start_time.and_then(whole_ms);
                let start_ms = start_ms.unwrap_or(event.timestamp_ms);
                let (session, about) = (started.session_id, started.project_id);
                let what = What::Started { start_ms };
                (started.conversation_id, session, about, what)
            }
            Known::MessageAdded(added) => {
                let about = added.project_info.as_ref().and_then(|info| info.id);
                (added.conversation_id, None, about, What::Said)
            }
            _ => return None,
        };
        let session = session.filter(|session| session.len() <= SESSION_ID_BYTES_MAX);
        Some(Self {
            id: id.filter(|id| id.len() <= CONVERSATION_ID_BYTES_MAX)?,
            session: session.or(event.session.as_deref()),
            about: project_id(about),
            what,
        })
    }
}

fn project_id(id: Option<Id<'_>>) -> Option<CompactString> {
    id.map(|id| id.text())
        .filter(|id| id.len() <= TOKEN_PROJECT_BYTES_MAX)
}

/// A time that a producer wrote as a number, where it is one of the calendar.
fn whole_ms(ms: f64) -> Option<i64> {
    // The cast saturates: what is beyond 64 bits is beyond the calendar as well.
    time::checked_ms(ms as i64)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::event::Parser;

    const SILENCE_MS: i64 = 30 * 60_000;

    /// The conversations of a stream, and what was heard in it.
    struct Listener {
        conversations: Conversations,
        last: Seq,
    }

    impl Listener {
        fn new() -> Self {
            Self {
                conversations: Conversations::default(),
                last: Seq(0),
            }
        }

        fn hear(&mut self, event: &Value, received_ms: i64) {
            let text = event.to_string().into();
            let event = Parser::new().parse(&text, received_ms).unwrap().event;
            self.hear_event(&event, received_ms);
        }

        fn hear_event(&mut self, event: &Event, received_ms: i64) {
            self.last = self.last.next();
            let known = KnownType::find(&event.event_type).unwrap();
            let (seq, conversations) = (self.last, &mut self.conversations);
            Parser::new().with_known(known, &event.data, |known| {
                conversations.apply(known, event, seq, received_ms);
            });
        }

        fn of(events: &[Value]) -> Self {
            let mut heard = Self::new();
            for (received_ms, event) in (0..).zip(events) {
                heard.hear(event, received_ms);
            }
            heard
        }

        /// Id, session, project, start, last, messages, tools, of those that go on.
        fn shown(&self) -> Vec<Value> {
            let mut active: Vec<_> = self.conversations.active().collect();
            active.sort_by_key(|conversation| conversation.newness());
            active.into_iter().map(shown).collect()
        }
    }

    fn shown(c: &Conversation) -> Value {
        json!([
            c.id(),
            c.session(),
            c.project(),
            c.start_ms(),
            c.last_ms(),
            c.message_count(),
            c.tool_usage_count(),
        ])
    }

    fn event(event_type: &str, at_ms: i64, session: &str, data: &Value) -> Value {
        json!({
            "type": event_type, "user_id": "ada", "project_id": 7, "session_id": session,
            "timestamp": at_ms, "data": data,
        })
    }

    fn started(id: &str, at_ms: i64) -> Value {
        let data =
            json!({"conversationId": id, "startTime": at_ms, "sessionId": format!("s-{id}")});
        event("conversation_started", at_ms, &format!("s-{id}"), &data)
    }

    fn said(id: &str, at_ms: i64) -> Value {
        let data = json!({"conversationId": id, "message": {"id": at_ms, "type": "user"}});
        event("message_added", at_ms, &format!("s-{id}"), &data)
    }

    fn used(id: &str, at_ms: i64) -> Value {
        let data = json!({"tool_name": "Read"});
        event("tool_execution", at_ms, &format!("s-{id}"), &data)
    }

    fn ended(id: &str, at_ms: i64) -> Value {
        let data = json!({"conversationId": id});
        event("conversation_ended", at_ms, &format!("s-{id}"), &data)
    }

    #[test]
    fn what_is_said_and_used_is_counted_until_the_end() {
        let mut heard = Listener::of(&[
            started("a", 10),
            said("a", 20),
            used("a", 30),
            said("a", 25),
        ]);
        assert_eq!(heard.shown(), [json!(["a", "s-a", "7", 10, 30, 2, 1])]);
        heard.hear(&started("b", 40), 4);
        assert_eq!(heard.shown()[0][0], "b", "the newest first");
        heard.hear(&ended("a", 50), 5);
        assert_eq!(heard.shown().len(), 1);
        heard.hear(&used("a", 60), 6);
        assert_eq!(heard.shown().len(), 1, "a tool is no word");
        heard.hear(&said("a", 70), 7);
        assert_eq!(heard.shown()[1], json!(["a", "s-a", "7", 10, 70, 3, 2]));
    }

    #[test]
    fn what_nobody_announced_begins_with_its_first_word() {
        let heard = Listener::of(&[said("a", 30), said("a", 20)]);
        assert_eq!(heard.shown(), [json!(["a", "s-a", "7", 20, 30, 2, 0])]);
    }

    #[test]
    fn slips_are_nobodys_conversation() {
        let long = "x".repeat(CONVERSATION_ID_BYTES_MAX + 1);
        let heard = Listener::of(&[
            event("message_added", 1, "s", &json!({"conversationId": long})),
            event("message_added", 1, "s", &json!({"conversationId": 7})),
            event("conversation_started", 1, "s", &json!({})),
            event("conversation_ended", 1, "s", &json!([])),
        ]);
        assert!(heard.conversations.is_empty());
        let data = json!({"conversationId": "c", "startTime": 1e300, "projectId": "x".repeat(65)});
        let text = json!({"type": "conversation_started", "user_id": "ada", "data": data});
        let heard = Listener::of(&[text]);
        let shown = heard.shown();
        assert_eq!(shown, [json!(["c", null, null, 0, 0, 0, 0])]);
    }

    #[test]
    fn silence_is_counted_from_arrival_and_told_once() {
        let mut heard = Listener::new();
        heard.hear(&started("a", 500), 10_000);
        heard.hear(&said("a", 700), 11_000);
        heard.hear(&used("a", 800), 12_000);
        let due_ms = 12_000 + SILENCE_MS;
        let conversations = &heard.conversations;
        assert_eq!(conversations.next_silence_ms(SILENCE_MS), Some(due_ms));
        assert_eq!(conversations.silent(due_ms - 1, SILENCE_MS), None);
        let end = conversations.silent(due_ms, SILENCE_MS).unwrap();
        let end = end.inferred_end(SILENCE_MS);
        let audiences = (end.user.as_deref(), end.project.as_deref());
        assert_eq!(audiences, (Some("ada"), Some("7")));
        assert_eq!(
            (&*end.event_type, end.timestamp_ms),
            ("conversation_ended", due_ms)
        );
        let data: Value = serde_json::from_slice(&end.data).unwrap();
        let expected = json!({
            "conversationId": "a", "duration": 300, "messageCount": 1, "toolUsageCount": 1,
            "endTime": 800, "inferred": true,
        });
        assert_eq!(data, expected);
        heard.hear_event(&end, due_ms);
        assert_eq!(heard.conversations.next_silence_ms(SILENCE_MS), None);
        assert!(heard.shown().is_empty());
    }

    #[test]
    fn a_project_that_is_only_talked_of_is_no_audience() {
        let data = json!({"conversationId": "c", "message": {}, "projectInfo": {"id": 8}});
        let text = json!({"type": "message_added", "user_id": "ada", "data": data});
        let heard = Listener::of(&[text]);
        let conversation = heard.conversations.active().next().unwrap();
        assert_eq!(conversation.project(), Some("8"));
        assert_eq!(conversation.inferred_end(SILENCE_MS).project, None);
    }

    #[test]
    fn an_inferred_end_is_named_by_how_far_the_conversation_went() {
        let id = |events: &[Value]| {
            let heard = Listener::of(events);
            let first = heard.conversations.active().next().unwrap();
            first.inferred_end(SILENCE_MS).event_id.unwrap()
        };
        let (first, second) = (started("a", 1), said("a", 2));
        let whole = id(&[first.clone(), second.clone()]);
        assert_eq!(whole.len(), 40);
        assert_eq!(whole, id(&[second, first.clone()]));
        assert_ne!(whole, id(&[first]));
        assert_ne!(whole, id(&[said("b", 2)]));
    }

    #[test]
    fn an_end_is_told_of_what_is_ahead_of_every_clock() {
        let mut heard = Listener::new();
        heard.hear(&said("a", time::MS_MAX), 0);
        let end = heard.conversations.silent(SILENCE_MS, SILENCE_MS).unwrap();
        let end = end.inferred_end(SILENCE_MS);
        heard.hear_event(&end, SILENCE_MS);
        assert!(heard.shown().is_empty());
    }

    #[test]
    fn past_the_bound_what_is_over_goes_first() {
        let mut heard = Listener::new();
        let max = i64::try_from(CONVERSATIONS_MAX).unwrap();
        for at_ms in 0..max {
            heard.hear(&started(&at_ms.to_string(), at_ms), at_ms);
        }
        heard.hear(&ended("5", max), max);
        heard.hear(&started("x", max), max);
        heard.hear(&started("y", max), max);
        let conversations = &heard.conversations;
        assert_eq!(conversations.len(), CONVERSATIONS_MAX);
        let is_there = |id: &str| conversations.by_id.contains_key(id);
        assert!(!is_there("5") && !is_there("0") && is_there("1") && is_there("y"));
        let indices = (conversations.by_age.len(), conversations.by_session.len());
        assert_eq!(indices, (CONVERSATIONS_MAX, CONVERSATIONS_MAX));
        for session in 0..2 * TOOL_SESSIONS_WAITING_MAX {
            heard.hear(&used(&format!("tool-{session}"), 1), max);
        }
        assert_eq!(
            heard.conversations.tool_uses.len(),
            TOOL_SESSIONS_WAITING_MAX
        );
    }

    fn events() -> impl Strategy<Value = Vec<Value>> {
        let one = (0..4_usize, 0..4_usize).prop_map(|(what, id)| (what, ["a", "b", "c", "d"][id]));
        proptest::collection::vec(one, 0..40).prop_map(|events| {
            let events = (1..).zip(events).map(|(at_ms, (what, id))| match what {
                0 => started(id, at_ms),
                1 => said(id, at_ms),
                2 => used(id, at_ms),
                _ => ended(id, at_ms),
            });
            events.collect()
        })
    }

    proptest! {
        #[test]
        fn the_order_of_arrival_does_not_matter(
            (events, shuffled) in events().prop_flat_map(|events| (Just(events.clone()), Just(events).prop_shuffle()))
        ) {
            prop_assert_eq!(Listener::of(&events).shown(), Listener::of(&shuffled).shown());
        }

        #[test]
        fn what_was_kept_goes_on_as_if_it_had_never_been_away(events in events(), cut in 0..40_usize) {
            let (before, after) = events.split_at(cut.min(events.len()));
            let mut heard = Listener::of(before);
            let text = postcard::to_allocvec(&heard.conversations).unwrap();
            heard.conversations = postcard::from_bytes(&text).unwrap();
            for (received_ms, event) in (before.len()..).zip(after) {
                heard.hear(event, received_ms as i64);
            }
            prop_assert_eq!(heard.conversations, Listener::of(&events).conversations);
        }
    }
}
