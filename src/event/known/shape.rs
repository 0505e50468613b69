//! What a value must be, and how it is read: the kinds of values that shapes are declared with, and
//! the macro that declares them.

use std::borrow::Cow;
use std::fmt;

use compact_str::{CompactString, ToCompactString};
use simd_json::{Node, StaticNode};

use crate::event::tape::Document;

/// A value that is declared: read where one slip must not hide the rest, checked where it is told.
pub(super) trait Shape<'t>: Sized {
    /// What it must be, for people.
    const WANTED: &'static str;

    /// The value at `at`; `None` where it is of another type. What is inside of it may be wrong.
    fn read(document: Document<'t>, at: usize) -> Option<Self>;

    /// Whether the value at `at` is what it must be, all that is declared inside of it included.
    fn check(document: Document<'t>, at: usize) -> Result<(), Fault> {
        match Self::read(document, at) {
            Some(_) => Ok(()),
            None => Err(Fault::mistyped(document, at, Self::WANTED)),
        }
    }
}

/// What is wrong with a value.
#[derive(Debug)]
pub(super) struct Fault {
    // From the value that was checked to the one that is wrong: `.a.b[2]`; empty: itself.
    path: String,
    pub(super) found: Cow<'static, str>,
    pub(super) wanted: &'static str,
}

impl Fault {
    /// The value at `at` is not what was `wanted`.
    pub(super) fn mistyped(document: Document<'_>, at: usize, wanted: &'static str) -> Self {
        Self {
            path: String::new(),
            found: document.describe(at),
            wanted,
        }
    }

    /// The path of what is wrong, where the value that was checked is `root`.
    pub(super) fn path_from(&self, root: &str) -> String {
        format!("{root}{}", self.path)
    }

    fn missing(wanted: &'static str) -> Self {
        Self {
            path: String::new(),
            found: Cow::Borrowed("missing"),
            wanted,
        }
    }

    fn inside(mut self, step: &str) -> Self {
        self.path.insert_str(0, step);
        self
    }

    fn inside_field(self, name: &str) -> Self {
        self.inside(&format!(".{name}"))
    }
}

/// The field `name`, at `at`: it may be absent, or null.
pub(super) fn optional<'t, T: Shape<'t>>(
    document: Document<'t>,
    at: Option<usize>,
    name: &str,
) -> Result<(), Fault> {
    match at.filter(|at| !document.is_null(*at)) {
        Some(at) => T::check(document, at).map_err(|fault| fault.inside_field(name)),
        None => Ok(()),
    }
}

/// The field `name`, at `at`, without which the event says nothing.
pub(super) fn required<'t, T: Shape<'t>>(
    document: Document<'t>,
    at: Option<usize>,
    name: &str,
) -> Result<(), Fault> {
    let checked = match at {
        Some(at) => T::check(document, at),
        None => Err(Fault::missing(T::WANTED)),
    };
    checked.map_err(|fault| fault.inside_field(name))
}

/// Declares objects: for each field whether it is `required` or `optional`, its kind, and its name
/// on the wire. Fields are checked in this order, whatever theirs in the text.
macro_rules! objects {
    ($(
        $(#[$doc:meta])*
        pub struct $object:ident $(<$life:lifetime>)? {
            $(
                $(#[$field_doc:meta])*
                $presence:ident $field:ident: $kind:ty = $name:literal,
            )*
        }
    )*) => { $(
        $(#[$doc])*
        #[derive(Clone, Debug)]
        pub struct $object $(<$life>)? {
            $( $(#[$field_doc])* pub $field: Option<$kind>, )*
        }

        const _: () = {
            use crate::event::known::shape::{self, Fault, Shape};
            use crate::event::tape::Document;

            // Where the fields are.
            #[derive(Default)]
            struct Places {
                $( $field: Option<usize>, )*
            }

            impl Places {
                fn find(document: Document<'_>, object: usize) -> Self {
                    let mut places = Self::default();
                    for (name, at) in document.members(object) {
                        match name {
                            $( $name => places.$field = Some(at), )*
                            _ => {}
                        }
                    }
                    places
                }
            }

            impl<'t> Shape<'t> for $object $(<$life>)? {
                const WANTED: &'static str = "an object";

                fn read(document: Document<'t>, at: usize) -> Option<Self> {
                    let places = document.is_object(at).then(|| Places::find(document, at))?;
                    Some(Self {
                        $( $field: places.$field.and_then(|at| Shape::read(document, at)), )*
                    })
                }

                fn check(document: Document<'t>, at: usize) -> Result<(), Fault> {
                    if !document.is_object(at) {
                        return Err(Fault::mistyped(document, at, Self::WANTED));
                    }
                    let places = Places::find(document, at);
                    $( shape::$presence::<$kind>(document, places.$field, $name)?; )*
                    Ok(())
                }
            }
        };
    )* };
}

pub(super) use objects;

impl<'t> Shape<'t> for &'t str {
    const WANTED: &'static str = "a string";

    fn read(document: Document<'t>, at: usize) -> Option<Self> {
        document.string(at)
    }
}

impl Shape<'_> for bool {
    const WANTED: &'static str = "true or false";

    fn read(document: Document<'_>, at: usize) -> Option<Self> {
        match document.node(at) {
            Node::Static(StaticNode::Bool(is_so)) => Some(is_so),
            _ => None,
        }
    }
}

impl Shape<'_> for f64 {
    const WANTED: &'static str = "a number";

    fn read(document: Document<'_>, at: usize) -> Option<Self> {
        match document.node(at) {
            Node::Static(StaticNode::F64(number)) => Some(number),
            Node::Static(StaticNode::I64(number)) => Some(number as Self),
            Node::Static(StaticNode::U64(number)) => Some(number as Self),
            _ => None,
        }
    }
}

/// A count. Producers whose numbers are all floats write `3.0`: that is 3.
impl Shape<'_> for u64 {
    const WANTED: &'static str = "a whole number from 0";

    fn read(document: Document<'_>, at: usize) -> Option<Self> {
        match document.node(at) {
            Node::Static(StaticNode::F64(number)) => {
                let is_whole = number.fract() == 0.0 && (0.0..=FLOAT_EXACT_MAX).contains(&number);
                is_whole.then_some(number as Self)
            }
            Node::Static(StaticNode::I64(number)) => Self::try_from(number).ok(),
            Node::Static(StaticNode::U64(number)) => Some(number),
            _ => None,
        }
    }
}

/// Up to here a 64-bit float holds every whole number.
const FLOAT_EXACT_MAX: f64 = (1_u64 << 53) as f64;

/// What something is called: by number or by name.
#[derive(Clone, Copy, Debug)]
pub enum Id<'t> {
    /// An integer of 64 bits, signed or not.
    Integer(i128),
    /// At least one byte.
    Text(&'t str),
}

impl Id<'_> {
    /// As ids compare: 7 equals "7".
    pub fn text(&self) -> CompactString {
        match self {
            Self::Integer(id) => id.to_compact_string(),
            Self::Text(id) => CompactString::from(*id),
        }
    }
}

