//! What keeps the containers on an overlay from sending in another one's name.

use crate::error::Error;
use crate::namespace::Namespace;
use crate::nft::{Nftables, Rules};
use crate::render::overlay as render;
use std::collections::BTreeSet;
use std::net::Ipv4Addr;

/// The table in an overlay's namespace as it is there.
pub(super) struct Gate {
    table: Rules,
    containers: BTreeSet<Ipv4Addr>,
}

impl Gate {
    /// Lets these containers pass, and no others. Without `observe`, what was applied is believed.
    pub(super) fn apply(
        nftables: &Nftables,
        namespace: &Namespace,
        containers: &BTreeSet<Ipv4Addr>,
        applied: Option<Self>,
        observe: bool,
    ) -> Result<Self, Error> {
        let is_same = |applied: &Self| applied.table.known() && applied.containers == *containers;
        match applied {
            Some(applied) if !observe && is_same(&applied) => Ok(applied),
            Some(mut applied) => namespace.visit(|| {
                applied.change(containers)?;
                Ok(applied)
            }),
            None => namespace.visit(|| {
                let mut table = nftables.open()?;
                table.replace(&render::whole(containers))?;
                Ok(Self { table, containers: containers.clone() })
            }),
        }
    }

    fn change(&mut self, containers: &BTreeSet<Ipv4Addr>) -> Result<(), Error> {
        if !self.table.untouched()? {
            self.table.replace(&render::whole(containers))?;
        } else if self.containers != *containers {
            let difference = render::difference(&self.containers, containers);
            // It can fail on a table that somebody else touches just now; the whole cannot.
            self.table
                .apply(&difference)
                .or_else(|_| self.table.replace(&render::whole(containers)))?;
        }
        self.containers.clone_from(containers);
        Ok(())
    }
}
