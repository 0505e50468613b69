//! Delivers what a source reads, over `/v1/publish`, until every event is settled. `publish` and
//! `watch-git` are sources.

use std::collections::VecDeque;
use std::thread;
use std::time::{Duration, Instant};

use serde::Deserialize;
use tungstenite::Utf8Bytes;

use super::super::client::{Client, ClientError, ConnectArgs, Conversation, Stop, say};
use super::intake::{Inbox, Input, Intake, Item, intake};
use super::window::{Nacked, Window};

/// Runs `source` on a thread of its own and delivers what it takes in; then tells the account.
/// Errors: `Incomplete`, the source's own, and those of `Client`.
pub(crate) fn deliver<S>(connect: &ConnectArgs, stop: Stop, source: S) -> Result<(), ClientError>
where
    S: FnOnce(&mut Intake) -> Result<(), ClientError> + Send + 'static,
{
    let mut client = Client::new(connect, stop)?;
    let (mut intake, inbox) = intake(client.bell().waker());
    // Not joined: it may be waiting in a read that never returns.
    thread::Builder::new()
        .name("source".to_owned())
        .spawn(move || {
            let result = source(&mut intake);
            intake.end(result);
        })
        .map_err(ClientError::System)?;
    let mut delivery = Delivery::new(inbox);
    let ended = client.run(&mut delivery);
    let account = delivery.account();
    if let Err(error) = ended.and(delivery.source_ended.unwrap_or(Ok(()))) {
        say(&account.to_string());
        return Err(error);
    }
    account.into_result()
}

/// The conversation of a publisher.
struct Delivery {
    inbox: Inbox,
    /// Of the last batch, what the window had no room for.
    waiting: VecDeque<Item>,
    window: Window,
    published: u64,
    refused: u64,
    source_ended: Option<Result<(), ClientError>>,
    /// After a signal: how long acknowledgements are waited for.
    stop_at: Option<Instant>,
    reconnect_after: Option<Duration>,
}

impl Delivery {
    fn new(inbox: Inbox) -> Self {
        Self {
            inbox,
            waiting: VecDeque::new(),
            window: Window::new(),
            published: 0,
            refused: 0,
            source_ended: None,
            stop_at: None,
            reconnect_after: None,
        }
    }

    /// Fills the window from what was read.
    fn refill(&mut self) {
        while self.window.has_room() {
            match self.waiting.pop_front() {
                Some(Item::Parcel(parcel)) => self.window.push(parcel),
                Some(Item::Refused { label, code }) => self.tell_refusal(&label, code, ""),
                None if self.source_ended.is_some() => return,
                None => match self.inbox.poll() {
                    Some(Input::Batch(items)) => self.waiting = items.into(),
                    Some(Input::End(result)) => self.source_ended = Some(result),
                    None => return,
                },
            }
        }
    }

    fn tell_refusal(&mut self, label: &str, code: &str, reason: &str) {
        self.refused += 1;
        let colon = if reason.is_empty() { "" } else { ": " };
        say(&format!("{label}: {code}{colon}{reason}"));
    }

    fn handle_nack(&mut self, now: Instant, nack: &Nack) {
        let after = nack.retry_after.map(Duration::from_millis);
        let outcome = self
            .window
            .handle_nack(now, nack.message, &nack.code, after);
        if let Some(Nacked::ForGood(parcel)) = outcome {
            self.tell_refusal(&parcel.label, &nack.code, &nack.reason);
        }
    }

    fn account(&self) -> Account {
        let settled = self.published + self.refused;
        Account {
            published: self.published,
            refused: self.refused,
            unacknowledged: self.inbox.taken().saturating_sub(settled),
        }
    }
}

impl Conversation for Delivery {
    fn path_and_query(&self) -> String {
        "/v1/publish".to_owned()
    }

    fn handle_connected(&mut self) {
        self.reconnect_after = None;
    }

    fn handle_text(&mut self, now: Instant, text: &str) -> Result<(), ClientError> {
        match serde_json::from_str(text) {
            Ok(Answer::Ack(Ack { through })) => self.published += self.window.handle_ack(through),
            Ok(Answer::Nack(nack)) => self.handle_nack(now, &nack),
            Ok(Answer::ServerShutdown(shutdown)) => {
                self.reconnect_after = shutdown.reconnect_after.map(Duration::from_millis);
            }
            // What later versions of the gateway may say besides is no concern of a publisher.
            Err(_) => {}
        }
        Ok(())
    }

    fn handle_disconnected(&mut self) {
        self.window.handle_disconnected();
    }

