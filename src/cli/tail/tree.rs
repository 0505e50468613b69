//! `tail --tree`: the trees of the token's user, drawn anew as they change.
//!
//! An observatory connection without subscriptions is sent trees and no events. The first message
//! of a tree holds all of it; what follows are patches (contract, section 8).

mod cells;
mod drawing;
mod line;
mod trees;

use std::io::{self, BufWriter, IsTerminal, Write};
use std::time::{Duration, Instant};

use form_urlencoded::Serializer;
use tungstenite::Utf8Bytes;

use super::super::client::{Client, ClientError, Conversation, Stop, say};
use super::super::logging::allows_color;
use super::super::screen::{Screen, Size};
use super::TailArgs;
use super::envelope::Envelope;
use super::notices;
use line::Style;
use trees::Trees;

/// Draws until a signal, until the reader of standard output is gone, or until the gateway has
/// finished with us; all three are success. Errors: `Patch`, `Output`, and those of `Client`.
pub(super) fn run(args: &TailArgs, stop: Stop) -> Result<(), ClientError> {
    let stdout = io::stdout();
    let is_terminal = stdout.is_terminal();
    let out = BufWriter::new(stdout.lock());
    let screen = if is_terminal {
        Screen::terminal(out)
    } else {
        Screen::page(out)
    };
    view(args, stop, screen, Size::of_stdout)
}

fn view(
    args: &TailArgs,
    stop: Stop,
    screen: Screen<impl Write>,
    size: fn() -> Size,
) -> Result<(), ClientError> {
    let mut client = Client::new(&args.connect, stop)?;
    let mut watching = Watching::new(&args.sessions, screen, size);
    let ended = client
        .run(&mut watching)
        .and_then(|()| watching.draw_rest());
    match ended {
        Err(ClientError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        ended => ended,
    }
}

/// One viewer of trees, through all its connections.
struct Watching<W> {
    path_and_query: String,
    trees: Trees,
    screen: Screen<W>,
    style: Style,
    /// What the screen measures now.
    size: fn() -> Size,
    /// And when it was last drawn on.
    size_drawn: Option<Size>,
    drawn_at: Option<Instant>,
    /// Whether something came that is not drawn yet.
    is_changed: bool,
    reconnect_after: Option<Duration>,
    stopped: bool,
}

impl<W: Write> Watching<W> {
    fn new(sessions: &[String], screen: Screen<W>, size: fn() -> Size) -> Self {
        let style = match screen.is_terminal() && allows_color() {
            true => Style::Color,
            false => Style::Plain,
        };
        Self {
            path_and_query: path_and_query(sessions),
            trees: Trees::default(),
            screen,
            style,
            size,
            size_drawn: None,
            drawn_at: None,
            is_changed: false,
            reconnect_after: None,
            stopped: false,
        }
    }

    fn handle_update(&mut self, envelope: &Envelope) -> Result<(), ClientError> {
        let data = envelope.data.map_or("null", |data| data.get());
        let Ok(update) = serde_json::from_str(data) else {
            self.screen.leave();
            say("a tree of the gateway's cannot be read");
            return Ok(());
        };
        self.is_changed = true;
        self.trees.apply(update)
    }

    /// Whether something is to be drawn, and may be by now.
    fn is_due(&self, now: Instant) -> bool {
        let is_resized = self.screen.is_terminal() && self.size_drawn != Some((self.size)());
        let is_waiting = self.is_changed || (is_resized && self.size_drawn.is_some());
        is_waiting && self.due_at().is_none_or(|at| at <= now)
    }

    fn due_at(&self) -> Option<Instant> {
        let pause = if self.screen.is_terminal() {
            TERMINAL_PAUSE
        } else {
            PAGE_PAUSE
        };
        self.drawn_at.map(|at| at + pause)
    }

    /// What came after the last drawing, however soon after.
    fn draw_rest(&mut self) -> Result<(), ClientError> {
        if self.is_changed {
            self.draw()?;
        }
        Ok(())
    }

    fn draw(&mut self) -> Result<(), ClientError> {
        let size = (self.size)();
        let lines = drawing::lines(&self.trees, self.screen.room(size), self.style);
        let drawn = self.screen.draw(&lines, size);
        (self.is_changed, self.size_drawn) = (false, Some(size));
        drawn.map_err(ClientError::Output)
    }
}

impl<W: Write> Conversation for Watching<W> {
    fn path_and_query(&self) -> String {
        self.path_and_query.clone()
    }

    fn handle_connected(&mut self) {
        self.reconnect_after = None;
    }

    fn handle_text(&mut self, _now: Instant, text: &str) -> Result<(), ClientError> {
        let Some(envelope) = Envelope::parse(text) else {
            self.screen.leave();
            say("a message of the gateway's cannot be read");
            return Ok(());
        };
        match envelope.name.as_str() {
            "agent_tree_update" => return self.handle_update(&envelope),
            // The present trees follow, each of them whole.
            "connection_established" => {
                self.trees = Trees::default();
                self.is_changed = true;
            }
            name @ ("error" | "server_shutdown" | "token_expiring") => {
                self.screen.leave();
                let heeded = notices::heed(name, &envelope.notice());
                self.reconnect_after = heeded.or(self.reconnect_after);
            }
            _ => {}
        }
        Ok(())
    }

    fn handle_turn_end(&mut self, now: Instant) -> Result<(), ClientError> {
        if self.is_due(now) {
            self.drawn_at = Some(now);
            self.draw()?;
        }
        Ok(())
    }

    /// What is said of it comes below what was drawn.
    fn handle_disconnected(&mut self) {
        self.screen.leave();
    }

    fn handle_stop(&mut self, _now: Instant) {
        self.stopped = true;
    }

    fn poll_transmit(&mut self, _now: Instant) -> Option<Utf8Bytes> {
        None
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.due_at().filter(|_| self.is_changed)
    }

    fn is_done(&mut self, _now: Instant) -> bool {
        self.stopped
    }

    fn reconnect_after(&self) -> Option<Duration> {
        self.reconnect_after
    }
}

fn path_and_query(sessions: &[String]) -> String {
    let mut query = Serializer::new(String::new());
    query.append_pair("tree", "patch");
    if !sessions.is_empty() {
        query.append_pair("sessions", &sessions.join(","));
    }
    format!("/observatory?{}", query.finish())
}

/// Between two drawings on a terminal: as often as the gateway sends a tree.
const TERMINAL_PAUSE: Duration = Duration::from_millis(100);
/// Between two that stay, below each other.
const PAGE_PAUSE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;
