//! Viewers that are cut off in the course of a phase and come back with their cursors: when each
//! is due again, and when it was live again. What it got across the cut is the recorder's business.
//!
//! Pure: bytes and times come as arguments; `driver` cuts and dials. Source: the contract, section 5.

use std::time::Duration;

use hdrhistogram::Histogram;
use latency_report::latency_histogram;
use memchr::memmem::Finder;

use crate::phase::Bell;
use crate::record::GroupRecord;
use crate::returned::Returned;
use crate::returners::{Greeting, RESUMED};

/// How a viewer's connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Cut {
    /// By FIN: the viewer says nothing more, and goes on to listen to nothing.
    Fin,
    /// By RST, as when a process dies with bytes unread.
    Rst,
    /// Not at all: the viewer has gone, and nobody tells the server.
    Silence,
}

/// Where each of a driver's viewers stands in its own stream.
#[derive(Debug)]
pub(crate) struct Cursors {
    finder: Finder<'static>,
    viewers: Vec<Option<Position>>,
}

/// A cursor.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Position {
    epoch: String,
    seq: u64,
}

impl Cursors {
    /// Those of as many viewers, none of them known.
    pub(crate) fn new(viewers: usize) -> Self {
        Self {
            finder: Finder::new(SEQ),
            viewers: vec![None; viewers],
        }
    }

    /// Viewer `index` was greeted.
    pub(crate) fn handle_greeting(&mut self, index: usize, greeting: &Greeting) {
        if let (None, Some(seq)) = (&self.viewers[index], greeting.to) {
            let epoch = greeting.epoch.clone();
            self.viewers[index] = Some(Position { epoch, seq });
        }
    }

    /// Viewer `index` got an event, whose envelope tells its seq before its `data`.
    pub(crate) fn handle_event(&mut self, index: usize, text: &[u8]) {
        let Some(at) = self.finder.find(text) else {
            return;
        };
        let digits = text[at + SEQ.len()..]
            .iter()
            .take_while(|byte| byte.is_ascii_digit());
        let seq = digits.fold(0_u64, |seq, digit| {
            seq.saturating_mul(10)
                .saturating_add(u64::from(digit - b'0'))
        });
        if let Some(position) = &mut self.viewers[index] {
            position.seq = seq;
        }
    }

    /// What viewer `index` adds to its query to come back; nothing where it was told no cursor.
    pub(crate) fn query(&self, index: usize) -> String {
        self.viewers[index]
            .as_ref()
            .map_or_else(String::new, |Position { epoch, seq }| {
                format!("&epoch={epoch}&resume={seq}")
            })
    }
}

/// What an envelope's number begins with. No text before it can hold it: quotes are escaped there.
const SEQ: &[u8] = br#""seq":"#;

/// All viewers of a driver, cut off together.
#[derive(Debug)]
pub(crate) struct Storm {
    cut: Cut,
    /// Of each viewer, without its cursor.
    paths: Vec<String>,
    /// From the phase's first event to the cut; once it has begun, of the generator's clock.
    cut_ns: u64,
    /// Between two dials.
    interval_ns: u64,
    is_cut: bool,
    dialled: usize,
    greetings: Vec<Option<Greeting>>,
    is_settled: Vec<bool>,
    settled: usize,
    live_ns: Histogram<u64>,
    slip_ns: Histogram<u64>,
    last_ns: u64,
    /// Rings when nothing is awaited of any viewer.
    bell: Bell,
}

impl Storm {
    /// Viewers of `paths` that are cut off `after` the first event, and dialled again from then on,
    /// spread over `within`. `bell` rings when all are back.
    pub(crate) fn new(
        cut: Cut,
        paths: Vec<String>,
        after: Duration,
        within: Duration,
        bell: Bell,
    ) -> Self {
        let count = paths.len();
        Self {
            cut,
            cut_ns: after.as_nanos() as u64,
            interval_ns: within.as_nanos() as u64 / count.max(1) as u64,
            is_cut: false,
            dialled: 0,
            greetings: vec![None; count],
            is_settled: vec![false; count],
            settled: 0,
            live_ns: latency_histogram(),
            slip_ns: latency_histogram(),
            last_ns: 0,
            paths,
            bell,
        }
    }

    /// The first event is due at `start_ns`.
    pub(crate) fn begin(&mut self, start_ns: u64) {
        self.cut_ns += start_ns;
        self.last_ns = self.cut_ns;
    }

    /// When something is to be done next; `None` after the last dial.
    pub(crate) fn next_ns(&self) -> Option<u64> {
        if !self.is_cut {
            return Some(self.cut_ns);
        }
        (self.dialled < self.paths.len()).then(|| self.due_ns(self.dialled))
    }

    /// How all viewers are to be cut off, where that is due at `now_ns`: once.
    pub(crate) fn poll_cut(&mut self, now_ns: u64) -> Option<Cut> {
        if self.is_cut || now_ns < self.cut_ns {
            return None;
        }
        self.is_cut = true;
        Some(self.cut)
    }

    /// The next viewer and its path, where it is due at `now_ns`.
    pub(crate) fn poll_dial(&mut self, now_ns: u64) -> Option<(usize, &str)> {
        let due_ns = self
            .next_ns()
            .filter(|due_ns| self.is_cut && *due_ns <= now_ns)?;
        self.slip_ns.saturating_record(now_ns - due_ns);
        let index = self.dialled;
        self.dialled += 1;
        Some((index, &self.paths[index]))
    }

