//! Networks: `POST /networks/create` in, network resources out.

use ipnet::IpNet;
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::Digest;
use std::collections::BTreeMap;
use std::net::IpAddr;
use types::{Addresses, Fault, Labels, Network, NetworkSpec, NodeNetwork, Subnet};

#[derive(Debug, Default, Deserialize)]
#[serde(rename = "NetworkCreate", rename_all = "PascalCase", default)]
pub(crate) struct CreateJson {
    name: String,
    driver: String,
    scope: String,
    internal: bool,
    attachable: bool,
    options: Labels,
    labels: Labels,
    #[serde(rename = "IPAM")]
    ipam: IpamJson,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename = "IPAM", rename_all = "PascalCase", default)]
struct IpamJson {
    config: Vec<IpamConfigJson>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename = "IPAMConfig", rename_all = "PascalCase", default)]
struct IpamConfigJson {
    subnet: String,
    gateway: String,
    #[serde(rename = "IPRange")]
    range: String,
    #[serde(rename = "AuxiliaryAddresses")]
    aux: Labels,
}

impl CreateJson {
    pub(crate) fn parse(self) -> Result<NetworkSpec, Fault> {
        match self.driver.as_str() {
            "overlay" if matches!(self.scope.as_str(), "" | "swarm") => {}
            "overlay" => {
                let text = format!("an overlay network of scope '{}'", self.scope);
                return Err(Fault::not_implemented(&text));
            }
            "" if self.scope == "swarm" => {}
            other => {
                let driver = if other.is_empty() { "bridge" } else { other };
                let text = format!("a network of driver '{driver}' (use --driver overlay)");
                return Err(Fault::not_implemented(&text));
            }
        }
        if self.ipam.config.len() > 1 {
            return Err(Fault::not_implemented("a network with more than one subnet"));
        }
        let config = self.ipam.config.into_iter().next().unwrap_or_default();
        let spec = NetworkSpec {
            name: self.name,
            labels: self.labels,
            driver: "overlay".to_owned(),
            driver_options: self.options,
            attachable: self.attachable,
            internal: self.internal,
            ingress: false,
            ipv6: false,
            subnets: subnet(&config)?.into_iter().collect(),
            ip_ranges: range(&config.range)?.into_iter().collect(),
            aux_addresses: config.aux.into_iter().map(aux).collect::<Result<_, _>>()?,
        };
        spec.check_options()?;
        Ok(spec)
    }
}

fn range(text: &str) -> Result<Option<IpNet>, Fault> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_invalid| Fault::invalid(format!("invalid ip-range {text}")))
}

fn aux((name, text): (String, String)) -> Result<(String, Addresses), Fault> {
    match text.parse::<IpAddr>() {
        Ok(address) => Ok((name, address.into())),
        Err(_) => Err(Fault::invalid(format!("invalid auxiliary address {name}: {text}"))),
    }
}

/// Reads one subnet; `None` where the user leaves it to the cluster.
fn subnet(config: &IpamConfigJson) -> Result<Option<Subnet>, Fault> {
    if config.subnet.is_empty() {
        if !config.gateway.is_empty() || !config.range.is_empty() || !config.aux.is_empty() {
            return Err(Fault::invalid("invalid IPAM config: it needs a Subnet"));
        }
        return Ok(None);
    }
    let net = match config.subnet.parse() {
        Ok(IpNet::V4(net)) => net.trunc(),
        Ok(IpNet::V6(net)) => {
            let text = format!("IPAM.Config.Subnet={net} (networks are of IPv4)");
            return Err(Fault::not_implemented(&text));
        }
        Err(_) => return Err(Fault::invalid(format!("invalid subnet {}", config.subnet))),
    };
    if !(8..=29).contains(&net.prefix_len()) {
        return Err(Fault::invalid(format!("invalid subnet {net}: use a prefix from /8 to /29")));
    }
    let gateway = if config.gateway.is_empty() {
        net.hosts().next()
    } else {
        config.gateway.parse().ok().filter(|gateway| net.contains(gateway))
    };
    let gateway = gateway.ok_or_else(|| {
        Fault::invalid(format!("no matching subnet for gateway {}", config.gateway))
    })?;
    Ok(Some(Subnet { net: net.into(), gateway: gateway.into() }))
}

