//! Addresses as users write them: `--listen-addr`, `--advertise-addr`, and remote managers.

use nix::ifaddrs::getifaddrs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use types::Fault;

/// The port on which managers listen for nodes.
const PORT: u16 = 2377;

/// An interface of this machine and one of its addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Interface {
    pub(crate) name: String,
    pub(crate) address: Ipv4Addr,
}

/// The machine's IPv4 addresses, without loopback.
pub(crate) fn interfaces() -> Result<Vec<Interface>, Fault> {
    let found = getifaddrs().map_err(|error| {
        Fault::internal(format!("cannot read the machine's addresses: {error}"))
    })?;
    let interfaces = found.filter_map(|interface| {
        let address = interface.address?.as_sockaddr_in()?.ip();
        // Ours lead to containers, not to other nodes.
        let usable = !address.is_loopback() && !interface.interface_name.starts_with("skep");
        usable.then_some(Interface { name: interface.interface_name, address })
    });
    Ok(interfaces.collect())
}

/// Refuses an IPv6 address, with a port or without.
fn check_family(text: &str) -> Result<(), Fault> {
    if text.starts_with('[') || text.parse::<Ipv6Addr>().is_ok() {
        return Err(Fault::not_implemented(&format!("{text} (nodes reach each other by IPv4)")));
    }
    Ok(())
}

/// Takes `HOST` and `PORT` apart.
fn split(text: &str) -> Result<(&str, u16), Fault> {
    check_family(text)?;
    let Some((host, port)) = text.rsplit_once(':') else { return Ok((text, PORT)) };
    let port = port.parse().map_err(|_invalid| {
        Fault::invalid(format!("invalid address '{text}': use ADDRESS or ADDRESS:PORT"))
    })?;
    Ok((host, if port == 0 { PORT } else { port }))
}

/// Reads an address or the name of an interface.
fn host(host: &str, interfaces: &[Interface]) -> Result<Ipv4Addr, Fault> {
    if let Ok(address) = host.parse() {
        return Ok(address);
    }
    let mut named = interfaces.iter().filter(|interface| interface.name == host);
    match (named.next(), named.next()) {
        (Some(one), None) => Ok(one.address),
        (Some(_), Some(_)) => Err(Fault::invalid(format!(
            "interface {host} has more than one IPv4 address: give the address itself"
        ))),
        (None, _) => Err(Fault::invalid(format!(
            "must specify a listening address because the address to advertise is not recognized \
             as a system address, and a system's IP address to use could not be uniquely \
             identified: no address or interface '{host}'"
        ))),
    }
}

/// Where a manager listens.
pub(crate) fn listen(text: &str, interfaces: &[Interface]) -> Result<SocketAddr, Fault> {
    let text = if text.is_empty() { "0.0.0.0" } else { text };
    let (name, port) = split(text)?;
    Ok(SocketAddr::from((host(name, interfaces)?, port)))
}

/// Where other nodes reach this one: what the user says, or the machine's only address.
pub(crate) fn advertise(
    text: &str,
    listen: SocketAddr,
    interfaces: &[Interface],
) -> Result<(IpAddr, u16), Fault> {
    if !text.is_empty() {
        let with_port = text.contains(':');
        let (name, port) = split(text)?;
        let address = host(name, interfaces)?;
        if address.is_unspecified() {
            return Err(Fault::invalid("advertise address must be a non-zero IP address"));
        }
        return Ok((address.into(), if with_port { port } else { listen.port() }));
    }
    if let SocketAddr::V4(listen) = listen
        && !listen.ip().is_unspecified()
    {
        return Ok(((*listen.ip()).into(), listen.port()));
    }
    match interfaces {
        [one] => Ok((one.address.into(), listen.port())),
        [] => Err(Fault::invalid(
            "could not choose an IP address to advertise since this system has no IPv4 address - \
             specify one with --advertise-addr",
        )),
        [one, two, ..] => Err(Fault::invalid(format!(
            "could not choose an IP address to advertise since this system has multiple addresses \
             on different interfaces ({} on {} and {} on {}) - specify one with --advertise-addr",
            one.address, one.name, two.address, two.name
        ))),
    }
}

