//! Section 8's known types at publishing: a producer's slip never hides an event, and a publisher
//! that asks for it is told where it slipped.

use serde_json::{Value, json};
use sightline::auth::Permission;

use crate::harness::{Publisher, Server, Token, Viewer, sample, samples, text};

const SHAPE_ERRORS: &str = "sightline_event_shape_errors_total";

fn event(event_type: &str, data: &Value) -> Value {
    json!({"event_type": event_type, "user_id": "alice", "session_id": "s", "data": data})
}

/// An event whose data has a field of another type, and the path of it.
fn slips() -> Vec<(Value, &'static str)> {
    let spawn = json!({"parent_session": "s", "child_session": 7});
    let commit = json!({"operation_type": "commit", "files_changed": ["a", 1]});
    let message = json!({"conversationId": "c", "message": {"id": 1, "type": 2}});
    vec![
        (event("agent_spawned", &spawn), "data.child_session"),
        (event("git_operation", &commit), "data.files_changed[1]"),
        (event("message_added", &message), "data.message.type"),
        (event("completion", &json!("done")), "data"),
        (event("phase_transition", &json!({})), "data.to_phase"),
    ]
}

#[test]
fn a_slip_hides_no_event_and_is_counted() {
    let server = Server::start("");
    let mut viewer = Viewer::open(&server, "/keen", &server.viewer_token("alice", &[]));
    for (event, _) in slips() {
        server.publish(&event);
        let seen = viewer.next_text();
        // What the server adds comes behind.
        let data = event["data"].to_string();
        let data = data.trim_end_matches('}');
        assert!(seen.contains(&format!("\"data\":{data}")), "{seen}");
    }
    // What is well-formed, or of a type that nobody knows, counts for nothing.
    server.publish(&json!([
        event("completion", &json!({"success": true, "mine": [1]})),
        event("my_own", &json!({"child_session": 7})),
    ]));
    let metrics = server.page("/metrics");
    for name in ["agent_spawned", "git_operation", "message_added"] {
        let labelled = format!("{SHAPE_ERRORS}{{type=\"{name}\"}}");
        assert_eq!(sample(&metrics, &labelled), 1.0, "{name}");
    }
    assert_eq!(samples(&metrics, SHAPE_ERRORS), slips().len() as f64);
    assert_eq!(samples(&metrics, "sightline_events_refused_total"), 0.0);
}

#[test]
fn whoever_publishes_strictly_is_told_of_each_slip_with_its_path() {
    let server = Server::start("");
    let mut viewer = Viewer::open(&server, "/keen", &server.viewer_token("alice", &[]));
    let good = event("phase_transition", &json!({"to_phase": "PLAN"}));
    let unknown = event("my_own", &json!({"to_phase": 7}));
    let mut batch: Vec<Value> = slips().into_iter().map(|(event, _)| event).collect();
    batch.insert(0, good.clone());
    batch.push(unknown.clone());
    let token = server.publisher_token();
    let body = Value::from(batch.clone()).to_string();
    let answer = server.ask("POST", "/v1/events?strict=1", &token, &body);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let answer = answer.json();
    assert_eq!(answer["accepted"], 2, "{answer}");
    let rows = answer["rejected"].as_array().unwrap();
    assert_eq!(rows.len(), slips().len(), "{answer}");
    for (row, (place, (_, path))) in rows.iter().zip(slips().iter().enumerate()) {
        assert_eq!(row["index"], place + 1, "{row}");
        assert_eq!(row["code"], "INVALID_FIELD", "{row}");
        let message = text(&row["message"]);
        assert!(message.starts_with(&format!("{path} is ")), "{row}");
    }
    assert_eq!(viewer.next()["event_type"], "phase_transition");
    assert_eq!(viewer.next()["event_type"], "my_own");

    let alone = slips().remove(0).0.to_string();
    let refused = server.ask("POST", "/v1/events?strict=1&ack=received", &token, &alone);
    assert_eq!(refused.status, 400, "{}", refused.text());
    let metrics = server.page("/metrics");
    // They are refused, and so not taken as they are.
    assert_eq!(samples(&metrics, SHAPE_ERRORS), 0.0);
    assert_eq!(
        sample(
            &metrics,
            "sightline_events_refused_total{code=\"INVALID_FIELD\"}"
        ),
        (slips().len() + 1) as f64
    );
}

#[test]
fn a_publisher_over_websocket_is_strict_on_whichever_core_it_lands() {
    let server = Server::start("");
    for sub in server.users_on_two_cores() {
        let token = server.mint(&Token::of(&sub, &[]).with(&[Permission::PublishAny]));
        let mut strict = Publisher::try_open(&server, "/v1/publish?strict=1", &token).unwrap();
        let good = event("completion", &json!({"success": true}));
        let (slip, path) = slips().swap_remove(1);
        strict.say(&json!([good, slip]));
        strict.say(&slip);
        let nacks = strict.settle(2);
        let found: Vec<_> = nacks
            .iter()
            .map(|nack| (&nack["message"], &nack["index"], &nack["code"]))
            .collect();
        let code = json!("INVALID_FIELD");
        let expected = [(json!(1), json!(1)), (json!(2), json!(0))];
        assert_eq!(
            found,
            expected
                .iter()
                .map(|(message, index)| (message, index, &code))
                .collect::<Vec<_>>()
        );
        for nack in &nacks {
            assert!(text(&nack["reason"]).starts_with(path), "{nack}");
        }

        let mut lenient = Publisher::try_open(&server, "/v1/publish?strict=0", &token).unwrap();
        lenient.say(&slip);
        assert!(lenient.settle(1).is_empty());
    }
    assert_eq!(samples(&server.page("/metrics"), SHAPE_ERRORS), 2.0);
}

#[test]
fn strict_is_0_or_1() {
    let server = Server::start("");
    let token = server.publisher_token();
    let body = event("completion", &json!({})).to_string();
    for value in ["", "2", "true", "1&strict=yes"] {
        let target = format!("/v1/events?strict={value}");
        let refused = server.ask("POST", &target, &token, &body).refusal();
        assert_eq!(refused, (400, "BAD_REQUEST".into()), "{value}");
        let target = format!("/v1/publish?strict={value}");
        let refused = Publisher::try_open(&server, &target, &token).err().unwrap();
        assert_eq!((refused.status, &*refused.code), (400, "BAD_REQUEST"));
    }
}
