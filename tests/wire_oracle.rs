//! The messages against another implementation: what we write the `kafka-protocol` crate reads, and
//! what it writes again we read as the same value.
//!
//! That crate is at Kafka 4.1. What it lacks is named by `what_the_oracle_lacks` and makes the way
//! through our own codec only; Kafka's own classes read all of it in `clients/WireVectors.java`.

#[macro_use]
mod samples;

use std::collections::BTreeMap;
use std::fmt::{Debug, Write};
use std::ops::RangeInclusive;

use kafka_protocol::protocol::{Decodable, Encodable};
use percolog::wire::codec::Writer;
use percolog::wire::message::Message;
use samples::{Flavour, Sample, Source};

const RANDOM_SEEDS: u64 = 300;
/// Values of each message and version that Kafka itself is asked to read.
const VECTORS: usize = 24;

/// Messages that the oracle does not have at all: streams groups (new in 4.2), and the records of
/// the coordinators' and the quorum's own logs.
const MESSAGES_LACKING: &[&str] = &[
    "StreamsGroupHeartbeatRequest",
    "StreamsGroupHeartbeatResponse",
    "StreamsGroupDescribeRequest",
    "StreamsGroupDescribeResponse",
    "ConsumerGroupCurrentMemberAssignmentKey",
    "ConsumerGroupCurrentMemberAssignmentValue",
    "ConsumerGroupMemberMetadataKey",
    "ConsumerGroupMemberMetadataValue",
    "ConsumerGroupMetadataKey",
    "ConsumerGroupMetadataValue",
    "ConsumerGroupPartitionMetadataKey",
    "ConsumerGroupPartitionMetadataValue",
    "ConsumerGroupRegularExpressionKey",
    "ConsumerGroupRegularExpressionValue",
    "ConsumerGroupTargetAssignmentMemberKey",
    "ConsumerGroupTargetAssignmentMemberValue",
    "ConsumerGroupTargetAssignmentMetadataKey",
    "ConsumerGroupTargetAssignmentMetadataValue",
    "ControlRecordTypeSchema",
    "GroupMetadataKey",
    "GroupMetadataValue",
    "LegacyOffsetCommitKey",
    "LegacyOffsetCommitValue",
    "OffsetCommitKey",
    "OffsetCommitValue",
    "QuorumStateData",
    "ShareGroupCurrentMemberAssignmentKey",
    "ShareGroupCurrentMemberAssignmentValue",
    "ShareGroupMemberMetadataKey",
    "ShareGroupMemberMetadataValue",
    "ShareGroupMetadataKey",
    "ShareGroupMetadataValue",
    "ShareGroupStatePartitionMetadataKey",
    "ShareGroupStatePartitionMetadataValue",
    "ShareGroupTargetAssignmentMemberKey",
    "ShareGroupTargetAssignmentMemberValue",
    "ShareGroupTargetAssignmentMetadataKey",
    "ShareGroupTargetAssignmentMetadataValue",
    "ShareSnapshotKey",
    "ShareSnapshotValue",
    "ShareUpdateKey",
    "ShareUpdateValue",
    "StreamsGroupCurrentMemberAssignmentKey",
    "StreamsGroupCurrentMemberAssignmentValue",
    "StreamsGroupMemberMetadataKey",
    "StreamsGroupMemberMetadataValue",
    "StreamsGroupMetadataKey",
    "StreamsGroupMetadataValue",
    "StreamsGroupTargetAssignmentMemberKey",
    "StreamsGroupTargetAssignmentMemberValue",
    "StreamsGroupTargetAssignmentMetadataKey",
    "StreamsGroupTargetAssignmentMetadataValue",
    "StreamsGroupTopologyKey",
    "StreamsGroupTopologyValue",
    "TransactionLogKey",
    "TransactionLogValue",
];

