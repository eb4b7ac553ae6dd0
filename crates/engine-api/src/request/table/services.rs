//! Fields of services.

use super::{Row, idle, refused};

/// What becomes of labels of SELinux.
const NO_LABELS: &str = "containers get no SELinux labels";

pub(super) const ROWS: &[Row] = &[
    refused("Privileges", "CredentialSpec", "it is for Windows"),
    refused("SELinuxContext", "User", NO_LABELS),
    refused("SELinuxContext", "Role", NO_LABELS),
    refused("SELinuxContext", "Type", NO_LABELS),
    refused("SELinuxContext", "Level", NO_LABELS),
    refused("TaskSpec", "PluginSpec", "only containers are run").when_given(),
    refused("TaskSpec", "NetworkAttachmentSpec", "only containers are run").when_given(),
    refused("TaskSpec", "Runtime", "only containers are run").but(&["container"]),
    refused("ConfigReference", "Runtime", "it is for Windows").when_given(),
    refused("FileSpec", "Driver", "only the cluster itself keeps secrets").when_given(),
    refused("Templating", "Options", "templates have none"),
    refused("ContainerSpec", "Isolation", "it is a matter of Windows").but(&["default"]),
    idle("Mount", "Consistency", "only Docker Desktop knows it").but(&["default"]),
    refused("Mount", "ClusterOptions", ""),
    refused("GenericResource", "NamedResourceSpec", "ask for a number of them").when_given(),
    refused("Limit", "GenericResources", "they are reserved"),
    refused("NetworkAttachmentConfig", "DriverOpts", ""),
];
