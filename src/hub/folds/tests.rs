//! States as the events, the log and time make them: what is live is always what a plain fold of the
//! log comes to.

use serde_json::{Value, json};

use crate::agents::{Node, StreamState};
use crate::event::{Seq, Stream, StreamKind};
use crate::hub::keyed::Key;
use crate::hub::mail::Ask;
use crate::hub::reads::ReadWhat;
use crate::hub::rig::{Client, Rig, WALL_MS, seqs};
use crate::hub::{Bounds, Work};
use crate::limits::{
    STATE_READ_RETRY_MS, STATE_READ_SPACING_MS, STATE_TAIL_EVENTS_MAX, STATES_LOADING_MAX,
    STATES_LOADING_UNHURRIED_MAX,
};

const ADA: &str = "ada";

fn rig(bounds: Bounds) -> Rig {
    let mut rig = Rig::with(1, bounds, |options| {
        options.tiers.insert("individual".into(), 10);
    });
    // Records are kept at the end of a turn.
    rig.turn();
    rig
}

/// Of a process that goes on with a log in which `root` began `child`.
fn rig_with_past(bounds: Bounds) -> Rig {
    let mut rig = rig(bounds);
    say(&mut rig, &[spawn(ADA, "root", "child")]);
    restart(&mut rig);
    rig
}

fn restart(rig: &mut Rig) {
    rig.settle();
    rig.restart(|options| {
        options.tiers.insert("individual".into(), 10);
    });
}

fn spawn(user: &str, parent: &str, child: &str) -> Value {
    json!({
        "type": "agent_spawned", "user_id": user, "session_id": parent,
        "data": {"child_session": child},
    })
}

fn progress(user: &str, session: &str, tokens: u64) -> Value {
    json!({
        "type": "progress_update", "user_id": user, "session_id": session,
        "data": {"tokens_used": tokens},
    })
}

// Each of them counts.
fn commit(user: &str, session: &str) -> Value {
    json!({
        "type": "git_operation", "user_id": user, "session_id": session,
        "data": {"operation_type": "commit"},
    })
}

// Publishes them in one message; all that can happen at once does.
fn say(rig: &mut Rig, events: &[Value]) -> Client {
    let publisher = rig.publisher(0);
    rig.publish(publisher, &json!(events).to_string());
    rig.settle();
    publisher
}

fn live<'r>(rig: &'r Rig, stream: &Stream) -> Option<&'r StreamState> {
    let core = rig.core_of(stream.kind, &stream.id);
    rig.hubs[core].state(stream)
}

// What is live is what the log says.
fn check(rig: &Rig, stream: &Stream) {
    let state = live(rig, stream).expect("it is live");
    let folded = rig.plain.fold(stream, &rig.hubs[0].options.states);
    assert_eq!(state.at(), folded.at());
    assert_eq!(state.snapshot(), folded.snapshot());
}

// The paths that were added to the spawns in ada's stream.
fn paths(rig: &Rig) -> Vec<Value> {
    let events = rig.plain.stored(&Stream::user(ADA)).iter();
    let data = events.map(|event| serde_json::from_slice(&event.event.data).expect("JSON"));
    let paths = data.map(|data: Value| data["agent_tree_path"].clone());
    paths.filter(|path| !path.is_null()).collect()
}

fn node<'r>(rig: &'r Rig, session: &str) -> Option<&'r Node> {
    let forest = live(rig, &Stream::user(ADA))?.forest()?;
    forest.node(forest.find(session)?)
}

fn tokens(rig: &Rig, session: &str) -> Option<u64> {
    node(rig, session).map(Node::tokens_used)
}

fn commits(rig: &Rig, session: &str) -> Option<u64> {
    node(rig, session).map(Node::git_commits)
}

#[test]
fn a_stream_without_a_past_has_its_state_at_once() {
    let mut rig = rig(Bounds::default());
    rig.holds_reads = true;
    say(&mut rig, &[spawn(ADA, "a", "b"), spawn(ADA, "b", "c")]);
    assert_eq!(paths(&rig), [json!(["a", "b"]), json!(["a", "b", "c"])]);
    check(&rig, &Stream::user(ADA));
    assert!(!rig.answer_reads());
}

