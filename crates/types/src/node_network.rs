//! Networks that every node has of its own.

use crate::NetworkId;

/// One of the networks that every node has of its own, by Docker's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeNetwork {
    /// The gateway bridge alone.
    Bridge,
    /// The node's own interfaces.
    Host,
    /// Nothing.
    None,
}

impl NodeNetwork {
    pub const ALL: [Self; 3] = [Self::Bridge, Self::Host, Self::None];

    pub fn name(self) -> &'static str {
        match self {
            Self::Bridge => "bridge",
            Self::Host => "host",
            Self::None => "none",
        }
    }

    /// Docker's word for what carries it.
    pub fn driver(self) -> &'static str {
        match self {
            Self::Bridge => "bridge",
            Self::Host => "host",
            Self::None => "null",
        }
    }

    /// The same on every node and in every cluster: its name in hexadecimal digits, as long as an id.
    pub fn id(self) -> &'static str {
        match self {
            Self::Bridge => "6272696467650000000000000000000000000000000000000000000000000000",
            Self::Host => "686f737400000000000000000000000000000000000000000000000000000000",
            Self::None => "6e6f6e6500000000000000000000000000000000000000000000000000000000",
        }
    }

    /// The one with this id.
    pub fn of(id: &NetworkId) -> Option<Self> {
        Self::ALL.into_iter().find(|network| network.id() == id.as_str())
    }

    /// The one with this name, or with this id.
    pub fn named(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|network| network.name() == text || network.id() == text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Write as _;

    #[test]
    fn a_network_of_the_nodes_own_is_known_by_its_name_and_its_id() {
        for network in NodeNetwork::ALL {
            let mut id = String::new();
            network.name().bytes().for_each(|byte| write!(id, "{byte:02x}").unwrap());
            assert_eq!(network.id(), format!("{id:0<64}"));
            assert_eq!(NodeNetwork::of(&network.id().into()), Some(network));
            assert_eq!(NodeNetwork::named(network.name()), Some(network));
            assert_eq!(NodeNetwork::named(network.id()), Some(network));
        }
        assert_eq!(NodeNetwork::of(&"host".into()), None);
        assert_eq!(NodeNetwork::named("front"), None);
    }
}
