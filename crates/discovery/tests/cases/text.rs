//! How a case is read, and its outcome shown.

use discovery::{
    Answer, Endpoint, Here, Kind, Knowledge, MeshNode, MeshPort, MeshTask, OrdMap, OrdSet,
    Projection, Question, Sandbox, SandboxAttachment, ServiceView, answer, project,
};
use expect_test::Expect;
use std::fmt::Write;
use std::net::IpAddr;
use types::{Addresses, NodeId, Protocol, Subnet, TaskId};

/// Reads the text, projects for node n1 and shows the outcome with the answers to all questions.
pub(crate) fn check(text: &str, outcome: &Expect) {
    let mut known = Knowledge::default();
    let mut here = Here {
        node: NodeId::from("n1"),
        address: [192, 168, 0, 1].into(),
        data_path_port: 4789,
        sandboxes: OrdMap::new(),
        hidden: OrdSet::new(),
    };
    let mut questions = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[0] {
            "ask" => questions.push((words[1], words[2], words[3])),
            "hidden" => drop(here.hidden.insert(words[1].into())),
            "sandbox" => sandbox(&mut here, &words),
            _ => learn(&mut known, &words),
        }
    }
    let projection = project(&known, &here);
    let mut shown = show(&projection);
    for (id, kind, name) in questions {
        let kind = match kind {
            "A" => Kind::A,
            "AAAA" => Kind::Aaaa,
            "PTR" => Kind::Pointer,
            "ANY" => Kind::Any,
            "AXFR" => Kind::Transfer,
            _ => Kind::Other,
        };
        let reply = match answer(&projection.zones[id], Question { name, kind }) {
            Answer::Addresses { v4, v6 } => {
                let v4 = v4.iter().copied().map(IpAddr::V4);
                format!("{:?}", v4.chain(v6.iter().copied().map(IpAddr::V6)).collect::<Vec<_>>())
            }
            other => format!("{other:?}"),
        };
        writeln!(shown, "{id} {name}: {reply}").unwrap();
    }
    outcome.assert_eq(&shown);
}

fn learn(known: &mut Knowledge, words: &[&str]) {
    match words {
        ["network", id, name, net, rest @ ..] => {
            let view = known.networks.entry((*id).into()).or_default();
            (view.name, view.vni) = ((*name).to_owned(), 4097);
            let nets = net.split('+').map(|net| net.parse().unwrap());
            view.subnets = nets.filter_map(Subnet::new).collect();
            view.internal = rest == ["internal"];
        }
        ["service", network, name, vip, aliases @ ..] => {
            let (stack, aliases) = match aliases {
                ["of", stack, aliases @ ..] => (*stack, aliases),
                aliases => ("", aliases),
            };
            let service = ServiceView {
                name: (*name).to_owned(),
                stack: stack.to_owned(),
                aliases: aliases.iter().map(|&alias| alias.to_owned()).collect(),
                vips: addresses(vip),
            };
            let view = known.networks.get_mut(&(*network).into()).unwrap();
            view.services.insert((*name).into(), service);
        }
        ["task", network, id, slot, address, node, state, aliases @ ..] => {
            let service = slot.split('.').next().unwrap();
            let endpoint = Endpoint {
                addresses: addresses(address),
                node: (*node).into(),
                vtep: format!("192.168.0.{}", &node[1..]).parse().unwrap(),
                service: service.into(),
                name: format!("{slot}.{id}"),
                aliases: aliases.iter().map(|&alias| alias.to_owned()).collect(),
                serving: *state == "serving",
            };
            let view = known.networks.get_mut(&(*network).into()).unwrap();
            view.endpoints.insert((*id).into(), endpoint);
        }
        ["node", id, own @ ..] => {
            let address = format!("192.168.0.{}", &id[1..]).parse().unwrap();
            let ingress = format!("10.255.0.{}", &id[1..]);
            let ingress = addresses(own.first().unwrap_or(&ingress.as_str()));
            known.mesh.nodes.insert((*id).into(), MeshNode { address, ingress });
        }
        ["mesh", id, ingress, node, state] => {
            let ingress = addresses(ingress);
            let task = MeshTask { node: (*node).into(), ingress, serving: *state == "serving" };
            known.mesh.tasks.insert((*id).into(), task);
        }
        ["port", published, target, tasks @ ..] => {
            let tasks = tasks.iter().map(|&task| TaskId::from(task)).collect();
            let port = MeshPort { service: "web".into(), target: target.parse().unwrap(), tasks };
            known.mesh.ports.insert((Protocol::Tcp, published.parse().unwrap()), port);
        }
        other => panic!("cannot read {other:?}"),
    }
}

