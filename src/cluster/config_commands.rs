//! Changing the settings of topics, brokers and groups: Kafka's rules (`ConfigurationControlManager`,
//! `ConfigAdminManager`).

use std::collections::{BTreeMap, BTreeSet};

use super::controller::{
    CommandReply, ConfigAlteration, ConfigOperation, ConfigReplacement, ConfigResource, Decision,
};
use super::controller_error::{ControllerError, listed};
use super::image::MetadataImage;
use super::record::{ConfigTarget, MetadataRecord, TEXT_BYTES_MAX};
use super::topic_commands::check_overrides;
use crate::config::broker::BrokerConfig;
use crate::config::describe::{ConfigEntry, describe_broker, describe_group, describe_topic};
use crate::config::group;
use crate::config::kind::KafkaType;
use crate::config::topic::TopicConfig;

/// Dynamic settings that one broker, or all of them together, can have.
const BROKER_CONFIGS_MAX: usize = 1000;
/// Groups that can have settings of their own; such a group need not exist.
const GROUPS_WITH_CONFIGS_MAX: usize = 10_000;

type Configs = BTreeMap<String, String>;

/// The settings that stand, before and while a command changes them.
struct Standing<'a> {
    image: &'a MetadataImage,
    config: &'a BrokerConfig,
    records: Vec<MetadataRecord>,
    /// As decided so far: one command may change the defaults and a broker's own.
    defaults: Configs,
    brokers: BTreeMap<i32, Configs>,
    groups_with_configs: usize,
}

/// Changes settings one by one.
pub(super) fn alter(
    image: &MetadataImage,
    config: &BrokerConfig,
    alterations: &[ConfigAlteration],
    validate_only: bool,
) -> Decision {
    let mut standing = Standing::new(image, config);
    let twice = twice(alterations.iter().map(|alteration| &alteration.resource));
    let results = alterations.iter().map(|alteration| {
        check_once(&alteration.resource, &twice)?;
        let (target, old) = standing.find(&alteration.resource)?;
        let new = changed(&standing, &target, &old, alteration)?;
        standing.settle(target, &old, new)
    });
    let reply = CommandReply::ConfigsAltered(results.collect());
    Decision::unless(validate_only, standing.records, reply)
}

/// Replaces all settings of resources.
pub(super) fn replace(
    image: &MetadataImage,
    config: &BrokerConfig,
    replacements: &[ConfigReplacement],
    validate_only: bool,
) -> Decision {
    let mut standing = Standing::new(image, config);
    let twice = twice(replacements.iter().map(|replacement| &replacement.resource));
    let results = replacements.iter().map(|replacement| {
        check_once(&replacement.resource, &twice)?;
        check_names(replacement.configs.iter().map(|(name, _)| name.as_str()))?;
        let nulls = replacement
            .configs
            .iter()
            .filter(|(_, value)| value.is_none());
        check_no_nulls(nulls.map(|(name, _)| name.as_str()))?;
        let (target, old) = standing.find(&replacement.resource)?;
        let value = |(name, value): &(String, Option<String>)| {
            (name.clone(), value.clone().unwrap_or_default())
        };
        let new = replacement.configs.iter().map(value).collect();
        standing.settle(target, &old, new)
    });
    let reply = CommandReply::ConfigsAltered(results.collect());
    Decision::unless(validate_only, standing.records, reply)
}

fn twice<'a>(resources: impl Iterator<Item = &'a ConfigResource>) -> BTreeSet<&'a ConfigResource> {
    let mut seen = BTreeSet::new();
    resources
        .filter(|resource| !seen.insert(*resource))
        .collect()
}

fn check_once(
    resource: &ConfigResource,
    twice: &BTreeSet<&ConfigResource>,
) -> Result<(), ControllerError> {
    if twice.contains(resource) {
        let problem = "Each resource must appear at most once.".to_string();
        return Err(ControllerError::InvalidRequest(problem));
    }
    Ok(())
}

fn check_names<'a>(names: impl Iterator<Item = &'a str>) -> Result<(), ControllerError> {
    let mut seen = BTreeSet::new();
    for name in names {
        if name.len() > TEXT_BYTES_MAX {
            let problem = "The name of a setting is too long".to_string();
            return Err(ControllerError::InvalidConfig(problem));
        }
        if !seen.insert(name) {
            let problem = "Error due to duplicate config keys".to_string();
            return Err(ControllerError::InvalidRequest(problem));
        }
    }
    Ok(())
}

