//! Events and filters as the simulated world means them: plain data with its own, naive idea of
//! what matches what, so that the gateway's idea can be compared with it.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use sightline::event::{Dialect, Stream, StreamKind};

use crate::dice::Dice;

pub const USERS: [&str; 5] = ["ada", "bob", "cy", "ghost-1", "ghost \"2\""];
pub const PROJECTS: [&str; 3] = ["7", "p-8", "9"];
/// Users that nobody watches: their streams are forgotten now and then, and others' with them.
pub const DRIFTERS: [&str; 8] = ["d-1", "d-2", "d-3", "d-4", "d-5", "d-6", "d-7", "d-8"];
const TYPES: [&str; 5] = [
    "tool_execution",
    "error",
    "git_operation",
    "agent_spawned",
    "a.b",
];
/// Of these, those to which something is added on its user's own stream.
const ENRICHED: [&str; 2] = ["git_operation", "agent_spawned"];
const SESSIONS: [&str; 2] = ["s-1", "s-2"];
/// Agents that others begin.
const CHILDREN: [&str; 4] = ["s-1", "s-2", "s-3", "s-4"];
const MESSAGE_TYPES: [&str; 2] = ["assistant", "user"];
const TOOLS: [&str; 2] = ["Bash", "Read"];
/// 2026-11-22T10:00:00Z, in milliseconds.
const TIME_MS: i64 = 1_795_341_600_000;

/// One event of the run, under a number that its `data` carries to every viewer.
#[derive(Clone, Debug)]
pub struct EventSpec {
    pub uid: u64,
    /// The `sub` under which it was published.
    pub publisher: &'static str,
    pub event_type: &'static str,
    pub user: Option<&'static str>,
    pub project: Option<&'static str>,
    pub session: Option<&'static str>,
    pub event_id: Option<String>,
    message_type: Option<&'static str>,
    tool: Option<&'static str>,
    data: String,
}

impl EventSpec {
    pub fn random(
        dice: &mut Dice,
        uid: u64,
        users: &[&'static str],
        projects: &[&'static str],
    ) -> Self {
        let (user, project) = audience(dice, users, projects);
        let event_type = dice.pick(&TYPES);
        let message_type = maybe(dice, 40, &MESSAGE_TYPES);
        let tool = maybe(dice, 40, &TOOLS);
        let mut data = format!("{{\"uid\":{uid}");
        if let Some(name) = message_type {
            data.push_str(&format!(", \"message\" : {{\"type\":\"{name}\"}}"));
        }
        if let Some(name) = tool {
            let field = dice.pick(&["tool_name", "toolName"]);
            data.push_str(&format!(",\"{field}\":\"{name}\""));
        }
        if event_type == "agent_spawned" {
            let child = dice.pick(&CHILDREN);
            data.push_str(&format!(",\"child_session\":\"{child}\""));
        }
        if dice.chance(40) {
            let size = if dice.chance(15) {
                dice.between(2_000, 6_000)
            } else {
                dice.between(1, 400)
            };
            data.push_str(&format!(",\"pad\":\"{}\"", "é.".repeat(size as usize / 3)));
        }
        data.push('}');
        Self {
            uid,
            publisher: "",
            event_type,
            user,
            project,
            session: maybe(dice, 50, &SESSIONS),
            event_id: dice.chance(60).then(|| format!("id-{uid}")),
            message_type,
            tool,
            data,
        }
    }

    /// The event as a producer writes it, under one of the spellings that it may use.
    pub fn to_json(&self, dice: &mut Dice) -> String {
        let camel = dice.chance(30);
        let mut fields = vec![
            format!(
                "\"{}\":\"{}\"",
                if camel { "type" } else { "event_type" },
                self.event_type
            ),
            format!("\"timestamp\":{}", self.timestamp_ms()),
            format!("\"data\":{}", self.data),
        ];
        let mut push = |snake: &str, camels: &str, value: Option<String>| {
            let name = if camel { camels } else { snake };
            fields.extend(value.map(|value| format!("\"{name}\":{value}")));
        };
        push("user_id", "userId", self.user.map(quoted));
        let project = |id: &str| {
            if id == "7" || id == "9" {
                id.to_owned()
            } else {
                quoted(id)
            }
        };
        push("project_id", "projectId", self.project.map(project));
        push("session_id", "sessionId", self.session.map(quoted));
        push("event_id", "event_id", self.event_id.as_deref().map(quoted));
        dice.shuffle(&mut fields);
        format!("{{{}}}", fields.join(","))
    }

    /// The streams that it belongs to.
    pub fn streams(&self) -> Vec<Stream> {
        let user = self.user.map(Stream::user);
        user.into_iter()
            .chain(self.project.map(Stream::project))
            .collect()
    }

    /// Whether a viewer's envelope says exactly this event, and nothing else.
    pub fn is_told_by(&self, envelope: &Envelope<'_>, dialect: Dialect) -> bool {
        let (name, time) = match dialect {
            Dialect::Keen => (self.event_type, quoted(&self.time_text())),
            Dialect::Observatory if self.event_type == "error" => {
                ("agent_error", self.timestamp_ms().to_string())
            }
            Dialect::Observatory => (self.event_type, self.timestamp_ms().to_string()),
        };
        envelope.name == name
            && envelope.timestamp.get() == time
            && envelope.session_id.as_deref() == self.session
            && envelope.event_id == self.event_id
            && self.is_told_by_data(envelope)
    }

    // What is added stands behind all else, and only for the event's own user.
    fn is_told_by_data(&self, envelope: &Envelope<'_>) -> bool {
        let told = envelope.data.get();
        let is_own = envelope.stream.as_deref().is_none_or(|name| name == "user");
        if !is_own || !ENRICHED.contains(&self.event_type) {
            return told == self.data;
        }
        let rest = self
            .data
            .strip_suffix('}')
            .and_then(|start| told.strip_prefix(start));
        rest.is_some_and(|added| added.starts_with(",\""))
    }

    fn timestamp_ms(&self) -> i64 {
        TIME_MS + (self.uid % 60_000) as i64
    }

    fn time_text(&self) -> String {
        let ms = self.uid % 60_000;
        format!("2026-11-22T10:00:{:02}.{:03}Z", ms / 1_000, ms % 1_000)
    }
}

/// An envelope of either dialect. That no other member is known is the point: a `user_id` in it
/// does not get through.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Envelope<'a> {
    #[serde(alias = "type", alias = "event_type")]
    pub name: String,
    #[serde(borrow)]
    pub timestamp: &'a RawValue,
    pub seq: Option<u64>,
    pub stream: Option<String>,
    pub session_id: Option<String>,
    pub event_id: Option<String>,
    #[serde(borrow)]
    pub data: &'a RawValue,
}

impl<'a> Envelope<'a> {
    pub fn parse(text: &'a [u8], dialect: Dialect) -> Result<Self, String> {
        let head: &[u8] = match dialect {
            Dialect::Keen => b"{\"event_type\":",
            Dialect::Observatory => b"{\"type\":",
        };
        let shown = || String::from_utf8_lossy(&text[..text.len().min(300)]).into_owned();
        if !text.starts_with(head) {
            return Err(format!("not {dialect:?}: {}", shown()));
        }
        serde_json::from_slice(text).map_err(|error| format!("{error} in {}", shown()))
    }

