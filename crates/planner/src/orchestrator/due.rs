//! Jobs with a schedule: whether their time has come.
//!
//! A job remembers the newest time of its schedule that was looked at. Of times that nobody looked
//! at, as all managers were away, the last one alone counts. So whoever leads decides the same, and
//! none is run twice.

use super::{jobs, restart};
use crate::Planning;
use crate::index::ServiceSlots;
use crate::schedule::{Overlap, Schedule};
use store::View;
use types::{JobStatus, Service, ServiceId, ServiceMode, Task};

/// Begins the next iteration of a job whose time has come, and asks for another look at the next
/// time. All that is looked at after this sees it.
pub(super) fn begin(planning: &mut Planning<'_>, id: &ServiceId, all: &ServiceSlots) {
    let Some(service) = planning.tx.service(id).cloned() else { return };
    let (Some(job), Ok(Some(schedule))) = (&service.job, Schedule::of(&service.spec)) else {
        return;
    };
    let now = planning.now;
    if let Some(next) = schedule.after(now) {
        planning.wake_at(next);
    }
    let seen = job.scheduled.unwrap_or(service.meta.created_at);
    let Some(time) = schedule.until(now).filter(|time| seen < *time) else { return };
    let is_skipped = match schedule.overlap {
        Overlap::Skip => is_under_way(&planning.tx, (&service, job), all),
        Overlap::Replace => false,
    };
    let scheduled = Some(time);
    let next = if is_skipped {
        JobStatus { scheduled, ..job.clone() }
    } else {
        JobStatus { iteration: job.next_iteration(), last_execution: Some(now), scheduled }
    };
    planning.tx.edit_service(id, |service| service.job = Some(next));
}

/// Says whether a task of the present iteration has not come to its end, or is still to be made. What
/// ended where no other one may take its place (its node is paused) is not waited for.
fn is_under_way(view: &View, (service, job): (&Service, &JobStatus), all: &ServiceSlots) -> bool {
    if job.last_execution.is_none() {
        return false;
    }
    let slots = all.calm().iter().chain(all.stirred());
    let is_present = |task: &Task| task.iteration == Some(job.iteration);
    let mut filled = 0;
    for (slot, tasks) in slots {
        let mut present = tasks.wanted.iter().filter(|task| is_present(task)).peekable();
        filled += u64::from(present.peek().is_some());
        let goes_on = |task: &Task| task.occupies() || restart::has_place(view, service, slot);
        if present.any(|task| !jobs::is_over(task) && goes_on(task)) {
            return true;
        }
    }
    match service.spec.mode {
        ServiceMode::ReplicatedJob { total_completions, .. } => filled < total_completions,
        ServiceMode::Replicated { .. } | ServiceMode::Global | ServiceMode::GlobalJob => false,
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::check;
    use expect_test::expect;

    #[test]
    fn a_job_is_run_at_its_time_and_asks_for_the_next_one() {
        // It is 00:01:40.
        check(
            "
            node n1
            service job job=1 waits scheduled=30 every-minute
            ",
            &expect![[r#"
                + job.1 assigned running n1
                ~ job iteration 0 begun 100s scheduled 60s
                wake 120s
            "#]],
        );
    }

    #[test]
    fn each_time_is_another_iteration_and_what_completed_is_history() {
        check(
            "
            node n1
            service job job=1 iteration=4 scheduled=0 every-minute
            task job.1 complete n1 iteration=4
            service all global-job iteration=4 scheduled=0 every-minute
            task all.0 complete n1 iteration=4
            ",
            &expect![[r#"
                + all.0 assigned running n1 iteration 5
                + job.1 assigned running n1 iteration 5
                ~ all iteration 5 begun 100s scheduled 60s
                ~ all.0 complete shutdown n1 iteration 4
                ~ job iteration 5 begun 100s scheduled 60s
                ~ job.1 complete shutdown n1 iteration 4
                wake 120s
            "#]],
        );
    }

    #[test]
    fn a_node_that_is_paused_keeps_the_job_from_no_other_one() {
        check(
            "
            node n1
            node n2 pause
            service all global-job iteration=4 scheduled=0 every-minute
            task all.0 complete n1 iteration=4
            task all.0 failed n2 iteration=4
            ",
            &expect![[r#"
                + all.0 assigned running n1 iteration 5
                ~ all iteration 5 begun 100s scheduled 60s
                ~ all.0 complete shutdown n1 iteration 4
                ~ all.0 failed shutdown n2 iteration 4
                wake 120s
            "#]],
        );
    }

    #[test]
    fn a_time_that_was_looked_at_is_not_looked_at_again() {
        check(
            "
            node n1
            service job job=1 iteration=4 scheduled=60 every-minute
            task job.1 complete n1 iteration=4
            ",
            &expect![[r#"
                wake 120s
            "#]],
        );
    }

    #[test]
    fn while_a_run_goes_on_its_time_is_skipped() {
        check(
            "
            node n1
            service job job=2 concurrent=1 iteration=4 scheduled=0 every-minute
            task job.1 complete n1 iteration=4
            task job.2 running n1 iteration=4
            service failed job=2 concurrent=1 iteration=4 scheduled=0 every-minute
            task failed.1 failed n1 iteration=4
            ",
            &expect![[r#"
                + failed.1 assigned ready n1 iteration 4 at 105s
                ~ failed iteration 4 begun 50s scheduled 60s
                ~ failed.1 failed shutdown n1 iteration 4
                ~ job iteration 4 begun 50s scheduled 60s
                wake 105s
            "#]],
        );
    }

    #[test]
    fn a_run_that_goes_on_gives_way_where_users_want_it() {
        check(
            "
            node n1
            service job job=2 concurrent=1 iteration=4 scheduled=0 every-minute overlap=replace
            task job.1 complete n1 iteration=4
            task job.2 running n1 iteration=4
            ",
            &expect![[r#"
                ~ job iteration 5 begun 100s scheduled 60s
                ~ job.1 complete shutdown n1 iteration 4
                ~ job.2 running remove n1 iteration 4
                wake 120s
            "#]],
        );
    }

    #[test]
    fn a_run_that_failed_for_good_does_not_hold_the_next_one_up() {
        check(
            "
            node n1
            service job job=1 iteration=4 scheduled=0 every-minute restart=none
            task job.1 failed n1 iteration=4
            ",
            &expect![[r#"
                + job.1 assigned running n1 iteration 5
                ~ job iteration 5 begun 100s scheduled 60s
                ~ job.1 failed shutdown n1 iteration 4
                wake 120s
            "#]],
        );
    }
}
