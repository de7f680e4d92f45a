//! Subscriptions by regular expression, which the group matches with the topics.
//!
//! Expressions have RE2's syntax and match whole names. What they match is kept in the log, and
//! found anew at the heartbeat after topics changed, but not twice in [`REFRESH_INTERVAL_MIN_MS`].

use std::collections::BTreeSet;

use regex::{Regex, RegexBuilder};

use super::consumer_group::{ConsumerGroup, Refusal};
use super::consumer_records::{Change, ResolvedRegex};
use super::context::Context;
use super::effects::CoordinatorRecord;
use crate::wire::error_code::ErrorCode;

/// Topics that come and go one by one are not followed one by one.
pub(super) const REFRESH_INTERVAL_MIN_MS: u64 = 10_000;

/// Memory of one compiled expression.
const COMPILED_BYTES_MAX: usize = 1024 * 1024;

/// Compiles an expression that is to match whole names.
///
/// # Errors
/// When it is not one, or needs too much memory.
pub(super) fn compile(expression: &str) -> Result<Regex, Refusal> {
    let refuse = |problem: regex::Error| {
        let message = match problem {
            regex::Error::CompiledTooBig(limit) => {
                format!("the compiled expression needs more than {limit} bytes")
            }
            // The last line says what is wrong, those before it show where.
            problem => {
                let text = problem.to_string();
                let last = text.lines().last().unwrap_or("");
                last.trim_start_matches("error: ").to_owned()
            }
        };
        Refusal::new(
            ErrorCode::InvalidRegularExpression,
            format!(
                "SubscribedTopicRegex `{expression}` is not a valid regular expression: {message}."
            ),
        )
    };
    let build = |pattern: &str| {
        RegexBuilder::new(pattern)
            .size_limit(COMPILED_BYTES_MAX)
            .dfa_size_limit(COMPILED_BYTES_MAX)
            .build()
    };
    let expression = without_quotes(expression);
    // Alone first: `a)(b` would be an expression only between the parentheses below.
    build(&expression).map_err(refuse)?;
    build(&format!(r"\A(?:{expression})\z")).map_err(refuse)
}

/// Escapes what stands between `\Q` and `\E`, which RE2 takes literally.
fn without_quotes(expression: &str) -> String {
    let mut plain = String::with_capacity(expression.len());
    let mut rest = expression;
    while let Some(at) = rest.find('\\') {
        let (before, escape) = rest.split_at(at);
        plain.push_str(before);
        if let Some(quoted) = escape.strip_prefix(r"\Q") {
            let (literal, after) = quoted.split_once(r"\E").unwrap_or((quoted, ""));
            plain.push_str(&regex::escape(literal));
            rest = after;
        } else {
            let length = escape.chars().take(2).map(char::len_utf8).sum();
            plain.push_str(&escape[..length]);
            rest = &escape[length..];
        }
    }
    plain.push_str(rest);
    plain
}

impl ConsumerGroup {
    /// Matches expressions that are new, and all of them when it is time to; says whether they match
    /// other topics than before.
    pub(super) fn match_regexes(
        &mut self,
        context: &Context<'_>,
        records: &mut Vec<CoordinatorRecord>,
    ) -> bool {
        let all = self.is_match_due(context);
        let is_due = |expression: &&String| all || !self.regexes.contains_key(*expression);
        let expressions: Vec<String> = self.census.regexes().filter(is_due).cloned().collect();
        if expressions.is_empty() {
            return false;
        }
        if all {
            self.regexes_matched = Some((context.now_ms, context.topics.version()));
        }
        let names = context.topics.names();
        let mut changed = false;
        for expression in expressions {
            let before = self.regexes.get(&expression).map(|before| &before.topics);
            let topics = matching(&expression, &names);
            if before == Some(&topics) {
                continue;
            }
            changed = true;
            let resolved = ResolvedRegex {
                topics,
                version: context.topics.version(),
                at_ms: context.wall_ms,
            };
            self.commit(Change::Regex(expression, Some(resolved)), records);
        }
        changed
    }

    fn is_match_due(&self, context: &Context<'_>) -> bool {
        let Some((at_ms, version)) = self.regexes_matched else {
            return true;
        };
        let age_ms = context.now_ms.saturating_sub(at_ms);
        let interval_ms = context.groups.consumer_regex_refresh_interval_ms;
        age_ms > interval_ms
            || (version != context.topics.version() && age_ms > REFRESH_INTERVAL_MIN_MS)
    }
}

/// An expression that another version accepted and this one does not matches nothing.
fn matching(expression: &str, names: &[String]) -> BTreeSet<String> {
    let Ok(regex) = compile(expression) else {
        return BTreeSet::new();
    };
    let matches = names.iter().filter(|name| regex.is_match(name));
    matches.cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(expression: &str, name: &str) -> bool {
        compile(expression).expect(expression).is_match(name)
    }

    #[test]
    fn expressions_match_whole_names() {
        assert!(matches("a|ab", "ab") && !matches("a|ab", "abc"));
        assert!(matches("logs-.*", "logs-1") && !matches("logs-.*", "old-logs-1"));
        assert!(matches("(?i)ORDERS", "orders"));
        assert!(matches(r"\Qa.b\E.", "a.bc") && !matches(r"\Qa.b\E.", "axbc"));
        assert!(matches(r"\Qa.b", "a.b") && matches(r"a\\Q?", r"a\Q"));
        assert!(matches("[[:alpha:]]+", "abc") && matches(r"\p{L}+", "abc"));
    }

    #[test]
    fn what_is_no_expression_is_refused() {
        for expression in ["(", "a)(b", "[", "*", r"\", "(?=a)", r"(\w{200}){200}"] {
            let refusal = compile(expression).expect_err(expression);
            assert_eq!(refusal.code, ErrorCode::InvalidRegularExpression);
            assert!(refusal.message.contains(expression), "{}", refusal.message);
        }
    }
}
