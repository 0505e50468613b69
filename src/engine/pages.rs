//! The seam to `ops`: the engine asks for a page by its path, and whoever built it answers.

/// Renders operators' pages. Shared by all cores.
pub trait Pages: Send + Sync {
    /// The page at `path`, if there is one. Called on a core's thread: it must not block.
    fn page(&self, path: &str, is_draining: bool) -> Option<Page>;

    /// Whether the page at `path` needs permission `admin` where the network reaches it; `None`
    /// where there is no such page.
    fn needs_admin(&self, path: &str) -> Option<bool>;
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
