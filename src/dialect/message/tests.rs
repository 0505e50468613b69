#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::dialect::Outcome;
use crate::event::SeqRange;

const NOW_MS: i64 = 1_795_341_600_000;
const EXPIRES_AT_MS: i64 = NOW_MS + 3_600_000;

fn encoded(dialect: Dialect, message: &ServerMessage<'_>) -> String {
    let mut out = b"before".to_vec();
    encode_message(dialect, message, NOW_MS, &mut out);
    let text = String::from_utf8(out).unwrap();
    text.strip_prefix("before").unwrap().to_owned()
}

/// Checks both envelopes around the same `data`, in which `TIME` stands for `EXPIRES_AT_MS`
/// and `NOW` for the message's own time.
fn check(message: &ServerMessage<'_>, name: &str, data: &str) {
    let keen = data
        .replace("TIME", r#""2026-11-22T11:00:00.000Z""#)
        .replace("NOW", r#""2026-11-22T10:00:00.000Z""#);
    assert_eq!(
        encoded(Dialect::Keen, message),
        format!(
            r#"{{"event_type":"{name}","timestamp":"2026-11-22T10:00:00.000Z","data":{keen}}}"#
        ),
    );
    let name = name.strip_prefix("server_e").map_or(name, |_| "error");
    let observatory = data
        .replace("TIME", "1795345200000")
        .replace("NOW", "1795341600000");
    assert_eq!(
        encoded(Dialect::Observatory, message),
        format!(r#"{{"type":"{name}","timestamp":1795341600000,"data":{observatory}}}"#),
    );
}

fn filter() -> Filter {
    Filter::from_json(&json!({"toolNames": ["Bash"]})).unwrap()
}

fn text_id(text: &str) -> MessageId {
    MessageId::Text(text.into())
}

#[test]
fn the_first_message_tells_what_the_connection_may_do() {
    let everything = Filter::default();
    check(
        &ServerMessage::ConnectionEstablished(ConnectionEstablished {
            connection_id: "c-1",
            epoch: Epoch(0x0bad_cafe),
            session_filters: &["a\"".into(), "b".into()],
            subscriptions: &[Subscription {
                key: everything.key(),
                filter: &everything,
            }],
            capabilities: &["resume", "cursor"],
            limits: ConnectionLimits {
                messages_per_minute: 100,
                subscriptions_max: 50,
                message_bytes_max: 16_384,
                heartbeat_interval_ms: 30_000,
            },
            expires_at_ms: EXPIRES_AT_MS,
            resume: &[
                ResumeRow {
                    stream: StreamName::Own,
                    outcome: Outcome::Fresh {
                        to: Seq(3),
                        earliest: None,
                    },
                },
                ResumeRow {
                    stream: StreamName::Project("x"),
                    outcome: Outcome::ResetUnseen,
                },
            ],
        }),
        "connection_established",
        concat!(
            r#"{"connectionId":"c-1","clientId":"c-1","serverTime":NOW,"epoch":"0badcafe","#,
            r#""sessionFilters":["a\"","b"],"#,
            r#""subscriptions":[{"subscriptionKey":"44136fa355b3678a","filters":{}}],"#,
            r#""capabilities":["resume","cursor"],"#,
            r#""limits":{"messageRateLimit":100,"maxSubscriptions":50,"#,
            r#""maxMessageBytes":16384,"heartbeatIntervalMs":30000},"expiresAt":TIME,"#,
            r#""resume":[{"stream":"user","outcome":"fresh","to":3},"#,
            r#"{"stream":"project/x","outcome":"reset"}]}"#,
        ),
    );
}

#[test]
fn positions_are_told_by_stream() {
    check(
        &ServerMessage::Cursor {
            epoch: Epoch(1),
            streams: &[
                (StreamName::Own, Seq(123)),
                (StreamName::Project("a\"b"), Seq(456)),
            ],
        },
        "cursor",
        r#"{"epoch":"00000001","streams":{"user":123,"project/a\"b":456}}"#,
    );
    check(
        &ServerMessage::Cursor {
            epoch: Epoch(1),
            streams: &[],
        },
        "cursor",
        r#"{"epoch":"00000001","streams":{}}"#,
    );
    check(
        &ServerMessage::ReplayComplete {
            id: None,
            stream: StreamName::Project("7"),
            seq: Seq(9),
            more: None,
        },
        "replay_complete",
        r#"{"stream":"project/7","seq":9}"#,
    );
    check(
        &ServerMessage::ReplayComplete {
            id: Some(&MessageId::Integer(5)),
            stream: StreamName::Own,
            seq: Seq(9),
            more: Some(true),
        },
        "replay_complete",
        r#"{"stream":"user","seq":9,"more":true,"id":5}"#,
    );
}

#[test]
fn trees_stand_as_they_were_written() {
    check(
        &ServerMessage::AgentTree {
            id: Some(&text_id("t")),
            trees: br#"[{"session_id":"a"}]"#,
            at_seq: Seq(7),
        },
        "agent_tree",
        r#"{"trees":[{"session_id":"a"}],"at_seq":7,"id":"t"}"#,
    );
    check(
        &ServerMessage::TreesOmitted {
            id: Some(&text_id("t")),
            count: 2,
            sessions: br#"["b","c"]"#,
        },
        "server_error",
        concat!(
            r#"{"code":"TREES_OMITTED","message":"2 trees found no room in the answer: "#,
            r#"ask for each by its session","details":{"count":2,"sessions":["b","c"]},"id":"t"}"#,
        ),
    );
    check(
        &ServerMessage::AgentTreeUpdate {
            data: br#"{"tree_root":"a","at_seq":7,"removed":true}"#,
        },
        "agent_tree_update",
        r#"{"tree_root":"a","at_seq":7,"removed":true}"#,
    );
}

#[test]
fn the_answer_to_subscribe_has_the_shape_of_the_question() {
    let filter = filter();
    let key = filter.key();
    let subscription = Subscription {
        key,
        filter: &filter,
    };
    let id = text_id("s1");
    check(
        &ServerMessage::SubscriptionConfirmed {
            id: Some(&id),
            subscribed: Subscribed::One(subscription),
            at: &[(StreamName::Own, Seq(5))],
            resume: &[],
        },
        "subscription_confirmed",
        &format!(
            r#"{{"subscriptionKey":"{key}","filters":{{"toolNames":["Bash"]}},"at":{{"user":5}},"id":"s1"}}"#
        ),
    );
    check(
        &ServerMessage::SubscriptionConfirmed {
            id: None,
            subscribed: Subscribed::Many(&[subscription]),
            at: &[],
            resume: &[ResumeRow {
                stream: StreamName::Own,
                outcome: Outcome::Resumed {
                    from: Seq(1),
                    to: Seq(2),
                    earliest: Some(Seq(1)),
                    lost: Some(SeqRange {
                        from: Seq(1),
                        to: Seq(1),
                    }),
                },
            }],
        },
        "subscription_confirmed",
        &format!(
            r#"{{"subscriptionKeys":["{key}"],"filters":[{{"toolNames":["Bash"]}}],"at":{{}},"resume":[{{"stream":"user","outcome":"resumed","from":1,"to":2,"earliest":1,"lost":{{"from":1,"to":1}}}}]}}"#
        ),
    );
    check(
        &ServerMessage::SubscriptionError {
            id: Some(&id),
            code: "INVALID_FILTERS",
            message: "no \"x\"".into(),
        },
        "subscription_error",
        r#"{"code":"INVALID_FILTERS","message":"no \"x\"","id":"s1"}"#,
    );
    check(
        &ServerMessage::Unsubscribed {
            id: Some(&MessageId::Integer(-3)),
            subscription_keys: &[key, Filter::default().key()],
        },
        "unsubscribed",
        &format!(r#"{{"subscriptionKeys":["{key}","44136fa355b3678a"],"id":-3}}"#),
    );
}

#[test]
fn a_pong_tells_milliseconds_in_both_dialects() {
    check(
        &ServerMessage::Pong {
            id: Some(&MessageId::Integer(i128::from(u64::MAX))),
            echo: Some(&json!("12\n")),
        },
        "pong",
        r#"{"timestamp":1795341600000,"echo":"12\n","id":18446744073709551615}"#,
    );
    let message = ServerMessage::Pong {
        id: None,
        echo: None,
    };
    check(&message, "pong", r#"{"timestamp":1795341600000}"#);
}

#[test]
fn tokens_are_told_with_their_times() {
    check(
        &ServerMessage::TokenExpiring {
            expires_at_ms: EXPIRES_AT_MS,
        },
        "token_expiring",
        r#"{"expiresAt":TIME}"#,
    );
    check(
        &ServerMessage::TokenRefreshed {
            id: Some(&text_id("t")),
            expires_at_ms: EXPIRES_AT_MS,
            added: &[ResumeRow {
                stream: StreamName::Project("8"),
                outcome: Outcome::Pending { from: Seq(2) },
            }],
            removed: &[StreamName::Project("7")],
            removed_subscriptions: &[Filter::default().key()],
        },
        "token_refreshed",
        concat!(
            r#"{"expiresAt":TIME,"added":[{"stream":"project/8","outcome":"pending","from":2}],"#,
            r#""removed":["project/7"],"removedSubscriptions":["44136fa355b3678a"],"id":"t"}"#,
        ),
    );
}

#[test]
fn refusals_and_warnings() {
    let id = text_id("9");
    check(
        &ServerMessage::Error {
            id: Some(&id),
            code: "RATE_LIMIT_EXCEEDED",
            message: "slow down".into(),
            retry_after_ms: Some(250),
        },
        "server_error",
        r#"{"code":"RATE_LIMIT_EXCEEDED","message":"slow down","retryAfter":250,"details":{"retryAfter":250},"id":"9"}"#,
    );
    check(
        &ServerMessage::Error {
            id: None,
            code: "INVALID_MESSAGE",
            message: "what?".into(),
            retry_after_ms: None,
        },
        "server_error",
        r#"{"code":"INVALID_MESSAGE","message":"what?"}"#,
    );
    check(
        &ServerMessage::Lag {
            queued_bytes: 2_097_152,
            behind_ms: 40,
        },
        "lag",
        r#"{"queuedBytes":2097152,"behindMs":40}"#,
    );
    check(
        &ServerMessage::ServerShutdown {
            message: "restarting",
            reconnect_after_ms: 1_234,
        },
        "server_shutdown",
        r#"{"message":"restarting","reconnectAfter":1234}"#,
    );
}

proptest! {
    #[test]
    fn any_text_of_a_peer_comes_back_as_it_was(
        id in any::<String>(),
        stream in any::<String>(),
        message in any::<String>(),
        keen in any::<bool>(),
    ) {
        let dialect = Dialect::ALL[usize::from(!keen)];
        let id = text_id(&id);
        let confirmed = ServerMessage::SubscriptionConfirmed {
            id: Some(&id),
            subscribed: Subscribed::Many(&[]),
            at: &[(StreamName::Project(&stream), Seq(1))],
            resume: &[],
        };
        let error = ServerMessage::Error {
            id: Some(&id),
            code: "INVALID_MESSAGE",
            message: message.as_str().into(),
            retry_after_ms: None,
        };
        let confirmed: Value = serde_json::from_str(&encoded(dialect, &confirmed)).unwrap();
        let error: Value = serde_json::from_str(&encoded(dialect, &error)).unwrap();
        let MessageId::Text(id) = &id else { unreachable!() };
        prop_assert_eq!(&confirmed["data"]["id"], id.as_str());
        prop_assert_eq!(&confirmed["data"]["at"][format!("project/{stream}")], 1);
        prop_assert_eq!(&error["data"]["message"], message.as_str());
    }
}
