//! Volumes of plugins in the lives of containers.

use super::{Stage, soon};
use crate::volumes::FakePlugin;
use crate::*;
use futures_util::StreamExt;
use serde_json::{Value, json};
use types::Mount;

/// A plugin that mounts whatever it is asked for, where a container of this stage has its streams.
fn plugin(stage: &Stage) -> FakePlugin {
    let (place, runs) = (stage.dir.path().join("flock"), stage.dir.path().join("run"));
    std::fs::create_dir_all(&place).unwrap();
    FakePlugin::at(&stage.dir.path().join("plugins/flock.sock"), move |method, body| match method {
        "Mount" if !runs.join(body["ID"].as_str().unwrap()).exists() => {
            json!({ "Err": "who is that?" })
        }
        "Mount" if body["Name"] == "bad" => json!({ "Err": "no more flocks" }),
        "Mount" if body["Name"] == "odd" => json!({ "Mountpoint": "relative" }),
        "Mount" => json!({ "Mountpoint": place }),
        "Get" if body["Name"] == "strange" => json!({ "Volume": { "Name": "strange" } }),
        "Get" => json!({ "Err": "no such volume" }),
        "Remove" if body["Name"] == "bad" => json!({ "Err": "it bleats" }),
        _ => Value::Null,
    })
}

fn with_volumes(names: &[&str]) -> impl FnOnce(&mut ContainerConfig) {
    let mount = |name: &&str| Mount {
        source: (*name).to_owned(),
        target: format!("/{name}"),
        volume_driver: "flock".to_owned(),
        ..Mount::default()
    };
    let mounts = names.iter().map(mount).collect();
    |config| config.spec.mounts = mounts
}

fn mounts(plugin: &FakePlugin) -> Vec<String> {
    plugin.calls(&["Mount", "Unmount"])
}

#[tokio::test]
async fn a_plugin_is_told_as_many_unmounts_as_mounts() {
    let stage = Stage::new().await;
    let plugin = plugin(&stage);
    let never = stage.created(with_volumes(&["wool"])).await;
    stage.engine.remove(&never, false, false).await.unwrap();
    assert_eq!(mounts(&plugin), [""; 0], "it was not started");
    let id = stage.running(with_volumes(&["wool"])).await;
    stage.fake.end(&id, 0);
    stage.ended(&id).await;
    assert_eq!(mounts(&plugin), ["Mount wool", "Unmount wool"]);
    // Again, and a daemon that was started anew does not lose it.
    assert!(stage.engine.start(&id).await.unwrap());
    let stage = stage.restart().await;
    soon(stage.engine.remove(&id, true, false)).await.unwrap();
    let twice = ["Mount wool", "Unmount wool", "Mount wool", "Unmount wool"];
    assert_eq!(mounts(&plugin), twice);
}

#[tokio::test]
async fn what_a_plugin_did_not_mount_is_not_unmounted() {
    let stage = Stage::new().await;
    let plugin = plugin(&stage);
    for (name, calls) in [
        ("bad", &["Mount bad"][..]),
        // It may be mounted.
        ("odd", &["Mount odd", "Unmount odd"]),
    ] {
        let id = stage.created(with_volumes(&[name])).await;
        let before = mounts(&plugin).len();
        stage.engine.start(&id).await.unwrap_err();
        soon(stage.engine.remove(&id, false, false)).await.unwrap();
        assert_eq!(mounts(&plugin)[before..], *calls);
    }
    let id = stage.created(with_volumes(&["wool"])).await;
    stage.fake.set_broken(Some(types::Fault::internal("no")));
    stage.engine.start(&id).await.unwrap_err();
    stage.fake.set_broken(None);
    soon(stage.engine.remove(&id, false, false)).await.unwrap();
    assert_eq!(plugin.calls(&["Mount", "Unmount"]).len(), 3, "the start did not come that far");
}

