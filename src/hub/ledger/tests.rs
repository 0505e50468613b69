use serde_json::Value;

use super::*;
use crate::auth;
use crate::auth::Revocation;

use crate::event::record::{EventView, RecordView};
use crate::event::{Epoch, LogIdentity, StreamKind};
use crate::hub::keyed::Keyed;
use crate::hub::mail::{Ack, Answer, Ask};
use crate::hub::publisher::Outcome;
use crate::hub::rig::{Log, Rig, claims, codec, event, seqs};
use crate::hub::{Action, Bounds, Duplicates, KnownId, Work};
use crate::limits::HELD_BYTES_PER_TURN;

const START: Seq = Seq(Seq::LEVEL_STEP);

fn ledger() -> Ledger {
    let identity = LogIdentity {
        epoch: Epoch(1),
        secret: [1, 2],
    };
    Ledger::new(RecordCodec::new(identity), START, 200)
}

fn progress(durable: u64) -> LogProgress {
    LogProgress {
        written: durable,
        durable,
        status: LogStatus::Writing,
        reserve: Seq::MAX,
    }
}

fn receipt(ticket: Key, index: u32) -> Receipt {
    Receipt {
        ticket,
        settled: 1,
        bytes: 10,
        duplicates: vec![index],
    }
}

#[test]
fn what_waits_is_due_in_order_when_all_before_it_is_kept() {
    let mut ledger = ledger();
    let mut keys = Keyed::default();
    let (a, b) = (keys.insert(()), keys.insert(()));
    ledger.append_decision(b"first");
    ledger.wait(Due::Ask(a));
    assert_eq!(ledger.poll_append(5).map(|append| append.through), Some(1));
    ledger.append_decision(b"second");
    ledger.wait(Due::Ask(b));
    assert_eq!(ledger.poll_append(6).map(|append| append.through), Some(2));
    assert!(ledger.poll_append(7).is_none());
    assert!(ledger.poll_due().is_none());
    let mut times = Vec::new();
    ledger.handle_progress(progress(1), |count, at| times.push((count, at)));
    assert!(matches!(ledger.poll_due(), Some(Due::Ask(key)) if key == a));
    assert!(ledger.poll_due().is_none());
    ledger.handle_progress(progress(2), |count, at| times.push((count, at)));
    assert!(matches!(ledger.poll_due(), Some(Due::Ask(key)) if key == b));
    assert_eq!(times, [(1, 5), (1, 6)]);
    assert_eq!(ledger.unkept_bytes(), 0);
}

#[test]
fn receipts_of_one_request_and_turn_are_one() {
    let mut ledger = ledger();
    let mut keys = Keyed::default();
    let (a, b) = (keys.insert(()), keys.insert(()));
    let mut settled = |appends: &[Key]| {
        for (index, key) in (0..).zip(appends) {
            ledger.append_decision(b"x");
            ledger.wait(Due::Receipt(0, receipt(*key, index)));
        }
        let through = ledger.poll_append(0).map_or(0, |append| append.through);
        ledger.handle_progress(progress(through), |_, _| {});
        let due = std::iter::from_fn(|| ledger.poll_due());
        due.filter_map(|due| match due {
            Due::Receipt(_, receipt) => Some((receipt.settled, receipt.duplicates)),
            _ => None,
        })
        .collect::<Vec<_>>()
    };
    assert_eq!(settled(&[a, a]), [(2, vec![0, 1])]);
    assert_eq!(settled(&[a, b]), [(1, vec![0]), (1, vec![1])]);
}

#[test]
fn a_receipt_does_not_wait_for_a_later_batch() {
    let mut ledger = ledger();
    let key = Keyed::default().insert(());
    ledger.append_decision(b"x");
    ledger.wait(Due::Receipt(0, receipt(key, 0)));
    ledger.poll_append(0);
    ledger.append_decision(b"y");
    ledger.wait(Due::Receipt(0, receipt(key, 1)));
    ledger.handle_progress(progress(1), |_, _| {});
    assert!(matches!(ledger.poll_due(), Some(Due::Receipt(0, one)) if one.settled == 1));
    assert!(ledger.poll_due().is_none());
}

