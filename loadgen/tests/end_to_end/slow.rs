//! Viewers that read slowly.

use serde_json::Value;

use crate::gateway::Gateway;
use crate::server::SECRET;
use crate::{SHORT, run_at};

/// Three slow viewers beside two others of one stream, who get so many events of 100 KB; returns
/// what became of them.
fn slow(settings: &str, events: u32, more: &str) -> Value {
    let gateway = Gateway::start(settings);
    let arguments = format!(
        "slow-consumer --secret={SECRET} --slow 3 --connections-per-user 2 --rate {} \
         --payload-bytes 100000 --warmup 0.1 {SHORT} {more}",
        events * 2
    );
    let ran = run_at(&format!("ws://{}", gateway.address), &arguments);
    assert_eq!(ran.code, 0, "{}", ran.text);
    let round = &ran.json["rounds"][0];
    assert_eq!(round["quiet"]["groups"][0]["delivered"], events * 2);
    assert_eq!(round["beside"]["groups"][0]["delivered"], events * 2);
    round["beside"]["lagged"].clone()
}

#[test]
fn viewers_that_read_later_get_everything() {
    let lagged = slow("limits.outbox_bytes_max = 67108864", 50, "");
    assert_eq!(lagged["ended"]["open"], 3, "{lagged}");
    assert_eq!(
        (&lagged["delivered"], &lagged["missed"]),
        (&150.into(), &0.into())
    );
}

#[test]
fn viewers_that_do_not_read_are_closed_and_got_no_hole() {
    let lagged = slow("limits.outbox_bytes_max = 3145728", 150, "");
    assert_eq!(lagged["ended"]["open"], Value::Null, "{lagged}");
    assert!(lagged["missed"].as_u64() > Some(0), "{lagged}");
    assert_eq!(lagged["lost"], 0, "{lagged}");
}

#[test]
fn viewers_that_read_a_little_get_what_they_read() {
    let lagged = slow(
        "limits.outbox_bytes_max = 67108864",
        50,
        "--slow-bytes-per-second 100000",
    );
    assert_eq!(lagged["delivered"], 150, "{lagged}");
}
