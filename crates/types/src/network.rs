//! Networks of the cluster.

use crate::{Labels, Meta, NetworkId};
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;

/// A network: the user's spec and what the allocator gave it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Network {
    pub id: NetworkId,
    pub meta: Meta,
    pub spec: NetworkSpec,
    /// The VXLAN network identifier, from 4097; 0 until allocated. 4096 is the ingress network's.
    pub vni: u32,
    /// `None` until allocated.
    pub subnet: Option<Subnet>,
    /// The address that was handed out last: the next one is looked for after it, so that an
    /// address that was just given back rests.
    pub last_address: Option<Ipv4Addr>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NetworkSpec {
    pub name: String,
    pub labels: Labels,
    /// `overlay`, the only one that spans nodes.
    pub driver: String,
    pub driver_options: Labels,
    pub attachable: bool,
    pub internal: bool,
    /// The network of the routing mesh. There is exactly one.
    pub ingress: bool,
    /// `None`: the allocator takes one from the cluster's pool.
    pub subnet: Option<Subnet>,
}

/// An IPv4 network with its gateway address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subnet {
    pub net: Ipv4Net,
    /// The first address where the user names none.
    pub gateway: Ipv4Addr,
}
