//! The settings of a single group: Kafka's names, and the broker settings that are their defaults
//! and bounds. Groups of the classic protocol have none: their members bring timeouts of their own.

use std::collections::BTreeMap;

use super::coordinators::GroupsConfig;
use super::kind::{FromValue, Kind, Value};
use super::problem::{Problem, Problems};

const KIND: Kind = Kind::Int(1, i32::MAX);

/// One setting of a group.
#[derive(Debug)]
pub struct GroupKnob {
    /// Kafka's name.
    pub name: &'static str,
    /// What values it takes, whatever the broker's bounds.
    pub kind: Kind,
    /// One line of what it does.
    pub doc: &'static str,
    /// Kafka's names of the broker settings that are its default and its bounds.
    broker_names: BrokerNames,
    /// The values of these.
    broker_values: fn(&GroupsConfig) -> BrokerValues,
}

#[derive(Debug)]
struct BrokerNames {
    default: &'static str,
    least: &'static str,
    most: &'static str,
}

struct BrokerValues {
    default: i32,
    least: i32,
    most: i32,
}

/// Session timeout of a consumer group's members.
const SESSION_TIMEOUT: GroupKnob = GroupKnob {
    name: "consumer.session.timeout.ms",
    kind: KIND,
    doc: "Time without a heartbeat after which a member of the consumer group is gone.",
    broker_names: BrokerNames {
        default: "group.consumer.session.timeout.ms",
        least: "group.consumer.min.session.timeout.ms",
        most: "group.consumer.max.session.timeout.ms",
    },
    broker_values: |groups| BrokerValues {
        default: groups.consumer_session_timeout_ms,
        least: groups.consumer_min_session_timeout_ms,
        most: groups.consumer_max_session_timeout_ms,
    },
};

/// Heartbeat interval of a consumer group's members.
const HEARTBEAT_INTERVAL: GroupKnob = GroupKnob {
    name: "consumer.heartbeat.interval.ms",
    kind: KIND,
    doc: "Interval at which members of the consumer group send heartbeats.",
    broker_names: BrokerNames {
        default: "group.consumer.heartbeat.interval.ms",
        least: "group.consumer.min.heartbeat.interval.ms",
        most: "group.consumer.max.heartbeat.interval.ms",
    },
    broker_values: |groups| BrokerValues {
        default: groups.consumer_heartbeat_interval_ms,
        least: groups.consumer_min_heartbeat_interval_ms,
        most: groups.consumer_max_heartbeat_interval_ms,
    },
};

static KNOBS: [GroupKnob; 2] = [HEARTBEAT_INTERVAL, SESSION_TIMEOUT];

const NO_INTERVAL: &str = "assignments are made as soon as they are due; leave it out";
const NO_SHARE_GROUPS: &str = "share groups are not built yet; use consumer groups";
const NO_STREAMS_GROUPS: &str =
    "streams groups are not built yet; Kafka Streams works with classic groups";

/// Settings of Kafka's that a group does not have here, and why.
const REFUSED: &[(&str, &str)] = &[
    ("consumer.assignment.interval.ms", NO_INTERVAL),
    ("share.assignment.interval.ms", NO_SHARE_GROUPS),
    ("share.auto.offset.reset", NO_SHARE_GROUPS),
    ("share.delivery.count.limit", NO_SHARE_GROUPS),
    ("share.heartbeat.interval.ms", NO_SHARE_GROUPS),
    ("share.isolation.level", NO_SHARE_GROUPS),
    ("share.partition.max.record.locks", NO_SHARE_GROUPS),
    ("share.record.lock.duration.ms", NO_SHARE_GROUPS),
    ("share.renew.acknowledge.enable", NO_SHARE_GROUPS),
    ("share.session.timeout.ms", NO_SHARE_GROUPS),
    ("streams.assignment.interval.ms", NO_STREAMS_GROUPS),
    ("streams.heartbeat.interval.ms", NO_STREAMS_GROUPS),
    ("streams.initial.rebalance.delay.ms", NO_STREAMS_GROUPS),
    ("streams.num.standby.replicas", NO_STREAMS_GROUPS),
    ("streams.session.timeout.ms", NO_STREAMS_GROUPS),
];

