//! The seam to `ops`: the engine asks for a page, and whoever built it answers, at once or later.

use crate::hub::keyed::Key;
use crate::wire::Refused;

/// Renders operators' pages. Shared by all cores.
pub trait Pages: Send + Sync {
    /// The page that is asked for, or the promise of it. Called on a core's thread: it must neither
    /// block nor take long. Errors: `BadRequest`, `NotFound`, `Overloaded`.
    fn page(&self, request: PageRequest<'_>) -> Result<Rendering, Refused>;

    /// Whether the page at `path` needs permission `admin` where the network reaches it; `None`
    /// where there is no such page.
    fn needs_admin(&self, path: &str) -> Option<bool>;
}

/// What is asked for, and where a later answer goes.
#[derive(Clone, Copy, Debug)]
pub struct PageRequest<'a> {
    /// Without the query.
    pub path: &'a str,
    /// What follows the question mark, as it came.
    pub query: &'a str,
    /// Whether the node shuts down.
    pub is_draining: bool,
    /// The core that asks.
    pub core: usize,
    /// Its name for the connection.
    pub connection: Key,
}

/// What comes of asking.
#[derive(Debug)]
pub enum Rendering {
    /// It comes as `Letter::Page`, rendered by another thread.
    Later,
    /// Here it is.
    Now(Page),
}

/// One page.
#[derive(Clone, Debug)]
pub struct Page {
    /// The HTTP status.
    pub status: u16,
    /// The media type.
    pub content_type: &'static str,
    /// The bytes.
    pub body: Vec<u8>,
}
