//! The story: three nodes, WordPress and Galera, found by name, scaled 1 -> 3 -> 1 while the site
//! stays up. Every row of its table is an assertion here, by the real docker CLI.

use e2e::{Client, Lab, page, until};
use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

const NODES: u8 = 3;
const PORT: u16 = 8080;
const WORDPRESS: &str = "wordpress_wordpress";
const DATABASE: &str = "wordpress_dbcluster";

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// The words of a table's line that begins with, or contains, `name`.
fn row(table: &str, name: &str) -> Option<Vec<String>> {
    let line = table.lines().find(|line| line.split_whitespace().any(|word| word == name))?;
    Some(line.split_whitespace().map(str::to_owned).collect())
}

/// The addresses that a name has inside a container.
fn addresses(lab: &Lab, container: &(u8, String), name: &str) -> BTreeSet<String> {
    let shown = lab.inside(container, &format!("getent ahostsv4 {name}"));
    shown.out.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

fn sql(lab: &Lab, client: &(u8, String), host: &str, statement: &str) -> Result<String, String> {
    let command = format!(
        "mariadb --connect-timeout=5 -h {host} -u wordpress -pwordpress-demo wordpress -N -e \"{statement}\""
    );
    let shown = lab.inside(client, &command);
    if shown.ok { Ok(shown.out.trim().to_owned()) } else { Err(shown.err) }
}

fn example() -> String {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/wordpress/docker-stack.yml");
    path.display().to_string()
}

#[test]
fn the_story_is_seen_from_deploy_to_down() {
    let lab = Lab::up(NODES, &["wordpress", "mariadb", "client"]);
    nodes_are_listed(&lab);
    application_waits_for_its_database(&lab);
    stack_is_deployed(&lab);
    site_answers_on_every_node(&lab);
    let client = client(&lab);
    names_are_found(&lab, &client);
    database_scales_while_the_site_stays_up(&lab, &client);
    daemons_die_and_the_site_stays_up(&lab);
    a_container_dies_and_is_replaced(&lab, &client);
    a_node_is_unplugged(&lab, &client);
    everything_goes(lab);
}

/// Row 2.
fn nodes_are_listed(lab: &Lab) {
    let table = lab.docker(&["node", "ls"]).good();
    let head: Vec<&str> = table.lines().next().unwrap_or_default().split_whitespace().collect();
    let wanted = "ID HOSTNAME STATUS AVAILABILITY MANAGER STATUS ENGINE VERSION";
    assert_eq!(head.join(" "), wanted);
    let leader = lab.leader();
    for node in 1..=NODES {
        let name = format!("node-{node}");
        let line = row(&table, &name).expect("it is listed").join(" ");
        let is_asked = if node == 1 { "* " } else { "" };
        assert!(line.contains(&format!("{is_asked}{name} Ready Active")), "{line}");
        let is = |word: &str| line.contains(word);
        let is_other = node != leader && node <= lab.managers();
        assert_eq!((is("Leader"), is("Reachable")), (node == leader, is_other), "{line}");
        assert_eq!(line.contains('*'), node == 1, "{line}");
    }
    assert_eq!(leader == 1, lab.managers() == 1, "where there are others, one of them leads");
    // skep's own CLI shows the same.
    let own = lab.skep(&["node", "ls"]).good();
    let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(words(&own), words(&table));
}

/// Row 6: the application starts before its database. First there is no such name, then nobody
/// listens, then all is well.
fn application_waits_for_its_database(lab: &Lab) {
    let text = std::fs::read_to_string(example()).expect("the example is there");
    let without = text.replace("replicas: 1", "replicas: 0");
    assert_ne!(text, without);
    let file = std::env::temp_dir().join(format!("skep-story-{}.yml", std::process::id()));
    std::fs::write(&file, without).expect("a stack file");
    let path = file.display().to_string();
    let out = lab.docker(&["stack", "deploy", "--compose-file", &path, "wordpress"]).good();
    std::fs::remove_file(&file).expect("the file is ours");
    // Row 3.
    for line in [
        "Creating network wordpress_common",
        "Creating service wordpress_wordpress",
        "Creating service wordpress_dbcluster",
    ] {
        assert!(out.contains(line), "{out}");
    }
    until("the name is not known", secs(60), || {
        let shown = lab.docker(&["service", "logs", WORDPRESS]);
        let text = shown.out + &shown.err;
        if text.contains("Name or service not known") { Ok(()) } else { Err(text) }
    });
}

/// Rows 3, 4 and 6.
fn stack_is_deployed(lab: &Lab) {
    let out = lab.docker(&["stack", "deploy", "--compose-file", &example(), "wordpress"]).good();
    assert!(out.contains("Updating service wordpress_dbcluster"), "{out}");
    lab.converged(DATABASE, "1/1", secs(90));
    lab.converged(WORDPRESS, "2/2", secs(60));
    let table = lab.docker(&["service", "ls"]).good();
    let line = row(&table, WORDPRESS).expect("it is listed").join(" ");
    assert!(line.contains("replicated 2/2") && line.ends_with("*:8080->80/tcp"), "{line}");
    assert!(row(&table, DATABASE).expect("it is listed").join(" ").contains("replicated 1/1"));
    let nodes: BTreeSet<u8> =
        lab.containers(NODES, WORDPRESS).into_iter().map(|(node, _)| node).collect();
    assert_eq!(nodes.len(), 2, "the two tasks are spread");
    until("the log tells the whole story", secs(60), || {
        let shown = lab.docker(&["service", "logs", "--raw", "--timestamps", WORDPRESS]);
        let mut lines: Vec<&str> = shown.out.lines().chain(shown.err.lines()).collect();
        lines.sort_unstable();
        let text = lines.join("\n");
        let unknown = text.find("Name or service not known");
        let refused = text.find("Connection refused");
        let normal = text.find("resuming normal operations");
        match (unknown, refused, normal) {
            (Some(unknown), Some(refused), Some(normal))
                if unknown < refused && refused < normal =>
            {
                Ok(())
            }
            _ => Err(text),
        }
    });
}

/// Row 5.
fn site_answers_on_every_node(lab: &Lab) {
    let places = [lab.localhost(PORT), lab.at(1, PORT), lab.at(2, PORT), lab.at(3, PORT)];
    for place in &places {
        until(&format!("the installation page at {place}"), secs(60), || {
            match page(place, "/", secs(10)) {
                Ok(page) if page.headers.contains("/wp-admin/install.php") => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
    }
    let container = lab.containers(NODES, WORDPRESS).remove(0);
    let install = "curl -sS -X POST 'http://127.0.0.1/wp-admin/install.php?step=2' \
        -H 'Host: localhost:8080' --data-urlencode 'weblog_title=Skep demo' \
        -d 'user_name=admin&admin_password=Adm1n-pass-77&admin_password2=Adm1n-pass-77\
        &pw_weak=1&admin_email=admin@example.com&blog_public=0&Submit=Install&language='";
    let command = if lab.inside(&container, "command -v curl").ok {
        install.to_owned()
    } else {
        // The image has no curl: php is there in any case.
        install_by_php()
    };
    let shown = lab.inside(&container, &command);
    assert!(shown.out.contains("Success!"), "{}{}", shown.out, shown.err);
    for place in &places {
        until(&format!("the site at {place}"), secs(30), || match page(place, "/", secs(10)) {
            Ok(page) if page.status == 200 && page.body.contains("Skep demo") => Ok(()),
            other => Err(format!("{other:?}").chars().take(500).collect()),
        });
    }
}

fn install_by_php() -> String {
    let body = "weblog_title=Skep+demo&user_name=admin&admin_password=Adm1n-pass-77\
        &admin_password2=Adm1n-pass-77&pw_weak=1&admin_email=admin%40example.com\
        &blog_public=0&Submit=Install&language=";
    format!(
        "php -r 'echo file_get_contents(\"http://127.0.0.1/wp-admin/install.php?step=2\", false, \
         stream_context_create([\"http\" => [\"method\" => \"POST\", \"header\" => \
         \"Host: localhost:8080\\r\\nContent-Type: application/x-www-form-urlencoded\", \
         \"content\" => \"{body}\"]]));'"
    )
}

/// A client container on the stack's network.
fn client(lab: &Lab) -> (u8, String) {
    // The stack's network takes services of other stacks, too.
    lab.docker(&[
        "service",
        "create",
        "--detach",
        "--name",
        "client",
        "--network",
        "wordpress_common",
        "--constraint",
        "node.hostname==node-1",
        "--stop-grace-period",
        "1s",
        "client:latest",
        "sleep",
        "1000000",
    ])
    .good();
    lab.converged("client", "1/1", secs(60));
    lab.containers(NODES, "client").remove(0)
}

/// Row 7.
fn names_are_found(lab: &Lab, client: &(u8, String)) {
    let vip = addresses(lab, client, "dbcluster");
    assert_eq!(vip.len(), 1, "one virtual address: {vip:?}");
    let tasks = lab.inside(client, "dig +short tasks.wordpress").good();
    let tasks: BTreeSet<&str> = tasks.lines().collect();
    assert_eq!(tasks.len(), 2, "{tasks:?}");
    assert!(tasks.is_disjoint(&vip.iter().map(String::as_str).collect()));
    let ping = lab.inside(client, "ping -c 2 -W 2 dbcluster").good();
    assert!(ping.contains("2 received") || ping.contains("2 packets received"), "{ping}");
    let short = lab.inside(client, "getent hosts nobody-here");
    assert!(!short.ok, "an unknown name is not found");
}

/// Rows 8, 9 and 10, and a client that sees no failed request.
fn database_scales_while_the_site_stays_up(lab: &Lab, client: &(u8, String)) {
    let visitor = Client::start(&lab.localhost(PORT), "/", 200);
    lab.docker(&["service", "scale", "wordpress_dbcluster=3"]).good();
    lab.converged(DATABASE, "3/3", secs(120));
    let databases = lab.containers(NODES, DATABASE);
    let nodes: BTreeSet<u8> = databases.iter().map(|(node, _)| *node).collect();
    assert_eq!(nodes.len(), 3, "three databases on three nodes");
    let size = until("a cluster of three", secs(60), || {
        sql(lab, client, "dbcluster", "show status like 'wsrep_cluster_size'")
            .and_then(|text| if text.ends_with('3') { Ok(text) } else { Err(text) })
    });
    assert!(size.contains("wsrep_cluster_size"), "{size}");
    let log = lab.docker(&["service", "logs", DATABASE]);
    let text = log.out + &log.err;
    assert!(text.contains("synced with group"), "{text}");
    assert!(text.contains("multicast"), "they met by multicast: {text}");

    // Row 9: the kernel spreads connections; a row written once is read everywhere.
    let served: BTreeSet<String> = (0..12)
        .map(|_| sql(lab, client, "dbcluster", "select @@hostname").expect("it answers"))
        .collect();
    assert_eq!(served.len(), 3, "{served:?}");
    sql(lab, client, "dbcluster", "create table if not exists seen (id int primary key)")
        .expect("the database answers");
    sql(lab, client, "dbcluster", "replace into seen values (42)").expect("the database answers");
    let tasks = addresses(lab, client, "tasks.dbcluster");
    assert_eq!(tasks.len(), 3, "{tasks:?}");
    for task in &tasks {
        until(&format!("the row on {task}"), secs(10), || {
            sql(lab, client, task, "select id from seen")
                .and_then(|text| if text == "42" { Ok(()) } else { Err(text) })
        });
    }

    // Row 10.
    lab.docker(&["service", "scale", "wordpress_dbcluster=1"]).good();
    lab.converged(DATABASE, "1/1", secs(60));
    until("one database is left", secs(120), || {
        let left = lab.containers(NODES, DATABASE);
        if left.len() == 1 { Ok(()) } else { Err(format!("{left:?}")) }
    });
    assert_eq!(addresses(lab, client, "tasks.dbcluster").len(), 1);
    assert_eq!(
        sql(lab, client, "dbcluster", "select id from seen").expect("the database answers"),
        "42"
    );
    let seen = visitor.stop();
    assert!(
        seen.failures.is_empty(),
        "{} of {}: {:?}",
        seen.failures.len(),
        seen.requests,
        seen.failures
    );
    assert!(seen.requests > 100, "{}", seen.requests);
    report(&format!(
        "1 -> 3 -> 1: {} requests, 0 failed, slowest {:?}",
        seen.requests, seen.slowest
    ));
}

/// Each daemon dies by SIGKILL in turn; nobody notices, and it is whole again soon.
#[expect(clippy::disallowed_methods, reason = "tests measure real time")]
fn daemons_die_and_the_site_stays_up(lab: &Lab) {
    for number in (1..=NODES).rev() {
        let name = format!("node-{number}");
        let before: Vec<_> = lab.containers(NODES, WORDPRESS);
        let visitor = Client::start(&lab.localhost(PORT), "/", 200);
        lab.lab(&["kill", &name]).good();
        // As long as managers take to notice, were the daemon to stay away.
        std::thread::sleep(secs(5));
        let started = std::time::Instant::now();
        lab.lab(&["start", &name]).good();
        until("the cluster is whole", secs(10).saturating_sub(started.elapsed()), || {
            let nodes = lab.docker(&["node", "ls"]);
            let services = lab.docker(&["service", "ls"]);
            let ready = nodes.out.matches("Ready").count() == usize::from(NODES);
            let whole = services.out.contains("2/2") && services.out.contains("1/1");
            if ready && whole && lab.containers(NODES, WORDPRESS) == before {
                Ok(())
            } else {
                Err(nodes.out + &nodes.err + &services.out + &services.err)
            }
        });
        let whole = started.elapsed();
        let seen = visitor.stop();
        assert!(seen.failures.is_empty(), "{name}: {:?}", seen.failures);
        report(&format!(
            "{name} killed: {} requests, 0 failed, whole after {whole:?}",
            seen.requests
        ));
    }
}

/// Row 11, first half.
fn a_container_dies_and_is_replaced(lab: &Lab, client: &(u8, String)) {
    let victim = lab.containers(NODES, WORDPRESS).remove(0);
    let format = "{{.State.Pid}}";
    let pid = lab.docker_at(victim.0, &["inspect", "--format", format, &victim.1]).good();
    let pid: i32 = pid.trim().parse().expect("a pid");
    let before = addresses(lab, client, "tasks.wordpress");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL)
        .expect("the container's process is there");
    until("its address leaves DNS", secs(5), || {
        let now = addresses(lab, client, "tasks.wordpress");
        if now.is_superset(&before) { Err(format!("{now:?}")) } else { Ok(()) }
    });
    lab.converged(WORDPRESS, "2/2", secs(30));
    assert_eq!(addresses(lab, client, "tasks.wordpress").len(), 2);
    until("the site works on", secs(10), || match page(&lab.localhost(PORT), "/", secs(10)) {
        Ok(page) if page.status == 200 => Ok(()),
        other => Err(format!("{other:?}").chars().take(200).collect()),
    });
}

/// Row 11, second half: a node is unplugged, its tasks move, it comes back.
fn a_node_is_unplugged(lab: &Lab, client: &(u8, String)) {
    lab.lab(&["cut", "node-3"]).good();
    until("node-3 is down", secs(40), || {
        let table = lab.docker(&["node", "ls"]).good();
        let line = row(&table, "node-3").unwrap_or_default().join(" ");
        if line.contains("Down") { Ok(()) } else { Err(table) }
    });
    lab.converged(WORDPRESS, "2/2", secs(60));
    lab.converged(DATABASE, "1/1", secs(120));
    until("the site works on", secs(60), || match page(&lab.localhost(PORT), "/", secs(10)) {
        Ok(page) if page.status == 200 || page.status == 302 => Ok(()),
        other => Err(format!("{other:?}").chars().take(200).collect()),
    });
    assert_eq!(addresses(lab, client, "tasks.wordpress").len(), 2);
    lab.lab(&["heal", "node-3"]).good();
    until("node-3 is ready", secs(40), || {
        let table = lab.docker(&["node", "ls"]).good();
        let line = row(&table, "node-3").unwrap_or_default().join(" ");
        if line.contains("Ready") { Ok(()) } else { Err(table) }
    });
}

/// Row 12.
fn everything_goes(lab: Lab) {
    lab.docker(&["service", "rm", "client"]).good();
    lab.docker(&["stack", "rm", "wordpress"]).good();
    until("no container is left", secs(60), || {
        let left: Vec<_> = [WORDPRESS, DATABASE, "client"]
            .into_iter()
            .flat_map(|service| lab.containers(NODES, service))
            .collect();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    });
    until("the network is gone", secs(30), || {
        let table = lab.docker(&["network", "ls"]).good();
        if table.contains("wordpress_common") { Err(table) } else { Ok(()) }
    });
    let left = lab.down();
    assert!(left.is_empty(), "{left:#?}");
}

#[expect(clippy::print_stderr, reason = "figures belong to the test's report")]
fn report(line: &str) {
    eprintln!("{line}");
}
