//! Growth that keeps to a bound: memory follows what has arrived, never what was announced.

/// Appends `bytes` to `out`. The capacity doubles like any vector's but stops at `bytes_max`.
/// The caller has checked that `out` and `bytes` together hold at most `bytes_max`.
pub(super) fn append_bounded(out: &mut Vec<u8>, bytes: &[u8], bytes_max: usize) {
    let needed = out.len() + bytes.len();
    debug_assert!(needed <= bytes_max, "the caller checks the bound first");
    if needed > out.capacity() {
        let target = (out.capacity() * 2).clamp(needed, bytes_max.max(needed));
        out.reserve_exact(target - out.len());
    }
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::append_bounded;

    #[test]
    fn the_capacity_follows_what_arrived_and_stops_at_the_bound() {
        let mut out = Vec::new();
        append_bounded(&mut out, b"a", 1 << 20);
        assert!(out.capacity() <= 16);
        let chunk = [b'x'; 1000];
        while out.len() + chunk.len() <= 10_000 {
            append_bounded(&mut out, &chunk, 10_000);
        }
        assert!(out.capacity() <= 10_000, "{}", out.capacity());
        assert_eq!(out.len(), 9_001);
    }
}
