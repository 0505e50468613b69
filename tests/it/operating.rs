//! Section 9: the pages of operators, who may see them where, and whether the account balances.

use serde_json::{Value, json};

use crate::harness::{
    Http, Publisher, RawSocket, Server, Setup, Viewer, eventually, request, sample, samples,
};

const PAGES: [&str; 5] = ["/livez", "/readyz", "/health", "/metrics", "/v1/stats"];

fn get(address: &str, path: &str, token: Option<&str>) -> crate::harness::Answer {
    let bearer = token.map(|token| format!("Bearer {token}"));
    let headers: Vec<_> = bearer
        .iter()
        .map(|text| ("Authorization", text.as_str()))
        .collect();
    let mut http = Http::connect(address);
    http.send(&request("GET", path, &headers, b""));
    http.receive()
}

#[test]
fn on_loopback_pages_need_no_token() {
    let server = Server::start("");
    for path in PAGES {
        assert_eq!(get(server.address(), path, None).status, 200, "{path}");
        let mut http = server.http();
        http.send(&request("HEAD", path, &[], b""));
        assert_eq!(http.receive_to("HEAD").status, 200, "{path}");
        http.send(&request("POST", path, &[], b""));
        assert_eq!(
            http.receive().refusal(),
            (405, "METHOD_NOT_ALLOWED".into()),
            "{path}"
        );
    }
    let health = get(server.address(), "/health", None).json();
    assert_eq!(health["status"], "healthy", "{health}");
}

#[test]
fn on_an_open_address_pages_need_an_administrator() {
    let server = Server::with(&Setup {
        listen: &["0.0.0.0:0"],
        settings: "ops.listen = \"127.0.0.1:0\"",
        ..Default::default()
    });
    let [open, ops] = &server.addresses[..] else {
        panic!("{:?}", server.addresses);
    };
    let open = open.replace("0.0.0.0", "127.0.0.1");
    let (admin, viewer) = (server.admin_token(), server.viewer_token("alice", &[]));
    for path in PAGES {
        let is_public = matches!(path, "/livez" | "/readyz");
        let refused = |token: Option<&str>, code: &str| {
            let answer = get(&open, path, token);
            if is_public {
                assert_eq!(answer.status, 200, "{path}");
            } else {
                assert_eq!(answer.refusal().1, code, "{path}");
            }
        };
        refused(None, "TOKEN_MISSING");
        refused(Some(&viewer), "FORBIDDEN");
        assert_eq!(get(&open, path, Some(&admin)).status, 200, "{path}");
        assert_eq!(get(ops, path, None).status, 200, "{path}");
    }
    // The operators' address serves nothing else.
    for path in ["/keen", "/v1/events", "/v1/admin/connections", "/"] {
        assert_eq!(
            get(ops, path, Some(&admin)).refusal(),
            (404, "NOT_FOUND".into()),
            "{path}"
        );
    }
}

#[test]
fn the_account_balances_at_rest() {
    let server = Server::start("");
    let [here, there] = server.users_on_two_cores();
    let target = "/keen?subscribe=all";
    let token = server.viewer_token(&here, &["p"]);
    let mut viewers = vec![
        Viewer::open(&server, target, &token),
        Viewer::open(&server, target, &server.viewer_token(&there, &["p"])),
    ];
    // One that goes without reading, and one that goes in order.
    drop(RawSocket::open(&server, target, &token, b""));
    Viewer::open(&server, target, &token).close();
    let mut publisher = Publisher::open(&server, &server.publisher_token());
    publisher.say(&json!([
        {"event_type": "x", "user_id": here, "event_id": "1"},
        {"event_type": "x", "user_id": here, "event_id": "1"},
        {"event_type": "x", "project_id": "p", "user_id": there},
        {"event_type": "x"},
        7,
    ]));
    publisher.say_text("[".into());
    assert_eq!(publisher.settle(2).len(), 3);
    server.publish(
        &json!([{"event_type": "x", "project_id": "p"}, {"event_type": "y", "user_id": there}]),
    );
    for viewer in &mut viewers {
        for _ in 0..3 {
            viewer.next();
        }
        viewer.drain();
    }
    let metrics = eventually("frames are written or gone", || {
        let metrics = server.page("/metrics");
        let value = |name: &str| samples(&metrics, name);
        let gone =
            value("sightline_frames_written_total") + value("sightline_frames_discarded_total");
        (value("sightline_frames_queued_total") == gone).then_some(metrics)
    });
    let value = |name: &str| samples(&metrics, name);
    assert_eq!(value("sightline_events_received_total"), 8.0, "{metrics}");
    let parts = [
        "sightline_events_accepted_total",
        "sightline_events_duplicate_total",
        "sightline_events_refused_total",
    ];
    assert_eq!(parts.map(value), [4.0, 1.0, 3.0]);
    assert!(value("sightline_frames_queued_total") > 0.0);
    assert_eq!(value("sightline_outbox_bytes"), 0.0);
    assert_eq!(value("sightline_ingest_bytes_in_flight"), 0.0);
    assert_eq!(value("sightline_viewers"), 2.0);
    assert_eq!(value("sightline_publishers"), 1.0);
    assert_eq!(sample(&metrics, "sightline_panics_total"), 0.0);
    assert_eq!(
        sample(&metrics, "sightline_closes_total{reason=\"normal\"}"),
        1.0
    );

    drop(viewers);
    drop(publisher);
    let stats: Value = eventually("all connections are gone", || {
        let stats: Value = serde_json::from_str(&server.page("/v1/stats")).unwrap();
        (stats["total"]["connections"]["viewers"] == 0
            && stats["total"]["connections"]["publishers"] == 0)
            .then_some(stats)
    });
    assert_eq!(stats["cores"].as_array().unwrap().len(), 2);
    let deliveries = &stats["total"]["deliveries"];
    let number = |name: &str| deliveries[name].as_u64().unwrap();
    assert_eq!(
        number("queued"),
        number("written") + number("discarded"),
        "{deliveries}"
    );
    assert_eq!(stats["total"]["subscriptions"], 0, "{stats}");
    assert_eq!(stats["total"]["interests"], 0, "{stats}");
}

#[test]
fn metrics_are_exposition_format_and_hold_nothing_of_users() {
    let server = Server::start("");
    let token = server.viewer_token("a-very-particular-user", &["a-very-particular-project"]);
    let viewer = Viewer::open(&server, "/keen?subscribe=all", &token);
    server.publish(&json!({"event_type": "x", "project_id": "a-very-particular-project"}));
    let answer = get(server.address(), "/metrics", None);
    let media_type = answer.header("content-type").unwrap();
    assert!(
        media_type.starts_with("text/plain; version=0.0.4"),
        "{media_type}"
    );
    let text = answer.text();
    assert!(!text.contains("particular"));
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (name, value) = line.rsplit_once(' ').unwrap();
        assert!(value.parse::<f64>().is_ok(), "{line}");
        assert!(
            name.starts_with("sightline_") || name.starts_with("process_"),
            "{line}"
        );
    }
    drop(viewer);
}
