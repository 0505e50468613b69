//! Each attack against the gateway itself: how it ends the peers, and that it goes on.

use serde_json::Value;

use crate::gateway::Gateway;
use crate::server::SECRET;
use crate::transports::Identity;
use crate::{SHORT, loadgen};

/// Runs an attack on a gateway, and a load after it; returns the report.
fn attack(arguments: &str) -> Value {
    let gateway = Gateway::start("");
    attack_at(&format!("ws://{}", gateway.address), "", arguments)
}

/// The same on the gateway at `url`, which the load trusts by `trust`.
fn attack_at(url: &str, trust: &str, arguments: &str) -> Value {
    let files = tempfile::tempdir().unwrap();
    let report = |arguments: &str| -> Value {
        let arguments = format!("{arguments} --secret {SECRET} {trust}");
        let output = loadgen(url, &arguments, files.path());
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let json = std::fs::read(files.path().join("report.json")).unwrap();
        serde_json::from_slice(&json).unwrap()
    };
    let attacked = report(&format!("attack {arguments}"));
    let load = report(&format!(
        "fanout --connections 2 --rate 100 --warmup 0 {SHORT}"
    ));
    assert_eq!(load["runs"][0]["groups"][0]["delivered"], 100);
    attacked
}

fn count(report: &Value, end: &str) -> u64 {
    report["ended"][end].as_u64().unwrap_or(0)
}

#[test]
fn endless_fragments_are_closed_and_begun_again() {
    let report = attack("--kind fragments --duration 1");
    assert!(count(&report, "close 1008") >= 2, "{report}");
    assert!(report["bytes_sent"].as_u64() > Some(64 * 6), "{report}");
}

#[test]
fn silent_connections_stay_open() {
    let report = attack("--kind silent --connections 50 --duration 0.5");
    assert_eq!(
        (&report["connections"], &report["open"]),
        (&50.into(), &50.into())
    );
    assert_eq!(report["bytes_sent"], 0, "{report}");
}

#[test]
fn handshake_that_is_only_begun_is_no_request_and_under_tls_stays() {
    let arguments = "--kind tls-silent --connections 5 --duration 0.5";
    let plain = attack(arguments);
    assert!(count(&plain, "status 400") >= 5, "{plain}");
    let identity = Identity::new();
    let gateway = Gateway::start(&identity.settings());
    let url = format!("wss://{}", gateway.address);
    let tls = attack_at(&url, &identity.trust(), arguments);
    assert_eq!((&tls["connections"], &tls["open"]), (&5.into(), &5.into()));
}

#[test]
fn header_comes_under_tls_too() {
    let identity = Identity::new();
    let gateway = Gateway::start(&identity.settings());
    let url = format!("wss://{}", gateway.address);
    let arguments = "--kind header --connections 2 --duration 3";
    let report = attack_at(&url, &identity.trust(), arguments);
    assert!(count(&report, "status 431") >= 2, "{report}");
}

#[test]
fn bomb_is_refused() {
    for bomb_bytes in ["1073741824", "10000000"] {
        let arguments = format!("--kind bomb --duration 1 --bomb-bytes {bomb_bytes}");
        let report = attack(&arguments);
        assert!(count(&report, "close 1009") >= 2, "{report}");
        assert!(report["deflating"].as_u64() >= Some(2), "{report}");
    }
}

#[test]
fn long_header_is_refused_at_full_speed_and_in_paces() {
    let report = attack("--kind header --connections 3 --duration 2");
    assert!(count(&report, "status 431") >= 3, "{report}");
    let arguments = "--kind header --connections 3 --duration 0.5 --byte-interval-us 10000";
    let report = attack(arguments);
    // A byte every 10 ms cannot have become a long header yet.
    assert_eq!(report["open"], 3, "{report}");
    assert!(report["bytes_sent"].as_u64() < Some(1000), "{report}");
}

#[test]
fn attack_on_nobody_fails() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}", port.local_addr().unwrap());
    drop(port);
    let files = tempfile::tempdir().unwrap();
    let output = loadgen(&url, "attack --kind silent --duration 0.3", files.path());
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("not connected: "), "{text}");
}
