//! What a viewer says, judged and answered.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::auth;
use crate::dialect::{Command, CommandError, MessageId, ServerMessage, Subscribe, TokenText};
use crate::failpoint;
use crate::wire::close::CloseReason;

use super::keyed::Key;
use super::rate::Verdict;
use super::viewer::Operation;
use super::{Hub, Now};

impl Hub {
    /// A text message of a viewer, as it came.
    pub fn handle_viewer_message(&mut self, now: Now, key: Key, text: &[u8]) {
        if !self.is_open(key) {
            return;
        }
        self.stats.counters.viewer_messages.add(1);
        let (per_second, per_minute) = (
            self.options.limits.messages_per_second,
            self.options.limits.messages_per_minute,
        );
        let Some(viewer) = self.peers.viewer_mut(key) else {
            return;
        };
        match viewer.rate.judge(now.ms(), per_second, per_minute) {
            Verdict::Accept => self.handle_command(now, key, text),
            Verdict::Close => self.close_peer(now, key, CloseReason::RateExceeded),
            Verdict::Drop { retry_after_ms } => {
                self.stats.counters.viewer_messages_dropped.add(1);
                let message =
                    "more messages than this connection may send: the message was dropped";
                self.send_error(
                    now,
                    key,
                    None,
                    "RATE_LIMIT_EXCEEDED",
                    message.into(),
                    Some(retry_after_ms),
                );
            }
        }
    }

    fn handle_command(&mut self, now: Now, key: Key, text: &[u8]) {
        // Nothing but `text` is touched in there: a panic is the one connection's.
        let parsed = catch_unwind(|| {
            failpoint::panic_at("command", text);
            Command::parse(text)
        });
        let Ok(command) = parsed else {
            return self.close_broken(now, key);
        };
        match command {
            Err(error) => self.answer_unreadable(now, key, &error),
            Ok((Command::Activity(question), id)) => self.ask_activity(now, key, id, question),
            Ok((Command::Conversations(question), id)) => {
                self.ask_conversations(now, key, id, &question);
            }
            Ok((Command::AgentTree { session }, id)) => {
                self.ask_for_trees(now, key, id, session);
            }
            Ok((Command::Ping { echo }, id)) => {
                let pong = ServerMessage::Pong {
                    id: id.as_ref(),
                    echo: echo.as_ref(),
                };
                self.peers.push_message(now, key, &pong);
            }
            Ok((Command::RefreshToken(token), id)) => self.handle_refresh(now, key, id, &token),
            Ok((Command::Replay(replay), id)) => {
                self.enqueue(now, key, Operation::Replay { id, replay });
            }
            Ok((Command::Subscribe(subscribe), id)) => {
                self.handle_subscribe(now, key, id, subscribe)
            }
            Ok((Command::Unsubscribe(what), id)) => {
                self.enqueue(now, key, Operation::Unsubscribe { id, what });
            }
        }
    }

    fn handle_subscribe(
        &mut self,
        now: Now,
        key: Key,
        id: Option<MessageId>,
        subscribe: Subscribe,
    ) {
        let Subscribe {
            filters,
            is_array,
            cursor,
        } = subscribe;
        self.enqueue(
            now,
            key,
            Operation::Subscribe {
                id,
                filters,
                is_list: is_array,
                cursor,
            },
        );
    }

    fn handle_refresh(&mut self, now: Now, key: Key, id: Option<MessageId>, token: &TokenText) {
        let Some(sub) = self
            .peers
            .find(key)
            .map(|peer| peer.details.claims.sub.clone())
        else {
            return;
        };
        let trust = &self.trust;
        let read = catch_unwind(AssertUnwindSafe(|| trust.read(now, token.as_str())));
        let claims = match read {
            Err(_) => return self.close_broken(now, key),
            Ok(Ok(claims)) => claims,
            Ok(Err(error)) => {
                return self.send_error(
                    now,
                    key,
                    id.as_ref(),
                    error.code(),
                    error.message().into(),
                    None,
                );
            }
        };
        if claims.sub != sub {
            let message = "the new token is another user's: the old one stands";
            return self.send_error(now, key, id.as_ref(), "TOKEN_SUBJECT", message.into(), None);
        }
        if !auth::may_subscribe(&claims) {
            let message = "the new token lacks permission subscribe: the old one stands";
            return self.send_error(now, key, id.as_ref(), "FORBIDDEN", message.into(), None);
        }
        self.enqueue(
            now,
            key,
            Operation::Refresh {
                id,
                claims: Box::new(claims),
            },
        );
    }

