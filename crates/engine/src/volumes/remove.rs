//! Removing volumes.

use super::{Volume, Volumes, mounted, wait};
use crate::blocking::cannot;
use std::fs;
use types::{Fault, FaultKind};

impl Volumes {
    /// Removes a volume that no container has: neither one that is being made, nor one that `user`
    /// finds, which is asked after that and says its id. With `force` what is known of a plugin's
    /// volume goes, whatever its plugin says.
    pub(crate) fn remove(
        &self,
        name: &str,
        force: bool,
        user: impl FnOnce(&Volume) -> Option<String>,
    ) -> Result<(), Fault> {
        let busy = self.busy(name);
        let _turn = busy.turn();
        let (volume, is_recorded) = match self.find(name) {
            Ok(volume) => (volume, true),
            Err(fault) if fault.kind == FaultKind::NotFound => (self.strange(name, fault)?, false),
            Err(fault) => return Err(fault),
        };
        // In this order: a container is known before it lets go.
        let maker = busy.makers().first().cloned();
        if let Some(id) = maker.or_else(|| user(&volume)) {
            return Err(Fault::conflict(format!("remove {name}: volume is in use - [{id}]")));
        }
        // What is mounted there is not the volume's own.
        if !volume.is_plugins() {
            mounted::uncover(&volume)?;
        } else if let Err(fault) = self.remove_from_plugin(&volume) {
            if !(force && is_recorded) {
                return Err(Fault::new(fault.kind, format!("remove {name}: {}", fault.message)));
            }
            tracing::warn!(volume = name, %fault, "a volume is forgotten that its plugin may have");
        }
        if is_recorded {
            let removed = fs::remove_dir_all(self.root.join(&volume.name));
            removed.map_err(cannot("remove a volume"))?;
        }
        self.tell("destroy", &volume);
        Ok(())
    }

    /// A volume that nobody has used here, but a plugin knows.
    fn strange(&self, name: &str, missing: Fault) -> Result<Volume, Fault> {
        let driver = self.plugin_with(name).ok_or(missing)?;
        Ok(Volume { name: name.to_owned(), driver, ..Volume::default() })
    }

    fn remove_from_plugin(&self, volume: &Volume) -> Result<(), Fault> {
        let plugin = self.plugins.find(volume.driver())?;
        wait(plugin.remove(&volume.name))
    }
}
