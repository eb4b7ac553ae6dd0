//! Labs beside each other: what one has, the others do not touch, see or leave behind.

use e2e::{Lab, page, until};
use std::time::Duration;

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// Waits until a page answers there.
fn answers(address: &str) {
    until(address, secs(20), || match page(address, "/", secs(5)) {
        Ok(page) if page.status == 200 => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

#[test]
fn two_labs_are_up_at_once_and_share_nothing() {
    let labs = [Lab::up(2, &["nginx"]), Lab::up(1, &["nginx"])];
    for lab in &labs {
        let publish = ["--name", "web", "--publish", "8080:80", "--replicas", "2"];
        let create = [&["service", "create", "--detach"], &publish[..], &["nginx:latest"]].concat();
        lab.docker(&create).good();
    }
    for lab in &labs {
        lab.converged("web", "2/2", secs(60));
        assert_eq!(lab.containers(2, "web").len(), 2, "each lab has its own containers");
        answers(&lab.localhost(8080));
        answers(&lab.at(1, 8080));
    }
    let [one, other] = labs;
    assert_ne!(one.localhost(8080), other.localhost(8080));
    let gone = one.localhost(8080);
    let left = one.down();
    assert!(left.is_empty(), "{left:#?}");
    assert!(page(&gone, "/", secs(5)).is_err(), "nobody forwards for a lab that is down");
    answers(&other.localhost(8080));
    answers(&other.at(1, 8080));
    let left = other.down();
    assert!(left.is_empty(), "{left:#?}");
}
