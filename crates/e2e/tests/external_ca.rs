//! A cluster whose root's key somebody else has, who signs by the protocol of CFSSL.

use e2e::{Lab, until};
use serde_json::{Value, json};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const PORT: u16 = 8888;

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

#[test]
fn certificates_are_signed_by_whoever_has_the_roots_key() {
    let lab = Lab::with_managers(3, 1, &[]);
    lab.docker(&["swarm", "update", "--dispatcher-heartbeat", "1s"]).good();
    let ca = Ca::draw(&lab);
    nobody_goes_to_a_root_that_nobody_signs_by(&lab, &ca);
    let external = ca.serve(&lab, "root");
    the_cluster_goes_to_the_root_of_an_external_ca(&lab, &ca);
    a_machine_joins_and_becomes_a_manager(&lab);
    from_one_external_ca_to_another_no_cluster_goes(&lab, &ca);
    drop(external);
    nobody_joins_while_it_is_away(&lab);
    let hostile = ca.serve(&lab, "other");
    nobody_joins_by_another_root(&lab);
    drop(hostile);
    let external = ca.serve(&lab, "root");
    joins(&lab, 3);
    the_cluster_goes_back_to_a_root_of_its_own(&lab, &ca);
    drop(external);
    leaves(&lab, 3);
    joins(&lab, 3);
    let left = lab.down();
    assert!(left.is_empty(), "{left:#?}");
}

/// Two roots with their keys, and a certificate by the first for the place where it is asked.
struct Ca {
    folder: PathBuf,
    address: String,
}

/// One that runs, until it is dropped.
struct External(Child);

impl Drop for External {
    fn drop(&mut self) {
        self.0.kill().expect("it runs");
        self.0.wait().expect("it is ours");
    }
}

/// Has cfssl make a key and a certificate.
fn generate(folder: &Path, name: &str, (arguments, request): (&[&str], &Value)) {
    #[expect(clippy::disallowed_methods, reason = "tests run programs")]
    let mut cfssl = Command::new("cfssl");
    cfssl.arg("gencert").args(arguments).arg("-").current_dir(folder);
    let piped = cfssl.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().expect("cfssl starts (package golang-cfssl)");
    let mut input = child.stdin.take().expect("it has an input");
    input.write_all(request.to_string().as_bytes()).expect("it reads");
    drop(input);
    let output = child.wait_with_output().expect("it ends");
    let made: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    for (part, ending) in [("cert", "pem"), ("key", "key")] {
        let text = made[part].as_str().expect("cfssl makes both");
        std::fs::write(folder.join(format!("{name}.{ending}")), text).expect("a file is written");
    }
}

impl Ca {
    fn draw(lab: &Lab) -> Self {
        let (folder, address) = (lab.folder().join("ca"), lab.address(1).to_string());
        std::fs::create_dir_all(&folder).expect("a folder is made");
        let usages = ["signing", "key encipherment", "server auth", "client auth"];
        let constraint = json!({"is_ca": true, "max_path_len": 1});
        // As Docker's documentation has it: the profile "CA" signs the cluster's next root.
        let policy = json!({"signing": {
            "default": {"expiry": "8760h", "usages": usages},
            "profiles": {"CA": {
                "expiry": "87600h", "usages": ["cert sign", "crl sign"], "is_ca": true,
                "ca_constraint": constraint, "allowed_extensions": ["2.5.29.19"],
            }},
        }});
        std::fs::write(folder.join("policy.json"), policy.to_string()).expect("a file is written");
        let key = json!({"algo": "ecdsa", "size": 256});
        for name in ["root", "other"] {
            let request = json!({"CN": "Ours", "key": key, "ca": {"expiry": "87600h"}});
            generate(&folder, name, (&["-initca"], &request));
        }
        let by_root = ["-ca", "root.pem", "-ca-key", "root.key", "-config", "policy.json"];
        let request = json!({"CN": "ca", "key": key, "hosts": [address]});
        generate(&folder, "tls", (&by_root, &request));
        Self { folder, address }
    }

