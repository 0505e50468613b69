use serde_json::Value;

use super::*;
use crate::event::{KnownType, StreamKind};
use crate::hub::Bounds;
use crate::hub::publisher::Outcome;
use crate::hub::rig::{Client, Rig, claims, event};

// Two cores; a window of a kilobyte between them; a publisher on the first, and a user of the
// second.
fn narrow() -> (Rig, Client, String) {
    let mut rig = Rig::with(2, Bounds::default(), |options| {
        options.limits.ingest_bytes_in_flight_max = 4_096;
    });
    let (publisher, user) = (rig.publisher(0), rig.id_on(1, StreamKind::User));
    (rig, publisher, user)
}

fn codes(said: &[Value]) -> Vec<&str> {
    said.iter()
        .map(|message| message["data"]["code"].as_str().unwrap_or("ack"))
        .collect()
}

fn outcome(rig: &mut Rig) -> Outcome {
    match rig.action() {
        Action::HttpPublished { outcome, .. } => outcome,
        other => panic!("{other:?}"),
    }
}

#[test]
fn each_refused_event_is_told_before_the_ack_that_covers_it() {
    let mut rig = Rig::new();
    let publisher = rig.publisher(0);
    rig.publish(
        publisher,
        &format!("[{}, 5, {{\"type\":\"a\"}}]", event(Some("ada"), None, 1)),
    );
    rig.publish(publisher, &event(Some("ada"), None, 1));
    rig.turn();
    let said = rig.read(publisher);
    assert_eq!(codes(&said), ["INVALID_FIELD", "NO_AUDIENCE", "ack"]);
    let places: Vec<(u64, u64)> = said[..2]
        .iter()
        .filter_map(|nack| {
            Some((
                nack["data"]["message"].as_u64()?,
                nack["data"]["index"].as_u64()?,
            ))
        })
        .collect();
    assert_eq!(places, [(1, 1), (1, 2)]);
    assert_eq!(said[2]["data"]["through"], 2, "one ack a turn");
    rig.check_balance();
}

#[test]
fn an_event_of_another_shape_is_taken_and_counted_by_its_type() {
    let mut rig = Rig::new();
    let publisher = rig.publisher(0);
    let completion = r#"{"type":"completion","user_id":"ada","data":{"success":1}}"#;
    let unknown = completion.replace("completion", "complete");
    rig.publish(publisher, &format!("[{completion},{unknown},{completion}]"));
    rig.turn();
    assert_eq!(codes(&rig.read(publisher)), ["ack"]);
    let errors = &rig.hub().stats.counters.event_shape_errors;
    assert_eq!(errors.at(KnownType::Completion.index()).value(), 2);
    assert_eq!(errors.total(), 2);
    rig.check_balance();
}

