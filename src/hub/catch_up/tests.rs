use proptest::prelude::*;
use serde_json::{Value, json};

use crate::dialect::{ConnectQuery, Cursor, SubscribeScope};
use crate::event::{Dialect, Seq, Stream, StreamKind};
use crate::hub::Bounds;
use crate::hub::frames::Variant;
use crate::hub::rig::{Client, EPOCH, OUTBOX_BYTES_MAX, Rig, claims, event, seqs};

/// A ring that holds next to nothing, so that the log is read.
pub const NARROW: Bounds = Bounds {
    ring_bytes_max: 0,
    streams_idle_max: 1_000,
    ..Bounds::USUAL
};

pub fn rig_with(cores: usize, bounds: Bounds) -> Rig {
    Rig::with(cores, bounds, |options| {
        options.tiers.insert("individual".into(), 2_000);
    })
}

// Publishes to ada's stream, a turn each.
pub fn publish(rig: &mut Rig, count: usize) {
    publish_to(rig, count, Some("ada"), None);
}

pub fn publish_to(rig: &mut Rig, count: usize, user: Option<&str>, project: Option<&str>) {
    let publisher = rig.publisher(0);
    for _ in 0..count {
        rig.publish(publisher, &event(user, project, 100));
        rig.settle();
    }
    rig.read(publisher);
    rig.hubs[0].handle_disconnect(publisher.key);
}

pub fn query(resume: &str) -> ConnectQuery {
    ConnectQuery {
        subscribe: SubscribeScope::All,
        cursor: Cursor::parse(Some(&EPOCH.to_string()), Some(resume)).unwrap_or_default(),
        ..ConnectQuery::default()
    }
}

pub fn resume(rig: &mut Rig, projects: &[&str], cursor: &str) -> Client {
    let query = query(cursor);
    rig.connect(claims("ada", projects), Dialect::Observatory, query)
}

// What a client was told, in short: `greeting`, seqs of events, `complete 3`.
pub fn told(rig: &mut Rig, client: Client) -> Vec<String> {
    let short = |message: &Value| match message["seq"].as_u64() {
        Some(seq) if message["stream"] == "user" => seq.to_string(),
        Some(seq) => format!("p{seq}"),
        None if message["type"] == "replay_complete" => {
            format!("complete {}", message["data"]["seq"])
        }
        None => message["type"]
            .as_str()
            .map_or_else(|| message["close"].to_string(), str::to_owned),
    };
    rig.read(client).iter().map(short).collect()
}

// The row of one stream in the greeting, without its name.
pub fn row(rig: &mut Rig, client: Client, stream: &str) -> Value {
    let said = rig.read(client);
    assert_eq!(said[0]["type"], "connection_established");
    let rows = said[0]["data"]["resume"].as_array().cloned();
    let mut rows = rows.unwrap_or_default().into_iter();
    let mut row = rows.find(|row| row["stream"] == stream).unwrap_or_default();
    row.as_object_mut().map(|row| row.remove("stream"));
    row
}

fn check_nothing_left(rig: &Rig) {
    for stats in &rig.stats {
        let counters = &stats.counters;
        assert_eq!(counters.catch_ups.value(), 0);
        assert_eq!(counters.interests.value(), 0);
        assert_eq!(counters.outbox_bytes.value(), 0);
    }
}

#[test]
fn what_was_missed_comes_in_order_then_the_end_of_it_then_live() {
    for bounds in [Bounds::default(), NARROW] {
        let mut rig = rig_with(1, bounds);
        publish(&mut rig, 5);
        let client = resume(&mut rig, &[], "2");
        rig.settle();
        let expected = ["connection_established", "3", "4", "5", "complete 5"];
        assert_eq!(told(&mut rig, client), expected);
        publish(&mut rig, 1);
        assert_eq!(told(&mut rig, client), ["6"]);
        rig.hub().handle_disconnect(client.key);
        check_nothing_left(&rig);
    }
}