fn check_no_nulls<'a>(names: impl Iterator<Item = &'a str>) -> Result<(), ControllerError> {
    match listed(names) {
        names if names.is_empty() => Ok(()),
        names => Err(ControllerError::InvalidRequest(format!(
            "Null value not supported for : {names}"
        ))),
    }
}

/// The settings after the alteration.
fn changed(
    standing: &Standing<'_>,
    target: &ConfigTarget,
    old: &Configs,
    alteration: &ConfigAlteration,
) -> Result<Configs, ControllerError> {
    let changes = &alteration.changes;
    check_names(changes.iter().map(|(name, ..)| name.as_str()))?;
    let nulls = changes
        .iter()
        .filter(|(_, operation, value)| *operation != ConfigOperation::Delete && value.is_none());
    check_no_nulls(nulls.map(|(name, ..)| name.as_str()))?;
    let mut new = old.clone();
    for (name, operation, value) in changes {
        let value = value.as_deref().unwrap_or_default();
        match operation {
            ConfigOperation::Set => {
                new.insert(name.clone(), value.to_string());
            }
            ConfigOperation::Delete => {
                new.remove(name);
            }
            ConfigOperation::Append | ConfigOperation::Subtract => {
                let current = standing.list(target, old, name, *operation)?;
                let list = listed_change(&current, *operation, value);
                new.insert(name.clone(), list);
            }
        }
    }
    Ok(new)
}

fn listed_change(current: &str, operation: ConfigOperation, value: &str) -> String {
    let mut list: Vec<&str> = current.split(',').filter(|part| !part.is_empty()).collect();
    for part in value.split(',').filter(|part| !part.is_empty()) {
        let at = list.iter().position(|present| *present == part);
        match (operation, at) {
            (ConfigOperation::Append, None) => list.push(part),
            (ConfigOperation::Subtract, Some(at)) => {
                list.remove(at);
            }
            _ => {}
        }
    }
    list.join(",")
}