/// Every setting of a group.
#[must_use]
pub fn knobs() -> &'static [GroupKnob] {
    &KNOBS
}

impl GroupKnob {
    /// Kafka's name of the broker setting that is its default.
    #[must_use]
    pub fn broker_name(&self) -> &'static str {
        self.broker_names.default
    }

    /// The value in an override, without a look at the broker's bounds.
    fn parse(&self, text: &str) -> Result<i32, Problem> {
        let value: Result<Value, String> = self.kind.parse(text);
        let value = value.map_err(|why| Problem::invalid_value(self.name, text, why))?;
        Ok(i32::from_value(&value).expect("the kind is a number of 32 bits"))
    }

    fn check_bounds(&self, value: i32, groups: &GroupsConfig) -> Result<(), Problem> {
        let bounds = (self.broker_values)(groups);
        let problem = |relation: &str, bound: &str| Problem {
            name: self.name.to_string(),
            message: format!("{} must be {relation} than or equal to {bound}", self.name),
        };
        if value < bounds.least {
            return Err(problem("greater", self.broker_names.least));
        }
        if value > bounds.most {
            return Err(problem("less", self.broker_names.most));
        }
        Ok(())
    }

    /// What a group with these overrides has, within the broker's bounds.
    fn value(&self, overrides: &BTreeMap<String, String>, groups: &GroupsConfig) -> i32 {
        let broker = (self.broker_values)(groups);
        let own = overrides.get(self.name);
        own.and_then(|text| self.parse(text).ok())
            .map_or(broker.default, |own| own.max(broker.least).min(broker.most))
    }
}

/// How the members of a consumer group show that they live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConsumerTimeouts {
    /// A member that is silent for so long is gone.
    pub session_timeout_ms: i32,
    /// How often members are to send heartbeats.
    pub heartbeat_interval_ms: i32,
}

impl ConsumerTimeouts {
    /// Those of a group without settings of its own.
    #[must_use]
    pub fn of_broker(groups: &GroupsConfig) -> ConsumerTimeouts {
        ConsumerTimeouts {
            session_timeout_ms: groups.consumer_session_timeout_ms,
            heartbeat_interval_ms: groups.consumer_heartbeat_interval_ms,
        }
    }

    /// Those of a group with these overrides, which were checked when they were accepted. The
    /// broker's bounds may have changed since: they hold for old overrides as well. Where that
    /// leaves no room for a heartbeat within the timeout, both are the broker's.
    #[must_use]
    pub fn resolve(
        overrides: &BTreeMap<String, String>,
        groups: &GroupsConfig,
    ) -> ConsumerTimeouts {
        let own = ConsumerTimeouts {
            session_timeout_ms: SESSION_TIMEOUT.value(overrides, groups),
            heartbeat_interval_ms: HEARTBEAT_INTERVAL.value(overrides, groups),
        };
        if own.heartbeat_interval_ms < own.session_timeout_ms {
            own
        } else {
            ConsumerTimeouts::of_broker(groups)
        }
    }
}

/// Checks the overrides of a group, and writes their values in the one way in which they are kept.
///
/// # Errors
/// Every override that was refused, in Kafka's words where it has such a rule.
pub fn checked(
    overrides: &BTreeMap<String, String>,
    groups: &GroupsConfig,
) -> Result<BTreeMap<String, String>, Problems> {
    let mut problems = Vec::new();
    let mut kept = BTreeMap::new();
    for (name, text) in overrides {
        let value = find(name).and_then(|knob| {
            let value = knob.parse(text)?;
            knob.check_bounds(value, groups)?;
            Ok(value)
        });
        match value {
            Ok(value) => {
                kept.insert(name.clone(), value.to_string());
            }
            Err(problem) => problems.push(problem),
        }
    }
    let session = SESSION_TIMEOUT.value(&kept, groups);
    if problems.is_empty() && HEARTBEAT_INTERVAL.value(&kept, groups) >= session {
        let (timeout, interval) = (SESSION_TIMEOUT.name, HEARTBEAT_INTERVAL.name);
        problems.push(Problem {
            name: timeout.to_string(),
            message: format!("{timeout} must be greater than {interval}"),
        });
    }
    if problems.is_empty() {
        Ok(kept)
    } else {
        Err(Problems(problems))
    }
}

