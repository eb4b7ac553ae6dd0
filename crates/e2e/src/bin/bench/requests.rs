//! HTTP requests, each on a new connection, through the virtual address against the task's own.

use crate::{CONVERGE_MAX, Figure, in_turn, load, sandbox};
use e2e::{Lab, page};
use std::time::Duration;

pub(crate) fn run(lab: &Lab) -> Figure {
    for (name, node, image) in [
        ("bench-web", "node-2", &["nginx:latest"][..]),
        ("bench-client", "node-1", &["busybox:latest", "sleep", "1000000"]),
    ] {
        let constraint = format!("node.hostname=={node}");
        let mut arguments = vec![
            "service",
            "create",
            "--detach",
            "--name",
            name,
            "--network",
            "bench",
            "--constraint",
            &constraint,
        ];
        arguments.extend(image);
        lab.docker(&arguments).good();
    }
    lab.converged("bench-web", "1/1", CONVERGE_MAX);
    lab.converged("bench-client", "1/1", CONVERGE_MAX);
    let (node, id, netns) = sandbox(lab, "bench-client");
    let container = (node, id);
    let address = |name: &str| {
        let shown = lab.inside(&container, &format!("nslookup -type=a {name} 127.0.0.11"));
        let found = shown.out.lines().filter_map(|line| line.strip_prefix("Address: ")).next_back();
        format!("{}:80", found.expect("the name is known").trim())
    };
    let (vip, task) = (address("bench-web"), address("tasks.bench-web"));
    assert_ne!(vip, task);
    let rate = |address: &str| {
        let ask = |(): &mut ()| {
            let page = page(address, "/", Duration::from_secs(5)).expect("nginx answers");
            assert_eq!(page.status, 200);
        };
        load::rate(&netns, || (), ask)
    };
    let (ours, peer) = in_turn(|| rate(&vip), || rate(&task));
    lab.docker(&["service", "rm", "bench-web", "bench-client"]).good();
    Figure {
        name: "requests by the VIP, by the task's address",
        ours: format!("{ours:.0}/s"),
        peer: format!("{peer:.0}/s"),
        ratio: ours / peer,
    }
}
