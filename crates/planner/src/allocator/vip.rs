//! Virtual addresses of services.

use super::ipam::{AddressPools, Shortage};
use crate::Planning;
use std::collections::BTreeSet;
use std::sync::Arc;
use store::View;
use types::{EndpointMode, NetworkId, PublishedPort, Service, ServiceId, Vip};

/// Gives back the addresses on networks that a service's spec does not name any more.
pub(super) fn release(planning: &mut Planning<'_>, services: &BTreeSet<ServiceId>) {
    for service in those(planning, services) {
        let wanted = wanted(&planning.tx, &service);
        let there =
            |id: &NetworkId| planning.tx.network(id).is_some_and(|network| !network.removed);
        let kept: BTreeSet<NetworkId> = wanted.into_iter().filter(there).collect();
        let keep = |vip: &Vip| kept.contains(&vip.network);
        if !service.vips.iter().all(keep) {
            planning.tx.edit_service(&service.id, |service| service.vips.retain(keep));
        }
    }
}

/// Gives services an address on each network of their spec, and writes what could not be given.
/// Those on the ingress network come last, from [`allocate_in_mesh`].
pub(super) fn allocate(
    planning: &mut Planning<'_>,
    pools: &mut AddressPools<'_>,
    services: &BTreeSet<ServiceId>,
) {
    for service in those(planning, services) {
        let mut error = planning.port_errors.get(&service.id).cloned().unwrap_or_default();
        let mut vips = Vec::new();
        for network in wanted(&planning.tx, &service) {
            match service.vips.iter().find(|vip| vip.network == network) {
                Some(vip) => vips.push(vip.clone()),
                None if is_ingress(&planning.tx, &network) => {}
                None => match take(planning, pools, &network) {
                    Ok(vip) => vips.push(vip),
                    Err(shortage) => error = shortage.to_string(),
                },
            }
        }
        if error.is_empty() {
            error = unknown_network(planning, &service).unwrap_or_default();
        }
        if service.vips != vips || service.allocation_error != error {
            planning.tx.edit_service(&service.id, |service| {
                service.vips = vips;
                service.allocation_error = error;
            });
        }
    }
}

/// Gives services that publish ports in the mesh an address on the ingress network. Nothing is sent
/// there: tasks come first, and a service for which there is none says so and runs without.
pub(super) fn allocate_in_mesh(
    planning: &mut Planning<'_>,
    pools: &mut AddressPools<'_>,
    services: &BTreeSet<ServiceId>,
) {
    let Some(ingress) = planning.tx.ingress_network().map(|network| network.id.clone()) else {
        return;
    };
    for service in those(planning, services) {
        let has = service.vips.iter().any(|vip| vip.network == ingress);
        if has || !wanted(&planning.tx, &service).contains(&ingress) {
            continue;
        }
        let taken = take(planning, pools, &ingress);
        planning.tx.edit_service(&service.id, |service| match taken {
            Ok(vip) => service.vips.push(vip),
            Err(shortage) if service.allocation_error.is_empty() => {
                service.allocation_error =
                    format!("no virtual address, tasks run without it: {shortage}");
            }
            // What keeps its tasks waiting is worse.
            Err(_) => {}
        });
    }
}

fn those(planning: &Planning<'_>, services: &BTreeSet<ServiceId>) -> Vec<Arc<Service>> {
    services.iter().filter_map(|service| planning.tx.service(service)).cloned().collect()
}

/// Says whether a service is to have an address that it has not.
pub(super) fn lacks(view: &View, service: &ServiceId) -> bool {
    view.service(service).is_some_and(|service| {
        let has = |network: &NetworkId| service.vips.iter().any(|vip| vip.network == *network);
        !wanted(view, service).iter().all(has)
    })
}

fn is_ingress(view: &View, network: &NetworkId) -> bool {
    view.ingress_network().is_some_and(|ingress| ingress.id == *network)
}

fn take(
    planning: &Planning<'_>,
    pools: &mut AddressPools<'_>,
    network: &NetworkId,
) -> Result<Vip, Shortage> {
    let addresses = pools.take(&planning.tx, network)?;
    Ok(Vip { network: network.clone(), addresses })
}

