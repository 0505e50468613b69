//! Carrying out what viewers ask for: which streams each is attached to, and the interests in
//! streams of other cores that this takes.
//!
//! An operation waits until every stream that it reaches is ready (an owner core has answered),
//! then all of it happens at once, so that the rows and `at` that it tells are true together.

use std::rc::Rc;

use compact_str::CompactString;

use crate::auth::{self, Claims};
use crate::dialect::{
    ConnectionEstablished, ConnectionLimits, Cursor, MessageId, ResumeRow, ServerMessage,
    StreamName, Subscribed, Subscription as ShownSubscription, Unsubscribe,
};
use crate::event::{Filter, Seq, StreamKind, SubscriptionKey};

use super::catch_up::CatchUp;
use super::keyed::Key;
use super::rows::{name, row};
use super::streams::{Attached, StreamSlot};
use super::subscriptions::{Subscription, Target, Wanted, check_added, plan};
use super::viewer::{Attachment, Operation, Viewer};
use super::{Hub, Now};

/// What this server can do, for `connection_established`.
const CAPABILITIES: [&str; 7] = [
    "agent_trees",
    "cursor",
    "lag",
    "refresh_token",
    "replay",
    "resume",
    "subscriptions",
];

impl Hub {
    /// Queues an operation of a viewer and carries out what can be.
    pub(super) fn enqueue(&mut self, now: Now, key: Key, operation: Operation) {
        if let Some(viewer) = self.peers.viewer_mut(key) {
            viewer.operations.push_back(operation);
        }
        self.advance_viewer(now, key);
    }

    /// Carries out a viewer's operations in order, until one has to wait for an owner core.
    pub(super) fn advance_viewer(&mut self, now: Now, key: Key) {
        while self.is_open(key) && self.prepare(now, key) {
            let Some(operation) = self.peers.viewer_mut(key).and_then(Viewer::next_operation)
            else {
                return;
            };
            match operation {
                Operation::Establish { initial } => self.establish(now, key, initial),
                Operation::Refresh { id, claims } => self.refresh(now, key, id.as_ref(), *claims),
                Operation::Replay { id, replay } => self.replay(now, key, id, replay),
                Operation::Subscribe {
                    id,
                    filters,
                    is_list,
                    cursor,
                } => {
                    self.subscribe(now, key, id.as_ref(), filters, is_list, cursor);
                }
                Operation::Unsubscribe { id, what } => {
                    self.unsubscribe(now, key, id.as_ref(), &what)
                }
            }
            self.release_waiting(key);
        }
    }

    /// A viewer is gone or closing: it is attached to nothing any more.
    pub(super) fn detach_all(&mut self, key: Key) {
        self.release_waiting(key);
        while let Some(last) = self
            .peers
            .viewer(key)
            .and_then(|viewer| viewer.attachments.len().checked_sub(1))
        {
            self.detach(key, last);
        }
        self.give_up_all(key);
        self.unwatch_trees(key);
        if let Some(viewer) = self.peers.viewer_mut(key) {
            viewer.operations.clear();
            let subscriptions = std::mem::take(&mut viewer.subscriptions);
            self.stats
                .counters
                .subscriptions
                .sub(subscriptions.len() as u64);
        }
    }

