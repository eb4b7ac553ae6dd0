//! Services.

use super::{check_version, file, job, spec};
use crate::clock::RandomIds;
use raft::Sequencer;
use store::{Changes, Tx, View};
use types::{
    Fault, FaultKind, Service, ServiceId, ServiceSpec, Timestamp, UpdateState, UpdateStatus,
    Version,
};

pub(crate) async fn create(sequencer: &Sequencer, spec: ServiceSpec) -> Result<ServiceId, Fault> {
    let spec = checked(spec).await?;
    let id = ServiceId::draw(&mut RandomIds);
    let created = id.clone();
    sequencer.sequence(move |view: &View, now| with_new(view, id, (spec, now))).await?;
    Ok(created)
}

/// With `None`, back to the spec before the last update; what was there until then is kept, so that
/// users may change their mind.
pub(crate) async fn update(
    sequencer: &Sequencer,
    id: ServiceId,
    version: Version,
    spec: Option<ServiceSpec>,
) -> Result<(), Fault> {
    let spec = match spec {
        Some(spec) => Some(checked(spec).await?),
        None => None,
    };
    let decide = move |view: &View, now| with_updated(view, &id, version, (spec, now));
    sequencer.sequence(decide).await?;
    Ok(())
}

pub(crate) async fn remove(sequencer: &Sequencer, id: ServiceId) -> Result<(), Fault> {
    sequencer.sequence(move |view: &View, _| without(view, &id)).await?;
    Ok(())
}

/// A spec that is right by itself. To fill its templates may take long: no other change waits for it.
async fn checked(spec: ServiceSpec) -> Result<ServiceSpec, Fault> {
    let check = move || spec::check_service(&spec).map(|()| spec);
    let checked = tokio::task::spawn_blocking(check).await;
    checked.map_err(|error| Fault::internal(error.to_string()))?
}

/// A service that is removed; its tasks go by the planner.
pub fn without(view: &View, id: &ServiceId) -> Result<Changes, Fault> {
    service(view, id)?;
    let mut tx = Tx::new(view);
    tx.remove_service(id);
    Ok(tx.finish())
}

/// A service that is made, with a spec that is right by itself.
pub fn with_new(
    view: &View,
    id: ServiceId,
    (spec, now): (ServiceSpec, Timestamp),
) -> Result<Changes, Fault> {
    check(view, &spec, None)?;
    let mut tx = Tx::new(view);
    let job = job::begun(&spec, now);
    tx.put_service(Service { id, spec, job, ..Service::default() });
    Ok(tx.finish())
}

/// A service that is changed, if it is still at `version`, to a spec that is right by itself; with
/// `None`, back to the spec before.
pub fn with_updated(
    view: &View,
    id: &ServiceId,
    version: Version,
    (spec, now): (Option<ServiceSpec>, Timestamp),
) -> Result<Changes, Fault> {
    let mut service = Service::clone(service(view, id)?);
    check_version(&service.meta, version)?;
    // A rollback is one from its start: if it fails it must not roll "back" to what it came from.
    let begun = UpdateState::RollbackStarted;
    let why = "manually requested rollback";
    // A job is run anew, whichever spec that is by.
    let is_job = service.spec.mode.is_job();
    let is_rollback = spec.is_none() && !is_job;
    let update = is_rollback.then(|| UpdateStatus::begun(begun, now, why));
    let spec = match spec {
        Some(spec) => spec,
        None => service
            .previous_spec
            .clone()
            .ok_or_else(|| Fault::invalid(format!("service {id} does not have a previous spec")))?,
    };
    if spec.name != service.spec.name {
        return Err(Fault::new(FaultKind::NotImplemented, "renaming services is not supported"));
    }
    check_mode_stays(&service.spec, &spec)?;
    check(view, &spec, Some(id))?;
    service.job = job::run_anew(&service, &spec, now);
    let before = std::mem::replace(&mut service.spec, spec);
    service.previous_spec = Some(before);
    service.update = update;
    let mut tx = Tx::new(view);
    tx.put_service(service);
    Ok(tx.finish())
}

fn check_mode_stays(before: &ServiceSpec, after: &ServiceSpec) -> Result<(), Fault> {
    if before.mode.as_str() == after.mode.as_str() {
        return Ok(());
    }
    Err(Fault::new(FaultKind::NotImplemented, "service mode change is not allowed"))
}

