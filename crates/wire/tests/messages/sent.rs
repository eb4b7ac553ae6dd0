//! Messages take about as much memory as they have bytes, whoever sends them.

use crate::status;
use discovery::{
    Endpoint, Knowledge, Mesh, MeshNode, MeshPort, MeshTask, NetworkView, ServiceView,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::fmt::Debug;
use types::{Addresses, Protocol, TaskStatus};
use wire::{Assignments, LogChunk, LogLine, MESSAGE_LIMIT, Report, SessionMessage, Welcome};

const MANY: u16 = 5_000;

/// An id as long as they are.
fn id(of: char, number: u16) -> String {
    format!("{of}{number:024}")
}

/// The shortest honest messages that have many elements.
fn honest<T: Serialize + DeserializeOwned + PartialEq + Debug>(message: &T) {
    let bytes = wire::encode(message).unwrap();
    assert!(wire::decode_sent::<T>(&bytes).unwrap() == *message);
}

#[test]
fn what_is_sent_in_good_faith_is_read_however_much_it_is() {
    let all = || (0..MANY).map(|number| id('t', number));
    let line = |task: String| LogLine { task: task.as_str().into(), ..LogLine::default() };
    honest(&LogChunk { lines: all().map(line).collect(), ..LogChunk::default() });
    let statuses = |status: TaskStatus| {
        all().map(|task| (task.as_str().into(), status.clone())).collect::<BTreeMap<_, _>>()
    };
    honest(&Report { statuses: statuses(status()), ..Report::default() });
    honest(&Report { statuses: statuses(TaskStatus::default()), ..Report::default() });
    let managers = (0..MANY).map(|number| format!("10.0.0.1:{number}")).collect();
    honest(&SessionMessage::Welcome(Welcome { managers, ..Welcome::default() }));

    let addresses = || Addresses::from([10, 0, 0, 1]);
    let endpoint = || Endpoint { addresses: addresses(), ..Endpoint::default() };
    let network = NetworkView {
        endpoints: all().map(|task| (task, endpoint())).collect(),
        services: all().map(|service| (service, ServiceView::default())).collect(),
        ..NetworkView::default()
    };
    let node = || MeshNode { ingress: addresses(), ..MeshNode::default() };
    let task = || MeshTask { ingress: addresses(), ..MeshTask::default() };
    let port = |port: u16| {
        let tasks = (0..2).map(|number| id('t', number)).collect();
        ((Protocol::Tcp, port), MeshPort { tasks, ..MeshPort::default() })
    };
    let mesh = Mesh {
        nodes: all().map(|id| (id, node())).collect(),
        tasks: all().map(|id| (id, task())).collect(),
        ports: (0..MANY).map(port).collect(),
        ..Mesh::default()
    };
    let networks = BTreeMap::from([("net1".into(), network)]);
    let withdrawn = all().map(|task| task.as_str().into()).collect();
    honest(&SessionMessage::Whole(Assignments {
        version: 1,
        withdrawn,
        knowledge: Knowledge { networks, mesh },
        ..Assignments::default()
    }));
}

/// A map of this field to a list, or a map, of such items: as long as messages may be.
fn repeated(field: &str, marker: u8, item: impl Fn(u32) -> Vec<u8>) -> Vec<u8> {
    let mut items = Vec::new();
    let mut count = 0_u32;
    while items.len() < MESSAGE_LIMIT - 64 {
        items.extend(item(count));
        count += 1;
    }
    let field = wire::encode(field).unwrap();
    [&[0x81][..], &field, &[marker], &count.to_be_bytes(), &items].concat()
}

#[test]
fn a_message_that_is_many_times_its_bytes_in_memory_is_refused() {
    let refused = |why: msgpack::Error| assert!(matches!(why, msgpack::Error::Elements), "{why}");
    let lines = repeated("lines", 0xdd, |_| vec![0x80]);
    refused(wire::decode_sent::<LogChunk>(&lines).unwrap_err());
    let status = |number: u32| [&[0xa3], &number.to_be_bytes()[1..], &[0x80]].concat();
    let statuses = repeated("statuses", 0xdf, |number| status(number & 0x007f_7f7f));
    refused(wire::decode_sent::<Report>(&statuses).unwrap_err());
}
