//! Names and networks as containers see them: what leads where, and what leads nowhere.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use e2e::{Lab, until};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

const SHARED: &str = "
services:
  app: {image: 'busybox:latest', command: sleep 1000000, stop_grace_period: 1s, networks: [shared, default]}
  db: {image: 'busybox:latest', command: sleep 1000000, stop_grace_period: 1s, networks: [shared, default]}
networks:
  shared: {external: true, name: shared}
";

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

#[test]
fn names_and_networks_keep_their_word() {
    let lab = Lab::up(2, &["busybox", "nginx"]);
    lab.docker(&["network", "create", "--driver", "overlay", "net"]).good();
    create(&lab, &["--name", "ask", "--network", "net"]);
    lab.converged("ask", "1/1", secs(60));
    names_are_found_in_any_case(&lab);
    a_round_robin_name_follows_its_tasks(&lab);
    frequent_health_checks_hide_nobody(&lab);
    a_short_name_stays_in_its_stack(&lab);
    own_dns_servers_are_asked(&lab);
    an_internal_network_has_no_way_out(&lab);
    the_name_server_has_no_rights(&lab);
    a_client_is_waited_for_and_an_idle_talk_to_itself_is_not(&lab);
    let left = lab.down();
    assert!(left.is_empty(), "{left:#?}");
}

/// A service of idle containers.
fn create(lab: &Lab, options: &[&str]) {
    let head = ["service", "create", "--detach", "--stop-grace-period", "1s"];
    let image = ["busybox:latest", "sleep", "1000000"];
    lab.docker(&[&head[..], options, &image[..]].concat()).good();
}

/// The addresses of a name, as the first container of a service sees them.
fn resolve(lab: &Lab, service: &str, name: &str) -> BTreeSet<String> {
    let containers = lab.containers(2, service);
    let Some(container) = containers.first() else { return BTreeSet::new() };
    let shown = lab.inside(container, &format!("nslookup -type=a {name} 127.0.0.11"));
    let answers = shown.out.lines().skip_while(|line| !line.starts_with("Name:"));
    let address = |line: &str| Some(line.strip_prefix("Address:")?.trim().to_owned());
    answers.filter_map(address).collect()
}

/// The virtual addresses of a service.
fn vips(lab: &Lab, service: &str) -> BTreeSet<String> {
    let shown = lab.service(service, "{{range .Endpoint.VirtualIPs}}{{.Addr}} {{end}}");
    let address = |text: &str| text.split('/').next().unwrap_or_default().to_owned();
    shown.split_whitespace().map(address).collect()
}

/// The addresses of a service's tasks that should run.
fn addresses(lab: &Lab, service: &str) -> BTreeSet<String> {
    let format = "{{range .NetworksAttachments}}{{range .Addresses}}{{.}} {{end}}{{end}}";
    let of = |id: &String| {
        let shown = lab.docker(&["inspect", "--type", "task", "--format", format, id]).good();
        shown.split('/').next().unwrap_or_default().trim().to_owned()
    };
    lab.tasks(service).iter().map(of).collect()
}

fn resolves(lab: &Lab, name: &str, wanted: impl Fn() -> BTreeSet<String>) {
    until(name, secs(15), || {
        let (found, wanted) = (resolve(lab, "ask", name), wanted());
        if found == wanted { Ok(()) } else { Err(format!("{found:?}, not {wanted:?}")) }
    });
}

fn names_are_found_in_any_case(lab: &Lab) {
    create(lab, &["--name", "mixed-Web", "--network", "net", "--replicas", "2"]);
    // As long as a name can be, and with what is no character of a host's name.
    let long = format!("under_score-{}", "x".repeat(51));
    create(lab, &["--name", &long, "--network", "net"]);
    lab.converged("mixed-Web", "2/2", secs(60));
    lab.converged(&long, "1/1", secs(60));
    resolves(lab, &long, || vips(lab, &long));
    for name in ["mixed-Web", "mixed-web", "MIXED-WEB"] {
        resolves(lab, name, || vips(lab, "mixed-Web"));
    }
    resolves(lab, "TASKS.Mixed-wEB", || addresses(lab, "mixed-Web"));
    lab.docker(&["service", "rm", "mixed-Web", &long]).good();
}

