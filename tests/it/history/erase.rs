use std::path::Path;

use serde_json::json;

use super::data_in;
use crate::harness::{Server, Viewer, eventually, kind, request};

/// The files below a folder that hold this text.
fn holding(folder: &Path, needle: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let bytes = std::fs::read(&path).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        if text.contains(needle) {
            found.push(path.display().to_string());
        }
    }
    found
}

#[test]
fn an_erased_user_is_gone_from_the_disk_and_nobody_else_is() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(&data_in(folder.path()));
    let log = folder.path().join("log");
    let event = |user: &str, n: usize| {
        json!({"event_type": "step", "user_id": user, "project_id": 7,
               "data": {"said": format!("a word of {user}"), "n": n}})
    };
    let events: Vec<_> = (0..30)
        .flat_map(|n| [event("ada", n), event("bob", n)])
        .collect();
    server.publish(&json!(events));
    assert_eq!(holding(&log, "a word of ada").len(), 1);
    let admin = server.admin_token();
    let erase = |token: &str, body: &str| server.ask("POST", "/v1/admin/erase", token, body);
    let answer = erase(&admin, r#"{"userId":"ada"}"#);
    // Both copies of each.
    assert_eq!((answer.status, answer.json()), (200, json!({"erased": 60})));
    assert!(holding(&log, "a word of ada").is_empty());
    assert_eq!(holding(&log, "a word of bob").len(), 1);
    assert_eq!(
        erase(&admin, r#"{"userId":"ada"}"#).json(),
        json!({"erased": 0})
    );
    assert_eq!(erase(&admin, r#"{"userId":"x","y":1}"#).status, 400);
    assert_eq!(
        erase(&server.publisher_token(), r#"{"userId":"bob"}"#).status,
        403
    );
    // Nothing comes from memory either, and the stream goes on.
    let mut viewer = Viewer::open(
        &server,
        "/observatory?subscribe=all&resume=0",
        &server.viewer_token("ada", &[]),
    );
    assert_eq!(kind(&viewer.next()), "replay_complete");
    let token = server.viewer_token("cy", &["7"]);
    let mut member = Viewer::open(&server, "/keen?subscribe=all&resume=project/7%3D0", &token);
    for n in 0..30 {
        let event = member.skip_to("step");
        assert_eq!(event["data"], json!({"said": "a word of bob", "n": n}));
    }
    server.publish(&event("ada", 99));
    assert_eq!(viewer.skip_to("step")["data"]["n"], json!(99));
}

#[test]
fn an_erasure_is_done_though_its_administrator_does_not_wait_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(&data_in(folder.path()));
    let log = folder.path().join("log");
    let authorization = format!("Bearer {}", server.admin_token());
    let headers = [("Authorization", authorization.as_str())];
    for n in 0..3 {
        let (user, said) = (format!("user-{n}"), format!("the {n}th word"));
        server.publish(&json!({"event_type": "step", "user_id": user, "data": said}));
        let body = json!({"userId": user}).to_string();
        let mut http = server.http();
        http.send(&request(
            "POST",
            "/v1/admin/erase",
            &headers,
            body.as_bytes(),
        ));
        drop(http);
        eventually("it is gone", || {
            holding(&log, &said).is_empty().then_some(())
        });
    }
}
