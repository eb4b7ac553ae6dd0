//! Who is there, by signs of life and steady time.

use crate::stage::{PERIOD, Stage};
use manager::dispatch::Command;
use std::time::Duration;
use types::NodeState;

fn state(stage: &Stage, node: &str) -> NodeState {
    stage.view.node(&node.into()).unwrap().status.state
}

/// Silence that is almost too long.
const ALMOST: Duration = Duration::from_secs(3 * 4 - 1);
/// Silence that is too long, with the time between two looks.
const TOO_LONG: Duration = Duration::from_secs(3 * 4 + 2);

#[test]
fn a_silent_node_is_down_its_session_ends_and_it_is_back_with_a_new_one() {
    let mut stage = Stage::with_nodes(&["n1", "n2"]);
    for _ in 0..TOO_LONG.as_secs() {
        stage.beat("n2").unwrap();
        stage.pass(Duration::from_secs(1));
    }
    assert_eq!([state(&stage, "n1"), state(&stage, "n2")], [NodeState::Down, NodeState::Ready]);
    assert!(stage.node("n1").session.is_none());
    assert!(stage.beat("n1").is_err());
    stage.pass_with_beats(PERIOD * 10);
    assert_eq!(state(&stage, "n1"), NodeState::Down, "it said nothing");
    stage.open("n1");
    assert_eq!(state(&stage, "n1"), NodeState::Ready);
}

#[test]
fn a_clock_that_jumps_loses_nobody() {
    let hour = Duration::from_hours(1);
    for jump in [hour, Duration::from_hours(48)] {
        for back in [false, true] {
            let mut stage = Stage::with_nodes(&["n1"]);
            for _ in 0..100 {
                let time = stage.now.time;
                stage.now.time = if back { time.before(jump) } else { time.after(jump) };
                stage.pass_with_beats(Duration::from_secs(1));
            }
            assert_eq!(state(&stage, "n1"), NodeState::Ready, "{jump:?} {back}");
            assert!(stage.node("n1").session.is_some());
        }
    }
}

/// A manager that starts anew, or leads again, knows nothing of what was heard before.
#[test]
fn a_manager_that_starts_anew_gives_every_node_its_full_time() {
    let mut stage = Stage::with_nodes(&["n1", "n2"]);
    stage.pass_with_beats(PERIOD);
    stage.pass(ALMOST);
    stage.restart();
    stage.pass(ALMOST);
    assert_eq!([state(&stage, "n1"), state(&stage, "n2")], [NodeState::Ready; 2]);
    stage.open("n1");
    stage.pass_with_beats(Duration::from_secs(3));
    assert_eq!([state(&stage, "n1"), state(&stage, "n2")], [NodeState::Ready, NodeState::Down]);
}

#[test]
fn who_is_lost_is_written_one_after_the_other() {
    let mut stage = Stage::with_nodes(&["n1", "n2"]);
    stage.writes = false;
    stage.pass(TOO_LONG);
    stage.pass(TOO_LONG);
    assert_eq!(stage.unwritten.len(), 1, "the disk is slow");
    stage.write();
    assert_eq!([state(&stage, "n1"), state(&stage, "n2")], [NodeState::Down; 2]);
}

#[test]
fn what_was_observed_of_a_node_that_came_back_meanwhile_is_not_written() {
    let mut stage = Stage::with_nodes(&["n1"]);
    stage.writes = false;
    stage.pass(TOO_LONG);
    assert_eq!(stage.unwritten.len(), 1);
    // Its registration comes first.
    stage.change(|tx| tx.edit_node(&"n1".into(), |node| node.description.nano_cpus = 1));
    stage.open("n1");
    stage.write();
    assert_eq!(state(&stage, "n1"), NodeState::Ready);
}

#[test]
fn a_write_that_failed_is_tried_again() {
    let mut stage = Stage::with_nodes(&["n1"]);
    stage.writes = false;
    stage.pass(TOO_LONG);
    stage.unwritten.clear();
    stage.handle(Command::Written);
    stage.pass(PERIOD);
    assert_eq!(stage.unwritten.len(), 1);
}

/// Down in the store, but there: its registration could not be written while the disk was full.
#[test]
fn a_node_that_is_down_and_has_a_session_is_back_by_its_heartbeats() {
    let mut stage = Stage::with_nodes(&["n1"]);
    stage.pass_with_beats(PERIOD);
    stage.change(|tx| tx.edit_node(&"n1".into(), |node| node.status.state = NodeState::Down));
    stage.pass_with_beats(PERIOD);
    assert_eq!(state(&stage, "n1"), NodeState::Ready);
}
