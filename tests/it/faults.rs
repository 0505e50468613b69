//! What must not bring the server down: a process out of descriptors, a panic, noise.

use serde_json::json;

use crate::harness::{Http, Server, Setup, Viewer, eventually, request, sample};

#[test]
fn accepting_goes_on_when_descriptors_are_free_again() {
    let server = Server::with(&Setup {
        before: Some("ulimit -n 64"),
        ..Default::default()
    });
    let token = server.viewer_token("alice", &["p"]);
    let mut viewer = Viewer::open(&server, "/keen?subscribe=all", &token);
    let mut publisher = crate::harness::Publisher::open(&server, &server.publisher_token());
    let held: Vec<_> = (0..80).map(|_| Http::connect(server.address())).collect();
    server.wait_for_log("cannot accept: trying again until descriptors are free", 0);
    // Those who are in are served.
    publisher.say(&json!({"event_type": "x", "project_id": "p"}));
    assert!(publisher.settle(1).is_empty());
    viewer.skip_to("x");
    drop(held);
    let mut newcomer = Viewer::open(&server, "/keen?subscribe=all", &token);
    server.publish(&json!({"event_type": "y", "project_id": "p"}));
    assert_eq!(newcomer.skip_to("y"), viewer.skip_to("y"));
    let metrics = server.page("/metrics");
    assert!(sample(&metrics, "sightline_accept_paused_total") >= 1.0);
}

#[test]
fn noise_is_refused_and_the_next_is_served() {
    let server = Server::start("");
    // A fixed seed: what is sent is the same each time.
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let token = server.viewer_token("alice", &[]);
    for round in 0..150 {
        let length = random() as usize % 200 + 1;
        let noise: Vec<u8> = (0..length).map(|_| random() as u8).collect();
        let mut http = server.http();
        if round % 2 == 0 {
            http.send(&crate::harness::upgrade_request("/keen", &token));
        }
        http.send(&noise);
        drop(http);
    }
    let mut http = server.http();
    http.send(&request("GET", "/livez", &[], b""));
    assert_eq!(http.receive().status, 200);
    eventually("nobody is left", || {
        server.connections().is_empty().then_some(())
    });
}

#[test]
fn an_answer_refused_is_an_end_at_once_when_the_client_ends() {
    let server = Server::start("");
    let open = || {
        let metrics = server.page("/metrics");
        sample(&metrics, "sightline_connections")
    };
    let before = open();
    let sockets: Vec<_> = (0..20)
        .map(|_| {
            let mut http = server.http();
            http.send(b"nonsense\r\n\r\n");
            assert_eq!(http.receive().status, 400);
            http
        })
        .collect();
    drop(sockets);
    let started = std::time::Instant::now();
    eventually("they are gone", || (open() <= before).then_some(()));
    assert!(started.elapsed().as_secs() < 3, "{:?}", started.elapsed());
}

#[cfg(feature = "failpoints")]
#[test]
fn a_panic_ends_one_connection_with_1011_and_no_other() {
    let server = Server::with(&Setup {
        may_panic: true,
        cores: 1,
        ..Default::default()
    });
    let token = server.viewer_token("alice", &[]);
    let mut neighbour = Viewer::open(&server, "/keen", &token);
    let mut doomed = Viewer::open(&server, "/keen", &token);
    doomed.say_text("failpoint:frame");
    let (_, code) = doomed.until_close();
    assert_eq!(code, 1011);
    server.publish(&json!({"event_type": "x", "user_id": "alice"}));
    assert_eq!(crate::harness::kind(&neighbour.next()), "x");
    let metrics = server.page("/metrics");
    assert_eq!(sample(&metrics, "sightline_panics_total"), 1.0);
    server.wait_for_log(
        "a panic while reading a connection's bytes: it is closed",
        0,
    );
}
