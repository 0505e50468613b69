//! What clients and administrators do at random.

mod commands;
mod items;

use std::collections::BTreeMap;
use std::rc::Rc;

use bytes::Bytes;
use sightline::auth::{
    Claims, MintOptions, Permission, Revocation, Target as RevocationTarget, TokenError, mint,
};
use sightline::dialect::{ConnectQuery, Cursor, SubscribeScope, TreeMode};
use sightline::event::{BodyKind, Dialect, StreamKind};
use sightline::hub::ViewerRequest;
use sightline::hub::frames::Variant;
use sightline::hub::keyed::Key;
use sightline::hub::mail::{Ack, Ask, Target};
use sightline::hub::peers::Arrival as Newcomer;
use sightline::wire::frame::{Control, OpCode};

use crate::core::Arrival;
use crate::events::{PROJECTS, USERS};
use crate::network::LinkId;
use crate::publisher::{Publisher, Scope};
use crate::scenario::EPOCH;
use crate::viewer::{Habits, RESPONSE, Viewer, Wishes, send_frame};
use crate::world::World;

/// Users with an oracle on their stream. `WATCHER` sees all projects, and no event is its own.
const WATCHED: [&str; 3] = ["ada", "bob", "cy"];
const WATCHER: &str = "watcher";

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
        let modes = [TreeMode::Full, TreeMode::Off, TreeMode::Patch];
        wishes.tree = self.dice.chance(60).then(|| self.dice.pick(&modes));
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
            tree: wishes.tree,
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
