//! Scenario files, and arrivals.

use std::path::{Path, PathBuf};

use crate::server::{Fault, Server};
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
