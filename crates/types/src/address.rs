//! Addresses of both families.

use crate::plain::{Plain, Stored};
use serde::de::{Deserialize, Deserializer, Error};
use serde::ser::{Serialize, Serializer};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The addresses of one thing on one network: at most one of each family. It is stored as a list of
/// texts.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Addresses {
    pub v4: Option<Ipv4Addr>,
    pub v6: Option<Ipv6Addr>,
}

impl Addresses {
    pub fn iter(self) -> impl Iterator<Item = IpAddr> + Clone {
        self.v4.map(IpAddr::V4).into_iter().chain(self.v6.map(IpAddr::V6))
    }

    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The IPv4 address where there is one.
    pub fn primary(self) -> Option<IpAddr> {
        self.iter().next()
    }

    /// The address of the family that `like` has.
    pub fn of_family(self, like: IpAddr) -> Option<IpAddr> {
        self.iter().find(|address| address.is_ipv4() == like.is_ipv4())
    }

    pub fn contains(self, address: IpAddr) -> bool {
        self.of_family(address) == Some(address)
    }

    /// Says whether both have an address in common.
    pub fn overlap(self, other: Self) -> bool {
        self.iter().any(|address| other.contains(address))
    }

    /// Makes `address` the one of its family.
    pub fn set(&mut self, address: IpAddr) {
        match address {
            IpAddr::V4(address) => self.v4 = Some(address),
            IpAddr::V6(address) => self.v6 = Some(address),
        }
    }

    /// The hardware address of the interface that has them: of the first one, [`mac_of`].
    pub fn mac(self) -> Option<[u8; 6]> {
        self.primary().map(mac_of)
    }
}

/// The hardware address that follows from an address: everybody knows it without a question. As in
/// Docker it is 02:42 and the IPv4 address; of an IPv6 address 02:43 and its last four bytes, by
/// which addresses that are handed out on one network differ.
pub fn mac_of(address: IpAddr) -> [u8; 6] {
    match address {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            [0x02, 0x42, a, b, c, d]
        }
        IpAddr::V6(address) => {
            let [.., a, b, c, d] = address.octets();
            [0x02, 0x43, a, b, c, d]
        }
    }
}

impl From<IpAddr> for Addresses {
    fn from(address: IpAddr) -> Self {
        let mut addresses = Self::default();
        addresses.set(address);
        addresses
    }
}

impl From<Ipv4Addr> for Addresses {
    fn from(address: Ipv4Addr) -> Self {
        Self { v4: Some(address), v6: None }
    }
}

impl From<[u8; 4]> for Addresses {
    fn from(octets: [u8; 4]) -> Self {
        Ipv4Addr::from(octets).into()
    }
}

/// The last one of a family counts.
impl FromIterator<IpAddr> for Addresses {
    fn from_iter<I: IntoIterator<Item = IpAddr>>(all: I) -> Self {
        let mut addresses = Self::default();
        all.into_iter().for_each(|address| addresses.set(address));
        addresses
    }
}

impl fmt::Display for Addresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, address) in self.iter().enumerate() {
            write!(f, "{}{address}", if index == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

impl fmt::Debug for Addresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl Serialize for Addresses {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.iter().collect::<Vec<IpAddr>>().write(serializer)
    }
}

impl<'de> Deserialize<'de> for Addresses {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let stored = Stored::deserialize(deserializer)?;
        let all = Vec::<IpAddr>::read(&stored).ok_or_else(|| D::Error::custom("not addresses"))?;
        let addresses: Self = all.iter().copied().collect();
        if addresses.iter().count() < all.len() {
            return Err(D::Error::custom("two addresses of one family"));
        }
        Ok(addresses)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Addresses, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    #[test]
    fn addresses_are_a_list_and_what_was_stored_before_is_read() {
        let both: Addresses =
            ["10.0.1.2", "fd00::2"].iter().map(|text| text.parse().unwrap()).collect();
        assert_eq!(serde_json::to_string(&both).unwrap(), r#"["10.0.1.2","fd00::2"]"#);
        for (stored, meant) in [
            (r#"["10.0.1.2","fd00::2"]"#, both),
            (r#"["fd00::2","10.0.1.2"]"#, both),
            (r#"["fd00::2"]"#, Addresses { v4: None, ..both }),
            (r#""10.0.1.2""#, [10, 0, 1, 2].into()),
            ("[10,0,1,2]", [10, 0, 1, 2].into()),
            ("null", Addresses::default()),
            ("[]", Addresses::default()),
        ] {
            assert_eq!(read(stored), Ok(meant), "{stored}");
        }
        for wrong in [r#"["10.0.1.2","10.0.1.3"]"#, "[10,0,1]", "7", r#""web""#] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
        let bytes = msgpack::encode(&both).unwrap();
        assert_eq!(msgpack::decode::<Addresses>(&bytes).unwrap(), both);
        let former = msgpack::encode(&Some(Ipv4Addr::new(10, 0, 1, 2))).unwrap();
        assert_eq!(msgpack::decode(&former).ok(), Some(Addresses::from([10, 0, 1, 2])));
        let none = msgpack::encode(&None::<Ipv4Addr>).unwrap();
        assert_eq!(msgpack::decode(&none).ok(), Some(Addresses::default()));
    }

    #[test]
    fn a_hardware_address_follows_from_the_address_of_either_family() {
        let mac = |text: &str| mac_of(text.parse().unwrap());
        assert_eq!(mac("10.0.1.2"), [0x02, 0x42, 10, 0, 1, 2]);
        assert_eq!(mac("fd00::1:2"), [0x02, 0x43, 0, 1, 0, 2]);
        let both: Addresses =
            ["fd00::7", "10.0.1.2"].iter().map(|text| text.parse().unwrap()).collect();
        assert_eq!(both.mac(), Some([0x02, 0x42, 10, 0, 1, 2]));
        assert_eq!(Addresses::default().mac(), None);
    }
}