fn find(name: &str) -> Result<&'static GroupKnob, Problem> {
    let refused = REFUSED.iter().find(|(refused, _)| *refused == name);
    match (KNOBS.iter().find(|knob| knob.name == name), refused) {
        (Some(knob), _) => Ok(knob),
        (None, Some((_, why))) => Err(Problem::refused(name, why)),
        (None, None) => Err(Problem {
            name: name.to_string(),
            message: format!("Unknown group config name: {name}"),
        }),
    }
}

/// Refuses bounds that leave no room for the broker's own values.
pub(super) fn check_bounds(groups: &GroupsConfig, problems: &mut Vec<Problem>) {
    let mut require = |holds: bool, name: &str, relation: &str, other: &str| {
        if !holds {
            problems.push(Problem::refused(
                name,
                format!("must be {relation} {other}"),
            ));
        }
    };
    for knob in &KNOBS {
        let (names, values) = (&knob.broker_names, (knob.broker_values)(groups));
        let (at_least, at_most) = ("greater than or equal to", "less than or equal to");
        if values.least > values.most {
            require(false, names.most, at_least, names.least);
            continue;
        }
        require(
            values.least <= values.default,
            names.default,
            at_least,
            names.least,
        );
        require(
            values.default <= values.most,
            names.default,
            at_most,
            names.most,
        );
    }
    require(
        groups.consumer_heartbeat_interval_ms < groups.consumer_session_timeout_ms,
        HEARTBEAT_INTERVAL.broker_names.default,
        "less than",
        SESSION_TIMEOUT.broker_names.default,
    );
}

#[cfg(test)]
mod tests {
    use super::super::broker::BrokerConfig;
    use super::super::sources::Sources;
    use super::*;

    const SESSION: &str = "consumer.session.timeout.ms";
    const HEARTBEAT: &str = "consumer.heartbeat.interval.ms";

    fn map(overrides: &[(&str, &str)]) -> BTreeMap<String, String> {
        let owned = overrides.iter();
        owned
            .map(|(name, value)| (name.to_string(), value.to_string()))
            .collect()
    }

    fn refusal(overrides: &[(&str, &str)]) -> String {
        let groups = BrokerConfig::defaults().groups;
        checked(&map(overrides), &groups).unwrap_err().to_string()
    }

    #[test]
    fn values_are_kept_as_numbers_and_refused_in_kafkas_words() {
        let groups = BrokerConfig::defaults().groups;
        let kept = checked(&map(&[(SESSION, " 50001 "), (HEARTBEAT, "+6000")]), &groups);
        assert_eq!(kept, Ok(map(&[(SESSION, "50001"), (HEARTBEAT, "6000")])));
        for (name, value, why) in [
            (
                SESSION,
                "x",
                "Invalid value x for configuration consumer.session.timeout.ms: Not a number of type INT",
            ),
            (
                SESSION,
                "0",
                "Invalid value 0 for configuration consumer.session.timeout.ms: Value must be at least 1",
            ),
            (
                SESSION,
                "44999",
                "consumer.session.timeout.ms must be greater than or equal to group.consumer.min.session.timeout.ms",
            ),
            (
                SESSION,
                "60001",
                "consumer.session.timeout.ms must be less than or equal to group.consumer.max.session.timeout.ms",
            ),
            (
                HEARTBEAT,
                "4999",
                "consumer.heartbeat.interval.ms must be greater than or equal to group.consumer.min.heartbeat.interval.ms",
            ),
            (
                HEARTBEAT,
                "15001",
                "consumer.heartbeat.interval.ms must be less than or equal to group.consumer.max.heartbeat.interval.ms",
            ),
            ("no.such", "1", "Unknown group config name: no.such"),
            (
                "share.session.timeout.ms",
                "50000",
                "share.session.timeout.ms: share groups are not built yet; use consumer groups",
            ),
        ] {
            assert_eq!(refusal(&[(name, value)]), why);
        }
        for (name, _) in REFUSED {
            let why = refusal(&[(name, "1")]);
            assert!(why.starts_with(name) && why.contains(": "), "{why}");
        }
        let both = refusal(&[(SESSION, "1"), ("no.such", "1")]);
        assert_eq!(both.lines().count(), 2);
    }