    /// Viewer `index` was greeted; what is not resumed is not awaited either.
    pub(crate) fn handle_greeting(&mut self, index: usize, greeting: Option<Greeting>) {
        let is_resumed = greeting.as_ref().is_some_and(|it| it.outcome == RESUMED);
        self.greetings[index] = greeting;
        if !is_resumed {
            self.settle(index);
        }
    }

    /// Viewer `index` was told at `now_ns` that it has all that it missed.
    pub(crate) fn handle_replayed(&mut self, index: usize, now_ns: u64) {
        if self.is_cut && !self.is_settled[index] {
            let waited_ns = now_ns.saturating_sub(self.due_ns(index));
            self.live_ns.saturating_record(waited_ns);
            self.last_ns = self.last_ns.max(now_ns);
            self.settle(index);
        }
    }

    /// The connection of viewer `index` has ended by itself: it does not come back.
    pub(crate) fn handle_closed(&mut self, index: usize) {
        self.settle(index);
    }

    /// Whether nothing is awaited of any viewer.
    pub(crate) fn is_settled(&self) -> bool {
        self.settled == self.paths.len()
    }

    /// Ends the phase, in which they got `record`. `busy`: the share of it in which their loop had
    /// something to do.
    pub(crate) fn finish(self, record: GroupRecord, busy: f64) -> Returned {
        Returned {
            greetings: self.greetings,
            outcome: RESUMED,
            record,
            caught_up_ns: self.live_ns,
            early: 0,
            seconds: (self.last_ns - self.cut_ns) as f64 / 1e9,
            slip_ns: self.slip_ns,
            busy,
        }
    }

    fn settle(&mut self, index: usize) {
        self.settled += usize::from(!self.is_settled[index]);
        self.is_settled[index] = true;
        if self.is_settled() {
            self.bell.ring();
        }
    }

    fn due_ns(&self, index: usize) -> u64 {
        self.cut_ns + index as u64 * self.interval_ns
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn greeting(outcome: &str, to: u64) -> Greeting {
        Greeting {
            epoch: "0000abcd".to_owned(),
            outcome: outcome.to_owned(),
            to: Some(to),
        }
    }

    #[test]
    fn cursor_is_the_seq_of_the_latest_event() {
        let mut cursors = Cursors::new(2);
        cursors.handle_greeting(0, &greeting("fresh", 7));
        assert_eq!(cursors.query(0), "&epoch=0000abcd&resume=7");
        assert_eq!(cursors.query(1), "");
        let escaped = br#"{"event_type":"x","session_id":"\"seq\":9","seq":12,"data":{"seq":3}}"#;
        cursors.handle_event(0, escaped);
        assert_eq!(cursors.query(0), "&epoch=0000abcd&resume=12");
        // What a viewer has seen counts, not where its stream stands when it comes back.
        cursors.handle_greeting(0, &greeting("resumed", 99));
        cursors.handle_event(0, b"no event");
        assert_eq!(cursors.query(0), "&epoch=0000abcd&resume=12");
        cursors.handle_event(1, escaped);
        assert_eq!(cursors.query(1), "");
    }

    /// Two viewers, cut off 100 ns after the beginning at 1,000 and dialled 10 ns apart.
    fn storm() -> (Storm, Bell) {
        let (bell, paths) = (Bell::default(), ["/a", "/b"].map(str::to_owned).to_vec());
        let (after, within) = (Duration::from_nanos(100), Duration::from_nanos(20));
        let mut storm = Storm::new(Cut::Rst, paths, after, within, bell.clone());
        storm.begin(1000);
        (storm, bell)
    }

    #[test]
    fn all_are_cut_off_once_and_dialled_one_after_the_other() {
        let (mut storm, bell) = storm();
        assert_eq!((storm.next_ns(), storm.poll_cut(1099)), (Some(1100), None));
        assert_eq!(storm.poll_dial(1100), None);
        assert_eq!(storm.poll_cut(1100), Some(Cut::Rst));
        assert_eq!(storm.poll_cut(1101), None);
        assert_eq!(storm.poll_dial(1101), Some((0, "/a")));
        assert_eq!((storm.next_ns(), storm.poll_dial(1101)), (Some(1110), None));
        assert_eq!(storm.poll_dial(1110), Some((1, "/b")));
        assert_eq!(storm.next_ns(), None);
        for index in [1, 0] {
            assert!(!bell.has_rung());
            storm.handle_greeting(index, Some(greeting(RESUMED, 5)));
            storm.handle_replayed(index, 2110);
            storm.handle_replayed(index, 9999);
        }
        assert!(bell.has_rung() && storm.is_settled());
        let returned = storm.finish(GroupRecord::new(), 0.5);
        assert_eq!(returned.failures(), Vec::<String>::new());
        assert_eq!(returned.caught_up_ns.len(), 2);
        assert_eq!(returned.seconds, 1010e-9);
    }

    #[test]
    fn viewer_that_does_not_come_back_fails_the_storm() {
        let (mut storm, bell) = storm();
        storm.poll_cut(1100).unwrap();
        storm.handle_greeting(0, Some(greeting("reset", 5)));
        storm.handle_closed(1);
        storm.handle_closed(1);
        assert!(bell.has_rung());
        let failures = storm.finish(GroupRecord::new(), 0.5).failures();
        assert_eq!(
            failures,
            ["2 of 2 viewers have not what they came for (to be resumed: none 1, reset 1)"]
        );
    }
}
