//! The settings of single groups in an image as coordinators see them.

use crate::cluster::image::MetadataImage;
use crate::config::coordinators::GroupsConfig;
use crate::config::group::ConsumerTimeouts;
use crate::coordinator::context::GroupSettings;

/// See the head of this file; the second is what holds for all groups.
pub(super) struct ImageGroups<'a>(pub(super) &'a MetadataImage, pub(super) &'a GroupsConfig);

impl GroupSettings for ImageGroups<'_> {
    fn timeouts(&self, group: &str) -> ConsumerTimeouts {
        match self.0.group_configs(group) {
            Some(own) => ConsumerTimeouts::resolve(own, self.1),
            None => ConsumerTimeouts::of_broker(self.1),
        }
    }
}