    fn handle_stop(&mut self, now: Instant) {
        self.inbox.stop();
        self.stop_at = Some(now + STOP_GRACE);
    }

    fn poll_transmit(&mut self, now: Instant) -> Option<Utf8Bytes> {
        self.refill();
        self.window.poll_transmit(now)
    }

    fn poll_timeout(&self) -> Option<Instant> {
        [self.window.poll_timeout(), self.stop_at]
            .into_iter()
            .flatten()
            .min()
    }

    fn is_done(&mut self, now: Instant) -> bool {
        // Also while there is no connection: the end of the input is known by reading it.
        self.refill();
        match self.stop_at {
            Some(at) => now >= at || self.account().unacknowledged == 0,
            None => {
                self.source_ended.is_some() && self.waiting.is_empty() && self.window.is_empty()
            }
        }
    }

    fn reconnect_after(&self) -> Option<Duration> {
        self.reconnect_after
    }
}

/// What became of everything that was read.
struct Account {
    published: u64,
    refused: u64,
    unacknowledged: u64,
}

impl Account {
    fn into_result(self) -> Result<(), ClientError> {
        if self.refused + self.unacknowledged == 0 {
            say(&self.to_string());
            return Ok(());
        }
        Err(ClientError::Incomplete {
            published: self.published,
            refused: self.refused,
            unacknowledged: self.unacknowledged,
        })
    }
}

impl std::fmt::Display for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "published {}, refused {}", self.published, self.refused)?;
        if self.unacknowledged > 0 {
            write!(f, ", unacknowledged {}", self.unacknowledged)?;
        }
        Ok(())
    }
}

/// What the gateway says to a publisher.
#[derive(Deserialize)]
#[serde(tag = "type", content = "data", rename_all = "snake_case")]
enum Answer {
    Ack(Ack),
    Nack(Nack),
    ServerShutdown(Shutdown),
}

#[derive(Deserialize)]
struct Ack {
    through: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Nack {
    message: u64,
    code: String,
    #[serde(default)]
    reason: String,
    retry_after: Option<u64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shutdown {
    reconnect_after: Option<u64>,
}

/// How long after a signal acknowledgements are waited for.
const STOP_GRACE: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::super::client::test_server::{Peer, TestServer, within};
    use super::super::stdin::read_lines;
    use super::*;
    use serde_json::{Value, json};

    /// Publishes `input` to a server that follows `script`; returns the outcome and what the
    /// script returned.
    fn publish<T: Send + 'static>(
        input: &str,
        stop: Stop,
        script: impl FnOnce(&TestServer) -> T + Send + 'static,
    ) -> (Result<(), ClientError>, T) {
        let (url, seen) = TestServer::start(script);
        let connect = ConnectArgs::for_test(url);
        let input = input.to_owned();
        let outcome = within(move || {
            deliver(&connect, stop, move |intake| {
                read_lines(input.as_bytes(), "t", intake)
            })
        });
        (outcome, within(move || seen.join().unwrap()))
    }

    fn ack(through: u64) -> Value {
        json!({"type": "ack", "data": {"through": through}})
    }

    fn nack(message: u64, code: &str) -> Value {
        json!({"type": "nack", "data": {
            "message": message, "index": 0, "code": code, "reason": "because", "retryAfter": 20,
        }})
    }

    /// The `event_id`s of the next `count` messages; `continue` for that word.
    fn ids(peer: &mut Peer, count: usize) -> Vec<String> {
        (0..count).map(|_| id(&peer.read())).collect()
    }

    fn id(message: &Value) -> String {
        let name = message.get("event_id").unwrap_or(&message["type"]);
        name.as_str().unwrap().to_owned()
    }

    #[test]
    fn waits_for_every_acknowledgement() {
        let (outcome, path) = publish("{}\n{}\n", Stop::default(), |server| {
            let mut peer = server.accept();
            assert_eq!(ids(&mut peer, 2), ["t-1", "t-2"]);
            peer.send(&ack(1));
            peer.send(&ack(2));
            assert_eq!(peer.read_close(), Some(1000));
            (peer.path, peer.authorization)
        });
        outcome.unwrap();
        assert_eq!(
            path,
            ("/v1/publish".to_owned(), "Bearer test-token".to_owned())
        );
    }

    #[test]
    fn an_empty_input_needs_no_gateway() {
        let connect = ConnectArgs::for_test("ws://127.0.0.1:1".to_owned());
        within(move || deliver(&connect, Stop::default(), |_| Ok(()))).unwrap();
    }

