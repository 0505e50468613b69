//! The binary against servers: what it counts, what it prints, and with which code it exits. Here
//! against small ones that behave, and that misbehave in one way each.

#![allow(clippy::unwrap_used)]

mod attacks;
mod gateway;
mod kept;
mod nats;
mod publishing;
mod reports;
mod returns;
mod scenarios;
mod server;
mod slow;
mod storms;
mod transports;

use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};

use server::{Fault, SECRET, Server};

/// Runs the generator to its end.
fn loadgen(url: &str, arguments: &str, files: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_loadgen"))
        .args(arguments.split_ascii_whitespace())
        .args(["--url", url, "--json"])
        .arg(files.join("report.json"))
        .output()
        .unwrap()
}

/// Half a second, and so generous to generator and disk that a busy machine does not matter.
const SHORT: &str = "--duration 0.5 --drain 5 --slip-max-us 60000000 --busy-max-percent 100";

struct Ran {
    code: i32,
    text: String,
    json: Value,
}

fn run(fault: Fault, arguments: &str) -> Ran {
    run_at(&Server::start(fault), arguments)
}

fn run_at(url: &str, arguments: &str) -> Ran {
    let files = tempfile::tempdir().unwrap();
    let output = loadgen(url, arguments, files.path());
    let json = std::fs::read(files.path().join("report.json")).unwrap_or_default();
    let json: Value = serde_json::from_slice(&json).unwrap_or_default();
    if json["schema"] == "loadgen/load/2" {
        reports::check_schema(&json);
    }
    let errors = String::from_utf8(output.stderr).unwrap();
    Ran {
        code: output.status.code().unwrap(),
        text: String::from_utf8(output.stdout).unwrap() + &errors,
        json,
    }
}

#[test]
fn fan_out_is_counted_to_the_last_delivery() {
    let arguments =
        format!("fanout --target topic --connections 8 --rate 200 --repeat 2 --warmup 0.1 {SHORT}");
    let ran = run(Fault::None, &arguments);
    assert_eq!(ran.code, 0, "{}", ran.text);
    assert!(
        ran.text.contains("delivered 800/800 (lost 0 dup 0"),
        "{}",
        ran.text
    );
    assert!(ran.text.contains("2 runs, median"), "{}", ran.text);
    assert_eq!(ran.json["runs"].as_array().unwrap().len(), 2);
    let group = &ran.json["runs"][1]["groups"][0];
    assert_eq!(group["frame_bytes"], 415.0);
    assert_eq!(group["delivered"], 800);
    assert!(group["latency_ns"]["p90"].as_u64() > Some(0));
    assert_eq!(
        group["latency_ns"]["p99"],
        Value::Null,
        "800 samples do not carry a p99"
    );
    assert_eq!(ran.json["handshakes"]["connections"], 9);
}

#[test]
fn users_get_their_own_and_a_hot_one_is_measured_apart() {
    let arguments = format!(
        "users --target topic --users 5 --connections-per-user 2 --rate 100 --hot 20:40 \
         --frame-bytes 1000 --warmup 0.1 {SHORT}"
    );
    let ran = run(Fault::None, &arguments);
    assert_eq!(ran.code, 0, "{}", ran.text);
    let groups = &ran.json["runs"][0]["groups"];
    assert_eq!(
        (&groups[0]["name"], &groups[0]["delivered"]),
        (&json!("quiet"), &json!(100))
    );
    assert_eq!(
        (&groups[1]["name"], &groups[1]["delivered"]),
        (&json!("hot"), &json!(400))
    );
    assert_eq!(groups[1]["frame_bytes"], 1000.0);
}

#[test]
fn gateway_greets_numbers_and_acknowledges() {
    let arguments = format!(
        "users --secret={SECRET} --users 3 --connections-per-user 2 --rate 120 --warmup 0.1 {SHORT}"
    );
    let ran = run(Fault::None, &arguments);
    assert_eq!(ran.code, 0, "{}", ran.text);
    let run = &ran.json["runs"][0];
    assert_eq!(run["groups"][0]["delivered"], 120);
    assert_eq!(run["unacknowledged"], 0);
    let frame_bytes = run["groups"][0]["frame_bytes"].as_f64().unwrap();
    assert!(
        (413.0..417.0).contains(&frame_bytes),
        "numbers grow: {frame_bytes}"
    );
    assert!(!ran.json["command"].as_str().unwrap().contains(SECRET));
}

/// Runs a topic server with `fault` and expects the run to fail for `count` only.
fn check_fault(fault: Fault, count: &str) {
    let arguments = format!(
        "users --target topic --users 2 --connections-per-user 3 --rate 200 --warmup 0 {SHORT}"
    );
    let ran = run(fault, &arguments);
    assert_eq!(ran.code, 1, "{fault:?}: {}", ran.text);
    assert!(
        ran.text.contains("FAILED: deliveries are not as"),
        "{fault:?}: {}",
        ran.text
    );
    assert!(!ran.text.contains("p50"), "{fault:?}: {}", ran.text);
    let group = &ran.json["runs"][0]["groups"][0];
    for name in ["lost", "duplicated", "reordered", "foreign", "malformed"] {
        let is_there = group[name].as_u64() > Some(0);
        assert_eq!(is_there, name == count, "{fault:?}: {name} in {}", ran.text);
    }
}

