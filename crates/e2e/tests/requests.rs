//! What would do harm by being forgotten: filters of a prune, a link to remove, a rotation.

use e2e::Lab;

#[test]
fn nothing_that_is_asked_for_is_forgotten() {
    let lab = Lab::up(1, &["busybox"]);
    prunes_remove_what_they_name(&lab);
    stats_are_of_now(&lab);
    let rotate = lab.docker(&["swarm", "ca", "--rotate", "--detach"]).bad();
    assert!(rotate.contains("CAConfig.ForceRotate=1"), "{rotate}");
    let left = lab.down();
    assert!(left.is_empty(), "{left:#?}");
}

fn prunes_remove_what_they_name(lab: &Lab) {
    let listed = || lab.docker(&["ps", "--all", "--format", "{{.Names}}"]).good();
    lab.docker(&["create", "--name", "kept", "--label", "keep", "busybox:latest"]).good();
    lab.docker(&["create", "--name", "gone", "busybox:latest"]).good();
    let prune = |filter: &str| lab.docker(&["container", "prune", "--force", "--filter", filter]);
    prune("until=24h").good();
    assert!(listed().contains("kept") && listed().contains("gone"));
    prune("label!=keep").good();
    assert!(listed().contains("kept") && !listed().contains("gone"));
    let odd = prune("colour=red").bad();
    assert!(odd.contains("invalid filter 'colour'"), "{odd}");
    let link = lab.docker(&["rm", "--link", "kept"]).bad();
    assert!(link.contains("not supported by skep yet: link=1"), "{link}");
    assert!(listed().contains("kept"));
    lab.docker(&["rm", "kept"]).good();
}

fn stats_are_of_now(lab: &Lab) {
    let forever = "while :; do :; done";
    lab.docker(&["run", "--detach", "--name", "busy", "busybox:latest", "sh", "-c", forever])
        .good();
    let used = lab.docker(&["stats", "--no-stream", "--format", "{{.CPUPerc}}", "busy"]).good();
    let used: f64 = used.trim().trim_end_matches('%').parse().expect("a share of the CPU");
    assert!(used > 1.0, "{used} %");
    lab.docker(&["rm", "--force", "busy"]).good();
}
