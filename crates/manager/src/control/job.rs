//! What a change of its spec is to a job: it is run anew.

use types::{Fault, JobStatus, Service, ServiceSpec, Timestamp, UpdateConfig};

/// The first run of a job; `None`: the spec is not one's.
pub(super) fn begun(spec: &ServiceSpec, now: Timestamp) -> Option<JobStatus> {
    let last_execution = Some(now);
    spec.mode.is_job().then(|| JobStatus { last_execution, ..JobStatus::default() })
}

/// The next run of a job whose spec is changed, also to what it is already: that is how users run it
/// again.
pub(super) fn run_anew(service: &Service, spec: &ServiceSpec, now: Timestamp) -> Option<JobStatus> {
    let job = begun(spec, now)?;
    let iteration = service.job.as_ref().map_or(0, |job| job.iteration + 1);
    Some(JobStatus { iteration, ..job })
}

/// Says what a job cannot have.
pub(super) fn check(spec: &ServiceSpec) -> Result<(), Fault> {
    let is_job = spec.mode.is_job();
    if is_job && spec.update != UpdateConfig::default() {
        return Err(Fault::invalid("Jobs may not have an update config"));
    }
    if is_job && spec.rollback != UpdateConfig::default() {
        return Err(Fault::invalid("update and rollback configuration is not supported for jobs"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::service::{with_new, with_updated};
    use store::View;
    use types::{ServiceId, ServiceMode, Version};

    fn spec(mode: ServiceMode) -> ServiceSpec {
        ServiceSpec { name: "job".into(), mode, ..ServiceSpec::default() }
    }

    const JOB: ServiceMode = ServiceMode::ReplicatedJob { max_concurrent: 2, total_completions: 5 };

    fn applied(view: &View, changes: &store::Changes) -> View {
        let mut view = view.clone();
        let version = Version(view.version().0 + 1);
        view.apply(changes, version, Timestamp(1));
        view
    }

    #[test]
    fn every_change_of_a_job_runs_it_anew_and_is_no_update() {
        let id = ServiceId::from("job");
        let created = with_new(&View::default(), id.clone(), (spec(JOB), Timestamp(7))).unwrap();
        let mut view = applied(&View::default(), &created);
        let job = |view: &View| {
            let job = view.service(&id).unwrap().job.clone().unwrap();
            (job.iteration, job.last_execution)
        };
        assert_eq!(job(&view), (0, Some(Timestamp(7))));
        // To what it is already, to another spec, and back to the one before.
        let mut other = spec(JOB);
        other.task.force_update = 1;
        for (count, next) in [(1, Some(spec(JOB))), (2, Some(other)), (3, None)] {
            let now = Timestamp(10 + count);
            let changes = with_updated(&view, &id, view.version(), (next, now)).unwrap();
            view = applied(&view, &changes);
            assert_eq!(job(&view), (u64::try_from(count).unwrap(), Some(now)));
            assert_eq!(view.service(&id).unwrap().update, None);
        }
        let service = ServiceId::from("web");
        let mode = ServiceMode::Replicated { replicas: 1 };
        let web = ServiceSpec { name: "web".into(), ..spec(mode) };
        let created = with_new(&view, service.clone(), (web, Timestamp(20))).unwrap();
        assert_eq!(applied(&view, &created).service(&service).unwrap().job, None);
    }

    #[test]
    fn a_job_stays_a_job_of_its_kind() {
        let id = ServiceId::from("job");
        let created = with_new(&View::default(), id.clone(), (spec(JOB), Timestamp(7))).unwrap();
        let view = applied(&View::default(), &created);
        for mode in [ServiceMode::GlobalJob, ServiceMode::Replicated { replicas: 1 }] {
            let next = (Some(spec(mode)), Timestamp(8));
            let fault = with_updated(&view, &id, view.version(), next).unwrap_err();
            assert_eq!(fault.message, "service mode change is not allowed");
        }
    }

    #[test]
    fn a_job_has_no_update_config() {
        let mut update = spec(ServiceMode::GlobalJob);
        update.update.parallelism = 7;
        assert_eq!(check(&update), Err(Fault::invalid("Jobs may not have an update config")));
        let mut rollback = spec(JOB);
        rollback.rollback.parallelism = 7;
        let text = "update and rollback configuration is not supported for jobs";
        assert_eq!(check(&rollback), Err(Fault::invalid(text)));
        assert_eq!(check(&spec(JOB)), Ok(()));
        update.mode = ServiceMode::Global;
        assert_eq!(check(&update), Ok(()));
    }
}
