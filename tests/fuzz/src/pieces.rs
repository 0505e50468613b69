//! Input in pieces, as a network brings it.

use fastrand::Rng;

/// Cuts `input` into pieces. Where, follows from its bytes, so that the input alone repeats a run.
pub fn pieces(input: &[u8]) -> Vec<&[u8]> {
    let mut rng = rng_of(input);
    let piece_bytes_max = [1, 3, 16, input.len().max(1)][rng.usize(..4)];
    let mut rest = input;
    let mut pieces = Vec::new();
    while !rest.is_empty() {
        let (piece, following) = rest.split_at(rng.usize(1..=piece_bytes_max.min(rest.len())));
        pieces.push(piece);
        rest = following;
    }
    pieces
}

/// Dice that fall the same way whenever this input is run.
pub fn rng_of(input: &[u8]) -> Rng {
    // FNV-1a.
    let hash = input.iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    Rng::with_seed(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_the_input_and_cut_the_same_way_again() {
        let mut counts = Vec::new();
        for length in 0..200 {
            let input: Vec<u8> = (0..length).collect();
            let pieces = pieces(&input);
            assert_eq!(pieces.concat(), input);
            assert_eq!(pieces, super::pieces(&input));
            counts.push(pieces.len());
        }
        assert!(counts.contains(&1) && counts.iter().any(|count| *count > 20));
    }
}
