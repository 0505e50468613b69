//! What a viewer says at random.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use sightline::auth::Permission;

use super::cursor;
use crate::events::FilterSpec;
use crate::scenario::EPOCH;
use crate::viewer::{Command, Doomed};
use crate::world::World;

impl World {
    pub(super) fn command(&mut self) {
        let open = (0..self.viewers.len()).filter(|index| {
            let viewer = &self.viewers[*index];
            viewer.close.is_none() && !viewer.is_oracle
        });
        let open: Vec<usize> = open.collect();
        if open.is_empty() {
            return;
        }
        let index = self.dice.pick(&open);
        let (name, data, command) = match self.dice.below(100) {
            0..15 => {
                let echo = match self.dice.below(4) {
                    0 => json!(self.dice.below(99)),
                    1 => json!("é\u{1}"),
                    _ => json!("x".repeat(8_000)),
                };
                ("ping", json!({"timestamp": echo}), Command::Ping(echo))
            }
            15..55 => self.subscribe(index),
            55..75 => self.unsubscribe(index),
            75..92 => self.refresh(index),
            92..96 => ("dance", json!({}), Command::Refused("UNKNOWN_MESSAGE_TYPE")),
            _ => {
                let viewer = &mut self.viewers[index];
                viewer.garbage += 1;
                return viewer.say_text(self.links.get(viewer.link), b"{\"type\":");
            }
        };
        let viewer = &mut self.viewers[index];
        viewer.say(self.links.get(viewer.link), name, &data, command);
    }

    fn subscribe(&mut self, index: usize) -> (&'static str, Value, Command) {
        if self.dice.chance(5) {
            return (
                "subscribe",
                json!({"filters": {"eventTypes": 5}}),
                Command::Refused("INVALID_FILTERS"),
            );
        }
        let mut projects = self.viewers[index].projects().to_vec();
        if self.dice.chance(8) {
            projects.push("9".to_owned());
        }
        projects.sort();
        projects.dedup();
        let is_list = self.dice.chance(40);
        let count = if is_list { self.dice.between(1, 3) } else { 1 };
        let filters: Vec<FilterSpec> = (0..count)
            .map(|_| FilterSpec::random(&mut self.dice, &projects))
            .collect();
        let shown: Vec<Value> = filters.iter().map(FilterSpec::to_value).collect();
        let mut data = json!({"filters": if is_list { json!(shown) } else { shown[0].clone() }});
        let user = self.viewers[index].user;
        let cursors = match self.dice.below(8) {
            0 => self.some_cursors(),
            1..3 => self.places_of(user),
            _ => BTreeMap::new(),
        };
        if let Some(cursor) = cursor(&cursors) {
            data["epoch"] = json!(EPOCH.to_string());
            data["resume"] = json!(cursor.to_string());
        }
        (
            "subscribe",
            data,
            Command::Subscribe {
                filters,
                is_list,
                cursors,
            },
        )
    }

    fn unsubscribe(&mut self, index: usize) -> (&'static str, Value, Command) {
        let keys = self.viewers[index].keys();
        let (data, doomed) = match self.dice.below(10) {
            0 => (json!({}), Doomed::All),
            1..5 => {
                let filter = FilterSpec::random(&mut self.dice, self.viewers[index].projects());
                (
                    json!({"filters": filter.to_value()}),
                    Doomed::Filter(filter),
                )
            }
            // Unknown where nothing was shown yet.
            _ if keys.iter().all(String::is_empty) => {
                let key = "0123456789abcdef".to_owned();
                (json!({"subscriptionKey": key}), Doomed::Key(key))
            }
            _ => {
                let key = self.dice.pick(&keys);
                (json!({"subscriptionKey": key}), Doomed::Key(key))
            }
        };
        ("unsubscribe", data, Command::Unsubscribe(doomed))
    }

    fn refresh(&mut self, index: usize) -> (&'static str, Value, Command) {
        let user = self.viewers[index].user;
        let projects = self.some_projects();
        let jti = format!("jti-{}", self.dice.bits());
        let see = [Permission::Subscribe];
        let (token, command) = match self.dice.below(20) {
            0 => ("a.b.c".to_owned(), Command::Refused("TOKEN_INVALID")),
            1 => (
                self.token("eve", &projects, &see, 60, &jti),
                Command::Refused("TOKEN_SUBJECT"),
            ),
            2 => (
                self.token(user, &projects, &[Permission::Publish], 60, &jti),
                Command::Refused("FORBIDDEN"),
            ),
            _ => {
                let token = self.token(user, &projects, &see, 3_600, &jti);
                self.viewers[index].jti = jti;
                (token, Command::Refresh { projects })
            }
        };
        ("refresh_token", json!({"token": token}), command)
    }
}
