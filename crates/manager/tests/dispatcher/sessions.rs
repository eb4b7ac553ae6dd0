//! What a session carries, and in which order.

use crate::stage::{MOMENT, PERIOD, Stage};
use manager::dispatch::{Command, SessionId, report};
use std::time::Duration;
use types::{DesiredState, FaultKind, NodeState, TaskState};

#[test]
fn a_session_begins_with_welcome_and_everything() {
    let mut stage = Stage::with_nodes(&["n1", "n2"]);
    stage.run("t1", "n2", true);
    stage.run("t2", "n1", true);
    stage.open("n1");
    let node = stage.node("n1");
    assert_eq!((node.messages, node.has.version), (1, 1));
    assert_eq!(node.has.tasks.len(), 1);
    assert_eq!(node.has.knowledge.networks[&"front".into()].endpoints.len(), 2);
}

#[test]
fn a_node_that_is_none_gets_no_session() {
    let mut stage = Stage::with_nodes(&["n1", "n2"]);
    stage.change(|tx| tx.remove_node(&"n1".into()));
    let session = SessionId::from("session");
    stage.handle(Command::Open { node: "n1".into(), session });
    assert!(stage.node("n1").session.is_none());
    let left = report::left(&stage.view, &"n2".into(), stage.now.time).unwrap();
    stage.change(|tx| {
        for change in &left.changes {
            match change {
                store::Change::Put(store::Object::Node(node)) => tx.put_node((**node).clone()),
                other => panic!("{other:?}"),
            }
        }
    });
    stage.handle(Command::Left { node: "n2".into() });
    assert!(stage.node("n2").session.is_none(), "its session has ended");
    stage.open("n2");
    assert!(stage.node("n2").session.is_none());
}

#[test]
fn a_node_is_told_what_changes_and_nothing_else() {
    let mut stage = Stage::with_nodes(&["n1", "n2", "n3"]);
    stage.run("t1", "n1", false);
    stage.run("t2", "n2", false);
    let told = |stage: &Stage| ["n1", "n2", "n3"].map(|node| stage.node(node).messages);
    let before = told(&stage);
    // Reported by n1, and no news to anybody.
    stage.change(|tx| tx.edit_task(&"t1".into(), |task| task.status.message = "fine".to_owned()));
    stage.pass(MOMENT);
    assert_eq!(told(&stage), before);
    stage.change(|tx| tx.edit_task(&"t1".into(), |task| task.status.unhealthy = true));
    stage.pass(MOMENT);
    let [one, two, three] = told(&stage);
    assert_eq!([one, two, three], [before[0] + 1, before[1] + 1, before[2]], "n3 is not on it");
}

/// Ten tasks, one after the other, are the first at once and the rest together.
fn check_that_changes_are_gathered(stage: &mut Stage) {
    stage.pass(PERIOD / 2);
    let before = stage.node("n1").messages;
    for replica in 0..10 {
        let id = format!("t{replica}");
        stage.change(|tx| {
            tx.put_task(types::Task {
                id: id.as_str().into(),
                node: Some("n1".into()),
                status: types::TaskStatus { state: TaskState::Assigned, ..Default::default() },
                ..Default::default()
            });
        });
    }
    stage.pass(MOMENT);
    assert_eq!(stage.node("n1").has.tasks.len(), 10);
    assert_eq!(stage.node("n1").messages, before + 2);
}

#[test]
fn changes_that_come_at_once_are_one_message() {
    check_that_changes_are_gathered(&mut Stage::with_nodes(&["n1"]));
}

#[test]
fn a_node_that_is_down_makes_no_messages_of_what_comes_at_once() {
    let mut stage = Stage::with_nodes(&["n1", "n2"]);
    stage.run("away", "n2", true);
    stage.settle();
    stage.close("n2");
    while stage.view.node(&"n2".into()).unwrap().status.state != NodeState::Down {
        stage.pass_with_beats(PERIOD);
    }
    // The planner replaces it; nobody waits for its node, which says nothing of its end.
    stage.stop("away");
    stage.settle();
    assert!(stage.task("away").occupies());
    check_that_changes_are_gathered(&mut stage);
}

