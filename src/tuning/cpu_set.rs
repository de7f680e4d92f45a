//! Sets of CPUs as the kernel writes them: lists (`0-3,8`) and masks (`ff,00000001`).

use std::collections::BTreeSet;

/// A CPU's number lies below this; what names more is no list of CPUs.
const CPUS_MAX: usize = 8192;

/// Parses a list; an empty text is an empty set.
#[must_use]
pub fn parse_list(text: &str) -> Option<BTreeSet<usize>> {
    let mut cpus = BTreeSet::new();
    if text.is_empty() {
        return Some(cpus);
    }
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (number(first)?, number(last)?);
        if first > last {
            return None;
        }
        cpus.extend(first..=last);
    }
    Some(cpus)
}

fn number(text: &str) -> Option<usize> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = digits.then(|| text.parse().ok())??;
    (number < CPUS_MAX).then_some(number)
}

/// Writes a list.
#[must_use]
pub fn format_list(cpus: &BTreeSet<usize>) -> String {
    let mut parts = Vec::new();
    let mut rest = cpus.iter().copied().peekable();
    while let Some(first) = rest.next() {
        let mut last = first;
        while rest.peek() == Some(&(last + 1)) {
            last += 1;
            rest.next();
        }
        parts.push(match first == last {
            true => first.to_string(),
            false => format!("{first}-{last}"),
        });
    }
    parts.join(",")
}

/// Parses a mask: groups of up to eight hexadecimal digits, the highest first.
#[must_use]
pub fn parse_mask(text: &str) -> Option<BTreeSet<usize>> {
    let words: Vec<&str> = text.split(',').collect();
    if words.len() > CPUS_MAX / 32 {
        return None;
    }
    let mut cpus = BTreeSet::new();
    for (at, word) in words.iter().rev().enumerate() {
        let is_word = (1..=8).contains(&word.len());
        let bits = u32::from_str_radix(word, 16).ok();
        let bits = bits.filter(|_| is_word && !word.starts_with('+'))?;
        let set = (0..32).filter(|bit| bits & (1 << bit) != 0);
        cpus.extend(set.map(|bit| at * 32 + bit));
    }
    Some(cpus)
}

/// Writes a mask, without leading zeroes.
#[must_use]
pub fn format_mask(cpus: &BTreeSet<usize>) -> String {
    let top = cpus.last().map_or(0, |cpu| cpu / 32);
    let mut words = vec![0_u32; top + 1];
    for cpu in cpus {
        words[top - cpu / 32] |= 1 << (cpu % 32);
    }
    let mut text = format!("{:x}", words[0]);
    for word in &words[1..] {
        text.push_str(&format!(",{word:08x}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(cpus: &[usize]) -> BTreeSet<usize> {
        cpus.iter().copied().collect()
    }

    #[test]
    fn lists() {
        for (text, cpus) in [
            ("", &[][..]),
            ("0", &[0]),
            ("0-3", &[0, 1, 2, 3]),
            ("0-1,8,10-11", &[0, 1, 8, 10, 11]),
        ] {
            assert_eq!(parse_list(text), Some(set(cpus)), "{text}");
            assert_eq!(format_list(&set(cpus)), text);
        }
        for bad in [
            "x",
            "1-",
            "-1",
            "3-1",
            "0,,1",
            "0-8192",
            "0:2",
            "+1",
            "0-99999999999",
        ] {
            assert_eq!(parse_list(bad), None, "{bad}");
        }
    }

    #[test]
    fn masks() {
        assert_eq!(parse_mask("00000000,00000003"), Some(set(&[0, 1])));
        assert_eq!(parse_mask("1,80000000"), Some(set(&[31, 32])));
        assert_eq!(parse_mask("0"), Some(set(&[])));
        for cpus in [&[][..], &[0], &[31, 32], &[5, 100]] {
            let text = format_mask(&set(cpus));
            assert_eq!(parse_mask(&text), Some(set(cpus)), "{text}");
        }
        assert_eq!(format_mask(&set(&[32])), "1,00000000");
        for bad in [
            "",
            "g",
            "0x1",
            "123456789",
            "+1",
            "1,",
            ",".repeat(300).as_str(),
        ] {
            assert_eq!(parse_mask(bad), None, "{bad}");
        }
    }
}
