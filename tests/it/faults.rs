//! What must not bring the server down: noise, and clients that are gone.

use crate::harness::{Server, eventually, request, sample};

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