    #[test]
    fn an_input_larger_than_window_and_socket_passes_through() {
        const COUNT: usize = 4000;
        let line = format!("{{\"data\":\"{}\"}}\n", "x".repeat(4000));
        let (outcome, ()) = publish(&line.repeat(COUNT), Stop::default(), |server| {
            let mut peer = server.accept();
            for number in 1..=COUNT {
                assert_eq!(id(&peer.read()), format!("t-{number}"));
                if number % 7 == 0 || number == COUNT {
                    peer.send(&ack(number as u64));
                }
            }
        });
        outcome.unwrap();
    }

    #[test]
    fn what_is_refused_for_good_is_counted_and_the_rest_goes_on() {
        let (outcome, ()) = publish("{}\nnonsense\n{}\n", Stop::default(), |server| {
            let mut peer = server.accept();
            assert_eq!(peer.read_text(), r#"{"event_id":"t-1"}"#);
            assert_eq!(peer.read_text(), "nonsense");
            peer.send(&nack(2, "INVALID_JSON"));
            peer.read_text();
            peer.send(&ack(3));
        });
        let error = outcome.unwrap_err();
        assert_eq!(error.exit_code(), 1);
        assert_eq!(
            error.to_string(),
            "published 2, refused 1, unacknowledged 0"
        );
    }

    #[test]
    fn an_overloaded_gateway_gets_everything_in_order_after_continue() {
        let (outcome, ()) = publish("{}\n{}\n{}\n", Stop::default(), |server| {
            let mut peer = server.accept();
            assert_eq!(ids(&mut peer, 3), ["t-1", "t-2", "t-3"]);
            peer.send(&nack(2, "OVERLOADED"));
            peer.send(&nack(3, "OVERLOADED"));
            peer.send(&ack(3));
            assert_eq!(ids(&mut peer, 3), ["continue", "t-2", "t-3"]);
            peer.send(&ack(5));
        });
        outcome.unwrap();
    }

    #[test]
    fn a_lost_connection_brings_the_unacknowledged_again_under_the_same_ids() {
        let (outcome, taken) = publish("{}\n{}\n{}\n{}\n", Stop::default(), |server| {
            let mut peer = server.accept();
            let mut taken = ids(&mut peer, 4);
            peer.send(&ack(1));
            peer.send(&json!({"type": "server_shutdown", "data": {"reconnectAfter": 30}}));
            peer.close(1001);
            let mut peer = server.accept();
            let again = ids(&mut peer, 3);
            assert_eq!(again, ["t-2", "t-3", "t-4"]);
            peer.send(&ack(3));
            taken.extend(again);
            taken.sort();
            taken.dedup();
            taken
        });
        outcome.unwrap();
        assert_eq!(taken, ["t-1", "t-2", "t-3", "t-4"]);
    }

    #[test]
    fn a_refused_token_ends_it_and_says_so() {
        let (outcome, ()) = publish("{}\n", Stop::default(), |server| {
            server.refuse(
                "401 Unauthorized",
                r#"{"error":{"code":"TOKEN_EXPIRED","message":"m"}}"#,
            );
        });
        let error = outcome.unwrap_err().to_string();
        assert!(error.contains("401 TOKEN_EXPIRED (m)"), "{error}");
        assert!(error.contains("sightline token"), "{error}");
    }

    #[test]
    fn a_busy_gateway_is_tried_again() {
        let (outcome, ()) = publish("{}\n", Stop::default(), |server| {
            server.refuse("429 Too Many Requests", "");
            let mut peer = server.accept();
            peer.read_text();
            peer.send(&ack(1));
        });
        outcome.unwrap();
    }

    #[test]
    fn a_close_that_forbids_returning_is_obeyed() {
        let (outcome, ()) = publish("{}\n", Stop::default(), |server| {
            let mut peer = server.accept();
            peer.read_text();
            peer.close(4503);
        });
        assert!(matches!(outcome, Err(ClientError::Refused { .. })));
    }

    #[test]
    fn a_signal_waits_briefly_and_tells_what_is_unacknowledged() {
        let stop = Stop::default();
        let signal = stop.clone();
        let (outcome, ()) = publish("{}\n{}\n", stop, move |server| {
            let mut peer = server.accept();
            ids(&mut peer, 2);
            peer.send(&ack(1));
            signal.ask();
            assert_eq!(peer.read_close(), Some(1000));
        });
        let error = outcome.unwrap_err().to_string();
        assert_eq!(error, "published 1, refused 0, unacknowledged 1");
    }
}
