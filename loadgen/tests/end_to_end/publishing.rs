//! Publishers alone.

use crate::gateway::Gateway;
use crate::server::{Fault, SECRET, Server};
use crate::{Ran, SHORT, run, run_at};

fn publish(fault: Fault, more: &str) -> Ran {
    let arguments =
        format!("publish --secret={SECRET} --users 5 --rate 400 --warmup 0.1 {SHORT} {more}");
    run(fault, &arguments)
}

#[test]
fn every_event_is_acknowledged_and_its_latency_told() {
    let files = tempfile::tempdir().unwrap();
    let file = files.path().join("acknowledged.hgrm");
    let more = format!("--publishers 2 --repeat 2 --hgrm {}", file.display());
    let ran = publish(Fault::None, &more);
    assert_eq!(ran.code, 0, "{}", ran.text);
    assert!(
        ran.text.contains("acknowledged 200/200 (refused 0)"),
        "{}",
        ran.text
    );
    for run in ran.json["runs"].as_array().unwrap() {
        let acknowledgements = &run["acknowledgements"];
        assert_eq!(acknowledgements["publishers"], 2);
        assert_eq!(acknowledgements["acknowledged"], 200);
        assert!(acknowledgements["latency_ns"]["p90"].as_u64() > Some(0));
        assert!(run["groups"].as_array().unwrap().is_empty());
    }
    assert!(ran.text.contains("acknowledged  p50"), "{}", ran.text);
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.contains("Total count    =          400]"), "{text}");
}

#[test]
fn refusal_and_silence_fail_the_run_and_withhold_the_latency() {
    for (fault, reason) in [
        (Fault::Refuses, "events refused with NO_AUDIENCE"),
        (Fault::Overloaded, "refused events with OVERLOADED"),
        (Fault::NeverSettles, "were not acknowledged"),
    ] {
        let ran = publish(fault, "");
        assert_eq!(ran.code, 1, "{fault:?}: {}", ran.text);
        assert!(ran.text.contains(reason), "{fault:?}: {}", ran.text);
        assert!(!ran.text.contains("p50"), "{fault:?}: {}", ran.text);
    }
}

#[test]
fn target_that_acknowledges_nothing_is_refused() {
    let ran = run(Fault::None, "publish --target topic");
    assert_eq!(ran.code, 2, "{}", ran.text);
    assert!(
        ran.text.contains("needs --target sightline"),
        "{}",
        ran.text
    );
}

#[test]
fn gateway_is_measured() {
    let gateway = Gateway::start("");
    let arguments = format!(
        "publish --secret={SECRET} --users 3 --rate 200 --warmup 0.1 --event-ids --server-pid {} \
         {SHORT}",
        gateway.pid()
    );
    let ran = run_at(&format!("ws://{}", gateway.address), &arguments);
    assert_eq!(ran.code, 0, "{}", ran.text);
    let run = &ran.json["runs"][0];
    assert_eq!(run["acknowledgements"]["acknowledged"], 100);
    assert!(run["server"]["cpu_ns_per_event"].as_f64() > Some(0.0));
}

#[test]
fn size_is_that_of_the_event() {
    let url = Server::start(Fault::None);
    let arguments = |bytes| format!("publish --secret={SECRET} --payload-bytes {bytes} {SHORT}");
    let small = run_at(&url, &arguments(100));
    assert_eq!(small.code, 1, "{}", small.text);
    let least = small.text.split_whitespace().last().unwrap();
    assert!(
        small.text.contains("events of 100 bytes cannot be had"),
        "{}",
        small.text
    );
    let rate = format!(
        "{} --rate 100 --warmup 0",
        arguments(least.parse().unwrap())
    );
    assert_eq!(run_at(&url, &rate).code, 0);
}