#[test]
fn after_a_restart_the_state_is_what_the_log_says() {
    let mut rig = rig_with_past(Bounds::default());
    assert!(live(&rig, &Stream::user(ADA)).is_none());
    say(&mut rig, &[progress(ADA, "child", 7)]);
    assert_eq!(tokens(&rig, "child"), Some(7));
    check(&rig, &Stream::user(ADA));
    assert_eq!(rig.stats[0].counters.state_loads.value(), 1);
}

#[test]
fn a_spawn_waits_for_its_state_with_what_follows_it_and_nobody_else_does() {
    let mut rig = rig_with_past(Bounds::default());
    rig.holds_reads = true;
    let viewers = [rig.viewer(ADA, &[]), rig.viewer("bob", &[])];
    rig.settle();
    // What becomes of the viewers.
    rig.answer_reads();
    rig.settle();
    for viewer in viewers {
        rig.read(viewer);
    }
    let publisher = say(
        &mut rig,
        &[
            progress(ADA, "child", 1),
            spawn(ADA, "child", "grandchild"),
            progress(ADA, "child", 2),
            spawn("bob", "x", "y"),
            progress("bob", "y", 3),
        ],
    );
    let seen = |rig: &mut Rig, at: usize| seqs(&rig.read(viewers[at])).len();
    assert_eq!(seen(&mut rig, 0), 1, "what needs no path");
    assert_eq!(
        seen(&mut rig, 1),
        0,
        "he has a past too, for all that is known"
    );
    assert!(rig.read(publisher).is_empty(), "no ack");
    rig.holds_reads = false;
    rig.settle();
    assert_eq!((seen(&mut rig, 0), seen(&mut rig, 1)), (2, 2));
    assert_eq!(paths(&rig)[1], json!(["root", "child", "grandchild"]));
    assert_eq!(rig.names(publisher), ["ack"]);
    check(&rig, &Stream::user(ADA));
    check(&rig, &Stream::user("bob"));
    rig.check_balance();
}

#[test]
fn what_comes_while_a_state_is_loaded_comes_after_what_is_read() {
    let mut rig = rig(Bounds::default());
    for _ in 0..20 {
        say(&mut rig, &[commit(ADA, "a")]);
    }
    restart(&mut rig);
    rig.holds_reads = true;
    rig.plain.read_bytes_max = Some(1);
    for _ in 0..40 {
        rig.answer_reads();
        say(&mut rig, &[commit(ADA, "a")]);
    }
    check(&rig, &Stream::user(ADA));
    assert_eq!(commits(&rig, "a"), Some(60));
}

#[test]
fn of_too_much_that_comes_meanwhile_the_log_is_asked() {
    let mut rig = rig_with_past(Bounds::default());
    rig.holds_reads = true;
    let many: Vec<Value> = (0..256).map(|_| commit(ADA, "child")).collect();
    let messages = STATE_TAIL_EVENTS_MAX / many.len() + 1;
    for at in 0..messages {
        say(&mut rig, &many);
        if at == messages / 2 {
            // What is answered then does not say all.
            rig.answer_reads();
        }
    }
    assert!(live(&rig, &Stream::user(ADA)).is_none());
    rig.holds_reads = false;
    rig.settle();
    check(&rig, &Stream::user(ADA));
    let expected = messages * many.len();
    assert_eq!(commits(&rig, "child"), Some(expected as u64));
}

#[test]
fn a_state_is_written_down_and_taken_up_from_there() {
    let bounds = Bounds {
        snapshot_bytes_min: 2_000,
        ..Bounds::default()
    };
    let (mut rig, stream) = (rig(bounds), Stream::user(ADA));
    for tokens in 0..30 {
        say(&mut rig, &[progress(ADA, "a", tokens)]);
    }
    let written = rig.plain.snapshot(&stream).expect("it was written");
    let snapshots = rig.stats[0].counters.state_snapshots.value();
    assert!((2..10).contains(&snapshots), "{snapshots}");
    restart(&mut rig);
    rig.holds_reads = true;
    say(&mut rig, &[progress(ADA, "a", 99)]);
    rig.answer_reads();
    rig.turn();
    let after = rig
        .reads
        .iter()
        .find_map(|(_, request)| match request.what {
            ReadWhat::Events { after, .. } => Some(after),
            _ => None,
        });
    assert!(after.is_none_or(|after| after == Seq(written)), "{after:?}");
    rig.holds_reads = false;
    rig.settle();
    check(&rig, &stream);
    assert_eq!(tokens(&rig, "a"), Some(99));
}