#[test]
fn there_is_room_while_the_log_writes_keeps_up_and_has_seqs_left() {
    let mut ledger = ledger();
    let room = |ledger: &mut Ledger, progress| {
        ledger.handle_progress(progress, |_, _| {});
        ledger.has_room()
    };
    assert!(!ledger.has_room(), "the log has not said what is reserved");
    assert!(room(&mut ledger, progress(0)));
    for status in [LogStatus::Full, LogStatus::Failing] {
        let progress = LogProgress {
            status,
            ..progress(0)
        };
        assert!(!room(&mut ledger, progress));
    }
    let reserve = |levels: u64| LogProgress {
        reserve: Seq(levels * Seq::LEVEL_STEP),
        ..progress(0)
    };
    assert!(room(&mut ledger, reserve(2)));
    assert!(!room(&mut ledger, reserve(1)));
    ledger.append_decision(&[b'x'; 200]);
    assert!(!room(&mut ledger, progress(0)), "too much is on its way");
    ledger.poll_append(0);
    let only_durable = LogProgress {
        written: 0,
        ..progress(1)
    };
    assert!(!room(&mut ledger, only_durable), "it is still in memory");
    assert!(room(&mut ledger, progress(1)));
}

// What a log was given, as `stream id, previous, seq`.
fn events(log: &Log) -> Vec<(String, u64, u64)> {
    let codec = codec();
    let mut found = Vec::new();
    for batch in &log.batches {
        for entry in &batch.entries {
            let (view, _) = codec
                .decode(&batch.bytes[entry.offset as usize..])
                .expect("a whole record");
            if let RecordView::Event(event) = view {
                found.push((event.stream_id().to_owned(), event.previous.0, event.seq.0));
            }
        }
    }
    found
}

fn outcome(rig: &mut Rig) -> Option<Outcome> {
    match rig.hub().poll_action()? {
        Action::HttpPublished { outcome, .. } => Some(outcome),
        other => panic!("{other:?}"),
    }
}

fn codes(said: &[Value]) -> Vec<&str> {
    said.iter()
        .map(|message| message["data"]["code"].as_str().unwrap_or("ack"))
        .collect()
}

