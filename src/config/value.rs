//! One value as it was written, and the readers that turn it into what a key takes. A reader
//! says what it expected and what it found; it knows neither the key nor the place.

use std::{fmt::Display, path::PathBuf};

use toml::de::DeValue;

use super::types::Secret;
use crate::event::Dialect;
use crate::history::writer::Durability;
use crate::hub::Deliver;

/// A value as written.
#[derive(Clone)]
pub(super) enum Value {
    /// `true` or `false` in TOML.
    Boolean(bool),
    /// An integer of TOML within 64 bits.
    Integer(i64),
    /// An array of TOML.
    List(Vec<Value>),
    /// What no key takes: a float, a date, a table. Holds its description.
    Other(&'static str),
    /// A string of TOML.
    Text(String),
    /// From the environment or a flag: the key decides what it is.
    Word(String),
}

impl Value {
    /// A value of the file. Its depth is bounded by the TOML reader.
    pub(super) fn from_toml(value: &DeValue<'_>) -> Self {
        match value {
            DeValue::Boolean(flag) => Self::Boolean(*flag),
            DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
                .map_or(Self::Other("an integer beyond 64 bits"), Self::Integer),
            DeValue::Array(items) => {
                Self::List(items.iter().map(|i| Self::from_toml(i.get_ref())).collect())
            }
            DeValue::String(text) => Self::Text(text.to_string()),
            DeValue::Float(_) => Self::Other("a float"),
            DeValue::Datetime(_) => Self::Other("a date"),
            DeValue::Table(_) => Self::Other("a table"),
        }
    }

    /// The value for an error message: quoted, shortened, control characters escaped.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Boolean(flag) => flag.to_string(),
            Self::Integer(number) => number.to_string(),
            Self::List(_) => "a list".into(),
            Self::Other(what) => (*what).into(),
            Self::Text(text) | Self::Word(text) if text.is_empty() => "nothing".into(),
            Self::Text(text) | Self::Word(text) => quoted_short(text),
        }
    }

    fn as_boolean(&self) -> Option<bool> {
        match self {
            Self::Boolean(flag) => Some(*flag),
            Self::Word(word) => word.trim().parse().ok(),
            _ => None,
        }
    }

    fn as_integer(&self) -> Option<u64> {
        match self {
            Self::Integer(number) => u64::try_from(*number).ok(),
            Self::Word(word) => word.trim().replace('_', "").parse().ok(),
            _ => None,
        }
    }

    fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) | Self::Word(text) => Some(text).filter(|t| !t.is_empty()),
            _ => None,
        }
        .map(String::as_str)
    }

    /// The items of a list. A word is an array of TOML or, where it is none (`[::1]:4040`), split
    /// at its commas.
    fn as_items(&self) -> Option<Vec<Self>> {
        match self {
            Self::List(items) => Some(items.clone()),
            Self::Word(word) => Some(toml_items(word).unwrap_or_else(|| split_words(word))),
            _ => None,
        }
    }
}

fn toml_items(word: &str) -> Option<Vec<Value>> {
    let parsed = DeValue::parse(word.trim()).ok()?;
    match Value::from_toml(parsed.get_ref()) {
        Value::List(items) => Some(items),
        _ => None,
    }
}

fn split_words(text: &str) -> Vec<Value> {
    text.split(',')
        .map(str::trim)
        .filter(|item| !item.is_empty())
        .map(|item| Value::Word(item.into()))
        .collect()
}

/// Quotes at most 60 characters.
fn quoted_short(text: &str) -> String {
    match text.char_indices().nth(60) {
        Some((cut, _)) => format!("{:?} and more", &text[..cut]),
        None => format!("{text:?}"),
    }
}

/// Why a value does not do.
pub(super) struct Mismatch {
    /// What the key takes.
    pub(super) expected: String,
    /// What was found; never a secret.
    pub(super) found: String,
}

impl Mismatch {
    fn new(expected: impl Into<String>, found: &Value) -> Self {
        Self {
            expected: expected.into(),
            found: found.describe(),
        }
    }
}

/// What a reader gives.
pub(super) type Read<T> = Result<T, Mismatch>;

/// `true` or `false`.
pub(super) fn boolean(value: &Value) -> Read<bool> {
    value
        .as_boolean()
        .ok_or_else(|| Mismatch::new("true or false", value))
}