/// One subnet as requests and answers have it.
pub fn config_of(spec: &NetworkSpec, subnet: &Subnet) -> Value {
    let mut config = json!({ "Subnet": subnet.net, "Gateway": subnet.gateway });
    if let Some(range) = spec.range_of(subnet) {
        config["IPRange"] = json!(range);
    }
    let aux: BTreeMap<&str, IpAddr> = spec.aux_of(subnet).collect();
    if !aux.is_empty() {
        config["AuxiliaryAddresses"] = json!(aux);
    }
    config
}

fn ipam(network: &Network) -> Value {
    let subnets = network.subnets_or_asked().iter();
    let config: Vec<Value> = subnets.map(|subnet| config_of(&network.spec, subnet)).collect();
    json!({ "Driver": "default", "Options": null, "Config": config })
}

fn options(network: &Network) -> Labels {
    let mut options = network.spec.driver_options.clone();
    if network.vni != 0 {
        options.insert(NetworkSpec::VXLAN_ID.into(), network.vni.to_string());
    }
    options
}

/// Renders a network as `GET /networks/{id}` shows it. `containers` are those on this node.
pub(crate) fn render(network: &Network, containers: &Value) -> Value {
    json!({
        "Name": network.spec.name,
        "Id": network.id,
        "Created": network.meta.created_at.rfc3339(),
        "Scope": "swarm",
        "Driver": "overlay",
        "EnableIPv4": true,
        "EnableIPv6": network.spec.ipv6,
        "IPAM": ipam(network),
        "Internal": network.spec.internal,
        "Attachable": network.spec.attachable,
        "Ingress": network.spec.ingress,
        "ConfigFrom": { "Network": "" },
        "ConfigOnly": false,
        "Containers": containers,
        "Options": options(network),
        "Labels": network.spec.labels,
    })
}

/// An id of the usual length for what is known by something else.
pub(crate) fn derived_id(of: &str) -> String {
    let digit = |nibble: u8| char::from_digit(u32::from(nibble), 16).unwrap_or('0');
    let digest = sha2::Sha256::digest(of);
    digest.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// An id of the usual length for a network of the node's own.
pub(crate) fn local_id(name: &str) -> String {
    let digit = |nibble: u8| char::from_digit(u32::from(nibble), 16).unwrap_or('0');
    let id: String = name.bytes().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect();
    format!("{id:0<64}")
}

/// An address as Docker shows it, with the length of its network's prefix.
pub(crate) fn with_prefix(address: IpAddr, network: Option<&Network>) -> String {
    let whole = || format!("{address}/{}", if address.is_ipv4() { 32 } else { 128 });
    network.map_or_else(whole, |network| network.with_prefix(address))
}

/// A container's place on a network; the addresses have their prefixes' lengths behind them, where
/// they are known.
pub(crate) struct EndpointJson<'a> {
    pub(crate) name: &'a str,
    pub(crate) id: String,
    pub(crate) mac: String,
    pub(crate) v4: &'a str,
    pub(crate) v6: &'a str,
}

impl EndpointJson<'_> {
    pub(crate) fn render(&self) -> Value {
        json!({
            "Name": self.name,
            "EndpointID": self.id,
            "MacAddress": self.mac,
            "IPv4Address": self.v4,
            "IPv6Address": self.v6,
        })
    }
}

/// Renders a network of a node's own (`bridge`, `host`, `none`).
pub(crate) fn render_local(name: &str, driver: &str, subnet: Option<IpNet>) -> Value {
    let config = subnet.map(|net| json!([{ "Subnet": net, "Gateway": net.hosts().next() }]));
    json!({
        "Name": name,
        "Id": local_id(name),
        "Created": "0001-01-01T00:00:00Z",
        "Scope": "local",
        "Driver": driver,
        "EnableIPv4": true,
        "EnableIPv6": false,
        "IPAM": { "Driver": "default", "Options": null, "Config": config },
        "Internal": false,
        "Attachable": false,
        "Ingress": false,
        "ConfigFrom": { "Network": "" },
        "ConfigOnly": false,
        "Containers": {},
        "Options": {},
        "Labels": {},
    })
}

/// Renders a network of every node's own as services are put on it: clients look for one of the
/// cluster's.
pub(crate) fn render_predefined(network: NodeNetwork) -> Value {
    let mut shown = render_local(network.name(), network.driver(), None);
    shown["Scope"] = json!("swarm");
    shown["Labels"] = json!({ "com.docker.swarm.predefined": "true" });
    shown
}