/// Versions that are newer than the oracle.
const VERSIONS_LACKING: &[(&str, RangeInclusive<i16>)] = &[
    ("AddRaftVoterRequest", 1..=1),
    ("AddRaftVoterResponse", 1..=1),
    ("BrokerHeartbeatRequest", 2..=2),
    ("BrokerHeartbeatResponse", 2..=2),
    ("DescribeLogDirsRequest", 5..=5),
    ("DescribeLogDirsResponse", 5..=5),
    ("DescribeShareGroupOffsetsRequest", 1..=1),
    ("DescribeShareGroupOffsetsResponse", 1..=1),
    ("InitProducerIdRequest", 6..=6),
    ("ListOffsetsRequest", 11..=11),
    ("ListOffsetsResponse", 11..=11),
    ("OffsetCommitRequest", 10..=10),
    ("OffsetFetchRequest", 10..=10),
    ("ReadShareGroupStateSummaryRequest", 1..=1),
    ("ReadShareGroupStateSummaryResponse", 1..=1),
    ("ShareAcknowledgeRequest", 2..=2),
    ("ShareAcknowledgeResponse", 2..=2),
    ("ShareFetchRequest", 2..=2),
    ("ShareFetchResponse", 2..=2),
    ("WriteShareGroupStateRequest", 1..=1),
    ("WriteShareGroupStateResponse", 1..=1),
    ("WriteTxnMarkersRequest", 2..=2),
    ("WriteTxnMarkersResponse", 2..=2),
];

/// Messages with a field `Version`, which the oracle mistakes for the version of the message while
/// it reads what follows: it gets them once more with both equal.
const MESSAGES_REFUSED: &[&str] = &["LeaderChangeMessage", "VotersRecord"];