    pub(super) fn establish(&mut self, now: Now, key: Key, initial: Option<Subscription>) {
        self.install(key, initial);
        // First: the present trees come before what is live.
        self.watch_trees(now, key);
        self.reconcile(now, key);
        let rows = self.first_rows(key);
        let Some(peer) = self.peers.find(key) else {
            return;
        };
        let Some(viewer) = peer.viewer() else { return };
        let subscriptions = viewer.subscriptions.clone();
        let shown: Vec<ShownSubscription<'_>> = subscriptions.iter().map(show).collect();
        let (id, sessions, expires_at_ms) = (
            format!("{:016x}", peer.details.id),
            viewer.sessions.clone(),
            expires_at_ms(&peer.details.claims),
        );
        let limits = &self.options.limits;
        let message = ServerMessage::ConnectionEstablished(ConnectionEstablished {
            connection_id: &id,
            epoch: self.options.epoch(),
            session_filters: &sessions,
            subscriptions: &shown,
            capabilities: &CAPABILITIES,
            limits: ConnectionLimits {
                messages_per_minute: limits.messages_per_minute as u32,
                subscriptions_max: limits.subscriptions_max,
                message_bytes_max: limits.message_bytes_max,
                heartbeat_interval_ms: self.options.heartbeat_interval_ms,
            },
            expires_at_ms,
            resume: &rows.iter().map(row).collect::<Vec<_>>(),
        });
        self.peers.push_message(now, key, &message);
    }