impl<'t> Shape<'t> for Id<'t> {
    const WANTED: &'static str = "an integer of 64 bits or a string that is not empty";

    fn read(document: Document<'t>, at: usize) -> Option<Self> {
        match document.node(at) {
            Node::Static(StaticNode::I64(id)) => Some(Self::Integer(id.into())),
            Node::Static(StaticNode::U64(id)) => Some(Self::Integer(id.into())),
            Node::String(id) if !id.is_empty() => Some(Self::Text(id)),
            _ => None,
        }
    }
}

/// Any value, as it was written.
#[derive(Clone, Copy)]
pub struct Json<'t> {
    document: Document<'t>,
    at: usize,
}

impl<'t> Json<'t> {
    /// Its text, without the white space around it.
    pub fn text(&self) -> &'t [u8] {
        self.document.text_of(self.at)
    }
}

impl fmt::Debug for Json<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(self.text()))
    }
}

impl<'t> Shape<'t> for Json<'t> {
    const WANTED: &'static str = "a value";

    fn read(document: Document<'t>, at: usize) -> Option<Self> {
        (!document.is_null(at)).then_some(Self { document, at })
    }
}

/// An object of the producer's own making.
#[derive(Clone, Copy, Debug)]
pub struct Object<'t>(pub Json<'t>);

impl<'t> Shape<'t> for Object<'t> {
    const WANTED: &'static str = "an object";

    fn read(document: Document<'t>, at: usize) -> Option<Self> {
        let json = Json { document, at };
        document.is_object(at).then_some(Self(json))
    }
}

/// A list of what the producer likes.
#[derive(Clone, Copy, Debug)]
pub struct List<'t>(pub Json<'t>);

impl<'t> Shape<'t> for List<'t> {
    const WANTED: &'static str = "an array";

    fn read(document: Document<'t>, at: usize) -> Option<Self> {
        let json = Json { document, at };
        document.is_array(at).then_some(Self(json))
    }
}

/// A list of strings.
#[derive(Clone, Copy)]
pub struct Texts<'t> {
    document: Document<'t>,
    at: usize,
}

impl<'t> Texts<'t> {
    /// The strings in it, in order; what is none is passed over.
    pub fn iter(&self) -> impl Iterator<Item = &'t str> {
        let document = self.document;
        let elements = document.elements(self.at);
        elements.filter_map(move |at| document.string(at))
    }
}

impl fmt::Debug for Texts<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<'t> Shape<'t> for Texts<'t> {
    const WANTED: &'static str = "an array of strings";

    fn read(document: Document<'t>, at: usize) -> Option<Self> {
        document.is_array(at).then_some(Self { document, at })
    }

    fn check(document: Document<'t>, at: usize) -> Result<(), Fault> {
        if !document.is_array(at) {
            return Err(Fault::mistyped(document, at, Self::WANTED));
        }
        for (index, at) in document.elements(at).enumerate() {
            <&str>::check(document, at).map_err(|fault| fault.inside(&format!("[{index}]")))?;
        }
        Ok(())
    }
}
