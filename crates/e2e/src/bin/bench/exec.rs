//! Fifty `docker exec` at once in one container, against as many one after the other: starts that
//! get in each other's way would show.

use crate::{Figure, in_turn};
use e2e::Lab;
use std::time::Instant;

const PROCESSES: usize = 50;

#[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
pub(crate) fn run(lab: &Lab) -> Figure {
    let host = ["run", "--detach", "--name", "bench-exec", "busybox:latest", "sleep", "1000000"];
    lab.docker(&host).good();
    let one = || drop(lab.docker(&["exec", "bench-exec", "true"]).good());
    let at_once = || {
        let start = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..PROCESSES {
                scope.spawn(one);
            }
        });
        start.elapsed().as_secs_f64()
    };
    let one_by_one = || {
        let start = Instant::now();
        (0..PROCESSES).for_each(|_| one());
        start.elapsed().as_secs_f64()
    };
    let (ours, peer) = in_turn(at_once, one_by_one);
    lab.docker(&["rm", "--force", "bench-exec"]).good();
    Figure {
        name: "50 docker exec at once / one by one",
        ours: format!("{ours:.2} s"),
        peer: format!("{peer:.2} s"),
        ratio: ours / peer,
    }
}