/// Where the overlays' traffic goes, if that is not where other nodes reach this one.
pub(crate) fn data_path(
    text: &str,
    advertised: IpAddr,
    interfaces: &[Interface],
) -> Result<Option<IpAddr>, Fault> {
    if text.is_empty() {
        return Ok(None);
    }
    check_family(text)?;
    let address = host(text, interfaces)?;
    if address.is_unspecified() {
        return Err(Fault::invalid("data path address must be a non-zero IP address"));
    }
    Ok(Some(IpAddr::V4(address)).filter(|address| *address != advertised))
}

/// A manager's RPC address with its port.
pub(crate) fn remote(text: &str) -> Result<String, Fault> {
    let (host, port) = split(text)?;
    if host.is_empty() {
        return Err(Fault::invalid("invalid remote address: use ADDRESS or ADDRESS:PORT"));
    }
    Ok(format!("{host}:{port}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use types::FaultKind;

    fn interfaces(list: &[(&str, [u8; 4])]) -> Vec<Interface> {
        let interface = |(name, address): &(&str, [u8; 4])| Interface {
            name: (*name).into(),
            address: (*address).into(),
        };
        list.iter().map(interface).collect()
    }

    #[test]
    fn the_only_address_is_advertised() {
        let one = interfaces(&[("eth0", [10, 0, 0, 5])]);
        let listen = listen("", &one).unwrap();
        assert_eq!(listen.to_string(), "0.0.0.0:2377");
        assert_eq!(advertise("", listen, &one).unwrap(), ([10, 0, 0, 5].into(), 2377));
    }

    #[test]
    fn of_several_addresses_the_user_names_one() {
        let two = interfaces(&[("eth0", [10, 0, 0, 5]), ("eth1", [10, 1, 0, 5])]);
        let listen = listen("0.0.0.0:3000", &two).unwrap();
        let fault = advertise("", listen, &two).unwrap_err();
        assert!(fault.message.contains("10.0.0.5 on eth0 and 10.1.0.5 on eth1"), "{fault}");
        assert_eq!(advertise("eth1", listen, &two).unwrap(), ([10, 1, 0, 5].into(), 3000));
        assert_eq!(advertise("1.2.3.4:99", listen, &two).unwrap(), ([1, 2, 3, 4].into(), 99));
        assert!(advertise("0.0.0.0", listen, &two).is_err());
    }

    #[test]
    fn overlays_may_have_an_address_of_their_own() {
        let octets = [[10, 0, 0, 5], [10, 1, 0, 5]];
        let [advertised, other] = octets.map(IpAddr::from);
        let two = interfaces(&[("eth0", octets[0]), ("eth1", octets[1])]);
        assert_eq!(data_path("", advertised, &two).unwrap(), None);
        assert_eq!(data_path("eth0", advertised, &two).unwrap(), None);
        assert_eq!(data_path("eth1", advertised, &two).unwrap(), Some(other));
        assert_eq!(data_path("10.1.0.5", advertised, &two).unwrap(), Some(other));
        assert!(data_path("0.0.0.0", advertised, &two).is_err());
        assert!(data_path("eth7", advertised, &two).is_err());
        assert!(data_path("10.1.0.5:4789", advertised, &two).is_err());
    }

    #[test]
    fn ipv6_is_refused_by_name() {
        let here = [10, 0, 0, 5];
        let one = interfaces(&[("eth0", here)]);
        for text in ["2001:db8::1", "[2001:db8::1]", "[2001:db8::1]:2377"] {
            let refused = [
                listen(text, &one).unwrap_err(),
                advertise(text, SocketAddr::from((here, PORT)), &one).unwrap_err(),
                data_path(text, here.into(), &one).unwrap_err(),
                remote(text).unwrap_err(),
            ];
            for fault in refused {
                assert_eq!(fault.kind, FaultKind::NotImplemented, "{fault}");
                assert!(fault.message.contains(text), "{fault}");
            }
        }
    }

    #[test]
    fn a_remote_gets_the_port_it_lacks() {
        assert_eq!(remote("10.0.0.1").unwrap(), "10.0.0.1:2377");
        assert_eq!(remote("manager:99").unwrap(), "manager:99");
        assert!(remote("manager:x").is_err() && remote("").is_err());
    }
}
