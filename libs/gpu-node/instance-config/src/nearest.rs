//! Did you mean …?

/// The candidate that a mistyped word most likely meant, if one is close enough to be worth saying.
pub(crate) fn nearest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let allowed = (word.chars().count() / 3).clamp(1, 4);
    let distance = |candidate: &&'a str| strsim::damerau_levenshtein(word, candidate);
    candidates
        .map(|candidate| (distance(&candidate), candidate))
        .filter(|(far, _)| *far <= allowed)
        .min()
        .map(|(_, c)| c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_is_recognised_and_a_stranger_is_not() {
        let known = ["context_size", "batch_size", "threads"];
        assert_eq!(nearest("contextsize", known.into_iter()), Some("context_size"));
        assert_eq!(nearest("thraeds", known.into_iter()), Some("threads"));
        assert_eq!(nearest("colour", known.into_iter()), None);
    }
}
