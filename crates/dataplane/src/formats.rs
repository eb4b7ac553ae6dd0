//! What every format that was released has written is read.

use crate::handle::Identity;
use crate::journal::Journal;
use crate::names::Hello;
use discovery::{Knowledge, MeshSettings, NetworkSettings};
use std::collections::BTreeMap;
use std::fs;
use stored::{Stored, samples, text};

/// What was released and is never written again.
const FORMER: [(&str, &str); 1] = [("0.1.0-format1", "81704cb3cf3f01e0")];

const FOLDERS: [&str; 2] = ["sandboxes", "networks"];
const FILES: [&str; 5] = [
    "node.msgpack",
    "mesh.msgpack",
    "sandboxes/c1.msgpack",
    "networks/net1.msgpack",
    "networks/net9.msgpack",
];

#[tokio::test]
async fn journals_of_every_format_are_read() {
    let mut stored = Stored::of(env!("CARGO_MANIFEST_DIR"));
    // The first words of a name server, which outlives the daemon that started it.
    stored.message("hello.msgpack", Hello { protocol: 3, version: "0.1.0".to_owned() });

    rows(&mut stored);

    // A file for each thing, as the former format had it.
    let mut former: BTreeMap<String, Vec<(&str, Vec<u8>)>> = BTreeMap::new();
    for file in FILES {
        for (format, bytes) in stored.former(&file.replace('/', "-")) {
            former.entry(format).or_default().push((file, bytes));
        }
    }
    for (format, files) in former {
        let dir = tempfile::tempdir().unwrap();
        for folder in FOLDERS {
            fs::create_dir(dir.path().join(folder)).unwrap();
        }
        for (file, bytes) in files {
            fs::write(dir.path().join(file), bytes).unwrap();
        }
        let kept = Journal::open(dir.path()).await.unwrap().load();
        stored.reads(&format, "journal.msgpack", &text(&kept));
    }
    stored.finish(&FORMER);
}

/// The journal's rows: a value of each kind.
fn rows(stored: &mut Stored) {
    let address = [192, 168, 100, 3].into();
    let identity = Identity { node: "n2".into(), address, data_path_port: 4790 };
    stored.message("row-identity.msgpack", identity);
    stored.message("row-sandbox.msgpack", samples::sandbox());
    let Knowledge { networks, mesh } = samples::knowledge();
    let network = &networks[&"net1".into()];
    stored.message("row-network.msgpack", NetworkSettings::of(network));
    stored.message("row-endpoint.msgpack", first(network.endpoints.values()));
    stored.message("row-service.msgpack", first(network.services.values()));
    stored.message("row-mesh.msgpack", MeshSettings::of(&mesh));
    stored.message("row-mesh-node.msgpack", first(mesh.nodes.values()));
    stored.message("row-mesh-task.msgpack", first(mesh.tasks.values()));
    stored.message("row-port.msgpack", first(mesh.ports.values()));
}

fn first<'a, T: Clone + 'a>(mut all: impl Iterator<Item = &'a T>) -> T {
    all.next().unwrap().clone()
}
