//! What a misspelt name may have meant.

/// The candidate nearest to `written`, where one is near enough to be meant: at most a third of
/// its letters differ.
pub(super) fn nearest<'a>(
    written: &str,
    candidates: impl Iterator<Item = &'a str>,
) -> Option<&'a str> {
    candidates
        .filter_map(|candidate| Some((distance(written, candidate)?, candidate)))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Edits between two names, where they are few enough. Names that differ in length by more than
/// that are not compared: a file may hold thousands that are wrong.
fn distance(written: &str, candidate: &str) -> Option<usize> {
    let edits_max = (candidate.len() / 3).max(1);
    let length = written
        .chars()
        .take(candidate.len() + edits_max + 1)
        .count();
    let is_near = length.abs_diff(candidate.len()) <= edits_max;
    let edits = is_near.then(|| strsim::osa_distance(written, candidate))?;
    (edits <= edits_max).then_some(edits)
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
