//! `--arrival`: how events arrive.

use std::str::FromStr;

use super::parse_positive;
use crate::schedule::Arrival;

/// A shape of arrivals as it is asked for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Shape {
    /// So many events at once, every so many seconds.
    Burst { events: u32, seconds: f64 },
    /// One after the other.
    Constant,
    /// Independent of each other, by this seed.
    Poisson(u64),
    /// From so many events a second to so many.
    Ramp { from: f64, to: f64 },
}

impl Shape {
    /// The mean rate that it says, events a second.
    pub(super) fn rate(self) -> Option<f64> {
        match self {
            Self::Burst { events, seconds } => Some(f64::from(events) / seconds),
            Self::Ramp { from, to } => Some(f64::midpoint(from, to)),
            Self::Constant | Self::Poisson(_) => None,
        }
    }

    /// The same for a schedule of that rate.
    pub(super) fn arrival(self) -> Arrival {
        match self {
            Self::Burst { events, .. } => Arrival::Burst(events.into()),
            Self::Constant => Arrival::Even,
            Self::Poisson(seed) => Arrival::Poisson(seed),
            Self::Ramp { from, to } => Arrival::Ramp(from / f64::midpoint(from, to)),
        }
    }
}

impl FromStr for Shape {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Vec<_> = text.split(':').collect();
        match parts[..] {
            ["constant"] => Ok(Self::Constant),
            ["poisson"] => Ok(Self::Poisson(SEED)),
            ["poisson", seed] => seed
                .parse()
                .map(Self::Poisson)
                .map_err(|_| "a seed is a number from 0".to_owned()),
            ["ramp", from, to] => Ok(Self::Ramp {
                from: parse_rate(from)?,
                to: parse_rate(to)?,
            })
            .and_then(Self::require_rate),
            ["burst", events, seconds] => {
                let events = events.parse().ok().filter(|events| *events > 0);
                Ok(Self::Burst {
                    events: events.ok_or("events are a number from 1")?,
                    seconds: parse_positive(seconds)?,
                })
            }
            _ => Err("expected constant, poisson, poisson:SEED, ramp:FROM:TO or \
                      burst:EVENTS:SECONDS"
                .to_owned()),
        }
    }
}

impl Shape {
    fn require_rate(self) -> Result<Self, String> {
        match self.rate() {
            Some(rate) if rate <= 0.0 => Err("a ramp from 0 to 0 has no events".to_owned()),
            _ => Ok(self),
        }
    }
}

/// The seed of `poisson`.
const SEED: u64 = 1;

/// A rate, which may be 0 at one end of a ramp.
fn parse_rate(text: &str) -> Result<f64, String> {
    let rate: Option<f64> = text.parse().ok();
    rate.filter(|rate| *rate >= 0.0 && rate.is_finite())
        .ok_or_else(|| "expected a number from 0".to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn shapes_have_a_rate_and_an_arrival() {
        for (text, rate, arrival) in [
            ("constant", None, Arrival::Even),
            ("poisson", None, Arrival::Poisson(1)),
            ("poisson:7", None, Arrival::Poisson(7)),
            ("ramp:0:100", Some(50.0), Arrival::Ramp(0.0)),
            ("ramp:300:100", Some(200.0), Arrival::Ramp(1.5)),
            ("ramp:5:0", Some(2.5), Arrival::Ramp(2.0)),
            ("burst:100:0.5", Some(200.0), Arrival::Burst(100)),
        ] {
            let shape: Shape = text.parse().unwrap();
            assert_eq!((shape.rate(), shape.arrival()), (rate, arrival), "{text}");
        }
    }

    #[test]
    fn other_shapes_are_refused() {
        for text in [
            "",
            "x",
            "poisson:",
            "poisson:-1",
            "ramp",
            "ramp:1",
            "ramp:0:0",
            "ramp:-1:2",
            "ramp:1:inf",
            "ramp:1:2:3",
            "burst:0:1",
            "burst:1:0",
            "burst:1",
            "burst:x:1",
        ] {
            assert!(text.parse::<Shape>().is_err(), "{text}");
        }
    }
}
