//! The event that the generator publishes, and the marker inside it by which a delivery is
//! recognised without reading the JSON around it.
//!
//! The marker is a member of `data`, `"lg":"RRRRRRRR:UUUUUUUU:NNNNNNNN:TTTTTTTTTTTTTTTT:SSSSSSSS"`:
//! run, user, number, intended time and slip in decimal digits of fixed width. A server passes `data` on
//! unchanged, so the marker survives every envelope; it is found by its first six bytes.

use memchr::memmem::Finder;
use serde_json::Value;

use crate::filling::Filling;
use crate::mix;

/// What one event carries about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Marker {
    /// The phase it belongs to; below [`RUNS`].
    pub(crate) run: u32,
    /// Whose stream it was published to; below 10^8.
    pub(crate) user: u32,
    /// Its number in that stream and phase, from 0; below 10^8.
    pub(crate) n: u32,
    /// Intended send time, nanoseconds of the generator's clock; below 10^16 (115 days).
    pub(crate) intended_ns: u64,
    /// How much later than that it was sent, nanoseconds; at most [`SLIP_NS_MAX`].
    pub(crate) slip_ns: u32,
}

impl Marker {
    /// Appends the marker as a JSON member, without a comma.
    pub(crate) fn write_to(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(PREFIX);
        push_digits(out, u64::from(self.run), 8);
        out.push(b':');
        push_digits(out, u64::from(self.user), 8);
        out.push(b':');
        push_digits(out, u64::from(self.n), 8);
        out.push(b':');
        push_digits(out, self.intended_ns, 16);
        out.push(b':');
        push_digits(out, u64::from(self.slip_ns), 8);
        out.push(b'"');
    }

    /// Reads the marker that begins at `bytes[0]`, or `None` where no whole one does.
    fn read(bytes: &[u8]) -> Option<Self> {
        let digits = bytes.get(..MARKER_BYTES)?.strip_prefix(PREFIX)?;
        let separators = [8, 17, 26, 43, 52].map(|at: usize| digits[at]);
        if separators != *b"::::\"" {
            return None;
        }
        let high = u64::from(eight_digits(&digits[27..])?);
        let low = u64::from(eight_digits(&digits[35..])?);
        Some(Self {
            run: eight_digits(digits)?,
            user: eight_digits(&digits[9..])?,
            n: eight_digits(&digits[18..])?,
            intended_ns: high * 100_000_000 + low,
            slip_ns: eight_digits(&digits[44..])?,
        })
    }
}

/// What the events of a phase look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Form {
    /// What makes up their size.
    pub(crate) filling: Filling,
    /// Whether they are told apart by the server.
    pub(crate) identity: Identity,
}

/// How a server may know an event again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Identity {
    /// By an `event_id` of its own, made of run, user and number.
    EventId,
    /// Not at all.
    None,
}

impl From<Filling> for Form {
    /// The plain form.
    fn from(filling: Filling) -> Self {
        let identity = Identity::None;
        Self { filling, identity }
    }
}

/// Finds markers in messages of one layout.
#[derive(Debug)]
pub(crate) struct MarkerFinder {
    finder: Finder<'static>,
    /// Where the last one was: the next message most often has its own there too.
    offset: usize,
}

impl MarkerFinder {
    /// A finder without an expectation.
    pub(crate) fn new() -> Self {
        Self {
            finder: Finder::new(PREFIX),
            offset: 0,
        }
    }

    /// The marker in `text`, or `None` where there is no whole one.
    pub(crate) fn find(&mut self, text: &[u8]) -> Option<Marker> {
        if let Some(marker) = text.get(self.offset..).and_then(Marker::read) {
            return Some(marker);
        }
        let offset = self.finder.find(text)?;
        let marker = Marker::read(&text[offset..])?;
        self.offset = offset;
        Some(marker)
    }
}