    // A panic while reading what one peer sent is the end of that peer's connection alone.
    fn close_broken(&mut self, now: Now, key: Key) {
        self.stats.counters.panics.add(1);
        self.close_peer(now, key, CloseReason::Internal);
    }

    fn answer_unreadable(&mut self, now: Now, key: Key, error: &CommandError) {
        self.peers.push_message(now, key, &error.answer());
    }

    pub(super) fn send_error(
        &mut self,
        now: Now,
        key: Key,
        id: Option<&MessageId>,
        code: &'static str,
        message: String,
        retry_after_ms: Option<u64>,
    ) {
        let error = ServerMessage::Error {
            id,
            code,
            message: message.into(),
            retry_after_ms,
        };
        self.peers.push_message(now, key, &error);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::auth::{MintOptions, Permission, SigningKey, mint};
    use crate::hub::rig::{Client, Rig, SECRET};

    fn connected() -> (Rig, Client) {
        let mut rig = Rig::new();
        let client = rig.viewer("ada", &["7"]);
        rig.read(client);
        (rig, client)
    }

    #[test]
    fn what_cannot_be_understood_is_answered_and_the_connection_goes_on() {
        let (mut rig, client) = connected();
        let mut check = |text: &[u8], name: &str, code: &str| {
            let now = rig.now;
            rig.hub().handle_viewer_message(now, client.key, text);
            let said = rig.read(client).remove(0);
            assert_eq!(
                (&said["type"], &said["data"]["code"]),
                (&json!(name), &json!(code))
            );
        };
        check(b"{", "error", "INVALID_MESSAGE");
        check(b"{\"type\":\"dance\"}", "error", "UNKNOWN_MESSAGE_TYPE");
        check(
            b"{\"type\":\"subscribe\",\"data\":{\"filters\":5}}",
            "subscription_error",
            "INVALID_FILTERS",
        );
        check(
            b"{\"type\":\"subscribe\",\"data\":{\"filters\":{},\"resume\":\"x y\"}}",
            "subscription_error",
            "INVALID_CURSOR",
        );
        assert_eq!(rig.closing(client), None);
    }

    #[test]
    fn beyond_the_rate_messages_are_dropped_with_a_word_and_beyond_measure_it_ends() {
        let (mut rig, client) = connected();
        let ping = json!({"type": "ping"});
        for _ in 0..20 {
            rig.say(client, &ping);
        }
        assert!(rig.names(client).iter().all(|name| name == "pong"));
        rig.say(client, &ping);
        let said = rig.read(client).remove(0);
        assert_eq!(said["data"]["code"], "RATE_LIMIT_EXCEEDED");
        assert_eq!(said["data"]["details"]["retryAfter"], 1_000);
        rig.wait(1_000);
        rig.say(client, &ping);
        assert_eq!(rig.names(client), ["pong"]);
        for _ in 22..1_000 {
            rig.say(client, &ping);
            rig.read(client);
        }
        assert_eq!(rig.closing(client), None);
        let dropped = rig.stats[0].counters.viewer_messages_dropped.value();
        assert_eq!(
            dropped,
            1_000 - 40,
            "twenty in each of two seconds were not"
        );
        rig.say(client, &ping);
        assert_eq!(rig.closing(client), Some(4429));
    }

    #[test]
    fn a_token_that_will_not_do_leaves_the_old_one_standing() {
        let (mut rig, client) = connected();
        let key = SigningKey::from_secret(SECRET).expect("a good secret");
        let now_s = rig.now.wall_s();
        let token = |sub: &str, permission| {
            let options = MintOptions {
                permissions: [permission].into_iter().collect(),
                ..MintOptions::new(sub)
            };
            mint(&key, &options, now_s).expect("it can be minted")
        };
        let mut refresh = |token: &str| {
            rig.say(
                client,
                &json!({"type": "refresh_token", "data": {"token": token}, "id": "r"}),
            );
            let said = rig.read(client).remove(0);
            assert_eq!(said["data"]["id"], "r");
            let code = said["data"]["code"].as_str();
            code.unwrap_or(said["type"].as_str().unwrap_or_default())
                .to_owned()
        };
        assert_eq!(refresh("a.b.c"), "TOKEN_INVALID");
        assert_eq!(
            refresh(&token("bob", Permission::Subscribe)),
            "TOKEN_SUBJECT"
        );
        assert_eq!(refresh(&token("ada", Permission::Publish)), "FORBIDDEN");
        assert_eq!(
            refresh(&token("ada", Permission::Subscribe)),
            "token_refreshed"
        );
    }
}
