//! What every test here needs: the server as a child process, and clients that are not its code.

mod http;
mod outside;
mod raw;
mod secrecy;
mod server;
mod stream;
mod tail;
mod tls;
mod viewer;
mod wire;

use std::time::{Duration, Instant};

use serde_json::Value;

pub use self::http::{Answer, Http, request};
pub use self::outside::{Dial, Heard, Outside, OutsideClient, is_here};
pub use self::raw::{
    Frame, RawSocket, close_frame, deflate, deflated_frame, masked, text_frame, upgrade_request,
};
pub use self::secrecy::{NO_TOKEN, check_secrecy};
pub use self::server::{Ending, Server, Setup, Token, run, run_with, sightline};
pub use self::stream::Stream;
pub use self::tail::{Tail, Watched};
pub use self::tls::{Authority, TlsStream};
pub use self::viewer::{Publisher, Refused, Viewer, kind, kinds};
use self::wire::Wire;

/// How long anything may take that should happen. Nothing waits this long unless it fails; a disk that
/// others write to can keep a sync for more than ten seconds.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Calls `probe` until it gives something. Panics with `what` once the deadline has passed.
pub fn eventually<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(Instant::now() < end, "not in time: {what}");
        // Between two looks at another process; nothing depends on its length.
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Seconds since the Unix epoch.
pub fn now_s() -> u64 {
    let now = std::time::SystemTime::now();
    now.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}

/// The value of one sample of `/metrics`, name and labels as written there.
pub fn sample(metrics: &str, name: &str) -> f64 {
    let line = metrics
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no sample {name}"))
        .parse()
        .unwrap()
}

/// The sum of all samples of one name, whatever their labels.
pub fn samples(metrics: &str, name: &str) -> f64 {
    let lines = metrics.lines().filter(|line| {
        let rest = line.strip_prefix(name);
        rest.is_some_and(|rest| rest.starts_with(['{', ' ']))
    });
    lines
        .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
        .sum()
}

/// A value that must be a string.
pub fn text(value: &Value) -> &str {
    value
        .as_str()
        .unwrap_or_else(|| panic!("not a string: {value}"))
}
