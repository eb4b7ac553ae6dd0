//! Published ports.

use crate::Planning;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use store::{View, rules};
use types::{Fault, Protocol, PublishMode, PublishedPort, Service, ServiceId};

/// Where ports come from that a user did not choose.
const DYNAMIC: std::ops::RangeInclusive<u16> = 30_000..=32_767;

/// Says why `ports` cannot be published by a service: one of them is taken, or named twice.
/// `service` is the service's own id, if it is there already.
pub fn port_conflict(
    view: &View,
    service: Option<&ServiceId>,
    ports: &[PublishedPort],
) -> Option<Fault> {
    let mut seen = BTreeSet::new();
    for port in ports.iter().filter(|port| port.published != 0) {
        if !seen.insert((port.protocol, port.published)) {
            return Some(Fault::invalid("duplicate published ports provided"));
        }
    }
    let others = || view.services().filter(|other| Some(&other.id) != service);
    let own = service.and_then(|service| view.service(service));
    // What a service has been given stays its own, though another one asks for it: a rollback may
    // bring back a spec whose port was given away meanwhile.
    let has = |port: &PublishedPort| {
        own.is_some_and(|own| {
            own.ports.iter().any(|it| {
                (it.protocol, it.published, it.mode)
                    == (port.protocol, port.published, PublishMode::Ingress)
            })
        })
    };
    for port in ports.iter().filter(|port| port.published != 0 && !has(port)) {
        let clash = |other: &&Arc<Service>, mode: PublishMode| {
            // A port that was asked for counts before it is given.
            let published = other.ports.iter().chain(&other.spec.endpoint.ports);
            published.into_iter().any(|it| {
                (it.protocol, it.published, it.mode) == (port.protocol, port.published, mode)
            })
        };
        if let Some(other) = others().find(|other| clash(other, PublishMode::Ingress)) {
            return Some(rules::port_taken(port.published, other));
        }
        // Two services may use a host's port on different nodes; the scheduler sees to it.
        if let Some(other) =
            others().find(|other| port.in_mesh() && clash(other, PublishMode::Host))
        {
            let (port, name, id) = (port.published, &other.spec.name, &other.id);
            return Some(Fault::invalid(format!(
                "port '{port}' is already in use by service '{name}' ({id}) as a host-published port"
            )));
        }
    }
    None
}

/// Gives services the ports of their specs, and numbers where the user chose none.
pub(crate) fn allocate<'a>(
    planning: &mut Planning<'_>,
    services: impl Iterator<Item = &'a ServiceId>,
) {
    let services = services.filter_map(|service| planning.tx.service(service));
    let unsettled = services.filter(|service| !is_settled(service));
    let mut services: Vec<Arc<Service>> = unsettled.cloned().collect();
    if services.is_empty() {
        return;
    }
    // Whoever was there first has the port.
    services.sort_by_key(|service| service.meta.created_at);
    let mut taken = Taken::read(&planning.tx);
    for service in services {
        let ports = match ports(&service, &taken) {
            Ok(ports) => ports,
            Err(error) => {
                planning.port_errors.insert(service.id.clone(), error);
                kept(&service)
            }
        };
        taken.add(&service, &ports);
        if service.ports != ports {
            planning.tx.edit_service(&service.id, |service| service.ports = ports);
        }
    }
}

/// Says whether a service has the ports of its spec.
pub(crate) fn is_settled(service: &Service) -> bool {
    let (has, asked) = (&service.ports, &service.spec.endpoint.ports);
    has.len() == asked.len() && has.iter().zip(asked).all(|(has, asked)| answers(has, asked))
}

fn answers(has: &PublishedPort, asked: &PublishedPort) -> bool {
    let number = match asked.published {
        0 => DYNAMIC.contains(&has.published),
        number => has.published == number,
    };
    let rest = (has.mode, has.protocol, has.target) == (asked.mode, asked.protocol, asked.target);
    number && rest && has.name == asked.name
}

/// The ports that a service has and still asks for.
fn kept(service: &Service) -> Vec<PublishedPort> {
    let asked = &service.spec.endpoint.ports;
    let still = |has: &&PublishedPort| asked.iter().any(|asked| answers(has, asked));
    service.ports.iter().filter(still).cloned().collect()
}

/// The ports that belong to services.
#[derive(Default)]
struct Taken {
    /// Of the mesh, with id and name of their services.
    mesh: BTreeMap<(Protocol, u16), (ServiceId, String)>,
    /// Of hosts. Several services may have one of these, so none is drawn that is here.
    host: BTreeSet<(Protocol, u16)>,
}

impl Taken {
    fn read(view: &View) -> Self {
        let mut taken = Self::default();
        for service in view.services() {
            taken.add(service, &kept(service));
        }
        taken
    }

    fn add(&mut self, service: &Service, ports: &[PublishedPort]) {
        for port in ports {
            let key = (port.protocol, port.published);
            if port.in_mesh() {
                self.mesh.insert(key, (service.id.clone(), service.spec.name.clone()));
            } else {
                self.host.insert(key);
            }
        }
    }

