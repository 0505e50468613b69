//! What a publisher has in a body, at random.

use crate::events::{DRIFTERS, EventSpec, PROJECTS, USERS};
use crate::publisher::{Expected, Item, Scope};
use crate::world::World;

const BAD_EVENTS: [(&str, &str); 6] = [
    ("{\"event_type\":7,\"user_id\":\"ada\"}", "INVALID_FIELD"),
    (
        "{\"event_type\":\"pong\",\"user_id\":\"ada\"}",
        "RESERVED_TYPE",
    ),
    ("{\"event_type\":\"a\"}", "NO_AUDIENCE"),
    (
        "{\"type\":\"a\",\"event_type\":\"a\",\"user_id\":\"ada\"}",
        "DUPLICATE_FIELD",
    ),
    (
        "{\"event_type\":\"a\",\"userId\":null,\"project_id\":7}",
        "INVALID_FIELD",
    ),
    ("5", "INVALID_FIELD"),
];

impl World {
    // A body: some events, or what stands where they should.
    pub(super) fn some_items(&mut self, scope: &Scope) -> (Vec<Item>, bool) {
        if self.dice.chance(4) {
            let text = "[{\"event_type\":\"a\",\"user_id\":\"ada\"},{]".to_owned();
            return (
                vec![Item {
                    text,
                    expected: Expected::Bad("INVALID_JSON"),
                    was_accepted: false,
                }],
                false,
            );
        }
        let count = if self.dice.chance(60) {
            1
        } else {
            self.dice.between(1, 12)
        };
        let mut items: Vec<Item> = (0..count).map(|_| self.some_item(scope)).collect();
        if self.dice.chance(2) {
            // More than is parsed in one turn.
            items[0].text.insert_str(0, &" ".repeat(70_000));
        }
        let is_array = count > 1 || self.dice.chance(30);
        (items, is_array)
    }

    fn some_item(&mut self, scope: &Scope) -> Item {
        match self.dice.below(100) {
            0..7 => {
                let (text, code) = self.dice.pick(&BAD_EVENTS);
                Item {
                    text: text.to_owned(),
                    expected: Expected::Bad(code),
                    was_accepted: false,
                }
            }
            7..14 if !scope.is_any => {
                let mut event = EventSpec::random(&mut self.dice, 0, &["nobody"], &["7"]);
                event.user = Some("nobody");
                Item {
                    text: event.to_json(&mut self.dice),
                    expected: Expected::Forbidden,
                    was_accepted: false,
                }
            }
            14..26 => self
                .repeated_item(scope)
                .unwrap_or_else(|| self.new_item(scope)),
            _ => self.new_item(scope),
        }
    }

    fn new_item(&mut self, scope: &Scope) -> Item {
        let uid = self.events.len() as u64 + 1;
        let projects: Vec<&'static str> = match scope.is_any {
            true => PROJECTS.to_vec(),
            false => PROJECTS
                .into_iter()
                .filter(|id| scope.projects.iter().any(|own| own == id))
                .collect(),
        };
        let users = match scope.is_any {
            true if self.dice.chance(20) => DRIFTERS.to_vec(),
            true => USERS.to_vec(),
            false => vec![scope.sub],
        };
        let mut event = EventSpec::random(&mut self.dice, uid, &users, &projects);
        event.publisher = scope.sub;
        let text = event.to_json(&mut self.dice);
        self.events.insert(uid, event);
        Item {
            text,
            expected: Expected::Good(uid),
            was_accepted: false,
        }
    }

    // An event that the same user has sent before, under its id.
    fn repeated_item(&mut self, scope: &Scope) -> Option<Item> {
        let recent = self.events.values().rev().take(40);
        let allowed = recent.filter(|event| {
            let is_in_scope = event.user.is_none_or(|user| user == scope.sub)
                && event
                    .project
                    .is_none_or(|project| scope.projects.iter().any(|own| own == project));
            event.event_id.is_some()
                && event.publisher == scope.sub
                && (scope.is_any || is_in_scope)
        });
        let allowed: Vec<EventSpec> = allowed.cloned().collect();
        if allowed.is_empty() {
            return None;
        }
        let event = self.dice.pick(&allowed);
        Some(Item {
            text: event.to_json(&mut self.dice),
            expected: Expected::Good(event.uid),
            was_accepted: self.fates.of(event.uid).accepted > 0,
        })
    }
}
