//! Keys of managers: locked on the disk, unlocked by people, changed while all goes on.

use e2e::{Lab, until};
use std::time::Duration;

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

const NEEDS_UNLOCKING: &str = "Swarm is encrypted and needs to be unlocked before it can be used";

#[test]
fn managers_are_locked_unlocked_and_leave() {
    let lab = Lab::with_managers(3, 3, &[]);
    assert!(lab.docker(&["swarm", "unlock-key"]).bad().contains("no unlock key is set"));
    let refused = lab.docker_told(1, &["swarm", "unlock"], "SWMKEY-1-x\n").bad();
    assert!(refused.contains("swarm is not locked"), "{refused}");

    let told = lab.docker_at(2, &["swarm", "update", "--autolock=true"]).good();
    let first = lab.docker(&["swarm", "unlock-key", "--quiet"]).good().trim().to_owned();
    assert!(first.starts_with("SWMKEY-1-") && told.contains(&first), "{told}");
    for node in 1..=3 {
        is_sealed(&lab, node, true);
    }
    start_again(&lab, 2);
    a_locked_manager_says_so(&lab, 2);
    unlock(&lab, 2, &first);
    is_a_manager(&lab, 2);

    // One that was away while the key was changed opens with the old one, and has the new one then.
    lab.lab(&["kill", "node-3"]).good();
    let rotated = lab.docker(&["swarm", "unlock-key", "--rotate"]).good();
    let second = lab.docker(&["swarm", "unlock-key", "-q"]).good().trim().to_owned();
    assert!(rotated.contains("Successfully rotated") && rotated.contains(&second), "{rotated}");
    assert_ne!(first, second);
    lab.lab(&["start", "node-3"]).good();
    refuses(&lab, 3, &second);
    unlock(&lab, 3, &first);
    is_a_manager(&lab, 3);
    start_again_until(&lab, 3, &second);
    is_a_manager(&lab, 3);
    a_restart_of_all_managers_is_unlocked(&lab, &second);

    lab.docker(&["swarm", "update", "--autolock=false"]).good();
    is_sealed(&lab, 1, false);
    start_again(&lab, 1);
    is_a_manager(&lab, 1);
    lab.docker(&["swarm", "unlock-key"]).bad();
    a_locked_manager_leaves_by_force(&lab);
    let left = lab.down();
    assert!(left.is_empty(), "{left:#?}");
}

/// The key file of a manager, as a thief of its disk would read it.
fn is_sealed(lab: &Lab, node: u8, wanted: bool) {
    let file = lab.folder().join(format!("data/node-{node}/certificates/node.key"));
    until(&format!("the keys of node-{node} are sealed: {wanted}"), secs(20), || {
        let text = std::fs::read_to_string(&file).map_err(|error| error.to_string())?;
        let is_sealed = text.contains("SEALED") && !text.contains("PRIVATE");
        if is_sealed == wanted { Ok(()) } else { Err(format!("{} bytes", text.len())) }
    });
}

fn start_again(lab: &Lab, node: u8) {
    let name = format!("node-{node}");
    lab.lab(&["kill", &name]).good();
    lab.lab(&["start", &name]).good();
}

fn state(lab: &Lab, node: u8) -> String {
    let format = "{{.Swarm.LocalNodeState}}";
    lab.docker_at(node, &["info", "--format", format]).good().trim().to_owned()
}

fn a_locked_manager_says_so(lab: &Lab, node: u8) {
    assert_eq!(state(lab, node), "locked");
    for asked in [&["node", "ls"][..], &["service", "ls"], &["swarm", "unlock-key"]] {
        let refused = lab.docker_at(node, asked).bad();
        assert!(refused.contains(NEEDS_UNLOCKING), "{refused}");
    }
    let refused = lab.docker_at(node, &["swarm", "leave"]).bad();
    assert!(refused.contains("Please unlock it first or use `--force`"), "{refused}");
    let refused = lab.docker_at(node, &["swarm", "init"]).bad();
    assert!(refused.contains("already part of a swarm"), "{refused}");
    let refused = lab.docker_told(node, &["swarm", "unlock"], "nonsense\n").bad();
    assert!(refused.contains("invalid key string"), "{refused}");
    refuses(lab, node, &format!("SWMKEY-1-{}", "A".repeat(43)));
}

fn refuses(lab: &Lab, node: u8, key: &str) {
    let refused = lab.docker_told(node, &["swarm", "unlock"], &format!("{key}\n")).bad();
    assert!(refused.contains("swarm could not be unlocked: invalid key provided"), "{refused}");
    assert_eq!(state(lab, node), "locked");
}

fn unlock(lab: &Lab, node: u8, key: &str) {
    lab.docker_told(node, &["swarm", "unlock"], &format!("{key}\n")).good();
    assert_eq!(state(lab, node), "active");
}

fn is_a_manager(lab: &Lab, node: u8) {
    until(&format!("node-{node} shows the cluster"), secs(30), || {
        let shown = lab.docker_at(node, &["node", "ls", "--format", "{{.Hostname}}"]);
        if shown.out.lines().count() == 3 { Ok(()) } else { Err(format!("{shown:?}")) }
    });
}

/// The manager takes the new key over in its own time.
fn start_again_until(lab: &Lab, node: u8, key: &str) {
    until(&format!("the keys of node-{node} are sealed by the new key"), secs(30), || {
        start_again(lab, node);
        let unlocked = lab.docker_told(node, &["swarm", "unlock"], &format!("{key}\n"));
        if unlocked.ok { Ok(()) } else { Err(unlocked.err) }
    });
}

fn a_restart_of_all_managers_is_unlocked(lab: &Lab, key: &str) {
    for node in 1..=3 {
        lab.lab(&["kill", &format!("node-{node}")]).good();
    }
    for node in 1..=3 {
        lab.lab(&["start", &format!("node-{node}")]).good();
    }
    for node in 1..=3 {
        // By skep's own CLI as well.
        lab.skep_told(node, &["swarm", "unlock"], &format!("{key}\n")).good();
    }
    is_a_manager(lab, 1);
}

fn a_locked_manager_leaves_by_force(lab: &Lab) {
    lab.docker(&["swarm", "leave", "--force"]).good();
    let told = lab.docker(&["swarm", "init", "--autolock", "--advertise-addr", "eth0"]).good();
    assert!(told.contains("SWMKEY-1-"), "{told}");
    start_again(lab, 1);
    assert_eq!(state(lab, 1), "locked");
    lab.docker(&["swarm", "leave"]).bad();
    lab.docker(&["swarm", "leave", "--force"]).good();
    assert_eq!(state(lab, 1), "inactive");
    lab.docker(&["swarm", "init", "--advertise-addr", "eth0"]).good();
    start_again(lab, 1);
    assert_eq!(state(lab, 1), "active");
}