#[test]
fn a_node_that_falls_behind_gets_the_rest_when_it_catches_up() {
    let mut stage = Stage::with_nodes(&["n1"]);
    stage.run("t1", "n1", false);
    stage.acknowledge("n1");
    let mut slot = 0;
    // Between two ticks.
    while stage.node("n1").behind() < 8 {
        slot += 1;
        stage.change(|tx| tx.edit_task(&"t1".into(), |task| task.ports = vec![port(slot)]));
        stage.pass(MOMENT);
    }
    let version = stage.node("n1").has.version;
    for slot in 100..200 {
        stage.change(|tx| tx.edit_task(&"t1".into(), |task| task.ports = vec![port(slot)]));
    }
    stage.pass(MOMENT);
    assert_eq!(stage.node("n1").has.version, version, "it is busy");
    stage.acknowledge_some("n1", 1);
    assert_eq!(stage.node("n1").has.version, version + 1);
    assert_eq!(stage.node("n1").has.tasks[&"t1".into()].ports, [port(199)]);
}

fn port(published: u16) -> types::PublishedPort {
    types::PublishedPort { published, ..Default::default() }
}

#[test]
fn a_node_that_does_not_catch_up_is_told_at_ticks_and_less_and_less() {
    let mut stage = Stage::with_nodes(&["n1"]);
    stage.run("t1", "n1", false);
    let mut told = Vec::new();
    for second in 0..3600 {
        stage.change(|tx| {
            let port = u16::try_from(second).unwrap();
            tx.edit_task(&"t1".into(), |task| task.ports = vec![self::port(port)]);
        });
        stage.pass_with_beats(Duration::from_secs(1));
        told.push(stage.node("n1").behind());
    }
    assert!(told[60] >= 32, "at every tick: {}", told[60]);
    assert!(told[3599] < 100, "of what it does not read: {}", told[3599]);
    assert!(told[3599] > 60, "it is still told what to do: {}", told[3599]);
    let latest = stage.node("n1").has.tasks[&"t1".into()].ports[0].published;
    assert!(latest > 3500, "{latest}");
}

#[test]
fn an_older_sessions_words_count_for_nothing() {
    let mut stage = Stage::with_nodes(&["n1", "n2"]);
    stage.run("t1", "n1", true);
    stage.settle();
    let old = stage.node("n2").session.clone().unwrap();
    stage.stop("t1");
    stage.pass(MOMENT);
    stage.open("n2");
    stage.acknowledge("n1");
    let late = Command::Acknowledge { node: "n2".into(), session: old.clone(), version: 99 };
    stage.handle(late);
    assert!(!stage.is_withdrawn("t1"), "n2 has not applied anything in its new session");
    assert_eq!(stage.beat_on("n2", &old).unwrap_err().kind, FaultKind::NotFound);
    stage.handle(Command::Closed { node: "n2".into(), session: old });
    assert!(stage.beat("n2").is_ok(), "an end of the old one does not end the new one");
    stage.acknowledge("n2");
    assert!(stage.is_withdrawn("t1"));
}

#[test]
fn a_task_is_withdrawn_once_every_node_has_acknowledged() {
    let mut stage = Stage::with_nodes(&["n1", "n2", "n3"]);
    stage.run("mesh", "n1", true);
    stage.run("front", "n2", false);
    stage.settle();
    stage.stop("mesh");
    stage.stop("front");
    stage.pass(MOMENT);
    stage.acknowledge("n1");
    assert!(!stage.is_withdrawn("mesh") && !stage.is_withdrawn("front"));
    stage.acknowledge("n2");
    assert!(stage.is_withdrawn("front"), "n3 is not on its network");
    assert!(!stage.is_withdrawn("mesh"), "n3 carries the mesh");
    stage.acknowledge("n3");
    assert!(stage.is_withdrawn("mesh"));
    // Who comes back has no say in it.
    stage.open("n3");
    stage.open("n1");
    assert!(stage.is_withdrawn("mesh"));
    stage.change(|tx| {
        tx.edit_task(&"mesh".into(), |task| task.status.state = TaskState::Shutdown);
    });
    stage.settle();
    assert!(stage.node("n1").has.withdrawn.is_empty(), "it has ended");
    assert_eq!(stage.node("n1").has.tasks[&"mesh".into()].desired, DesiredState::Shutdown);
}

#[test]
fn a_heartbeat_is_due_a_little_early_and_not_for_all_at_once() {
    let mut stage = Stage::with_nodes(&["n1", "n2", "n3"]);
    let due = ["n1", "n2", "n3"].map(|node| stage.beat(node).unwrap());
    assert!(due.iter().all(|due| PERIOD.mul_f64(0.8) <= *due && *due <= PERIOD), "{due:?}");
    assert!(due.iter().any(|other| *other != due[0]), "{due:?}");
}
