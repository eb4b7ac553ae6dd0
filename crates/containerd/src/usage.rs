//! What a container uses, as containerd measures it: in one form for cgroups v1, another for v2.
//!
//! The messages are parts of containerd's `io.containerd.cgroups.v1.Metrics` and `v2`, with the
//! fields that are wanted here; their numbers are the protocol.

use crate::error::Error;
use engine::{DeviceUse, Usage};
use prost::Message;
use prost_types::Any;

#[derive(Clone, PartialEq, Message)]
struct Pids {
    #[prost(uint64, tag = "1")]
    current: u64,
    #[prost(uint64, tag = "2")]
    limit: u64,
}

#[derive(Clone, PartialEq, Message)]
struct MetricsV1 {
    #[prost(message, optional, tag = "2")]
    pids: Option<Pids>,
    #[prost(message, optional, tag = "3")]
    cpu: Option<CpuV1>,
    #[prost(message, optional, tag = "4")]
    memory: Option<MemoryV1>,
    #[prost(message, optional, tag = "5")]
    block: Option<BlockV1>,
}

#[derive(Clone, PartialEq, Message)]
struct CpuV1 {
    #[prost(message, optional, tag = "1")]
    usage: Option<CpuUsageV1>,
}

#[derive(Clone, PartialEq, Message)]
struct CpuUsageV1 {
    #[prost(uint64, tag = "1")]
    total: u64,
    #[prost(uint64, tag = "2")]
    kernel: u64,
    #[prost(uint64, tag = "3")]
    user: u64,
}

#[derive(Clone, PartialEq, Message)]
struct MemoryV1 {
    #[prost(uint64, tag = "30")]
    total_inactive_file: u64,
    #[prost(message, optional, tag = "33")]
    usage: Option<MemoryEntryV1>,
}

#[derive(Clone, PartialEq, Message)]
struct MemoryEntryV1 {
    #[prost(uint64, tag = "1")]
    limit: u64,
    #[prost(uint64, tag = "2")]
    usage: u64,
}

#[derive(Clone, PartialEq, Message)]
struct BlockV1 {
    #[prost(message, repeated, tag = "1")]
    bytes: Vec<BlockEntryV1>,
}

#[derive(Clone, PartialEq, Message)]
struct BlockEntryV1 {
    /// `Read`, `Write`, and others that overlap with these.
    #[prost(string, tag = "1")]
    op: String,
    #[prost(uint64, tag = "3")]
    major: u64,
    #[prost(uint64, tag = "4")]
    minor: u64,
    #[prost(uint64, tag = "5")]
    value: u64,
}

#[derive(Clone, PartialEq, Message)]
struct MetricsV2 {
    #[prost(message, optional, tag = "1")]
    pids: Option<Pids>,
    #[prost(message, optional, tag = "2")]
    cpu: Option<CpuV2>,
    #[prost(message, optional, tag = "4")]
    memory: Option<MemoryV2>,
    #[prost(message, optional, tag = "6")]
    block: Option<BlockV2>,
}

/// In microseconds.
#[derive(Clone, PartialEq, Message)]
struct CpuV2 {
    #[prost(uint64, tag = "1")]
    total: u64,
    #[prost(uint64, tag = "2")]
    user: u64,
    #[prost(uint64, tag = "3")]
    kernel: u64,
}

#[derive(Clone, PartialEq, Message)]
struct MemoryV2 {
    #[prost(uint64, tag = "13")]
    inactive_file: u64,
    #[prost(uint64, tag = "32")]
    usage: u64,
    #[prost(uint64, tag = "33")]
    usage_limit: u64,
}

#[derive(Clone, PartialEq, Message)]
struct BlockV2 {
    #[prost(message, repeated, tag = "1")]
    usage: Vec<BlockEntryV2>,
}

#[derive(Clone, PartialEq, Message)]
struct BlockEntryV2 {
    #[prost(uint64, tag = "1")]
    major: u64,
    #[prost(uint64, tag = "2")]
    minor: u64,
    #[prost(uint64, tag = "3")]
    read_bytes: u64,
    #[prost(uint64, tag = "4")]
    written_bytes: u64,
}

/// The kernel has no word for "no limit": it gives numbers near the largest.
const UNLIMITED_FROM: u64 = 1 << 60;

