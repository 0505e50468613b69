//! The query of a target.

use std::borrow::Cow;

/// The pairs of a raw query, decoded: `+` is a space, `%XX` a byte, and bytes that are not UTF-8
/// become U+FFFD. Source: the URL standard, application/x-www-form-urlencoded.
pub fn query_pairs(raw: &str) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
    form_urlencoded::parse(raw.as_bytes())
}