#[tokio::test]
async fn what_a_daemon_mounted_that_was_killed_is_unmounted_by_the_next_one() {
    let stage = Stage::new().await;
    let plugin = plugin(&stage);
    let id = stage.created(with_volumes(&["wool"])).await;
    let run = stage.dir.path().join("run").join(&id);
    let stage = stage.restart_while(|_| std::fs::create_dir_all(run).unwrap()).await;
    super::eventually(async || mounts(&plugin) == ["Unmount wool"]).await;
    soon(stage.engine.remove(&id, false, false)).await.unwrap();
    assert_eq!(mounts(&plugin), ["Unmount wool"]);
}

fn named(name: &str, driver: &str) -> VolumeOrder {
    VolumeOrder { name: name.to_owned(), driver: driver.to_owned(), ..VolumeOrder::default() }
}

#[tokio::test]
async fn a_volume_that_only_its_plugin_knows_is_removed_there() {
    let stage = Stage::new().await;
    let plugin = plugin(&stage);
    stage.engine.remove_volume("strange", false).await.unwrap();
    assert_eq!(plugin.calls(&["Remove"]), ["Remove strange"]);
    for force in [false, true] {
        let refused = stage.engine.remove_volume("none", force).await.unwrap_err();
        assert_eq!(refused, types::Fault::not_found("get none: no such volume"));
    }
}

#[tokio::test]
async fn a_volume_that_its_plugin_does_not_remove_is_forgotten_by_force() {
    let stage = Stage::new().await;
    let _plugin = plugin(&stage);
    for name in ["bad", "wool"] {
        stage.engine.create_volume(named(name, "flock")).await.unwrap();
    }
    let refused = stage.engine.remove_volume("bad", false).await.unwrap_err();
    assert!(refused.message.starts_with("remove bad: plugin \"flock\": "), "{refused}");
    stage.engine.remove_volume("bad", true).await.unwrap();
    std::fs::remove_file(stage.dir.path().join("plugins/flock.sock")).unwrap();
    let refused = stage.engine.remove_volume("wool", false).await.unwrap_err();
    assert!(refused.message.contains("plugin \"flock\" not found"), "{refused}");
    stage.engine.remove_volume("wool", true).await.unwrap();
    assert!(stage.engine.volumes().await.unwrap().is_empty());
    // The names are free.
    for name in ["bad", "wool"] {
        stage.engine.create_volume(named(name, "local")).await.unwrap();
    }
}

#[tokio::test]
async fn events_and_inspections_say_where_the_volume_of_a_plugin_is() {
    let stage = Stage::new().await;
    let _plugin = plugin(&stage);
    let made = stage.engine.create_volume(named("wool", "flock:latest")).await.unwrap();
    assert_eq!(made.driver(), "flock");
    assert_eq!(stage.engine.create_volume(named("wool", "flock")).await.unwrap(), made);
    let mount = Mount { source: "wool".to_owned(), target: "/wool".to_owned(), ..Mount::default() };
    let id = stage.running(|config| config.spec.mounts = vec![mount]).await;
    let stage = stage.restart().await;
    let mounts = stage.engine.inspect(&id).await.unwrap().mounts;
    let point = mounts.iter().find(|point| point.mount.source == "wool").unwrap();
    assert_eq!(point.driver(), "flock");
    assert_eq!(point.source, stage.dir.path().join("flock"));
    let since = Some(types::Timestamp(0));
    soon(stage.engine.remove(&id, true, false)).await.unwrap();
    stage.engine.remove_volume("wool", false).await.unwrap();
    let told = stage.engine.events(since, Some(clock::now()));
    let told =
        told.map(|event| event.unwrap()).filter(|event| std::future::ready(event.id == "wool"));
    let lines = told.map(|event| format!("{} {}", event.action, event.attributes["driver"]));
    let lines: Vec<String> = soon(lines.collect::<Vec<_>>()).await;
    assert_eq!(lines, ["unmount flock", "destroy flock"]);
}
