use serde_json::{Value, json};

use crate::dialect::{ConnectQuery, Cursor, SubscribeScope};
use crate::event::{Dialect, Seq, Stream, StreamKind};
use crate::hub::Bounds;
use crate::hub::catch_up::tests::{
    NARROW, publish, publish_to, query, resume, rig_with, row, told,
};
use crate::hub::rig::{EPOCH, Rig, claims, seqs};
use crate::limits::ATTACH_TIMEOUT_MS;

#[test]
fn each_outcome_is_told_with_what_the_log_has() {
    let mut rig = rig_with(1, Bounds::default());
    publish(&mut rig, 9);
    let ada = Stream::user("ada");
    rig.plain.lose_after(&ada, Seq(8));
    let start = Seq::LEVEL_STEP;
    rig.restart(|options| {
        options.tiers.insert("individual".into(), 2_000);
    });
    publish(&mut rig, 2);
    let to = start + 2;
    let check = |rig: &mut Rig, cursor: &str, expected: Value, events: &[u64]| {
        let client = resume(rig, &[], cursor);
        rig.settle();
        let said = rig.read(client);
        let mut row = said[0]["data"]["resume"][0].clone();
        row.as_object_mut().map(|row| row.remove("stream"));
        assert_eq!(row, expected, "{cursor}");
        assert_eq!(seqs(&said), events, "{cursor}");
        let is_complete = said.iter().any(|one| one["type"] == "replay_complete");
        let is_replay = row["outcome"] == "resumed" || row["outcome"] == "truncated";
        assert_eq!(is_complete, is_replay, "{cursor}");
    };
    let all = [start + 1, start + 2];
    check(
        &mut rig,
        "7",
        json!({"outcome": "resumed", "from": 7, "to": to, "earliest": 1}),
        &[8, all[0], all[1]],
    );
    check(
        &mut rig,
        "9",
        json!({"outcome": "resumed", "from": 9, "to": to, "earliest": 1, "lost": {"from": 9, "to": 9}}),
        &all,
    );
    check(
        &mut rig,
        &to.to_string(),
        json!({"outcome": "resumed", "from": to, "to": to, "earliest": 1}),
        &[],
    );
    check(
        &mut rig,
        &(to + 1).to_string(),
        json!({"outcome": "reset", "from": to + 1, "to": to, "earliest": 1}),
        &[],
    );
    rig.plain.take_up_to(&ada, Seq(6));
    check(
        &mut rig,
        "2",
        json!({"outcome": "truncated", "from": 2, "to": to, "earliest": 7, "missing": {"from": 3, "to": 6}}),
        &[7, 8, all[0], all[1]],
    );
    rig.plain.take_up_to(&ada, Seq(8));
    check(
        &mut rig,
        "0",
        json!({"outcome": "truncated", "from": 0, "to": to, "earliest": all[0], "missing": {"from": 1, "to": 8}}),
        &all,
    );
}

#[test]
fn a_cursor_of_another_log_starts_nothing() {
    let mut rig = rig_with(1, Bounds::default());
    publish(&mut rig, 3);
    for (epoch, cursor) in [
        (Some("000000ff"), "1"),
        (Some("000000ff"), "0"),
        (None, "1"),
    ] {
        let query = ConnectQuery {
            cursor: Cursor::parse(epoch, Some(cursor)).unwrap_or_default(),
            ..query("0")
        };
        let client = rig.connect(claims("ada", &[]), Dialect::Observatory, query);
        rig.settle();
        let from: u64 = cursor.parse().unwrap_or_default();
        let expected = json!({"outcome": "reset", "from": from, "to": 3, "earliest": 1});
        assert_eq!(row(&mut rig, client, "user"), expected);
    }
    // All that is held may be asked for without.
    let query = ConnectQuery {
        cursor: Cursor::parse(None, Some("0")).unwrap_or_default(),
        ..query("0")
    };
    let client = rig.connect(claims("ada", &[]), Dialect::Observatory, query);
    rig.settle();
    assert_eq!(told(&mut rig, client)[1..], ["1", "2", "3", "complete 3"]);
}

#[test]
fn a_stream_that_a_subscription_reaches_later_starts_at_its_cursor() {
    let mut rig = rig_with(1, Bounds::default());
    publish(&mut rig, 3);
    publish_to(&mut rig, 3, None, Some("7"));
    let later = ConnectQuery {
        subscribe: SubscribeScope::Dialect,
        ..query("user=1,project/7=2")
    };
    let client = rig.connect(claims("ada", &["7"]), Dialect::Observatory, later);
    rig.settle();
    assert_eq!(
        row(&mut rig, client, "user"),
        json!({"outcome": "pending", "from": 1})
    );
    let subscribe = json!({"type": "subscribe", "data": {"filters": {"projectIds": [7]},
        "epoch": EPOCH.to_string(), "resume": "project/7=1"}});
    rig.say(client, &subscribe);
    rig.settle();
    let said = rig.read(client);
    assert_eq!(said[0]["type"], "subscription_confirmed");
    assert_eq!(said[0]["data"]["at"], json!({"user": 3, "project/7": 3}));
    // The own stream is reached as well, by events that name the project: there are none.
    assert_eq!(seqs(&said), [2, 3]);
    let complete: Vec<&Value> = said[1..]
        .iter()
        .filter(|one| one["seq"].is_null())
        .collect();
    assert_eq!(complete.len(), 2);
}

