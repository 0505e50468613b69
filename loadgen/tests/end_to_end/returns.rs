//! Viewers that come back to what they have missed.

use crate::gateway::Gateway;
use crate::server::{Fault, SECRET, Server};
use crate::{Ran, SHORT, run, run_at};

/// Six viewers of two users, who miss 20 events each, beside two live users.
fn arguments(more: &str) -> String {
    format!(
        "replay --secret={SECRET} --viewers 6 --users 2 --events 20 --events-rate 2000 \
         --within 0.05 --patience 5 --live-users 2 --live-connections-per-user 3 --live-rate 100 \
         --warmup 0.1 {SHORT} {more}"
    )
}

fn catch_up(fault: Fault) -> Ran {
    run(fault, &arguments(""))
}

#[test]
fn every_viewer_gets_exactly_what_it_has_missed() {
    let ran = run(Fault::None, &arguments("--repeat 2"));
    assert_eq!(ran.code, 0, "{}", ran.text);
    let line = "returned 6/6 viewers: delivered 120/120 (lost 0 dup 0 reordered 0 foreign 0";
    assert_eq!(ran.text.matches(line).count(), 2, "{}", ran.text);
    assert!(ran.text.contains("live p99: too few"), "{}", ran.text);
    for round in ran.json["rounds"].as_array().unwrap() {
        assert_eq!(round["quiet"]["groups"][0]["delivered"], 150);
        let returned = &round["beside"]["returned"];
        assert_eq!(returned["outcomes"]["resumed"], 6);
        assert!(returned["seconds"].as_f64() >= Some(0.04), "{returned}");
        assert!(returned["caught_up_ns"]["max"].as_u64() > Some(0));
    }
}

#[test]
fn second_run_goes_on_from_the_file_of_the_first() {
    let url = Server::start(Fault::None);
    let files = tempfile::tempdir().unwrap();
    let file = files.path().join("cursors.json");
    let prepared = run_at(&url, &arguments(&format!("--prepare {}", file.display())));
    assert_eq!(prepared.code, 0, "{}", prepared.text);
    let line = "6 viewers of 2 users have 20 events to catch up, epoch 0000abcd";
    assert!(prepared.text.contains(line), "{}", prepared.text);
    // How many they are, the file says.
    let second = arguments(&format!("--cursors {}", file.display()));
    let ran = run_at(&url, &second.replace("--viewers 6", "--viewers 1"));
    assert_eq!(ran.code, 0, "{}", ran.text);
    assert!(
        ran.text.contains("returned 6/6 viewers: delivered 120/120"),
        "{}",
        ran.text
    );
    let missing = run_at(&url, &arguments("--cursors /nonexistent"));
    assert_eq!(missing.code, 1, "{}", missing.text);
    assert!(missing.text.contains("/nonexistent: "), "{}", missing.text);
}

#[test]
fn gateway_that_was_killed_in_between_has_kept_everything() {
    let mut gateway = Gateway::start("");
    let files = tempfile::tempdir().unwrap();
    let file = files.path().join("cursors.json");
    let prepare = arguments(&format!("--prepare {}", file.display()));
    let prepared = run_at(&format!("ws://{}", gateway.address), &prepare);
    assert_eq!(prepared.code, 0, "{}", prepared.text);
    gateway.restart();
    let second = arguments(&format!("--cursors {}", file.display()));
    let ran = run_at(&format!("ws://{}", gateway.address), &second);
    assert_eq!(ran.code, 0, "{}", ran.text);
    assert!(
        ran.text
            .contains("returned 6/6 viewers: delivered 120/120 (lost 0 dup 0"),
        "{}",
        ran.text
    );
}

fn check_fault(fault: Fault, reason: &str, count: &str) {
    let ran = catch_up(fault);
    assert_eq!(ran.code, 1, "{fault:?}: {}", ran.text);
    assert!(ran.text.contains(reason), "{fault:?}: {}", ran.text);
    let returned = &ran.json["rounds"][0]["beside"]["returned"];
    assert!(returned["seconds"].is_null(), "{fault:?}: {}", ran.text);
    assert!(
        returned["caught_up_ns"].is_null(),
        "{fault:?}: {}",
        ran.text
    );
    for name in ["lost", "duplicated", "reordered", "foreign"] {
        let is_there = returned[name].as_u64() > Some(0);
        assert_eq!(is_there, name == count, "{fault:?}: {name} in {}", ran.text);
    }
}

#[test]
fn whatever_else_a_viewer_gets_fails_the_run() {
    let wrong = "what the returning viewers got is not what they had missed";
    check_fault(Fault::Loses, wrong, "lost");
    check_fault(Fault::Duplicates, wrong, "duplicated");
    check_fault(Fault::Reorders, wrong, "reordered");
    check_fault(Fault::Resets, "(to be resumed: reset 6)", "lost");
    check_fault(Fault::Closes, "connection closed: returning viewer", "lost");
    check_fault(
        Fault::CompletesEarly,
        "6 viewers heard of their end too early",
        "",
    );
}

#[test]
fn second_half_is_not_run_where_the_first_has_failed() {
    let ran = catch_up(Fault::NeverSettles);
    assert_eq!(ran.code, 1, "{}", ran.text);
    assert!(
        ran.text.contains("nothing could be prepared: "),
        "{}",
        ran.text
    );
    let ran = run(Fault::None, "replay --target topic");
    assert_eq!(ran.code, 2, "{}", ran.text);
}
