//! Which instances a reader wants to see.

use std::collections::BTreeMap;

use super::{Instance, Status};

/// All of what is given has to be so.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Filter {
    pub tags: Vec<Box<str>>,
    pub meta: BTreeMap<Box<str>, Box<str>>,
    pub zone: Option<Box<str>>,
    pub version: Option<Box<str>>,
    pub status: Option<Status>,
    /// Up and not ejected.
    pub healthy: bool,
}

impl Filter {
    /// Whether anything is asked for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    #[must_use]
    pub fn admits(&self, instance: &Instance) -> bool {
        let description = &instance.description;
        let equal =
            |wanted: &Option<Box<str>>, actual: &str| wanted.as_deref().is_none_or(|text| text == actual);
        equal(&self.zone, &description.zone)
            && equal(&self.version, &description.version)
            && self.status.is_none_or(|status| status == instance.status())
            && (!self.healthy || instance.is_healthy())
            && self.tags.iter().all(|tag| description.tags.binary_search(tag).is_ok())
            && self.meta.iter().all(|(name, value)| description.meta.get(name) == Some(value))
    }
}
