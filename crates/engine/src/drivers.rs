//! Drivers of volumes that plugins have: which there are, and the volumes that they know.

use crate::blocking::blocking;
use crate::engine::Engine;
use crate::volumes::{Plugins, Volume, volumes_of};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::watch;
use types::{Fault, FaultKind};

/// Between two looks for plugins that have come or gone.
const PAUSE: Duration = Duration::from_secs(5);
/// A driver is gone that so many looks have missed: each change begins the node's session anew.
const LOOKS: u32 = 3;

/// The names of the drivers that are there now, in order.
pub(crate) async fn names(plugins: &Plugins) -> Vec<String> {
    plugins.drivers().await.iter().map(|plugin| plugin.name().to_owned()).collect()
}

/// How often the drivers that are known were not seen, one look after another.
#[derive(Debug, Default)]
struct Missed(BTreeMap<String, u32>);

impl Missed {
    /// Which drivers are known after a look: one that was slow once is not gone.
    fn after(&mut self, known: &[String], now: Vec<String>) -> Vec<String> {
        let mut all: BTreeSet<String> = now.into_iter().collect();
        let mut missed = BTreeMap::new();
        for name in known.iter().filter(|name| !all.contains(*name)) {
            let looks = self.0.get(name).copied().unwrap_or_default() + 1;
            if looks < LOOKS {
                missed.insert(name.clone(), looks);
            }
        }
        all.extend(missed.keys().cloned());
        self.0 = missed;
        all.into_iter().collect()
    }
}

/// Looks for plugins that have come or gone, until the engine stops.
pub(crate) async fn run(engine: Engine) -> Result<(), Fault> {
    let token = engine.inner.token.clone();
    let mut missed = Missed::default();
    loop {
        if token.run_until_cancelled(tokio::time::sleep(PAUSE)).await.is_none() {
            return Ok(());
        }
        let Some(now) = token.run_until_cancelled(names(&engine.inner.plugins)).await else {
            return Ok(());
        };
        engine.inner.volume_drivers.send_if_modified(|known| {
            let now = missed.after(known, now);
            let is_news = *known != now;
            *known = now;
            is_news
        });
    }
}

impl Engine {
    /// The names of the drivers of volumes that this node has beside its own, and every change.
    pub fn volume_drivers(&self) -> watch::Receiver<Vec<String>> {
        self.inner.volume_drivers.subscribe()
    }

    /// All volumes, by name, also those that plugins know and nobody has used here yet.
    pub async fn volumes(&self) -> Result<Vec<Volume>, Fault> {
        let volumes = self.inner.volumes.clone();
        let mut all = blocking(move || volumes.list()).await?;
        let drivers = self.inner.plugins.drivers().await;
        let mut global = BTreeSet::new();
        for plugin in &drivers {
            if plugin.is_global().await {
                global.insert(plugin.name().to_owned());
            }
        }
        for (driver, told) in volumes_of(&drivers).await {
            let is_global = global.contains(&driver);
            for volume in told {
                let (path, status) = (PathBuf::from(volume.mountpoint), volume.status);
                match all.iter_mut().find(|known| known.name == volume.name) {
                    Some(known) if known.driver() == driver => {
                        (known.path, known.status, known.is_global) = (path, status, is_global);
                    }
                    // The name is another driver's here.
                    Some(_) => {}
                    None => all.push(Volume {
                        name: volume.name,
                        driver: driver.clone(),
                        path,
                        status,
                        is_global,
                        ..Volume::default()
                    }),
                }
            }
        }
        all.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(all)
    }

    /// The volume of this name.
    pub async fn volume(&self, name: &str) -> Result<Volume, Fault> {
        let (volumes, wanted) = (self.inner.volumes.clone(), name.to_owned());
        let found = match blocking(move || volumes.find(&wanted)).await {
            Ok(volume) if !volume.is_plugins() => return Ok(volume),
            Ok(volume) => volume,
            Err(fault) if fault.kind == FaultKind::NotFound => Volume::default(),
            Err(fault) => return Err(fault),
        };
        for plugin in self.inner.plugins.drivers().await {
            let is_other = !found.name.is_empty() && found.driver() != plugin.name();
            if is_other {
                continue;
            }
            if let Ok(told) = plugin.get(name).await {
                return Ok(Volume {
                    name: name.to_owned(),
                    driver: plugin.name().to_owned(),
                    path: PathBuf::from(told.mountpoint),
                    status: told.status,
                    is_global: plugin.is_global().await,
                    ..found
                });
            }
        }
        if found.name.is_empty() {
            return Err(Fault::not_found(format!("get {name}: no such volume")));
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_driver_goes_after_three_looks_that_missed_it() {
        let list = |names: &str| names.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let (mut missed, mut known) = (Missed::default(), list("a b"));
        let mut after = |now: &str| {
            known = missed.after(&known, list(now));
            known.join(" ")
        };
        assert_eq!(after("b c"), "a b c", "one that comes is known at once");
        assert_eq!(after("c"), "a b c");
        assert_eq!(after("a c"), "a b c");
        assert_eq!(after("c"), "a c", "b is missed for the third time, a for the first again");
        assert_eq!(after("c"), "a c");
        assert_eq!(after("c"), "c");
        assert_eq!(after("a c"), "a c");
    }
}