macro_rules! known {
    ($callback:ident) => {
        $callback! {
        produce ProduceRequest,
        produce ProduceResponse,
        fetch FetchRequest,
        fetch FetchResponse,
        list_offsets ListOffsetsRequest,
        list_offsets ListOffsetsResponse,
        metadata MetadataRequest,
        metadata MetadataResponse,
        offset_commit OffsetCommitRequest,
        offset_commit OffsetCommitResponse,
        offset_fetch OffsetFetchRequest,
        offset_fetch OffsetFetchResponse,
        find_coordinator FindCoordinatorRequest,
        find_coordinator FindCoordinatorResponse,
        join_group JoinGroupRequest,
        join_group JoinGroupResponse,
        heartbeat HeartbeatRequest,
        heartbeat HeartbeatResponse,
        leave_group LeaveGroupRequest,
        leave_group LeaveGroupResponse,
        sync_group SyncGroupRequest,
        sync_group SyncGroupResponse,
        describe_groups DescribeGroupsRequest,
        describe_groups DescribeGroupsResponse,
        list_groups ListGroupsRequest,
        list_groups ListGroupsResponse,
        sasl_handshake SaslHandshakeRequest,
        sasl_handshake SaslHandshakeResponse,
        api_versions ApiVersionsRequest,
        api_versions ApiVersionsResponse,
        create_topics CreateTopicsRequest,
        create_topics CreateTopicsResponse,
        delete_topics DeleteTopicsRequest,
        delete_topics DeleteTopicsResponse,
        delete_records DeleteRecordsRequest,
        delete_records DeleteRecordsResponse,
        init_producer_id InitProducerIdRequest,
        init_producer_id InitProducerIdResponse,
        offset_for_leader_epoch OffsetForLeaderEpochRequest,
        offset_for_leader_epoch OffsetForLeaderEpochResponse,
        add_partitions_to_txn AddPartitionsToTxnRequest,
        add_partitions_to_txn AddPartitionsToTxnResponse,
        add_offsets_to_txn AddOffsetsToTxnRequest,
        add_offsets_to_txn AddOffsetsToTxnResponse,
        end_txn EndTxnRequest,
        end_txn EndTxnResponse,
        write_txn_markers WriteTxnMarkersRequest,
        write_txn_markers WriteTxnMarkersResponse,
        txn_offset_commit TxnOffsetCommitRequest,
        txn_offset_commit TxnOffsetCommitResponse,
        describe_acls DescribeAclsRequest,
        describe_acls DescribeAclsResponse,
        create_acls CreateAclsRequest,
        create_acls CreateAclsResponse,
        delete_acls DeleteAclsRequest,
        delete_acls DeleteAclsResponse,
        describe_configs DescribeConfigsRequest,
        describe_configs DescribeConfigsResponse,
        alter_configs AlterConfigsRequest,
        alter_configs AlterConfigsResponse,
        alter_replica_log_dirs AlterReplicaLogDirsRequest,
        alter_replica_log_dirs AlterReplicaLogDirsResponse,
        describe_log_dirs DescribeLogDirsRequest,
        describe_log_dirs DescribeLogDirsResponse,
        sasl_authenticate SaslAuthenticateRequest,
        sasl_authenticate SaslAuthenticateResponse,
        create_partitions CreatePartitionsRequest,
        create_partitions CreatePartitionsResponse,
        create_delegation_token CreateDelegationTokenRequest,
        create_delegation_token CreateDelegationTokenResponse,
        renew_delegation_token RenewDelegationTokenRequest,
        renew_delegation_token RenewDelegationTokenResponse,
        expire_delegation_token ExpireDelegationTokenRequest,
        expire_delegation_token ExpireDelegationTokenResponse,
        describe_delegation_token DescribeDelegationTokenRequest,
        describe_delegation_token DescribeDelegationTokenResponse,
        delete_groups DeleteGroupsRequest,
        delete_groups DeleteGroupsResponse,
        elect_leaders ElectLeadersRequest,
        elect_leaders ElectLeadersResponse,
        incremental_alter_configs IncrementalAlterConfigsRequest,
        incremental_alter_configs IncrementalAlterConfigsResponse,
        alter_partition_reassignments AlterPartitionReassignmentsRequest,
        alter_partition_reassignments AlterPartitionReassignmentsResponse,
        list_partition_reassignments ListPartitionReassignmentsRequest,
        list_partition_reassignments ListPartitionReassignmentsResponse,
        offset_delete OffsetDeleteRequest,
        offset_delete OffsetDeleteResponse,
        describe_client_quotas DescribeClientQuotasRequest,
        describe_client_quotas DescribeClientQuotasResponse,
        alter_client_quotas AlterClientQuotasRequest,
        alter_client_quotas AlterClientQuotasResponse,
        describe_user_scram_credentials DescribeUserScramCredentialsRequest,
        describe_user_scram_credentials DescribeUserScramCredentialsResponse,
        alter_user_scram_credentials AlterUserScramCredentialsRequest,
        alter_user_scram_credentials AlterUserScramCredentialsResponse,
        vote VoteRequest,
        vote VoteResponse,
        begin_quorum_epoch BeginQuorumEpochRequest,
        begin_quorum_epoch BeginQuorumEpochResponse,
        end_quorum_epoch EndQuorumEpochRequest,
        end_quorum_epoch EndQuorumEpochResponse,
        describe_quorum DescribeQuorumRequest,
        describe_quorum DescribeQuorumResponse,
        alter_partition AlterPartitionRequest,
        alter_partition AlterPartitionResponse,
        update_features UpdateFeaturesRequest,
        update_features UpdateFeaturesResponse,
        envelope EnvelopeRequest,
        envelope EnvelopeResponse,
        fetch_snapshot FetchSnapshotRequest,
        fetch_snapshot FetchSnapshotResponse,
        describe_cluster DescribeClusterRequest,
        describe_cluster DescribeClusterResponse,
        describe_producers DescribeProducersRequest,
        describe_producers DescribeProducersResponse,
        broker_registration BrokerRegistrationRequest,
        broker_registration BrokerRegistrationResponse,
        broker_heartbeat BrokerHeartbeatRequest,
        broker_heartbeat BrokerHeartbeatResponse,
        unregister_broker UnregisterBrokerRequest,
        unregister_broker UnregisterBrokerResponse,
        describe_transactions DescribeTransactionsRequest,
        describe_transactions DescribeTransactionsResponse,
        list_transactions ListTransactionsRequest,
        list_transactions ListTransactionsResponse,
        allocate_producer_ids AllocateProducerIdsRequest,
        allocate_producer_ids AllocateProducerIdsResponse,
        consumer_group_heartbeat ConsumerGroupHeartbeatRequest,
        consumer_group_heartbeat ConsumerGroupHeartbeatResponse,
        consumer_group_describe ConsumerGroupDescribeRequest,
        consumer_group_describe ConsumerGroupDescribeResponse,
        controller_registration ControllerRegistrationRequest,
        controller_registration ControllerRegistrationResponse,
        get_telemetry_subscriptions GetTelemetrySubscriptionsRequest,
        get_telemetry_subscriptions GetTelemetrySubscriptionsResponse,
        push_telemetry PushTelemetryRequest,
        push_telemetry PushTelemetryResponse,
        assign_replicas_to_dirs AssignReplicasToDirsRequest,
        assign_replicas_to_dirs AssignReplicasToDirsResponse,
        list_config_resources ListConfigResourcesRequest,
        list_config_resources ListConfigResourcesResponse,
        describe_topic_partitions DescribeTopicPartitionsRequest,
        describe_topic_partitions DescribeTopicPartitionsResponse,
        share_group_heartbeat ShareGroupHeartbeatRequest,
        share_group_heartbeat ShareGroupHeartbeatResponse,
        share_group_describe ShareGroupDescribeRequest,
        share_group_describe ShareGroupDescribeResponse,
        share_fetch ShareFetchRequest,
        share_fetch ShareFetchResponse,
        share_acknowledge ShareAcknowledgeRequest,
        share_acknowledge ShareAcknowledgeResponse,
        add_raft_voter AddRaftVoterRequest,
        add_raft_voter AddRaftVoterResponse,
        remove_raft_voter RemoveRaftVoterRequest,
        remove_raft_voter RemoveRaftVoterResponse,
        update_raft_voter UpdateRaftVoterRequest,
        update_raft_voter UpdateRaftVoterResponse,
        initialize_share_group_state InitializeShareGroupStateRequest,
        initialize_share_group_state InitializeShareGroupStateResponse,
        read_share_group_state ReadShareGroupStateRequest,
        read_share_group_state ReadShareGroupStateResponse,
        write_share_group_state WriteShareGroupStateRequest,
        write_share_group_state WriteShareGroupStateResponse,
        delete_share_group_state DeleteShareGroupStateRequest,
        delete_share_group_state DeleteShareGroupStateResponse,
        read_share_group_state_summary ReadShareGroupStateSummaryRequest,
        read_share_group_state_summary ReadShareGroupStateSummaryResponse,
        describe_share_group_offsets DescribeShareGroupOffsetsRequest,
        describe_share_group_offsets DescribeShareGroupOffsetsResponse,
        alter_share_group_offsets AlterShareGroupOffsetsRequest,
        alter_share_group_offsets AlterShareGroupOffsetsResponse,
        delete_share_group_offsets DeleteShareGroupOffsetsRequest,
        delete_share_group_offsets DeleteShareGroupOffsetsResponse,
        header RequestHeader,
        header ResponseHeader,
        records_consumer_protocol_assignment ConsumerProtocolAssignment,
        records_consumer_protocol_subscription ConsumerProtocolSubscription,
        records_default_principal_data DefaultPrincipalData,
        records_end_txn_marker EndTxnMarker,
        records_kraft_version_record KRaftVersionRecord,
        records_leader_change_message LeaderChangeMessage,
        records_snapshot_footer_record SnapshotFooterRecord,
        records_snapshot_header_record SnapshotHeaderRecord,
        records_voters_record VotersRecord,
            }
    };
}