#[test]
fn a_log_that_cannot_be_read_is_asked_again() {
    let mut rig = rig_with_past(Bounds::default());
    rig.plain.is_broken = true;
    let publisher = say(&mut rig, &[spawn(ADA, "child", "grandchild")]);
    assert!(rig.read(publisher).is_empty());
    let due_ms = rig.hub().next_deadline_ms();
    assert_eq!(due_ms, Some(rig.now.ms() + STATE_READ_RETRY_MS));
    assert!(!rig.hub().has_work());
    rig.plain.is_broken = false;
    rig.wait(STATE_READ_RETRY_MS);
    rig.settle();
    assert_eq!(rig.names(publisher), ["ack"]);
    check(&rig, &Stream::user(ADA));
}

#[test]
fn states_that_cannot_be_had_hold_up_no_others() {
    let mut rig = rig(Bounds::default());
    let streams: Vec<Stream> = (0..STATES_LOADING_MAX + 4)
        .map(|user| Stream::user(&user.to_string()))
        .collect();
    let spawns: Vec<Value> = streams.iter().map(|it| spawn(&it.id, "a", "b")).collect();
    say(&mut rig, &spawns);
    restart(&mut rig);
    rig.holds_reads = true;
    say(&mut rig, &spawns);
    rig.plain.is_broken = true;
    assert!(rig.answer_reads(), "of as many as are loaded at one time");
    rig.plain.is_broken = false;
    rig.holds_reads = false;
    rig.settle();
    let live_count = |rig: &Rig| {
        let live = streams.iter().filter(|stream| live(rig, stream).is_some());
        live.count()
    };
    assert_eq!(live_count(&rig), 4);
    rig.wait(STATE_READ_RETRY_MS - 1);
    rig.settle();
    assert_eq!(live_count(&rig), 4);
    rig.wait(1);
    rig.settle();
    assert_eq!(live_count(&rig), 5, "one after the other");
    rig.wait(STATES_LOADING_MAX as u64 * STATE_READ_SPACING_MS);
    rig.settle();
    streams.iter().for_each(|stream| check(&rig, stream));
}

#[test]
fn states_of_followed_streams_take_no_place_that_others_wait_for() {
    let mut rig = rig(Bounds::default());
    let users: Vec<String> = (0..STATES_LOADING_MAX).map(|n| n.to_string()).collect();
    let spawns = users.iter().map(|user| spawn(user, "a", "b"));
    let spawns: Vec<Value> = spawns.chain([spawn(ADA, "a", "b")]).collect();
    say(&mut rig, &spawns);
    restart(&mut rig);
    rig.holds_reads = true;
    for user in &users {
        rig.viewer(user, &[]);
    }
    rig.settle();
    // What becomes of the viewers; then the first of their streams are looked at.
    rig.answer_reads();
    rig.settle();
    assert_eq!(rig.hub().folds.len(), STATES_LOADING_UNHURRIED_MAX);
    say(&mut rig, &[spawn(ADA, "b", "c")]);
    // The snapshot, and the events after it.
    for _ in 0..2 {
        rig.answer_reads();
        rig.settle();
    }
    check(&rig, &Stream::user(ADA));
    assert!(rig.hub().folds.len() < users.len());
    rig.holds_reads = false;
    rig.settle();
    for user in &users {
        check(&rig, &Stream::user(user));
    }
}