/// Says what is wrong with a spec beside what is there.
fn check(view: &View, spec: &ServiceSpec, own: Option<&ServiceId>) -> Result<(), Fault> {
    spec::check_networks(view, &spec.task.networks)?;
    file::check_existence(view, &spec.task.container)?;
    let name = &spec.name;
    if own.is_none() && view.service_named(name).is_some() {
        return Err(Fault::conflict(format!(
            "name conflicts with an existing object: service {name} already exists"
        )));
    }
    match planner::allocator::port_conflict(view, own, &spec.endpoint.ports) {
        Some(fault) => Err(fault),
        None => Ok(()),
    }
}

fn service<'a>(view: &'a View, id: &ServiceId) -> Result<&'a Service, Fault> {
    let service = view.service(id).map(AsRef::as_ref);
    service.ok_or_else(|| Fault::not_found(format!("service {id} not found")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use types::{NetworkAttachment, PublishedPort, ServiceMode};

    const NOW: Timestamp = Timestamp(9);

    fn spec(name: &str) -> ServiceSpec {
        let mut spec = ServiceSpec { name: name.into(), ..ServiceSpec::default() };
        spec.task.container.image = "image".into();
        spec
    }

    fn applied(view: &View, changes: &Changes, version: u64) -> View {
        let mut view = view.clone();
        view.apply(changes, Version(version), Timestamp(1));
        view
    }

    fn with_web() -> View {
        let view = View::default();
        let mut web = spec("web");
        let port = PublishedPort { target: 80, published: 8080, ..PublishedPort::default() };
        web.endpoint.ports = vec![port];
        let changes = with_new(&view, "web-id".into(), (web, NOW)).unwrap();
        applied(&view, &changes, 5)
    }

    #[test]
    fn names_networks_and_ports_are_checked_against_what_is_there() {
        let view = with_web();
        let refused = |spec| with_new(&view, "x".into(), (spec, NOW)).unwrap_err();
        assert_eq!(
            refused(spec("web")),
            Fault::conflict("name conflicts with an existing object: service web already exists")
        );
        let mut lost = spec("lost");
        let nowhere = NetworkAttachment { target: "gone".into(), ..NetworkAttachment::default() };
        lost.task.networks = vec![nowhere];
        assert_eq!(refused(lost), Fault::not_found("network gone not found"));
        let mut second = spec("second");
        let port = PublishedPort { target: 81, published: 8080, ..PublishedPort::default() };
        second.endpoint.ports = vec![port];
        assert_eq!(
            refused(second),
            Fault::invalid(
                "port '8080' is already in use by service 'web' (web-id) as an ingress port"
            )
        );
    }

    #[test]
    fn an_update_needs_the_version_that_was_read_and_keeps_the_spec_before() {
        let view = with_web();
        let id = ServiceId::from("web-id");
        let mut wanted = view.service(&id).unwrap().spec.clone();
        wanted.mode = ServiceMode::Replicated { replicas: 3 };
        let late = with_updated(&view, &id, Version(4), (Some(wanted.clone()), NOW)).unwrap_err();
        assert!(late.message.ends_with("update out of sequence"), "{late}");
        let changes = with_updated(&view, &id, Version(5), (Some(wanted.clone()), NOW)).unwrap();
        let view = applied(&view, &changes, 6);
        assert_eq!(view.service(&id).unwrap().spec, wanted);
        let changes = with_updated(&view, &id, Version(6), (None, NOW)).unwrap();
        let view = applied(&view, &changes, 7);
        let service = view.service(&id).unwrap();
        assert_eq!(service.spec.mode, ServiceMode::Replicated { replicas: 1 });
        assert_eq!(service.update.as_ref().unwrap().state, UpdateState::RollbackStarted);
        assert_eq!(service.previous_spec, Some(wanted));
    }

    #[test]
    fn mode_and_name_stay_as_they_are() {
        let view = with_web();
        let id = ServiceId::from("web-id");
        let mut global = view.service(&id).unwrap().spec.clone();
        global.mode = ServiceMode::Global;
        let fault = with_updated(&view, &id, Version(5), (Some(global), NOW)).unwrap_err();
        assert_eq!(fault.message, "service mode change is not allowed");
        let fault = with_updated(&view, &id, Version(5), (Some(spec("other")), NOW)).unwrap_err();
        assert_eq!(fault.message, "renaming services is not supported");
    }
}
