//! A publish body, cut into its events.
//!
//! Properties, for both kinds of body: any budgets give the same events; they are what the parser
//! makes of each element of the array that serde_json reads, or of each line.

use bytes::Bytes;
use serde_json::value::RawValue;
use sightline::event::{Body, BodyKind, Event, Parsed, Parser, Rejection, RejectionCode, Step};

use super::NOW_MS;
use crate::Target;
use crate::pieces::rng_of;

pub(super) const TARGET: Target = Target {
    name: "body",
    run,
    tokens: TOKENS,
    bytes_max: 4 * 1024,
};

#[rustfmt::skip]
const TOKENS: &[&str] = &[
    "[", "]", "{", "}", ",", ":", "\"", "\\", "\\\"", "\n", "\r\n", " ", "\t", "null", "[]", "{}",
    "\"[\"", "\"]\"", r#"{"type":"t","user_id":1}"#,
    r#"{"type":"t","project_id":"p","data":[1,{"a":"]"}]}"#, "\u{feff}", "\u{c}",
];

fn run(input: &[u8]) {
    let mut rng = rng_of(input);
    for kind in [BodyKind::Json, BodyKind::Ndjson] {
        let expected = match kind {
            BodyKind::Json => json(input),
            BodyKind::Ndjson => lines(input),
        };
        let at_once = outcomes(input, kind, || usize::MAX);
        assert_eq!(at_once, expected, "{kind:?}");
        let budget_max = rng.usize(1..=64);
        let in_steps = outcomes(input, kind, || rng.usize(1..=budget_max));
        assert_eq!(
            in_steps, expected,
            "{kind:?} in steps of up to {budget_max}"
        );
    }
}

type Outcome = Result<Event, RejectionCode>;

fn outcomes(input: &[u8], kind: BodyKind, mut budget: impl FnMut() -> usize) -> Vec<Outcome> {
    let mut body = Body::new(Bytes::copy_from_slice(input), kind);
    let mut parser = Parser::new();
    let (mut outcomes, mut left) = (Vec::new(), budget());
    // A step takes a byte at least, and an array is gone through twice.
    for _ in 0..4 * input.len() + 16 {
        match body.next(&mut parser, NOW_MS, &mut left) {
            Step::Event(index, event) => {
                assert_eq!(index, outcomes.len());
                outcomes.push(outcome(event));
            }
            Step::Working => left = budget(),
            Step::Done => return outcomes,
        }
    }
    panic!("the body does not end");
}

fn json(input: &[u8]) -> Vec<Outcome> {
    let text = trimmed(input);
    if text.first() != Some(&b'[') {
        return vec![parse(&mut Parser::new(), text)];
    }
    let text = std::str::from_utf8(text).ok();
    let elements = text.and_then(|text| serde_json::from_str::<Vec<&RawValue>>(text).ok());
    match elements {
        None => vec![Err(RejectionCode::InvalidJson)],
        Some(elements) => {
            let mut parser = Parser::new();
            let texts = elements.iter().map(|raw| raw.get().as_bytes());
            texts.map(|text| parse(&mut parser, text)).collect()
        }
    }
}

fn lines(input: &[u8]) -> Vec<Outcome> {
    let lines = input.split(|byte| *byte == b'\n').map(trimmed);
    let mut parser = Parser::new();
    let texts = lines.filter(|line| !line.is_empty());
    texts.map(|text| parse(&mut parser, text)).collect()
}

fn parse(parser: &mut Parser, text: &[u8]) -> Outcome {
    outcome(parser.parse(&Bytes::copy_from_slice(text), NOW_MS))
}

fn outcome(parsed: Result<Parsed, Rejection>) -> Outcome {
    match parsed {
        Ok(parsed) => Ok(parsed.event),
        Err(refusal) => Err(refusal.code),
    }
}

fn trimmed(text: &[u8]) -> &[u8] {
    let is_text = |byte: &u8| !b" \t\r\n".contains(byte);
    let start = text.iter().position(is_text).unwrap_or(text.len());
    let end = text
        .iter()
        .rposition(is_text)
        .map_or(start, |last| last + 1);
    &text[start..end]
}
