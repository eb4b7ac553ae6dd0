//! Fields of services.

use super::{Row, idle, refused};

pub(super) const ROWS: &[Row] = &[
    refused("ServiceMode", "ReplicatedJob", "jobs are not there yet").when_given(),
    refused("ServiceMode", "GlobalJob", "jobs are not there yet").when_given(),
    refused("TaskSpec", "PluginSpec", "only containers are run").when_given(),
    refused("TaskSpec", "NetworkAttachmentSpec", "only containers are run").when_given(),
    refused("TaskSpec", "Runtime", "only containers are run").but(&["container"]),
    refused("ContainerSpec", "Secrets", "a service with secrets"),
    refused("ContainerSpec", "Configs", "a service with configs"),
    refused("ContainerSpec", "Privileges", ""),
    refused("ContainerSpec", "Isolation", "it is a matter of Windows").but(&["default"]),
    idle("Mount", "Consistency", "only Docker Desktop knows it").but(&["default"]),
    refused("Mount", "ImageOptions", ""),
    refused("Mount", "ClusterOptions", ""),
    refused("BindOptions", "Propagation", "").but(&["rprivate"]),
    refused("BindOptions", "NonRecursive", ""),
    refused("BindOptions", "CreateMountpoint", "make the directory on every node first"),
    refused("BindOptions", "ReadOnlyNonRecursive", ""),
    refused("BindOptions", "ReadOnlyForceRecursive", ""),
    refused("VolumeOptions", "NoCopy", "a new volume has the image's files"),
    refused("VolumeOptions", "Subpath", "mount the whole volume"),
    refused("Driver", "Options", "only plain local volumes are there yet"),
    refused("TmpfsOptions", "Options", "only size and mode are there yet"),
    refused("ResourceRequirements", "SwapBytes", ""),
    refused("ResourceRequirements", "MemorySwappiness", "").but(&["-1"]),
    refused("Resources", "GenericResources", ""),
    refused("Limit", "GenericResources", ""),
    refused("NetworkAttachmentConfig", "DriverOpts", ""),
];
