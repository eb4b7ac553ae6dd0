//! What a plan changes, as cases tell it.

use super::{NOW, SINCE};
use std::fmt::Write;
use store::{Change, Object, View};
use types::{
    Addresses, Network, Node, PublishMode, PublishedPort, Service, Slot, Task, Timestamp, Vip,
};

/// What a change changes, in lines that begin with `+`, `~` or `-`.
pub(super) fn render(before: &View, change: &Change) -> Vec<String> {
    match change {
        Change::Put(Object::Task(task)) => {
            let sign = if before.task(&task.id).is_some() { "~" } else { "+" };
            vec![format!("{sign} {}", render_task(task))]
        }
        Change::Remove(store::Key::Task(id)) => {
            vec![format!("- {}", render_task(before.task(id).expect("it was there")))]
        }
        Change::Put(Object::Service(service)) => {
            render_service(before.service(&service.id).expect("it was there"), service)
        }
        Change::Put(Object::Network(network)) => {
            vec![render_network(before.network(&network.id).expect("it was there"), network)]
        }
        Change::Put(Object::Node(node)) => vec![render_node(node)],
        Change::Remove(store::Key::Network(id)) => vec![format!("- network {id}")],
        Change::Put(Object::Cluster(_) | Object::Secret(_) | Object::Config(_))
        | Change::Remove(_) => panic!("not the planner's business"),
    }
}

fn render_node(node: &Node) -> String {
    let address = match render_addresses(node.ingress_addresses) {
        empty if empty.is_empty() => "none".to_owned(),
        given => given,
    };
    let error = &node.allocation_error;
    let error = if error.is_empty() { String::new() } else { format!(" error: {error}") };
    format!("~ node {} ingress {address}{error}", node.id)
}

fn render_task(task: &Task) -> String {
    let node = task.node.as_ref().map_or("-", |node| node.as_str());
    let (state, desired) = (task.status.state.as_str(), task.desired.as_str());
    let mut text = format!("{}.{} {state} {desired} {node}", task.service, task.slot);
    let seconds = |time: Timestamp| time.0 / 1_000_000_000;
    let image = &task.spec.container.image;
    if !image.is_empty() {
        write!(text, " {image}").unwrap();
    }
    if let Some(iteration) = task.iteration.filter(|iteration| *iteration > 0) {
        write!(text, " iteration {iteration}").unwrap();
    }
    for attachment in &task.attachments {
        let addresses = render_addresses(attachment.addresses);
        write!(text, " {}={addresses}", attachment.network).unwrap();
    }
    if !task.ingress_addresses.is_empty() {
        write!(text, " mesh {}", render_addresses(task.ingress_addresses)).unwrap();
    }
    text += &render_ports(&task.ports);
    for variable in types::generic::environment(&task.generic) {
        write!(text, " given {}", variable.trim_start_matches("DOCKER_RESOURCE_").to_lowercase())
            .unwrap();
    }
    if let Some(time) = task.not_before {
        write!(text, " at {}s", seconds(time)).unwrap();
    }
    if let Some(replaced) = &task.replaces {
        write!(text, " replaces {replaced}").unwrap();
    }
    if !task.trial.is_zero() {
        write!(text, " trial {}s", task.trial.as_secs()).unwrap();
    }
    let restarts: Vec<String> =
        task.restarts.iter().map(|time| seconds(*time).to_string()).collect();
    if !restarts.is_empty() {
        write!(text, " restarts {}", restarts.join(",")).unwrap();
    }
    let since = seconds(task.status.since);
    if since != i64::from(SINCE) && since != i64::from(NOW) {
        write!(text, " since {since}s").unwrap();
    }
    if !task.status.error.is_empty() {
        write!(text, " error: {}", task.status.error).unwrap();
    }
    text
}

fn render_ports(ports: &[PublishedPort]) -> String {
    let mut text = String::new();
    for port in ports {
        let mode = if port.mode == PublishMode::Host { "/host" } else { "" };
        let protocol = port.protocol.as_str();
        write!(text, " {}:{}/{protocol}{mode}", port.published, port.target).unwrap();
    }
    if text.is_empty() { text } else { format!(" ports{text}") }
}

fn render_service(before: &Service, service: &Service) -> Vec<String> {
    let name = &service.spec.name;
    let mut lines = Vec::new();
    if service.homes != before.homes {
        let homes = service.homes.iter().map(|(slot, home)| format!(" {slot}:{home}"));
        lines.push(format!("~ {name} homes{}", homes.collect::<String>()));
    }
    if before.spec != service.spec {
        lines.push(format!("~ {name} image {}", service.spec.task.container.image));
    }
    if let Some(job) = service.job.as_ref().filter(|job| Some(*job) != before.job.as_ref()) {
        let seconds = |time: Timestamp| format!("{}s", time.0 / 1_000_000_000);
        let time = |time: Option<Timestamp>| time.map_or("never".to_owned(), seconds);
        let (begun, scheduled) = (time(job.last_execution), time(job.scheduled));
        lines.push(format!(
            "~ {name} iteration {} begun {begun} scheduled {scheduled}",
            job.iteration
        ));
    }
    if before.previous_spec.is_some() && service.previous_spec.is_none() {
        lines.push(format!("~ {name} previous none"));
    }
    if before.ports != service.ports {
        lines.push(format!("~ {name}{}", render_ports(&service.ports)));
    }
    if before.vips != service.vips {
        let vip = |vip: &Vip| format!(" {}={}", vip.network, render_addresses(vip.addresses));
        let vips: String = service.vips.iter().map(vip).collect();
        lines.push(format!("~ {name} vip{vips}"));
    }
    if before.allocation_error != service.allocation_error {
        lines.push(format!("~ {name} error: {}", service.allocation_error));
    }
    if let Some(update) = service.update.as_ref().filter(|_| before.update != service.update) {
        let state = format!("{:?}", update.state).to_lowercase();
        let slot = |slot: &Slot| match slot {
            Slot::Number(number) => number.to_string(),
            Slot::Node(node) => node.to_string(),
        };
        let lost: Vec<String> = update.failed.keys().map(slot).collect();
        let lost =
            if lost.is_empty() { lost.join("") } else { format!(" lost {}", lost.join(",")) };
        lines.push(format!("~ {name} update {state}{lost}: {}", update.message));
    }
    lines
}

fn render_network(before: &Network, network: &Network) -> String {
    let mut text = format!("~ network {}", network.spec.name);
    if before.vni != network.vni {
        write!(text, " vni {}", network.vni).unwrap();
    }
    for subnet in network.subnets.iter().filter(|it| !before.subnets.contains(it)) {
        write!(text, " subnet {} gateway {}", subnet.net, subnet.gateway).unwrap();
    }
    if before.last_addresses != network.last_addresses {
        write!(text, " last {}", render_addresses(network.last_addresses)).unwrap();
    }
    if before.last_vni != network.last_vni {
        write!(text, " last vni {}", network.last_vni).unwrap();
    }
    text
}

fn render_addresses(addresses: Addresses) -> String {
    addresses.iter().map(|address| address.to_string()).collect::<Vec<_>>().join("+")
}
