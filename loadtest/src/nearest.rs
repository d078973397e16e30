//! The right name that somebody may have meant.

/// Edits up to which a name is taken for a misspelt one.
const MOST_TYPOS: usize = 3;

/// The one of `names` that is spelt most like `wrong`; if none is, one that begins like it.
pub(crate) fn nearest<'a>(wrong: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let names: Vec<&str> = names.collect();
    let edits = |name: &&str| strsim::damerau_levenshtein(wrong, name);
    let closest = names.iter().copied().min_by_key(edits)?;
    if edits(&closest) <= MOST_TYPOS {
        return Some(closest);
    }
    // Not a slip of the finger: this measure favours a common beginning.
    let alike = |name: &&str| strsim::jaro_winkler(wrong, name);
    names.into_iter().max_by(|a, b| alike(a).total_cmp(&alike(b)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_and_beginnings_lead_to_the_name() {
        let names = || ["lost", "connected", "gateway_bytes_per_session"].into_iter();
        assert_eq!(nearest("los", names()), Some("lost"));
        assert_eq!(nearest("conected", names()), Some("connected"));
        assert_eq!(nearest("gateway", names()), Some("gateway_bytes_per_session"));
        assert_eq!(nearest("x", [].into_iter()), None);
    }
}