    /// The number that an event's data carries.
    pub fn uid(&self) -> Option<u64> {
        let rest = self.data.get().strip_prefix("{\"uid\":")?;
        let end = rest.find(|c: char| !c.is_ascii_digit())?;
        rest[..end].parse().ok()
    }
}

/// All events of a run, by number.
pub type Events = BTreeMap<u64, EventSpec>;

/// What a subscription asks for. Values are sorted, each once, as the gateway shows them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FilterSpec {
    pub projects: Vec<String>,
    pub types: Vec<String>,
    pub sessions: Vec<String>,
    pub messages: Vec<String>,
    pub tools: Vec<String>,
}

impl FilterSpec {
    pub fn random(dice: &mut Dice, projects: &[String]) -> Self {
        let mut filter = Self::default();
        if dice.chance(30) {
            return filter;
        }
        if dice.chance(40) {
            filter.projects = dice.some_of(projects, 60);
        }
        if dice.chance(40) {
            filter.types = texts(dice, &TYPES);
        }
        if dice.chance(25) {
            filter.sessions = texts(dice, &SESSIONS);
        }
        if dice.chance(15) {
            filter.messages = texts(dice, &MESSAGE_TYPES);
        }
        if dice.chance(15) {
            filter.tools = texts(dice, &TOOLS);
        }
        filter.projects.sort();
        filter.types.sort();
        filter
    }

    pub fn of_sessions(sessions: &[String]) -> Self {
        Self {
            sessions: sessions.to_vec(),
            ..Self::default()
        }
    }

    /// As the gateway shows it: what is empty is absent.
    pub fn to_value(&self) -> Value {
        let mut object = serde_json::Map::new();
        for (name, values) in [
            ("projectIds", &self.projects),
            ("eventTypes", &self.types),
            ("sessionIds", &self.sessions),
            ("messageTypes", &self.messages),
            ("toolNames", &self.tools),
        ] {
            if !values.is_empty() {
                object.insert(name.into(), values.clone().into());
            }
        }
        object.into()
    }

    pub fn reaches_project(&self, project: &str) -> bool {
        self.projects.is_empty() || self.projects.iter().any(|id| id == project)
    }

    pub fn matches(&self, event: &EventSpec) -> bool {
        let lets = |wanted: &[String], found: Option<&str>| {
            wanted.is_empty() || found.is_some_and(|found| wanted.iter().any(|one| one == found))
        };
        lets(&self.projects, event.project)
            && lets(&self.types, Some(event.event_type))
            && lets(&self.sessions, event.session)
            && lets(&self.messages, event.message_type)
            && lets(&self.tools, event.tool)
    }
}

/// The full name of a stream that a viewer of `user` calls `name`.
pub fn stream_of(name: &str, user: &str) -> Option<Stream> {
    match name.strip_prefix("project/") {
        Some(id) => Some(Stream::project(id)),
        None => (name == "user").then(|| Stream::user(user)),
    }
}

/// The name of a stream towards its viewers.
pub fn name_of(stream: &Stream) -> String {
    match stream.kind {
        StreamKind::Project => format!("project/{}", stream.id),
        StreamKind::User => "user".to_owned(),
    }
}

pub fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("a string is JSON")
}

fn audience(
    dice: &mut Dice,
    users: &[&'static str],
    projects: &[&'static str],
) -> (Option<&'static str>, Option<&'static str>) {
    let has_user = projects.is_empty() || dice.chance(65);
    let has_project = !projects.is_empty() && (!has_user || dice.chance(50));
    let user = has_user.then(|| dice.pick(users));
    (user, has_project.then(|| dice.pick(projects)))
}

fn maybe(dice: &mut Dice, percent: u64, choices: &[&'static str]) -> Option<&'static str> {
    dice.chance(percent).then(|| dice.pick(choices))
}

fn texts(dice: &mut Dice, choices: &[&str]) -> Vec<String> {
    dice.some_of(choices, 55)
        .into_iter()
        .map(str::to_owned)
        .collect()
}
