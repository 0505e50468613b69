//! What to ask the gateway for, so that the viewer gets what the flags say.
//!
//! Without a filter by project or type the request's query says it all, and the gateway resumes
//! the streams before it sends anything live. Such a filter needs a `subscribe`; a keen connection
//! begins subscribed to its own stream, so that is removed first, and what came until the
//! subscription is confirmed is not part of it.

use form_urlencoded::Serializer;
use serde_json::{Map, Value, json};

use super::position::Position;
use crate::event::Dialect;

/// The wishes of the command line.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) dialect: Dialect,
    pub(crate) all: bool,
    pub(crate) messages: bool,
    pub(crate) projects: Vec<String>,
    pub(crate) sessions: Vec<String>,
    pub(crate) types: Vec<String>,
}

impl Plan {
    /// Path and query of a connection that goes on from `position`.
    pub(crate) fn path_and_query(&self, position: &Position) -> String {
        let mut query = Serializer::new(String::new());
        if !self.messages {
            // A keen connection is otherwise sent trees.
            query.append_pair("tree", "off");
        }
        if !self.needs_subscribe(position) {
            self.append_subscription(&mut query);
            self.append_position(&mut query, position);
        }
        let query = query.finish();
        let question = if query.is_empty() { "" } else { "?" };
        format!("/{}{question}{query}", self.dialect.name())
    }

    /// Whether the subscription is made by messages, after the connection is established.
    pub(crate) fn needs_subscribe(&self, position: &Position) -> bool {
        let is_long = position
            .resume()
            .is_some_and(|text| text.len() > QUERY_CURSOR_BYTES_MAX);
        !self.projects.is_empty() || !self.types.is_empty() || is_long
    }

    /// The messages that make the subscription, in order.
    pub(crate) fn requests(&self, position: &Position) -> Vec<String> {
        let mut data = Map::from_iter([("filters".to_owned(), self.filters())]);
        if let Some(epoch) = position.epoch() {
            data.insert("epoch".to_owned(), epoch.to_string().into());
        }
        if let Some(resume) = position.resume() {
            data.insert("resume".to_owned(), resume.into());
        }
        let mut requests = Vec::new();
        if self.dialect == Dialect::Keen {
            requests.push(json!({"type": "unsubscribe", "data": {}}).to_string());
        }
        requests.push(json!({"type": "subscribe", "data": data}).to_string());
        requests
    }

    fn filters(&self) -> Value {
        json!({
            "projectIds": self.projects,
            "eventTypes": self.types,
            "sessionIds": self.sessions,
        })
    }

    fn append_subscription(&self, query: &mut Serializer<'_, String>) {
        if self.all || self.dialect == Dialect::Observatory {
            query.append_pair("subscribe", "all");
        }
        if !self.sessions.is_empty() {
            query.append_pair("sessions", &self.sessions.join(","));
        }
    }

    fn append_position(&self, query: &mut Serializer<'_, String>, position: &Position) {
        if let Some(resume) = position.resume() {
            if let Some(epoch) = position.epoch() {
                query.append_pair("epoch", &epoch.to_string());
            }
            query.append_pair("resume", &resume);
        }
    }
}

/// A longer cursor goes into a message: a request's head has 8 KiB, and a query is encoded once
/// more.
const QUERY_CURSOR_BYTES_MAX: usize = 2 * 1024;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn plan(dialect: Dialect) -> Plan {
        Plan {
            dialect,
            all: false,
            messages: false,
            projects: Vec::new(),
            sessions: Vec::new(),
            types: Vec::new(),
        }
    }

    #[test]
    fn the_query_says_it_where_it_can() {
        let (none, some) = (
            Position::default(),
            Position::parse(Some("0a1b2c3d"), Some("user=5,project/a%2Cb=6")).unwrap(),
        );
        let keen = plan(Dialect::Keen);
        let narrowed = Plan {
            sessions: vec!["a".into(), "b c".into()],
            all: true,
            messages: true,
            ..keen.clone()
        };
        let cases = [
            (&keen, &none, "/keen?tree=off"),
            (&narrowed, &none, "/keen?subscribe=all&sessions=a%2Cb+c"),
            (
                &plan(Dialect::Observatory),
                &none,
                "/observatory?tree=off&subscribe=all",
            ),
            (
                &keen,
                &some,
                "/keen?tree=off&epoch=0a1b2c3d&resume=user%3D5%2Cproject%2Fa%252Cb%3D6",
            ),
        ];
        for (plan, position, expected) in cases {
            assert_eq!(plan.path_and_query(position), expected);
            assert!(!plan.needs_subscribe(position));
        }
    }

    #[test]
    fn a_filter_by_type_is_a_subscription() {
        let position = Position::parse(Some("0a1b2c3d"), Some("5")).unwrap();
        let plan = Plan {
            types: vec!["git_operation".into()],
            ..plan(Dialect::Keen)
        };
        assert_eq!(plan.path_and_query(&position), "/keen?tree=off");
        let requests: Vec<Value> = plan
            .requests(&position)
            .iter()
            .map(|text| serde_json::from_str(text).unwrap())
            .collect();
        assert_eq!(
            requests,
            [
                json!({"type": "unsubscribe", "data": {}}),
                json!({"type": "subscribe", "data": {
                    "filters": {"projectIds": [], "eventTypes": ["git_operation"], "sessionIds": []},
                    "epoch": "0a1b2c3d", "resume": "user=5",
                }}),
            ]
        );
    }

    #[test]
    fn a_cursor_of_many_streams_goes_into_a_message() {
        let mut position = Position::default();
        (0..500).for_each(|id| position.set(&format!("project/{id}"), 1));
        let plan = plan(Dialect::Observatory);
        assert!(plan.needs_subscribe(&position));
        assert!(plan.path_and_query(&position).len() < 100);
        assert_eq!(plan.requests(&position).len(), 1);
    }
}