/// An integer from `min` to `max`, both included.
pub(super) fn integer<T: TryFrom<u64>>(value: &Value, min: u64, max: u64) -> Read<T> {
    value
        .as_integer()
        .filter(|number| (min..=max).contains(number))
        .and_then(|number| T::try_from(number).ok())
        .ok_or_else(|| Mismatch::new(format!("an integer from {min} to {max}"), value))
}

/// Text of one to 4096 bytes.
pub(super) fn text<T: From<String>>(value: &Value) -> Read<T> {
    match value.as_text().filter(|text| text.len() <= 4096) {
        Some(text) => Ok(text.to_string().into()),
        None => Err(Mismatch::new("text of 1 to 4096 bytes", value)),
    }
}

/// The path of a file or folder; relative ones start from where the command was started.
pub(super) fn path<T: From<PathBuf>>(value: &Value) -> Read<T> {
    match value.as_text().filter(|text| !text.contains('\0')) {
        Some(text) => Ok(PathBuf::from(text).into()),
        None => Err(Mismatch::new("a path", value)),
    }
}

/// A shared secret. The error tells its length only.
pub(super) fn secret(value: &Value) -> Read<Option<Secret>> {
    let expected = format!("text of at least {} bytes", Secret::BYTES_MIN);
    let Some(text) = value.as_text() else {
        let found = "something else".into();
        return Err(Mismatch { expected, found });
    };
    match Secret::new(text) {
        Some(secret) => Ok(Some(secret)),
        None => {
            let found = format!("{} bytes", text.len());
            Err(Mismatch { expected, found })
        }
    }
}

/// One of a few names.
pub(super) fn one_of<T: Copy>(value: &Value, all: &[T], name: fn(T) -> &'static str) -> Read<T> {
    let wanted = value.as_text();
    let found = all.iter().find(|&&item| wanted == Some(name(item)));
    found.copied().ok_or_else(|| {
        let names: Vec<String> = all
            .iter()
            .map(|item| format!("{:?}", name(*item)))
            .collect();
        Mismatch::new(names.join(" or "), value)
    })
}

/// What `parse` takes; `expected` describes it.
pub(super) fn parsed<T, U: From<T>>(
    value: &Value,
    expected: &str,
    parse: fn(&str) -> Option<T>,
) -> Read<U> {
    let found = value.as_text().and_then(parse);
    found
        .map(U::from)
        .ok_or_else(|| Mismatch::new(expected, value))
}

/// A list of what `parse` takes; `expected` describes one item.
pub(super) fn list<T>(value: &Value, expected: &str, parse: fn(&str) -> Option<T>) -> Read<Vec<T>> {
    let Some(items) = value.as_items() else {
        let expected = format!("a list, each item {expected}");
        return Err(Mismatch::new(expected, value));
    };
    let items = items.iter();
    items.map(|item| parsed(item, expected, parse)).collect()
}

/// How a setting is written in TOML; `None` where it is not set.
pub(super) trait Show {
    /// TOML, or nothing.
    fn show(&self) -> Option<String>;
}

macro_rules! show_plain {
    ($($plain:ty),+) => {
        $(impl Show for $plain {
            fn show(&self) -> Option<String> {
                Some(self.to_string())
            }
        })+
    };
}

macro_rules! show_quoted {
    ($($quoted:ty),+) => {
        $(impl Show for $quoted {
            fn show(&self) -> Option<String> {
                Some(quoted(self))
            }
        })+
    };
}

macro_rules! show_named {
    ($($named:ty),+) => {
        $(impl Show for $named {
            fn show(&self) -> Option<String> {
                Some(quoted(self.name()))
            }
        })+
    };
}

show_plain!(bool, u32, u64, usize);
show_quoted!(String, super::ListenAddress);
show_named!(Dialect, Deliver, Durability);

impl Show for PathBuf {
    fn show(&self) -> Option<String> {
        Some(quoted(self.display()))
    }
}

impl Show for Secret {
    fn show(&self) -> Option<String> {
        Some(quoted("(not shown)"))
    }
}

impl<T: Show> Show for Option<T> {
    fn show(&self) -> Option<String> {
        self.as_ref().and_then(Show::show)
    }
}

impl<T: Display> Show for Vec<T> {
    fn show(&self) -> Option<String> {
        let items: Vec<String> = self.iter().map(quoted).collect();
        Some(format!("[{}]", items.join(", ")))
    }
}

/// A string of TOML on one line, whatever is in it; `toml` itself would begin a new one at a line
/// end.
pub(super) fn quoted(text: impl Display) -> String {
    let mut quoted = String::from('"');
    for c in text.to_string().chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => quoted.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}
