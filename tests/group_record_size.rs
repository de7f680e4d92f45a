//! A group's record may be as large as a batch of the log, and no larger: what would not fit is refused
//! before it is decided.

mod support;

use percolog::wire::frame;
use percolog::wire::messages::join_group::{JoinGroupRequest, JoinGroupRequestProtocol};
use percolog::wire::messages::sync_group::{SyncGroupRequest, SyncGroupRequestAssignment};
use percolog::wire::messages::{describe_groups, find_coordinator};
use support::{Broker, Client, until};

const GROUP: &str = "large";
/// Of a member that joins.
const METADATA_BYTES: usize = 30_000;
const UNKNOWN_SERVER_ERROR: i16 = -1;
const GROUP_MAX_SIZE_REACHED: i16 = 81;
/// Codes that a client tries again: the coordinator is loading, or its topic is being made.
const AGAIN: [i16; 3] = [14, 15, 16];

fn broker(data: &std::path::Path) -> Broker {
    // The largest batch that so small a journal takes has 43,690 bytes; groups.members_max_bytes is
    // 64 MiB.
    let settings = [
        "storage.journal_bytes=1048576",
        "storage.journal_first_file_bytes=32768",
        "group.initial.rebalance.delay.ms=0",
    ];
    let arguments = settings.iter().flat_map(|setting| ["--set", setting]);
    let arguments: Vec<&str> = arguments.chain(["--cores", "1"]).collect();
    Broker::start(data, &arguments)
}

/// Code, generation and member id.
fn join(client: &mut Client, member: &str, metadata: &[u8]) -> (i16, i32, String) {
    let request = JoinGroupRequest {
        group_id: GROUP.into(),
        session_timeout_ms: 30_000,
        rebalance_timeout_ms: 30_000,
        member_id: member.into(),
        protocol_type: "test".into(),
        protocols: vec![JoinGroupRequestProtocol {
            name: "p".into(),
            metadata: metadata.into(),
        }],
        ..Default::default()
    };
    let answer = client.ask(3, &request);
    let decoded = frame::decode_response_of::<JoinGroupRequest<'_>>(&answer, 3);
    let (_, answer) = decoded.expect("an answer");
    let member = answer.member_id.to_string();
    (answer.error_code, answer.generation_id, member)
}

fn sync(client: &mut Client, member: &str, generation: i32, assignment: &[u8]) -> i16 {
    let request = SyncGroupRequest {
        group_id: GROUP.into(),
        generation_id: generation,
        member_id: member.into(),
        assignments: vec![SyncGroupRequestAssignment {
            member_id: member.into(),
            assignment: assignment.into(),
        }],
        ..Default::default()
    };
    let answer = client.ask(1, &request);
    let decoded = frame::decode_response_of::<SyncGroupRequest<'_>>(&answer, 1);
    decoded.expect("an answer").1.error_code
}

/// Bytes of the members' assignments; None while the coordinator does not serve.
fn assigned(client: &mut Client) -> Option<Vec<usize>> {
    let request = describe_groups::DescribeGroupsRequest {
        groups: vec![GROUP.into()],
        ..Default::default()
    };
    let answer = client.ask(4, &request);
    let decoded =
        frame::decode_response_of::<describe_groups::DescribeGroupsRequest<'_>>(&answer, 4);
    let (_, answer) = decoded.expect("an answer");
    let group = &answer.groups[0];
    if AGAIN.contains(&group.error_code) {
        return None;
    }
    let members = group.members.iter();
    Some(
        members
            .map(|member| member.member_assignment.len())
            .collect(),
    )
}

fn find(client: &mut Client) {
    until("a coordinator", || {
        let request = find_coordinator::FindCoordinatorRequest {
            coordinator_keys: vec![GROUP.into()],
            ..Default::default()
        };
        let answer = client.ask(4, &request);
        let decoded =
            frame::decode_response_of::<find_coordinator::FindCoordinatorRequest<'_>>(&answer, 4);
        (decoded.expect("an answer").1.coordinators[0].error_code == 0).then_some(())
    });
}

#[test]
fn a_record_fits_the_log_or_is_refused_before() {
    let data = tempfile::tempdir().expect("a temporary directory");
    let running = broker(data.path());
    let mut client = running.connect();
    find(&mut client);
    let metadata = vec![7; METADATA_BYTES];
    let (_, _, member) = until("a member", || {
        let joined = join(&mut client, "", &metadata);
        (!AGAIN.contains(&joined.0)).then_some(joined)
    });
    let mut largest = 0;
    let mut refused = 0;
    for assignment_bytes in (13_000..13_800).step_by(20) {
        let (code, generation, _) = join(&mut client, &member, &metadata);
        assert_eq!(code, 0, "it is there and as large as before");
        let assignment = vec![9; assignment_bytes];
        // Anything else would be a coordinator that had to begin anew.
        match sync(&mut client, &member, generation, &assignment) {
            0 => largest = assignment_bytes,
            UNKNOWN_SERVER_ERROR => refused += 1,
            code => panic!("{assignment_bytes} bytes: error {code}"),
        }
    }
    assert!(
        largest > 0 && refused > 0,
        "{largest} taken, {refused} refused"
    );
    let (code, generation, _) = join(&mut client, &member, &metadata);
    assert_eq!(code, 0);
    assert_eq!(sync(&mut client, &member, generation, &vec![9; largest]), 0);
    let (code, _, _) = join(&mut client, "", &metadata);
    assert_eq!(
        code, GROUP_MAX_SIZE_REACHED,
        "there is no room for two of them"
    );
    running.kill();

    let running = broker(data.path());
    let mut client = running.connect();
    let assigned = until("a loaded coordinator", || assigned(&mut client));
    assert_eq!(assigned, [largest]);
    let (code, said) = running.stop_and_tell();
    assert_eq!(code, Some(0), "{said}");
}
