//! Subjects: dot-separated names of topics, and patterns over them.
//!
//! `*` stands for one token, `>` for one or more at the end. A topic's own name has neither, and no empty token.

/// Whether messages can be published under this name.
#[must_use]
pub fn is_topic(name: &str) -> bool {
    name.split('.').all(|token| !token.is_empty() && !token.contains(['*', '>']))
}

/// Whether this is the name of a topic, or a pattern over names.
#[must_use]
pub fn is_subject(subject: &str) -> bool {
    let mut tokens = subject.split('.').peekable();
    while let Some(token) = tokens.next() {
        let whole = match token {
            "*" => true,
            ">" => tokens.peek().is_none(),
            _ => is_topic(token),
        };
        if !whole {
            return false;
        }
    }
    true
}

/// Whether a subject has wildcards.
#[must_use]
pub fn is_pattern(subject: &str) -> bool {
    subject.split('.').any(|token| matches!(token, "*" | ">"))
}

/// Whether a subject, with wildcards or without, covers this topic.
#[must_use]
pub fn covers(subject: &str, topic: &str) -> bool {
    let (mut wanted, mut actual) = (subject.split('.'), topic.split('.'));
    loop {
        match (wanted.next(), actual.next()) {
            (None, None) | (Some(">"), Some(_)) => return true,
            (Some("*"), Some(_)) => {}
            (Some(token), Some(other)) if token == other => {}
            _ => return false,
        }
    }
}

/// What all names that a pattern covers begin with.
pub(super) fn stem(pattern: &str) -> &str {
    let first = pattern.find(['*', '>']).unwrap_or(pattern.len());
    &pattern[..first]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_patterns() {
        for name in ["a", "orders.paid", "ä.ö", "a b.c/d"] {
            assert!(is_topic(name) && is_subject(name) && !is_pattern(name), "{name}");
        }
        for pattern in ["*", ">", "orders.*", "orders.>", "*.paid", "a.*.>"] {
            assert!(!is_topic(pattern) && is_subject(pattern) && is_pattern(pattern), "{pattern}");
        }
        for nothing in ["", ".", "a.", ".a", "a..b", "a*", "a.b>", ">.a", "a.>.b", "**"] {
            assert!(!is_topic(nothing) && !is_subject(nothing), "{nothing}");
        }
    }

    #[test]
    fn what_covers_what() {
        let covered = [
            ("a", "a"),
            ("*", "a"),
            (">", "a"),
            (">", "a.b.c"),
            ("a.*", "a.b"),
            ("a.>", "a.b"),
            ("a.>", "a.b.c"),
            ("*.b", "a.b"),
            ("a.*.c", "a.b.c"),
        ];
        for (subject, topic) in covered {
            assert!(covers(subject, topic), "{subject} {topic}");
            assert!(topic.starts_with(stem(subject)));
        }
        for (subject, topic) in [
            ("a", "b"),
            ("a", "a.b"),
            ("a.b", "a"),
            ("*", "a.b"),
            ("a.>", "a"),
            ("a.*", "a.b.c"),
            ("a.*", "ab.c"),
        ] {
            assert!(!covers(subject, topic), "{subject} {topic}");
        }
        assert_eq!((stem("a.*.c"), stem(">"), stem("a.b")), ("a.", "", "a.b"));
    }
}
