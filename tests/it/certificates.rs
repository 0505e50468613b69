//! The certificate and its key: refused at the start, and loaded again at SIGHUP.

use std::fs;
use std::io::Write;
use std::path::Path;

use rustls::ALL_VERSIONS;
use serde_json::json;

use crate::harness::{Authority, Server, Setup, Viewer, run, sample, text};

/// Starts and checks with the files as they are: both must refuse and say this.
fn check(folder: &Path, told: &str) {
    for command in ["serve", "check-config"] {
        let ending = run(folder, &[command]);
        assert_eq!(ending.code, Some(78), "{told}: {}", ending.err);
        assert!(ending.err.contains(told), "{told}: {}", ending.err);
        assert_eq!(ending.out, "");
    }
}

#[test]
fn a_pair_that_is_none_is_a_wrong_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let config = "listen = ['127.0.0.1:0']\nauth.jwt_secret = 'a secret that has more than 32 bytes'\n\
                  tls.cert = 'cert.pem'\ntls.key = 'key.pem'\n";
    fs::write(folder.join("sightline.toml"), config).unwrap();
    let authority = Authority::new();
    authority.install(folder);
    let ending = run(folder, &["check-config"]);
    assert_eq!(ending.code, Some(0), "{}", ending.err);
    fs::write(folder.join("key.pem"), authority.issue().1).unwrap();
    check(
        folder,
        "tls.key: \"key.pem\": its private key does not match the certificate",
    );
    fs::write(folder.join("key.pem"), "nothing").unwrap();
    check(
        folder,
        "tls.key: \"key.pem\": there is no private key in it (PEM)",
    );
    fs::write(folder.join("cert.pem"), "nothing").unwrap();
    check(
        folder,
        "tls.cert: \"cert.pem\": there is no certificate in it (PEM)",
    );
    fs::remove_file(folder.join("key.pem")).unwrap();
    check(folder, "tls.key: cannot read \"key.pem\"");
}

/// The certificate that a new connection is shown.
fn shown(server: &Server) -> Vec<u8> {
    let mut stream = server.connect_tls(&server.tls_client(ALL_VERSIONS));
    stream.flush().unwrap();
    let certificates = stream.conn.peer_certificates().unwrap();
    certificates[0].to_vec()
}

#[test]
fn sighup_loads_the_pair_again_and_nobody_is_cut_off() {
    let server = Server::with(&Setup {
        tls: true,
        ..Setup::default()
    });
    let token = server.viewer_token("alice", &[]);
    let mut viewer = Viewer::open(&server, "/observatory?subscribe=all", &token);
    let mut kept = server.http();
    let old = shown(&server);
    // Another certificate, of which the key is missing.
    let folder = server.folder.path();
    let authority = server.authority.as_ref().unwrap();
    let (certificate, key) = authority.issue();
    fs::write(folder.join("cert.pem"), &certificate).unwrap();
    server.signal("HUP");
    let line = server.wait_for_log("SIGHUP: the certificate in force stays", 0);
    assert_eq!(line["level"], "error");
    let told = "tls.key: \"key.pem\": its private key does not match the certificate";
    assert_eq!(text(&line["error"]), told);
    assert!(shown(&server) == old);
    // Now with its key.
    fs::write(folder.join("key.pem"), &key).unwrap();
    server.signal("HUP");
    server.wait_for_log("SIGHUP: the certificate was loaded again", 0);
    assert!(shown(&server) != old);
    // Gone altogether: what is in force is not what is on the disk.
    fs::remove_file(folder.join("cert.pem")).unwrap();
    server.signal("HUP");
    server.wait_for_log("SIGHUP: the certificate in force stays", 1);
    assert!(shown(&server) != old);
    server.publish(&json!({"event_type": "note", "user_id": "alice", "session_id": "s"}));
    viewer.skip_to("note");
    kept.send(&crate::harness::request("GET", "/livez", &[], b""));
    assert_eq!(kept.receive().status, 200);
    let metrics = server.page("/metrics");
    let reloads = |outcome: &str| {
        let name = format!("sightline_certificate_reloads_total{{outcome=\"{outcome}\"}}");
        sample(&metrics, &name)
    };
    assert_eq!((reloads("failed"), reloads("loaded")), (2.0, 1.0));
}

#[test]
fn sighup_without_a_certificate_changes_nothing() {
    let server = Server::start("");
    server.signal("HUP");
    server.wait_for_log("SIGHUP: there is no certificate to load again", 0);
    assert_eq!(server.ask("GET", "/livez", "none", "").status, 200);
}
