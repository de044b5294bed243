//! Patterns in which `*` stands for any text, also none: of tags, in settings and in lifecycle policies.

/// Whether a text is one of those that a pattern means. A pattern without `*` means itself.
///
/// The cost is at most the product of both lengths: nothing is tried twice.
pub(crate) fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| text.strip_prefix(first)) else { return false };
    // Without a `*` the whole text must be used up; with one, the last part must come last.
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        // The leftmost place leaves the most for the others.
        let Some((_, behind)) = rest.split_once(part) else { return false };
        rest = behind;
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn a_star_stands_for_any_text_and_for_none() {
        for (pattern, text, expected) in [
            ("prod", "prod", true),
            ("prod", "prod1", false),
            ("prod*", "prod", true),
            ("prod*", "production-team1", true),
            ("prod*", "reprod", false),
            ("*prod*", "repo-production", true),
            ("*", "", true),
            ("**", "a", true),
            ("", "", true),
            ("", "a", false),
            ("a*a", "a", false),
            ("a*a", "aa", true),
            ("a*b*c", "axxbxxc", true),
            ("a*b*c", "acb", false),
            ("*test*1*2*3", "my-test-1.2.3", true),
            ("*test*1*2*3", "my-test-1.3.2", false),
            ("*ab", "aab", true),
            ("é*", "été", true),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern:?} of {text:?}");
        }
    }
}