    pub(super) fn subscribe(
        &mut self,
        now: Now,
        key: Key,
        id: Option<&MessageId>,
        filters: Vec<Filter>,
        is_list: bool,
        cursor: Option<Cursor>,
    ) {
        let added: Vec<Subscription> = filters.into_iter().map(Subscription::allowed).collect();
        // Judged when its turn comes: a refresh before it may have changed what the viewer may see.
        if let Err((code, message)) = self.check_added(key, &added) {
            let message = message.into();
            let error = ServerMessage::SubscriptionError { id, code, message };
            return self.peers.push_message(now, key, &error);
        }
        self.install(key, added.iter().cloned());
        self.reconcile(now, key);
        let after = self.attached_streams(key);
        let mut rows = self.begun_rows(key);
        if let Some(cursor) = cursor {
            rows.extend(self.unreached_rows(key, |stream| cursor.seq(stream).is_some()));
        }
        let reached: Vec<(Target, Seq)> = after
            .into_iter()
            .filter(|(target, _)| {
                added
                    .iter()
                    .any(|subscription| reaches(subscription, target))
            })
            .collect();
        let at: Vec<(StreamName<'_>, Seq)> = reached
            .iter()
            .map(|(target, seq)| (name(target), *seq))
            .collect();
        let rows: Vec<ResumeRow<'_>> = rows.iter().map(row).collect();
        let shown: Vec<ShownSubscription<'_>> = added.iter().map(show).collect();
        let subscribed = if is_list {
            Subscribed::Many(&shown)
        } else {
            Subscribed::One(shown[0])
        };
        self.peers.push_message(
            now,
            key,
            &ServerMessage::SubscriptionConfirmed {
                id,
                subscribed,
                at: &at,
                resume: &rows,
            },
        );
    }

    pub(super) fn check_added(
        &self,
        key: Key,
        added: &[Subscription],
    ) -> Result<(), (&'static str, String)> {
        let Some(peer) = self.peers.find(key) else {
            return Ok(());
        };
        let known = peer
            .viewer()
            .map_or(&[][..], |viewer| &viewer.subscriptions);
        let may_see = |id: &CompactString| auth::may_see_project(&peer.details.claims, id);
        check_added(known, added, may_see, self.options.limits.subscriptions_max)
    }

    pub(super) fn unsubscribe(
        &mut self,
        now: Now,
        key: Key,
        id: Option<&MessageId>,
        what: &Unsubscribe,
    ) {
        let doomed = |subscription: &Subscription| match what {
            Unsubscribe::All => true,
            Unsubscribe::Filters(filters) => filters.contains(&*subscription.filter),
            Unsubscribe::Key(key) => *key == subscription.key,
        };
        let Some(viewer) = self.peers.viewer_mut(key) else {
            return;
        };
        let gone: Vec<Subscription> = viewer
            .subscriptions
            .extract_if(.., |subscription| doomed(subscription))
            .collect();
        self.stats.counters.subscriptions.sub(gone.len() as u64);
        self.reconcile(now, key);
        let keys = keys(&gone);
        self.peers.push_message(
            now,
            key,
            &ServerMessage::Unsubscribed {
                id,
                subscription_keys: &keys,
            },
        );
    }

    pub(super) fn refresh(&mut self, now: Now, key: Key, id: Option<&MessageId>, claims: Claims) {
        // It was good when it came; a revocation may have come since.
        if let Err(error) = self.trust.check(now, &claims) {
            let (code, message) = (error.code(), error.message().into());
            let error = ServerMessage::Error {
                id,
                code,
                message,
                retry_after_ms: None,
            };
            return self.peers.push_message(now, key, &error);
        }
        let expires_at_ms = expires_at_ms(&claims);
        let before = self.attached_streams(key);
        let Some(peer) = self.peers.find_mut(key) else {
            return;
        };
        let claims = Rc::new(claims);
        peer.details.claims = Rc::clone(&claims);
        let Some(viewer) = peer.viewer_mut() else {
            return;
        };
        viewer.is_warned_of_expiry = false;
        let gone = strike_out_lost_projects(&mut viewer.subscriptions, &claims);
        self.stats.counters.subscriptions.sub(gone.len() as u64);
        self.reconcile(now, key);
        let after = self.attached_streams(key);
        let added = self.begun_rows(key);
        let removed: Vec<StreamName<'_>> = before
            .iter()
            .filter(|(target, _)| after.iter().all(|(kept, _)| kept != target))
            .map(|(target, _)| name(target))
            .collect();
        let message = ServerMessage::TokenRefreshed {
            id,
            expires_at_ms,
            added: &added.iter().map(row).collect::<Vec<_>>(),
            removed: &removed,
            removed_subscriptions: &keys(&gone),
        };
        self.peers.push_message(now, key, &message);
        self.schedule_next(now, key);
    }

    pub(super) fn install(&mut self, key: Key, added: impl IntoIterator<Item = Subscription>) {
        let Some(viewer) = self.peers.viewer_mut(key) else {
            return;
        };
        for subscription in added {
            if viewer
                .subscriptions
                .iter()
                .all(|known| known.key != subscription.key)
            {
                // Most hold one for long.
                if viewer.subscriptions.is_empty() {
                    viewer.subscriptions.reserve_exact(1);
                }
                viewer.subscriptions.push(subscription);
                self.stats.counters.subscriptions.add(1);
            }
        }
    }

    // Makes the viewer's attachments what its subscriptions and its token say.
    pub(super) fn reconcile(&mut self, now: Now, key: Key) {
        let Some(peer) = self.peers.find(key) else {
            return;
        };
        let (sub, projects) = (
            peer.details.claims.sub.clone(),
            peer.details.claims.projects.clone(),
        );
        let Some(viewer) = peer.viewer() else { return };
        let wanted: Vec<(StreamSlot, Wanted)> = plan(&viewer.subscriptions, &projects)
            .into_iter()
            .filter_map(|(target, wanted)| {
                let (kind, id) = match &target {
                    Target::Own => (StreamKind::User, &sub),
                    Target::Project(id) => (StreamKind::Project, id),
                    Target::User(_) => return None,
                };
                Some((self.streams.find_or_insert(kind, id), wanted))
            })
            .collect();
        let mut index = self
            .peers
            .viewer(key)
            .map_or(0, |viewer| viewer.attachments.len());
        while index > 0 {
            index -= 1;
            let attached = self
                .peers
                .viewer(key)
                .and_then(|viewer| viewer.attachments.get(index))
                .map(|attachment| attachment.stream);
            if attached.is_some_and(|slot| wanted.iter().all(|(kept, _)| *kept != slot)) {
                self.detach(key, index);
            }
        }
        self.give_up_unless(key, |slot| wanted.iter().any(|(kept, _)| *kept == slot));
        // What waited behind what it missed does so no longer.
        self.look_for_viewer(now, key);
        for (slot, wanted) in wanted {
            // Fanning out what came before may find that this very viewer does not keep up.
            if self.is_open(key) {
                self.attach(now, key, slot, wanted);
            }
        }
    }

    // Attaches the viewer at the stream's head, or at what it has missed before, behind the trees that
    // it begins with; or changes what it takes from there on.
    pub(super) fn attach(&mut self, now: Now, key: Key, slot: StreamSlot, filters: Wanted) {
        // What was numbered before goes to those who were attached before.
        self.fan_out(now, slot);
        let Some(head) = self.streams.state(slot).map(|state| state.head) else {
            return;
        };
        self.note_followed(slot);
        if let Some(catch_up) = self.catch_up_mut(key, slot) {
            return catch_up.change(head, filters);
        }
        let Some(viewer) = self.peers.viewer(key) else {
            return;
        };
        let mut places = viewer.attachments.iter();
        let place = places.find(|place| place.stream == slot).copied();
        let variant = viewer.variant;
        match (place, self.facts_of(key, slot)) {
            (Some(place), _) => {
                if let Some(state) = self.streams.state_mut(slot) {
                    let list = &mut state.live_mut().attached[variant.index()];
                    list[place.position].filters = filters;
                }
            }
            (None, Some(facts)) if let Some(start) = facts.start() => {
                self.fall_behind(key, CatchUp::new(&facts, start, head, filters));
            }
            (None, _) if self.begins_with_trees(key, slot) => {
                self.fall_behind(key, CatchUp::at_head(slot, head, filters));
            }
            (None, _) => self.attach_live(key, slot, filters),
        }
    }

    // Attaches the viewer at the stream's head, all up to which was fanned out.
    pub(super) fn attach_live(&mut self, key: Key, slot: StreamSlot, filters: Wanted) {
        let Some(viewer) = self.peers.viewer_mut(key) else {
            return;
        };
        let Some(state) = self.streams.state_mut(slot) else {
            return;
        };
        let list = &mut state.live_mut().attached[viewer.variant.index()];
        if viewer.attachments.is_empty() {
            viewer.attachments.reserve_exact(1);
        }
        viewer.attachments.push(Attachment {
            stream: slot,
            position: list.len(),
        });
        if list.is_empty() {
            // Most streams are followed by one viewer.
            list.reserve_exact(1);
        }
        list.push(Attached {
            viewer: key,
            filters,
        });
    }

    pub(super) fn detach(&mut self, key: Key, index: usize) {
        let Some(viewer) = self.peers.viewer_mut(key) else {
            return;
        };
        let variant = viewer.variant;
        let Attachment { stream, position } = viewer.attachments.swap_remove(index);
        if let Some(live) = self
            .streams
            .state_mut(stream)
            .and_then(|state| state.live.as_mut())
        {
            let list = &mut live.attached[variant.index()];
            list.swap_remove(position);
            if let Some(moved) = list.get(position).map(|attached| attached.viewer) {
                let viewer = self.peers.viewer_mut(moved);
                let places = viewer
                    .into_iter()
                    .flat_map(|viewer| &mut viewer.attachments);
                places
                    .filter(|place| place.stream == stream)
                    .for_each(|place| place.position = position);
            }
        }
        self.release_stream(stream);
    }
}

fn show(subscription: &Subscription) -> ShownSubscription<'_> {
    ShownSubscription {
        key: subscription.key,
        filter: &subscription.filter,
    }
}

