//! Events as viewers saw them.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use sightline::event::{Dialect, Stream};

use super::{Told, expect};
use crate::events::{Envelope, Events};

/// All frames that anybody saw, so that each is read once and that all who see one agree.
#[derive(Default)]
pub struct Sightings {
    by_bytes: HashMap<(Dialect, Rc<[u8]>), Sighting>,
    by_seq: BTreeMap<(Dialect, Stream, u64), Rc<[u8]>>,
}

#[derive(Clone)]
pub(super) struct Sighting {
    bytes: Rc<[u8]>,
    pub stream: String,
    pub seq: u64,
    pub uid: u64,
}

impl Sightings {
    pub(super) fn known(&self, dialect: Dialect, text: &[u8]) -> Option<Sighting> {
        self.by_bytes.get(&(dialect, Rc::from(text))).cloned()
    }

    pub(super) fn note(
        &mut self,
        dialect: Dialect,
        text: &[u8],
        seq: u64,
        envelope: &Envelope<'_>,
        events: &Events,
    ) -> Result<Sighting, String> {
        let uid = envelope.uid().ok_or("an event without number")?;
        let event = events.get(&uid).ok_or("an event that nobody published")?;
        if !event.is_told_by(envelope, dialect) {
            return Err(format!(
                "{event:?} was told as {}",
                String::from_utf8_lossy(text)
            ));
        }
        let stream = match (&envelope.stream, dialect) {
            (None, Dialect::Keen) => "user".to_owned(),
            (Some(name), Dialect::Keen) if name == "user" => {
                return Err("keen does not name the own stream".into());
            }
            (Some(name), _) => name.clone(),
            (None, Dialect::Observatory) => return Err("no stream".into()),
        };
        let bytes: Rc<[u8]> = text.into();
        let sighting = Sighting {
            bytes: Rc::clone(&bytes),
            stream,
            seq,
            uid,
        };
        self.by_bytes.insert((dialect, bytes), sighting.clone());
        Ok(sighting)
    }

    pub(super) fn agree(&mut self, dialect: Dialect, stream: &Stream, sighting: &Sighting) -> Told {
        let known = self.by_seq.entry((dialect, stream.clone(), sighting.seq));
        let bytes = known.or_insert_with(|| Rc::clone(&sighting.bytes));
        expect(
            Rc::ptr_eq(bytes, &sighting.bytes),
            "two events under one seq",
        )
    }
}
