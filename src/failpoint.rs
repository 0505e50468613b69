//! Faults on demand, so that tests can show what a fault does: a peer's bytes that hold
//! `failpoint:PLACE` set off the fault of that place where they are read. Only with the feature
//! `failpoints`, which no release has; without it nothing here does anything.

/// Panics where `bytes` ask for the fault of `place`. The panic's text holds them, as the text of
/// a slice out of bounds may.
#[cfg(feature = "failpoints")]
pub fn panic_at(place: &str, bytes: &[u8]) {
    if is_asked_for(place, bytes) {
        panic!("failed on {}", String::from_utf8_lossy(bytes));
    }
}

/// Holds the thread up for [`STALL`] where `bytes` ask for the fault of `place`.
#[cfg(feature = "failpoints")]
pub fn stall_at(place: &str, bytes: &[u8]) {
    if is_asked_for(place, bytes) {
        std::thread::sleep(STALL);
    }
}

#[cfg(feature = "failpoints")]
fn is_asked_for(place: &str, bytes: &[u8]) -> bool {
    let mark = format!("failpoint:{place}");
    memchr::memmem::find(bytes, mark.as_bytes()).is_some()
}

/// Longer than a core may take for a turn without being said to have stopped.
#[cfg(feature = "failpoints")]
pub const STALL: std::time::Duration = std::time::Duration::from_millis(2_500);

/// Does nothing without the feature `failpoints`.
#[cfg(not(feature = "failpoints"))]
pub fn panic_at(_: &str, _: &[u8]) {}

/// Does nothing without the feature `failpoints`.
#[cfg(not(feature = "failpoints"))]
pub fn stall_at(_: &str, _: &[u8]) {}
