//! What a hundred thousand tasks cost: figures, printed by hand.
//!
//! `cargo nextest run --release -p store --run-ignored only --no-capture`

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "a figure is taken with a clock")]
#![allow(clippy::print_stdout, reason = "figures are printed")]

use std::time::Instant;
use store::{Snapshot, Tx, View, rules};
use types::{Attachment, Labels, Node, Service, Task, TaskState, Timestamp, Version};

const TASKS: u32 = 100_000;
const SERVICES: u32 = 100;
const NODES: u32 = 5_000;

fn id(kind: char, number: u32) -> String {
    format!("{kind}{number:024}")
}

fn service(number: u32) -> Service {
    let mut service = Service { id: id('s', number).into(), ..Service::default() };
    service.spec.name = format!("service-{number}");
    let container = &mut service.spec.task.container;
    container.image = format!("registry.example.com/team/service-{number}:1.2.3@sha256:{:064}", 1);
    container.env = (0..12).map(|it| format!("SOME_VARIABLE_{it}=some value of it")).collect();
    let label = |it| (format!("com.example.label.{it}"), "its value".to_owned());
    container.labels = (0..6).map(label).collect::<Labels>();
    service
}

fn task(number: u32, service: &Service) -> Task {
    let [_, a, b, c] = number.to_be_bytes();
    let attachment = Attachment {
        network: id('w', number % SERVICES).into(),
        addresses: [10, a, b, c].into(),
        aliases: Vec::new(),
    };
    let mut task = Task {
        id: id('t', number).into(),
        service: service.id.clone(),
        service_name: service.spec.name.clone(),
        slot: u64::from(number / SERVICES + 1),
        node: Some(id('n', number % NODES).into()),
        spec: service.spec.task.clone(),
        attachments: vec![attachment],
        ..Task::default()
    };
    task.status.state = TaskState::Starting;
    task.status.message = "starting".into();
    task
}

fn view() -> View {
    let mut view = View::default();
    let mut tx = Tx::new(&view);
    for number in 0..NODES {
        tx.put_node(Node { id: id('n', number).into(), ..Node::default() });
    }
    let services: Vec<Service> = (0..SERVICES).map(service).collect();
    for service in &services {
        tx.put_service(service.clone());
    }
    for number in 0..TASKS {
        tx.put_task(task(number, &services[usize::try_from(number % SERVICES).unwrap()]));
    }
    view.apply(&tx.finish(), Version(1), Timestamp(1));
    view
}

fn resident_mib() -> f64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: f64 = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096.0 / f64::from(1 << 20)
}

/// Takes two runs: the first one writes the snapshot that the second one reads.
#[test]
#[ignore = "prints figures"]
fn memory_of_a_view_that_was_read() {
    let file = std::env::temp_dir().join("store-many.snapshot");
    if let Ok(bytes) = std::fs::read(&file) {
        let before = resident_mib();
        let snapshot: Snapshot = msgpack::decode(&bytes).unwrap();
        let view = View::try_from(snapshot).unwrap();
        let mib = resident_mib() - before;
        println!("{} tasks read from {} bytes: {mib:.0} MiB", view.tasks().len(), bytes.len());
        std::fs::remove_file(file).unwrap();
    } else {
        let bytes = msgpack::encode(&Snapshot::from(&view())).unwrap();
        std::fs::write(file, bytes).unwrap();
        println!("once more");
    }
}

#[test]
#[ignore = "prints figures"]
fn a_status_in_a_view_of_many_tasks() {
    let before = resident_mib();
    let view = view();
    println!("made: {:.0} MiB", resident_mib() - before);
    let mut tx = Tx::new(&view);
    tx.edit_task(&id('t', 4711).into(), |task| task.status.state = TaskState::Running);
    let status = tx.finish();
    let changed = msgpack::encode(&status).unwrap();
    println!("a task's status: {} bytes", changed.len());
    let mut tx = Tx::new(&view);
    let service = view.service(&id('s', 1).into()).unwrap();
    tx.put_task(task(TASKS + 1, service));
    let added = tx.finish();
    for (what, changes) in [("a status", &status), ("a task with a new address", &added)] {
        const ROUNDS: u32 = 100;
        let begin = Instant::now();
        for _ in 0..ROUNDS {
            rules::check(&view, changes).unwrap();
        }
        println!("rules::check of {what}: {:?}", begin.elapsed() / ROUNDS);
    }
}
