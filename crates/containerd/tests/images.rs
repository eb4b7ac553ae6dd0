//! Images from archives, on a real containerd.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "all of it is test code")]

mod trial;

use engine::Runtime;
use serde_json::json;
use std::io::Cursor;
use trial::{Bench, IMAGE, archive, load, sha256, tar_of};
use types::{Fault, FaultKind};

async fn load_bytes(runtime: &impl Runtime, bytes: Vec<u8>) -> Result<Vec<engine::Image>, Fault> {
    runtime.load(Box::pin(Cursor::new(bytes))).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_is_loaded_once_however_often_it_is_sent() {
    let Some(bench) = Bench::started().await else { return };
    let runtime = bench.connect("one").await;
    let first = load(&runtime).await;
    assert_eq!(first.names, [IMAGE]);
    assert_eq!(first.config["config"]["Cmd"], json!(["sh"]));
    assert!(1_000_000 < first.size, "{}", first.size);
    assert_eq!(load(&runtime).await, first);
    let packed = load_bytes(&runtime, trial::packed(&archive())).await.unwrap();
    assert_eq!(packed, std::slice::from_ref(&first));
    // Two at once do not get into each other's way.
    let other = bench.connect("other").await;
    let (one, two) = tokio::join!(load(&other), load(&other));
    assert_eq!(one, two);
    assert_eq!(runtime.images().await.unwrap(), std::slice::from_ref(&first));
    assert_eq!(runtime.image(first.id.clone()).await.unwrap(), Some(first.clone()));
    assert_eq!(runtime.image(IMAGE.to_owned()).await.unwrap(), Some(first));
    assert_eq!(runtime.image("docker.io/library/none:1".to_owned()).await.unwrap(), None);
    let spool = std::fs::read_dir(bench.directory.path().join("spool")).unwrap();
    assert_eq!(spool.count(), 0, "temporary files are left");
}

/// An archive of an image with one layer, which has these files.
fn archive_of(name: &str, files: &[(&str, &[u8])]) -> Vec<u8> {
    let layer = tar_of(files);
    let rootfs = json!({ "type": "layers", "diff_ids": [sha256(&layer)] });
    let config = json!({ "os": "linux", "rootfs": rootfs }).to_string();
    let manifest = json!([{ "Config": "c", "RepoTags": [name], "Layers": ["l"] }]).to_string();
    tar_of(&[("l", &layer), ("c", config.as_bytes()), ("manifest.json", manifest.as_bytes())])
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_takes_long_to_unpack_holds_up_no_other() {
    let Some(bench) = Bench::started().await else { return };
    let runtime = bench.connect("one").await;
    let names: Vec<String> = (0..60_000).map(|number| format!("many/{number}")).collect();
    let files: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), &b""[..])).collect();
    let slow = load_bytes(&runtime, archive_of("slow:1", &files));
    let quick = async {
        let folder = bench.directories.root.join("io.containerd.snapshotter.v1.overlayfs");
        let snapshots = || std::fs::read_dir(folder.join("snapshots")).into_iter().flatten();
        let has_begun = || snapshots().flatten().any(|one| one.path().join("fs/many").exists());
        trial::until("the slow image is being unpacked", || async { has_begun() }).await;
        load_bytes(&runtime, archive_of("quick:1", &[("a", b"a")])).await.unwrap();
    };
    tokio::pin!(slow);
    tokio::select! {
        loaded = &mut slow => panic!("the quick one had to wait for {loaded:?}"),
        () = quick => {}
    }
    slow.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_of_one_containerd_share_content_but_not_images() {
    let Some(bench) = Bench::started().await else { return };
    let one = bench.connect("one").await;
    let two = bench.connect("two").await;
    let image = load(&one).await;
    assert_eq!(two.images().await.unwrap(), []);
    let blobs = || {
        let folder = bench.directories.root.join("io.containerd.content.v1.content/blobs/sha256");
        let mut names: Vec<_> =
            std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let before = blobs();
    assert_eq!(load(&two).await, image);
    assert_eq!(blobs(), before);
    // What one removes, the other keeps.
    one.untag(IMAGE.to_owned()).await.unwrap();
    assert_eq!(one.images().await.unwrap(), []);
    two.prepare("c".to_owned(), IMAGE.to_owned()).await.unwrap();
    assert!(one.list().await.unwrap().is_empty());
    two.delete("c".to_owned()).await.unwrap();
    two.untag(IMAGE.to_owned()).await.unwrap();
    assert_eq!(blobs(), [] as [std::ffi::OsString; 0], "removed images leave content");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_moves_and_the_last_one_takes_the_image_along() {
    let Some(bench) = Bench::started().await else { return };
    let runtime = bench.connect("one").await;
    let image = load(&runtime).await;
    let second = "localhost:5000/team/copy:2".to_owned();
    runtime.tag(image.id.clone(), second.clone()).await.unwrap();
    let names = runtime.image(IMAGE.to_owned()).await.unwrap().unwrap().names;
    assert_eq!(names, [IMAGE.to_owned(), second.clone()]);
    runtime.untag(IMAGE.to_owned()).await.unwrap();
    let names = runtime.image(image.id.clone()).await.unwrap().unwrap().names;
    assert_eq!(names, std::slice::from_ref(&second));

    // An imported image takes the name over; the old one stays without a name.
    let rootfs = tar_of(&[("etc/motd", b"hello")]);
    let config = json!({ "config": { "Cmd": ["/none"] } });
    let tar = Box::pin(Cursor::new(rootfs.clone()));
    let imported = runtime.import(tar, Some(second.clone()), config).await.unwrap();
    assert_eq!(imported.config["rootfs"]["diff_ids"], json!([sha256(&rootfs)]));
    assert_eq!(imported.config["config"]["Cmd"], json!(["/none"]));
    assert_eq!(runtime.image(second.clone()).await.unwrap().unwrap().id, imported.id);
    assert_eq!(runtime.image(image.id.clone()).await.unwrap().unwrap().names, [] as [String; 0]);
    runtime.untag(image.id.clone()).await.unwrap();
    runtime.untag(second.clone()).await.unwrap();
    runtime.untag(second).await.unwrap();
    assert_eq!(runtime.images().await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_keeps_its_files_when_its_image_is_removed() {
    let Some(bench) = Bench::started().await else { return };
    let runtime = bench.connect("one").await;
    load(&runtime).await;
    let id = "keeps".to_owned();
    runtime.prepare(id.clone(), IMAGE.to_owned()).await.unwrap();
    runtime.untag(IMAGE.to_owned()).await.unwrap();
    let pipes = bench.pipes("keeps");
    let spec = trial::spec(&id, "sleep 1000");
    runtime.start(id.clone(), spec, pipes.stdio.clone()).await.unwrap();
    runtime.delete(id).await.unwrap();
    bench.check_nothing_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_is_refused_and_leaves_no_image() {
    let Some(bench) = Bench::started().await else { return };
    let runtime = bench.connect("one").await;
    let layer = tar_of(&[("a", b"a")]);
    let other = tar_of(&[("b", b"b")]);
    let config = |diff: &str| {
        json!({ "os": "linux", "rootfs": { "type": "layers", "diff_ids": [diff] } }).to_string()
    };
    // A layer that is not the one the configuration names.
    let manifest = json!([{ "Config": "c", "RepoTags": ["bad:1"], "Layers": ["l"] }]).to_string();
    let wrong = config(&sha256(&other));
    let files: [(&str, &[u8]); 3] =
        [("l", &layer), ("c", wrong.as_bytes()), ("manifest.json", manifest.as_bytes())];
    let fault = load_bytes(&runtime, tar_of(&files)).await.unwrap_err();
    assert!(fault.message.contains("is damaged"), "{fault}");

    // A blob that is not what its name says.
    let path = format!("blobs/sha256/{}", sha256(&other).trim_start_matches("sha256:"));
    let manifest = json!([{ "Config": "c", "RepoTags": ["bad:1"], "Layers": [path] }]).to_string();
    let files: [(&str, &[u8]); 3] =
        [(&path, &layer), ("c", wrong.as_bytes()), ("manifest.json", manifest.as_bytes())];
    let fault = load_bytes(&runtime, tar_of(&files)).await.unwrap_err();
    assert!(fault.message.contains("is damaged"), "{fault}");

    // An archive that was cut off, and one for another machine.
    let mut cut = archive();
    cut.truncate(cut.len() / 2);
    let fault = load_bytes(&runtime, cut).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::Invalid, "{fault}");
    let foreign = json!({ "os": "linux", "architecture": "sparc",
        "rootfs": { "type": "layers", "diff_ids": [sha256(&layer)] } })
    .to_string();
    let manifest = json!([{ "Config": "c", "RepoTags": ["bad:1"], "Layers": ["l"] }]).to_string();
    let files: [(&str, &[u8]); 3] =
        [("l", &layer), ("c", foreign.as_bytes()), ("manifest.json", manifest.as_bytes())];
    let fault = load_bytes(&runtime, tar_of(&files)).await.unwrap_err();
    assert!(fault.message.contains("linux/sparc"), "{fault}");

    assert_eq!(runtime.images().await.unwrap(), []);
    // The right one still loads after all that.
    load(&runtime).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demos_archive_is_loaded_by_its_name() {
    let Some(path) = trial::demo_archive() else {
        println!("skipped: needs target/images/busybox.tar of images/build.sh");
        return;
    };
    let Some(bench) = Bench::started().await else { return };
    let runtime = bench.connect("one").await;
    let file = tokio::fs::File::open(path).await.unwrap();
    let images = runtime.load(Box::pin(file)).await.unwrap();
    assert_eq!(images.len(), 1);
    assert!(images[0].names[0].starts_with("docker.io/"), "{:?}", images[0].names);
}
