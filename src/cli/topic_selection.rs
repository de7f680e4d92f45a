//! `TOPIC` or `TOPIC:0,2`: partitions as users name them.

use std::collections::BTreeSet;

/// A topic, and which of its partitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TopicSelection {
    /// Its name.
    pub(crate) topic: String,
    /// None for all.
    pub(crate) partitions: Option<BTreeSet<i32>>,
}

impl TopicSelection {
    /// Understands `text`. A topic's name has no colon.
    pub(crate) fn parse(text: &str) -> Result<TopicSelection, String> {
        let wrong = || "takes TOPIC or TOPIC:PARTITION,PARTITION".to_owned();
        let (topic, partitions) = match text.split_once(':') {
            None => (text, None),
            Some((topic, list)) => {
                let number = |text: &str| {
                    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
                    let number = is_number.then(|| text.parse::<i32>().ok());
                    number.flatten().ok_or_else(wrong)
                };
                let partitions = list.split(',').map(number);
                (topic, Some(partitions.collect::<Result<_, _>>()?))
            }
        };
        if topic.is_empty() {
            return Err(wrong());
        }
        Ok(TopicSelection {
            topic: topic.to_owned(),
            partitions,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_alone_means_all_its_partitions() {
        let all = TopicSelection::parse("orders").expect("a topic");
        assert_eq!((all.topic.as_str(), all.partitions), ("orders", None));
        let some = TopicSelection::parse("orders:2,0,2").expect("a topic");
        assert_eq!(some.partitions, Some(BTreeSet::from([0, 2])));
    }

    #[test]
    fn what_is_no_partition_is_refused() {
        for text in ["", ":1", "a:", "a:x", "a:1,", "a:-1", "a:1:2", "a:+1"] {
            assert!(TopicSelection::parse(text).is_err(), "{text}");
        }
    }
}
