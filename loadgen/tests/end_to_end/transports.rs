//! Deliveries under TLS and deflated: counted and checked as plain ones are.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::Value;
use tempfile::TempDir;

use crate::gateway::Gateway;
use crate::server::{Fault, SECRET, Server, Wire};
use crate::{Ran, SHORT, run_at};

/// A certificate for 127.0.0.1 that signs itself, and its files.
pub struct Identity {
    folder: TempDir,
    own: rcgen::CertifiedKey<rcgen::KeyPair>,
}

impl Identity {
    pub fn new() -> Self {
        let own = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("cert.pem"), own.cert.pem()).unwrap();
        std::fs::write(
            folder.path().join("key.pem"),
            own.signing_key.serialize_pem(),
        )
        .unwrap();
        Self { folder, own }
    }

    /// The gateway's lines for it.
    pub fn settings(&self) -> String {
        let (cert, key) = (self.path("cert.pem"), self.path("key.pem"));
        format!("tls.cert = {cert:?}\ntls.key = {key:?}")
    }

    /// The arguments by which the generator trusts it.
    pub fn trust(&self) -> String {
        format!("--ca-file {}", self.path("cert.pem"))
    }

    fn path(&self, file: &str) -> String {
        self.folder.path().join(file).display().to_string()
    }

    fn server(&self) -> String {
        let certificate: CertificateDer<'static> = self.own.cert.der().clone();
        let key = PrivateKeyDer::try_from(self.own.signing_key.serialize_der()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        Server::start_on(Wire::Tls(Arc::new(config)), Fault::None)
    }
}

fn handshakes(ran: &Ran) -> (u64, u64) {
    let tls = &ran.json["handshakes"]["tls"];
    (
        tls["full"].as_u64().unwrap(),
        tls["resumed"].as_u64().unwrap(),
    )
}

#[test]
fn loads_are_driven_over_tls_and_sessions_resumed() {
    let identity = Identity::new();
    let url = identity.server();
    let trust = identity.trust();
    let arguments = format!(
        "users --target topic --users 4 --connections-per-user 5 --rate 200 --warmup 0.1 \
         --in-flight 1 {trust} {SHORT}"
    );
    let ran = run_at(&url, &arguments);
    assert_eq!(ran.code, 0, "{}", ran.text);
    assert_eq!(ran.json["runs"][0]["groups"][0]["delivered"], 500);
    let (full, resumed) = handshakes(&ran);
    assert_eq!(full + resumed, 24);
    assert!(resumed > 0, "one after the other finds tickets");
    let arguments = format!(
        "idle --target topic --connections 20 --users 2 --hold 0.1 --no-resumption {trust}"
    );
    let ran = run_at(&url, &arguments);
    assert_eq!(ran.code, 0, "{}", ran.text);
    assert_eq!(handshakes(&ran), (20, 0));
    assert!(
        ran.text.contains("(TLS: 20 full, 0 resumed)"),
        "{}",
        ran.text
    );
}

#[test]
fn frames_over_many_records_arrive_whole() {
    let identity = Identity::new();
    let arguments = format!(
        "fanout --target topic --connections 2 --rate 10 --payload-bytes 200000 --warmup 0 \
         --duration 0.5 --slip-max-us 60000000 --busy-max-percent 100 --ca-file {}",
        identity.path("cert.pem")
    );
    let ran = run_at(&identity.server(), &arguments);
    assert_eq!(ran.code, 0, "{}", ran.text);
    let group = &ran.json["runs"][0]["groups"][0];
    assert_eq!(
        (&group["delivered"], &group["payload_bytes"]),
        (&10.into(), &200_000.0.into())
    );
}

#[test]
fn server_that_is_not_trusted_is_refused() {
    let (server, other) = (Identity::new(), Identity::new());
    let arguments = format!(
        "fanout --target topic --connections 1 --ca-file {}",
        other.path("cert.pem")
    );
    let ran = run_at(&server.server(), &arguments);
    assert_eq!(ran.code, 1, "{}", ran.text);
    assert!(
        ran.text.contains("invalid peer certificate"),
        "{}",
        ran.text
    );
}

