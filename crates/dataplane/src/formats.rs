//! What every format that was released has written is read.

use crate::handle::Identity;
use crate::journal::{Journal, Local};
use crate::names::Hello;
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

fn local() -> Local {
    Local {
        identity: Some(Identity {
            node: "n2".into(),
            address: [192, 168, 100, 3].into(),
            data_path_port: 4790,
        }),
        sandboxes: BTreeMap::from([("c1".to_owned(), samples::sandbox())]),
        hidden: ["t0"].into_iter().collect(),
    }
}

#[tokio::test]
async fn journals_of_every_format_are_read() {
    let mut stored = Stored::of(env!("CARGO_MANIFEST_DIR"));
    // The first words of a name server, which outlives the daemon that started it.
    stored.message("hello.msgpack", Hello { protocol: 3, version: "0.1.0".to_owned() });

    let written = tempfile::tempdir().unwrap();
    let mut journal = Journal::open(written.path()).await.unwrap();
    journal.save_local(&local()).await.unwrap();
    journal.save_knowledge(&samples::knowledge()).await.unwrap();
    let mut former: BTreeMap<String, Vec<(&str, Vec<u8>)>> = BTreeMap::new();
    for file in FILES {
        let name = file.replace('/', "-");
        stored.present(&name, &fs::read(written.path().join(file)).unwrap());
        for (format, bytes) in stored.former(&name) {
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
        let (local, known) = Journal::open(dir.path()).await.unwrap().load();
        stored.reads(&format, "journal.msgpack", &(text(&local) + &text(&known)));
    }
    stored.finish(&FORMER);
}
