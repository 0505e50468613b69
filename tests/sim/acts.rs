//! What clients and administrators do at random.

use std::collections::BTreeMap;
use std::rc::Rc;

use bytes::Bytes;
use serde_json::{Value, json};
use sightline::auth::{
    Claims, MintOptions, Permission, Revocation, Target as RevocationTarget, TokenError, mint,
};
use sightline::dialect::{ConnectQuery, Cursor, SubscribeScope};
use sightline::event::{BodyKind, Dialect, StreamKind};
use sightline::hub::ViewerRequest;
use sightline::hub::frames::Variant;
use sightline::hub::keyed::Key;
use sightline::hub::mail::{Ack, Ask, Target};
use sightline::hub::peers::Arrival as Newcomer;
use sightline::wire::frame::{Control, OpCode};

use crate::core::Arrival;
use crate::events::{DRIFTERS, EventSpec, FilterSpec, PROJECTS, USERS};
use crate::network::LinkId;
use crate::publisher::{Expected, Item, Publisher, Scope};
use crate::scenario::EPOCH;
use crate::viewer::{Command, Doomed, Habits, RESPONSE, Viewer, Wishes, send_frame};
use crate::world::World;

/// Users with an oracle on their stream. `WATCHER` sees all projects, and no event is its own.
const WATCHED: [&str; 3] = ["ada", "bob", "cy"];
const WATCHER: &str = "watcher";

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
    pub fn connect_oracles(&mut self) {
        let mut wishes = Wishes {
            is_to_all: true,
            ..Wishes::default()
        };
        for user in WATCHED {
            self.connect_viewer(user, Dialect::Observatory, &wishes, true);
        }
        wishes.projects = PROJECTS.map(str::to_owned).to_vec();
        self.connect_viewer(WATCHER, Dialect::Keen, &wishes, true);
    }

    /// One random act of one client.
    pub fn act(&mut self) {
        match self.dice.below(100) {
            0..30 => self.publish(),
            30..46 => self.post_events(),
            46..49 => self.abandon_post(),
            49..57 => self.connect_anybody(),
            57..61 => self.connect_publisher(),
            61..85 => self.command(),
            85..93 => self.change_habits(),
            93..97 => self.disconnect(),
            _ => self.administrate(),
        }
    }

    fn connect_anybody(&mut self) {
        let user = self.dice.pick(&USERS);
        let dialect = self.dice.pick(&Dialect::ALL);
        let mut wishes = Wishes {
            projects: self.some_projects(),
            is_to_all: self.dice.chance(40),
            takes_deflated: self.dice.chance(40),
            ..Wishes::default()
        };
        if self.dice.chance(20) {
            wishes.sessions = vec!["s-1".to_owned()];
        }
        match self.dice.below(10) {
            0..2 => wishes.cursors = self.some_cursors(),
            2..7 => wishes.cursors = self.places_of(user),
            _ => {}
        }
        self.connect_viewer(user, dialect, &wishes, false);
    }

    fn connect_viewer(
        &mut self,
        user: &'static str,
        dialect: Dialect,
        wishes: &Wishes,
        is_oracle: bool,
    ) {
        let is_short = !is_oracle && self.dice.chance(15);
        let ttl_s = if is_short {
            self.dice.between(0, 2)
        } else {
            3_600
        };
        let jti = format!("jti-{}", self.dice.bits());
        let Ok(claims) = self.claims(
            user,
            &wishes.projects,
            &[Permission::Subscribe],
            ttl_s,
            &jti,
        ) else {
            return;
        };
        let (bytes, is_rough) = if is_oracle {
            (1 << 30, false)
        } else {
            (self.scenario.link_bytes, self.dice.chance(70))
        };
        let link = self.links.open(bytes, is_rough && !self.is_draining);
        let mut viewer = Viewer::new(link, user, dialect, wishes);
        viewer.id = self.dice.bits();
        viewer.jti = jti;
        viewer.is_oracle = is_oracle;
        viewer.subscriptions_max = self.scenario.limits.subscriptions_max;
        viewer.closable.insert(4008);
        viewer.closable.extend(is_short.then_some(4001));
        // A frame of some size takes its time over such a link, and no ping overtakes it.
        let is_thin = !is_oracle && self.scenario.link_bytes < 1_000;
        viewer
            .closable
            .extend(is_thin.then_some([4009, 4010]).into_iter().flatten());
        viewer.closable.extend(self.is_draining.then_some(1001));
        let query = ConnectQuery {
            sessions: wishes.sessions.iter().map(Into::into).collect(),
            subscribe: if wishes.is_to_all {
                SubscribeScope::All
            } else {
                SubscribeScope::Dialect
            },
            tree: None,
            cursor: cursor(&wishes.cursors),
        };
        let arrival = self.newcomer(link, claims, viewer.id);
        let variant = match wishes.takes_deflated {
            true => Variant::deflated(dialect),
            false => Variant::plain(dialect),
        };
        let home = self.partition.core_of(StreamKind::User, user);
        self.cores[home]
            .arrivals
            .push_back(Arrival::Viewer(ViewerRequest {
                arrival,
                variant,
                query,
            }));
        self.viewers.push(viewer);
    }

    fn connect_publisher(&mut self) {
        let scope = self.some_scope();
        let Ok(claims) = self.publisher_claims(&scope) else {
            return;
        };
        let is_rough = self.dice.chance(70) && !self.is_draining;
        let link = self.links.open(self.scenario.link_bytes, is_rough);
        let mut publisher = Publisher::new(link, scope);
        publisher.closable.extend(self.is_draining.then_some(1001));
        // The node may shed any outbox when it holds more than it may.
        publisher.closable.insert(4008);
        let id = self.dice.bits();
        let arrival = self.newcomer(link, claims, id);
        let core = self.dice.below(self.cores.len());
        self.cores[core]
            .arrivals
            .push_back(Arrival::Publisher(arrival));
        self.publishers.push(publisher);
    }

    fn newcomer(&self, link: LinkId, claims: Rc<Claims>, id: u64) -> Newcomer {
        Newcomer {
            connection: Key::from_u64(link),
            claims,
            id,
            remote: None,
            response: RESPONSE.to_vec(),
        }
    }

    fn publish(&mut self) {
        let free: Vec<usize> = (0..self.publishers.len())
            .filter(|index| self.publishers[*index].is_free())
            .collect();
        if free.is_empty() {
            return self.connect_publisher();
        }
        let index = self.dice.pick(&free);
        let scope = self.publishers[index].scope.clone();
        let (items, is_array) = self.some_items(&scope);
        let publisher = &mut self.publishers[index];
        publisher.say(
            self.links.get(publisher.link),
            items,
            is_array,
            &mut self.fates,
        );
    }

    fn post_events(&mut self) {
        let scope = self.some_scope();
        let Ok(claims) = self.publisher_claims(&scope) else {
            return;
        };
        let link = self.links.open(0, false);
        let (items, is_array) = self.some_items(&scope);
        let texts: Vec<&str> = items.iter().map(|item| item.text.as_str()).collect();
        let (body, kind) = match is_array {
            true if self.dice.chance(50) => (texts.join("\r\n\n") + "\n", BodyKind::Ndjson),
            true => (format!("[{}]", texts.join(",\n")), BodyKind::Json),
            false => (texts.concat(), BodyKind::Json),
        };
        self.fates.handle_sent(link, &items, false);
        self.posts.insert(link, items);
        let core = self.dice.below(self.cores.len());
        let ack = self.dice.pick(&[Ack::Durable, Ack::Received]);
        self.cores[core].arrivals.push_back(Arrival::Post {
            link,
            claims,
            body: Bytes::from(body),
            kind,
            ack,
        });
    }

    fn abandon_post(&mut self) {
        let waiting: Vec<LinkId> = self.posts.keys().copied().collect();
        if waiting.is_empty() {
            return;
        }
        let link = self.dice.pick(&waiting);
        // Whoever has it; the others do not know it. One that was parsed whole is answered.
        for core in &mut self.cores {
            core.arrivals.push_back(Arrival::AbandonPost(link));
        }
    }

    // A body: some events, or what stands where they should.
    fn some_items(&mut self, scope: &Scope) -> (Vec<Item>, bool) {
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

    fn command(&mut self) {
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

    fn change_habits(&mut self) {
        let (reads, is_answering) = match self.dice.below(10) {
            0..3 => (0, true),
            3..5 => (usize::MAX, false),
            5 => (self.dice.between(1, 200) as usize, true),
            // In some worlds those who stop reading hardly ever go on.
            _ if self.scenario.is_stubborn && self.dice.chance(80) => return,
            _ => (usize::MAX, true),
        };
        let is_slow = reads < 1_000 || !is_answering;
        if self.dice.chance(25) && !self.publishers.is_empty() {
            let index = self.dice.below(self.publishers.len());
            let publisher = &mut self.publishers[index];
            (publisher.reads, publisher.is_answering) = (reads, is_answering);
            publisher.closable.extend(is_slow.then_some(4009));
            return;
        }
        let index = self.dice.below(self.viewers.len());
        let viewer = &mut self.viewers[index];
        if !viewer.is_oracle {
            viewer.habits = Habits {
                reads,
                is_answering,
            };
            viewer
                .closable
                .extend(is_slow.then_some([4009, 4010]).into_iter().flatten());
        }
    }

    fn disconnect(&mut self) {
        if self.dice.chance(30) && !self.publishers.is_empty() {
            let index = self.dice.below(self.publishers.len());
            let publisher = &mut self.publishers[index];
            self.links.get(publisher.link).is_client_gone = true;
            return;
        }
        let index = self.dice.below(self.viewers.len());
        let viewer = &mut self.viewers[index];
        let link = self.links.get(viewer.link);
        if viewer.is_oracle {
            return;
        }
        if self.dice.chance(40) {
            viewer.closable.insert(1000);
            viewer.is_doomed = true;
            send_frame(
                link,
                OpCode::Control(Control::Close),
                &1000_u16.to_be_bytes(),
            );
        } else {
            link.is_client_gone = true;
        }
    }

    fn administrate(&mut self) {
        let index = self.dice.below(self.viewers.len());
        let now_s = self.now_s();
        let viewer = &mut self.viewers[index];
        if viewer.is_oracle {
            return;
        }
        let ask = match self.dice.below(4) {
            0 => Ask::Connections,
            1 => {
                let jti = viewer.jti.as_str().into();
                // A refresh may be under way: which of two tokens is hit is not known here.
                viewer.closable.insert(4002);
                Ask::Revoke(Revocation {
                    target: RevocationTarget::Jti(jti),
                    revoked_at_s: now_s,
                    expires_at_s: None,
                })
            }
            _ => {
                viewer.closable.insert(4503);
                // One that waits to be let in is no connection yet.
                viewer.is_doomed |= viewer.is_established;
                Ask::Disconnect(Target::Connection(format!("{:016x}", viewer.id).into()))
            }
        };
        let link = self.links.open(0, false);
        self.asks.insert(link);
        let core = self.dice.below(self.cores.len());
        self.cores[core].arrivals.push_back(Arrival::Ask(link, ask));
    }

    fn claims(
        &mut self,
        sub: &str,
        projects: &[String],
        permissions: &[Permission],
        ttl_s: u64,
        jti: &str,
    ) -> Result<Rc<Claims>, TokenError> {
        let token = self.token(sub, projects, permissions, ttl_s, jti);
        let core = self.dice.below(self.cores.len());
        self.cores[core]
            .hub
            .trust()
            .read(self.now(), &token)
            .map(Rc::new)
    }

    fn publisher_claims(&mut self, scope: &Scope) -> Result<Rc<Claims>, TokenError> {
        let permission = if scope.is_any {
            Permission::PublishAny
        } else {
            Permission::Publish
        };
        self.claims(scope.sub, &scope.projects, &[permission], 3_600, "jti")
    }

    fn token(
        &self,
        sub: &str,
        projects: &[String],
        permissions: &[Permission],
        ttl_s: u64,
        jti: &str,
    ) -> String {
        let options = MintOptions {
            projects: projects.iter().map(Into::into).collect(),
            permissions: permissions.iter().copied().collect(),
            ttl_s,
            jti: Some(jti.into()),
            ..MintOptions::new(sub)
        };
        mint(&self.key, &options, self.now_s()).expect("such a token can be minted")
    }

    fn some_scope(&mut self) -> Scope {
        Scope {
            sub: self.dice.pick(&USERS),
            projects: self.some_projects(),
            is_any: self.dice.chance(60),
        }
    }

    fn some_projects(&mut self) -> Vec<String> {
        self.dice
            .some_of(&PROJECTS, 60)
            .into_iter()
            .map(str::to_owned)
            .collect()
    }

    // Where one of the user's viewers stands or stood, as it knows itself.
    fn places_of(&mut self, user: &str) -> BTreeMap<String, u64> {
        let theirs = self.viewers.iter().filter(|viewer| viewer.user == user);
        let places: Vec<BTreeMap<String, u64>> = theirs.map(Viewer::places).collect();
        if places.is_empty() {
            return BTreeMap::new();
        }
        self.dice.pick(&places)
    }

    fn some_cursors(&mut self) -> BTreeMap<String, u64> {
        let names = [
            "user",
            "project/7",
            "project/p-8",
            "user/ada",
            "project/no, \"such\"",
        ];
        let named = self.dice.some_of(&names, 40);
        let seqs = named
            .into_iter()
            .map(|name| (name.to_owned(), self.dice.below(3) as u64));
        seqs.collect()
    }
}

fn cursor(seqs: &BTreeMap<String, u64>) -> Option<Cursor> {
    use sightline::dialect::StreamName;
    use sightline::event::Seq;
    let mut cursor = Cursor::new(Some(EPOCH));
    for (name, seq) in seqs {
        let stream = match (name.strip_prefix("project/"), name.strip_prefix("user/")) {
            (Some(id), _) => StreamName::Project(id),
            (None, Some(id)) => StreamName::User(id),
            (None, None) => StreamName::Own,
        };
        cursor.insert(stream, Seq(*seq));
    }
    (!cursor.is_empty()).then_some(cursor)
}
