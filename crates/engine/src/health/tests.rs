//! Conclusions from probes.

use super::*;

const SECOND: i64 = 1_000_000_000;

fn check() -> Check {
    let own = HealthCheck {
        test: vec!["CMD-SHELL".to_owned(), "true".to_owned()],
        start_period: Duration::from_secs(10),
        ..HealthCheck::default()
    };
    Check::resolve(Some(&own), None).unwrap()
}

/// Probes at these seconds with these exit codes; the container started at 0.
fn conclude(probes: &[(i64, i32)]) -> Health {
    probes.iter().fold(Health::default(), |health, (second, exit_code)| {
        let start = Timestamp(second * SECOND);
        let probe = Probe { start, end: start, exit_code: *exit_code, output: String::new() };
        check().conclude(&health, probe, Timestamp(0))
    })
}

#[test]
fn one_success_is_healthy_and_three_failures_are_not() {
    assert_eq!(conclude(&[(40, 0)]).status, HealthStatus::Healthy);
    let failing = conclude(&[(40, 0), (70, 1), (100, 1)]);
    assert_eq!((failing.status, failing.failing_streak), (HealthStatus::Healthy, 2));
    assert_eq!(conclude(&[(70, 1), (100, -1), (130, 1)]).status, HealthStatus::Unhealthy);
    assert_eq!(conclude(&[(70, 1), (100, 1), (130, 1), (160, 0)]).status, HealthStatus::Healthy);
}

#[test]
fn failures_while_it_starts_do_not_count_until_it_was_healthy_once() {
    let starting = conclude(&[(1, 1), (2, 1), (3, 1), (4, 1), (5, 1), (6, 1)]);
    assert_eq!((starting.status, starting.failing_streak), (HealthStatus::Starting, 0));
    assert_eq!(starting.log.len(), LOG_MAX);
    let fell = conclude(&[(1, 0), (2, 1), (3, 1), (4, 1)]);
    assert_eq!(fell.status, HealthStatus::Unhealthy);
}

#[test]
fn probes_are_closer_together_while_it_starts() {
    let pause = |health: &Health, second: i64| {
        check().pause(health, Timestamp(0), Timestamp(second * SECOND)).as_secs()
    };
    assert_eq!(pause(&Health::default(), 1), 5);
    assert_eq!(pause(&Health::default(), 11), 30);
    assert_eq!(pause(&conclude(&[(1, 0)]), 2), 30);
}

#[test]
fn the_users_check_goes_over_the_images() {
    let test = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    let image = HealthCheck {
        test: test(&["CMD", "probe"]),
        interval: Duration::from_secs(7),
        ..HealthCheck::default()
    };
    let none = HealthCheck { test: test(&["NONE"]), ..HealthCheck::default() };
    assert_eq!(Check::resolve(Some(&none), Some(&image)), None);
    assert_eq!(Check::resolve(None, None), None);
    let slower = HealthCheck { timeout: Duration::from_secs(9), ..HealthCheck::default() };
    let merged = Check::resolve(Some(&slower), Some(&image)).unwrap();
    assert_eq!((merged.interval.as_secs(), merged.timeout.as_secs()), (7, 9));
    assert_eq!((merged.command, merged.retries), (test(&["probe"]), 3));
    // Each field for itself: a test of one's own keeps the image's figures.
    let own = HealthCheck { test: test(&["CMD", "own"]), retries: 9, ..HealthCheck::default() };
    let merged = Check::resolve(Some(&own), Some(&image)).unwrap();
    assert_eq!((merged.interval.as_secs(), merged.retries), (7, 9));
    assert_eq!(merged.command, test(&["own"]));
}
