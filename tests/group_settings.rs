//! Settings of single groups, with `percolog config` and over the wire.

mod support;

use std::process::{Command, Output, Stdio};

use percolog::wire::frame;
use percolog::wire::messages::{
    alter_configs, consumer_group_heartbeat, describe_configs, find_coordinator,
    list_config_resources,
};
use serde_json::Value;
use support::{Broker, Client, until};

const SESSION: &str = "consumer.session.timeout.ms";
const HEARTBEAT: &str = "consumer.heartbeat.interval.ms";
const GROUP: i8 = 32;

fn run(broker: &Broker, line: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_percolog"))
        .args(line.split_whitespace())
        .args(["--bootstrap", &broker.address.to_string()])
        .stdin(Stdio::null())
        .output()
        .expect("the binary was built")
}

#[track_caller]
fn works(broker: &Broker, line: &str) -> String {
    let output = run(broker, line);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{line}: {said}");
    String::from_utf8(output.stdout).expect("text")
}

/// What a refused command says on stderr.
#[track_caller]
fn refused(broker: &Broker, line: &str) -> String {
    let output = run(broker, line);
    assert_eq!(output.status.code(), Some(1), "{line}");
    String::from_utf8(output.stderr).expect("text")
}

/// A heartbeat; the interval in the answer.
fn interval(client: &mut Client, group: &str, member: &str, epoch: &mut i32) -> i32 {
    let join = *epoch == 0;
    let request = consumer_group_heartbeat::ConsumerGroupHeartbeatRequest {
        group_id: group.into(),
        member_id: member.into(),
        member_epoch: *epoch,
        rebalance_timeout_ms: if join { 60_000 } else { -1 },
        subscribed_topic_names: join.then(|| vec!["read".into()]),
        topic_partitions: join.then(Vec::new),
        ..Default::default()
    };
    let answer = client.ask(1, &request);
    let decoded = frame::decode_response_of::<
        consumer_group_heartbeat::ConsumerGroupHeartbeatRequest<'_>,
    >(&answer, 1);
    let (_, answer) = decoded.expect("an answer");
    assert_eq!(answer.error_code, 0, "{:?}", answer.error_message);
    *epoch = answer.member_epoch;
    answer.heartbeat_interval_ms
}

/// Waits until the coordinator of a group serves.
fn until_coordinated(client: &mut Client, group: &str) {
    until("a coordinator", || {
        let request = find_coordinator::FindCoordinatorRequest {
            coordinator_keys: vec![group.into()],
            ..Default::default()
        };
        let answer = client.ask(4, &request);
        let decoded =
            frame::decode_response_of::<find_coordinator::FindCoordinatorRequest<'_>>(&answer, 4);
        let (_, answer) = decoded.expect("an answer");
        (answer.coordinators[0].error_code == 0).then_some(())
    });
    until("a loaded coordinator", || {
        let request = consumer_group_heartbeat::ConsumerGroupHeartbeatRequest {
            group_id: group.into(),
            member_id: "nobody".into(),
            member_epoch: 7,
            ..Default::default()
        };
        let answer = client.ask(1, &request);
        let decoded = frame::decode_response_of::<
            consumer_group_heartbeat::ConsumerGroupHeartbeatRequest<'_>,
        >(&answer, 1);
        // Not found, or no such member.
        matches!(decoded.expect("an answer").1.error_code, 25 | 69).then_some(())
    });
}

/// Groups with settings of their own.
fn listed(client: &mut Client) -> Vec<String> {
    let request = list_config_resources::ListConfigResourcesRequest {
        resource_types: vec![GROUP],
    };
    let answer = client.ask(1, &request);
    let decoded =
        frame::decode_response_of::<list_config_resources::ListConfigResourcesRequest>(&answer, 1);
    let (_, answer) = decoded.expect("an answer");
    assert_eq!(answer.error_code, 0);
    let resources = answer.config_resources.iter();
    resources
        .map(|resource| {
            assert_eq!(resource.resource_type, GROUP);
            resource.resource_name.to_string()
        })
        .collect()
}

/// Name, value and source of what DescribeConfigs tells of a group; or the error's code.
fn described(client: &mut Client, group: &str) -> Result<Vec<(String, String, i8)>, i16> {
    let request = describe_configs::DescribeConfigsRequest {
        resources: vec![describe_configs::DescribeConfigsResource {
            resource_type: GROUP,
            resource_name: group.into(),
            configuration_keys: None,
        }],
        ..Default::default()
    };
    let answer = client.ask(4, &request);
    let decoded =
        frame::decode_response_of::<describe_configs::DescribeConfigsRequest<'_>>(&answer, 4);
    let (_, answer) = decoded.expect("an answer");
    let result = &answer.results[0];
    if result.error_code != 0 {
        return Err(result.error_code);
    }
    let configs = result.configs.iter().map(|config| {
        let value = config.value.as_deref().expect("not secret").to_string();
        (config.name.to_string(), value, config.config_source)
    });
    Ok(configs.collect())
}