fn flavours() -> impl Iterator<Item = (Flavour, u64)> {
    let random = (0..RANDOM_SEEDS).map(|seed| (Flavour::Random, seed));
    let crowded = (Flavour::Crowded { depth: 0 }, 0);
    [(Flavour::Empty, 0), (Flavour::Greatest, 0)]
        .into_iter()
        .chain(random)
        .chain([crowded])
}

/// Reads with the oracle, writes with the oracle.
fn through<T: Decodable + Encodable>(bytes: &[u8], version: i16) -> Result<Vec<u8>, String> {
    let mut input = bytes::Bytes::copy_from_slice(bytes);
    let value = T::decode(&mut input, version).map_err(|error| format!("reading: {error}"))?;
    if !input.is_empty() {
        return Err(format!("{} bytes are left", input.len()));
    }
    let mut output = bytes::BytesMut::new();
    value
        .encode(&mut output, version)
        .map_err(|error| format!("writing: {error}"))?;
    Ok(output.to_vec())
}

type Through = fn(&[u8], i16) -> Result<Vec<u8>, String>;

/// Whether `value` stays the same on its way through our codec and what lies in between.
fn survives<'a, T: Message<'a> + PartialEq + Debug>(
    value: &T,
    version: i16,
    bytes: &'a mut Vec<u8>,
    through: Through,
) -> Result<(), String> {
    let fail = |what: String| Err(format!("{} version {version}: {what}: {value:?}", T::NAME));
    let ours = value.to_bytes(version);
    *bytes = through(&ours, version).or_else(|what| fail(what).map(|()| Vec::new()))?;
    if *bytes != ours {
        return fail("other bytes come back".to_owned());
    }
    match T::decode_whole(bytes, version) {
        Ok(decoded) if decoded == *value => Ok(()),
        other => fail(format!("becomes {other:?}")),
    }
}