/// Reads a measurement.
pub(crate) fn read(metrics: &Any) -> Result<Usage, Error> {
    let broken = |error| Error::User(format!("cannot read containerd's metrics: {error}"));
    let data = metrics.value.as_slice();
    let usage = if metrics.type_url.contains("cgroups.v2") {
        from_v2(MetricsV2::decode(data).map_err(broken)?)
    } else {
        from_v1(MetricsV1::decode(data).map_err(broken)?)
    };
    let limit = |number: u64| if number < UNLIMITED_FROM { number } else { 0 };
    let (memory_limit, pids_limit) = (limit(usage.memory_limit), limit(usage.pids_limit));
    Ok(Usage { memory_limit, pids_limit, ..usage })
}

fn from_v1(metrics: MetricsV1) -> Usage {
    let cpu = metrics.cpu.unwrap_or_default().usage.unwrap_or_default();
    let memory = metrics.memory.unwrap_or_default();
    let entry = memory.usage.unwrap_or_default();
    let pids = metrics.pids.unwrap_or_default();
    let mut devices: Vec<DeviceUse> = Vec::new();
    for BlockEntryV1 { op, major, minor, value } in metrics.block.unwrap_or_default().bytes {
        let known = devices.iter().position(|known| (known.major, known.minor) == (major, minor));
        let at = known.unwrap_or_else(|| {
            devices.push(DeviceUse { major, minor, ..DeviceUse::default() });
            devices.len() - 1
        });
        match op.as_str() {
            "Read" => devices[at].read_bytes = value,
            "Write" => devices[at].written_bytes = value,
            _ => {}
        }
    }
    Usage {
        cpu_nanos: cpu.total,
        user_nanos: cpu.user,
        kernel_nanos: cpu.kernel,
        memory_bytes: entry.usage,
        idle_cache_bytes: memory.total_inactive_file,
        memory_limit: entry.limit,
        pids: pids.current,
        pids_limit: pids.limit,
        devices,
        ..Usage::default()
    }
}

fn from_v2(metrics: MetricsV2) -> Usage {
    let nanos = |micros: u64| micros.saturating_mul(1000);
    let cpu = metrics.cpu.unwrap_or_default();
    let memory = metrics.memory.unwrap_or_default();
    let pids = metrics.pids.unwrap_or_default();
    let device = |entry: BlockEntryV2| {
        let BlockEntryV2 { major, minor, read_bytes, written_bytes } = entry;
        DeviceUse { major, minor, read_bytes, written_bytes }
    };
    Usage {
        cpu_nanos: nanos(cpu.total),
        user_nanos: nanos(cpu.user),
        kernel_nanos: nanos(cpu.kernel),
        memory_bytes: memory.usage,
        idle_cache_bytes: memory.inactive_file,
        memory_limit: memory.usage_limit,
        pids: pids.current,
        pids_limit: pids.limit,
        devices: metrics.block.unwrap_or_default().usage.into_iter().map(device).collect(),
        ..Usage::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn any(version: &str, message: &impl Message) -> Any {
        let type_url = format!("io.containerd.cgroups.{version}.Metrics");
        Any { type_url, value: message.encode_to_vec() }
    }

    #[test]
    fn both_forms_say_the_same() {
        let entry = |op: &str, value| BlockEntryV1 { op: op.into(), major: 8, minor: 1, value };
        let v1 = MetricsV1 {
            pids: Some(Pids { current: 3, limit: 10 }),
            cpu: Some(CpuV1 { usage: Some(CpuUsageV1 { total: 5000, kernel: 2000, user: 3000 }) }),
            memory: Some(MemoryV1 {
                total_inactive_file: 7,
                usage: Some(MemoryEntryV1 { limit: 1 << 62, usage: 100 }),
            }),
            block: Some(BlockV1 {
                bytes: vec![entry("Read", 11), entry("Write", 22), entry("Sync", 99)],
            }),
        };
        let v2 = MetricsV2 {
            pids: Some(Pids { current: 3, limit: 10 }),
            cpu: Some(CpuV2 { total: 5, user: 3, kernel: 2 }),
            memory: Some(MemoryV2 { inactive_file: 7, usage: 100, usage_limit: u64::MAX }),
            block: Some(BlockV2 {
                usage: vec![BlockEntryV2 { major: 8, minor: 1, read_bytes: 11, written_bytes: 22 }],
            }),
        };
        let first = read(&any("v1", &v1)).unwrap();
        assert_eq!(first, read(&any("v2", &v2)).unwrap());
        let device = DeviceUse { major: 8, minor: 1, read_bytes: 11, written_bytes: 22 };
        assert_eq!(
            (first.memory_limit, first.pids_limit, &first.devices[..]),
            (0, 10, &[device][..])
        );
    }
}
