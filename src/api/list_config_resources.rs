//! ListConfigResources, versions 0 and 1 (KIP-1142): what has settings, or can have.
//!
//! Topics (2), brokers (4) and their loggers (8) are listed whether something is set for them or not,
//! groups (32) where they have settings of their own. Client metrics (16), the only ones that version 0
//! asks for, are never there. No types are all of them; a type that is none of these is
//! UNSUPPORTED_VERSION.

use std::borrow::Cow;
use std::rc::Rc;

use super::alter_configs::{BROKER, GROUP, TOPIC};
use super::call::{Call, Handled};
use super::describe_configs::{BROKER_LOGGER, CLIENT_METRICS};
use super::dispatch::Api;
use crate::cluster::image::MetadataImage;
use crate::wire::error_code::ErrorCode;
use crate::wire::messages::list_config_resources::{
    ConfigResource, ListConfigResourcesRequest, ListConfigResourcesResponse,
};

const TYPES: [i8; 5] = [TOPIC, BROKER, BROKER_LOGGER, CLIENT_METRICS, GROUP];

/// Answers a ListConfigResources.
pub(super) async fn handle(api: Rc<Api>, call: Call) -> Handled {
    let request: ListConfigResourcesRequest = call.request()?;
    let types: &[i8] = match request.resource_types.as_slice() {
        _ if call.version == 0 => &[CLIENT_METRICS],
        [] => &TYPES,
        asked => asked,
    };
    let image = api.router.image();
    Ok(call.reply(&match listed(&image, types) {
        Some(config_resources) => ListConfigResourcesResponse {
            config_resources,
            ..Default::default()
        },
        None => ListConfigResourcesResponse {
            error_code: ErrorCode::UnsupportedVersion.code(),
            ..Default::default()
        },
    }))
}

/// The resources of these types; None where one is unknown.
fn listed<'a>(image: &'a MetadataImage, types: &[i8]) -> Option<Vec<ConfigResource<'a>>> {
    if types.iter().any(|asked| !TYPES.contains(asked)) {
        return None;
    }
    let mut resources = Vec::new();
    for resource_type in TYPES.into_iter().filter(|known| types.contains(known)) {
        let resource = |resource_name: Cow<'a, str>| ConfigResource {
            resource_name,
            resource_type,
        };
        match resource_type {
            TOPIC => {
                let names = image.topics().map(|topic| Cow::Borrowed(&*topic.name));
                resources.extend(names.map(resource));
            }
            BROKER | BROKER_LOGGER => {
                let ids = image.brokers().keys().map(|id| Cow::Owned(id.to_string()));
                resources.extend(ids.map(resource));
            }
            GROUP => {
                let names = image.all_group_configs().map(|(name, _)| name.into());
                resources.extend(names.map(resource));
            }
            _ => {}
        }
    }
    Some(resources)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::record::{ConfigTarget, MetadataRecord};
    use crate::wire::codec::Uuid;
    use std::collections::BTreeMap;

    #[test]
    fn types_have_their_resources_and_unknown_ones_are_refused() {
        let mut image = MetadataImage::empty("c", 7);
        image.apply(&MetadataRecord::BrokerRegistered {
            node_id: 7,
            broker: crate::cluster::image::BrokerImage::default(),
        });
        image.apply(&MetadataRecord::TopicCreated {
            name: "t".to_string(),
            id: Uuid([1; 16]),
            partitions: Vec::new(),
            configs: BTreeMap::new(),
        });
        image.apply(&MetadataRecord::ConfigChanged {
            target: ConfigTarget::Group("g".to_string()),
            name: "consumer.session.timeout.ms".to_string(),
            value: Some("50000".to_string()),
        });
        let names = |types: &[i8]| {
            let resources = listed(&image, types)?;
            let names = resources
                .into_iter()
                .map(|resource| (resource.resource_type, resource.resource_name.to_string()));
            Some(names.collect::<Vec<_>>())
        };
        let (topic, group) = ((2, "t".to_string()), (32, "g".to_string()));
        let (broker, logger) = ((4, "7".to_string()), (8, "7".to_string()));
        assert_eq!(names(&[32]), Some(vec![group.clone()]));
        assert_eq!(
            names(&[32, 2, 32]),
            Some(vec![topic.clone(), group.clone()])
        );
        assert_eq!(names(&[16]), Some(Vec::new()));
        assert_eq!(names(&TYPES), Some(vec![topic, broker, logger, group]));
        assert_eq!(names(&[2, 3]), None);
    }
}
