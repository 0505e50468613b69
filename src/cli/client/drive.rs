//! The loop under every client command: one connection after another until the work is done.

use std::time::{Duration, Instant};

use tungstenite::{Message, Utf8Bytes};

use super::backoff::Backoff;
use super::ending::{Ending, Verdict};
use super::socket::{Gateway, Incoming, Socket};
use super::token::TokenSource;
use super::{Bell, ClientError, ConnectArgs, Stop, say};

/// What a command does with its connections. It owns no socket and reads no clock.
pub(crate) trait Conversation {
    /// Path and query of the next connection; begins with `/`.
    fn path_and_query(&self) -> String;

    /// A connection is open; nothing was read from it yet.
    fn handle_connected(&mut self);

    /// A text message came. An error ends the command.
    fn handle_text(&mut self, now: Instant, text: &str) -> Result<(), ClientError>;

    /// No more text for the moment: output that was held back is written.
    fn handle_turn_end(&mut self, _now: Instant) -> Result<(), ClientError> {
        Ok(())
    }

    /// The connection is gone, or could not be made.
    fn handle_disconnected(&mut self);

    /// The user asked to finish; called once.
    fn handle_stop(&mut self, now: Instant);

    /// The next message to send now, if any.
    fn poll_transmit(&mut self, now: Instant) -> Option<Utf8Bytes>;

    /// When `poll_transmit` or `is_done` may change by time alone.
    fn poll_timeout(&self) -> Option<Instant>;

    /// Whether the work is over; asked with and without a connection.
    fn is_done(&mut self, now: Instant) -> bool;

    /// How long the server, in its messages on the last connection, asked us to stay away.
    fn reconnect_after(&self) -> Option<Duration>;
}

/// A command's way to its gateway.
pub(crate) struct Client {
    backoff: Backoff,
    bell: Bell,
    /// Attempts that failed since the user was last told that there is a connection.
    failures: u64,
    gateway: Gateway,
    stop: Stop,
    stop_handled: bool,
    token: TokenSource,
}

impl Client {
    /// Checks the flags and prepares to connect; connects nowhere yet.
    pub(crate) fn new(args: &ConnectArgs, stop: Stop) -> Result<Self, ClientError> {
        let (gateway, token) = args.resolve()?;
        Ok(Self {
            backoff: Backoff::default(),
            bell: Bell::new().map_err(ClientError::System)?,
            failures: 0,
            gateway,
            stop,
            stop_handled: false,
            token,
        })
    }

    /// What ends this client's waits.
    pub(crate) fn bell(&self) -> &Bell {
        &self.bell
    }

    /// Connects, and connects again whenever that can help, until the job is done or the server
    /// has finished with us. Errors: `Refused` where coming back is pointless, and the job's own.
    pub(crate) fn run(&mut self, job: &mut impl Conversation) -> Result<(), ClientError> {
        while !self.is_over(job) {
            let token = self.token.read()?;
            let opened_at = Instant::now();
            let Some(ending) = self.attempt(job, &token)? else {
                return Ok(());
            };
            job.handle_disconnected();
            if self.is_over(job) {
                return Ok(());
            }
            if opened_at.elapsed() >= STABLE_AFTER {
                self.backoff.reset();
            }
            let after = match ending.verdict {
                Verdict::Finished => return Ok(()),
                Verdict::NewToken if self.token.read()? != token => None,
                Verdict::NewToken => return Err(refused(&ending.what, ADVICE_TOKEN)),
                Verdict::Retry { after } => after,
                Verdict::Stop(advice) => return Err(refused(&ending.what, advice)),
            };
            self.pause(job, &ending.what, after)?;
        }
        Ok(())
    }

    /// One connection from its opening to its end; `None` when the job is done.
    fn attempt(
        &mut self,
        job: &mut impl Conversation,
        token: &str,
    ) -> Result<Option<Ending>, ClientError> {
        let path = job.path_and_query();
        let mut socket = match Socket::open(&self.gateway, &path, token, &mut self.bell) {
            Ok(socket) => socket,
            Err(ending) => return Ok(Some(ending)),
        };
        if self.failures > 0 {
            say("connected");
            self.failures = 0;
        }
        job.handle_connected();
        let outcome = self.converse(&mut socket, job);
        if !matches!(outcome, Ok(Some(_))) {
            socket.close(&mut self.bell);
        }
        outcome
    }

    fn converse(
        &mut self,
        socket: &mut Socket,
        job: &mut impl Conversation,
    ) -> Result<Option<Ending>, ClientError> {
        let mut silence = Silence::new(Instant::now());
        loop {
            let now = Instant::now();
            let read = receive(socket, job, now, &mut silence)?;
            job.handle_turn_end(now)?;
            if let Read::Ended(ending) = read {
                return Ok(Some(ending));
            }
            if self.is_over(job) {
                return Ok(None);
            }
            if let Err(ending) = transmit(socket, job, now, &mut silence) {
                return last_words(socket, job, now, ending).map(Some);
            }
            if silence.is_death(now) {
                return Ok(Some(Ending::lost("no sign of life from the gateway")));
            }
            if matches!(read, Read::All) {
                self.wait_until(job.poll_timeout())?;
            }
        }
    }

