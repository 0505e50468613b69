//! When an event counts as durable.

/// What an acknowledgement as durable means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// On disk: it survives the loss of power.
    Fsync,
    /// Nothing: it is about to be written.
    None,
    /// With the operating system: it survives the end of the process.
    Write,
}

impl Durability {
    /// All, for reading.
    pub const ALL: [Self; 3] = [Self::Fsync, Self::None, Self::Write];

    /// The name used in configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fsync => "fsync",
            Self::None => "none",
            Self::Write => "write",
        }
    }
}
