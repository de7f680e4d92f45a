//! A broker that was alone becomes a cluster of three, loses one of them, and gets another in its
//! place: the real binary, several processes, the commands that operators use.

mod support;

use std::net::TcpListener;
use std::process::{Command, Output, Stdio};
use std::time::Instant;

use serde_json::{Value, json};
use support::{Broker, PATIENCE};

/// A node's settings that stay when it starts again.
struct Node {
    id: i32,
    data: tempfile::TempDir,
    /// Where other brokers connect.
    port: u16,
}

impl Node {
    fn new(id: i32) -> Node {
        let held = TcpListener::bind("127.0.0.1:0").expect("a free port");
        Node {
            id,
            data: tempfile::tempdir().expect("a temporary directory"),
            port: held.local_addr().expect("bound").port(),
        }
    }

    fn voter(&self) -> String {
        format!("{}@127.0.0.1:{}", self.id, self.port)
    }

    fn start(&self, settings: &[String]) -> Broker {
        let mut arguments = Vec::new();
        let own = [
            format!("node.id={}", self.id),
            format!("listeners.inter_broker=127.0.0.1:{}", self.port),
        ];
        for setting in own.iter().chain(settings) {
            arguments.extend(["--set".to_string(), setting.clone()]);
        }
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        Broker::start(self.data.path(), &arguments)
    }
}

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

#[track_caller]
fn refused(broker: &Broker, line: &str, code: &str) {
    let output = run(broker, line);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{line}: {said}");
    assert!(said.contains(code), "{line}: {said}");
}

fn described(broker: &Broker) -> Value {
    let text = works(broker, "cluster describe --output json");
    serde_json::from_str(&text).expect("JSON")
}

/// Asks until the cluster is as it should be.
#[track_caller]
fn described_when(broker: &Broker, is_so: impl Fn(&Value) -> bool) -> Value {
    let start = Instant::now();
    loop {
        let seen = described(broker);
        if is_so(&seen) {
            return seen;
        }
        assert!(start.elapsed() < PATIENCE, "{seen:#}");
    }
}

/// Ids of the members with a vote, and of those without one.
fn members(described: &Value) -> (Vec<i64>, Vec<i64>) {
    let members = described["quorum"]["members"].as_array().expect("a list");
    let ids = |votes: bool| {
        let members = members.iter();
        let members = members.filter(|member| (member["role"] != "observer") == votes);
        let mut ids: Vec<i64> = members.map(|m| m["id"].as_i64().expect("an id")).collect();
        ids.sort_unstable();
        ids
    };
    (ids(true), ids(false))
}

fn is_replicated(described: &Value) -> bool {
    described["under_replicated"] == json!([])
}

#[test]
fn a_broker_alone_grows_to_three_and_one_of_them_is_replaced() {
    let nodes = [1, 2, 3].map(Node::new);
    let first = nodes[0].start(&[]);
    first.connect().create_topic("orders", 2, &[]);
    let id = described(&first)["cluster_id"].clone();
    let id = id.as_str().expect("an id").to_string();
    let joining = [
        format!("node.cluster_id={id}"),
        format!("node.quorum={}", nodes[0].voter()),
    ];
    let second = nodes[1].start(&joining);
    let third = nodes[2].start(&joining);
    let seen = described(&first);
    assert_eq!(members(&seen), (vec![1], vec![2, 3]));
    refused(
        &first,
        "cluster add 4@127.0.0.1:1",
        "BROKER_ID_NOT_REGISTERED",
    );
    refused(&first, "cluster add 2@127.0.0.1:1", "INVALID_REQUEST");
    works(&second, &format!("cluster add {}", nodes[1].voter()));
    works(&third, &format!("cluster add {}", nodes[2].voter()));
    refused(
        &first,
        &format!("cluster add {}", nodes[2].voter()),
        "DUPLICATE_VOTER",
    );
    assert_eq!(members(&described(&third)), (vec![1, 2, 3], vec![]));
    works(&first, "cluster reassign orders --to 1,2,3");
    let holds_all = |seen: &Value| {
        let brokers = seen["brokers"].as_array().expect("a list");
        is_replicated(seen) && brokers.iter().all(|broker| broker["holds"] == 2)
    };
    described_when(&first, holds_all);

    // One is lost with its disk: another one takes its place and its id.
    third.kill();
    let is_fenced = |seen: &Value| seen["brokers"][2]["fenced"] == true;
    described_when(&second, is_fenced);
    works(&second, "cluster remove 3");
    let replacement = Node::new(3);
    let third = replacement.start(&joining);
    works(&third, &format!("cluster add {}", replacement.voter()));
    let seen = described_when(&third, is_replicated);
    assert_eq!(members(&seen), (vec![1, 2, 3], vec![]));

    // Who leads the quorum hands it over when its vote is taken.
    let leader = seen["controller_id"].as_i64().expect("an id");
    works(&third, &format!("cluster remove {leader} --vote-only"));
    let (voters, observers) = members(&described_when(&third, |seen| {
        members(seen).1 == vec![leader]
    }));
    assert_eq!((voters.len(), observers), (2, vec![leader]));
    assert_eq!(third.stop(), Some(0));
}