/// The networks on which a service has an address of its own, in the order of its spec. One that
/// publishes ports in the mesh has one on the ingress network, as in Docker, where programs look
/// for it; nothing is sent there.
fn wanted(view: &View, service: &Service) -> Vec<NetworkId> {
    match service.spec.endpoint.mode {
        EndpointMode::Dnsrr => Vec::new(),
        EndpointMode::Vip => {
            let mut seen = BTreeSet::new();
            let targets = service.spec.task.overlays().map(|network| network.target.clone());
            let in_mesh = service.spec.endpoint.ports.iter().any(PublishedPort::in_mesh);
            let ingress = view.ingress_network().filter(|_| in_mesh).map(|it| it.id.clone());
            targets.chain(ingress).filter(|target| seen.insert(target.clone())).collect()
        }
    }
}

/// What a service without virtual addresses is told of a network that is not there.
fn unknown_network(planning: &Planning<'_>, service: &Service) -> Option<String> {
    service
        .spec
        .task
        .overlays()
        .find(|wish| planning.tx.network(&wish.target).is_none_or(|network| network.removed))
        .map(|network| Shortage::NoNetwork(network.target.clone()).to_string())
}

#[cfg(test)]
mod tests {
    use crate::testing::check;
    use expect_test::expect;

    #[test]
    fn an_address_goes_with_the_network_and_others_stay() {
        check(
            "
            network front subnet=10.0.1.0/24 vni=4097 last=10.0.1.2
            network back subnet=10.0.2.0/24 vni=4098 last=10.0.2.2
            service web replicas=0 networks=back vip=front=10.0.1.2,back=10.0.2.2
            ",
            &expect![[r#"
                ~ web vip back=10.0.2.2
            "#]],
        );
    }

    #[test]
    fn a_service_in_round_robin_mode_has_no_address() {
        check(
            "
            network front subnet=10.0.1.0/24 vni=4097 last=10.0.1.2
            service web replicas=0 networks=front dnsrr vip=front=10.0.1.2
            ",
            &expect![[r#"
                ~ web vip
            "#]],
        );
    }

    #[test]
    fn tasks_come_before_the_address_on_a_full_ingress_network() {
        check(
            "
            node n1
            network ingress ingress subnet=10.255.0.0/28 vni=4096
            service other replicas=0 ports=81:80 has-ports=81:80
            service web replicas=12 ports=80:80 has-ports=80:80
            ",
            &expect![[r#"
                + web.1 assigned running n1 mesh 10.255.0.8 ports 80:80/tcp
                + web.10 assigned running n1 mesh 10.255.0.5 ports 80:80/tcp
                + web.11 assigned running n1 mesh 10.255.0.6 ports 80:80/tcp
                + web.12 assigned running n1 mesh 10.255.0.7 ports 80:80/tcp
                + web.2 assigned running n1 mesh 10.255.0.9 ports 80:80/tcp
                + web.3 assigned running n1 mesh 10.255.0.10 ports 80:80/tcp
                + web.4 assigned running n1 mesh 10.255.0.11 ports 80:80/tcp
                + web.5 assigned running n1 mesh 10.255.0.12 ports 80:80/tcp
                + web.6 assigned running n1 mesh 10.255.0.13 ports 80:80/tcp
                + web.7 assigned running n1 mesh 10.255.0.2 ports 80:80/tcp
                + web.8 assigned running n1 mesh 10.255.0.3 ports 80:80/tcp
                + web.9 assigned running n1 mesh 10.255.0.4 ports 80:80/tcp
                ~ network ingress last 10.255.0.7
                ~ other error: no virtual address, tasks run without it: no free address in 10.255.0.0/28 (network ingress)
                ~ web error: no virtual address, tasks run without it: no free address in 10.255.0.0/28 (network ingress)
            "#]],
        );
    }

    #[test]
    fn a_service_on_an_unknown_network_says_so_and_its_tasks_wait() {
        check(
            "
            node n1
            service web replicas=1 networks=front
            ",
            &expect![[r#"
                + web.1 new running - error: network front not found
                ~ web error: network front not found
            "#]],
        );
    }
}