/// Replaces all settings of a group; the code.
fn replace(client: &mut Client, group: &str, configs: &[(&str, &str)]) -> i16 {
    let configs = configs
        .iter()
        .map(|(name, value)| alter_configs::AlterableConfig {
            name: (*name).into(),
            value: Some((*value).into()),
        });
    let request = alter_configs::AlterConfigsRequest {
        resources: vec![alter_configs::AlterConfigsResource {
            resource_type: GROUP,
            resource_name: group.into(),
            configs: configs.collect(),
        }],
        validate_only: false,
    };
    let answer = client.ask(2, &request);
    let decoded = frame::decode_response_of::<alter_configs::AlterConfigsRequest<'_>>(&answer, 2);
    decoded.expect("an answer").1.responses[0].error_code
}

fn entry(name: &str, value: &str, source: i8) -> (String, String, i8) {
    (name.to_string(), value.to_string(), source)
}

#[test]
fn a_group_has_settings_of_its_own_while_it_lives_and_after_a_restart() {
    let data = tempfile::tempdir().expect("a temporary directory");
    let broker = Broker::start(data.path(), &["--cores", "2"]);
    let mut client = broker.connect();
    client.create_topic("read", 2, &[]);
    until_coordinated(&mut client, "own");
    until_coordinated(&mut client, "other");
    let (mut own, mut other) = (0, 0);
    assert_eq!(interval(&mut client, "own", "m", &mut own), 5_000);
    assert_eq!(interval(&mut client, "other", "m", &mut other), 5_000);
    works(
        &broker,
        &format!("config set group own {HEARTBEAT}=6000 {SESSION}=50000"),
    );
    // The metadata reaches every core before the command is answered.
    assert_eq!(interval(&mut client, "own", "m", &mut own), 6_000);
    assert_eq!(interval(&mut client, "other", "m", &mut other), 5_000);
    let shown = works(&broker, "config describe group own --output json");
    let shown: Value = serde_json::from_str(&shown).expect("JSON");
    let shown = shown.as_array().expect("a list").iter();
    let shown = shown.map(|config| {
        assert_eq!(config["source"], "DYNAMIC_GROUP_CONFIG");
        (
            config["key"].as_str().expect("a name"),
            config["value"].as_str(),
        )
    });
    let shown: Vec<_> = shown.collect();
    assert_eq!(shown, [(HEARTBEAT, Some("6000")), (SESSION, Some("50000"))]);
    assert_eq!(listed(&mut client), ["own"]);

    broker.kill();
    let broker = Broker::start(data.path(), &["--cores", "2"]);
    let mut client = broker.connect();
    until_coordinated(&mut client, "own");
    assert_eq!(interval(&mut client, "own", "m", &mut own), 6_000);
    assert_eq!(replace(&mut client, "own", &[(SESSION, "60000")]), 0);
    assert_eq!(interval(&mut client, "own", "m", &mut own), 5_000);
    let expected = vec![entry(HEARTBEAT, "5000", 5), entry(SESSION, "60000", 8)];
    assert_eq!(described(&mut client, "own"), Ok(expected));
    works(&broker, &format!("config unset group own {SESSION}"));
    assert!(listed(&mut client).is_empty());
    let expected = vec![entry(HEARTBEAT, "5000", 5), entry(SESSION, "45000", 5)];
    assert_eq!(described(&mut client, "own"), Ok(expected));
    assert_eq!(broker.stop(), Some(0));
}

#[test]
fn what_a_group_cannot_have_is_refused() {
    let data = tempfile::tempdir().expect("a temporary directory");
    let broker = Broker::start(data.path(), &["--cores", "1"]);
    let mut client = broker.connect();
    for (assignment, why) in [
        (
            "consumer.session.timeout.ms=44999",
            "group.consumer.min.session.timeout.ms",
        ),
        ("consumer.session.timeout.ms=x", "Not a number of type INT"),
        (
            "share.session.timeout.ms=50000",
            "share groups are not built yet",
        ),
        (
            "streams.session.timeout.ms=50000",
            "streams groups are not built yet",
        ),
        ("no.such=1", "Unknown group config name: no.such"),
    ] {
        let said = refused(&broker, &format!("config set group g {assignment}"));
        assert!(
            said.contains("INVALID_CONFIG") && said.contains(why),
            "{said}"
        );
    }
    let invalid_request = 42;
    assert_eq!(
        replace(&mut client, "", &[(SESSION, "50000")]),
        invalid_request
    );
    assert_eq!(described(&mut client, ""), Err(invalid_request));
    assert!(listed(&mut client).is_empty());
    assert_eq!(broker.stop(), Some(0));
}

#[test]
fn a_broker_does_not_start_where_a_default_breaks_its_bounds() {
    let data = tempfile::tempdir().expect("a temporary directory");
    let setting = "group.consumer.session.timeout.ms=44999";
    let said = match Broker::try_start(data.path(), &["--set", setting]) {
        Ok(_) => panic!("it started"),
        Err(said) => said,
    };
    let why = "group.consumer.session.timeout.ms: must be greater than or equal to \
               group.consumer.min.session.timeout.ms";
    assert!(said.contains(why), "{said}");
}
