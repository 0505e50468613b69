//! What a run leaves behind: the folder of a report, objectives, comparisons, pages.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use crate::server::{Fault, Server};
use crate::{SHORT, loadgen};

/// A fan-out of 400 deliveries a second to 8, with `more` arguments.
fn fan_out(fault: Fault, more: &str, files: &Path) -> Output {
    let arguments =
        format!("fanout --target topic --connections 8 --rate 50 --warmup 0 {SHORT} {more}");
    loadgen(&Server::start(fault), &arguments, files)
}

fn report_into(folder: &Path) -> String {
    format!("--report {}", folder.display())
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap().map(Result::unwrap);
    let mut names: Vec<_> = entries
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

pub(crate) fn check_schema(summary: &Value) {
    let schema = serde_json::from_str(include_str!("../../report/summary.schema.json")).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let errors: Vec<_> = validator.iter_errors(summary).collect();
    assert!(errors.is_empty(), "{errors:?}");
}

#[test]
fn folder_of_a_clean_run_holds_everything() {
    let files = tempfile::tempdir().unwrap();
    let folder = files.path().join("out");
    let pid = std::process::id();
    // Three seconds: two of them with an interval of their own.
    let more = format!(
        "--duration 3 --server-pid {pid} --slo lost==0 {}",
        report_into(&folder)
    );
    let arguments = format!(
        "fanout --target topic --connections 8 --rate 50 --warmup 0 --drain 5 \
                             --slip-max-us 60000000 --busy-max-percent 100 {more}"
    );
    let ran = loadgen(&Server::start(Fault::None), &arguments, files.path());
    assert_eq!(ran.status.code(), Some(0), "{ran:?}");
    assert!(
        String::from_utf8_lossy(&ran.stdout).contains("✓ lost==0: 0"),
        "{ran:?}"
    );
    assert_eq!(
        names(&folder),
        [
            "intervals.csv",
            "latency.hgrm",
            "latency.hlog",
            "report.html",
            "summary.json"
        ]
    );
    let summary: Value = serde_json::from_str(&read(&folder.join("summary.json"))).unwrap();
    check_schema(&summary);
    let intervals = summary["runs"][0]["intervals"].as_array().unwrap();
    let counted = |name: &str| {
        intervals
            .iter()
            .map(|row| row[name].as_u64().unwrap())
            .sum::<u64>()
    };
    assert_eq!(
        (intervals.len(), counted("samples"), counted("events")),
        (3, 1200, 150)
    );
    assert!(
        intervals[0]["server_rss_bytes"].as_u64() > Some(100_000),
        "{summary}"
    );
    let service_ns = &summary["runs"][0]["groups"][0]["service_ns"];
    assert!(service_ns["p50"].as_u64() > Some(0), "{summary}");
    assert_eq!(read(&folder.join("intervals.csv")).lines().count(), 1 + 3);
    let hlog = read(&folder.join("latency.hlog"));
    assert_eq!(hlog.matches("Tag=all,").count(), 3, "{hlog}");
    assert!(read(&folder.join("latency.hgrm")).contains("Total count    =         1200]"));
    let page = read(&folder.join("report.html"));
    assert!(
        page.contains("fanout on topic") && page.contains("Server memory"),
        "{page}"
    );
    let again = fan_out(Fault::None, &report_into(&folder), files.path());
    assert_eq!(
        again.status.code(),
        Some(1),
        "the folder is not empty: {again:?}"
    );
}

/// On a machine with two CPUs at least.
#[test]
fn seconds_of_several_threads_are_told_as_one() {
    if std::thread::available_parallelism().unwrap().get() < 2 {
        return;
    }
    let files = tempfile::tempdir().unwrap();
    let folder = files.path().join("out");
    let arguments = format!(
        "users --target topic --users 4 --connections-per-user 2 --rate 100 --warmup 0 \
         --duration 2 --drain 5 --slip-max-us 60000000 --busy-max-percent 100 --cpus 0,1 {}",
        report_into(&folder)
    );
    let ran = loadgen(&Server::start(Fault::None), &arguments, files.path());
    assert_eq!(ran.status.code(), Some(0), "{ran:?}");
    let summary: Value = serde_json::from_str(&read(&folder.join("summary.json"))).unwrap();
    let rows = summary["runs"][0]["intervals"].as_array().unwrap();
    let column = |name: &str| -> Vec<u64> {
        let values = rows.iter().map(|row| row[name].as_u64().unwrap());
        values.collect()
    };
    assert_eq!(column("samples").iter().sum::<u64>(), 400, "{rows:?}");
    assert_eq!(column("events").iter().sum::<u64>(), 200, "{rows:?}");
    assert!(rows.len() <= 2, "{rows:?}");
    assert!(column("start_unix_ms").is_sorted(), "{rows:?}");
    let hgrm = read(&folder.join("latency.hgrm"));
    assert!(hgrm.contains("Total count    =          400]"), "{hgrm}");
}

#[test]
fn folder_of_a_failed_run_tells_no_latency() {
    let files = tempfile::tempdir().unwrap();
    let folder = files.path().join("out");
    let ran = fan_out(Fault::Loses, &report_into(&folder), files.path());
    assert_eq!(ran.status.code(), Some(1), "{ran:?}");
    assert_eq!(
        names(&folder),
        ["intervals.csv", "report.html", "summary.json"]
    );
    let summary = read(&folder.join("summary.json"));
    let summary: Value = serde_json::from_str(&summary).unwrap();
    check_schema(&summary);
    let run = &summary["runs"][0];
    assert_eq!(run["groups"][0]["histogram"], Value::Null);
    assert_eq!(run["intervals"][0]["max_ns"], Value::Null);
    assert_eq!(summary["verdict"], "failed");
}

#[test]
fn missed_objective_has_an_exit_code_of_its_own() {
    let files = tempfile::tempdir().unwrap();
    let ran = fan_out(Fault::None, "--slo p50<1ns,lost==0", files.path());
    assert_eq!(ran.status.code(), Some(4), "{ran:?}");
    let text = String::from_utf8(ran.stdout).unwrap();
    assert!(
        text.contains("✗ p50<1ns: ") && text.contains("✓ lost==0: 0"),
        "{text}"
    );
    let unreadable = fan_out(Fault::None, "--slo p50<1", files.path());
    assert_eq!(unreadable.status.code(), Some(2), "{unreadable:?}");
}

fn command(arguments: &[&Path], first: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_loadgen"))
        .args(first)
        .args(arguments)
        .output()
        .unwrap()
}

#[test]
fn summaries_are_compared_and_laid_over_each_other() {
    let files = tempfile::tempdir().unwrap();
    let [one, other, larger] = ["one", "other", "larger"].map(|name| files.path().join(name));
    for (folder, connections) in [(&one, 8), (&other, 8), (&larger, 9)] {
        let arguments = format!(
            "fanout --target topic --rate 50 --warmup 0 {SHORT} --connections {connections} {}",
            report_into(folder)
        );
        let ran = loadgen(&Server::start(Fault::None), &arguments, files.path());
        assert_eq!(ran.status.code(), Some(0), "{ran:?}");
    }
    let same = command(&[&one, &other], &["compare"]);
    assert_eq!(same.status.code(), Some(0), "{same:?}");
    let text = String::from_utf8(same.stdout).unwrap();
    assert!(
        text.contains("deliveries_per_second") && text.contains("needs 5 runs"),
        "{text}"
    );
    let different = command(&[&one, &larger], &["compare"]);
    assert_eq!(different.status.code(), Some(2), "{different:?}");
    let text = String::from_utf8(different.stderr).unwrap();
    assert!(
        text.contains("load.groups[0].connections: 8 and 9"),
        "{text}"
    );
    let anyway = command(&[&one, &larger], &["compare", "--anyway"]);
    assert_eq!(anyway.status.code(), Some(0), "{anyway:?}");
    let page = files.path().join("page.html");
    let path = page.to_str().unwrap();
    let written = command(&[&one, &other], &["report", "--output", path]);
    assert_eq!(written.status.code(), Some(0), "{written:?}");
    assert!(read(&page).contains("fanout: 2 compared"));
    let nothing = command(&[files.path()], &["report", "--output", path]);
    assert_eq!(nothing.status.code(), Some(1), "{nothing:?}");
}
