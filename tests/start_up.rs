//! What keeps a broker from starting is said by name, with what to do about it.

mod support;

use support::Broker;

fn refusal(data: &std::path::Path, arguments: &[&str]) -> String {
    match Broker::try_start(data, arguments) {
        Ok(_) => panic!("the broker started with {arguments:?}"),
        Err(said) => said,
    }
}

#[test]
fn a_second_broker_on_the_same_directory_is_refused() {
    let data = tempfile::tempdir().expect("a temporary directory");
    let broker = Broker::start(data.path(), &[]);
    let said = refusal(data.path(), &[]);
    assert!(
        said.contains("locked") && said.contains("another broker"),
        "{said}"
    );
    assert_eq!(broker.stop(), Some(0));
}

#[test]
fn a_port_in_use_is_named() {
    let (first, second) = (
        tempfile::tempdir().expect("temp"),
        tempfile::tempdir().expect("temp"),
    );
    let broker = Broker::start(first.path(), &[]);
    let listen = broker.address.to_string();
    let said = refusal(second.path(), &["--listen", &listen]);
    assert!(
        said.contains(&listen) && said.contains("--listen"),
        "{said}"
    );
}

#[test]
fn foreign_directories_and_unusable_ones_are_refused() {
    let data = tempfile::tempdir().expect("a temporary directory");
    std::fs::write(data.path().join("meta.properties"), "version=1\n").expect("written");
    let said = refusal(data.path(), &[]);
    assert!(
        said.contains("meta.properties") && said.contains("empty directory"),
        "{said}"
    );
    let said = refusal(std::path::Path::new("/proc/percolog"), &[]);
    assert!(
        said.contains("/proc/percolog") && said.contains("--data-dir"),
        "{said}"
    );
    let other = tempfile::tempdir().expect("a temporary directory");
    assert_eq!(Broker::start(other.path(), &[]).stop(), Some(0));
    let said = refusal(other.path(), &["--set", "node.id=7"]);
    assert!(
        said.contains("belongs to node 1") && said.contains("node 7"),
        "{said}"
    );
}

#[test]
fn settings_are_refused_by_name() {
    let data = tempfile::tempdir().expect("a temporary directory");
    for (setting, expected) in [
        ("storage.nonsense=1", "storage.nonsense"),
        ("log.segment.bytes=5", "log.segment.bytes"),
        ("num.io.threads=3", "num.io.threads"),
        ("zookeeper.connect=x", "zookeeper.connect"),
        ("cores.list=63-64", "cores.list"),
    ] {
        let said = refusal(data.path(), &["--set", setting, "--set", "cores.pin=true"]);
        assert!(said.contains(expected), "{setting}: {said}");
    }
}

#[test]
fn a_clean_stop_and_a_restart_with_other_cores_keep_the_topics() {
    let data = tempfile::tempdir().expect("a temporary directory");
    for (start, cores) in ["1", "2", "3", "1"].iter().enumerate() {
        let broker = Broker::start(data.path(), &["--cores", cores]);
        let mut client = broker.connect();
        client.create_topic(&format!("topic-{start}"), 4, &[]);
        let request = percolog::wire::messages::metadata::MetadataRequest::default();
        let request = percolog::wire::messages::metadata::MetadataRequest {
            topics: None,
            ..request
        };
        let frame = client.ask(5, &request);
        let (_, answer) = percolog::wire::frame::decode_response_of::<
            percolog::wire::messages::metadata::MetadataRequest,
        >(&frame, 5)
        .expect("an answer");
        assert_eq!(answer.topics.len(), start + 1);
        assert_eq!(broker.stop(), Some(0));
    }
}