impl<'a> Standing<'a> {
    fn new(image: &'a MetadataImage, config: &'a BrokerConfig) -> Standing<'a> {
        let brokers = image.all_broker_configs();
        Standing {
            image,
            config,
            records: Vec::new(),
            defaults: image.default_configs().clone(),
            brokers: brokers.map(|(id, configs)| (id, configs.clone())).collect(),
            groups_with_configs: image.all_group_configs().len(),
        }
    }

    /// Whose settings are meant, and what is set there.
    fn find(&self, resource: &ConfigResource) -> Result<(ConfigTarget, Configs), ControllerError> {
        match resource {
            ConfigResource::Topic(name) if name.is_empty() => {
                let problem = "Default topic resources are not allowed.".to_string();
                Err(ControllerError::InvalidRequest(problem))
            }
            ConfigResource::Topic(name) => {
                let topic = self.image.topic(name).ok_or_else(|| {
                    ControllerError::UnknownTopic(format!("The topic '{name}' does not exist."))
                })?;
                Ok((ConfigTarget::Topic(topic.id), topic.configs.clone()))
            }
            ConfigResource::Broker(name) if name.is_empty() => {
                Ok((ConfigTarget::BrokerDefault, self.defaults.clone()))
            }
            ConfigResource::Broker(name) => {
                let Ok(node_id) = name.parse::<i32>() else {
                    return Err(ControllerError::InvalidRequest(format!(
                        "Node id must be an integer, but it is: {name}"
                    )));
                };
                let is_known = self.image.brokers().contains_key(&node_id);
                if !is_known && node_id != self.image.node_id() {
                    return Err(ControllerError::InvalidRequest(format!(
                        "Broker {node_id} is not registered"
                    )));
                }
                let configs = self.brokers.get(&node_id).cloned().unwrap_or_default();
                Ok((ConfigTarget::Broker(node_id), configs))
            }
            ConfigResource::Group(name) if name.is_empty() => {
                let problem = "Default group resources are not allowed.".to_string();
                Err(ControllerError::InvalidRequest(problem))
            }
            ConfigResource::Group(name) if name.len() > TEXT_BYTES_MAX => {
                let problem = "The name of a group is too long".to_string();
                Err(ControllerError::InvalidRequest(problem))
            }
            ConfigResource::Group(name) => {
                let configs = self.image.group_configs(name).cloned();
                let target = ConfigTarget::Group(name.clone());
                Ok((target, configs.unwrap_or_default()))
            }
        }
    }

    /// The list that is appended to or subtracted from: what is set, or else its default.
    fn list(
        &self,
        target: &ConfigTarget,
        old: &Configs,
        name: &str,
        operation: ConfigOperation,
    ) -> Result<String, ControllerError> {
        let entry =
            |entries: Vec<ConfigEntry>| entries.into_iter().find(|entry| entry.name == name);
        let entry = match target {
            ConfigTarget::Topic(_) => entry(describe_topic(&Configs::new(), self.config)),
            ConfigTarget::Group(_) => entry(describe_group(&Configs::new(), self.config)),
            _ => entry(describe_broker(self.config)),
        };
        match entry {
            Some(entry) if entry.kafka_type == KafkaType::List => {
                let current = old.get(name).cloned().or(entry.value);
                Ok(current.unwrap_or_default())
            }
            _ => Err(ControllerError::InvalidConfig(format!(
                "Can't {} to key {name} because its type is not LIST.",
                operation.name()
            ))),
        }
    }

    /// Checks settings as a whole and records what is different.
    fn settle(
        &mut self,
        target: ConfigTarget,
        old: &Configs,
        new: Configs,
    ) -> Result<(), ControllerError> {
        let new = match &target {
            ConfigTarget::Topic(_) => check_overrides(&new, self.config).map(|()| new)?,
            ConfigTarget::Group(_) => self.checked_group(old, &new)?,
            ConfigTarget::BrokerDefault | ConfigTarget::Broker(_) => {
                self.check_broker(&target, &new).map(|()| new)?
            }
        };
        let mut record = |name: &String, value: Option<String>| {
            self.records.push(MetadataRecord::ConfigChanged {
                target: target.clone(),
                name: name.clone(),
                value,
            });
        };
        for name in old.keys().filter(|name| !new.contains_key(*name)) {
            record(name, None);
        }
        for (name, value) in &new {
            if old.get(name) != Some(value) {
                record(name, Some(value.clone()));
            }
        }
        match target {
            ConfigTarget::Topic(_) => {}
            ConfigTarget::Group(_) => {
                self.groups_with_configs += usize::from(!new.is_empty());
                self.groups_with_configs -= usize::from(!old.is_empty());
            }
            ConfigTarget::BrokerDefault => self.defaults = new,
            ConfigTarget::Broker(node_id) => {
                self.brokers.insert(node_id, new);
            }
        }
        Ok(())
    }

    fn checked_group(&self, old: &Configs, new: &Configs) -> Result<Configs, ControllerError> {
        let new = group::checked(new, &self.config.groups)
            .map_err(|problems| ControllerError::InvalidConfig(problems.to_string()))?;
        let is_one_more = old.is_empty() && !new.is_empty();
        if is_one_more && self.groups_with_configs >= GROUPS_WITH_CONFIGS_MAX {
            return Err(ControllerError::PolicyViolation(format!(
                "At most {GROUPS_WITH_CONFIGS_MAX} groups have settings of their own"
            )));
        }
        Ok(new)
    }

    fn check_broker(&self, target: &ConfigTarget, new: &Configs) -> Result<(), ControllerError> {
        let invalid = ControllerError::InvalidConfig;
        if new.len() > BROKER_CONFIGS_MAX || new.values().any(|value| value.len() > TEXT_BYTES_MAX)
        {
            return Err(invalid(format!(
                "A broker has at most {BROKER_CONFIGS_MAX} dynamic settings, each of at most {TEXT_BYTES_MAX} bytes"
            )));
        }
        let fixed = new.keys().map(String::as_str);
        let fixed = fixed.filter(|name| self.config.is_dynamic(name) == Some(false));
        let fixed = listed(fixed);
        if !fixed.is_empty() {
            return Err(ControllerError::InvalidRequest(format!(
                "Cannot update these configs dynamically: [{fixed}]"
            )));
        }
        let none = Configs::new();
        let node_id = match target {
            ConfigTarget::Broker(node_id) => *node_id,
            _ => self.image.node_id(),
        };
        let own = self.brokers.get(&node_id).unwrap_or(&none);
        let (defaults, own) = match target {
            ConfigTarget::BrokerDefault => (new, own),
            _ => (&self.defaults, new),
        };
        let resolved = |own: &Configs| {
            let config = self.config.with_dynamic(defaults, own);
            config.map_err(|problems| invalid(problems.to_string()))
        };
        if *target == ConfigTarget::BrokerDefault {
            for own in self.brokers.values() {
                resolved(own)?;
            }
        }
        let config = resolved(own)?;
        // Topics that override one of two related settings depend on the default of the other.
        for topic in self
            .image
            .topics()
            .filter(|topic| !topic.configs.is_empty())
        {
            TopicConfig::resolve(&topic.configs, &config).map_err(|problems| {
                invalid(format!(
                    "Topic {} would become invalid: {problems}",
                    topic.name
                ))
            })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::controller::{Command, decide};
    use super::*;
    use crate::wire::codec::Uuid;
    use ConfigOperation::{Append, Delete, Set, Subtract};
    use ControllerError as E;

    struct World {
        image: MetadataImage,
        config: BrokerConfig,
    }

    type Change<'a> = (&'a str, ConfigOperation, Option<&'a str>);

    impl World {
        fn new() -> World {
            let mut image = MetadataImage::empty("c", 1);
            for (id, name) in [(1, "t"), (2, "u")] {
                image.apply(&MetadataRecord::TopicCreated {
                    name: name.to_string(),
                    id: Uuid([id; 16]),
                    partitions: Vec::new(),
                    configs: Configs::new(),
                });
            }
            World {
                image,
                config: BrokerConfig::defaults(),
            }
        }

        fn run(&mut self, command: Command) -> Vec<Result<(), E>> {
            let decision = decide(&self.image, &self.config, command, &mut || {
                unreachable!("no id is needed")
            });
            for record in &decision.records {
                self.image.apply(record);
            }
            let CommandReply::ConfigsAltered(results) = decision.reply else {
                panic!("another reply");
            };
            results
        }

        fn alter(&mut self, resource: ConfigResource, changes: &[Change<'_>]) -> Result<(), E> {
            let alterations = vec![alteration(resource, changes)];
            self.run(Command::AlterConfigs {
                alterations,
                validate_only: false,
            })
            .remove(0)
        }

        fn replace(
            &mut self,
            resource: ConfigResource,
            configs: &[(&str, Option<&str>)],
        ) -> Result<(), E> {
            let configs = configs
                .iter()
                .map(|(name, value)| (name.to_string(), value.map(str::to_string)))
                .collect();
            let replacements = vec![ConfigReplacement { resource, configs }];
            self.run(Command::ReplaceConfigs {
                replacements,
                validate_only: false,
            })
            .remove(0)
        }

        fn topic(&self) -> Vec<(&str, &str)> {
            let configs = &self.image.topic("t").unwrap().configs;
            configs
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_str()))
                .collect()
        }
    }

    fn alteration(resource: ConfigResource, changes: &[Change<'_>]) -> ConfigAlteration {
        let changes = changes.iter().map(|(name, operation, value)| {
            (name.to_string(), *operation, value.map(str::to_string))
        });
        ConfigAlteration {
            resource,
            changes: changes.collect(),
        }
    }

    fn topic(name: &str) -> ConfigResource {
        ConfigResource::Topic(name.to_string())
    }

    fn broker(name: &str) -> ConfigResource {
        ConfigResource::Broker(name.to_string())
    }

    fn group(name: &str) -> ConfigResource {
        ConfigResource::Group(name.to_string())
    }

    #[test]
    fn settings_of_a_topic_are_set_and_deleted() {
        let mut world = World::new();
        world
            .alter(
                topic("t"),
                &[
                    ("retention.ms", Set, Some("5")),
                    ("segment.ms", Set, Some("6")),
                ],
            )
            .unwrap();
        world
            .alter(
                topic("t"),
                &[
                    ("retention.ms", Delete, None),
                    ("no.such", Delete, Some("x")),
                ],
            )
            .unwrap();
        assert_eq!(world.topic(), [("segment.ms", "6")]);
        let version = world.image.version();
        world
            .alter(topic("t"), &[("segment.ms", Set, Some("6"))])
            .unwrap();
        assert_eq!(world.image.version(), version);
    }

    #[test]
    fn lists_are_appended_to_and_subtracted_from() {
        let mut world = World::new();
        let policy = "cleanup.policy";
        // What is not set begins as its default.
        world
            .alter(topic("t"), &[(policy, Append, Some("compact,delete"))])
            .unwrap();
        assert_eq!(world.topic(), [(policy, "delete,compact")]);
        world
            .alter(topic("t"), &[(policy, Subtract, Some("delete,other"))])
            .unwrap();
        assert_eq!(world.topic(), [(policy, "compact")]);
        let wrong = world.alter(topic("t"), &[(policy, Append, Some("shred"))]);
        assert!(matches!(wrong, Err(E::InvalidConfig(_))));
        for operation in [Append, Subtract] {
            for name in ["retention.ms", "no.such"] {
                let wrong = world.alter(topic("t"), &[(name, operation, Some("1"))]);
                assert!(matches!(wrong, Err(E::InvalidConfig(why)) if why.contains("not LIST")));
            }
        }
    }

    #[test]
    fn what_contradicts_itself_is_an_invalid_request() {
        let mut world = World::new();
        for bad in [
            &[("retention.ms", Set, None)][..],
            &[("cleanup.policy", Append, None)],
            &[
                ("retention.ms", Set, Some("1")),
                ("retention.ms", Delete, None),
            ],
        ] {
            assert!(matches!(
                world.alter(topic("t"), bad),
                Err(E::InvalidRequest(_))
            ));
        }
        let one = |name| alteration(topic(name), &[("retention.ms", Set, Some("1"))]);
        let results = world.run(Command::AlterConfigs {
            alterations: vec![one("t"), one("u"), one("t")],
            validate_only: false,
        });
        let is_ok: Vec<bool> = results.iter().map(Result::is_ok).collect();
        assert_eq!(is_ok, [false, true, false]);
        assert!(world.topic().is_empty());
    }

    #[test]
    fn unknown_resources_names_and_values_are_refused() {
        let mut world = World::new();
        let set = [("retention.ms", Set, Some("1"))];
        assert!(matches!(
            world.alter(topic("x"), &set),
            Err(E::UnknownTopic(_))
        ));
        assert!(matches!(
            world.alter(broker("x"), &set),
            Err(E::InvalidRequest(_))
        ));
        assert!(matches!(
            world.alter(broker("2"), &set),
            Err(E::InvalidRequest(_))
        ));
        for (name, value) in [
            ("no.such", "1"),
            ("retention.ms", "x"),
            ("segment.bytes", "1"),
        ] {
            let result = world.alter(topic("t"), &[(name, Set, Some(value))]);
            assert!(matches!(result, Err(E::InvalidConfig(_))), "{name}");
        }
        let result = world.alter(broker(""), &[("no.such", Set, Some("2"))]);
        assert!(matches!(result, Err(E::InvalidConfig(_))));
        // Settings that need a restart.
        for name in ["num.partitions", "node.id", "storage.cache_bytes"] {
            let result = world.alter(broker(""), &[(name, Set, Some("2"))]);
            assert!(matches!(result, Err(E::InvalidRequest(_))), "{name}");
        }
    }

    #[test]
    fn validation_alone_changes_nothing() {
        let mut world = World::new();
        let results = world.run(Command::AlterConfigs {
            alterations: vec![
                alteration(topic("t"), &[("retention.ms", Set, Some("1"))]),
                alteration(broker("1"), &[("message.max.bytes", Set, Some("x"))]),
            ],
            validate_only: true,
        });
        assert!(results[0].is_ok() && results[1].is_err());
        assert!(world.topic().is_empty());
    }

    #[test]
    fn brokers_have_defaults_and_settings_of_their_own() {
        let mut world = World::new();
        world
            .alter(broker(""), &[("message.max.bytes", Set, Some("7"))])
            .unwrap();
        world
            .alter(broker("1"), &[("log.retention.ms", Set, Some("8"))])
            .unwrap();
        assert_eq!(world.image.default_configs()["message.max.bytes"], "7");
        assert_eq!(
            world.image.broker_configs(1).unwrap()["log.retention.ms"],
            "8"
        );
        world.replace(broker("1"), &[]).unwrap();
        assert!(world.image.broker_configs(1).is_none());
    }

    #[test]
    fn a_group_has_settings_before_it_exists_and_none_after_the_last_is_gone() {
        let mut world = World::new();
        let (session, heartbeat) = (
            "consumer.session.timeout.ms",
            "consumer.heartbeat.interval.ms",
        );
        let both = [
            (session, Set, Some(" 50000")),
            (heartbeat, Set, Some("6000")),
        ];
        world.alter(group("g"), &both).unwrap();
        let configs = world.image.group_configs("g").unwrap();
        assert_eq!(configs[session], "50000");
        assert_eq!(configs[heartbeat], "6000");
        world
            .replace(group("g"), &[(session, Some("60000"))])
            .unwrap();
        assert_eq!(world.image.group_configs("g").unwrap().len(), 1);
        let version = world.image.version();
        world
            .alter(group("g"), &[("no.such", Delete, None)])
            .unwrap();
        assert_eq!(world.image.version(), version);
        world.alter(group("g"), &[(session, Delete, None)]).unwrap();
        assert_eq!(world.image.group_configs("g"), None);
        let nameless = world.alter(group(""), &both);
        assert!(matches!(nameless, Err(E::InvalidRequest(why)) if why.contains("not allowed")));
        for (name, operation) in [("no.such", Set), (session, Append), (session, Set)] {
            let refused = world.alter(group("g"), &[(name, operation, Some("1"))]);
            assert!(matches!(refused, Err(E::InvalidConfig(_))), "{name}");
        }
    }

    #[test]
    fn so_many_groups_have_settings_and_no_more() {
        let mut world = World::new();
        let one = ("consumer.session.timeout.ms", Set, Some("50000"));
        let alterations = (0..=GROUPS_WITH_CONFIGS_MAX)
            .map(|number| alteration(group(&format!("g{number}")), &[one]))
            .collect();
        let results = world.run(Command::AlterConfigs {
            alterations,
            validate_only: false,
        });
        let (last, others) = results.split_last().unwrap();
        assert!(others.iter().all(Result::is_ok));
        assert!(matches!(last, Err(E::PolicyViolation(_))));
        let gone = ("consumer.session.timeout.ms", Delete, None);
        world.alter(group("g0"), &[gone]).unwrap();
        world.alter(group("one-more"), &[one]).unwrap();
        assert!(world.alter(group("g0"), &[one]).is_err());
    }

    #[test]
    fn a_default_that_breaks_a_topic_is_refused() {
        let mut world = World::new();
        world
            .alter(topic("t"), &[("min.compaction.lag.ms", Set, Some("50"))])
            .unwrap();
        let result = world.alter(
            broker(""),
            &[("log.cleaner.max.compaction.lag.ms", Set, Some("49"))],
        );
        assert!(matches!(result, Err(E::InvalidConfig(why)) if why.contains("Topic t")));
    }

    #[test]
    fn a_replacement_forgets_what_it_does_not_name() {
        let mut world = World::new();
        world
            .alter(
                topic("t"),
                &[
                    ("retention.ms", Set, Some("5")),
                    ("segment.ms", Set, Some("6")),
                ],
            )
            .unwrap();
        world
            .replace(
                topic("t"),
                &[("retention.ms", Some("5")), ("flush.ms", Some("1"))],
            )
            .unwrap();
        assert_eq!(world.topic(), [("flush.ms", "1"), ("retention.ms", "5")]);
        assert!(matches!(
            world.replace(topic("t"), &[("retention.ms", None)]),
            Err(E::InvalidRequest(_))
        ));
        let twice = [("retention.ms", Some("1")), ("retention.ms", Some("2"))];
        assert!(matches!(
            world.replace(topic("t"), &twice),
            Err(E::InvalidRequest(_))
        ));
    }
}