fn a_round_robin_name_follows_its_tasks(lab: &Lab) {
    create(lab, &["--name", "pool", "--network", "net", "--endpoint-mode", "dnsrr"]);
    for replicas in ["3", "1", "2"] {
        lab.docker(&["service", "scale", "--detach", &format!("pool={replicas}")]).good();
        lab.converged("pool", &format!("{replicas}/{replicas}"), secs(60));
        resolves(lab, "pool", || addresses(lab, "pool"));
        assert_eq!(resolve(lab, "ask", "pool").len().to_string(), replicas);
    }
    lab.docker(&["service", "rm", "pool"]).good();
}

fn frequent_health_checks_hide_nobody(lab: &Lab) {
    let checks = ["--health-cmd", "true", "--health-interval", "500ms"];
    let service = ["--name", "checked", "--network", "net", "--replicas", "4"];
    create(lab, &[&service[..], &checks[..]].concat());
    lab.converged("checked", "4/4", secs(60));
    resolves(lab, "tasks.checked", || addresses(lab, "checked"));
    let force = ["service", "update", "--force", "--update-parallelism", "2", "--update-monitor"];
    lab.docker(&[&force[..], &["500ms", "checked"]].concat()).good();
    resolves(lab, "tasks.checked", || addresses(lab, "checked"));
    let ask = lab.containers(2, "ask").remove(0);
    for address in resolve(lab, "ask", "tasks.checked") {
        lab.inside(&ask, &format!("ping -c 1 -W 2 {address}")).good();
    }
    lab.docker(&["service", "rm", "checked"]).good();
}

fn a_short_name_stays_in_its_stack(lab: &Lab) {
    lab.docker(&["network", "create", "--driver", "overlay", "shared"]).good();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("stack.yml");
    std::fs::write(&file, format!("version: '3.5'{SHARED}")).unwrap();
    let file = file.display().to_string();
    for stack in ["one", "two"] {
        lab.docker(&["stack", "deploy", "--detach=true", "-c", &file, stack]).good();
    }
    for service in ["one_app", "one_db", "two_app", "two_db"] {
        lab.converged(service, "1/1", secs(60));
    }
    for (stack, other) in [("one", "two"), ("two", "one")] {
        let (app, own) = (format!("{stack}_app"), vips(lab, &format!("{stack}_db")));
        until("the own database", secs(15), || {
            let found = resolve(lab, &app, "db");
            let is_own = !found.is_empty() && found.is_subset(&own);
            if is_own { Ok(()) } else { Err(format!("{found:?}, own {own:?}")) }
        });
        let theirs = resolve(lab, &app, &format!("{other}_db"));
        assert!(!theirs.is_empty() && theirs.is_subset(&vips(lab, &format!("{other}_db"))));
    }
    // While its own is not there, a name leads to nobody rather than to another's.
    lab.docker(&["service", "scale", "--detach", "one_db=0"]).good();
    until("nobody", secs(15), || match resolve(lab, "one_app", "db") {
        found if found.is_empty() => Ok(()),
        found => Err(format!("{found:?}")),
    });
    assert!(!resolve(lab, "two_app", "db").is_empty());
    for stack in ["one", "two"] {
        lab.docker(&["stack", "rm", stack]).good();
    }
}

/// A container serves DNS on the network of the one that names it.
fn own_dns_servers_are_asked(lab: &Lab) {
    // It answers whatever it is asked with 192.0.2.9.
    let program = r#"$s = IO::Socket::INET->new(LocalPort => 53, Proto => "udp") or die;
        while ($s->recv($q, 512)) {
            $s->send(substr($q, 0, 2) . pack("H*", "81800001000100000000") . substr($q, 12)
                . pack("H*", "c00c000100010000003c0004c0000209"));
        }"#;
    let head = ["service", "create", "--detach", "--name", "dnsd", "--network", "net"];
    let server = ["--stop-grace-period", "1s", "nginx:latest", "perl", "-MIO::Socket::INET", "-e"];
    lab.docker(&[&head[..], &server[..], &[program]].concat()).good();
    lab.converged("dnsd", "1/1", secs(60));
    let address = addresses(lab, "dnsd").pop_first().unwrap();
    create(lab, &["--name", "guided", "--network", "net", "--dns", &address]);
    lab.converged("guided", "1/1", secs(60));
    until("the answer of its own server", secs(15), || {
        let found = resolve(lab, "guided", "told.example");
        let wanted = BTreeSet::from(["192.0.2.9".to_owned()]);
        if found == wanted { Ok(()) } else { Err(format!("{found:?}")) }
    });
    // Names of the cluster are ours as ever.
    assert_eq!(resolve(lab, "guided", "dnsd"), vips(lab, "dnsd"));
    assert!(resolve(lab, "ask", "told.example").is_empty());
    lab.docker(&["service", "rm", "guided", "dnsd"]).good();
}

