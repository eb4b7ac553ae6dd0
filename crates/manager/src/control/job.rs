//! What a change of its spec is to a job: it is run anew.

use planner::Schedule;
use types::{Fault, JobStatus, SCHEDULE_LABEL, Service, ServiceSpec, Timestamp, UpdateConfig};

/// The first run of a job, which waits where it has a schedule; `None`: the spec is not one's.
pub(super) fn begun(spec: &ServiceSpec, now: Timestamp) -> Option<JobStatus> {
    let run = JobStatus { last_execution: Some(now), ..JobStatus::default() };
    let waits = JobStatus { scheduled: Some(now), ..JobStatus::default() };
    spec.mode.is_job().then(|| if is_scheduled(spec) { waits } else { run })
}

fn is_scheduled(spec: &ServiceSpec) -> bool {
    Schedule::of(spec).is_ok_and(|schedule| schedule.is_some())
}

/// The next run of a job whose spec is changed, also to what it is already: that is how users run it
/// again. One with a schedule waits for its time, unless it is forced; what does not concern its
/// tasks leaves it alone.
pub(super) fn run_anew(service: &Service, spec: &ServiceSpec, now: Timestamp) -> Option<JobStatus> {
    let new = begun(spec, now)?;
    let before = service.job.clone().unwrap_or_default();
    let run = JobStatus { iteration: before.next_iteration(), ..new };
    if !is_scheduled(spec) {
        return Some(run);
    }
    let (was, is) = (&service.spec, spec);
    // Another schedule counts from now on.
    let same = was.labels.get(SCHEDULE_LABEL) == is.labels.get(SCHEDULE_LABEL);
    let scheduled = before.scheduled.filter(|_| same).or(run.scheduled);
    if was.task.force_update != is.task.force_update {
        return Some(JobStatus { last_execution: Some(now), scheduled, ..run });
    }
    let stays = was.mode == is.mode && was.task.makes_same(&is.task);
    Some(if stays { JobStatus { scheduled, ..before } } else { JobStatus { scheduled, ..run } })
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
    spec.check_sticky().map_err(Fault::invalid)?;
    Schedule::of(spec).map(drop).map_err(Fault::invalid)
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
    fn a_job_with_a_schedule_waits_for_its_time_unless_it_is_forced() {
        let at = |label: &str| {
            let mut job = spec(JOB);
            job.labels.insert(SCHEDULE_LABEL.to_owned(), label.to_owned());
            job
        };
        let (hourly, id) = (at("@hourly"), ServiceId::from("job"));
        let new = (hourly.clone(), Timestamp(7));
        let created = with_new(&View::default(), id.clone(), new).unwrap();
        let mut view = applied(&View::default(), &created);
        let (mut daily, mut forced, mut rebuilt) = (at("@daily"), hourly.clone(), hourly.clone());
        daily.labels.insert("a".to_owned(), "b".to_owned());
        forced.task.force_update = 1;
        rebuilt.task.force_update = 1;
        rebuilt.task.container.image = "other".to_owned();
        let job = |view: &View| view.service(&id).unwrap().job.clone().unwrap();
        let is = |iteration, last_execution: Option<i64>, scheduled| JobStatus {
            iteration,
            last_execution: last_execution.map(Timestamp),
            scheduled: Some(Timestamp(scheduled)),
        };
        assert_eq!(job(&view), is(0, None, 7));
        for (now, next, wanted) in [
            (10, &hourly, is(0, None, 7)),
            (11, &forced, is(0, Some(11), 7)),
            (12, &forced, is(0, Some(11), 7)),
            (13, &rebuilt, is(1, None, 7)),
            (14, &rebuilt, is(1, None, 7)),
            (15, &forced, is(1, None, 7)),
            (16, &daily, is(1, Some(16), 16)),
            (17, &spec(JOB), JobStatus { scheduled: None, ..is(2, Some(17), 0) }),
            (18, &hourly, is(2, Some(17), 18)),
        ] {
            let change = (Some(next.clone()), Timestamp(now));
            let changes = with_updated(&view, &id, view.version(), change).unwrap();
            view = applied(&view, &changes);
            assert_eq!(job(&view), wanted, "at {now}");
        }
        assert!(check(&at("soon")).unwrap_err().message.contains("is no schedule"));
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