#[test]
fn without_room_for_a_second_all_that_follows_is_refused_until_continue() {
    let (mut rig, publisher, user) = narrow();
    let large = event(Some(&user), None, 900);
    assert_eq!(rig.publish(publisher, &large), Work::Idle);
    assert_eq!(
        rig.publish(publisher, &format!("[{large},{large}]")),
        Work::Stalled
    );
    assert_eq!(
        rig.hub().next_deadline_ms(),
        Some(rig.now.ms() + ADMISSION_PATIENCE_MS)
    );
    rig.wait(ADMISSION_PATIENCE_MS - 1);
    assert_eq!(rig.work(publisher), Work::Stalled);
    rig.wait(1);
    assert_eq!(rig.work(publisher), Work::Idle);
    assert_eq!(rig.hub().next_deadline_ms(), None);
    rig.settle();
    rig.publish(publisher, &event(Some(&user), None, 1));
    rig.turn();
    let said = rig.read(publisher);
    assert_eq!(
        codes(&said),
        ["OVERLOADED", "OVERLOADED", "ack", "OVERLOADED", "ack"]
    );
    assert_eq!(said[0]["data"]["retryAfter"], 1_000);
    rig.publish(publisher, r#"{"type":"continue"}"#);
    rig.publish(publisher, &event(Some(&user), None, 1));
    rig.settle();
    let said = rig.read(publisher);
    assert_eq!(
        (codes(&said), &said[0]["data"]["through"]),
        (vec!["ack"], &Value::from(4))
    );
    rig.check_balance();
}

#[test]
fn patience_begins_anew_whenever_something_found_room() {
    let (mut rig, publisher, user) = narrow();
    let large = event(Some(&user), None, 900);
    assert_eq!(
        rig.publish(publisher, &format!("[{large},{large},{large}]")),
        Work::Stalled
    );
    for _ in 0..2 {
        rig.wait(ADMISSION_PATIENCE_MS - 1);
        rig.settle();
        assert!(rig.hub().has_work(), "there is room again");
        rig.work(publisher);
    }
    assert_eq!(rig.work(publisher), Work::Idle);
    rig.settle();
    assert_eq!(codes(&rig.read(publisher)), ["ack"]);
}

#[test]
fn a_rate_that_is_used_up_refuses_one_event_and_no_more() {
    let mut rig = Rig::with(1, Bounds::default(), |options| {
        options.limits.publish_bytes_per_second = 1_500;
    });
    let publisher = rig.publisher(0);
    let (large, small) = (event(Some("ada"), None, 900), event(Some("ada"), None, 1));
    rig.publish(publisher, &format!("[{large},{large},{small}]"));
    rig.turn();
    let said = rig.read(publisher);
    assert_eq!(codes(&said), ["RATE_LIMITED", "ack"]);
    assert_eq!(said[0]["data"]["index"], 1);
    assert!(said[0]["data"]["retryAfter"].as_u64() > Some(0));
}

#[test]
fn a_publisher_that_does_not_read_its_nacks_is_not_parsed_until_it_does() {
    let bounds = Bounds {
        nack_bytes_queued_max: 300,
        ..Bounds::default()
    };
    let mut rig = Rig::with(1, bounds, |_| {});
    let publisher = rig.publisher(0);
    assert_eq!(rig.publish(publisher, "[5,5,5,5,5]"), Work::Stalled);
    assert_eq!(rig.work(publisher), Work::Stalled);
    assert!(!rig.hub().has_work());
    let mut count = rig.read(publisher).len();
    assert!(rig.hub().has_work(), "its outbox is read");
    while rig.work(publisher) == Work::Stalled {
        count += rig.read(publisher).len();
    }
    rig.turn();
    assert_eq!(
        count + rig.read(publisher).len(),
        6,
        "five nacks and an ack"
    );
    rig.check_balance();
}

#[test]
fn a_publisher_that_goes_away_in_the_middle_leaves_a_balanced_account() {
    let (mut rig, publisher, user) = narrow();
    let large = event(Some(&user), None, 900);
    rig.publish(publisher, &format!("[{large},{large},{large}]"));
    rig.hub().handle_disconnect(publisher.key);
    rig.settle();
    rig.check_balance();
    assert_eq!(
        rig.stats[0].counters.events_received.value(),
        2,
        "one found room, one waited"
    );
    assert_eq!(rig.stats[0].counters.ingest_bytes_in_flight.value(), 0);
    assert_eq!(rig.hub().next_deadline_ms(), None);
}

#[test]
fn a_post_is_answered_when_every_owner_has() {
    let mut rig = Rig::with(2, Bounds::default(), |_| {});
    let (user, project) = (
        rig.id_on(0, StreamKind::User),
        rig.id_on(1, StreamKind::Project),
    );
    let body = format!("[{},5]", event(Some(&user), Some(&project), 1));
    let own = claims(&user, &[&project]);
    rig.post(own, &body);
    rig.turn();
    assert!(rig.hub().poll_action().is_none());
    rig.settle();
    let outcome = outcome(&mut rig);
    assert_eq!(
        (outcome.accepted, outcome.duplicates, outcome.rejected.count),
        (1, 0, 1)
    );
    assert_eq!(outcome.rejected.rows[0].index, 1);
    rig.check_balance();
}

#[test]
fn a_post_whose_connection_is_gone_is_answered_to_nobody() {
    let mut rig = Rig::with(2, Bounds::default(), |_| {});
    let user = rig.id_on(1, StreamKind::User);
    let publisher = rig.post(claims(&user, &[]), &event(Some(&user), None, 1));
    rig.hub().handle_post_abandoned(publisher);
    rig.settle();
    assert!(rig.hub().poll_action().is_none());
    rig.check_balance();
}

#[test]
fn what_a_token_does_not_speak_for_is_forbidden() {
    let mut rig = Rig::new();
    let events = [
        event(Some("ada"), Some("7"), 1),
        event(Some("bob"), None, 1),
        event(Some("ada"), Some("8"), 1),
    ];
    rig.post(claims("ada", &["7"]), &format!("[{}]", events.join(",")));
    let outcome = outcome(&mut rig);
    let rows: Vec<_> = outcome
        .rejected
        .rows
        .iter()
        .map(|row| (row.index, row.code))
        .collect();
    let forbidden = RejectionCode::ForbiddenAudience;
    assert_eq!(
        (outcome.accepted, rows),
        (1, vec![(1, forbidden), (2, forbidden)])
    );
}

#[test]
fn a_body_of_many_turns_is_parsed_a_budget_at_a_time() {
    let mut rig = Rig::new();
    let publisher = rig.publisher(0);
    let body = format!(
        "{}{}",
        " ".repeat(3 * READ_BYTES_PER_TURN),
        event(Some("ada"), None, 1)
    );
    let mut turns = 1;
    let mut work = rig.publish(publisher, &format!("[{body}]"));
    while work == Work::More {
        turns += 1;
        work = rig.work(publisher);
    }
    assert_eq!(work, Work::Idle);
    assert!(turns > 3, "{turns}");
    rig.turn();
    assert_eq!(codes(&rig.read(publisher)), ["ack"]);
}