fn an_internal_network_has_no_way_out(lab: &Lab) {
    lab.docker(&["network", "create", "--driver", "overlay", "--internal", "inside"]).good();
    create(lab, &["--name", "prisoner", "--network", "inside"]);
    lab.converged("prisoner", "1/1", secs(60));
    let prisoner = lab.containers(2, "prisoner").remove(0);
    let node = lab.address(prisoner.0);
    let shown = lab.inside(&prisoner, "nslookup -type=a secret.example.org 127.0.0.11");
    let text = shown.out + &shown.err;
    assert!(text.contains("SERVFAIL"), "{text}");
    let gateway = "$(ip -4 -o addr show | awk '{print $4}' | grep ^172 | cut -d/ -f1)";
    for command in [
        format!("ping -c 1 -W 1 {node}"),
        format!("ping -c 1 -W 1 -I {gateway} {node}"),
        "ping -c 1 -W 1 172.30.0.1".to_owned(),
    ] {
        lab.inside(&prisoner, &command).bad();
    }
    lab.docker(&["service", "rm", "prisoner"]).good();
}

/// Both halves of the process: the one that hears containers is nobody, in an empty folder.
fn the_name_server_has_no_rights(lab: &Lab) {
    let run = lab.socket(1).parent().unwrap().to_owned();
    let broker = std::fs::read_to_string(run.join("resolver.pid")).unwrap();
    let children = format!("/proc/{broker}/task/{broker}/children");
    let answerer = std::fs::read_to_string(children).unwrap();
    let status = |pid: &str| std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let (answerer, broker) = (status(answerer.trim()), status(&broker));
    for line in ["CapEff:\t0000000000000000", "CapPrm:\t0000000000000000", "NoNewPrivs:\t1"] {
        assert!(answerer.contains(line), "{line}: {answerer}");
    }
    assert!(answerer.lines().any(|line| line.starts_with("Uid:\t61053\t61053\t61053\t61053")));
    assert!(broker.contains("CapEff:\t0000000000200020"), "{broker}");
    // Lists of processes say what they are.
    for status in [answerer, broker] {
        assert!(status.starts_with("Name:\tskep-resolver\n"), "{status}");
    }
}

fn a_client_is_waited_for_and_an_idle_talk_to_itself_is_not(lab: &Lab) {
    let talk = "perl -MIO::Socket::INET -e 'until ($s) { \
                $s = IO::Socket::INET->new(\"127.0.0.1:80\"); select undef, undef, undef, 0.1 } \
                sleep 100000' & exec nginx -g 'daemon off;'";
    let head = ["service", "create", "--detach", "--name", "web", "--network", "net"];
    // By nginx's own signal it would wait for whoever is connected, too.
    let stop = ["--stop-grace-period", "8s", "--stop-signal", "SIGTERM", "--publish", "8085:80"];
    let image = ["nginx:latest", "sh", "-c", talk];
    lab.docker(&[&head[..], &stop[..], &image[..]].concat()).good();
    lab.converged("web", "1/1", secs(60));
    let stop = |limit: std::ops::Range<u64>| {
        #[expect(clippy::disallowed_methods, reason = "tests measure real time")]
        let start = Instant::now();
        lab.docker(&["service", "scale", "--detach", "web=0"]).good();
        until("the container has ended", secs(30), || {
            let left = lab.containers(2, "web");
            if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
        });
        let took = start.elapsed();
        assert!(secs(limit.start) <= took && took < secs(limit.end), "{took:?}");
    };
    stop(0..6);
    lab.docker(&["service", "scale", "--detach", "web=1"]).good();
    lab.converged("web", "1/1", secs(60));
    // The task runs; its server may not listen yet.
    let client = until("the server listens", secs(30), || {
        std::net::TcpStream::connect(lab.at(1, 8085)).map_err(|error| error.to_string())
    });
    stop(7..20);
    drop(client);
}