#[test]
fn who_missed_nothing_is_told_so() {
    let mut rig = rig_with(1, Bounds::default());
    publish(&mut rig, 2);
    for (cursor, expected) in [
        ("2", vec!["complete 2"]),
        ("0", vec!["1", "2", "complete 2"]),
    ] {
        let client = resume(&mut rig, &[], cursor);
        rig.settle();
        assert_eq!(told(&mut rig, client)[1..], expected);
    }
    let counters = &rig.stats[0].counters;
    assert_eq!(
        (counters.ring_hits.value(), counters.ring_misses.value()),
        (2, 0)
    );
}

#[test]
fn events_that_come_while_it_catches_up_follow_what_was_missed() {
    let mut rig = rig_with(1, NARROW);
    publish(&mut rig, 3);
    rig.holds_reads = true;
    let client = resume(&mut rig, &[], "1");
    rig.settle();
    assert!(
        told(&mut rig, client).is_empty(),
        "the log has not answered"
    );
    publish(&mut rig, 1);
    rig.answer_reads();
    rig.settle();
    assert_eq!(told(&mut rig, client), ["connection_established"]);
    publish(&mut rig, 1);
    assert_eq!(rig.stats[0].counters.catch_ups.value(), 1);
    while rig.answer_reads() {
        rig.settle();
    }
    assert_eq!(told(&mut rig, client), ["2", "3", "4", "complete 4", "5"]);
    assert_eq!(rig.stats[0].counters.catch_ups.value(), 0);
}

#[test]
fn several_streams_continue_each_from_its_place_wherever_they_live() {
    for bounds in [Bounds::default(), NARROW] {
        let mut rig = rig_with(3, bounds);
        let home = rig.core_of(StreamKind::User, "ada");
        let projects: Vec<String> = (0..3)
            .map(|core| rig.id_on(core, StreamKind::Project))
            .collect();
        let names: Vec<&str> = projects.iter().map(String::as_str).collect();
        publish(&mut rig, 4);
        for name in &names {
            publish_to(&mut rig, 4, None, Some(name));
        }
        let cursor = format!(
            "user=1,project/{}=2,project/{}=4,project/{}=0",
            names[0], names[1], names[2]
        );
        let client = resume(&mut rig, &names, &cursor);
        assert_eq!(client.core, home);
        rig.settle();
        let said = rig.read(client);
        let of = |stream: &str| {
            let events = said.iter().filter(|one| one["stream"] == stream);
            events
                .filter_map(|one| one["seq"].as_u64())
                .collect::<Vec<_>>()
        };
        assert_eq!(of("user"), [2, 3, 4]);
        let expected = [vec![3, 4], vec![], vec![1, 2, 3, 4]];
        for (name, expected) in names.iter().zip(expected) {
            assert_eq!(of(&format!("project/{name}")), expected, "{bounds:?}");
        }
        let complete = said.iter().filter(|one| one["type"] == "replay_complete");
        assert_eq!(complete.count(), 4);
        for name in &names {
            publish_to(&mut rig, 1, None, Some(name));
        }
        assert_eq!(seqs(&rig.read(client)), [5, 5, 5]);
        rig.hubs[home].handle_disconnect(client.key);
        rig.settle();
        check_nothing_left(&rig);
    }
}

#[test]
fn the_own_events_of_a_project_are_passed_over() {
    for bounds in [Bounds::default(), NARROW] {
        let mut rig = rig_with(1, bounds);
        publish_to(&mut rig, 1, None, Some("7"));
        publish_to(&mut rig, 1, Some("ada"), Some("7"));
        publish_to(&mut rig, 1, Some("bob"), Some("7"));
        let client = resume(&mut rig, &["7"], "project/7=0,user=0");
        rig.settle();
        let mut events = told(&mut rig, client);
        events.retain(|one| one.starts_with('p') || one.parse::<u64>().is_ok());
        events.sort();
        assert_eq!(events, ["1", "p1", "p3"]);
    }
}

