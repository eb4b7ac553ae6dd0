//! The time until a service of small containers is scaled from 1 to 30, against the time that the
//! same containerd takes to start as many bare ones, without networks, names or a cluster.

use crate::{CONVERGE_MAX, Figure};
use e2e::Lab;
use std::process::Command;
use std::time::Instant;

const MORE: usize = 29;
/// Bare containers started at once, as many as there are nodes.
const AT_ONCE: usize = 3;

#[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
pub(crate) fn run(lab: &Lab) -> Figure {
    lab.docker(&[
        "service",
        "create",
        "--detach",
        "--name",
        "bench-scale",
        "--network",
        "bench",
        "--stop-grace-period",
        "1s",
        "busybox:latest",
        "sleep",
        "1000000",
    ])
    .good();
    lab.converged("bench-scale", "1/1", CONVERGE_MAX);
    let start = Instant::now();
    lab.docker(&["service", "scale", "--detach", "bench-scale=30"]).good();
    lab.converged("bench-scale", "30/30", CONVERGE_MAX);
    let ours = start.elapsed();
    lab.docker(&["service", "rm", "bench-scale"]).good();

    let start = Instant::now();
    std::thread::scope(|scope| {
        for lane in 0..AT_ONCE {
            scope.spawn(move || {
                for number in (lane..MORE).step_by(AT_ONCE) {
                    ctr(
                        lab,
                        &[
                            "run",
                            "--detach",
                            // A task is confined by it, too; it is a fifth of a start.
                            "--seccomp",
                            // Below what `skep lab down` removes.
                            "--cgroup",
                            &format!("{}/bare-{number}", lab.cgroup()),
                            "docker.io/library/busybox:latest",
                            &format!("bare-{number}"),
                            "sleep",
                            "1000000",
                        ],
                    );
                }
            });
        }
    });
    let peer = start.elapsed();
    for number in 0..MORE {
        ctr(lab, &["tasks", "kill", "--signal", "SIGKILL", &format!("bare-{number}")]);
    }
    Figure {
        name: "seconds to scale 1 -> 30, bare containers",
        ours: format!("{:.2} s", ours.as_secs_f64()),
        peer: format!("{:.2} s", peer.as_secs_f64()),
        ratio: ours.as_secs_f64() / peer.as_secs_f64(),
    }
}

#[expect(clippy::disallowed_methods, reason = "the peer is a program")]
fn ctr(lab: &Lab, arguments: &[&str]) {
    let output = Command::new("ctr")
        .arg("--address")
        .arg(lab.containerd())
        // A namespace that no node of the lab looks into would lack the image.
        .args(["--namespace", &lab.namespace(1)])
        .args(arguments)
        .output()
        .expect("ctr is installed with containerd");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
