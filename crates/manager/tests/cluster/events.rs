//! Whoever follows what happens in the cluster misses nothing, whichever manager tells it.

use crate::managers::{Another, spec, three};
use crate::stage::{PATIENCE, cluster};
use futures_util::StreamExt;
use manager::{EventStream, Manager};
use std::sync::Arc;
use std::time::Duration;
use store::{Action, Event, Key};
use types::{FaultKind, Service, ServiceId, ServiceMode, Timestamp};

/// The next events of services, so many; the others come and go with what the planner does.
async fn take(events: &mut EventStream, count: usize) -> Vec<Arc<Event>> {
    let mut taken = Vec::new();
    while taken.len() < count {
        let next = tokio::time::timeout(PATIENCE, events.next()).await;
        let event = next.expect("an event is missing").unwrap().unwrap();
        if matches!(event.key, Key::Service(_)) {
            taken.push(event);
        }
    }
    taken
}

async fn scale(manager: &Manager, id: &ServiceId, replicas: u64) {
    let service = Service::clone(manager.fresh().await.unwrap().service(id).unwrap());
    let mut spec = service.spec;
    spec.mode = ServiceMode::Replicated { replicas };
    manager.update_service(id, service.meta.version, spec, false).await.unwrap();
}

/// Takes the events until this one of the service.
async fn up_to(events: &mut EventStream, id: &ServiceId, action: Action) -> Vec<Arc<Event>> {
    let mut taken = Vec::new();
    loop {
        taken.extend(take(events, 1).await);
        let last = taken.last().unwrap();
        if last.key == Key::Service(id.clone()) && last.action == action {
            return taken;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_manager_tells_the_same_over_a_change_of_the_leader_and_a_restart() {
    let (cluster, second, third) = three().await;
    let managers = [&cluster.manager, &second.manager, &third.manager];
    let [mut one, mut two, mut three] = managers.map(|manager| manager.events(None, None));
    let id = second.manager.create_service(spec("a")).await.unwrap();
    cluster.manager.transfer(Some(second.id())).await.unwrap();
    scale(&third.manager, &id, 2).await;
    let seen = take(&mut three, 2).await;
    let last = seen.last().unwrap().time;
    let again = third.stop().await;
    let fault = loop {
        if let Err(fault) = three.next().await.unwrap() {
            break fault;
        }
    };
    assert_eq!(fault.kind, FaultKind::Unavailable);
    assert!(fault.message.contains("from the time of the last event on"), "{fault}");
    assert!(three.next().await.is_none(), "that is the end");
    scale(&cluster.manager, &id, 3).await;
    cluster.manager.remove_service(&id).await.unwrap();
    let told = up_to(&mut one, &id, Action::Remove).await;
    assert_eq!(up_to(&mut two, &id, Action::Remove).await, told);
    let changes = told.iter().filter(|event| event.attributes.contains_key("replicas.new"));
    assert_eq!(changes.count(), 2, "{told:#?}");
    assert!(told.windows(2).all(|pair| pair[0].time < pair[1].time));
    // Who was cut off goes on where he was, at whichever manager.
    let third = Another::again(again).await;
    let rest = |manager: &Manager| manager.events(Some(Timestamp(last.0 + 1)), None);
    let after: Vec<_> = told.iter().filter(|event| last < event.time).cloned().collect();
    for manager in [&cluster.manager, &second.manager, &third.manager] {
        assert_eq!(up_to(&mut rest(manager), &id, Action::Remove).await, after);
    }
    let from_the_start = told.iter().filter(|event| event.time <= last).count();
    assert_eq!(seen.len(), from_the_start);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_last_moment_ends_it_when_all_that_was_before_is_told() {
    let (cluster, second, third) = three().await;
    let id = second.manager.create_service(spec("a")).await.unwrap();
    let now = third.manager.now();
    // It need not have heard of the service yet.
    let past = third.manager.events(Some(Timestamp(0)), Some(now));
    let told: Vec<_> = past.map(Result::unwrap).collect().await;
    assert!(told.iter().any(|event| event.key == Key::Service(id.clone())), "{told:?}");
    assert!(told.iter().all(|event| event.time <= now));
    let before = cluster.manager.events(Some(Timestamp(0)), Some(Timestamp(1)));
    assert_eq!(before.count().await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_whose_clock_is_ahead_hears_what_comes() {
    let cluster = cluster().await;
    let ahead = cluster.manager.now().after(Duration::from_hours(1));
    let mut events = cluster.manager.events(Some(ahead), None);
    let making = async {
        for number in 0.. {
            let name = format!("service-{number}");
            cluster.manager.create_service(spec(&name)).await.unwrap();
        }
    };
    tokio::select! {
        told = take(&mut events, 1) => assert_eq!(told[0].action, Action::Create),
        () = making => {}
    }
}
