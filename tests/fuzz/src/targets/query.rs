//! The query of a viewer's request, and the cursor in it.
//!
//! Properties: what is read keeps to its bounds and reads back from what is written; the same text
//! taken as a cursor alone does too.

use std::collections::BTreeSet;

use sightline::dialect::{ConnectQuery, Cursor};
use sightline::event::{Epoch, Seq};
use sightline::limits::{CURSOR_STREAMS_MAX, FILTER_VALUES_MAX, SESSION_ID_BYTES_MAX};
use sightline::wire::http::query_pairs;

use crate::Target;

pub(super) const TARGET: Target = Target {
    name: "query",
    run,
    tokens: TOKENS,
    bytes_max: 18 * 1024,
};

#[rustfmt::skip]
const TOKENS: &[&str] = &[
    "sessions=", "subscribe=all", "tree=full", "tree=patch", "tree=off", "epoch=0000000a",
    "resume=", "token=", "refusals=close", "&", "=", ",", "%2C", "%3D", "%2F", "%25", "%", "+",
    "user=1", "user%3D1", "project/7=2", "project%2F7%3D2", "project/", "user/bob=3", "%C3%A9",
    "%ff", "é",
];

fn run(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    if let Ok(query) = ConnectQuery::parse(query_pairs(&text)) {
        let distinct: BTreeSet<_> = query.sessions.iter().collect();
        assert_eq!(distinct.len(), query.sessions.len(), "each session once");
        assert!(distinct.len() <= FILTER_VALUES_MAX);
        assert!(
            distinct
                .iter()
                .all(|id| (1..=SESSION_ID_BYTES_MAX).contains(&id.len()))
        );
        query.cursor.iter().for_each(check_cursor);
    }
    let epoch = text.get(..8).filter(|epoch| Epoch::parse(epoch).is_some());
    if let Ok(cursor) = Cursor::parse(epoch, Some(&text)) {
        check_cursor(&cursor.expect("there is a resume"));
    }
}

/// What must hold of each cursor that was read.
pub(super) fn check_cursor(cursor: &Cursor) {
    assert!((1..=CURSOR_STREAMS_MAX).contains(&cursor.len()));
    assert_eq!(cursor.iter().count(), cursor.len());
    for (stream, seq) in cursor.iter() {
        assert!(seq <= Seq::MAX);
        assert_eq!(cursor.seq(stream), Some(seq));
    }
    let epoch = cursor.epoch.map(|epoch| epoch.to_string());
    let again = Cursor::parse(epoch.as_deref(), Some(&cursor.to_string()));
    assert_eq!(again.as_ref(), Ok(&Some(cursor.clone())), "{cursor}");
}
