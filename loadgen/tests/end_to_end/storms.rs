//! Handshakes, and viewers that are cut off and come back.

use crate::gateway::Gateway;
use crate::server::{Fault, SECRET};
use crate::transports::Identity;
use crate::{SHORT, run, run_at};

/// So generous to the generator that a busy machine does not matter.
const PATIENT: &str = "--slip-max-us 60000000 --busy-max-percent 100";

/// Six viewers of two users, beside two who stay.
fn check_storm(cut: &str) {
    let gateway = Gateway::start("");
    let arguments = format!(
        "reconnect-storm --secret={SECRET} --cut {cut} --viewers 6 --users 2 --viewers-rate 200 \
         --after 0.2 --within 0.05 --patience 10 --live-users 2 --live-connections-per-user 3 \
         --live-rate 100 --warmup 0.1 --repeat 2 --server-pid {} {SHORT}",
        gateway.pid()
    );
    let ran = run_at(&format!("ws://{}", gateway.address), &arguments);
    assert_eq!(ran.code, 0, "{cut}: {}", ran.text);
    let rounds = ran.json["rounds"].as_array().unwrap();
    assert_eq!(rounds.len(), 2);
    for round in rounds {
        let viewers = &round["viewers"];
        let returned = &viewers["returned"];
        assert_eq!(returned["outcomes"]["resumed"], 6, "{cut}: {returned}");
        assert_eq!(returned["caught_up"], 6, "{cut}: {returned}");
        let group = &viewers["groups"][0];
        // 0.2 s and more at 200 events a second, to three of the six each.
        assert!(group["delivered"].as_u64() >= Some(120), "{cut}: {group}");
        assert_eq!(group["delivered"], group["expected"], "{cut}");
        assert!(returned["seconds"].as_f64() >= Some(0.04), "{returned}");
        assert!(round["beside"]["groups"][0]["delivered"].as_u64() > Some(0));
    }
}

#[test]
fn viewers_that_were_cut_off_come_back_to_exactly_what_they_missed() {
    check_storm("rst");
    check_storm("fin");
    check_storm("silence");
}

#[test]
fn cut_off_viewers_need_the_gateway() {
    let ran = run(Fault::None, "reconnect-storm --target topic");
    assert_eq!(ran.code, 2, "{}", ran.text);
}

#[test]
fn handshakes_are_counted_and_timed() {
    let gateway = Gateway::start("");
    let check = |more: &str| {
        let arguments = format!(
            "connect-storm --secret={SECRET} --connections 40 --users 4 --repeat 2 --server-pid {} \
             {PATIENT} {more}",
            gateway.pid()
        );
        let ran = run_at(&format!("ws://{}", gateway.address), &arguments);
        assert_eq!(ran.code, 0, "{more}: {}", ran.text);
        assert!(ran.text.contains("handshakes/s/core"), "{}", ran.text);
        for round in ran.json["rounds"].as_array().unwrap() {
            assert_eq!(round["connections"], 40, "{more}");
            assert!(round["handshake_ns"]["p50"].as_u64() > Some(0));
        }
    };
    check("");
    check("--rate 400");
    check("--arrival burst:20:0.1");
}

#[test]
fn handshakes_with_a_server_that_does_not_greet_end_with_the_upgrade() {
    let arguments = format!("connect-storm --target topic --connections 20 --rate 400 {PATIENT}");
    let ran = run(Fault::None, &arguments);
    assert_eq!(ran.code, 0, "{}", ran.text);
    assert_eq!(ran.json["rounds"][0]["connections"], 20);
}

#[test]
fn handshakes_under_tls_say_how_many_were_resumed() {
    let identity = Identity::new();
    let gateway = Gateway::start(&identity.settings());
    let arguments = format!(
        "connect-storm --secret={SECRET} --connections 20 --rate 200 --no-resumption {} {PATIENT}",
        identity.trust()
    );
    let ran = run_at(&format!("wss://{}", gateway.address), &arguments);
    assert_eq!(ran.code, 0, "{}", ran.text);
    let tls = &ran.json["rounds"][0]["tls"];
    assert_eq!((&tls["full"], &tls["resumed"]), (&20.into(), &0.into()));
}

#[test]
fn refused_handshakes_fail_the_round() {
    let gateway = Gateway::start("");
    let arguments = format!(
        "connect-storm --secret=another-secret-of-more-than-32-bytes --connections 4 --rate 100 \
         {PATIENT}"
    );
    let ran = run_at(&format!("ws://{}", gateway.address), &arguments);
    assert_eq!(ran.code, 1, "{}", ran.text);
    assert!(ran.text.contains("refused with 401"), "{}", ran.text);
    assert!(!ran.text.contains("p50"), "{}", ran.text);
}
