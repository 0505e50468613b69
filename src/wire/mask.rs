//! The client's masking key, taken off in place. Source: RFC 6455 §5.3.

/// Unmasks `payload` in place; masks it just as well. `offset` is the place of its first byte in
/// the frame's payload, for frames that arrive in parts.
pub fn unmask(payload: &mut [u8], key: [u8; 4], offset: usize) {
    let key = rotated(key, offset);
    // Two keys side by side: eight bytes are one exclusive or, which the compiler widens further.
    let word = u64::from_ne_bytes([
        key[0], key[1], key[2], key[3], key[0], key[1], key[2], key[3],
    ]);
    let (words, tail) = payload.as_chunks_mut::<8>();
    for bytes in words {
        *bytes = (u64::from_ne_bytes(*bytes) ^ word).to_ne_bytes();
    }
    for (byte, mask) in tail.iter_mut().zip(key.iter().cycle()) {
        *byte ^= mask;
    }
}

/// The key as it stands at `offset`.
fn rotated(mut key: [u8; 4], offset: usize) -> [u8; 4] {
    key.rotate_left(offset % 4);
    key
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::unmask;

    fn unmask_naive(payload: &mut [u8], key: [u8; 4], offset: usize) {
        for (position, byte) in payload.iter_mut().enumerate() {
            *byte ^= key[(position + offset) % 4];
        }
    }

    proptest! {
        #[test]
        fn equals_the_naive_one(
            payload in proptest::collection::vec(any::<u8>(), 0..200),
            key: [u8; 4],
            offset in 0usize..1_000,
            skip in 0usize..9,
        ) {
            let skip = skip.min(payload.len());
            let (mut fast, mut naive) = (payload.clone(), payload);
            unmask(&mut fast[skip..], key, offset);
            unmask_naive(&mut naive[skip..], key, offset);
            prop_assert_eq!(fast, naive);
        }

        #[test]
        fn parts_equal_the_whole(
            payload in proptest::collection::vec(any::<u8>(), 0..200),
            key: [u8; 4],
            cut in 0usize..200,
        ) {
            let cut = cut.min(payload.len());
            let (mut whole, mut parts) = (payload.clone(), payload);
            unmask(&mut whole, key, 0);
            let (front, back) = parts.split_at_mut(cut);
            unmask(front, key, 0);
            unmask(back, key, cut);
            prop_assert_eq!(parts, whole);
        }
    }
}
