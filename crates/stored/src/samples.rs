//! Rich samples: every optional field is filled once, and every variant is there once.
//!
//! They name all fields, so that a new one has to be filled here.

mod cluster;
mod file;
mod topology;
mod work;

pub use cluster::{cluster, ingress_network, network, node, worker};
pub use file::{config, secret};
pub use topology::{attachment_of_sandbox, knowledge, sandbox};
pub use work::{global_service, job, job_task, other_task, service, status, task};

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;
use types::{Addresses, Labels, Meta, Subnet, Timestamp, Version};

const SECOND: i64 = 1_000_000_000;

fn time(seconds: i64) -> Timestamp {
    Timestamp((1_700_000_000 + seconds) * SECOND + 5)
}

fn meta(version: u64) -> Meta {
    Meta { version: Version(version), created_at: time(1), updated_at: time(2) }
}

fn labels(name: &str) -> Labels {
    Labels::from([(format!("com.example.{name}"), "yes".to_owned())])
}

fn texts<const N: usize>(texts: [&str; N]) -> Vec<String> {
    texts.map(str::to_owned).to_vec()
}

/// Addresses of both families on a network.
fn both(last: u8) -> Addresses {
    let v6 = Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, last.into());
    Addresses { v4: Some(Ipv4Addr::new(10, 0, 1, last)), v6: Some(v6) }
}

fn subnets() -> Vec<Subnet> {
    let nets = ["10.0.1.0/24", "fd00:1::/64"].map(|net| net.parse().unwrap());
    nets.into_iter().filter_map(Subnet::new).collect()
}

fn underlay(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 168, 100, last)
}

const fn seconds(count: u64) -> Duration {
    Duration::from_millis(count * 1000 + 500)
}
