//! Scenario files, and arrivals.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};

use crate::gateway::Gateway;
use crate::server::{Fault, SECRET, Server};
use crate::{SHORT, run, run_at};

/// All that are committed.
fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../perf/scenarios");
    let entries = std::fs::read_dir(folder).unwrap();
    let files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    assert!(files.len() >= 10, "{files:?}");
    files
}

#[test]
fn every_committed_file_is_a_scenario() {
    for file in files() {
        // Where it reads the file it finds that there is no secret, which is no fault of the file.
        let ran = run_at("ws://127.0.0.1:1", &format!("run {}", file.display()));
        assert_eq!(ran.code, 2, "{}: {}", file.display(), ran.text);
        assert!(ran.text.contains("needs --secret"), "{}", ran.text);
    }
}

#[test]
fn file_is_run_and_flags_win_over_it() {
    let files = tempfile::tempdir().unwrap();
    let file = files.path().join("small.toml");
    let text = "scenario = \"fanout\"\ntarget = \"topic\"\nconnections = 3\nrate = 1\nwarmup = 0\n";
    std::fs::write(&file, text).unwrap();
    let ran = run(
        Fault::None,
        &format!("run {} --rate 100 {SHORT}", file.display()),
    );
    assert_eq!(ran.code, 0, "{}", ran.text);
    assert_eq!(ran.json["runs"][0]["groups"][0]["delivered"], 150);
}

#[test]
fn unknown_key_is_told_with_file_and_line() {
    let files = tempfile::tempdir().unwrap();
    let file = files.path().join("bad.toml");
    std::fs::write(&file, "scenario = \"fanout\"\nconections = 3\n").unwrap();
    let ran = run(Fault::None, &format!("run {}", file.display()));
    assert_eq!(ran.code, 2, "{}", ran.text);
    let expected = "bad.toml:2: fanout has no conections; did you mean connections?";
    assert!(ran.text.contains(expected), "{}", ran.text);
    let ran = run(Fault::None, "run /nonexistent.toml");
    assert_eq!(ran.code, 2, "{}", ran.text);
}

/// Events of a known type that are not of its shape.
const SLIPS: &str = "sightline_event_shape_errors_total";

/// The sum of a counter's samples on the gateway's page.
fn counter(address: &str, name: &str) -> f64 {
    let mut stream = TcpStream::connect(address).unwrap();
    let request = format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut page = String::new();
    stream.read_to_string(&mut page).unwrap();
    let samples = page.lines().filter(|line| line.starts_with(name));
    let values: Vec<f64> = samples
        .map(|line| line.rsplit_once(' ').unwrap().1.parse().unwrap())
        .collect();
    assert!(!values.is_empty(), "no {name} in {page}");
    values.iter().sum()
}

#[test]
fn mixture_is_delivered_and_the_gateway_finds_no_slip_in_it() {
    let gateway = Gateway::start("");
    let arguments = format!(
        "mixed --secret={SECRET} --users 4 --connections-per-user 2 --rate 600 --compress \
         --warmup 0.1 {SHORT}"
    );
    let ran = run_at(&format!("ws://{}", gateway.address), &arguments);
    assert_eq!(ran.code, 0, "{}", ran.text);
    assert_eq!(ran.json["runs"][0]["groups"][0]["delivered"], 600);
    assert_eq!(counter(&gateway.address, SLIPS), 0.0);
}

#[test]
fn soak_tells_how_memory_grows_and_judges_it() {
    let gateway = Gateway::start("");
    let url = format!("ws://{}", gateway.address);
    let arguments = |more: &str| {
        format!(
            "soak --secret={SECRET} --users 2 --connections-per-user 1 --rate 100 --warmup 0 \
             --total 0.8 --duration 0.2 --slip-max-us 60000000 --busy-max-percent 100 {more}"
        )
    };
    let watched = format!("--server-pid {}", gateway.pid());
    let ran = run_at(&url, &arguments(&watched));
    assert_eq!(ran.code, 0, "{}", ran.text);
    assert_eq!(ran.json["runs"].as_array().unwrap().len(), 4);
    assert!(
        ran.json["growth"]["bytes_per_minute"].is_f64(),
        "{}",
        ran.text
    );
    assert!(ran.json["placement"]["server"].is_array(), "{}", ran.text);
    assert_eq!(ran.json["verdict"], "clean");
    let ran = run_at(
        &url,
        &arguments(&format!("{watched} --growth-max-kib 1e12")),
    );
    assert_eq!(ran.code, 0, "{}", ran.text);
    let ran = run_at(&url, &arguments("--growth-max-kib 1"));
    assert_eq!(ran.code, 1, "{}", ran.text);
    assert_eq!(ran.json["verdict"], "failed");
    assert!(
        ran.text.contains("how memory grows is not known"),
        "{}",
        ran.text
    );
}

/// Every core, on a machine with two at least: a thread on each.
#[test]
fn several_threads_share_a_load_and_its_schedule() {
    let cpus = std::thread::available_parallelism().unwrap().get();
    if cpus < 2 {
        return;
    }
    let gateway = Gateway::start("");
    let (url, pid) = (format!("ws://{}", gateway.address), gateway.pid());
    let check = |arguments: &str, delivered: u64| {
        let arguments = format!(
            "{arguments} --secret={SECRET} --cpus 0,1 --server-pid {pid} --warmup 0.1 {SHORT}"
        );
        let ran = run_at(&url, &arguments);
        assert_eq!(ran.code, 0, "{}", ran.text);
        assert!(ran.text.contains("co-located on "), "{}", ran.text);
        let group = &ran.json["runs"][0]["groups"][0];
        assert_eq!(group["delivered"], delivered, "{}", ran.text);
        assert!(ran.json["runs"][0]["server"]["rss_bytes"].as_u64() > Some(0));
    };
    check("fanout --connections 5 --rate 100", 250);
    check(
        "users --users 5 --connections-per-user 2 --rate 200 --publishers 3",
        200,
    );
    check(
        "mixed --users 3 --connections-per-user 1 --arrival poisson --rate 200",
        100,
    );
}

#[test]
fn every_shape_of_arrivals_is_delivered() {
    let url = Server::start(Fault::None);
    for (arrival, delivered) in [
        ("poisson --rate 100", 100),
        ("ramp:50:150", 100),
        ("burst:10:0.1", 100),
    ] {
        let arguments =
            format!("fanout --target topic --connections 2 --warmup 0 --arrival {arrival} {SHORT}");
        let ran = run_at(&url, &arguments);
        assert_eq!(ran.code, 0, "{arrival}: {}", ran.text);
        let group = &ran.json["runs"][0]["groups"][0];
        assert_eq!(group["delivered"], delivered, "{arrival}");
    }
}
