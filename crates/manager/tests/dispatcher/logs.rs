//! Who is asked for which logs.

use crate::stage::{MOMENT, Stage};
use manager::LogSelector;
use manager::dispatch::{Command, LogOutput, SubscriptionId};
use std::time::Duration;
use types::{ContainerStatus, ServiceId, Timestamp};
use wire::LogOptions;

const CLIENT: SubscriptionId = SubscriptionId(7);

/// Two nodes with a task each that has a container.
fn stage() -> Stage {
    let mut stage = Stage::with_nodes(&["n1", "n2"]);
    for (task, node) in [("t1", "n1"), ("t2", "n2")] {
        stage.run(task, node, false);
        stage.change(|tx| {
            tx.edit_task(&task.into(), |task| {
                task.service = "s".into();
                let container = ContainerStatus { id: "c0ffee".to_owned(), ..Default::default() };
                task.status.container = Some(container);
            });
        });
    }
    stage.settle();
    stage
}

fn subscribe(stage: &mut Stage, follow: bool) {
    let selector = LogSelector::Service(ServiceId::from("s"));
    let options = LogOptions { follow, ..LogOptions::default() };
    stage.handle(Command::Subscribe { subscription: CLIENT, selector, options });
}

fn is_over(stage: &Stage) -> bool {
    stage.logs.contains(&LogOutput::Over { subscription: CLIENT })
}

fn missing(stage: &Stage) -> usize {
    stage.logs.iter().filter(|output| matches!(output, LogOutput::Missing { .. })).count()
}

#[test]
fn a_subscription_is_over_when_every_node_has_no_more() {
    let mut stage = stage();
    subscribe(&mut stage, false);
    let parts = ["n1", "n2"].map(|node| stage.node(node).logs[0].subscription.clone());
    assert_ne!(parts[0], parts[1]);
    let expected = stage.logs.iter().filter(|it| matches!(it, LogOutput::Expect { .. })).count();
    assert_eq!(expected, 2, "what nodes send is taken");
    let [first, second] = parts;
    stage.handle(Command::LogsEnded { part: first });
    assert!(!is_over(&stage));
    stage.handle(Command::LogsEnded { part: second });
    assert!(is_over(&stage));
}

#[test]
fn a_node_that_is_not_there_is_told_once() {
    let mut stage = stage();
    stage.close("n2");
    subscribe(&mut stage, true);
    stage.pass_with_beats(Duration::from_secs(3));
    assert_eq!(missing(&stage), 1);
    stage.open("n2");
    assert_eq!(stage.node("n2").logs.len(), 1, "it is asked when it is back");
}

#[test]
fn who_follows_asks_again_for_what_broke_off_and_only_for_what_came_since() {
    let mut stage = stage();
    subscribe(&mut stage, true);
    let part = stage.node("n1").logs[0].subscription.clone();
    stage.now.day = Timestamp(77);
    stage.handle(Command::LogsBroken { part: part.clone() });
    assert!(stage.logs.contains(&LogOutput::Forget { part: part.clone() }));
    let again = stage.node("n1").logs[1].clone();
    assert_ne!(again.subscription, part);
    assert_eq!(again.options.since, Some(Timestamp(77)));
    stage.open("n1");
    assert_eq!(stage.node("n1").logs.len(), 3, "a new session, a new part");
    assert_eq!(missing(&stage), 0);
}

#[test]
fn who_does_not_follow_is_told_what_is_missing() {
    let mut stage = stage();
    subscribe(&mut stage, false);
    let parts = ["n1", "n2"].map(|node| stage.node(node).logs[0].subscription.clone());
    let [first, second] = parts;
    stage.handle(Command::LogsBroken { part: first });
    assert_eq!(missing(&stage), 1);
    assert!(!is_over(&stage));
    stage.handle(Command::LogsEnded { part: second });
    assert!(is_over(&stage));
}

#[test]
fn nodes_are_told_when_nobody_reads_any_more() {
    let mut stage = stage();
    subscribe(&mut stage, true);
    let part = stage.node("n1").logs[0].subscription.clone();
    stage.handle(Command::Unsubscribe { subscription: CLIENT });
    assert_eq!(stage.node("n1").logs_done, [part]);
    stage.run("t3", "n1", false);
    stage.pass(MOMENT);
    assert_eq!(stage.node("n1").logs.len(), 1);
}

#[test]
fn the_number_of_subscriptions_is_limited() {
    let mut stage = stage();
    for number in 0..512 {
        let selector = LogSelector::Service(ServiceId::from("s"));
        let options = LogOptions { follow: true, ..LogOptions::default() };
        let subscription = SubscriptionId(100 + number);
        stage.handle(Command::Subscribe { subscription, selector, options });
    }
    assert_eq!(missing(&stage), 0);
    subscribe(&mut stage, true);
    assert!(is_over(&stage));
    assert_eq!(missing(&stage), 1, "it is told why");
}