    #[test]
    fn a_heartbeat_fits_into_the_session() {
        let mut groups = BrokerConfig::defaults().groups;
        groups.consumer_min_session_timeout_ms = 1000;
        // The default of the other counts too.
        let refused = checked(&map(&[(SESSION, "5000")]), &groups).unwrap_err();
        let words =
            "consumer.session.timeout.ms must be greater than consumer.heartbeat.interval.ms";
        assert_eq!(refused.to_string(), words);
        assert!(checked(&map(&[(SESSION, "5001")]), &groups).is_ok());
    }

    #[test]
    fn a_group_has_its_own_values_within_the_bounds_of_now() {
        let mut groups = BrokerConfig::defaults().groups;
        let timeouts = |overrides: &[(&str, &str)], groups: &GroupsConfig| {
            let resolved = ConsumerTimeouts::resolve(&map(overrides), groups);
            (resolved.session_timeout_ms, resolved.heartbeat_interval_ms)
        };
        assert_eq!(timeouts(&[], &groups), (45_000, 5_000));
        assert_eq!(timeouts(&[(SESSION, "50000")], &groups), (50_000, 5_000));
        let both = [(SESSION, "60000"), (HEARTBEAT, "15000")];
        assert_eq!(timeouts(&both, &groups), (60_000, 15_000));
        groups.consumer_max_session_timeout_ms = 55_000;
        assert_eq!(timeouts(&both, &groups), (55_000, 15_000));
        groups.consumer_min_session_timeout_ms = 9_000;
        groups.consumer_session_timeout_ms = 9_000;
        groups.consumer_max_session_timeout_ms = 9_000;
        assert_eq!(timeouts(&both, &groups), (9_000, 5_000));
    }

    #[test]
    fn a_broker_does_not_start_with_bounds_that_exclude_its_own_values() {
        let load = |sets: &[&str]| {
            let sets: Vec<String> = sets.iter().map(|set| (*set).to_string()).collect();
            BrokerConfig::load(&Sources {
                sets: &sets,
                ..Sources::default()
            })
        };
        let (session, heartbeat) = (
            "group.consumer.session.timeout.ms",
            "group.consumer.heartbeat.interval.ms",
        );
        for (set, refused) in [
            ("group.consumer.session.timeout.ms=44000", session),
            ("group.consumer.session.timeout.ms=61000", session),
            (
                "group.consumer.min.session.timeout.ms=70000",
                "group.consumer.max.session.timeout.ms",
            ),
            ("group.consumer.min.session.timeout.ms=46000", session),
            ("group.consumer.heartbeat.interval.ms=4000", heartbeat),
            ("group.consumer.heartbeat.interval.ms=16000", heartbeat),
            (
                "group.consumer.max.heartbeat.interval.ms=4000",
                "group.consumer.max.heartbeat.interval.ms",
            ),
        ] {
            let problems = load(&[set]).unwrap_err();
            let names: Vec<&str> = problems
                .0
                .iter()
                .map(|problem| problem.name.as_str())
                .collect();
            assert_eq!(names, [refused], "{set}: {problems}");
        }
        let same = [
            "group.consumer.session.timeout.ms=5000",
            "group.consumer.min.session.timeout.ms=5000",
        ];
        let problems = load(&same).unwrap_err().to_string();
        assert_eq!(
            problems,
            "group.consumer.heartbeat.interval.ms: must be less than group.consumer.session.timeout.ms"
        );
    }
}
