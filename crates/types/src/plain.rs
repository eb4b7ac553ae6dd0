//! IP addresses and networks as text, for `#[serde(with = "types::plain")]`. Before there were two
//! families, octets were written: these are read too, and one where a list stands now.

use ipnet::{IpNet, Ipv4Net};
use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};
use serde::ser::{Serialize, Serializer};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

pub fn serialize<T: Plain, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    value.write(serializer)
}

pub fn deserialize<'de, T: Plain, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    let stored = Stored::deserialize(deserializer)?;
    T::read(&stored).ok_or_else(|| Error::custom("neither an IP address nor a network"))
}

/// What is stored as text.
pub trait Plain: Sized {
    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error>;

    /// What a stored value means; `None`: nothing of this kind.
    fn read(stored: &Stored) -> Option<Self>;
}

impl Plain for IpAddr {
    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }

    fn read(stored: &Stored) -> Option<Self> {
        match stored {
            Stored::Text(text) => text.parse().ok(),
            Stored::List(_) => stored.octets::<4>().map(Self::from),
            Stored::Nothing | Stored::Octet(_) => None,
        }
    }
}

impl Plain for IpNet {
    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }

    fn read(stored: &Stored) -> Option<Self> {
        match stored {
            Stored::Text(text) => text.parse().ok(),
            Stored::List(_) => {
                let [a, b, c, d, prefix] = stored.octets()?;
                Ipv4Net::new(Ipv4Addr::new(a, b, c, d), prefix).ok().map(Self::V4)
            }
            Stored::Nothing | Stored::Octet(_) => None,
        }
    }
}

impl<T: Plain> Plain for Option<T> {
    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Some(value) => value.write(serializer),
            None => serializer.serialize_none(),
        }
    }

    fn read(stored: &Stored) -> Option<Self> {
        match stored {
            Stored::Nothing => Some(None),
            Stored::Octet(_) | Stored::Text(_) | Stored::List(_) => T::read(stored).map(Some),
        }
    }
}

impl<T: Plain> Plain for Vec<T> {
    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter().map(Written))
    }

    fn read(stored: &Stored) -> Option<Self> {
        let one = T::read(stored).map(|value| vec![value]);
        match stored {
            Stored::Nothing => Some(Self::new()),
            Stored::List(list) => one.or_else(|| list.iter().map(T::read).collect()),
            Stored::Octet(_) | Stored::Text(_) => one,
        }
    }
}

struct Written<'a, T>(&'a T);

impl<T: Plain> Serialize for Written<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.write(serializer)
    }
}

/// Whatever may stand for addresses.
#[derive(Debug)]
pub enum Stored {
    Nothing,
    Octet(u8),
    Text(String),
    List(Vec<Self>),
}

impl Stored {
    fn octets<const N: usize>(&self) -> Option<[u8; N]> {
        let Self::List(list) = self else { return None };
        let octet = |it: &Self| match it {
            Self::Octet(octet) => Some(*octet),
            Self::Nothing | Self::Text(_) | Self::List(_) => None,
        };
        let octets: Vec<u8> = list.iter().map(octet).collect::<Option<_>>()?;
        octets.try_into().ok()
    }
}

impl<'de> Deserialize<'de> for Stored {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Any)
    }
}

struct Any;

impl<'de> Visitor<'de> for Any {
    type Value = Stored;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("IP addresses or networks")
    }

    fn visit_unit<E>(self) -> Result<Stored, E> {
        Ok(Stored::Nothing)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Stored, E> {
        u8::try_from(number).map(Stored::Octet).map_err(E::custom)
    }

    fn visit_str<E>(self, text: &str) -> Result<Stored, E> {
        Ok(Stored::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Stored, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = list.next_element()? {
            values.push(value);
        }
        Ok(Stored::List(values))
    }
}

#[cfg(test)]
mod tests {
    use super::{IpAddr, IpNet, Ipv4Addr, Ipv4Net};
    use serde::{Deserialize, Serialize};

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Kept {
        #[serde(with = "crate::plain")]
        address: IpAddr,
        #[serde(with = "crate::plain")]
        other: Option<IpAddr>,
        #[serde(with = "crate::plain")]
        nets: Vec<IpNet>,
        #[serde(with = "crate::plain")]
        pools: Vec<IpNet>,
    }

    /// As it was written before there were two families.
    #[derive(Serialize)]
    struct Former {
        address: Ipv4Addr,
        other: Option<Ipv4Addr>,
        nets: Option<Ipv4Net>,
        pools: Vec<Ipv4Net>,
    }

    #[test]
    fn addresses_are_text_and_octets_are_read_too() {
        let net: Ipv4Net = "10.0.1.0/24".parse().unwrap();
        let address = Ipv4Addr::new(10, 0, 1, 2);
        for (other, nets) in [(None, None), (Some(address), Some(net))] {
            let kept = Kept {
                address: address.into(),
                other: other.map(IpAddr::V4),
                nets: nets.map(IpNet::V4).into_iter().collect(),
                pools: vec![net.into(), net.into()],
            };
            let former = Former { address, other, nets, pools: vec![net, net] };
            let former = [msgpack::encode(&former), msgpack::encode(&kept)];
            for bytes in former {
                assert_eq!(msgpack::decode::<Kept>(&bytes.unwrap()).unwrap(), kept);
            }
        }
        let text = r#"{"address":"fd00::1","other":null,"nets":["fd00::/64"],"pools":[]}"#;
        let read: Kept = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), text);
        let wrong = r#"{"address":"fd00::1/64","other":null,"nets":[],"pools":[]}"#;
        assert!(serde_json::from_str::<Kept>(wrong).is_err());
    }
}
