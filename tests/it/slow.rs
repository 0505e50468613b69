//! Section 7: viewers that do not keep up. They are warned, closed at their bound, told how far
//! they got, and nobody else notices.

use serde_json::{Value, json};

use crate::harness::{RawSocket, Server, Setup, Viewer, eventually, kind, now_s, sample};

/// The smallest bound that a configuration may ask for.
const BOUND: usize = 3 * 1024 * 1024;

fn event(user: &str, n: u64) -> Value {
    json!({"event_type": "x", "user_id": user, "data": {"n": n, "pad": "y".repeat(200_000)}})
}

/// Bytes that wait for the one connection of a user; `None` where it has none.
fn queued(server: &Server, user: &str) -> Option<usize> {
    let rows = server.connections();
    let row = rows.iter().find(|row| row["userId"] == *user)?;
    Some(row["queuedBytes"].as_u64().unwrap() as usize)
}

/// Publishes to `user` until `is_enough` says so of the waiting bytes. Returns how many events.
fn publish_until(
    server: &Server,
    user: &str,
    mut is_enough: impl FnMut(Option<usize>) -> bool,
) -> u64 {
    let started_s = now_s();
    for n in 1.. {
        server.publish(&event(user, n));
        if is_enough(queued(server, user)) {
            return n;
        }
        assert!(
            now_s() < started_s + 20,
            "{:?} after {n} events",
            queued(server, user)
        );
    }
    unreachable!("an endless loop")
}

#[test]
fn a27_a_viewer_that_stops_reading_is_closed_at_its_bound() {
    let server = Server::start(&format!("limits.outbox_bytes_max = {BOUND}"));
    let token = server.viewer_token("alice", &[]);
    let mut slow = RawSocket::open(&server, "/keen", &token, b"");
    slow.expect_established();
    let mut neighbour = Viewer::open(&server, "/keen", &server.viewer_token("bob", &[]));
    let closed = |_| sample(&server.page("/metrics"), "sightline_slow_closes_total") == 1.0;
    let published = publish_until(&server, "alice", |waiting| {
        assert!(waiting.unwrap_or(0) <= BOUND + 4_096);
        server.publish(&json!({"event_type": "beside", "user_id": "bob"}));
        assert_eq!(kind(&neighbour.next()), "beside");
        closed(())
    });
    // It reads again: whole events in order, how far it got, and why it ended.
    let mut last = 0;
    loop {
        let frame = slow.next_answer();
        let message: Value = serde_json::from_str(frame.text()).unwrap();
        if kind(&message) == "cursor" {
            assert_eq!(message["data"]["streams"], json!({"user": last}));
            break;
        }
        assert_eq!(kind(&message), "x");
        last += 1;
        assert_eq!(message["seq"], last);
        assert_eq!(message["data"]["n"], last);
    }
    assert!(last > 0 && last < published, "{last} of {published}");
    assert_eq!(slow.next_answer().close_code(), 4008);
    slow.finish();
    assert_eq!(slow.next(), None);
    // It may come back.
    let mut again = Viewer::open(&server, "/keen", &token);
    assert!(again.drain().is_empty());
    let metrics = server.page("/metrics");
    assert_eq!(
        sample(&metrics, "sightline_closes_total{reason=\"slow_consumer\"}"),
        1.0
    );
}

#[test]
fn a_viewer_that_lags_is_told_and_told_when_it_has_caught_up() {
    let server = Server::start(&format!("limits.outbox_bytes_max = {BOUND}"));
    let token = server.viewer_token("alice", &[]);
    let mut slow = RawSocket::open(&server, "/observatory?subscribe=all", &token, b"");
    slow.expect_established();
    let published = publish_until(&server, "alice", |waiting| {
        waiting.is_some_and(|bytes| bytes > BOUND / 2)
    });
    let (mut events, mut lags) = (0, Vec::new());
    while lags.len() < 2 {
        let message: Value = serde_json::from_str(slow.next_answer().text()).unwrap();
        match kind(&message) {
            "lag" => lags.push(message["data"].clone()),
            _ => events += 1,
        }
    }
    assert_eq!(events, published);
    assert!(
        lags[0]["queuedBytes"].as_u64().unwrap() > BOUND as u64 / 2,
        "{lags:?}"
    );
    assert!(lags[0]["behindMs"].is_u64(), "{lags:?}");
    assert_eq!(lags[1]["queuedBytes"], 0, "{lags:?}");
    // Once more, it is told once more.
    publish_until(&server, "alice", |waiting| {
        waiting.is_some_and(|bytes| bytes > BOUND / 2)
    });
    while !slow.next_answer().text().contains(r#""type":"lag""#) {}
}

#[test]
fn the_largest_outboxes_go_first_when_all_are_too_much() {
    let bounds = format!("limits.outbox_bytes_max = {BOUND}\nlimits.outbox_bytes_total = {BOUND}");
    let server = Server::with(&Setup {
        settings: &bounds,
        cores: 1,
        ..Setup::default()
    });
    let open = |user: &str| {
        let token = server.viewer_token(user, &[]);
        RawSocket::open(&server, "/keen", &token, b"")
    };
    let (mut larger, _smaller) = (open("one"), open("two"));
    publish_until(&server, "one", |waiting| {
        waiting.is_some_and(|bytes| bytes > BOUND / 2 + 400_000)
    });
    publish_until(&server, "two", |_| {
        sample(&server.page("/metrics"), "sightline_slow_closes_total") >= 1.0
    });
    assert_eq!(larger.close_code(), 4008);
    eventually("the larger is gone", || {
        larger.finish();
        queued(&server, "one").is_none().then_some(())
    });
    assert!(queued(&server, "two").is_some());
}