#[test]
fn states_of_busy_projects_take_no_place_that_others_wait_for() {
    let mut rig = rig(Bounds::default());
    let projects: Vec<String> = (0..STATES_LOADING_MAX).map(|n| n.to_string()).collect();
    let event = |project: &String| json!({"type": "x", "project_id": project});
    let events: Vec<Value> = projects.iter().map(event).collect();
    let (spawns, again) = ([spawn(ADA, "a", "b")], [spawn(ADA, "b", "c")]);
    say(&mut rig, &[&events[..], &spawns].concat());
    restart(&mut rig);
    rig.holds_reads = true;
    say(&mut rig, &[&events[..], &again].concat());
    // The snapshot, and the events after it.
    for _ in 0..2 {
        rig.answer_reads();
        rig.settle();
    }
    check(&rig, &Stream::user(ADA));
    let is_loaded = |project: &&String| live(&rig, &Stream::project(project)).is_some();
    let loaded = projects.iter().filter(is_loaded).count();
    assert!(loaded <= STATES_LOADING_UNHURRIED_MAX, "{loaded}");
    rig.holds_reads = false;
    rig.settle();
    for project in &projects {
        check(&rig, &Stream::project(project));
    }
}

#[test]
fn what_is_counted_of_projects_is_bounded_for_all_of_them() {
    let bounds = Bounds {
        state_entries_max: 8,
        ..Bounds::default()
    };
    let mut rig = rig(bounds);
    // As many counts as four agents take, in each of many projects.
    for project in 0..8 {
        let event = |n: i64| {
            let timestamp = WALL_MS - n;
            json!({"type": "x", "project_id": project, "timestamp": timestamp})
        };
        say(&mut rig, &(0..128).map(event).collect::<Vec<_>>());
    }
    assert!(rig.hub().folds.entries() <= 8);
    let live = (0..8).filter(|n: &u64| live(&rig, &Stream::project(&n.to_string())).is_some());
    assert!((1..=2).contains(&live.count()));
}

#[test]
fn idle_states_are_let_go_of_and_come_back() {
    let bounds = Bounds {
        states_max: 2,
        ..Bounds::default()
    };
    let mut rig = rig(bounds);
    let users = ["ada", "bob", "cy", "dan", "eve"];
    for round in 0..3 {
        for user in users {
            say(
                &mut rig,
                &[spawn(user, "a", "b"), progress(user, "b", round)],
            );
            check(&rig, &Stream::user(user));
            assert!(rig.hub().folds.len() <= 4);
        }
    }
    let loads = rig.stats[0].counters.state_loads.value();
    assert!(loads >= 8, "{loads}");
    assert_eq!(rig.hub().folds.entries(), 2 * rig.hub().folds.len());
}

#[test]
fn a_state_that_is_held_stays() {
    let bounds = Bounds {
        states_max: 0,
        ..Bounds::default()
    };
    let mut rig = rig(bounds);
    say(&mut rig, &[spawn(ADA, "a", "b")]);
    let hub = rig.hub();
    let slot = hub.streams.find(StreamKind::User, ADA).expect("known");
    hub.hold_fold(slot);
    rig.settle();
    for user in ["bob", "cy", "dan"] {
        say(&mut rig, &[spawn(user, "a", "b")]);
    }
    check(&rig, &Stream::user(ADA));
    rig.hub().release_fold(slot);
    rig.settle();
    assert!(live(&rig, &Stream::user(ADA)).is_none());
}

#[test]
fn what_is_erased_is_in_no_state_and_in_no_snapshot() {
    let bounds = Bounds {
        snapshot_bytes_min: 300,
        ..Bounds::default()
    };
    let (mut rig, stream) = (rig(bounds), Stream::user(ADA));
    say(&mut rig, &[spawn(ADA, "secret", "b")]);
    let (now, order) = (rig.now, Ask::Erase(ADA.into()));
    let connection = Key::from_u64(99);
    rig.hub().handle_administrator(now, connection, &order);
    // From now on the log may be at it.
    rig.settle();
    rig.plain.erase(ADA);
    for tokens in 0..20 {
        say(&mut rig, &[progress(ADA, "later", tokens)]);
    }
    assert_eq!(
        rig.plain.snapshot(&stream),
        None,
        "it would know of what went"
    );
    assert!(tokens(&rig, "secret").is_some(), "nobody has said so yet");
    rig.hub().handle_erased(ADA.into());
    let slot = rig.hub().streams.find(StreamKind::User, ADA);
    let _ = slot.map(|slot| rig.hub().hold_fold(slot));
    rig.settle();
    assert_eq!(
        (tokens(&rig, "secret"), tokens(&rig, "later")),
        (None, Some(19))
    );
    check(&rig, &stream);
    say(&mut rig, &[progress(ADA, "later", 20)]);
    rig.settle();
    assert!(rig.plain.snapshot(&stream).is_some());
}

