//! What a container uses, as containerd measures it: in one form for cgroups v1, another for v2.
//!
//! The messages are parts of containerd's `io.containerd.cgroups.v1.Metrics` and `v2`, with the
//! fields that are wanted here; their numbers are the protocol.

use crate::error::Error;
use crate::port::Usage;
use prost::Message;
use prost_types::Any;

#[derive(Clone, PartialEq, Message)]
struct Pids {
    #[prost(uint64, tag = "1")]
    current: u64,
}

#[derive(Clone, PartialEq, Message)]
struct MetricsV1 {
    #[prost(message, optional, tag = "2")]
    pids: Option<Pids>,
    #[prost(message, optional, tag = "3")]
    cpu: Option<CpuV1>,
    #[prost(message, optional, tag = "4")]
    memory: Option<MemoryV1>,
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
struct MetricsV2 {
    #[prost(message, optional, tag = "1")]
    pids: Option<Pids>,
    #[prost(message, optional, tag = "2")]
    cpu: Option<CpuV2>,
    #[prost(message, optional, tag = "4")]
    memory: Option<MemoryV2>,
}

#[derive(Clone, PartialEq, Message)]
struct CpuV2 {
    #[prost(uint64, tag = "1")]
    usage_micros: u64,
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

/// The kernel has no word for "no limit": it gives numbers near the largest.
const UNLIMITED_FROM: u64 = 1 << 60;

/// Reads a measurement. File cache that is not in use does not count, as with Docker.
pub(crate) fn read(metrics: &Any) -> Result<Usage, Error> {
    let broken = |error| Error::User(format!("cannot read containerd's metrics: {error}"));
    let data = metrics.value.as_slice();
    let (limit, usage) = if metrics.type_url.contains("cgroups.v2") {
        let metrics = MetricsV2::decode(data).map_err(broken)?;
        let memory = metrics.memory.unwrap_or_default();
        let usage = Usage {
            cpu_nanos: metrics.cpu.unwrap_or_default().usage_micros.saturating_mul(1000),
            memory_bytes: memory.usage.saturating_sub(memory.inactive_file),
            pids: metrics.pids.unwrap_or_default().current,
            ..Usage::default()
        };
        (memory.usage_limit, usage)
    } else {
        let metrics = MetricsV1::decode(data).map_err(broken)?;
        let memory = metrics.memory.unwrap_or_default();
        let entry = memory.usage.unwrap_or_default();
        let usage = Usage {
            cpu_nanos: metrics.cpu.unwrap_or_default().usage.unwrap_or_default().total,
            memory_bytes: entry.usage.saturating_sub(memory.total_inactive_file),
            pids: metrics.pids.unwrap_or_default().current,
            ..Usage::default()
        };
        (entry.limit, usage)
    };
    let memory_limit = if limit < UNLIMITED_FROM { limit } else { 0 };
    Ok(Usage { memory_limit, ..usage })
}
