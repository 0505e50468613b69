//! What every viewer tells its user of the gateway's messages about itself.

use std::time::Duration;

use super::super::client::say;
use super::envelope::Notice;

/// Says on standard error what the user must know. Returns for how long the gateway asked to stay
/// away after this connection, if it did.
pub(super) fn heed(name: &str, notice: &Notice) -> Option<Duration> {
    match name {
        "error" | "server_error" => heed_error(notice),
        "server_shutdown" => {
            say("the gateway is shutting down");
            notice.reconnect_after.map(Duration::from_millis)
        }
        "token_expiring" => {
            say("the token is about to expire");
            None
        }
        _ => None,
    }
}

fn heed_error(notice: &Notice) -> Option<Duration> {
    let code = notice.code.as_deref().unwrap_or("error");
    let message = notice.message.as_deref().unwrap_or_default();
    say(&format!("the gateway says: {code} {message}"));
    let retry_after = notice.details["retryAfter"].as_u64();
    retry_after.map(Duration::from_millis)
}
