use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

// What one of two users does, with names that both use.
#[derive(Clone, Debug)]
enum Act {
    Publish {
        kind: usize,
        session: usize,
        other: usize,
    },
    Pass,
    Ask {
        session: usize,
    },
    Watch {
        mode: TreeMode,
    },
}

fn act() -> impl Strategy<Value = (bool, Act)> {
    let publish =
        (0..7_usize, 0..5_usize, 0..5_usize).prop_map(|(kind, session, other)| Act::Publish {
            kind,
            session,
            other,
        });
    let act = prop_oneof![
        6 => publish,
        2 => Just(Act::Pass),
        1 => (0..5_usize).prop_map(|session| Act::Ask { session }),
        1 => prop_oneof![Just(TreeMode::Full), Just(TreeMode::Patch)].prop_map(|mode| Act::Watch { mode }),
    ];
    (any::<bool>(), act)
}

// An event of a user that names `session` and `other` wherever it can, and marks what it says.
fn marked(kind: usize, session: usize, other: usize, mark: &str) -> Value {
    let sessions = ["s0", "s1", "s2", "s3", "s4"];
    let (session, other) = (sessions[session], sessions[other]);
    let (name, data) = match kind {
        0 => (
            "agent_spawned",
            json!({"parent_session": session, "child_session": other, "purpose": mark, "git_branch": mark}),
        ),
        1 => (
            "phase_transition",
            json!({"to_phase": mark, "session_id": other}),
        ),
        2 => (
            "git_operation",
            json!({"operation_type": "commit", "branch": mark, "commit_hash": mark, "session": other}),
        ),
        3 => (
            "tool_execution",
            json!({"tool_name": mark, "files_affected": [mark]}),
        ),
        4 => ("progress_update", json!({"phase": mark, "tokens_used": 1})),
        5 => ("completion", json!({"success": true, "sessionId": other})),
        _ => ("error", json!({"message": mark, "session_id": other})),
    };
    json!({"type": name, "session_id": session, "data": data})
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    // Two users with the same sessions: nothing of one is in any frame of the other, and all screens
    // show what the server has.
    #[test]
    fn users_who_name_each_others_sessions_see_their_own_alone(acts in prop::collection::vec(act(), 1..60)) {
        let mut rig = rig();
        let users = ["ada", "bob"];
        let marks = ["of-ada", "of-bob"];
        let mut screens: Vec<(usize, Client, Screen)> = Vec::new();
        for (is_bob, act) in acts {
            let me = usize::from(is_bob);
            match act {
                Act::Pass => pass(&mut rig),
                Act::Publish { kind, session, other } => {
                    let mut event = marked(kind, session, other, marks[me]);
                    event["user_id"] = json!(users[me]);
                    let publisher = rig.publisher(0);
                    rig.publish(publisher, &event.to_string());
                    rig.settle();
                    rig.read(publisher);
                    rig.hub().handle_disconnect(publisher.key);
                }
                Act::Ask { session } => {
                    rig.wait(1_000);
                    if let Some((me, client, screen)) = screens.get_mut(session) {
                        let foreign = marks[1 - *me];
                        rig.say(*client, &json!({"type": "get_agent_tree", "data": {"sessionId": format!("s{session}")}}));
                        rig.settle();
                        let said = screen.read(&mut rig, *client);
                        prop_assert!(!json!(said).to_string().contains(foreign));
                    }
                }
                Act::Watch { mode } => {
                    let client = rig.connect(claims(users[me], &[]), Dialect::Observatory, query(mode));
                    rig.settle();
                    screens.push((me, client, Screen::default()));
                }
            }
        }
        pass(&mut rig);
        for (me, client, mut screen) in screens {
            let said = screen.read_all(&mut rig, client);
            prop_assert!(!json!(said).to_string().contains(marks[1 - me]));
            rig.wait(60_000);
            screen.check(&mut rig, client);
        }
    }

    // Whatever a viewer has read of, its screen is right in the end.
    #[test]
    fn screens_are_right_however_slowly_they_are_read(
        mode in prop_oneof![Just(TreeMode::Full), Just(TreeMode::Patch)],
        acts in prop::collection::vec((0..7_usize, 0..5_usize, 0..5_usize, 0..4_000_usize, any::<bool>()), 1..60),
    ) {
        check_screen(query(mode), &acts)?;
    }

    // The same, of the trees in which its sessions are.
    #[test]
    fn narrowed_screens_are_right_however_slowly_they_are_read(
        mode in prop_oneof![Just(TreeMode::Full), Just(TreeMode::Patch)],
        sessions in prop::sample::subsequence(vec!["s1", "s2", "s3", "elsewhere"], 1..=2),
        acts in prop::collection::vec((0..7_usize, 0..5_usize, 0..5_usize, 0..4_000_usize, any::<bool>()), 1..60),
    ) {
        let query = ConnectQuery {
            sessions: sessions.into_iter().map(Into::into).collect(),
            ..query(mode)
        };
        check_screen(query, &acts)?;
    }
}

// What an event is and of which two sessions, how much is read then, and whether time passes.
type Step = (usize, usize, usize, usize, bool);

fn check_screen(query: ConnectQuery, steps: &[Step]) -> Result<(), TestCaseError> {
    let mut rig = rig();
    // Sessions narrow the events, too.
    let sees_all = query.sessions.is_empty();
    let client = rig.connect(claims("ada", &[]), Dialect::Observatory, query);
    let mut bytes = Vec::new();
    for &(kind, session, other, read, waits) in steps {
        let mut event = marked(kind, session, other, "m");
        event["user_id"] = json!("ada");
        let publisher = rig.publisher(0);
        rig.publish(publisher, &event.to_string());
        rig.turn();
        rig.read(publisher);
        rig.hub().handle_disconnect(publisher.key);
        bytes.extend(rig.write(client, read));
        if waits {
            pass(&mut rig);
        }
    }
    for _ in 0..3 {
        bytes.extend(rig.write(client, usize::MAX));
        pass(&mut rig);
    }
    prop_assert_eq!(rig.closing(client), None);
    let start = bytes.windows(4).position(|four| four == b"\r\n\r\n");
    let said = crate::hub::rig::messages(&bytes[start.map_or(0, |at| at + 4)..]);
    let mut screen = Screen::default();
    let mut present_seq = None;
    for message in &said {
        screen.see(message);
        if is_update(message) {
            let at_seq = message["data"]["at_seq"].as_u64();
            // What comes before all events is of one moment.
            let is_present = screen.head == 0 && present_seq.is_none_or(|seq| seq == at_seq);
            prop_assert!(!sees_all || is_present || at_seq <= Some(screen.head));
            present_seq = Some(at_seq);
        }
    }
    screen.check(&mut rig, client);
    // Nothing is owed: only finished trees get too old one day.
    let soon_ms = rig.now.ms() + 60_000;
    let next_ms = rig.hub().trees.next_look_ms();
    prop_assert!(next_ms.is_none_or(|at_ms| at_ms > soon_ms));
    Ok(())
}
