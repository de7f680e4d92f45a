//! DescribeLogDirs, versions 1 to 5 (KIP-113, KIP-827 sizes from 4, KIP-1066 cordons in 5).
//!
//! Every data directory with the logs in it and their true sizes. A directory that failed answers
//! KAFKA_STORAGE_ERROR without logs. No topics are all of them when null; topics that are not there
//! are left out. Nothing lags, moves or is cordoned.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::call::{Call, Handled, check_count};
use super::dispatch::Api;
use crate::cluster::image::MetadataImage;
use crate::shard::request::DirectoryState;
use crate::shard::request::LogUsage;
use crate::wire::codec::Uuid;
use crate::wire::error_code::ErrorCode;
use crate::wire::messages::describe_log_dirs::{
    DescribeLogDirsPartition, DescribeLogDirsRequest, DescribeLogDirsResponse,
    DescribeLogDirsResult, DescribeLogDirsTopic,
};

/// Answers a DescribeLogDirs.
pub(super) async fn handle(api: Rc<Api>, call: Call) -> Handled {
    let request: DescribeLogDirsRequest<'_> = call.request()?;
    let config = api.router.config();
    let named = request.topics.as_deref().unwrap_or_default();
    let count = named.iter().map(|topic| topic.partitions.len().max(1));
    check_count(count.sum(), config.limits.request_partitions_max)?;
    let directories = api.router.data_directories().await;
    let usage = api.router.log_usage().await;
    let image = api.router.image();
    let asked = request.topics.as_ref().map(|topics| {
        let partitions = topics.iter().flat_map(|topic| {
            let partitions = topic.partitions.iter();
            partitions.map(|partition| (topic.topic.as_ref(), *partition))
        });
        partitions.collect()
    });
    Ok(call.reply(&DescribeLogDirsResponse {
        results: results(&image, &directories, &usage, asked.as_ref()),
        ..DescribeLogDirsResponse::default()
    }))
}

fn results<'a>(
    image: &'a MetadataImage,
    directories: &'a [DirectoryState],
    usage: &[LogUsage],
    asked: Option<&BTreeSet<(&str, i32)>>,
) -> Vec<DescribeLogDirsResult<'a>> {
    let mut topics: Vec<BTreeMap<&str, Vec<DescribeLogDirsPartition>>> =
        directories.iter().map(|_| BTreeMap::new()).collect();
    for log in usage {
        let topic = image.topic_by_id(Uuid(log.log.topic));
        let (Some(topic), Some(topics)) = (topic, topics.get_mut(log.directory)) else {
            // Deleted while we asked.
            continue;
        };
        let partition_index = i32::try_from(log.log.partition).unwrap_or(i32::MAX);
        if asked.is_some_and(|asked| !asked.contains(&(&*topic.name, partition_index))) {
            continue;
        }
        let partitions = topics.entry(&topic.name).or_default();
        partitions.push(DescribeLogDirsPartition {
            partition_index,
            partition_size: i64::try_from(log.size_bytes).unwrap_or(i64::MAX),
            offset_lag: 0,
            is_future_key: false,
        });
    }
    let directories = directories.iter().zip(topics);
    let results = directories.map(|(directory, topics)| result(directory, topics));
    results.collect()
}

fn result<'a>(
    directory: &'a DirectoryState,
    topics: BTreeMap<&'a str, Vec<DescribeLogDirsPartition>>,
) -> DescribeLogDirsResult<'a> {
    if directory.offline {
        return DescribeLogDirsResult {
            error_code: ErrorCode::KafkaStorageError.code(),
            log_dir: Cow::Borrowed(&directory.path),
            ..DescribeLogDirsResult::default()
        };
    }
    let topics = topics.into_iter().map(|(name, mut partitions)| {
        partitions.sort_by_key(|partition| partition.partition_index);
        DescribeLogDirsTopic {
            name: Cow::Borrowed(name),
            partitions,
        }
    });
    DescribeLogDirsResult {
        error_code: ErrorCode::None.code(),
        log_dir: Cow::Borrowed(&directory.path),
        topics: topics.collect(),
        total_bytes: directory.total_bytes,
        usable_bytes: directory.usable_bytes,
        is_cordoned: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::image::PartitionImage;
    use crate::cluster::record::MetadataRecord;
    use crate::shard::request::log_of;

    #[test]
    fn logs_are_listed_by_directory_topic_and_partition() {
        let mut image = MetadataImage::empty("c", 1);
        let partition = PartitionImage {
            leader: 1,
            leader_epoch: 0,
            ..PartitionImage::new(vec![1])
        };
        image.apply(&MetadataRecord::TopicCreated {
            name: "t".to_string(),
            id: Uuid([1; 16]),
            partitions: vec![partition; 3],
            configs: BTreeMap::new(),
        });
        let directory = |path: &str, offline| DirectoryState {
            path: path.to_string(),
            total_bytes: 100,
            usable_bytes: 50,
            offline,
        };
        let directories = [directory("/a", false), directory("/b", true)];
        let topic = image.topic("t").unwrap();
        let usage: Vec<LogUsage> = [(2, 0), (0, 0), (1, 1)]
            .map(|(partition, directory)| LogUsage {
                log: log_of(topic, partition).unwrap(),
                directory,
                size_bytes: 10,
            })
            .to_vec();
        let all = results(&image, &directories, &usage, None);
        let numbers = |result: &DescribeLogDirsResult<'_>| -> Vec<i32> {
            let partitions = result.topics.iter().flat_map(|topic| &topic.partitions);
            partitions
                .map(|partition| partition.partition_index)
                .collect()
        };
        assert_eq!(numbers(&all[0]), [0, 2]);
        assert_eq!((all[0].total_bytes, all[0].usable_bytes), (100, 50));
        assert_eq!((all[1].error_code, all[1].topics.len()), (56, 0));
        let asked = BTreeSet::from([("t", 2), ("x", 0)]);
        assert_eq!(
            numbers(&results(&image, &directories, &usage, Some(&asked))[0]),
            [2]
        );
        assert!(
            results(&image, &directories, &usage, Some(&BTreeSet::new()))[0]
                .topics
                .is_empty()
        );
    }
}