#[test]
fn a_drain_waits_for_those_who_wait_for_a_state() {
    let mut rig = rig_with_past(Bounds::default());
    rig.holds_reads = true;
    let publisher = say(&mut rig, &[spawn(ADA, "child", "grandchild")]);
    let now = rig.now;
    rig.hub().handle_drain(now, now.ms() + 4_000);
    rig.settle();
    assert_eq!(rig.closing(publisher), None);
    rig.holds_reads = false;
    rig.settle();
    assert_eq!(rig.names(publisher), ["ack", "1001"]);
    assert_eq!(paths(&rig).len(), 2);
}

#[test]
fn too_much_for_one_state_holds_up_its_publisher_alone() {
    let mut rig = rig_with_past(Bounds::default());
    rig.holds_reads = true;
    let large = |user: &str| {
        let mut event = spawn(user, "child", "grandchild");
        event["data"]["pad"] = json!("x".repeat(600_000));
        event.to_string()
    };
    let publishers = [rig.publisher(0), rig.publisher(0)];
    for _ in 0..2 {
        assert_ne!(rig.publish(publishers[0], &large(ADA)), Work::Stalled);
    }
    assert_eq!(rig.publish(publishers[0], &large(ADA)), Work::Stalled);
    assert_ne!(rig.publish(publishers[1], &large("bob")), Work::Stalled);
    rig.turn();
    assert!(!rig.hub().can_go_on());
    rig.holds_reads = false;
    rig.settle();
    assert_ne!(rig.work(publishers[0]), Work::Stalled);
    rig.settle();
    assert_eq!(paths(&rig).len(), 4);
    check(&rig, &Stream::user(ADA));
}

#[test]
fn a_project_has_its_conversations_and_no_agents() {
    let mut rig = rig(Bounds::default());
    let event = |event_type: &str| {
        json!({
            "type": event_type, "project_id": 7, "session_id": "s",
            "data": {"conversationId": "c", "message": {"type": "user"}},
        })
    };
    say(
        &mut rig,
        &[event("conversation_started"), event("message_added")],
    );
    let stream = Stream::project("7");
    let state = live(&rig, &stream).expect("it is live");
    assert!(state.forest().is_none());
    assert_eq!(state.conversations().active().count(), 1);
    restart(&mut rig);
    say(
        &mut rig,
        &[event("message_added"), event("conversation_ended")],
    );
    check(&rig, &stream);
    let state = live(&rig, &stream).expect("it is live");
    assert_eq!(state.conversations().active().count(), 0);
}

#[test]
fn whatever_is_done_in_a_project_is_counted_from_the_first_event_on() {
    let mut rig = rig(Bounds::default());
    let (stream, event) = (Stream::project("7"), json!({"type": "x", "project_id": 7}));
    for _ in 0..2 {
        say(&mut rig, &[event.clone(), event.clone()]);
        check(&rig, &stream);
        restart(&mut rig);
    }
}

#[test]
fn others_copies_are_as_they_were_published() {
    let mut rig = rig(Bounds::default());
    let mut event = spawn(ADA, "a", "b");
    event["project_id"] = json!("7");
    say(&mut rig, &[event]);
    let data = |stream: &Stream| {
        let first = rig.plain.stored(stream).first();
        first.map(|event| event.event.data.clone())
    };
    let own = data(&Stream::user(ADA)).expect("it was stored");
    let others = data(&Stream::project("7")).expect("it was stored");
    assert_eq!(&others[..], br#"{"child_session":"b"}"#);
    assert!(own.starts_with(&others[..others.len() - 1]) && own.len() > others.len());
}
