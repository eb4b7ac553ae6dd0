//! Fields of the cluster, its networks and volumes.

use super::{Row, idle, refused};

pub(super) const ROWS: &[Row] = &[
    refused("RaftConfig", "ElectionTick", "it is fixed").but(&["10"]),
    refused("RaftConfig", "HeartbeatTick", "it is fixed").but(&["1"]),
    refused("ExternalCA", "Options", "the protocol has none"),
    idle("InitRequest", "AutoLockManagers", "'EncryptionConfig' of the settings says it").quiet(),
    idle("NetworkCreate", "CheckDuplicate", "names are always unique").quiet(),
    refused("NetworkCreate", "ConfigFrom", "give the configuration itself"),
    refused("NetworkCreate", "ConfigOnly", "give the configuration to each network"),
    refused("NetworkCreate", "EnableIPv4", "networks are of IPv4").when_given().but(&["true"]),
    refused("NetworkCreate", "EnableIPv6", "networks are of IPv4"),
    refused("NetworkCreate", "Ingress", "the cluster has an ingress network"),
    refused("IPAM", "Driver", "").but(&["default"]),
    refused("IPAM", "Options", ""),
    refused("VolumeCreate", "ClusterVolumeSpec", "volumes of the cluster are not there yet")
        .when_given(),
];
