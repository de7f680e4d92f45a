//! What a topic may be called, and which names are the broker's own.

/// Longest name in bytes: `<name>-<partition>` must be a file's name.
pub const NAME_BYTES_MAX: usize = 249;
/// Holds the metadata of Kafka's own controllers; here it does not exist as a topic.
pub const CLUSTER_METADATA: &str = "__cluster_metadata";
/// Holds what consumer groups committed.
pub const CONSUMER_OFFSETS: &str = "__consumer_offsets";
/// Holds the state of transactions.
pub const TRANSACTION_STATE: &str = "__transaction_state";
/// Holds the state of share groups.
pub const SHARE_GROUP_STATE: &str = "__share_group_state";

/// Whether brokers write this topic and clients only read it.
#[must_use]
pub fn is_internal(name: &str) -> bool {
    [CONSUMER_OFFSETS, TRANSACTION_STATE, SHARE_GROUP_STATE].contains(&name)
}

/// Checks a name by Kafka's rules.
///
/// # Errors
/// What is wrong, in Kafka's words.
pub fn check(name: &str) -> Result<(), String> {
    let is_legal = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let problem = if name.is_empty() {
        "the empty string is not allowed".to_string()
    } else if name == "." || name == ".." {
        format!("'{name}' is not allowed")
    } else if name.len() > NAME_BYTES_MAX {
        let shown = &name[..name.floor_char_boundary(NAME_BYTES_MAX)];
        format!("the length of '{shown}...' is longer than the max allowed length {NAME_BYTES_MAX}")
    } else if !name.bytes().all(is_legal) {
        format!(
            "'{name}' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'"
        )
    } else {
        return Ok(());
    };
    Err(format!("Topic name is invalid: {problem}"))
}

/// Whether the name has one of the characters that metrics do not tell apart.
#[must_use]
pub fn has_collision_character(name: &str) -> bool {
    name.contains(['.', '_'])
}

/// The name with characters that metrics do not tell apart made equal.
#[must_use]
pub fn unified(name: &str) -> String {
    name.replace('.', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_kafkas_rules() {
        for good in ["a", "A-z_0.9", "...", &"x".repeat(249)] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for (bad, why) in [
            ("", "empty string"),
            (".", "'.' is not allowed"),
            ("..", "'..' is not allowed"),
            ("a b", "characters other than"),
            ("\u{e9}", "characters other than"),
            (&"x".repeat(250), "max allowed length 249"),
            (&"\u{e9}".repeat(200), "max allowed length 249"),
        ] {
            assert!(check(bad).unwrap_err().contains(why), "{bad}");
        }
    }

    #[test]
    fn dots_and_underscores_collide() {
        assert_eq!(unified("a.b_c"), unified("a_b.c"));
        assert!(has_collision_character("a.b") && !has_collision_character("a-b"));
        assert!(is_internal("__consumer_offsets") && !is_internal("__mine"));
    }
}