#[test]
fn a_project_that_a_refresh_gives_starts_at_its_cursor() {
    let mut rig = rig_with(2, NARROW);
    let user = rig.id_on(0, StreamKind::User);
    let project = rig.id_on(1, StreamKind::Project);
    publish_to(&mut rig, 3, None, Some(&project));
    let query = query(&format!("project/{project}=1"));
    let client = rig.connect(claims(&user, &[]), Dialect::Observatory, query);
    rig.settle();
    assert_eq!(rig.names(client), ["connection_established"]);
    // A cursor of a stream that it may not see is not forgotten: it may come to see it.
    let now = rig.now;
    let refresh = crate::hub::viewer::Operation::Refresh {
        id: None,
        claims: Box::new(claims(&user, &[&project])),
    };
    rig.hubs[0].enqueue(now, client.key, refresh);
    rig.settle();
    let said = rig.read(client);
    assert_eq!(said[0]["data"]["added"][0]["outcome"], "resumed");
    assert_eq!(seqs(&said), [2, 3]);
}

#[test]
fn a_log_that_does_not_go_on_holds_up_nobody_who_missed_what_it_keeps() {
    let mut rig = Rig::with_slow_log(|_| {});
    publish(&mut rig, 3);
    rig.keep(0);
    // A small ring would let go of what is kept; what is not stays.
    rig.hub().rings.set_bytes_max(0);
    publish(&mut rig, 2);
    let client = resume(&mut rig, &[], "1");
    rig.settle();
    let expected = ["2", "3", "4", "5", "complete 5"];
    assert_eq!(
        told(&mut rig, client)[1..],
        expected,
        "4 and 5 are in memory alone"
    );
}

#[test]
fn a_cursor_in_a_forgotten_stream_is_judged_when_the_log_keeps_all_that_was_in_it() {
    let bounds = Bounds {
        streams_idle_max: 0,
        ..NARROW
    };
    let mut rig = rig_with(1, bounds);
    rig.logs[0].is_slow = true;
    // A stream whose events come to something is not forgotten before that is.
    for user in ["ada", "ada", "ada", "bob", "cy", "dan", "eve"] {
        let publisher = rig.publisher(0);
        let note = json!({"type": "note", "user_id": user});
        rig.publish(publisher, &note.to_string());
        rig.settle();
    }
    let client = resume(&mut rig, &[], "1");
    rig.settle();
    assert!(told(&mut rig, client).is_empty(), "nothing is kept yet");
    rig.keep(0);
    rig.settle();
    let all = rig.plain.seqs(&Stream::user("ada"));
    assert_eq!((seqs(&rig.read(client)), all.len()), (all[1..].to_vec(), 3));
}

#[test]
fn another_core_waits_for_what_the_owner_alone_has() {
    let mut rig = rig_with(2, NARROW);
    let user = rig.id_on(0, StreamKind::User);
    let project = rig.id_on(1, StreamKind::Project);
    publish_to(&mut rig, 2, None, Some(&project));
    rig.logs[1].is_slow = true;
    publish_to(&mut rig, 2, None, Some(&project));
    let query = query(&format!("project/{project}=1"));
    let client = rig.connect(claims(&user, &[&project]), Dialect::Observatory, query);
    rig.settle();
    assert_eq!(seqs(&rig.read(client)), [2], "3 and 4 are not kept yet");
    rig.keep(1);
    rig.settle();
    let said = rig.read(client);
    assert_eq!(seqs(&said), [3, 4]);
    assert_eq!(said[2]["data"]["seq"], 4);
}

#[test]
fn a_log_that_cannot_be_read_costs_those_who_missed_nothing_no_more_than_a_word() {
    let mut rig = rig_with(1, NARROW);
    publish(&mut rig, 2);
    rig.plain.is_broken = true;
    for cursor in ["2", "9"] {
        let client = resume(&mut rig, &[], cursor);
        rig.settle();
        let earliest = &row(&mut rig, client, "user")["earliest"];
        assert_eq!(*earliest, json!(3), "what comes next will be held");
        assert_eq!(rig.closing(client), None);
    }
}

#[test]
fn a_log_that_does_not_answer_keeps_out_only_those_who_need_it() {
    let mut rig = rig_with(1, NARROW);
    publish(&mut rig, 2);
    rig.plain.is_silent = true;
    let clients = ["2", "1"].map(|cursor| resume(&mut rig, &[], cursor));
    rig.settle();
    rig.wait(ATTACH_TIMEOUT_MS);
    for client in clients {
        rig.fire(client);
    }
    assert_eq!(
        clients.map(|client| rig.closing(client)),
        [None, Some(1011)]
    );
    assert_eq!(row(&mut rig, clients[0], "user")["outcome"], "resumed");
    // An answer that comes after all is nobody's.
    rig.plain.is_silent = false;
    rig.settle();
    publish(&mut rig, 1);
    assert_eq!(seqs(&rig.read(clients[0])), [3]);
}

#[test]
fn another_core_does_not_wait_for_the_records_of_other_streams() {
    let mut rig = rig_with(2, NARROW);
    let user = rig.id_on(0, StreamKind::User);
    let project = rig.id_on(1, StreamKind::Project);
    publish_to(&mut rig, 3, None, Some(&project));
    rig.logs[1].is_slow = true;
    let other = (0..99).map(|n| format!("other-{n}")).find(|other| {
        let partition = rig.hubs[0].partition();
        partition.core_of(StreamKind::Project, other) == 1
    });
    publish_to(&mut rig, 1, None, other.as_deref());
    let query = query(&format!("project/{project}=1"));
    let client = rig.connect(claims(&user, &[&project]), Dialect::Observatory, query);
    rig.settle();
    assert_eq!(seqs(&rig.read(client)), [2, 3]);
}
