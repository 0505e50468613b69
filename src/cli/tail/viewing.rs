//! The conversation of a viewer: prints events, keeps the cursor, and says what was lost.

use std::collections::VecDeque;
use std::io::Write;
use std::time::{Duration, Instant};

use jiff::tz::TimeZone;
use tungstenite::Utf8Bytes;

use super::super::client::{ClientError, Conversation, printable, say};
use super::envelope::{Envelope, Notice, Range, Row};
use super::feed;
use super::notices;
use super::plan::Plan;
use super::position::Position;
use crate::event::Epoch;

/// How a message is printed.
pub(crate) enum Format {
    /// For people; times in this zone.
    Feed(TimeZone),
    /// The envelope as it came, one a line.
    Lines,
}

impl Format {
    /// The feed, in the machine's time zone.
    pub(crate) fn feed() -> Self {
        Self::Feed(TimeZone::system())
    }
}

/// One viewer, through all its connections.
pub(crate) struct Viewing<W> {
    position: Position,
    format: Format,
    out: W,
    plan: Plan,
    /// What to send next.
    requests: VecDeque<String>,
    /// Whether what comes is what was subscribed to; see `plan`.
    is_subscribed: bool,
    reconnect_after: Option<Duration>,
    stopped: bool,
}

impl<W: Write> Viewing<W> {
    /// Begins at `position`.
    pub(crate) fn new(plan: Plan, position: Position, format: Format, out: W) -> Self {
        Self {
            position,
            format,
            out,
            plan,
            requests: VecDeque::new(),
            is_subscribed: false,
            reconnect_after: None,
            stopped: false,
        }
    }

    /// Up to where everything was printed.
    pub(crate) fn position(&self) -> &Position {
        &self.position
    }

    fn handle_event(
        &mut self,
        seq: u64,
        envelope: &Envelope,
        text: &str,
    ) -> Result<(), ClientError> {
        let stream = envelope.stream();
        let is_old = self.position.seq(stream).is_some_and(|last| seq <= last);
        if !self.is_subscribed || (is_old && !envelope.replay) {
            return Ok(());
        }
        self.print(envelope, text)?;
        if !envelope.replay {
            self.position.advance(stream, seq);
        }
        Ok(())
    }

    fn handle_notice(&mut self, name: &str, notice: &Notice) -> Result<(), ClientError> {
        match name {
            "connection_established" => self.handle_established(notice),
            "cursor" if self.is_subscribed => {
                for (stream, seq) in &notice.streams {
                    self.position.advance(stream, *seq);
                }
            }
            "replay_complete" if self.is_subscribed && notice.id.is_none() => {
                if let (Some(stream), Some(seq)) = (&notice.stream, notice.seq) {
                    self.position.advance(stream, seq);
                }
            }
            "subscription_confirmed" => self.handle_subscribed(notice),
            "subscription_error" => return Err(subscription_refused(notice)),
            "token_refreshed" => self.handle_rows(&notice.added),
            _ => self.reconnect_after = notices::heed(name, notice).or(self.reconnect_after),
        }
        Ok(())
    }

    fn handle_established(&mut self, notice: &Notice) {
        if !self.is_subscribed {
            // Asked with the old epoch: the gateway's rows then say what became of each stream.
            self.requests = self.plan.requests(&self.position).into();
        }
        if let Some(epoch) = notice.epoch.as_deref().and_then(Epoch::parse) {
            self.position.enter_epoch(epoch);
        }
        if self.is_subscribed {
            self.handle_rows(&notice.resume);
        }
    }

    /// From here on what comes is what was asked for. A stream that was live before, and so has
    /// no row, goes on at `at`: what its cursor missed is stated.
    fn handle_subscribed(&mut self, notice: &Notice) {
        self.is_subscribed = true;
        for (stream, at) in &notice.at {
            let has_row = notice.resume.iter().any(|row| row.stream == *stream);
            if has_row {
                continue;
            }
            if let Some(last) = self.position.seq(stream).filter(|last| last < at) {
                let (from, to) = (last + 1, *at);
                say(&format!(
                    "{stream}: what came from {from} to {to} was not shown"
                ));
            }
            self.position.set(stream, *at);
        }
        self.handle_rows(&notice.resume);
    }