/// `10.0.1.2`, `fd00:1::2`, or both as `10.0.1.2+fd00:1::2`; none where it is another word.
fn addresses(text: &str) -> Addresses {
    text.split('+').filter_map(|address| address.parse::<IpAddr>().ok()).collect()
}

/// `sandbox ID TASK|- NETWORK=ADDRESS… PUBLISHED:TARGET…`
fn sandbox(here: &mut Here, words: &[&str]) {
    let number = u8::try_from(here.sandboxes.len() + 2).unwrap();
    let mut sandbox = Sandbox {
        task: Some(words[2]).filter(|task| *task != "-").map(Into::into),
        netns: format!("/run/netns/{}", words[1]),
        gateway_addresses: [172, 30, 0, number].into(),
        attachments: Vec::new(),
        dns_port: 40000,
        host_ports: Vec::new(),
        nameservers: Vec::new(),
    };
    for word in &words[3..] {
        if let Some(server) = word.strip_prefix("dns=") {
            sandbox.nameservers.push(server.parse().unwrap());
            continue;
        }
        if let Some((network, address)) = word.split_once('=') {
            let addresses = addresses(address);
            let attachment = SandboxAttachment { network: network.into(), addresses };
            sandbox.attachments.push(attachment);
        } else if let Some((published, target)) = word.split_once(':') {
            let ports = (Protocol::Tcp, published.parse().unwrap(), target.parse().unwrap());
            sandbox.host_ports.push(ports);
        }
    }
    here.sandboxes.insert(words[1].to_owned(), sandbox);
}

fn show(projection: &Projection) -> String {
    let mut out = String::new();
    for (id, overlay) in &projection.desired.overlays {
        let (peers, remotes) = (&overlay.peers, &overlay.remotes);
        writeln!(out, "overlay {id} vni {} peers {peers:?} remotes {remotes:?}", overlay.vni)
            .unwrap();
    }
    for (id, rules) in &projection.desired.sandboxes {
        let networks: Vec<&str> = rules.interfaces.iter().map(|a| a.network.as_str()).collect();
        let route = rules.default_route;
        let v4 = rules.vips.v4.iter().map(|(vip, to)| format!("{vip}: {to:?}"));
        let v6 = rules.vips.v6.iter().map(|(vip, to)| format!("{vip}: {to:?}"));
        let vips = v4.chain(v6).collect::<Vec<_>>().join(", ");
        writeln!(out, "sandbox {id} on {networks:?} default route {route} vips {{{vips}}}")
            .unwrap();
    }
    let mesh = &projection.desired.mesh;
    if !mesh.ingress.is_empty() {
        writeln!(out, "mesh {} peers {:?}", mesh.ingress, mesh.peers).unwrap();
        writeln!(out, "  local {:?} remote {:?}", mesh.local_tasks, mesh.remote_tasks).unwrap();
        for ((_, port), rules) in &mesh.ports {
            writeln!(out, "  port {port} -> {:?}:{}", rules.backends, rules.target).unwrap();
        }
    }
    for ((_, port), target) in &mesh.host_ports {
        writeln!(out, "host port {port} -> {target:?}").unwrap();
    }
    out
}