#[test]
fn a_filter_that_changes_meanwhile_counts_from_the_seq_that_was_told() {
    let mut rig = rig_with(1, NARROW);
    let publisher = rig.publisher(0);
    let send = |rig: &mut Rig, names: &[&str]| {
        for name in names {
            let text = event(Some("ada"), None, 1).replace("progress_update", name);
            rig.publish(publisher, &text);
            rig.settle();
        }
    };
    send(&mut rig, &["a", "b", "c"]);
    let client = resume(&mut rig, &[], "0");
    rig.holds_reads = true;
    rig.say(client, &json!({"type": "unsubscribe"}));
    rig.say(
        client,
        &json!({"type": "subscribe", "data": {"filters": {"eventTypes": ["a"]},
        "epoch": EPOCH.to_string(), "resume": "0"}}),
    );
    rig.settle();
    rig.answer_reads();
    rig.settle();
    rig.answer_reads();
    rig.turn();
    // It waits for its events, and asks for more.
    let subscribe =
        |types: Value| json!({"type": "subscribe", "data": {"filters": {"eventTypes": types}}});
    rig.say(client, &subscribe(json!(["b"])));
    send(&mut rig, &["a", "b", "c"]);
    rig.holds_reads = false;
    rig.settle();
    let said = rig.read(client);
    let confirmed: Vec<&Value> = said
        .iter()
        .filter(|one| one["type"] == "subscription_confirmed")
        .collect();
    assert_eq!(confirmed[1]["data"]["at"], json!({"user": 3}));
    assert_eq!(seqs(&said), [1, 4, 5]);
}

#[test]
fn who_wants_less_gets_nothing_more_of_what_it_missed() {
    let mut rig = rig_with(1, NARROW);
    publish(&mut rig, 3);
    rig.holds_reads = true;
    let client = resume(&mut rig, &[], "0");
    rig.turn();
    rig.answer_reads();
    rig.turn();
    assert_eq!(rig.stats[0].counters.catch_ups.value(), 1);
    rig.say(client, &json!({"type": "unsubscribe"}));
    rig.answer_reads();
    rig.settle();
    publish(&mut rig, 1);
    let expected = ["connection_established", "unsubscribed"];
    assert_eq!(told(&mut rig, client), expected);
    check_nothing_left(&rig);
}

#[test]
fn a_slow_viewer_is_sent_no_more_than_it_takes_and_all_of_it_in_the_end() {
    for bounds in [Bounds::default(), NARROW] {
        let mut rig = rig_with(1, bounds);
        publish(&mut rig, 200);
        let client = resume(&mut rig, &[], "0");
        rig.settle();
        let queued = |rig: &Rig| rig.stats[0].counters.outbox_bytes.value();
        // A quarter of what an outbox holds, and the greeting.
        assert!(queued(&rig) < 6_500, "{}", queued(&rig));
        assert!(!rig.hub().has_work(), "it waits for the viewer");
        let now = rig.now;
        rig.hub().send_present_cursor(now, client.key);
        let mut found = Vec::new();
        let mut cursors = Vec::new();
        for _ in 0..200 {
            let said = rig.read(client);
            cursors.extend(
                said.iter()
                    .filter_map(|one| one["data"]["streams"]["user"].as_u64()),
            );
            found.extend(seqs(&said));
            rig.settle();
        }
        assert_eq!(found, (1..=200).collect::<Vec<u64>>());
        assert!(cursors[0] > 0 && cursors[0] < 200, "{cursors:?}");
        assert_eq!(rig.closing(client), None);
    }
}

#[test]
fn a_viewer_that_goes_leaves_nothing_whatever_it_waited_for() {
    for moment in 0..6 {
        let mut rig = rig_with(2, NARROW);
        let (user, project) = (
            rig.id_on(0, StreamKind::User),
            rig.id_on(1, StreamKind::Project),
        );
        publish_to(&mut rig, 30, Some(&user), None);
        publish_to(&mut rig, 30, None, Some(&project));
        rig.holds_reads = true;
        let query = query(&format!("user=0,project/{project}=0"));
        let client = rig.connect(claims(&user, &[&project]), Dialect::Observatory, query);
        for _ in 0..moment {
            rig.settle();
            rig.answer_reads();
        }
        rig.hubs[0].handle_disconnect(client.key);
        rig.settle();
        while rig.answer_reads() {
            rig.settle();
        }
        check_nothing_left(&rig);
        assert!(rig.hubs.iter().all(|hub| !hub.has_work()));
    }
}

