//! Publishers alone.

use crate::gateway::Gateway;
use crate::server::{Fault, SECRET, Server};
use crate::transports::Identity;
use crate::{Ran, SHORT, run, run_at};

fn publish(fault: Fault, more: &str) -> Ran {
    let arguments =
        format!("ingest --secret={SECRET} --users 5 --rate 400 --warmup 0.1 {SHORT} {more}");
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
    let ran = run(Fault::None, "ingest --target topic");
    assert_eq!(ran.code, 2, "{}", ran.text);
    assert!(
        ran.text.contains("needs --target sightline"),
        "{}",
        ran.text
    );
}

/// Publishes to the gateway; every event must be acknowledged, in so many messages.
fn check_gateway(more: &str, events: u64, messages: u64) {
    let gateway = Gateway::start("");
    let arguments = format!(
        "ingest --secret={SECRET} --users 3 --warmup 0.1 --event-ids --server-pid {} \
         {SHORT} {more}",
        gateway.pid()
    );
    let ran = run_at(&format!("ws://{}", gateway.address), &arguments);
    assert_eq!(ran.code, 0, "{more}: {}", ran.text);
    let run = &ran.json["runs"][0];
    let acknowledgements = &run["acknowledgements"];
    assert_eq!(acknowledgements["acknowledged"], events, "{more}");
    assert_eq!(acknowledgements["messages"], messages, "{more}");
    let row = &run["intervals"][0];
    assert_eq!(
        (&row["events"], &row["samples"]),
        (&events.into(), &messages.into()),
        "{more}"
    );
    assert!(run["server"]["cpu_ns_per_event"].as_f64() > Some(0.0));
    assert!(run["server"]["events_per_core_second"].as_f64() > Some(0.0));
}

#[test]
fn gateway_is_measured_by_every_way_of_publishing() {
    check_gateway("--rate 200", 100, 100);
    check_gateway("--rate 200 --batch 30", 100, 4);
    check_gateway("--rate 200 --via http", 100, 100);
    check_gateway(
        "--rate 200 --via http --ack received --publishers 3",
        100,
        100,
    );
    check_gateway("--rate 200 --via http --batch 25 --publishers 2", 100, 4);
    check_gateway("--via http --pipeline 8 --arrival burst:20:0.1", 100, 100);
}

#[test]
fn requests_are_sent_under_tls_too() {
    let identity = Identity::new();
    let gateway = Gateway::start(&identity.settings());
    let arguments = format!(
        "ingest --via http --batch 10 --secret={SECRET} --rate 400 --warmup 0 {} {SHORT}",
        identity.trust()
    );
    let ran = run_at(&format!("wss://{}", gateway.address), &arguments);
    assert_eq!(ran.code, 0, "{}", ran.text);
    assert_eq!(ran.json["handshakes"]["tls"]["full"], 1);
}

#[test]
fn refused_requests_fail_the_run() {
    let gateway = Gateway::start("");
    let url = format!("ws://{}", gateway.address);
    let arguments = |secret| {
        format!(
            "ingest --via http --secret={secret} --rate 10 --payload-bytes 1100000 --warmup 0 {SHORT}"
        )
    };
    let ran = run_at(&url, &arguments(SECRET));
    assert_eq!(ran.code, 1, "{}", ran.text);
    assert!(
        ran.text.contains("refused with EVENT_TOO_LARGE"),
        "{}",
        ran.text
    );
    assert!(!ran.text.contains("p50"), "{}", ran.text);
    let ran = run_at(&url, &arguments("another-secret-of-more-than-32-bytes"));
    assert_eq!(ran.code, 1, "{}", ran.text);
    assert!(ran.text.contains("refused with 401"), "{}", ran.text);
}

#[test]
fn requests_need_the_gateway() {
    let ran = run(Fault::None, "ingest --via http --target topic");
    assert_eq!(ran.code, 2, "{}", ran.text);
}

#[test]
fn size_is_that_of_the_event() {
    let url = Server::start(Fault::None);
    let arguments = |bytes| format!("ingest --secret={SECRET} --payload-bytes {bytes} {SHORT}");
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