    fn is_free(&self, key: (Protocol, u16)) -> bool {
        !self.mesh.contains_key(&key) && !self.host.contains(&key)
    }
}

/// The ports of a service's spec with their numbers.
fn ports(service: &Service, taken: &Taken) -> Result<Vec<PublishedPort>, String> {
    let mut left = service.ports.clone();
    let mut ports: Vec<PublishedPort> = Vec::new();
    for asked in &service.spec.endpoint.ports {
        let mut port = asked.clone();
        // A number that was drawn before stays.
        match left.iter().position(|has| answers(has, asked)) {
            Some(index) => port = left.swap_remove(index),
            None if port.published == 0 => port.published = draw(taken, &ports, port.protocol)?,
            None => {}
        }
        let key = (port.protocol, port.published);
        let holder = taken.mesh.get(&key).filter(|(id, _)| *id != service.id);
        if let Some((id, name)) = holder.filter(|_| port.mode == PublishMode::Ingress) {
            return Err(format!(
                "port '{}' is already in use by service '{name}' ({id}) as an ingress port",
                port.published
            ));
        }
        if ports.iter().any(|other| (other.protocol, other.published) == key) {
            return Err("duplicate published ports provided".to_owned());
        }
        ports.push(port);
    }
    Ok(ports)
}

fn draw(taken: &Taken, ports: &[PublishedPort], protocol: Protocol) -> Result<u16, String> {
    let own = |number| ports.iter().any(|it| (it.protocol, it.published) == (protocol, number));
    DYNAMIC
        .into_iter()
        .find(|number| taken.is_free((protocol, *number)) && !own(*number))
        .ok_or_else(|| "no free port from 30000 to 32767".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check, read};
    use expect_test::expect;

    #[test]
    fn a_port_of_the_users_choice_is_given_and_another_one_drawn() {
        check(
            "
            service web replicas=0 ports=8080:80,0:443
            service api replicas=0 ports=0:80
            ",
            &expect![[r#"
                ~ api ports 30000:80/tcp
                ~ web ports 8080:80/tcp 30001:443/tcp
            "#]],
        );
    }

    #[test]
    fn a_drawn_port_stays_when_another_one_comes() {
        check(
            "
            service web replicas=0 ports=8080:8080,0:443 has-ports=30005:443
            ",
            &expect![[r#"
                ~ web ports 8080:8080/tcp 30005:443/tcp
            "#]],
        );
    }

    #[test]
    fn a_taken_port_is_not_given_and_the_tasks_say_why() {
        check(
            "
            node n1
            network ingress ingress subnet=10.255.0.0/16 vni=4096
            service web replicas=0 ports=8080:80 has-ports=8080:80
            service api replicas=1 ports=8080:80
            ",
            &expect![[r#"
                + api.1 new running - error: port '8080' is already in use by service 'web' (web) as an ingress port
                ~ api error: port '8080' is already in use by service 'web' (web) as an ingress port
                ~ api vip ingress=10.255.1.0
                ~ network ingress last 10.255.1.1
                ~ web vip ingress=10.255.1.1
            "#]],
        );
    }

    #[test]
    fn who_has_a_port_may_change_though_another_one_asks_for_it() {
        let view = read(
            "
            service web replicas=0 ports=8080:80 has-ports=8080:80
            service api replicas=0 ports=8080:80
            ",
        );
        let port = PublishedPort { target: 81, published: 8080, ..PublishedPort::default() };
        let conflict = |service: &str| {
            port_conflict(&view, Some(&service.into()), std::slice::from_ref(&port))
                .map(|fault| fault.message)
        };
        assert_eq!(conflict("web"), None);
        let taken = "port '8080' is already in use by service 'web' (web) as an ingress port";
        assert_eq!(conflict("api").as_deref(), Some(taken));
    }

    #[test]
    fn a_conflict_is_told_before_a_service_is_written() {
        let view = read("service web replicas=0 ports=8080:80 has-ports=8080:80");
        let port = |published| PublishedPort { target: 80, published, ..PublishedPort::default() };
        let conflict = |service: Option<&str>, ports: &[PublishedPort]| {
            port_conflict(&view, service.map(ServiceId::from).as_ref(), ports)
        };
        // Docker's status: clients take a conflict for a name that is taken.
        let told = |text: &str| Some(Fault::invalid(text));
        let taken = "port '8080' is already in use by service 'web' (web) as an ingress port";
        assert_eq!(conflict(None, &[port(8080)]), told(taken));
        assert_eq!(conflict(Some("web"), &[port(8080)]), None);
        assert_eq!(conflict(None, &[port(8081)]), None);
        let twice = "duplicate published ports provided";
        assert_eq!(conflict(None, &[port(81), port(81)]), told(twice));
        let view = read("service web replicas=0 ports=host:8080:80 has-ports=host:8080:80");
        let taken = "port '8080' is already in use by service 'web' (web) as a host-published port";
        assert_eq!(port_conflict(&view, None, &[port(8080)]), told(taken));
    }
}
