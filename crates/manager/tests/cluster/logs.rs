//! Logs of tasks, from node to user.

use crate::stage::{PATIENCE, Scripted, cluster, scale, web};
use manager::LogSelector;
use std::time::Duration;
use tokio_stream::StreamExt;
use types::TaskId;
use wire::{LogChunk, LogLine, LogOptions};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logs_come_from_the_nodes_that_hold_the_tasks() {
    let cluster = cluster().await;
    let mut node = Scripted::join(&cluster).await;
    let web = web(&cluster, 1).await;
    let task = node.runs_a_task().await;
    let options = LogOptions { stdout: true, ..LogOptions::default() };
    let selector = LogSelector::Service(web);
    let mut lines = cluster.manager.logs(selector, options).await.unwrap();
    let request = node.log_request().await;
    assert!(request.tasks.contains(&task));
    let line = |task: &TaskId, text: &str| LogLine {
        task: task.clone(),
        node: "someone-else".into(),
        text: text.into(),
        ..LogLine::default()
    };
    let chunk = LogChunk {
        subscription: request.subscription.clone(),
        lines: vec![line(&task, "hello\n"), line(&"not-its-task".into(), "forged\n")],
        end: true,
        error: String::new(),
    };
    let sending = tokio_stream::iter([chunk]);
    node.client.publish_logs(sending).await.unwrap();
    let first = tokio::time::timeout(PATIENCE, lines.next()).await.unwrap().unwrap().unwrap();
    assert_eq!((first.text.as_slice(), &first.node), (b"hello\n".as_slice(), &node.id));
    let end = tokio::time::timeout(PATIENCE, lines.next()).await.unwrap();
    assert!(end.is_none(), "{end:?}");
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logs_that_nobody_reads_do_not_hold_up_heartbeats() {
    let cluster = cluster().await;
    let mut node = Scripted::join(&cluster).await;
    let web = web(&cluster, 1).await;
    let task = node.runs_a_task().await;
    let mut unread = Vec::new();
    let mut sending = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let options = LogOptions { stdout: true, follow: true, ..LogOptions::default() };
        let selector = LogSelector::Service(web.clone());
        unread.push(cluster.manager.logs(selector, options).await.unwrap());
        let subscription = node.log_request().await.subscription;
        let line = LogLine { task: task.clone(), text: vec![b'x'; 200], ..LogLine::default() };
        let chunk = LogChunk { subscription, lines: vec![line; 100], ..LogChunk::default() };
        let mut client = node.client.clone();
        let chunks = tokio_stream::iter(std::iter::repeat_n(chunk, 1000));
        sending.spawn(async move { client.publish_logs(chunks).await });
    }
    // Long enough for what nobody reads to fill every buffer on the way.
    for _ in 0..20 {
        let beat = tokio::time::timeout(Duration::from_secs(30), node.beat()).await;
        beat.expect("the heartbeat waits for the logs").unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(sending.try_join_next().is_none(), "the logs went somewhere");
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_opens_however_many_follow_the_logs_of_its_node() {
    const FOLLOWERS: usize = 200;
    let cluster = cluster().await;
    let identity = cluster.join().await;
    let mut node = Scripted::connect(&cluster, &identity, 1).await.unwrap();
    let web = web(&cluster, 1).await;
    let task = node.runs_a_task().await;
    let mut followers = Vec::new();
    for _ in 0..FOLLOWERS {
        let options = LogOptions { stdout: true, follow: true, ..LogOptions::default() };
        let selector = LogSelector::Task(task.clone());
        followers.push(cluster.manager.logs(selector, options).await.unwrap());
        node.log_request().await;
    }
    drop(node);
    let mut node = Scripted::connect(&cluster, &identity, 1).await.unwrap();
    for _ in 0..FOLLOWERS {
        assert!(node.log_request().await.tasks.contains(&task));
    }
    node.beat().await.unwrap();
    // They all go at once.
    drop(followers);
    scale(&cluster, &web, 2).await;
    node.read_until("another task", |node| node.has.tasks.len() == 2).await;
    node.beat().await.unwrap();
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logs_whose_call_breaks_off_end_with_a_word_on_it() {
    let cluster = cluster().await;
    let mut node = Scripted::join(&cluster).await;
    let web = web(&cluster, 1).await;
    let task = node.runs_a_task().await;
    let options = LogOptions { stdout: true, ..LogOptions::default() };
    let mut lines = cluster.manager.logs(LogSelector::Service(web), options).await.unwrap();
    let subscription = node.log_request().await.subscription;
    let line = LogLine { task, text: b"hello".to_vec(), ..LogLine::default() };
    let chunk = LogChunk { subscription, lines: vec![line], ..LogChunk::default() };
    let chunks = tokio_stream::iter([chunk]).chain(tokio_stream::pending());
    let mut client = node.client.clone();
    let mut sending = tokio::task::JoinSet::new();
    sending.spawn(async move { client.publish_logs(chunks).await });
    let mut next = async || tokio::time::timeout(PATIENCE, lines.next()).await.unwrap();
    assert_eq!(next().await.unwrap().unwrap().text, b"hello");
    sending.shutdown().await;
    let fault = next().await.unwrap().unwrap_err();
    assert!(fault.message.contains("incomplete log stream"), "{fault}");
    assert!(next().await.is_none());
    cluster.end().await;
}
