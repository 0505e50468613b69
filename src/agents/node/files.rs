//! The files that an event names, as many as are shown.

use serde::{Deserialize, Serialize};

use super::cut;
use crate::limits::{AGENT_FILES_BYTES_MAX, AGENT_FILES_MAX, AGENT_TEXT_BYTES_MAX};

/// Paths of files, in one piece of memory: most agents name some, and a text of its own costs more
/// than many a path is long.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Files {
    paths: Box<str>,
    // Where each path ends, in bytes.
    ends: Box<[u16]>,
}

impl Files {
    /// Of those that are `named` the first `AGENT_FILES_MAX`, each cut at `AGENT_TEXT_BYTES_MAX`, and
    /// of these as many as fit into `AGENT_FILES_BYTES_MAX`. `None` where none is named.
    pub(super) fn new<'e>(named: impl Iterator<Item = &'e str>) -> Option<Self> {
        let (mut paths, mut ends) = (String::new(), Vec::new());
        for path in named.take(AGENT_FILES_MAX) {
            let path = cut(path, AGENT_TEXT_BYTES_MAX);
            let end = paths.len() + path.len();
            if end > AGENT_FILES_BYTES_MAX {
                break;
            }
            paths.push_str(path);
            ends.push(end as u16);
        }
        (!ends.is_empty()).then(|| Self {
            paths: paths.into(),
            ends: ends.into(),
        })
    }

    /// The paths, in the order of the event.
    pub(super) fn iter(&self) -> impl Iterator<Item = &str> {
        let ends = self.ends.iter().map(|end| usize::from(*end));
        let begins = std::iter::once(0).chain(ends.clone());
        // What was kept may be anything.
        let path = |(begin, end)| self.paths.get(begin..end).unwrap_or_default();
        begins.zip(ends).map(path)
    }

    /// Bytes of memory that they take beside their own place.
    pub(super) fn heap_bytes(&self) -> usize {
        self.paths.len() + size_of_val(&*self.ends)
    }
}

// An end fits into its place.
const _: () = assert!(AGENT_FILES_BYTES_MAX <= u16::MAX as usize);