#[test]
fn who_is_closed_while_behind_is_told_how_far_it_is() {
    let mut rig = rig_with(1, NARROW);
    publish(&mut rig, 100);
    let (slow, other) = (resume(&mut rig, &[], "10"), resume(&mut rig, &[], "20"));
    rig.settle();
    let now = rig.now;
    rig.hub().close_slow(now, slow.key, None);
    rig.hub().handle_drain(now, now.ms() + 1_000);
    rig.settle();
    for (client, first, close) in [(slow, 11, 4008), (other, 21, 1001)] {
        let said = rig.read(client);
        let cursor = said.iter().find(|one| one["type"] == "cursor");
        let place = cursor.and_then(|cursor| cursor["data"]["streams"]["user"].as_u64());
        let found = seqs(&said);
        let last = found.last().copied().unwrap_or(first - 1);
        assert_eq!(found, (first..=last).collect::<Vec<u64>>());
        assert_eq!(place, Some(last));
        assert_eq!(
            said.last().map(|one| one["close"].clone()),
            Some(json!(close))
        );
    }
    check_nothing_left(&rig);
}

#[test]
fn what_came_in_the_turn_in_which_the_last_viewer_left_is_not_lost() {
    // The log has nothing yet: memory must have it.
    let mut rig = Rig::with_slow_log(|_| {});
    let (viewer, publisher) = (rig.viewer("ada", &[]), rig.publisher(0));
    rig.settle();
    rig.publish(publisher, &event(Some("ada"), None, 1));
    rig.hub().handle_disconnect(viewer.key);
    rig.publish(publisher, &event(Some("ada"), None, 1));
    rig.settle();
    let client = resume(&mut rig, &[], "0");
    rig.settle();
    assert_eq!(seqs(&rig.read(client)), [1, 2]);
}

#[test]
fn who_is_closed_before_anything_came_is_where_it_was() {
    let mut rig = rig_with(1, NARROW);
    publish(&mut rig, 9);
    rig.holds_reads = true;
    let client = resume(&mut rig, &[], "4");
    rig.turn();
    rig.answer_reads();
    rig.turn();
    rig.read(client);
    let now = rig.now;
    rig.hub().close_slow(now, client.key, None);
    let said = rig.read(client);
    assert_eq!(said[0]["data"]["streams"], json!({"user": 4}));
    assert_eq!(said[1]["close"], 4008);
}

#[test]
fn what_came_in_the_turn_in_which_only_those_who_are_behind_stayed_is_in_order() {
    let mut rig = rig_with(1, NARROW);
    publish(&mut rig, 1);
    let (live, publisher) = (rig.viewer("ada", &[]), rig.publisher(0));
    rig.settle();
    rig.read(live);
    rig.holds_reads = true;
    let behind = resume(&mut rig, &[], "0");
    rig.turn();
    rig.answer_reads();
    rig.turn();
    rig.publish(publisher, &event(Some("ada"), None, 1));
    rig.hub().handle_disconnect(live.key);
    rig.publish(publisher, &event(Some("ada"), None, 1));
    rig.holds_reads = false;
    rig.settle();
    assert_eq!(seqs(&rig.read(behind)), [1, 2, 3]);
}

#[test]
fn a_turn_in_which_an_encoding_was_given_up_is_whole_for_those_who_come_back() {
    let mut rig = rig_with(1, Bounds::default());
    let publisher = rig.publisher(0);
    let viewers = Dialect::ALL.map(|dialect| rig.viewer_of("ada", &[], Variant::plain(dialect)));
    rig.settle();
    rig.publish(publisher, &event(Some("ada"), None, 1));
    rig.hub().handle_disconnect(viewers[0].key);
    rig.publish(publisher, &event(Some("ada"), None, 1));
    rig.settle();
    let keen = rig.connect(claims("ada", &[]), Dialect::Keen, query("0"));
    rig.settle();
    assert_eq!(seqs(&rig.read(keen)), [1, 2]);
}

#[test]
fn a_log_that_cannot_be_read_ends_the_connection() {
    for moment in 0..2 {
        let mut rig = rig_with(1, NARROW);
        publish(&mut rig, 3);
        rig.holds_reads = true;
        let client = resume(&mut rig, &[], "0");
        rig.settle();
        for _ in 0..moment {
            rig.answer_reads();
            rig.settle();
        }
        rig.plain.is_broken = true;
        rig.answer_reads();
        assert_eq!(rig.closing(client), Some(1011));
        rig.read(client);
        check_nothing_left(&rig);
    }
}