    /// Stays away for as long as the backoff, the server, or the job's end says.
    fn pause(
        &mut self,
        job: &mut impl Conversation,
        what: &str,
        after: Option<Duration>,
    ) -> Result<(), ClientError> {
        self.failures += 1;
        // Without randomness the waits are merely less spread.
        let random = getrandom::u64().unwrap_or(u64::MAX / 2);
        let asked = after.or(job.reconnect_after());
        let delay = self.backoff.next_delay(random, asked);
        say(&format!(
            "{what}; connecting again in {:.1} s",
            delay.as_secs_f64()
        ));
        let until = Instant::now() + delay;
        while Instant::now() < until && !self.is_over(job) {
            self.wait_until(Some(until))?;
        }
        Ok(())
    }

    /// Tells the job of a signal, once, and asks whether it is done.
    fn is_over(&mut self, job: &mut impl Conversation) -> bool {
        let now = Instant::now();
        if self.stop.is_asked() && !self.stop_handled {
            self.stop_handled = true;
            job.handle_stop(now);
        }
        job.is_done(now)
    }

    /// Waits for a ring, at most until `deadline`, and never past `TICK`: a signal that arrives
    /// just before the wait does not end it.
    fn wait_until(&mut self, deadline: Option<Instant>) -> Result<(), ClientError> {
        let left = deadline.map_or(TICK, |at| at.saturating_duration_since(Instant::now()));
        self.bell.wait(left.min(TICK)).map_err(ClientError::System)
    }
}

/// How far one turn's reading came.
enum Read {
    /// All that there was.
    All,
    /// The connection is over.
    Ended(Ending),
    /// As much as one turn may; there is more.
    Some,
}

fn receive(
    socket: &mut Socket,
    job: &mut impl Conversation,
    now: Instant,
    silence: &mut Silence,
) -> Result<Read, ClientError> {
    for _ in 0..MESSAGES_PER_TURN {
        match socket.poll_incoming() {
            Ok(Incoming::Nothing) => return Ok(Read::All),
            Ok(Incoming::Sign) => silence.handle_sign(now),
            Ok(Incoming::Text(text)) => {
                silence.handle_sign(now);
                job.handle_text(now, &text)?;
            }
            Err(ending) => return Ok(Read::Ended(ending)),
        }
    }
    Ok(Read::Some)
}

fn transmit(
    socket: &mut Socket,
    job: &mut impl Conversation,
    now: Instant,
    silence: &mut Silence,
) -> Result<(), Ending> {
    if silence.poll_ping(now) {
        socket.send(Message::Ping(Default::default()))?;
    }
    socket.flush()?;
    while socket.is_ready() {
        match job.poll_transmit(now) {
            Some(text) => socket.send(Message::Text(text))?,
            None => return socket.flush(),
        }
    }
    Ok(())
}

/// A write failed: what the server said before it went, its acknowledgements above all, may still
/// be there to read, and its close tells more than our broken pipe.
fn last_words(
    socket: &mut Socket,
    job: &mut impl Conversation,
    now: Instant,
    ending: Ending,
) -> Result<Ending, ClientError> {
    loop {
        match receive(socket, job, now, &mut Silence::new(now))? {
            Read::All => return Ok(ending),
            Read::Ended(told) => return Ok(told),
            Read::Some => {}
        }
    }
}

fn refused(what: &str, advice: &'static str) -> ClientError {
    let what = super::printable(what).into_owned();
    ClientError::Refused { what, advice }
}

/// How long the server has been silent; its own pings normally come more often than ours.
struct Silence {
    heard_at: Instant,
    pinged: bool,
}

impl Silence {
    fn new(now: Instant) -> Self {
        Self {
            heard_at: now,
            pinged: false,
        }
    }

    fn handle_sign(&mut self, now: Instant) {
        *self = Self::new(now);
    }

    /// Whether to send a ping now; true once per silence.
    fn poll_ping(&mut self, now: Instant) -> bool {
        let due = !self.pinged && now - self.heard_at >= PING_AFTER;
        self.pinged |= due;
        due
    }

    fn is_death(&self, now: Instant) -> bool {
        now - self.heard_at >= DEAD_AFTER
    }
}

/// A connection that lasted this long was a good one.
const STABLE_AFTER: Duration = Duration::from_secs(5);
/// The longest wait between two looks at the signals' flag.
const TICK: Duration = Duration::from_millis(250);
/// Longer than the gateway's heartbeat of 30 s.
const PING_AFTER: Duration = Duration::from_secs(40);
const DEAD_AFTER: Duration = Duration::from_secs(55);
/// Messages read before output is flushed and signals are looked at.
const MESSAGES_PER_TURN: usize = 256;
const ADVICE_TOKEN: &str = "the token no longer serves: mint a new one with `sightline token`";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_gateway_is_pinged_once_and_then_given_up() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut silence = Silence::new(start);
        assert!(!silence.poll_ping(at(39)));
        assert!(silence.poll_ping(at(40)));
        assert!(!silence.poll_ping(at(41)));
        assert!(!silence.is_death(at(54)));
        assert!(silence.is_death(at(55)));
        silence.handle_sign(at(55));
        assert!(!silence.is_death(at(56)));
        assert!(silence.poll_ping(at(95)));
    }
}
