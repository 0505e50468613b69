//! The same server seen by clients that are not ours, as a page or a script would use it: chromium,
//! node's `ws`, Python's `websockets`.

use serde_json::{Value, json};

use crate::harness::{Dial, Heard, Outside, OutsideClient, Server, Setup, kind, sample};

const AGREED: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";

/// A client that was let in, after its first message; and the subprotocol that was chosen.
fn open(outside: Outside, dial: &Dial<'_>) -> Option<(String, OutsideClient)> {
    let client = outside.dial(dial)?;
    let chosen = match client.next() {
        Heard::Open(protocol, extensions) => {
            let agreed = if dial.deflate { AGREED } else { "" };
            assert!(extensions.starts_with(agreed), "{outside:?}: {extensions}");
            assert_eq!(extensions.is_empty(), agreed.is_empty(), "{extensions}");
            protocol
        }
        other => panic!("{outside:?} at {}: {other:?}", dial.url),
    };
    assert_eq!(kind(&client.message()), "connection_established");
    Some((chosen, client))
}

fn plain() -> Server {
    server(&Setup::default())
}

fn with_tls() -> Server {
    server(&Setup {
        tls: true,
        ..Setup::default()
    })
}

/// As `setup` says, for pages too, which are served from a port of their own.
fn server(setup: &Setup<'_>) -> Server {
    let settings = format!("origins = [\"*\"]\n{}", setup.settings);
    Server::with(&Setup {
        settings: &settings,
        ..*setup
    })
}

#[test]
fn a_page_in_chromium_watches() {
    watch(Outside::Chromium, &plain());
}

#[test]
fn a_page_in_chromium_watches_over_tls() {
    watch(Outside::Chromium, &with_tls());
}

#[test]
fn nodes_ws_watches() {
    watch(Outside::Node, &plain());
}

#[test]
fn nodes_ws_watches_over_tls() {
    watch(Outside::Node, &with_tls());
}

#[test]
fn pythons_websockets_watches() {
    watch(Outside::Python, &plain());
}

#[test]
fn pythons_websockets_watches_over_tls() {
    watch(Outside::Python, &with_tls());
}

/// In either dialect, with every way to carry a token, deflated and not: events come unchanged and
/// in order, what it says is answered, and the server's close is understood.
fn watch(outside: Outside, server: &Server) {
    let token = server.viewer_token("alice", &["p"]);
    let (bearer, carried) = (format!("Bearer {token}"), format!("bearer.{token}"));
    let query = format!("/observatory?subscribe=all&token={token}");
    let keen = ["sightline.keen.v1", carried.as_str()];
    let header = [("Authorization", bearer.as_str())];
    let deflated = [
        ("/ws?subscribe=all", &keen[..], &[][..], true),
        (&query, &[], &[], true),
    ];
    // What no page can do: send a header, and not offer to deflate.
    let more = [
        ("/keen?subscribe=all", &[][..], &header[..], true),
        (&query, &[], &[], false),
        ("/ws?subscribe=all", &keen, &[], false),
    ];
    let more = more.into_iter().filter(|_| outside != Outside::Chromium);
    let mut clients = Vec::new();
    for (target, protocols, headers, deflate) in deflated.into_iter().chain(more) {
        let dial = Dial {
            url: &server.url(target),
            protocols,
            headers,
            deflate,
            trusted: server.authority.is_some().then_some(server),
        };
        let Some((chosen, client)) = open(outside, &dial) else {
            return;
        };
        let expected = protocols.first().copied().unwrap_or_default();
        assert_eq!(chosen, expected, "{outside:?} at {target}");
        clients.push(client);
    }
    let events = events();
    server.publish(&events);
    for client in &clients {
        check_events(client, &events);
        client.say(&json!({"type": "ping", "id": 1, "data": {"timestamp": 5}}));
        let pong = client.message();
        assert_eq!((kind(&pong), &pong["data"]["echo"]), ("pong", &json!(5)));
    }
    let metrics = server.page("/metrics");
    // The two large ones, once for each dialect, whoever takes them.
    assert_eq!(sample(&metrics, "sightline_frames_deflated_total"), 4.0);
    let inflated = sample(&metrics, "sightline_messages_inflated_total");
    let expected = if outside == Outside::Chromium {
        2.0
    } else {
        3.0
    };
    assert_eq!(inflated, expected, "{outside:?}");
    let body = r#"{"userId":"alice"}"#;
    server.ask("POST", "/v1/admin/revoke", &server.admin_token(), body);
    for client in &clients {
        assert_eq!(client.next(), Heard::Closed(4002), "{outside:?}");
    }
}

