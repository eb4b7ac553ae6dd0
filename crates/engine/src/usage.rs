//! What containers use: processors, memory, networks, the disk.

use crate::blocking::blocking;
use crate::engine::Engine;
use crate::runtime::{Packets, Traffic, Usage};
use std::collections::BTreeMap;
use types::Fault;

/// What a container takes on the disk, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskUse {
    /// What it wrote itself.
    pub written: u64,
    /// That, and its image.
    pub all: u64,
}

impl Engine {
    /// What a running container uses.
    pub async fn usage(&self, name: &str) -> Result<Usage, Fault> {
        let container = self.running(name)?;
        let usage = self.inner.runtime.usage(container.id().to_owned()).await?;
        let pid = container.state.borrow().pid;
        let own_network = container.live().netns.is_some();
        blocking(move || {
            let read = |path: String| std::fs::read_to_string(path).unwrap_or_default();
            let machine_cpu_nanos = machine_cpu_nanos(&read("/proc/stat".to_owned()));
            let networks = if own_network {
                traffic(&read(format!("/proc/{pid}/net/dev")))
            } else {
                BTreeMap::new()
            };
            Ok(Usage { machine_cpu_nanos, networks, ..usage })
        })
        .await
    }

    /// What a container takes on the disk.
    pub async fn disk_use(&self, name: &str) -> Result<DiskUse, Fault> {
        let container = self.find(name)?;
        let written = self.inner.runtime.written(container.id().to_owned()).await?;
        let image = self.inner.runtime.image(container.fixed.image.clone()).await?;
        let of_image = image.map_or(0, |image| image.size);
        Ok(DiskUse { written, all: written.saturating_add(of_image) })
    }
}

/// Nanoseconds that all processors have spent so far, idle or not: the first line of /proc/stat,
/// which counts ticks of 10 ms. What guests used is part of it already, as Docker reckons.
fn machine_cpu_nanos(stat: &str) -> u64 {
    const TICK_NANOS: u64 = 10_000_000;
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu ")).unwrap_or_default();
    let ticks = line.split_whitespace().take(8).filter_map(|word| word.parse::<u64>().ok());
    ticks.sum::<u64>().saturating_mul(TICK_NANOS)
}

/// The interfaces of /proc/PID/net/dev but the loopback one.
fn traffic(text: &str) -> BTreeMap<String, Traffic> {
    let interface = |line: &str| {
        let (name, counts) = line.split_once(':')?;
        let counts: Vec<u64> = counts.split_whitespace().filter_map(|it| it.parse().ok()).collect();
        let &[bytes, packets, errors, dropped, _, _, _, _, ref sent @ ..] = counts.as_slice()
        else {
            return None;
        };
        let received = Packets { bytes, packets, errors, dropped };
        let &[bytes, packets, errors, dropped, ..] = sent else { return None };
        let sent = Packets { bytes, packets, errors, dropped };
        Some((name.trim().to_owned(), Traffic { received, sent }))
    };
    text.lines().filter_map(interface).filter(|(name, _)| name != "lo").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machines_time_is_that_of_all_its_processors() {
        let stat = "cpu  1 2 3 4 5 6 7 8 100 100\ncpu0 1 2 3 4 5 6 7 8 9 9\n";
        assert_eq!(machine_cpu_nanos(stat), 360_000_000);
        assert_eq!(machine_cpu_nanos(""), 0);
    }

    #[test]
    fn traffic_is_counted_for_each_interface() {
        let text = "\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo
    lo:    9       9    0    0    0     0          0         0        9       9    0    0    0
  eth0: 1296      16    1    2    0     0          0         3     2064      24    5    6    0
";
        let received = Packets { bytes: 1296, packets: 16, errors: 1, dropped: 2 };
        let sent = Packets { bytes: 2064, packets: 24, errors: 5, dropped: 6 };
        let wanted = [("eth0".to_owned(), Traffic { received, sent })];
        assert_eq!(traffic(text), wanted.into());
        assert_eq!(traffic(""), BTreeMap::new());
    }
}
