//! What a misspelt name may have meant.

/// The candidate nearest to `written`, where one is near enough to be meant: at most a third of
/// its letters differ.
pub(super) fn nearest<'a>(
    written: &str,
    candidates: impl Iterator<Item = &'a str>,
) -> Option<&'a str> {
    candidates
        .map(|candidate| (distance(written, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= (candidate.len() / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Edits between two names. Long input is cut: no name is near to it anyway.
fn distance(written: &str, candidate: &str) -> usize {
    let written: String = written.chars().take(100).collect();
    strsim::osa_distance(&written, candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_near_is_suggested() {
        let check = |written: &str, expected: Option<&str>| {
            let names = ["listen", "cores", "limits.connections_max"];
            assert_eq!(nearest(written, names.into_iter()), expected, "{written}");
        };
        check("lisen", Some("listen"));
        check("coers", Some("cores"));
        check("limits.conections_max", Some("limits.connections_max"));
        check("port", None);
        check("", None);
        check(&"x".repeat(1_000_000), None);
    }
}