/// Small and large, plain and not.
fn events() -> Value {
    let event = |data: Value| json!({"event_type": "x", "project_id": "p", "data": data});
    json!([
        event(json!({"text": "ünïcode 🦀"})),
        event(json!({"large": "y".repeat(300_000)})),
        event(json!({"lines": vec!["a line like any other"; 200]})),
        event(json!({})),
    ])
}

fn check_events(client: &OutsideClient, events: &Value) {
    for expected in events.as_array().unwrap() {
        let event = client.message();
        assert_eq!((kind(&event), &event["data"]), ("x", &expected["data"]));
    }
}

#[test]
fn a_page_in_chromium_answers_heartbeats_and_publishes() {
    live(Outside::Chromium);
}

#[test]
fn nodes_ws_answers_heartbeats_and_publishes() {
    live(Outside::Node);
}

#[test]
fn pythons_websockets_answers_heartbeats_and_publishes() {
    live(Outside::Python);
}

fn live(outside: Outside) {
    let server = server(&Setup {
        settings: "heartbeat.interval_ms = 400\nheartbeat.grace_ms = 400",
        tls: true,
        ..Setup::default()
    });
    let target = |path: &str, token: String| server.url(&format!("{path}?token={token}"));
    let dial = Dial {
        url: &target("/keen", server.viewer_token("alice", &[])),
        trusted: Some(&server),
        ..Dial::default()
    };
    let Some((_, viewer)) = open(outside, &dial) else {
        return;
    };
    let dial = Dial {
        url: &target("/v1/publish", server.publisher_token()),
        ..dial
    };
    let publisher = outside.dial(&dial).expect("it was here a moment ago");
    assert!(matches!(publisher.next(), Heard::Open(..)));
    for _ in 0..3 {
        assert_eq!(kind(&viewer.message()), "cursor");
    }
    publisher.say(&json!([{"event_type": "x", "user_id": "alice"}, {"event_type": "x"}]));
    assert_eq!(publisher.message()["data"]["code"], "NO_AUDIENCE");
    assert_eq!(publisher.message()["data"]["through"], 1);
    while kind(&viewer.message()) != "x" {}
}

#[test]
fn a_refusal_is_a_status_to_scripts_and_a_close_to_whom_asks_for_one() {
    let server = plain();
    for outside in Outside::ALL {
        let dial = Dial {
            url: &server.url("/keen"),
            ..Dial::default()
        };
        let Some(refused) = outside.dial(&dial) else {
            continue;
        };
        let expected = match outside {
            // All that a page is told of an upgrade that failed.
            Outside::Chromium => Heard::Closed(1006),
            Outside::Node | Outside::Python => Heard::Refused(401),
        };
        assert_eq!(refused.next(), expected, "{outside:?}");
        let dial = Dial {
            url: &server.url("/keen?refusals=close&token=x.y.z"),
            ..dial
        };
        let closed = outside.dial(&dial).expect("it was here a moment ago");
        assert!(matches!(closed.next(), Heard::Open(..)), "{outside:?}");
        let error = closed.message();
        let told = (kind(&error), &error["data"]["code"]);
        assert_eq!(told, ("server_error", &json!("TOKEN_INVALID")));
        assert_eq!(closed.next(), Heard::Closed(4401), "{outside:?}");
    }
}

#[test]
fn who_does_not_trust_the_authority_is_not_served() {
    let server = with_tls();
    for outside in Outside::ALL {
        let dial = Dial {
            url: &server.url("/keen"),
            ..Dial::default()
        };
        let Some(client) = outside.dial(&dial) else {
            continue;
        };
        let heard = client.next();
        let is_refused = match outside {
            Outside::Chromium => heard == Heard::Closed(1006),
            Outside::Node | Outside::Python => matches!(heard, Heard::Failed(_)),
        };
        assert!(is_refused, "{outside:?}: {heard:?}");
    }
}

#[test]
fn a_page_of_another_origin_is_not_let_in() {
    let server = Server::start("");
    let token = server.viewer_token("alice", &[]);
    let dial = Dial {
        url: &server.url(&format!("/keen?token={token}")),
        ..Dial::default()
    };
    let Some(client) = Outside::Chromium.dial(&dial) else {
        return;
    };
    assert_eq!(client.next(), Heard::Closed(1006));
    let refused = server.wait_for_log("refused a request", 0);
    assert_eq!(refused["code"], "ORIGIN_REFUSED");
}
