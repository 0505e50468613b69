//! The same server seen by node's `ws`, as a script or a page would use it.

use serde_json::json;

use crate::harness::{Heard, NodeClient, Server, kind, sample};

fn url(server: &Server, target: &str) -> String {
    format!("ws://{}{target}", server.address())
}

#[test]
fn node_watches_in_either_dialect_with_every_carrier() {
    let server = Server::start("");
    let token = server.viewer_token("alice", &["p"]);
    let bearer = json!({"Authorization": format!("Bearer {token}")});
    let carried = format!("bearer.{token}");
    let query = format!("/observatory?subscribe=all&token={token}");
    let keen = ["sightline.keen.v1", carried.as_str()];
    let carriers = [
        (
            "/ws?subscribe=all",
            &keen[..],
            json!({}),
            "sightline.keen.v1",
        ),
        (query.as_str(), &[], json!({}), ""),
        ("/keen?subscribe=all", &[], bearer, ""),
    ];
    // Not deflated, as `ws` does it by itself, and all that it says.
    let offers = [
        (json!(false), ""),
        (json!(true), "permessage-deflate"),
        (json!({"threshold": 0}), "permessage-deflate"),
    ];
    let mut clients = Vec::new();
    for (target, protocols, headers, chosen) in &carriers {
        for (offer, agreed) in &offers {
            let options = json!({"headers": headers, "perMessageDeflate": offer});
            let client = NodeClient::open_with(&url(&server, target), protocols, &options);
            let Some(mut client) = client else { return };
            match client.next() {
                Heard::Open(protocol, extensions) => {
                    assert_eq!((protocol.as_str(), extensions.as_str()), (*chosen, *agreed));
                }
                other => panic!("{target}: {other:?}"),
            }
            assert_eq!(kind(&client.message()), "connection_established");
            clients.push(client);
        }
    }
    let data = json!({"text": "ünïcode 🦀", "large": "y".repeat(300_000)});
    server.publish(&json!({"event_type": "x", "project_id": "p", "data": data}));
    for client in &mut clients {
        let event = client.message();
        assert_eq!((kind(&event), &event["data"]), ("x", &data));
        client.say(&json!({"type": "ping", "id": 1, "data": {"timestamp": 5}}));
        let pong = client.message();
        assert_eq!((kind(&pong), &pong["data"]["echo"]), ("pong", &json!(5)));
    }
    let metrics = server.page("/metrics");
    // Once for each dialect, whoever takes it.
    assert_eq!(sample(&metrics, "sightline_frames_deflated_total"), 2.0);
    assert_eq!(sample(&metrics, "sightline_messages_inflated_total"), 3.0);
    let body = r#"{"userId":"alice"}"#;
    server.ask("POST", "/v1/admin/revoke", &server.admin_token(), body);
    for client in &mut clients {
        assert!(matches!(client.next(), Heard::Closed(4002)));
    }
}

#[test]
fn node_answers_heartbeats_and_publishes() {
    let server = Server::start("heartbeat.interval_ms = 150\nheartbeat.grace_ms = 150");
    let bearer = |token: String| json!({"Authorization": format!("Bearer {token}")});
    let viewer = bearer(server.viewer_token("alice", &[]));
    let Some(mut viewer) = NodeClient::open(&url(&server, "/keen"), &[], &viewer) else {
        return;
    };
    let publisher = bearer(server.publisher_token());
    let publisher = NodeClient::open(&url(&server, "/v1/publish"), &[], &publisher);
    let mut publisher = publisher.expect("there was a node a moment ago");
    assert!(matches!(publisher.next(), Heard::Open(..)));
    assert!(matches!(viewer.next(), Heard::Open(..)));
    assert_eq!(kind(&viewer.message()), "connection_established");
    for _ in 0..4 {
        assert_eq!(kind(&viewer.message()), "cursor");
    }
    publisher.say(&json!([{"event_type": "x", "user_id": "alice"}, {"event_type": "x"}]));
    assert_eq!(publisher.message()["data"]["code"], "NO_AUDIENCE");
    assert_eq!(publisher.message()["data"]["through"], 1);
    while kind(&viewer.message()) != "x" {}
}

#[test]
fn node_is_refused_by_status_or_by_close() {
    let server = Server::start("");
    let Some(mut refused) = NodeClient::open(&url(&server, "/keen"), &[], &json!({})) else {
        return;
    };
    assert!(matches!(refused.next(), Heard::Refused(401)));
    let target = url(&server, "/keen?refusals=close&token=x.y.z");
    let mut closed = NodeClient::open(&target, &[], &json!({})).expect("node, as before");
    assert!(matches!(closed.next(), Heard::Open(..)));
    let error = closed.message();
    assert_eq!(
        (kind(&error), &error["data"]["code"]),
        ("server_error", &json!("TOKEN_INVALID"))
    );
    assert!(matches!(closed.next(), Heard::Closed(4401)));
}
