//! TLS on `listen`: what is spoken, who is refused, and that everything above it is as without.

use std::io::Write;

use rustls::version::{TLS12, TLS13};
use rustls::{ProtocolVersion, SupportedProtocolVersion};
use serde_json::json;

use crate::harness::{Server, Setup, Stream, Viewer, sample, samples};

fn server() -> Server {
    server_with("", 2)
}

fn server_with(settings: &str, cores: usize) -> Server {
    Server::with(&Setup {
        settings,
        cores,
        tls: true,
        ..Setup::default()
    })
}

fn event(user: &str, text: &str) -> serde_json::Value {
    json!({"event_type": "note", "user_id": user, "session_id": "s", "data": {"text": text}})
}

#[test]
fn a_viewer_is_served_in_both_versions() {
    let server = server();
    let versions: [(&'static SupportedProtocolVersion, _); 2] = [
        (&TLS12, ProtocolVersion::TLSv1_2),
        (&TLS13, ProtocolVersion::TLSv1_3),
    ];
    for (version, expected) in versions {
        let mut stream = server.connect_tls(&server.tls_client(&[version]));
        stream.flush().unwrap();
        assert_eq!(stream.conn.protocol_version(), Some(expected));
        assert_eq!(stream.conn.alpn_protocol(), Some(&b"http/1.1"[..]));
        let token = server.viewer_token("alice", &[]);
        let stream = Stream::Tls(Box::new(stream));
        let mut viewer = Viewer::over(stream, "/observatory?subscribe=all", &token);
        server.publish(&event("alice", "over TLS"));
        let message = viewer.skip_to("note");
        assert_eq!(message["data"]["text"], "over TLS");
        viewer.close();
    }
    let metrics = server.page("/metrics");
    assert_eq!(
        sample(&metrics, "sightline_tls_handshakes_total{version=\"1.2\"}"),
        1.0
    );
    assert!(
        samples(&metrics, "sightline_tls_handshakes_total") > 3.0,
        "{metrics}"
    );
}