    fn handle_rows(&mut self, rows: &[Row]) {
        for row in rows {
            let stream = &row.stream;
            if let Some(statement) = loss(row) {
                say(&format!("{stream}: {statement}"));
            }
            // A replay follows `resumed` and `truncated`, and moves the cursor as it comes.
            if let ("fresh" | "reset", Some(to)) = (row.outcome.as_str(), row.to) {
                self.position.set(stream, to);
            }
            // What was lost is told once: the next cursor does not reach beyond the head.
            if let (Some(_), Some(to), Some(last)) = (row.lost, row.to, self.position.seq(stream)) {
                self.position.set(stream, to.min(last));
            }
        }
    }

    fn print(&mut self, envelope: &Envelope, text: &str) -> Result<(), ClientError> {
        let written = match &self.format {
            Format::Feed(zone) => writeln!(self.out, "{}", printable(&feed::line(envelope, zone))),
            Format::Lines => write_line(&mut self.out, text),
        };
        written.map_err(ClientError::Output)
    }
}

impl<W: Write> Conversation for Viewing<W> {
    fn path_and_query(&self) -> String {
        self.plan.path_and_query(&self.position)
    }

    fn handle_connected(&mut self) {
        self.is_subscribed = !self.plan.needs_subscribe(&self.position);
        self.reconnect_after = None;
    }

    fn handle_text(&mut self, _now: Instant, text: &str) -> Result<(), ClientError> {
        let Some(envelope) = Envelope::parse(text) else {
            say("a message of the gateway's cannot be read");
            return Ok(());
        };
        if let Some(seq) = envelope.seq {
            return self.handle_event(seq, &envelope, text);
        }
        if self.plan.messages {
            self.print(&envelope, text)?;
        }
        self.handle_notice(&envelope.name, &envelope.notice())
    }

    fn handle_turn_end(&mut self, _now: Instant) -> Result<(), ClientError> {
        self.out.flush().map_err(ClientError::Output)
    }

    fn handle_disconnected(&mut self) {
        self.requests.clear();
    }

    fn handle_stop(&mut self, _now: Instant) {
        self.stopped = true;
    }

    fn poll_transmit(&mut self, _now: Instant) -> Option<Utf8Bytes> {
        self.requests.pop_front().map(Utf8Bytes::from)
    }

    fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    fn is_done(&mut self, _now: Instant) -> bool {
        self.stopped
    }

    fn reconnect_after(&self) -> Option<Duration> {
        self.reconnect_after
    }
}

/// The envelope on one line. Its `data` is as the producer wrote it, and between tokens that may
/// have line breaks; within a JSON string there are none.
fn write_line(out: &mut impl Write, text: &str) -> std::io::Result<()> {
    for (index, part) in text.split(['\n', '\r']).enumerate() {
        if index > 0 {
            out.write_all(b" ")?;
        }
        out.write_all(part.as_bytes())?;
    }
    out.write_all(b"\n")
}

/// What a resume row says was lost, if anything.
fn loss(row: &Row) -> Option<String> {
    let span = |range: Range| format!("{} to {}", range.from, range.to);
    if let Some(lost) = row.lost {
        let span = span(lost);
        return Some(format!("the gateway lost {span} when it stopped uncleanly"));
    }
    match row.outcome.as_str() {
        "truncated" => Some(match row.missing {
            Some(missing) => format!("{} are no longer kept and were not shown", span(missing)),
            None => "events that are no longer kept were not shown".to_owned(),
        }),
        "reset" => Some("cannot be resumed; what came in between was not shown".to_owned()),
        _ => None,
    }
}

fn subscription_refused(notice: &Notice) -> ClientError {
    let code = notice.code.as_deref().unwrap_or("no code");
    ClientError::Refused {
        what: format!("the gateway refused the subscription: {}", printable(code)),
        advice: "check --projects, --types and --sessions",
    }
}