/// Appends the event as JSON text: a tool execution of `marker.user` at `timestamp_ms`, with the
/// filling in `data.pad`; of a mixture, the event that the marker says. Otherwise its length depends on
/// its form alone.
pub(crate) fn write_event(out: &mut Vec<u8>, marker: &Marker, timestamp_ms: u64, form: Form) {
    out.push(b'{');
    if form.identity == Identity::EventId {
        out.extend_from_slice(br#""event_id":""#);
        for number in [marker.run, marker.user, marker.n] {
            push_digits(out, u64::from(number), 8);
        }
        out.extend_from_slice(br#"","#);
    }
    let is_mixed = form.filling == Filling::Mixed;
    let event_type = if is_mixed {
        mix::row_of(marker).0.event_type
    } else {
        "tool_execution"
    };
    out.extend_from_slice(br#""event_type":""#);
    out.extend_from_slice(event_type.as_bytes());
    out.extend_from_slice(br#"","user_id":""#);
    out.extend_from_slice(user_name(marker.user).as_bytes());
    out.extend_from_slice(br#"","session_id":"#);
    // The agent that all others come from says who they are.
    let agent = mix::agent_of(marker);
    let agent = Some(agent).filter(|_| is_mixed && event_type != SPAWN);
    write_session(out, marker.user, agent);
    out.extend_from_slice(br#","timestamp":"#);
    push_digits(out, timestamp_ms, 13);
    out.extend_from_slice(br#","data":"#);
    write_data(out, marker, form.filling);
    out.push(b'}');
}

/// Bytes of an event of this form.
pub(crate) fn event_bytes(form: Form) -> usize {
    let marker = Marker {
        run: 0,
        user: 0,
        n: 0,
        intended_ns: 0,
        slip_ns: 0,
    };
    let mut out = Vec::new();
    write_event(&mut out, &marker, 0, form);
    out.len()
}

/// The session of a user's agent, or of what they come from.
fn write_session(out: &mut Vec<u8>, user: u32, agent: Option<u32>) {
    out.extend_from_slice(b"\"s");
    push_digits(out, u64::from(user), USER_DIGITS);
    if let Some(agent) = agent {
        out.push(b'-');
        push_digits(out, u64::from(agent), 1);
    }
    out.push(b'"');
}

fn write_data(out: &mut Vec<u8>, marker: &Marker, filling: Filling) {
    out.push(b'{');
    marker.write_to(out);
    out.push(b',');
    if filling == Filling::Mixed {
        let (row, _) = mix::row_of(marker);
        out.extend_from_slice(row.fields.as_bytes());
        if row.event_type == SPAWN {
            out.extend_from_slice(br#""child_session":"#);
            write_session(out, marker.user, Some(mix::agent_of(marker)));
            out.push(b',');
        }
    } else {
        out.extend_from_slice(br#""tool_name":"Bash","#);
    }
    out.extend_from_slice(br#""pad":""#);
    filling.write_to(marker, out);
    out.extend_from_slice(br#""}"#);
}

/// The name of user `user`, of fixed width; also the topic, whose number `atoi` reads.
pub(crate) fn user_name(user: u32) -> String {
    format!("u{user:06}")
}

/// Whether `text` is valid JSON that holds `marker` and its `filling` in its `data`.
/// Slow: for a sample of the deliveries.
pub(crate) fn is_whole(text: &[u8], marker: &Marker, filling: Filling) -> bool {
    let parse = |text: &[u8]| serde_json::from_slice::<Value>(text).unwrap_or_default();
    let mut sent = Vec::new();
    write_data(&mut sent, marker, filling);
    let (event, sent) = (parse(text), parse(&sent));
    // A server may add members of its own to the data, but not change these.
    ["lg", "pad"]
        .iter()
        .all(|name| event["data"][name] == sent[name])
}

/// The type by which an agent tells of another.
const SPAWN: &str = "agent_spawned";

/// Run numbers are below this: they have eight digits.
pub(crate) const RUNS: u32 = 100_000_000;

/// A slip that is longer is told as this: it has eight digits. A phase with many such is not the
/// server's measurement any more.
pub(crate) const SLIP_NS_MAX: u32 = 99_999_999;

const PREFIX: &[u8] = br#""lg":""#;
const MARKER_BYTES: usize = PREFIX.len() + 8 + 1 + 8 + 1 + 8 + 1 + 16 + 1 + 8 + 1;
const USER_DIGITS: usize = 6;

/// Appends the last `width` decimal digits of `value`, zeros in front.
fn push_digits(out: &mut Vec<u8>, mut value: u64, width: usize) {
    let start = out.len();
    out.resize(start + width, b'0');
    for digit in out[start..].iter_mut().rev() {
        *digit = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

/// Reads the first eight bytes as decimal digits, all eight at once: one delivery has six such
/// groups, and a saturated run checks millions a second.
/// Source: D. Lemire, "Quickly parsing eight digits" (2018).
fn eight_digits(bytes: &[u8]) -> Option<u32> {
    let word = u64::from_le_bytes(*bytes.first_chunk()?);
    let high_nibbles = word & 0xF0F0_F0F0_F0F0_F0F0;
    let carries = (word.wrapping_add(0x0606_0606_0606_0606) & 0xF0F0_F0F0_F0F0_F0F0) >> 4;
    if high_nibbles | carries != 0x3333_3333_3333_3333 {
        return None;
    }
    let pairs = (word & 0x0F0F_0F0F_0F0F_0F0F).wrapping_mul(2561) >> 8;
    let fours = (pairs & 0x00FF_00FF_00FF_00FF).wrapping_mul(6_553_601) >> 16;
    let eight = (fours & 0x0000_FFFF_0000_FFFF).wrapping_mul(42_949_672_960_001) >> 32;
    Some(eight as u32)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use proptest::prelude::*;

    const MARKER: Marker = Marker {
        run: 12_345_678,
        user: 42,
        n: 99_999_999,
        intended_ns: 1_234_567_890_123_456,
        slip_ns: 4_321,
    };

    fn event(marker: &Marker, letters: usize) -> Vec<u8> {
        event_of(marker, Filling::Letters(letters).into())
    }

    fn event_of(marker: &Marker, form: Form) -> Vec<u8> {
        let mut out = Vec::new();
        write_event(&mut out, marker, 1_763_805_600_000, form);
        out
    }

    #[test]
    fn event_is_the_contracts_json_and_carries_its_marker() {
        let text = event(&MARKER, 3);
        let json: serde_json::Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(json["user_id"], "u000042");
        assert_eq!(json["session_id"], "s000042");
        assert_eq!(json["timestamp"], 1_763_805_600_000_u64);
        assert_eq!(
            json["data"]["lg"],
            "12345678:00000042:99999999:1234567890123456:00004321"
        );
        let letters = Filling::Letters;
        assert!(is_whole(&text, &MARKER, letters(3)));
        assert!(!is_whole(&text, &MARKER, letters(4)));
        assert!(!is_whole(&text, &MARKER, Filling::Text(3)));
        assert!(!is_whole(&text[1..], &MARKER, letters(3)));
        assert!(!is_whole(&text, &Marker { n: 1, ..MARKER }, letters(3)));
    }

    #[test]
    fn length_depends_on_the_form_alone() {
        let identified = Form {
            filling: Filling::Letters(7),
            identity: Identity::EventId,
        };
        for form in [Filling::Letters(0).into(), identified] {
            assert_eq!(event_of(&MARKER, form).len(), event_bytes(form), "{form:?}");
        }
        let plain = event_bytes(Filling::Letters(0).into());
        assert_eq!(event_bytes(Filling::Letters(100).into()), plain + 100);
    }

    #[test]
    fn mixed_events_are_whole_and_of_several_types() {
        let mut types = std::collections::BTreeSet::new();
        for n in 0..500 {
            let marker = Marker { n, ..MARKER };
            let text = event_of(&marker, Filling::Mixed.into());
            assert_eq!(MarkerFinder::new().find(&text), Some(marker));
            assert!(is_whole(&text, &marker, Filling::Mixed));
            let json: serde_json::Value = serde_json::from_slice(&text).unwrap();
            types.insert(json["event_type"].as_str().unwrap().to_owned());
        }
        assert_eq!(types.len(), 8, "{types:?}");
    }

    #[test]
    fn identified_event_names_itself_and_no_other() {
        let form = Form {
            filling: Filling::Letters(0),
            identity: Identity::EventId,
        };
        let text = event_of(&MARKER, form);
        let json: serde_json::Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(json["event_id"], "123456780000004299999999");
        assert_eq!(MarkerFinder::new().find(&text), Some(MARKER));
    }

    #[test]
    fn finder_follows_a_marker_that_moves() {
        let mut finder = MarkerFinder::new();
        for shift in [0, 7, 7, 3, 0] {
            let mut text = vec![b' '; shift];
            text.extend(event(&MARKER, 10));
            assert_eq!(finder.find(&text), Some(MARKER), "shifted by {shift}");
        }
    }

    #[test]
    fn what_is_no_marker_is_not_found() {
        let mut cut = event(&MARKER, 0);
        let at = cut.windows(6).position(|bytes| bytes == PREFIX).unwrap();
        cut.truncate(at + MARKER_BYTES - 1);
        let letters = br#"{"data":{"lg":"1234567x:00000042:99999999:1234567890123456:00004321"}}"#;
        let separators =
            br#"{"data":{"lg":"12345678-00000042:99999999:1234567890123456:00004321"}}"#;
        let cases: [&[u8]; 5] = [b"", b"{}", &cut, letters, separators];
        for text in cases {
            assert_eq!(
                MarkerFinder::new().find(text),
                None,
                "{}",
                text.escape_ascii()
            );
        }
    }

    proptest! {
        #[test]
        fn marker_survives_the_road(run in 0..RUNS, user in 0..RUNS, n in 0..RUNS,
                                    intended_ns in 0..10_000_000_000_000_000_u64,
                                    slip_ns in 0..=SLIP_NS_MAX) {
            let marker = Marker { run, user, n, intended_ns, slip_ns };
            prop_assert_eq!(MarkerFinder::new().find(&event(&marker, 5)), Some(marker));
        }

        #[test]
        fn eight_digits_equals_the_naive_reading(bytes in prop::array::uniform8(0x20_u8..0x50)) {
            let naive = bytes.iter().all(u8::is_ascii_digit).then(|| {
                bytes.iter().fold(0_u32, |value, digit| value * 10 + u32::from(digit - b'0'))
            });
            prop_assert_eq!(eight_digits(&bytes), naive);
        }
    }
}