/// Renders a network inside a task: the cluster's form rather than the engine's.
pub(crate) fn render_nested(network: &Network) -> Value {
    super::with_meta(
        json!({
            "ID": network.id,
            "Spec": {
                "Name": network.spec.name,
                "Labels": network.spec.labels,
                "DriverConfiguration": { "Name": "overlay" },
                "Attachable": network.spec.attachable,
                "Internal": network.spec.internal,
                "Ingress": network.spec.ingress,
                "Scope": "swarm",
            },
            "DriverState": { "Name": "overlay", "Options": options(network) },
            "IPAMOptions": { "Driver": { "Name": "default" }, "Configs": ipam(network)["Config"] },
        }),
        &network.meta,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use types::FaultKind;

    fn parse(text: &str) -> Result<NetworkSpec, Fault> {
        crate::request::read::<CreateJson>(text.as_bytes())?.value.parse()
    }

    #[test]
    fn a_subnet_brings_its_first_address_as_gateway() {
        let spec = parse(
            r#"{"Name":"a","Driver":"overlay","IPAM":{"Config":[{"Subnet":"10.9.0.7/24"}]}}"#,
        )
        .unwrap();
        let subnet = spec.subnets[0];
        assert_eq!(
            (subnet.net.to_string(), subnet.gateway.to_string()),
            ("10.9.0.0/24".into(), "10.9.0.1".into())
        );
    }

    #[test]
    fn a_range_and_kept_addresses_come_back() {
        let config = r#"{"Subnet":"10.9.0.0/24","Gateway":"10.9.0.9","IPRange":"10.9.0.128/25","AuxiliaryAddresses":{"a":"10.9.0.200"}}"#;
        let spec = parse(&format!(r#"{{"Driver":"overlay","IPAM":{{"Config":[{config}]}}}}"#));
        let network = Network { spec: spec.unwrap(), ..Network::default() };
        assert_eq!(ipam(&network)["Config"][0], serde_json::from_str::<Value>(config).unwrap());
    }

    #[test]
    fn wrong_subnets_and_drivers_are_refused() {
        for text in [
            r#"{"Driver":"overlay","IPAM":{"Config":[{"Subnet":"10.9.0.0/24","IPRange":"x"}]}}"#,
            r#"{"Driver":"overlay","IPAM":{"Config":[{"AuxiliaryAddresses":{"a":"b"}}]}}"#,
            r#"{"Driver":"overlay","IPAM":{"Config":[{"Subnet":"10.9.0.0/33"}]}}"#,
            r#"{"Driver":"overlay","IPAM":{"Config":[{"Subnet":"10.9.0.0/24","Gateway":"10.8.0.1"}]}}"#,
            r#"{"Driver":"macvlan"}"#,
            r#"{"Driver":"overlay","EnableIPv6":true}"#,
            r#"{"Driver":"overlay","EnableIPv4":false}"#,
            r#"{"Driver":"overlay","IPAM":{"Config":[{"Gateway":"10.8.0.1"}]}}"#,
            r#"{"Driver":"bridge","Scope":"swarm"}"#,
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
        let driver = parse(r#"{"Name":"a"}"#).unwrap_err().message;
        assert!(driver.contains("driver 'bridge'"), "{driver}");
    }

    #[test]
    fn ipv6_is_refused_by_name() {
        let config = |config: &str| {
            parse(&format!(r#"{{"Driver":"overlay","IPAM":{{"Config":[{config}]}}}}"#))
        };
        let fault = config(r#"{"Subnet":"fd00::/64"}"#).unwrap_err();
        assert_eq!(fault.kind, FaultKind::NotImplemented);
        assert!(fault.message.contains("IPAM.Config.Subnet=fd00::/64"), "{fault}");
        for beside in [r#""IPRange":"fd00::/80""#, r#""AuxiliaryAddresses":{"a":"fd00::7"}"#] {
            let spec = config(&format!(r#"{{"Subnet":"10.9.0.0/24",{beside}}}"#));
            let fault = spec.and_then(|spec| spec.check_ipam()).unwrap_err();
            assert!(fault.message.starts_with("no matching subnet for "), "{fault}");
        }
    }

    #[test]
    fn options_of_dockers_that_are_not_honoured_are_refused_by_name() {
        for (option, value) in [(NetworkSpec::VXLAN_ID, "4097"), ("encrypted", ""), ("dsr", "true")]
        {
            let fault =
                parse(&format!(r#"{{"Driver":"overlay","Options":{{"{option}":"{value}"}}}}"#));
            let fault = fault.unwrap_err();
            let named = format!("not supported by skep yet: Options.{option}={value} (");
            assert!(fault.message.starts_with(&named), "{fault}");
        }
    }
}