#[test]
fn every_wrong_delivery_is_caught() {
    check_fault(Fault::Loses, "lost");
    check_fault(Fault::Duplicates, "duplicated");
    check_fault(Fault::Reorders, "reordered");
    check_fault(Fault::Leaks, "foreign");
    check_fault(Fault::Alters, "malformed");
}

#[test]
fn fault_in_the_warm_up_fails_the_run() {
    let arguments =
        format!("fanout --target topic --connections 2 --rate 100 {SHORT} --warmup 0.5");
    let ran = run(Fault::Loses, &arguments);
    assert_eq!(ran.code, 1, "{}", ran.text);
    assert!(
        ran.text.contains("FAILED: warm-up: deliveries"),
        "{}",
        ran.text
    );
}

#[test]
fn closed_connection_fails_the_run() {
    let arguments = format!("fanout --target topic --connections 3 --rate 100 --warmup 0 {SHORT}");
    let ran = run(Fault::Closes, &arguments);
    assert_eq!(ran.code, 1, "{}", ran.text);
    assert!(
        ran.text.contains("connection closed: subscriber"),
        "{}",
        ran.text
    );
}

#[test]
fn publisher_that_is_refused_or_ignored_fails_the_run() {
    let arguments =
        format!("fanout --secret={SECRET} --connections 2 --rate 100 --warmup 0 {SHORT}");
    let overloaded = run(Fault::Overloaded, &arguments);
    assert_eq!(overloaded.code, 1, "{}", overloaded.text);
    assert!(
        overloaded.text.contains("refused events with OVERLOADED"),
        "{}",
        overloaded.text
    );
    let ignored = run(Fault::NeverSettles, &arguments);
    assert_eq!(ignored.code, 1, "{}", ignored.text);
    assert!(
        ignored.text.contains("were not acknowledged"),
        "{}",
        ignored.text
    );
}

#[test]
fn slow_generator_is_found_out_and_prints_no_latency() {
    let arguments = "fanout --target topic --connections 2 --rate 200 --duration 0.5 --warmup 0 \
                     --busy-max-percent 100 --slow-generator-us 2000";
    let ran = run(Fault::None, arguments);
    assert_eq!(ran.code, 3, "{}", ran.text);
    assert!(ran.text.contains("generator-bound: "), "{}", ran.text);
    assert!(!ran.text.contains("p50"), "{}", ran.text);
    assert_eq!(ran.json["runs"][0]["verdict"], "generator-bound");
}

#[test]
fn histogram_file_is_written_for_each_group() {
    let url = Server::start(Fault::None);
    let files = tempfile::tempdir().unwrap();
    let file = files.path().join("latency.hgrm");
    let arguments = format!(
        "users --target topic --users 2 --connections-per-user 1 --rate 100 --hot 2:20 --warmup 0 \
         --hgrm {} {SHORT}",
        file.display()
    );
    let output = loadgen(&url, &arguments, files.path());
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    for (group, count) in [("quiet", 50), ("hot", 20)] {
        let text = std::fs::read_to_string(file.with_extension(format!("{group}.hgrm"))).unwrap();
        assert!(text.starts_with("       Value     Percentile TotalCount 1/(1-Percentile)\n\n"));
        assert!(
            text.contains(&format!("Total count    = {count:12}]")),
            "{text}"
        );
    }
}

#[test]
fn idle_connections_are_counted_and_the_server_is_watched() {
    let arguments = format!(
        "idle --target topic --connections 50 --users 5 --hold 0.2 --server-pid {}",
        std::process::id()
    );
    let ran = run(Fault::None, &arguments);
    assert_eq!(ran.code, 0, "{}", ran.text);
    assert!(ran.text.contains("handshakes/s"), "{}", ran.text);
    assert_eq!(ran.json["handshakes"]["connections"], 50);
    assert!(ran.json["server_rss_bytes"]["before"].as_u64() > Some(0));
}

#[test]
fn what_cannot_be_run_is_said_in_one_line() {
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let files = tempfile::tempdir().unwrap();
    let check = |url: &str, arguments: &str, code: i32, text: &str| {
        let output = loadgen(url, arguments, files.path());
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{errors}");
        assert!(
            errors.contains(text) && errors.lines().count() == 1,
            "{errors}"
        );
    };
    let closed = format!("ws://127.0.0.1:{port}");
    check(
        &closed,
        "fanout --target topic",
        1,
        "not all connections could be opened",
    );
    check(
        "http://x",
        "fanout --target topic",
        2,
        "expected ws://host:port or wss://host:port",
    );
    check(&closed, "fanout", 2, "needs --secret");
    check(
        &closed,
        "fanout --target topic --cpu 9999",
        1,
        "no such CPU",
    );
    check(
        &closed,
        "fanout --target topic --server-pid 4294967295",
        1,
        "--server-pid",
    );
    let open = Server::start(Fault::None);
    check(
        &open,
        "fanout --secret wrong --connections 1",
        1,
        "refused with",
    );
    let small = "fanout --target topic --connections 1 --frame-bytes 100";
    check(&open, small, 1, "frames of 100 bytes cannot be had");
}
