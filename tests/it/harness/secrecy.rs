//! A token leaves the server by no other way than it came in: whatever the server or a command says
//! goes through here.

/// Part of what tests send in place of a token and is none, so that it can be told from other text.
pub const NO_TOKEN: &str = "as-secret-as-a-token";

/// What each token of these tests holds: the header of a JWT is an object, whose first two
/// characters are these in base64.
const MARKS: [&str; 2] = ["eyJ", NO_TOKEN];

/// Fails where `text`, found at `place`, holds a token or a piece of one.
pub fn check_secrecy(place: &str, text: &str) {
    for mark in MARKS {
        if let Some(at) = text.find(mark) {
            let from = (0..=at.saturating_sub(80)).rev();
            let from = from.into_iter().find(|from| text.is_char_boundary(*from));
            panic!("a token in {place}: {}", &text[from.unwrap_or(0)..]);
        }
    }
}
