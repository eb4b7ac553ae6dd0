//! Nodes without a session, and how long they are waited for.

use crate::stage::{MOMENT, PERIOD, Stage};
use std::time::Duration;

/// A task of n1 is to stop while n2, which may lead traffic to it, has no session.
fn absent() -> Stage {
    let mut stage = Stage::with_nodes(&["n1", "n2"]);
    stage.run("t1", "n1", true);
    stage.settle();
    stage.close("n2");
    stage.stop("t1");
    stage.pass(MOMENT);
    stage.acknowledge("n1");
    assert!(!stage.is_withdrawn("t1"));
    stage
}

#[test]
fn a_ready_node_without_a_session_is_waited_for_two_heartbeats_and_no_longer() {
    let mut stage = absent();
    stage.pass_with_beats(PERIOD * 2);
    assert!(!stage.is_withdrawn("t1"), "its kernel goes on with what it knew");
    stage.pass_with_beats(PERIOD);
    assert!(stage.is_withdrawn("t1"));
}

#[test]
fn a_node_that_comes_back_in_time_is_waited_for() {
    let mut stage = absent();
    stage.pass_with_beats(PERIOD);
    stage.open("n2");
    stage.pass_with_beats(PERIOD * 10);
    assert!(!stage.is_withdrawn("t1"), "it has a session and has not applied anything");
    stage.acknowledge("n2");
    assert!(stage.is_withdrawn("t1"));
}

#[test]
fn a_node_that_is_down_is_not_waited_for() {
    let mut stage = absent();
    stage.change(|tx| {
        tx.edit_node(&"n2".into(), |node| node.status.state = types::NodeState::Down);
    });
    stage.pass(MOMENT);
    assert!(stage.is_withdrawn("t1"));
}

/// It may carry what the manager before it said; nobody knows.
#[test]
fn a_manager_that_starts_anew_waits_for_every_ready_node() {
    let mut stage = absent();
    stage.restart();
    stage.open("n1");
    stage.acknowledge("n1");
    assert!(!stage.is_withdrawn("t1"));
    stage.pass_with_beats(PERIOD * 2);
    assert!(!stage.is_withdrawn("t1"));
    stage.pass_with_beats(Duration::from_secs(1) + PERIOD);
    assert!(stage.is_withdrawn("t1"));
}
