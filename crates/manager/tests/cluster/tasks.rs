//! Tasks: assigned, serving, withdrawn; what users ask for.

use crate::stage::{PATIENCE, Scripted, cluster, scale, web};
use std::sync::Arc;
use types::{DesiredState, FaultKind, Task, TaskId, TaskState, Version};
use wire::{LeaveRequest, Report, fault_of, membership_client};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_serves_once_it_runs_and_is_withdrawn_once_all_nodes_have_seen_it() {
    let cluster = cluster().await;
    let (one, two) = (cluster.join().await, cluster.join().await);
    let mut first = Scripted::connect(&cluster, &cluster.first, 9).await.unwrap();
    let mut one = Scripted::connect(&cluster, &one, 1).await.unwrap();
    let mut two = Scripted::connect(&cluster, &two, 2).await.unwrap();
    let web = web(&cluster, 2).await;
    one.read_until("a task on node one", |node| node.has.tasks.len() == 1).await;
    two.read_until("a task on node two", |node| node.has.tasks.len() == 1).await;
    assert_eq!(one.has.knowledge.networks.len(), 1, "the task's network is known with the task");
    assert!(one.serving().is_empty());
    let tasks: Vec<TaskId> =
        [&one, &two].map(|node| node.has.tasks.keys().next().unwrap().clone()).into();
    one.report(&tasks[0], TaskState::Running).await;
    two.report(&tasks[1], TaskState::Running).await;
    first.read_until("the mesh has two", |node| node.mesh_serving() == 2).await;
    for node in [&mut one, &mut two] {
        node.read_until("both tasks serve", |node| node.serving().len() == 2).await;
        node.acknowledge().await;
    }

    scale(&cluster, &web, 1).await;
    for node in [&mut one, &mut two] {
        node.read_until("one task serves", |node| node.serving().len() == 1).await;
    }
    let stopping =
        cluster.tasks(&web).into_iter().find(|task| task.desired > DesiredState::Running).unwrap();
    let (on, other) = if stopping.node.as_ref() == Some(&one.id) {
        (&mut one, &mut two)
    } else {
        (&mut two, &mut one)
    };
    on.acknowledge().await;
    first.read_until("the mesh has one", |node| node.mesh_serving() == 1).await;
    first.acknowledge().await;
    assert!(on.has.withdrawn.is_empty(), "withdrawn before the other node has seen it");
    other.acknowledge().await;
    on.read_until("the task is withdrawn", |node| node.has.withdrawn.contains(&stopping.id)).await;
    on.report(&stopping.id, TaskState::Shutdown).await;
    cluster
        .until("the task has ended", |view| {
            view.task(&stopping.id).is_none_or(|task| task.status.state == TaskState::Shutdown)
        })
        .await;
    cluster.end().await;
}