fn deflated(fault: Fault, arguments: &str) -> (Ran, Value) {
    let url = Server::start_on(Wire::Deflate, fault);
    let arguments = format!("fanout --target topic --warmup 0 {arguments} {SHORT}");
    let ran = run_at(&url, &arguments);
    let group = ran.json["runs"][0]["groups"][0].clone();
    (ran, group)
}

#[test]
fn deflated_deliveries_are_inflated_checked_and_counted() {
    let size = "--connections 4 --rate 100 --payload-bytes 2048";
    let (ran, group) = deflated(Fault::None, &format!("--compress {size}"));
    assert_eq!(ran.code, 0, "{}", ran.text);
    assert_eq!(
        (&group["delivered"], &group["deflated"]),
        (&200.into(), &200.into())
    );
    assert_eq!(group["payload_bytes"], 2048.0);
    let frame_bytes = group["frame_bytes"].as_f64().unwrap();
    assert!((450.0..750.0).contains(&frame_bytes), "{frame_bytes}");
    assert!(
        ran.text.contains(" for 2048 (200 deflated)"),
        "{}",
        ran.text
    );

    let (ran, group) = deflated(Fault::None, size);
    assert_eq!(ran.code, 0, "{}", ran.text);
    assert_eq!(
        (&group["deflated"], &group["frame_bytes"]),
        (&0.into(), &2052.0.into())
    );
}

#[test]
fn wrong_deliveries_are_caught_though_deflated() {
    let check = |fault, count: &str| {
        let (ran, group) = deflated(fault, "--connections 3 --rate 100 --compress");
        assert_eq!(ran.code, 1, "{}", ran.text);
        assert!(group[count].as_u64() > Some(0), "{count}: {}", ran.text);
        assert!(group["deflated"].as_u64() > Some(0), "{}", ran.text);
    };
    check(Fault::Loses, "lost");
    check(Fault::Duplicates, "duplicated");
    check(Fault::Alters, "malformed");
}

#[test]
fn gateway_is_driven_over_tls() {
    let identity = Identity::new();
    let gateway = Gateway::start(&identity.settings());
    let arguments = format!(
        "users --secret {SECRET} --users 3 --connections-per-user 4 --rate 100 --warmup 0.1 \
         --in-flight 1 {} {SHORT}",
        identity.trust()
    );
    let ran = run_at(&format!("wss://{}", gateway.address), &arguments);
    assert_eq!(ran.code, 0, "{}", ran.text);
    assert_eq!(ran.json["runs"][0]["groups"][0]["delivered"], 200);
    let (full, resumed) = handshakes(&ran);
    assert_eq!(full + resumed, 13);
    assert!(resumed > 0, "the gateway gives tickets");
}

#[test]
fn gateway_deflates_what_is_worth_it() {
    let gateway = Gateway::start("");
    let url = format!("ws://{}", gateway.address);
    let group = |size: &str| {
        let arguments = format!(
            "fanout --secret {SECRET} --connections 5 --rate 100 --compress {size} --warmup 0.1 \
             {SHORT}"
        );
        let ran = run_at(&url, &arguments);
        assert_eq!(ran.code, 0, "{}", ran.text);
        ran.json["runs"][0]["groups"][0].clone()
    };
    let large = group("--payload-bytes 2048");
    assert_eq!(
        (&large["delivered"], &large["deflated"]),
        (&250.into(), &250.into())
    );
    assert!(large["frame_bytes"].as_f64() < Some(800.0), "{large}");
    let small = group("--frame-bytes 415");
    assert_eq!(
        (&small["delivered"], &small["deflated"]),
        (&250.into(), &0.into())
    );
}

#[test]
fn gateway_is_driven_and_watched() {
    let gateway = Gateway::start("");
    let arguments = format!(
        "fanout --secret {SECRET} --connections 5 --rate 100 --payload-bytes 2048 --warmup 0.1 \
         --server-pid {} {SHORT}",
        gateway.pid()
    );
    let ran = run_at(&format!("ws://{}", gateway.address), &arguments);
    assert_eq!(ran.code, 0, "{}", ran.text);
    let server = &ran.json["runs"][0]["server"];
    assert!(
        server["cpu_ns_per_delivery"].as_f64() > Some(0.0),
        "{}",
        ran.text
    );
}