fn keys(subscriptions: &[Subscription]) -> Vec<SubscriptionKey> {
    subscriptions
        .iter()
        .map(|subscription| subscription.key)
        .collect()
}

fn reaches(subscription: &Subscription, target: &Target) -> bool {
    match target {
        Target::Own => true,
        Target::Project(id) => subscription.reaches_project(id),
        Target::User(_) => false,
    }
}

fn expires_at_ms(claims: &Claims) -> i64 {
    i64::try_from(claims.exp_s)
        .unwrap_or(i64::MAX / 1_000)
        .saturating_mul(1_000)
}

// Lost projects are struck out of the filters; returns the subscriptions that this emptied.
fn strike_out_lost_projects(
    subscriptions: &mut Vec<Subscription>,
    claims: &Claims,
) -> Vec<Subscription> {
    let mut gone = Vec::new();
    subscriptions.retain_mut(|subscription| {
        let filter = Filter::clone(&subscription.filter);
        let kept = filter.retain_projects(|id| auth::may_see_project(claims, id));
        match kept {
            Some(kept) => subscription.filter = Rc::new(kept),
            None => gone.push(subscription.clone()),
        }
        gone.last().is_none_or(|last| last.key != subscription.key)
    });
    gone
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::dialect::{ConnectQuery, SubscribeScope};
    use crate::event::Dialect;
    use crate::hub::Bounds;
    use crate::hub::rig::{Client, Rig, claims, event, seqs};

    fn quiet(rig: &mut Rig, user: &str, projects: &[&str]) -> Client {
        let client = rig.connect(
            claims(user, projects),
            Dialect::Observatory,
            ConnectQuery::default(),
        );
        rig.settle();
        assert_eq!(rig.names(client), ["connection_established"]);
        client
    }

    // What a command is answered.
    fn ask(rig: &mut Rig, client: Client, name: &str, data: &Value) -> Value {
        rig.say(client, &json!({"type": name, "data": data, "id": 1}));
        rig.settle();
        let mut said = rig.read(client);
        assert_eq!(said.len(), 1, "{said:?}");
        let answer = said.remove(0);
        assert_eq!(answer["data"]["id"], 1);
        answer
    }

    fn subscribe(rig: &mut Rig, client: Client, filters: &Value) -> Value {
        ask(rig, client, "subscribe", &json!({"filters": filters}))
    }

    fn publish(rig: &mut Rig, client: Client, user: Option<&str>, project: Option<&str>) {
        rig.publish(client, &event(user, project, 1));
        rig.settle();
    }

    #[test]
    fn the_greeting_comes_first_whatever_was_said_before_it() {
        let mut rig = Rig::with(2, Bounds::default(), |_| {});
        let (user, project) = (
            rig.id_on(0, StreamKind::User),
            rig.id_on(1, StreamKind::Project),
        );
        let client = rig.viewer(&user, &[&project]);
        rig.say(client, &json!({"type": "ping"}));
        assert!(
            rig.names(client).is_empty(),
            "the other core has not answered yet"
        );
        rig.settle();
        assert_eq!(rig.names(client), ["connection_established", "pong"]);
    }

    #[test]
    fn a_subscription_acts_from_the_seq_that_it_is_told() {
        let mut rig = Rig::new();
        let (client, publisher) = (quiet(&mut rig, "ada", &["7"]), rig.publisher(0));
        for _ in 0..2 {
            publish(&mut rig, publisher, Some("ada"), None);
        }
        publish(&mut rig, publisher, None, Some("7"));
        let confirmed = subscribe(&mut rig, client, &json!({}));
        assert_eq!(confirmed["data"]["at"], json!({"user": 2, "project/7": 1}));
        publish(&mut rig, publisher, Some("ada"), None);
        publish(&mut rig, publisher, None, Some("7"));
        assert_eq!(seqs(&rig.read(client)), [3, 2]);
    }

    #[test]
    fn what_was_numbered_in_the_turn_before_a_subscription_is_not_its() {
        let mut rig = Rig::new();
        let (other, client) = (rig.viewer("ada", &[]), quiet(&mut rig, "ada", &[]));
        let publisher = rig.publisher(0);
        rig.publish(publisher, &event(Some("ada"), None, 1));
        rig.say(
            client,
            &json!({"type": "subscribe", "data": {"filters": {}}}),
        );
        rig.publish(publisher, &event(Some("ada"), None, 1));
        rig.turn();
        let said = rig.read(client);
        assert_eq!(
            (said[0]["data"]["at"]["user"].as_u64(), seqs(&said)),
            (Some(1), vec![2])
        );
        assert_eq!(seqs(&rig.read(other)), [1, 2]);
    }

    #[test]
    fn equal_filters_are_one_subscription_and_several_take_each_event_once() {
        let mut rig = Rig::new();
        let (client, publisher) = (quiet(&mut rig, "ada", &["7"]), rig.publisher(0));
        let twice = json!([{"eventTypes": ["progress_update", "a"]}, {"eventTypes": ["a", "progress_update"]}]);
        let answer = subscribe(&mut rig, client, &twice);
        let keys = &answer["data"]["subscriptionKeys"];
        assert_eq!(keys[0], keys[1]);
        subscribe(&mut rig, client, &json!({}));
        assert_eq!(rig.stats[0].counters.subscriptions.value(), 2);
        publish(&mut rig, publisher, Some("ada"), None);
        assert_eq!(seqs(&rig.read(client)), [1]);
    }

    #[test]
    fn too_many_subscriptions_and_foreign_projects_install_nothing() {
        let mut rig = Rig::new();
        let client = quiet(&mut rig, "ada", &["7"]);
        let check = |rig: &mut Rig, filters: Value, code: &str| {
            let answer = subscribe(rig, client, &filters);
            assert_eq!(
                (&answer["type"], &answer["data"]["code"]),
                (&json!("subscription_error"), &json!(code))
            );
        };
        check(
            &mut rig,
            json!([{}, {"projectIds": [8]}]),
            "INVALID_FILTERS",
        );
        let types = |names: &[&str]| {
            names
                .iter()
                .map(|name| json!({"eventTypes": [name]}))
                .collect::<Value>()
        };
        check(
            &mut rig,
            types(&["a", "b", "c", "d"]),
            "TOO_MANY_SUBSCRIPTIONS",
        );
        assert_eq!(rig.stats[0].counters.subscriptions.value(), 0);
        assert_eq!(
            subscribe(&mut rig, client, &types(&["a", "b", "c", "a"]))["type"],
            "subscription_confirmed"
        );
    }

    #[test]
    fn a_subscription_goes_by_its_key_its_filter_or_with_all() {
        let mut rig = Rig::new();
        let (client, publisher) = (quiet(&mut rig, "ada", &["7"]), rig.publisher(0));
        let filters = json!([{"eventTypes": ["a"]}, {"eventTypes": ["b"]}, {}]);
        let keys = subscribe(&mut rig, client, &filters)["data"]["subscriptionKeys"].clone();
        let gone = |rig: &mut Rig, data: Value| {
            ask(rig, client, "unsubscribe", &data)["data"]["subscriptionKeys"].clone()
        };
        assert_eq!(
            gone(&mut rig, json!({"subscriptionKey": keys[0]})),
            json!([keys[0]])
        );
        assert_eq!(
            gone(&mut rig, json!({"filters": {"eventTypes": ["b"]}})),
            json!([keys[1]])
        );
        assert_eq!(gone(&mut rig, json!({})), json!([keys[2]]));
        publish(&mut rig, publisher, Some("ada"), Some("7"));
        assert!(rig.read(client).is_empty());
        assert_eq!(rig.stats[0].counters.subscriptions.value(), 0);
    }

    #[test]
    fn those_who_stay_keep_their_place_when_others_leave() {
        let mut rig = Rig::with(1, Bounds::default(), |options| {
            options.tiers.insert("individual".into(), 10);
        });
        let clients: Vec<Client> = (0..5).map(|_| rig.viewer("ada", &["7"])).collect();
        let publisher = rig.publisher(0);
        let mut left = clients.clone();
        for gone in [1, 0, 2] {
            let client = left.remove(gone);
            rig.hub().handle_disconnect(client.key);
            publish(&mut rig, publisher, Some("ada"), None);
            publish(&mut rig, publisher, None, Some("7"));
            for client in &left {
                assert_eq!(seqs(&rig.read(*client)).len(), 2);
            }
        }
        assert_eq!(rig.stats[0].counters.subscriptions.value(), 2);
    }

    #[test]
    fn a_refresh_gains_streams_with_their_rows_and_strikes_out_what_is_lost() {
        let mut rig = Rig::new();
        let (client, publisher) = (quiet(&mut rig, "ada", &["7", "8"]), rig.publisher(0));
        let filters = json!([{"projectIds": [7]}, {"projectIds": [7, 8]}, {"eventTypes": ["progress_update"]}]);
        let keys = subscribe(&mut rig, client, &filters)["data"]["subscriptionKeys"].clone();
        let now = rig.now;
        rig.hub().enqueue(
            now,
            client.key,
            Operation::Refresh {
                id: None,
                claims: Box::new(claims("ada", &["8", "9"])),
            },
        );
        let said = rig.read(client).remove(0);
        assert_eq!(said["type"], "token_refreshed");
        assert_eq!(said["data"]["added"][0]["stream"], "project/9");
        assert_eq!(said["data"]["added"].as_array().map(Vec::len), Some(1));
        assert_eq!(said["data"]["removed"], json!(["project/7"]));
        assert_eq!(said["data"]["removedSubscriptions"], json!([keys[0]]));
        for project in ["7", "8", "9"] {
            publish(&mut rig, publisher, None, Some(project));
        }
        let streams: Vec<Value> = rig
            .read(client)
            .iter()
            .map(|event| event["stream"].clone())
            .collect();
        assert_eq!(streams, [json!("project/8"), json!("project/9")]);
    }

    #[test]
    fn a_token_that_is_revoked_while_its_refresh_waits_is_not_taken() {
        let mut rig = Rig::with(2, Bounds::default(), |_| {});
        let (user, project) = (
            rig.id_on(0, StreamKind::User),
            rig.id_on(1, StreamKind::Project),
        );
        let client = rig.viewer(&user, &[]);
        rig.read(client);
        let now = rig.now;
        let claims = Claims {
            jti: Some("new".into()),
            ..claims(&user, &[&project])
        };
        let refresh = Operation::Refresh {
            id: None,
            claims: Box::new(claims),
        };
        rig.hubs[0].enqueue(now, client.key, refresh);
        let revocation = auth::Revocation {
            target: auth::Target::Jti("new".into()),
            revoked_at_s: now.wall_s(),
            expires_at_s: None,
        };
        let ask = crate::hub::mail::Ask::Revoke(revocation);
        rig.hubs[0].handle_administrator(now, Key::from_u64(9), &ask);
        rig.settle();
        assert_eq!(rig.read(client)[0]["data"]["code"], "TOKEN_REVOKED");
        assert_eq!(rig.closing(client), None, "the old one stands");
        assert_eq!(rig.stats[0].counters.interests.value(), 0);
    }

    #[test]
    fn a_filter_is_judged_by_the_token_of_its_turn() {
        let mut rig = Rig::with(2, Bounds::default(), |_| {});
        let (user, project) = (
            rig.id_on(0, StreamKind::User),
            rig.id_on(1, StreamKind::Project),
        );
        let query = ConnectQuery {
            subscribe: SubscribeScope::All,
            ..ConnectQuery::default()
        };
        let client = rig.connect(claims(&user, &[]), Dialect::Observatory, query);
        rig.settle();
        rig.read(client);
        let now = rig.now;
        rig.hubs[0].enqueue(
            now,
            client.key,
            Operation::Refresh {
                id: None,
                claims: Box::new(claims(&user, &[&project])),
            },
        );
        rig.say(
            client,
            &json!({"type": "subscribe", "data": {"filters": {"projectIds": [project]}}}),
        );
        assert!(
            rig.names(client).is_empty(),
            "the refresh waits for the project's owner"
        );
        rig.settle();
        assert_eq!(
            rig.names(client),
            ["token_refreshed", "subscription_confirmed"]
        );
    }
}