fn with_id(user: &str, id: &str) -> String {
    format!(r#"{{"type":"a","user_id":"{user}","event_id":"{id}"}}"#)
}

#[test]
fn a_durable_answer_waits_for_the_disk_and_a_received_one_does_not() {
    let mut rig = Rig::with_slow_log(|_| {});
    rig.keep(0);
    let publisher = rig.publisher(0);
    let text = event(Some("ada"), None, 1);
    rig.post_for(claims("ada", &[]), &text, Ack::Received);
    assert!(outcome(&mut rig).is_some());
    rig.post_for(claims("ada", &[]), &text, Ack::Durable);
    rig.publish(publisher, &text);
    rig.turn();
    assert!(outcome(&mut rig).is_none());
    assert!(rig.read(publisher).is_empty());
    rig.keep(0);
    rig.turn();
    assert_eq!(outcome(&mut rig).map(|outcome| outcome.accepted), Some(1));
    assert_eq!(codes(&rig.read(publisher)), ["ack"]);
    let seqs = |at| ("ada".to_owned(), at, at + 1);
    assert_eq!(events(&rig.logs[0]), [seqs(0), seqs(1), seqs(2)]);
    rig.check_balance();
}

#[test]
fn a_duplicate_is_acknowledged_when_the_first_is_kept() {
    let mut rig = Rig::with_slow_log(|_| {});
    rig.keep(0);
    let text = with_id("ada", "x");
    rig.post_for(claims("ada", &[]), &text, Ack::Received);
    outcome(&mut rig);
    rig.post(claims("ada", &[]), &text);
    rig.turn();
    assert!(outcome(&mut rig).is_none());
    rig.keep(0);
    assert_eq!(outcome(&mut rig).map(|outcome| outcome.duplicates), Some(1));
    rig.post(claims("ada", &[]), &text);
    rig.keep(0);
    assert!(outcome(&mut rig).is_some(), "nothing more is to be kept");
    let publisher = rig.publisher(0);
    rig.publish(publisher, &text);
    assert!(rig.hub().has_work(), "an answer is due");
    assert_eq!(events(&rig.logs[0]).len(), 1);
}

#[test]
fn what_the_log_remembers_is_a_duplicate_after_a_restart() {
    let mut rig = Rig::new();
    rig.post(claims("ada", &[]), &with_id("ada", "x"));
    assert_eq!(outcome(&mut rig).map(|outcome| outcome.accepted), Some(1));
    let record = rig.logs[0].batches[0].bytes.clone();
    let codec = codec();
    let Ok((RecordView::Event(view), _)) = codec.decode(&record) else {
        panic!("an event");
    };
    let EventView {
        received_ms,
        fingerprint,
        ..
    } = view;
    let mut after = Rig::with(1, Bounds::default(), |options| options.start = START);
    let known = KnownId {
        received_ms,
        fingerprint: fingerprint.expect("it has an id"),
    };
    let now = after.now;
    let mut ids = Duplicates::new(1);
    ids.restore(now, known);
    after.hub().restore_ids(ids);
    after.post(claims("ada", &[]), &with_id("ada", "x"));
    assert_eq!(
        outcome(&mut after).map(|outcome| outcome.duplicates),
        Some(1)
    );
    after.post(claims("ada", &[]), &with_id("ada", "y"));
    assert_eq!(outcome(&mut after).map(|outcome| outcome.accepted), Some(1));
    let above = ("ada".to_owned(), START.0, START.0 + 1);
    assert_eq!(events(&after.logs[0]), [above]);
}

#[test]
fn with_durable_delivery_nobody_sees_what_is_not_kept() {
    let mut rig = Rig::with_slow_log(|options| options.deliver = Deliver::Durable);
    rig.keep(0);
    let viewer = rig.viewer("ada", &[]);
    rig.read(viewer);
    let text = event(Some("ada"), None, 1);
    rig.post_for(
        claims("ada", &[]),
        &format!("[{text},{text}]"),
        Ack::Received,
    );
    rig.turn();
    assert!(outcome(&mut rig).is_some());
    assert!(rig.read(viewer).is_empty());
    let late = rig.viewer("ada", &[]);
    rig.turn();
    assert!(seqs(&rig.read(late)).is_empty());
    rig.keep(0);
    rig.turn();
    for client in [viewer, late] {
        assert_eq!(seqs(&rig.read(client)), [1, 2], "in order, and once");
    }
    rig.check_balance();
}

#[test]
fn what_was_erased_while_it_waited_to_be_seen_is_in_no_memory() {
    let mut rig = Rig::with(2, Bounds::default(), |options| {
        options.deliver = Deliver::Durable;
        options.limits.outbox_bytes_max = 8 * HELD_BYTES_PER_TURN;
    });
    let owner = rig.core_of(StreamKind::Project, "7");
    let other = 1 - owner;
    let viewers = [owner, other].map(|core| {
        let user = rig.id_on(core, StreamKind::User);
        rig.viewer(&user, &["7"])
    });
    rig.settle();
    rig.logs[owner].is_slow = true;
    // More than a turn hands to delivery.
    let publisher = rig.publisher(owner);
    let text = event(Some("ada"), Some("7"), HELD_BYTES_PER_TURN / 2);
    for _ in 0..5 {
        rig.publish(publisher, &text);
    }
    rig.settle();
    rig.hubs[other].handle_erased("ada".into());
    rig.carry(other, owner);
    rig.keep(owner);
    assert!(
        rig.hubs[owner].has_work(),
        "some of it waits for another turn"
    );
    for _ in 0..5 {
        rig.keep(owner);
        rig.settle();
    }
    for (viewer, core) in viewers.into_iter().zip([owner, other]) {
        assert_eq!(seqs(&rig.read(viewer)).len(), 5, "it was seen");
        assert_eq!(rig.hubs[core].rings.bytes(), 0, "{core}");
    }
}

#[test]
fn a_full_disk_refuses_at_once_until_continue_and_what_is_kept_stays_so() {
    let mut rig = Rig::with_slow_log(|_| {});
    rig.keep(0);
    let publisher = rig.publisher(0);
    let text = event(Some("ada"), None, 1);
    rig.publish(publisher, &text);
    rig.logs[0].progress.status = LogStatus::Full;
    rig.keep(0);
    assert_eq!(rig.publish(publisher, &text), Work::Idle);
    rig.post(claims("ada", &[]), &text);
    let refused = outcome(&mut rig).map(|outcome| outcome.rejected.rows[0].code.as_str());
    assert_eq!(refused, Some("STORAGE_FULL"));
    rig.turn();
    assert_eq!(codes(&rig.read(publisher)), ["STORAGE_FULL"]);
    rig.logs[0].progress.status = LogStatus::Writing;
    rig.keep(0);
    rig.publish(publisher, &text);
    rig.turn();
    let said = rig.read(publisher);
    assert_eq!(codes(&said), ["STORAGE_FULL", "ack"]);
    assert_eq!(said[1]["data"]["through"], 3);
    rig.publish(publisher, r#"{"type":"continue"}"#);
    rig.publish(publisher, &text);
    rig.keep(0);
    rig.turn();
    assert_eq!(codes(&rig.read(publisher)), ["ack"]);
    rig.check_balance();
}

#[test]
fn a_failing_disk_is_waited_for_and_then_all_is_refused() {
    let mut rig = Rig::with_slow_log(|_| {});
    let publisher = rig.publisher(0);
    let text = event(Some("ada"), None, 1);
    rig.logs[0].progress.status = LogStatus::Failing;
    rig.keep(0);
    assert_eq!(rig.publish(publisher, &text), Work::Stalled);
    rig.logs[0].progress.status = LogStatus::Writing;
    rig.keep(0);
    assert!(rig.hub().has_work(), "it can go on");
    assert_eq!(rig.work(publisher), Work::Idle);
    rig.logs[0].progress.status = LogStatus::Failing;
    rig.keep(0);
    rig.publish(publisher, &text);
    rig.wait(crate::limits::ADMISSION_PATIENCE_MS);
    assert_eq!(rig.work(publisher), Work::Idle);
    assert_eq!(codes(&rig.read(publisher)), ["OVERLOADED"]);
}

#[test]
fn a_publisher_that_waits_for_a_failing_disk_is_told_when_it_is_full() {
    let mut rig = Rig::with_slow_log(|_| {});
    let publisher = rig.publisher(0);
    rig.logs[0].progress.status = LogStatus::Failing;
    rig.keep(0);
    assert_eq!(
        rig.publish(publisher, &event(Some("ada"), None, 1)),
        Work::Stalled
    );
    rig.logs[0].progress.status = LogStatus::Full;
    rig.keep(0);
    assert!(rig.hub().has_work());
    assert_eq!(rig.work(publisher), Work::Idle);
    assert_eq!(codes(&rig.read(publisher)), ["STORAGE_FULL"]);
}

#[test]
fn no_seq_is_given_beyond_the_reserve() {
    let mut rig = Rig::with_slow_log(|options| options.start = START);
    let publisher = rig.publisher(0);
    let text = event(Some("ada"), None, 1);
    rig.logs[0].progress.reserve = START;
    rig.keep(0);
    assert_eq!(rig.publish(publisher, &text), Work::Stalled);
    rig.logs[0].progress.reserve = Seq(3 * START.0);
    rig.keep(0);
    assert_eq!(rig.work(publisher), Work::Idle);
    rig.keep(0);
    assert_eq!(
        events(&rig.logs[0]),
        [("ada".to_owned(), START.0, START.0 + 1)]
    );
}

#[test]
fn an_order_about_tokens_is_answered_when_it_is_kept() {
    let mut rig = Rig::with(2, Bounds::default(), |_| {});
    rig.logs[0].is_slow = true;
    let revocation = Revocation {
        target: auth::Target::Jti("j".into()),
        revoked_at_s: rig.now.wall_s(),
        expires_at_s: None,
    };
    let now = rig.now;
    let ask = Ask::Revoke(revocation.clone());
    rig.hub().handle_administrator(now, Key::from_u64(9), &ask);
    rig.settle();
    assert!(rig.hub().poll_action().is_none());
    rig.keep(0);
    let answer = match rig.action() {
        Action::Asked { answer, .. } => answer,
        other => panic!("{other:?}"),
    };
    assert!(matches!(answer, Answer::Count(0)));
    let record = &rig.logs[0].batches[0].bytes;
    let Ok((RecordView::Revocation(payload), _)) = codec().decode(record) else {
        panic!("a decision");
    };
    let kept = auth::Decision::decode(payload);
    assert_eq!(kept, Some(auth::Decision::Revoke(revocation)));
    let is_untouched = rig.logs[1].batches.is_empty();
    assert!(is_untouched, "one core's word is enough");
}

#[test]
fn an_event_for_another_core_is_acknowledged_when_that_core_keeps_it() {
    let mut rig = Rig::with(2, Bounds::default(), |_| {});
    rig.logs[1].is_slow = true;
    rig.keep(1);
    let user = rig.id_on(1, StreamKind::User);
    rig.post(claims(&user, &[]), &event(Some(&user), None, 1));
    rig.settle();
    assert!(outcome(&mut rig).is_none());
    rig.keep(1);
    rig.settle();
    assert_eq!(outcome(&mut rig).map(|outcome| outcome.accepted), Some(1));
    rig.check_balance();
}
