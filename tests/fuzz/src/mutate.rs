//! Changes to an input, of the kinds that grammars fear: bytes and bits, words of the target's
//! own, pieces of other inputs, numbers at their bounds, lengths that are off by one.

use std::ops::Range;

use fastrand::Rng;

/// Makes inputs out of others.
pub struct Mutator {
    tokens: &'static [&'static str],
    /// What is spliced in; never empty.
    others: Vec<Vec<u8>>,
}

impl Mutator {
    /// With the words of a target, and inputs to take pieces from.
    pub fn new(tokens: &'static [&'static str], mut others: Vec<Vec<u8>>) -> Self {
        others.push(Vec::new());
        Self { tokens, others }
    }

    /// An input to begin with.
    pub fn pick(&self, rng: &mut Rng) -> &[u8] {
        &self.others[rng.usize(..self.others.len())]
    }

    /// Changes `input` once or several times; it then has at most `bytes_max` bytes.
    pub fn mutate(&self, input: &mut Vec<u8>, bytes_max: usize, rng: &mut Rng) {
        let mut changes = 1;
        while changes < CHANGES_MAX && rng.bool() {
            changes += 1;
        }
        for _ in 0..changes {
            self.change(input, rng);
            input.truncate(bytes_max);
        }
    }

    fn change(&self, input: &mut Vec<u8>, rng: &mut Rng) {
        match rng.u8(..11) {
            0 => change_byte(input, rng, |byte, rng| byte ^ (1 << rng.u8(..8))),
            1 => change_byte(input, rng, |byte, _| byte.wrapping_add(1)),
            2 => change_byte(input, rng, |byte, _| byte.wrapping_sub(1)),
            3 => change_byte(input, rng, |_, rng| BYTES[rng.usize(..BYTES.len())]),
            4 => drop(input.drain(range(input, rng))),
            5 => repeat(input, rng),
            6 => {
                let other = self.pick(rng);
                insert(input, &other[range(other, rng)], rng);
            }
            7 => {
                let other = self.pick(rng);
                input.truncate(rng.usize(..=input.len()));
                input.extend_from_slice(&other[other.len().min(input.len())..]);
            }
            8 => change_number(input, rng),
            9 => change_length(input, rng),
            _ => self.insert_token(input, rng),
        }
    }

    /// In the place of something, or before it.
    fn insert_token(&self, input: &mut Vec<u8>, rng: &mut Rng) {
        let token = rng.choice(self.tokens).map_or("", |token| token);
        let replaced = range(input, rng);
        let end = if rng.bool() {
            replaced.end
        } else {
            replaced.start
        };
        input.splice(replaced.start..end, token.bytes());
    }
}

/// Inserts a part of the input once more or, seldom, many times.
fn repeat(input: &mut Vec<u8>, rng: &mut Rng) {
    let part = input[range(input, rng)].to_vec();
    let times = if rng.u8(..8) == 0 { rng.usize(..64) } else { 1 };
    insert(input, &part.repeat(times), rng);
}

fn change_byte(input: &mut [u8], rng: &mut Rng, change: fn(u8, &mut Rng) -> u8) {
    if !input.is_empty() {
        let at = rng.usize(..input.len());
        input[at] = change(input[at], rng);
    }
}

/// Puts a number at a bound in the place of a run of digits.
fn change_number(input: &mut Vec<u8>, rng: &mut Rng) {
    let from = rng.usize(..=input.len());
    let Some(offset) = input[from..].iter().position(u8::is_ascii_digit) else {
        return;
    };
    let rest = &input[from + offset..];
    let length = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let number = NUMBERS[rng.usize(..NUMBERS.len())];
    let place = from + offset..from + offset + length;
    input.splice(place, number.bytes());
}

/// Moves a big-endian number of one, two or eight bytes by a little, or to a bound.
fn change_length(input: &mut [u8], rng: &mut Rng) {
    let width = [1, 2, 8][rng.usize(..3)];
    if input.len() < width {
        return;
    }
    let at = rng.usize(..=input.len() - width);
    let field = &mut input[at..at + width];
    let value = field
        .iter()
        .fold(0_u64, |value, byte| value << 8 | u64::from(*byte));
    let value = match rng.u8(..4) {
        0 => value.wrapping_add(1),
        1 => value.wrapping_sub(1),
        2 => [0, 125, 126, 127, 65_535, 65_536, i64::MAX as u64, u64::MAX][rng.usize(..8)],
        _ => rng.u64(..=2 * at as u64 + 16),
    };
    let bytes = value.to_be_bytes();
    input[at..at + width].copy_from_slice(&bytes[8 - width..]);
}

fn insert(input: &mut Vec<u8>, bytes: &[u8], rng: &mut Rng) {
    let at = rng.usize(..=input.len());
    input.splice(at..at, bytes.iter().copied());
}

/// A part of `input`, mostly a short one.
fn range(input: &[u8], rng: &mut Rng) -> Range<usize> {
    let start = rng.usize(..=input.len());
    let rest = input.len() - start;
    let length = if rng.bool() { rest.min(8) } else { rest };
    start..start + rng.usize(..=length)
}

/// Changes made to one input at a time.
const CHANGES_MAX: usize = 8;

const BYTES: &[u8] = b"\0\x01\t\n\r \"%',-./0:;=?[\\]{}\x7f\x80\xbf\xc0\xe2\xed\xf0\xf4\xff";

const NUMBERS: &[&str] = &[
    "0",
    "1",
    "-1",
    "00",
    "1.0",
    "1e9",
    "63",
    "64",
    "65",
    "127",
    "128",
    "129",
    "65536",
    "4294967296",
    "9007199254740991",
    "9007199254740992",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "253402300800000",
    "1e400",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn inputs(seed: u64) -> Vec<Vec<u8>> {
        let mutator = Mutator::new(&["token", "é"], vec![b"12 and \0\x05hello".to_vec()]);
        let mut rng = Rng::with_seed(seed);
        let mut input = Vec::new();
        let mut next = || {
            mutator.mutate(&mut input, 100, &mut rng);
            input.clone()
        };
        (0..10_000).map(|_| next()).collect()
    }

    #[test]
    fn a_seed_repeats_a_run_and_inputs_keep_to_their_bound() {
        let first = inputs(1);
        assert!(first == inputs(1));
        assert!(first != inputs(2));
        assert!(first.iter().all(|input| input.len() <= 100));
    }

    #[test]
    fn every_kind_of_change_is_made() {
        let inputs = inputs(3);
        let has = |part: &[u8]| {
            inputs
                .iter()
                .any(|input| input.windows(part.len()).any(|found| found == part))
        };
        for part in ["token", "hello", "9007199254740992", "tokentoken"] {
            assert!(has(part.as_bytes()), "{part}");
        }
    }
}