/// One line for every message and version that fails for some value.
fn assert_no_failures(failures: &[String]) {
    assert!(
        failures.is_empty(),
        "{} fail:\n{}",
        failures.len(),
        failures.join("\n")
    );
}

/// One line of what `tests/clients/WireVectors.java` reads.
fn add_vector(text: &mut String, kind: &str, name: &str, version: i16, bytes: &[u8]) {
    let _ = write!(text, "{kind} {name} {version} ");
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text.push('\n');
}

/// What Kafka's own classes are asked to read lies in the target folder after every run.
#[test]
fn vectors_for_kafka_are_written() {
    let path = concat!(env!("CARGO_TARGET_TMPDIR"), "/wire_vectors.txt");
    std::fs::write(path, vectors()).expect("the folder is writable");
    let lines = vectors().lines().count();
    let versions: usize = our_versions()
        .values()
        .map(|versions| versions.clone().count())
        .sum();
    assert_eq!(lines, versions * (VECTORS + 1));
}

macro_rules! our_versions {
    ($($module:ident $name:ident,)*) => {
        /// Versions of every message of the tables.
        fn our_versions() -> BTreeMap<&'static str, RangeInclusive<i16>> {
            use percolog::wire::messages::*;
            BTreeMap::from([$(($module::$name::NAME, $module::$name::VERSIONS),)*])
        }

        /// Values and defaults of every message and version in hexadecimal.
        fn vectors() -> String {
            use percolog::wire::messages::*;
            let mut text = String::new();
            $(for version in $module::$name::VERSIONS {
                let default = $module::$name::default().to_bytes(version);
                add_vector(&mut text, "default", stringify!($name), version, &default);
                for (flavour, seed) in flavours().take(VECTORS) {
                    let value = $module::$name::sample(&mut Source::new(flavour, seed), version);
                    let bytes = value.to_bytes(version);
                    add_vector(&mut text, "value", stringify!($name), version, &bytes);
                }
            })*
            text
        }

        /// Every message and version through our own codec.
        #[test]
        fn every_message_survives_its_own_codec() {
            use percolog::wire::messages::*;
            let mut failures = Vec::new();
            $(for version in $module::$name::VERSIONS {
                failures.extend(flavours().find_map(|(flavour, seed)| {
                    let value = $module::$name::sample(&mut Source::new(flavour, seed), version);
                    let through: Through = |bytes, _| Ok(bytes.to_vec());
                    survives(&value, version, &mut Vec::new(), through).err()
                }));
            })*
            assert_no_failures(&failures);
        }
    };
}

for_each_message!(our_versions);

macro_rules! oracle {
    ($($module:ident $name:ident,)*) => {
        /// Versions of every message that the oracle has.
        fn their_versions() -> BTreeMap<&'static str, RangeInclusive<i16>> {
            use kafka_protocol::protocol::Message;
            BTreeMap::from([$((stringify!($name), {
                let versions = kafka_protocol::messages::$name::VERSIONS;
                versions.min..=versions.max
            }),)*])
        }

        #[test]
        fn the_oracle_reads_and_writes_what_we_do() {
            use percolog::wire::messages::*;
            let mut failures = Vec::new();
            $(for version in common_versions(stringify!($name)) {
                failures.extend(flavours().find_map(|(flavour, seed)| {
                    let value = $module::$name::sample(&mut Source::new(flavour, seed), version);
                    let through = through::<kafka_protocol::messages::$name>;
                    survives(&value, version, &mut Vec::new(), through).err()
                }));
            })*
            failures.retain(|failure| {
                let refused = MESSAGES_REFUSED.iter().any(|name| failure.starts_with(name));
                !(refused && failure.contains("specified version not supported"))
            });
            assert_no_failures(&failures);
        }
    };
}

fn common_versions(name: &str) -> RangeInclusive<i16> {
    let (ours, theirs) = (our_versions()[name].clone(), their_versions()[name].clone());
    *ours.start().max(theirs.start())..=*ours.end().min(theirs.end())
}

#[test]
fn what_the_oracle_lacks() {
    let theirs = their_versions();
    let (mut messages, mut versions) = (Vec::new(), Vec::new());
    for (name, ours) in our_versions() {
        match theirs.get(name) {
            None => messages.push(name),
            Some(theirs) => {
                let lacking: Vec<i16> = ours.filter(|version| !theirs.contains(version)).collect();
                if let (Some(&first), Some(&last)) = (lacking.first(), lacking.last()) {
                    versions.push((name, first..=last));
                }
            }
        }
    }
    let mut expected = MESSAGES_LACKING.to_vec();
    expected.sort_unstable();
    assert_eq!(messages, expected);
    assert_eq!(versions, VERSIONS_LACKING);
}