#[test]
fn damage_that_is_met_on_the_way_ends_the_connection_and_the_next_is_told() {
    let mut rig = rig_with(1, NARROW);
    publish(&mut rig, 5);
    rig.holds_reads = true;
    let client = resume(&mut rig, &[], "0");
    rig.settle();
    rig.answer_reads();
    rig.settle();
    rig.plain.damage(StreamKind::User, "ada", Seq(3));
    rig.answer_reads();
    rig.settle();
    assert_eq!(
        told(&mut rig, client),
        ["connection_established", "1", "2", "1011"]
    );
    rig.holds_reads = false;
    let again = resume(&mut rig, &[], "2");
    rig.settle();
    let said = rig.read(again);
    let row = &said[0]["data"]["resume"][0];
    assert_eq!(row["outcome"], "truncated");
    assert_eq!(row["missing"], json!({"from": 3, "to": 3}));
    assert_eq!(seqs(&said), [4, 5]);
}

#[test]
fn a_crowd_that_missed_the_same_costs_one_reading_and_one_encoding() {
    for bounds in [Bounds::default(), NARROW] {
        let mut rig = rig_with(1, bounds);
        let publisher = rig.publisher(0);
        for _ in 0..20 {
            rig.publish(publisher, &event(None, Some("7"), 1_200));
            rig.settle();
        }
        let viewers: Vec<Client> = (0..100)
            .map(|n| {
                let query = query("project/7=0");
                let user = format!("user-{n}");
                let variant = Variant::deflated(Dialect::Observatory);
                let (core, asked) = rig.ask_for(claims(&user, &["7"]), variant, query);
                let key = asked.and_then(Result::ok).expect("there is room");
                Client { core, key }
            })
            .collect();
        let mut found = vec![Vec::new(); viewers.len()];
        for _ in 0..40 {
            rig.settle();
            for (client, found) in viewers.iter().zip(&mut found) {
                found.extend(seqs(&rig.read(*client)));
            }
        }
        let all: Vec<u64> = (1..=20).collect();
        assert!(found.iter().all(|found| *found == all));
        assert_eq!(rig.stats[0].counters.frames_deflated.value(), 20);
        assert_eq!(rig.stats[0].counters.events_replayed.value(), 2_000);
    }
}