/// A report may be on its way for longer than its session lives.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_node_says_in_a_session_that_is_over_does_not_count() {
    let cluster = cluster().await;
    let identity = cluster.join().await;
    let late = Scripted::connect(&cluster, &identity, 1).await.unwrap();
    let mut node = Scripted::connect(&cluster, &identity, 1).await.unwrap();
    let says = |session: &str, trouble: &str| {
        let (session, trouble) = (session.to_owned(), Some(trouble.to_owned()));
        Report { session, trouble, ..Report::default() }
    };
    node.client.report(says(&node.session, "")).await.unwrap();
    let refused = node.client.report(says(&late.session, "the kernel refuses")).await;
    assert_eq!(fault_of(refused.unwrap_err()).kind, FaultKind::NotFound);
    assert_eq!(cluster.manager.view().node(&node.id).unwrap().trouble, "");
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_does_not_acknowledge_keeps_its_session_and_gets_the_rest_at_once() {
    let cluster = cluster().await;
    let mut node = Scripted::join(&cluster).await;
    let mut other = Scripted::connect(&cluster, &cluster.first, 9).await.unwrap();
    let web = web(&cluster, 1).await;
    for replicas in 2..=40 {
        scale(&cluster, &web, replicas).await;
        let known = |node: &Scripted| node.has.knowledge.mesh.tasks.len();
        other.read_until("a task more", |node| known(node) >= replicas).await;
        other.acknowledge().await;
    }
    node.read_until("eight versions", |node| node.has.version >= 8).await;
    node.acknowledge().await;
    node.read_until("all tasks", |node| node.has.tasks.len() == 40).await;
    assert!(node.has.version < other.has.version, "{} versions", node.has.version);
    node.beat().await.unwrap();
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_of_a_node_that_leaves_are_replaced_at_once() {
    let cluster = cluster().await;
    let identities = [cluster.join().await, cluster.join().await];
    let mut one = Scripted::connect(&cluster, &identities[0], 1).await.unwrap();
    let web = web(&cluster, 1).await;
    one.runs_a_task().await;
    let mut two = Scripted::connect(&cluster, &identities[1], 2).await.unwrap();
    let channel = cluster.connect(&identities[0]).await;
    membership_client(channel).leave(LeaveRequest::default()).await.unwrap();
    let starts = |task: &Task| task.desired == DesiredState::Running && task.not_before.is_none();
    two.read_until("its task", |node| node.has.tasks.values().any(starts)).await;
    assert_eq!(cluster.tasks(&web).len(), 2, "the old one is remembered");
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_about_to_leave_keeps_its_place_until_its_tasks_have_gone() {
    let cluster = cluster().await;
    let identities = [cluster.join().await, cluster.join().await];
    let mut one = Scripted::connect(&cluster, &identities[0], 1).await.unwrap();
    web(&cluster, 1).await;
    let (task, leaver) = (one.runs_a_task().await, one.id.clone());
    let mut two = Scripted::connect(&cluster, &identities[1], 2).await.unwrap();
    let leave = async |tasks_first: bool| {
        let channel = cluster.connect(&identities[0]).await;
        membership_client(channel).leave(LeaveRequest { tasks_first }).await.unwrap();
    };
    leave(true).await;
    let starts = |task: &Task| task.desired == DesiredState::Running && task.not_before.is_none();
    two.read_until("its task", |node| node.has.tasks.values().any(starts)).await;
    let knows = |node: &Scripted| {
        let is_known = |view: &discovery::NetworkView| view.endpoints.contains_key(&task);
        let mesh = &node.has.knowledge.mesh;
        let mut networks = node.has.knowledge.networks.values();
        (mesh.nodes.contains_key(&leaver), networks.any(is_known))
    };
    assert_eq!(knows(&two), (true, true), "what is under way finds its way");
    let is_to_stop = |node: &Scripted| node.has.tasks[&task].desired == DesiredState::Shutdown;
    one.read_until("its order", is_to_stop).await;
    one.report(&task, TaskState::Shutdown).await;
    leave(false).await;
    two.read_until("no trace", |node| knows(node) == (false, false)).await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn user_operations_are_checked_against_the_newest_view() {
    let cluster = cluster().await;
    let swarm = cluster.manager.view().cluster().cloned().unwrap();
    let id = web(&cluster, 1).await;
    let service = Arc::clone(cluster.manager.view().service(&id).unwrap());
    cluster.until("its network is there", |view| view.networks().all(|it| it.vni != 0)).await;
    // What the planner does changes nothing under a user who has read the cluster before.
    let (version, spec) = (swarm.meta.version, swarm.spec.clone());
    cluster.manager.update_cluster(version, spec, manager::Rotate::default()).await.unwrap();
    let again = cluster.manager.create_service(service.spec.clone()).await.unwrap_err();
    assert_eq!(again.kind, FaultKind::Conflict);
    let late = cluster.manager.update_service(&id, Version(1), service.spec.clone(), false).await;
    assert!(late.unwrap_err().message.contains("update out of sequence"));
    let network = service.spec.task.networks[0].target.clone();
    let used = cluster.manager.remove_network(&network).await.unwrap_err();
    assert_eq!(used.message, format!("network {network} is in use by service {id}"));
    cluster.manager.remove_service(&id).await.unwrap();
    cluster.manager.remove_network(&network).await.unwrap();
    cluster.until("its tasks are gone", |view| view.tasks().len() == 0).await;
    assert!(cluster.sequencer.view().network(&network).is_none());
    cluster.end().await;
}

/// What a spec says by itself may take long to read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_spec_is_refused_without_the_one_writer() {
    let cluster = cluster().await;
    let web = web(&cluster, 1).await;
    let service = Arc::clone(cluster.manager.view().service(&web).unwrap());
    let mut wrong = service.spec.clone();
    wrong.task.container.env = vec!["X={{.Nope}}".to_owned()];
    // The writer is busy.
    let (resume, resumed) = std::sync::mpsc::channel();
    let busy = cluster.sequencer.sequence(move |_: &store::View, _| {
        resumed.recv().unwrap();
        Ok(store::Changes::default())
    });
    let checks = async {
        let made = cluster.manager.create_service(wrong.clone());
        let made = tokio::time::timeout(PATIENCE, made).await.expect("it waits for the writer");
        assert!(made.unwrap_err().message.contains("Nope"));
        let updated = cluster.manager.update_service(&web, service.meta.version, wrong, false);
        let updated =
            tokio::time::timeout(PATIENCE, updated).await.expect("it waits for the writer");
        assert!(updated.unwrap_err().message.contains("Nope"));
        resume.send(()).unwrap();
    };
    let (busy, ()) = tokio::join!(busy, checks);
    busy.unwrap();
    cluster.end().await;
}