#[test]
fn the_oracle_reads_and_writes_messages_that_name_their_version() {
    use percolog::wire::messages::{records_leader_change_message, records_voters_record};
    let mut failures = Vec::new();
    for (flavour, seed) in flavours() {
        for version in [0, 1] {
            let source = &mut Source::new(flavour, seed);
            let mut value =
                records_leader_change_message::LeaderChangeMessage::sample(source, version);
            value.version = version;
            let through = through::<kafka_protocol::messages::LeaderChangeMessage>;
            failures.extend(survives(&value, version, &mut Vec::new(), through).err());
        }
        let source = &mut Source::new(flavour, seed);
        let mut value = records_voters_record::VotersRecord::sample(source, 0);
        value.version = 0;
        let through = through::<kafka_protocol::messages::VotersRecord>;
        failures.extend(survives(&value, 0, &mut Vec::new(), through).err());
    }
    assert_no_failures(&failures);
}

/// Tagged fields that we do not know are skipped, wherever a structure may carry them.
#[test]
fn unknown_tagged_fields_are_skipped() {
    use kafka_protocol::messages::{
        ApiVersionsResponse, FetchResponse, MetadataResponse, api_versions_response as theirs,
    };
    use percolog::wire::messages::{api_versions, fetch, metadata};
    let unknown = || {
        BTreeMap::from([
            (9, bytes::Bytes::from_static(b"nine")),
            (1000, bytes::Bytes::new()),
        ])
    };

    let mut key = theirs::ApiVersion::default()
        .with_api_key(1)
        .with_max_version(3);
    key.unknown_tagged_fields = unknown();
    let mut response = ApiVersionsResponse::default().with_api_keys(vec![key]);
    response.unknown_tagged_fields = unknown();
    let mut output = bytes::BytesMut::new();
    response.encode(&mut output, 3).expect("encodes");
    let decoded = api_versions::ApiVersionsResponse::decode_whole(&output, 3).expect("decodes");
    assert_eq!(
        decoded.api_keys,
        [api_versions::ApiVersion {
            api_key: 1,
            min_version: 0,
            max_version: 3
        }]
    );

    let mut response = MetadataResponse::default();
    response.unknown_tagged_fields = unknown();
    let mut output = bytes::BytesMut::new();
    response.encode(&mut output, 12).expect("encodes");
    let decoded = metadata::MetadataResponse::decode_whole(&output, 12).expect("decodes");
    assert_eq!(decoded, metadata::MetadataResponse::default());

    let mut response = FetchResponse::default();
    response.unknown_tagged_fields = unknown();
    let mut output = bytes::BytesMut::new();
    response.encode(&mut output, 12).expect("encodes");
    assert!(fetch::FetchResponse::decode_whole(&output, 12).is_ok());
}

/// Defaults are Kafka's: a default of ours is a default of theirs.
#[test]
fn defaults_are_those_of_the_oracle() {
    use percolog::wire::messages::*;
    macro_rules! same {
        ($($module:ident $name:ident,)*) => {$({
            let version = *common_versions(stringify!($name)).end();
            let mut output = bytes::BytesMut::new();
            let theirs = kafka_protocol::messages::$name::default();
            theirs.encode(&mut output, version).expect("defaults can be written");
            let ours = $module::$name::default().to_bytes(version);
            assert_eq!(ours, output, "{} version {version}", stringify!($name));
        })*};
    }
    known!(same);
}

known!(oracle);

/// Lengths of the classic form are bounded by int16: longer text is cut at a character.
#[test]
fn text_that_the_classic_form_cannot_carry_is_cut() {
    use percolog::wire::messages::heartbeat::HeartbeatRequest;
    let group_id = "\u{e9}".repeat(20_000);
    let request = HeartbeatRequest {
        group_id: group_id.as_str().into(),
        ..Default::default()
    };
    let mut writer = Writer::new();
    request.encode(&mut writer, 3);
    let decoded = HeartbeatRequest::decode_whole(writer.head(), 3).expect("decodes");
    assert_eq!(decoded.group_id.len(), 32_766);
    let bytes = request.to_bytes(4);
    assert_eq!(HeartbeatRequest::decode_whole(&bytes, 4), Ok(request));
}