#[derive(Clone, Debug)]
enum Op {
    Answer,
    Publish { pad: usize, is_wanted: bool },
    Read(usize),
    Turn,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        2 => Just(Op::Answer),
        3 => (0_usize..1_500, any::<bool>())
            .prop_map(|(pad, is_wanted)| Op::Publish { pad, is_wanted }),
        3 => (1_usize..8_000).prop_map(Op::Read),
        3 => Just(Op::Turn),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn a_viewer_gets_exactly_what_it_missed_once_and_in_order_then_live(
        before in proptest::collection::vec((0_usize..1_500, any::<bool>(), any::<bool>()), 0..30),
        ops in proptest::collection::vec(op(), 0..40),
        cursor in 0_usize..32,
        ring_bytes_max in 0_usize..20_000,
        read_bytes_max in 0_usize..3_000,
        (is_filtered, is_foreign) in any::<(bool, bool)>(),
    ) {
        let bounds = Bounds { ring_bytes_max, ..NARROW };
        let mut rig = rig_with(2, bounds);
        rig.plain.read_bytes_max = Some(read_bytes_max);
        // The viewer is on core 0, the project's owner there or elsewhere.
        let user = rig.id_on(0, StreamKind::User);
        let project = rig.id_on(usize::from(is_foreign), StreamKind::Project);
        let publisher = rig.publisher(0);
        let mut wanted = Vec::new();
        let mut publish = |rig: &mut Rig, pad: usize, is_wanted: bool| {
            let name = if is_wanted { "wanted" } else { "other" };
            let text = event(None, Some(&project), pad).replace("progress_update", name);
            rig.publish(publisher, &text);
            wanted.push(is_wanted || !is_filtered);
        };
        for (pad, is_wanted, ends_turn) in before {
            publish(&mut rig, pad, is_wanted);
            if ends_turn {
                rig.settle();
            }
        }
        rig.settle();
        let total = rig.plain.seqs(&Stream::project(&project)).len();
        let cursor = cursor.min(total) as u64;
        rig.holds_reads = true;
        let none = ConnectQuery {
            subscribe: SubscribeScope::Dialect,
            ..query(&format!("project/{project}={cursor}"))
        };
        let client = rig.connect(claims(&user, &[&project]), Dialect::Observatory, none);
        let filters = if is_filtered { json!({"eventTypes": ["wanted"]}) } else { json!({}) };
        rig.say(client, &json!({"type": "subscribe", "data": {"filters": filters}}));
        let mut bytes = Vec::new();
        for op in ops {
            match op {
                Op::Answer => {
                    rig.answer_reads();
                }
                Op::Publish { pad, is_wanted } => publish(&mut rig, pad, is_wanted),
                Op::Read(count) => bytes.extend(rig.write(client, count)),
                Op::Turn => {
                    rig.turn();
                    for (from, to) in [(0, 1), (1, 0)] {
                        rig.carry(from, to);
                    }
                }
            }
        }
        rig.holds_reads = false;
        for _ in 0..200 {
            rig.settle();
            bytes.extend(rig.write(client, usize::MAX));
        }
        let bytes = &bytes[bytes.windows(4).position(|four| four == b"\r\n\r\n").unwrap_or(0) + 4..];
        let said = crate::hub::rig::messages(bytes);
        let seqs_wanted = (1_u64..).zip(&wanted).filter(|(seq, is_wanted)| *seq > cursor && **is_wanted);
        let expected: Vec<u64> = seqs_wanted.map(|(seq, _)| seq).collect();
        prop_assert_eq!(seqs(&said), expected);
        prop_assert_eq!(rig.closing(client), None);
        let complete: Vec<usize> = said
            .iter()
            .enumerate()
            .filter(|(_, one)| one["type"] == "replay_complete")
            .map(|(at, _)| at)
            .collect();
        // One of the own stream, and one of the project's, behind all that was missed.
        let of_project = complete.iter().filter(|at| said[**at]["data"]["stream"] != "user");
        let at: Vec<usize> = of_project.copied().collect();
        prop_assert_eq!(at.len(), 1);
        let to = said[at[0]]["data"]["seq"].as_u64().unwrap_or_default();
        prop_assert!(seqs(&said[..at[0]]).iter().all(|seq| *seq <= to));
        prop_assert!(seqs(&said[at[0]..]).iter().all(|seq| *seq > to));
        prop_assert_eq!(rig.stats[0].counters.catch_ups.value(), 0);
        rig.hubs[0].handle_disconnect(client.key);
        rig.settle();
        prop_assert_eq!(rig.stats[0].counters.interests.value(), 0);
    }
}

#[test]
fn a_large_event_that_was_missed_does_not_wait_until_nothing_is_live() {
    let check = |missed_bytes| {
        let mut rig = rig_with(1, Bounds::default());
        let publisher = rig.publisher(0);
        rig.publish(publisher, &event(Some("ada"), None, missed_bytes));
        rig.settle();
        let client = resume(&mut rig, &["7"], "user=0");
        let mut read = Vec::new();
        for _ in 0..20 {
            rig.publish(publisher, &event(None, Some("7"), 1_000));
            rig.turn();
            let outbox = rig.hubs[0]
                .peers()
                .find(client.key)
                .map(|peer| peer.outbox());
            let queued = outbox.map_or(0, |outbox| outbox.bytes());
            read.extend(rig.write(client, queued - 10));
        }
        let read = String::from_utf8_lossy(&read);
        let is_complete = read.contains("replay_complete");
        assert!(is_complete, "{missed_bytes}: it never had its turn");
        assert_eq!(rig.closing(client), None);
    };
    // An outbox takes a quarter of what was missed.
    check(OUTBOX_BYTES_MAX / 2);
    check(OUTBOX_BYTES_MAX / 4 - 500);
}