    fn file(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    fn specification(&self) -> String {
        format!("protocol=cfssl,url=https://{}:{PORT}/api/v1/cfssl/sign", self.address)
    }

    /// Signs by one of the roots for nodes of this cluster, whichever of its roots they have a
    /// certificate by.
    fn serve(&self, lab: &Lab, root: &str) -> External {
        let known = ["root.pem", "own.pem"].map(|name| std::fs::read_to_string(self.file(name)));
        let known = known.map(|text| text.expect("both roots are there")).concat();
        std::fs::write(self.file("known.pem"), known).expect("a file is written");
        let (port, by) = (PORT.to_string(), [format!("{root}.pem"), format!("{root}.key")]);
        let [certificate, key] = by.map(|name| self.file(&name));
        let (policy, known) = (self.file("policy.json"), self.file("known.pem"));
        let tls = ["tls.pem", "tls.key"].map(|name| self.file(name));
        let mut cfssl = lab.in_node(
            "node-1",
            &[
                "cfssl",
                "serve",
                "-address",
                &self.address,
                "-port",
                &port,
                "-ca",
                &certificate,
                "-ca-key",
                &key,
                "-config",
                &policy,
                "-tls-cert",
                &tls[0],
                "-tls-key",
                &tls[1],
                "-mutual-tls-ca",
                &known,
            ],
        );
        let log = std::fs::File::create(self.file("log")).expect("a file is made");
        let external =
            External(cfssl.stdout(Stdio::null()).stderr(log).spawn().expect("it starts"));
        let (at, tls) = (format!("sport = :{PORT}"), "the external CA listens");
        until(tls, secs(20), || {
            let shown = lab.in_node("node-1", &["ss", "-Hltn", &at]).output().expect("ss starts");
            let said = || std::fs::read_to_string(self.file("log")).unwrap_or_default();
            if shown.stdout.is_empty() { Err(said()) } else { Ok(()) }
        });
        external
    }
}

fn root(lab: &Lab) -> String {
    lab.docker(&["swarm", "ca"]).good()
}

/// Rotates to the external CA's root, and does not wait.
fn rotate(lab: &Lab, ca: &Ca, root: &str) -> e2e::Shown {
    let (certificate, external) = (ca.file(root), ca.specification());
    let to = ["--detach", "--ca-cert", &certificate, "--external-ca", &external];
    lab.docker(&[&["swarm", "ca", "--rotate"], &to[..]].concat())
}

/// Waits until every node has a certificate by the cluster's root, and there is no other one.
fn all_have_it(lab: &Lab) {
    until("every node has a certificate by the new root", secs(90), || {
        let format = "{{.Hostname}} {{.Status}} {{.TLSStatus}}";
        let nodes = lab.docker(&["node", "ls", "--format", format]).good();
        let rotates = "{{.Swarm.Cluster.RootRotationInProgress}}";
        let rotates = lab.docker(&["info", "--format", rotates]).good();
        let all = nodes.lines().all(|node| node.ends_with(" Ready Ready"));
        if all && rotates.trim() == "false" { Ok(()) } else { Err(nodes + &rotates) }
    });
}

fn nobody_goes_to_a_root_that_nobody_signs_by(lab: &Lab, ca: &Ca) {
    let own = root(lab);
    std::fs::write(ca.file("own.pem"), &own).expect("a file is written");
    let refused = rotate(lab, ca, "root.pem").bad();
    let words = "there must be at least one valid, reachable external CA corresponding to the \
                 desired CA certificate";
    assert!(refused.contains(words) && refused.contains("Connection refused"), "{refused}");
    // It signs, and by another root than the one that is wanted.
    let hostile = ca.serve(lab, "other");
    let refused = rotate(lab, ca, "root.pem").bad();
    drop(hostile);
    assert!(refused.contains("not by the root that is wanted"), "{refused}");
    assert_eq!(root(lab), own);
}

fn the_cluster_goes_to_the_root_of_an_external_ca(lab: &Lab, ca: &Ca) {
    rotate(lab, ca, "root.pem").good();
    all_have_it(lab);
    let wanted = std::fs::read_to_string(ca.file("root.pem")).expect("a file is read");
    assert_eq!(root(lab).trim(), wanted.trim());
    let format = "{{json .Swarm.Cluster.Spec.CAConfig.ExternalCAs}}";
    let shown = lab.docker(&["info", "--format", format]).good();
    let shown: Value = serde_json::from_str(&shown).expect("it is JSON");
    let url = format!("https://{}:{PORT}/api/v1/cfssl/sign", ca.address);
    let external = json!([{"Protocol": "cfssl", "URL": url, "CACert": wanted}]);
    assert_eq!(shown, external);
    let plain = lab.docker(&["info"]).good();
    assert!(plain.contains(&format!("cfssl: {url}")), "{plain}");
}

fn token(lab: &Lab) -> String {
    lab.docker(&["swarm", "join-token", "--quiet", "worker"]).good().trim().to_owned()
}

fn join(lab: &Lab, node: u8) -> e2e::Shown {
    lab.docker_at(node, &["swarm", "join", "--token", &token(lab), &lab.at(1, 2377)])
}

/// Nobody waits for it any more.
fn leaves(lab: &Lab, node: u8) {
    let id = lab.docker_at(node, &["info", "--format", "{{.Swarm.NodeID}}"]).good();
    lab.docker_at(node, &["swarm", "leave"]).good();
    lab.docker(&["node", "rm", "--force", id.trim()]).good();
}

fn joins(lab: &Lab, node: u8) {
    join(lab, node).good();
    let name = format!("node-{node}");
    until(&name, secs(30), || {
        let format = "{{.Hostname}} {{.Status}} {{.TLSStatus}}";
        let nodes = lab.docker(&["node", "ls", "--format", format]).good();
        if nodes.contains(&format!("{name} Ready Ready")) { Ok(()) } else { Err(nodes) }
    });
}

/// Every manager asks the external CA.
fn a_machine_joins_and_becomes_a_manager(lab: &Lab) {
    leaves(lab, 3);
    joins(lab, 3);
    lab.docker(&["node", "promote", "node-2"]).good();
    until("node-2 answers as a manager", secs(60), || {
        let shown = lab.docker_at(2, &["node", "ls"]);
        if shown.ok { Ok(()) } else { Err(shown.err) }
    });
    until("node-2 leads", secs(60), || {
        // It may have to catch up first.
        let asked = lab.skep(&["raft", "transfer", "node-2"]);
        if asked.ok { Ok(()) } else { Err(asked.err) }
    });
    leaves(lab, 3);
    joins(lab, 3);
    lab.skep(&["raft", "transfer", "node-1"]).good();
    lab.make_worker(2);
}

fn from_one_external_ca_to_another_no_cluster_goes(lab: &Lab, ca: &Ca) {
    let refused = rotate(lab, ca, "other.pem").bad();
    assert!(refused.contains("corresponding to the current CA certificate: none is given"));
    // Where both are given.
    let swarm: Value = serde_json::from_str(&lab.ask(1, "GET", "/swarm").body).expect("JSON");
    let mut spec = swarm["Spec"].clone();
    let other = std::fs::read_to_string(ca.file("other.pem")).expect("a file is read");
    let mut external = spec["CAConfig"]["ExternalCAs"][0].clone();
    external["CACert"] = other.as_str().into();
    spec["CAConfig"]["ExternalCAs"].as_array_mut().expect("a list").push(external);
    spec["CAConfig"]["SigningCACert"] = other.into();
    let target = format!("/swarm/update?version={}", swarm["Version"]["Index"]);
    let refused = lab.send(1, ("POST", &target), &spec.to_string());
    let words = "rotating from one external CA to a different external CA is not supported";
    assert!(refused.status == 400 && refused.body.contains(words), "{refused:?}");
}

fn nobody_joins_while_it_is_away(lab: &Lab) {
    leaves(lab, 3);
    let refused = join(lab, 3).bad();
    assert!(refused.contains("the certificate is not signed: external CA"), "{refused}");
    assert!(refused.contains("Connection refused"), "{refused}");
    let refused = lab.docker(&["swarm", "update", "--task-history-limit", "4"]).bad();
    assert!(refused.contains("corresponding to the current CA certificate"), "{refused}");
}

fn nobody_joins_by_another_root(lab: &Lab) {
    let refused = join(lab, 3).bad();
    assert!(refused.contains("the certificate is not by the root that is wanted"), "{refused}");
}

fn the_cluster_goes_back_to_a_root_of_its_own(lab: &Lab, ca: &Ca) {
    let before = root(lab);
    lab.docker(&["swarm", "ca", "--rotate", "--detach"]).good();
    all_have_it(lab);
    let after = root(lab);
    let own = std::fs::read_to_string(ca.file("own.pem")).expect("a file is read");
    assert!(after != before && after != own, "{after}");
}
