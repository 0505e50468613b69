#![allow(clippy::unwrap_used)]

use super::*;
use crate::cast::{self, Cursor};
use crate::records::{Range, Row};

// ada's events 1 to 5, of which 3 is project 7's too. The gateway was killed when 3 was delivered and
// not kept: it came again. The viewer is ada's own, in keen, from the start.
struct Run {
    deliver: &'static str,
    publisher: Vec<PublisherLine>,
    log: Vec<(&'static str, u64, u64)>,
    viewer: Vec<ViewerLine>,
}

fn id(n: u64) -> Option<String> {
    Some(format!("e{n}"))
}

fn data(n: u64) -> String {
    format!("{{\"n\":{n}}}")
}

fn made(n: u64) -> PublisherLine {
    PublisherLine::Made(EventFacts {
        event_id: format!("e{n}"),
        event_type: "note".into(),
        user: Some("ada".into()),
        project: (n == 3).then(|| "7".into()),
        session: None,
        data: fingerprint(data(n).as_bytes()),
    })
}

fn sent(connection: u32, message: u64, n: u64) -> PublisherLine {
    PublisherLine::Sent {
        connection,
        message,
        event_ids: vec![format!("e{n}")],
    }
}

fn acked(connection: u32, through: u64) -> PublisherLine {
    PublisherLine::Acked {
        connection,
        through,
    }
}

fn opened(cycle: u32, cursor: u64) -> ViewerLine {
    ViewerLine::Opened {
        cycle,
        cursor: Some(at(cursor)),
    }
}

fn at(seq: u64) -> Cursor {
    Cursor {
        epoch: Some("0badcafe".into()),
        streams: [("user".to_owned(), seq)].into(),
    }
}

fn rows(outcome: &str, from: Option<u64>, to: u64, lost: Option<(u64, u64)>) -> ViewerLine {
    ViewerLine::Rows {
        epoch: Some("0badcafe".into()),
        rows: vec![Row {
            stream: "user".into(),
            outcome: outcome.into(),
            from,
            to: Some(to),
            missing: None,
            lost: lost.map(|(from, to)| Range { from, to }),
        }],
    }
}

fn event(seq: u64, n: u64) -> ViewerLine {
    ViewerLine::Event {
        stream: "user".into(),
        seq,
        event_id: id(n),
        data: fingerprint(data(n).as_bytes()),
    }
}

fn complete(seq: u64) -> ViewerLine {
    ViewerLine::Complete {
        stream: "user".into(),
        seq,
    }
}

fn closed(code: Option<u16>) -> ViewerLine {
    ViewerLine::Closed { code }
}

// Places in the viewer's record.
const FIRST_EVENT: usize = 3;
const FIRST_CLOSE: usize = 6;
const SECOND_ROWS: usize = 8;
const REPEATED: usize = 9;
const SECOND_COMPLETE: usize = 10;
const LAST_EVENT: usize = 12;
const CURSOR: usize = 13;

fn good() -> Run {
    Run {
        deliver: "eager",
        publisher: vec![
            made(1),
            sent(1, 1, 1),
            made(2),
            sent(1, 2, 2),
            acked(1, 1),
            made(3),
            sent(1, 3, 3),
            acked(1, 2),
            sent(2, 1, 3),
            made(4),
            sent(2, 2, 4),
            made(5),
            sent(2, 3, 5),
            acked(2, 3),
        ],
        log: vec![
            ("user/ada", 1, 1),
            ("user/ada", 2, 2),
            ("project/7", 1024, 3),
            ("user/ada", 1024, 3),
            ("user/ada", 1025, 4),
            ("user/ada", 1026, 5),
        ],
        viewer: vec![
            opened(0, 0),
            rows("resumed", Some(0), 0, None),
            complete(0),
            event(1, 1),
            event(2, 2),
            event(3, 3),
            closed(None),
            opened(1, 3),
            rows("resumed", Some(3), 1024, Some((3, 3))),
            event(1024, 3),
            complete(1024),
            event(1025, 4),
            event(1026, 5),
            ViewerLine::Cursor(at(1026)),
            closed(Some(1001)),
        ],
    }
}

fn judge(run: &Run) -> Verdict {
    let viewers = cast::viewers();
    let viewer = viewers.iter().find(|plan| plan.name == "viewer-ada-0");
    let plan = Plan {
        seed: 1,
        cycles: 1,
        deliver: run.deliver.into(),
        viewers: Vec::new(),
        publishers: Vec::new(),
    };
    let mut checker = Checker::new(&plan);
    for line in &run.publisher {
        checker.handle_publisher("publisher", line.clone());
    }
    for (stream, seq, n) in &run.log {
        let project = if *n == 3 { r#","project_id":"7""# } else { "" };
        let line = format!(
            r#"{{"stream":"{stream}","epoch":"0badcafe","seq":{seq},"received":"","event_type":"note","user_id":"ada"{project},"event_id":"e{n}","timestamp":"","data":{}}}"#,
            data(*n)
        );
        checker.handle_logged(&serde_json::from_str(&line).unwrap());
    }
    checker.check_acknowledged();
    let mut walk = Walk::new(&mut checker, viewer.unwrap());
    for line in &run.viewer {
        walk.handle(line.clone());
    }
    walk.finish();
    checker.verdict
}

// What is found where `change` was made to a run in which everything held.
fn check(change: impl FnOnce(&mut Run), expected: &[Kind]) {
    let mut run = good();
    change(&mut run);
    let violations = judge(&run).violations;
    let kinds: Vec<Kind> = violations.iter().map(|violation| violation.kind).collect();
    assert_eq!(kinds, expected, "{violations:#?}");
}

#[test]
fn a_run_in_which_everything_held_passes_and_is_counted() {
    check(|_| {}, &[]);
    let counts = judge(&good()).counts;
    assert_eq!(
        (counts.published, counts.acknowledged, counts.repeated),
        (5, 5, 1)
    );
    assert_eq!(
        (counts.logged, counts.delivered, counts.connections),
        (6, 6, 2)
    );
    assert_eq!((counts.lost_stated, counts.lost_deliveries), (1, 1));
    assert_eq!(counts.rows["resumed"], 2);
}

#[test]
fn what_was_acknowledged_and_is_not_in_the_log_is_found_in_each_stream() {
    let drop_four = |run: &mut Run| {
        run.log.remove(4);
        run.viewer.remove(LAST_EVENT - 1);
    };
    check(drop_four, &[Kind::AckLost]);
    let drop_copy = |run: &mut Run| {
        run.log.remove(2);
    };
    check(drop_copy, &[Kind::AckLost]);
    // What was not acknowledged may be gone, as long as nobody saw it.
    let forget_five = |run: &mut Run| {
        run.publisher.pop();
        run.publisher.push(acked(2, 2));
        run.log.pop();
        run.viewer.drain(LAST_EVENT..=CURSOR);
    };
    check(forget_five, &[]);
}

#[test]
fn a_nacked_event_is_not_an_acknowledged_one() {
    let nack = |code: &str| PublisherLine::Nacked {
        connection: 2,
        message: 3,
        index: 0,
        code: code.into(),
    };
    let refuse = |code: &'static str| {
        move |run: &mut Run| {
            run.publisher.insert(13, nack(code));
            run.log.pop();
            run.viewer.drain(LAST_EVENT..=CURSOR);
        }
    };
    check(refuse("OVERLOADED"), &[]);
    check(refuse("NO_AUDIENCE"), &[Kind::Refused]);
}

#[test]
fn an_acknowledgement_of_what_was_not_sent_is_found() {
    check(|run| run.publisher.push(acked(2, 4)), &[Kind::WrongAck]);
    check(|run| run.publisher.push(acked(2, 2)), &[Kind::WrongAck]);
}

#[test]
fn a_seq_with_two_events_is_found_in_the_log_and_between_log_and_viewer() {
    check(
        |run| run.log.insert(5, ("user/ada", 1025, 1)),
        &[Kind::TwoEvents, Kind::StoredTwice],
    );
    // What the viewer saw as 4 and 5 is the other way round in the log.
    let swap = |run: &mut Run| {
        run.log[4] = ("user/ada", 1025, 5);
        run.log[5] = ("user/ada", 1026, 4);
    };
    check(swap, &[Kind::TwoEvents, Kind::TwoEvents]);
}

#[test]
fn a_seq_with_two_events_that_are_both_gone_is_found() {
    let plan = Plan {
        seed: 1,
        cycles: 1,
        deliver: "eager".into(),
        viewers: Vec::new(),
        publishers: Vec::new(),
    };
    let mut checker = Checker::new(&plan);
    for n in [1, 2] {
        checker.handle_publisher("publisher", made(n));
    }
    for (viewer, n) in cast::viewers()
        .iter()
        .filter(|plan| plan.user == "ada")
        .zip([1, 2])
    {
        let mut walk = Walk::new(&mut checker, viewer);
        for line in [opened(0, 0), rows("resumed", Some(0), 0, None), complete(0)] {
            walk.handle(line);
        }
        walk.handle(event(1, n));
    }
    let kinds: Vec<Kind> = checker.verdict.violations.iter().map(|v| v.kind).collect();
    assert_eq!(kinds, [Kind::TwoEvents]);
}

#[test]
fn an_event_that_is_twice_in_a_stream_of_the_log_is_found() {
    let store = |run: &mut Run| {
        run.log.push(("user/ada", 1027, 5));
    };
    check(store, &[Kind::StoredTwice, Kind::Behind]);
}

#[test]
fn a_log_out_of_order_and_one_with_strange_events_is_found() {
    check(|run| run.log.swap(0, 1), &[Kind::WrongOrder]);
    check(
        |run| run.log[2] = ("project/8", 1024, 3),
        &[Kind::Foreign, Kind::AckLost],
    );
    check(|run| run.log.push(("user/ada", 1027, 9)), &[Kind::Unknown]);
}

#[test]
fn an_event_id_twice_is_found_but_not_after_a_stated_lost() {
    let unstated = |run: &mut Run| run.viewer[SECOND_ROWS] = rows("resumed", Some(3), 1024, None);
    check(unstated, &[Kind::Unkept, Kind::DeliveredTwice]);
    let again = |run: &mut Run| run.viewer.insert(LAST_EVENT + 1, event(1026, 5));
    check(again, &[Kind::DeliveredTwice, Kind::WrongOrder]);
}

#[test]
fn what_comes_back_before_the_kill_is_lost_only_after_it() {
    let leave = |run: &mut Run| {
        let again = [
            closed(Some(1000)),
            opened(0, 3),
            rows("resumed", Some(3), 3, None),
            complete(3),
        ];
        run.viewer.splice(FIRST_CLOSE..FIRST_CLOSE, again);
    };
    check(leave, &[]);
}

#[test]
fn with_delivery_after_the_disk_there_is_no_lost() {
    check(|run| run.deliver = "durable", &[Kind::LostUnderDurable]);
}

#[test]
fn a_gap_is_found_at_an_event_a_cursor_the_end_of_replay_and_the_end() {
    check(|run| drop(run.viewer.remove(LAST_EVENT - 1)), &[Kind::Gap]);
    check(|run| drop(run.viewer.remove(LAST_EVENT)), &[Kind::Gap]);
    check(|run| drop(run.viewer.remove(REPEATED)), &[Kind::Gap]);
    check(
        |run| drop(run.viewer.drain(LAST_EVENT..=CURSOR)),
        &[Kind::Behind],
    );
}

#[test]
fn a_stated_gap_is_none_unless_it_is_held() {
    let state = |from, to| {
        move |run: &mut Run| {
            let ViewerLine::Rows { rows, .. } = &mut run.viewer[SECOND_ROWS] else {
                panic!("rows are there");
            };
            rows[0].outcome = "truncated".into();
            rows[0].missing = Some(Range { from, to });
        }
    };
    check(state(4, 1023), &[]);
    check(state(4, 1024), &[Kind::StatedButHeld, Kind::WrongOrder]);
    let lose = |run: &mut Run| {
        run.viewer[SECOND_ROWS] = rows("resumed", Some(3), 1024, Some((2, 3)));
    };
    check(lose, &[Kind::StatedButHeld]);
    let gone = |run: &mut Run| {
        state(4, 1024)(run);
        run.log.retain(|(_, _, n)| *n != 3);
        run.viewer.remove(REPEATED);
    };
    check(gone, &[Kind::AckLost, Kind::AckLost]);
}

#[test]
fn what_is_not_for_this_viewer_is_found() {
    let project = ViewerLine::Event {
        stream: "project/7".into(),
        seq: 1024,
        event_id: id(3),
        data: fingerprint(data(3).as_bytes()),
    };
    check(
        |run| run.viewer[REPEATED] = project,
        &[Kind::Foreign, Kind::Unattached, Kind::Gap],
    );
    check(
        |run| run.viewer[LAST_EVENT] = event(1026, 9),
        &[Kind::Unknown, Kind::TwoEvents],
    );
}

#[test]
fn changed_data_is_found_at_the_viewer_and_in_the_log() {
    let other = ViewerLine::Event {
        stream: "user".into(),
        seq: 1026,
        event_id: id(5),
        data: fingerprint(b"{\"n\": 5}"),
    };
    check(|run| run.viewer[LAST_EVENT] = other, &[Kind::Changed]);
    let PublisherLine::Made(mut five) = made(5) else {
        panic!("it was made");
    };
    five.session = Some("s".into());
    check(
        |run| run.publisher[11] = PublisherLine::Made(five),
        &[Kind::Changed],
    );
}

#[test]
fn wrong_order_is_found() {
    check(
        |run| run.viewer.swap(FIRST_EVENT, FIRST_EVENT + 1),
        &[Kind::Gap, Kind::WrongOrder, Kind::Gap],
    );
    check(
        |run| run.viewer[CURSOR] = ViewerLine::Cursor(at(1025)),
        &[Kind::WrongOrder, Kind::Behind],
    );
}

#[test]
fn a_live_event_before_the_end_of_replay_is_found() {
    check(
        |run| run.viewer.swap(SECOND_COMPLETE, SECOND_COMPLETE + 1),
        &[Kind::LiveBeforeComplete, Kind::WrongOrder, Kind::Gap],
    );
    check(
        |run| drop(run.viewer.remove(SECOND_COMPLETE)),
        &[
            Kind::LiveBeforeComplete,
            Kind::LiveBeforeComplete,
            Kind::Behind,
        ],
    );
}

#[test]
fn a_cursor_that_is_not_honoured_is_found() {
    let answer = |outcome: &'static str, from: Option<u64>| {
        move |run: &mut Run| {
            run.viewer[SECOND_ROWS] = rows(outcome, from, 1023, None);
            run.viewer.remove(SECOND_COMPLETE);
        }
    };
    check(
        answer("fresh", None),
        &[Kind::Forgotten, Kind::DeliveredTwice, Kind::Unkept],
    );
    check(
        answer("reset", Some(3)),
        &[Kind::Reset, Kind::DeliveredTwice, Kind::Unkept],
    );
    let other =
        |run: &mut Run| run.viewer[SECOND_ROWS] = rows("resumed", Some(2), 1024, Some((3, 3)));
    check(other, &[Kind::Unknown]);
    let epoch = |run: &mut Run| {
        let cursor = Cursor {
            epoch: Some("0badcaff".into()),
            ..at(1026)
        };
        run.viewer[CURSOR] = ViewerLine::Cursor(cursor);
    };
    check(epoch, &[Kind::EpochChanged]);
}

#[test]
fn endings_and_refusals_that_nobody_asked_for_are_found() {
    check(
        |run| run.viewer[FIRST_CLOSE] = closed(Some(1011)),
        &[Kind::Closed],
    );
    let refused = ViewerLine::Refused { status: 429 };
    check(
        |run| run.viewer.insert(FIRST_CLOSE + 1, refused),
        &[Kind::Refused],
    );
    let told = PublisherLine::Told { what: "?".into() };
    check(|run| run.publisher.push(told), &[Kind::Refused]);
    let plan = Plan {
        seed: 1,
        cycles: 1,
        deliver: "eager".into(),
        viewers: Vec::new(),
        publishers: Vec::new(),
    };
    let mut checker = Checker::new(&plan);
    checker.handle_gateway(GatewayLine::Misbehaved { what: "?".into() });
    assert_eq!(checker.verdict.violations[0].kind, Kind::Misbehaved);
}
