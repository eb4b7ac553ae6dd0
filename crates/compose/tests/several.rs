//! Stack files of several parts: what is included, extended, reset, left out, and waited for.

#![expect(clippy::unwrap_used, reason = "a test fails by it")]

use compose::{Around, Condition, Loaded, load};
use std::collections::BTreeMap;
use std::path::Path;
use types::ServiceSpec;

/// Reads the first of the files in `/stack`, in which the others are, too.
fn read(files: &[(&str, &str)], profiles: &[&str]) -> Result<Loaded, String> {
    let files: BTreeMap<&str, &str> = files.iter().copied().collect();
    let env = BTreeMap::from([("TAG".to_owned(), "outer".to_owned())]);
    let open = |path: &Path| {
        let name = path.strip_prefix("/stack").ok().and_then(Path::to_str);
        let text = name.and_then(|name| files.get(name));
        text.map(|text| text.as_bytes().to_vec()).ok_or("no such file".to_owned())
    };
    let profiles: Vec<String> = profiles.iter().map(|&name| name.to_owned()).collect();
    let folder = Path::new("/stack");
    let around = Around { stack: "st", folder, env: &env, profiles: &profiles, read: &open };
    let main = ("main.yml".to_owned(), files["main.yml"].to_owned());
    load(&[main], &around).map_err(|error| error.to_string())
}

fn good(files: &[(&str, &str)]) -> Vec<ServiceSpec> {
    read(files, &[]).unwrap().project.services
}

fn why(files: &[(&str, &str)]) -> String {
    read(files, &[]).unwrap_err()
}

#[test]
fn an_included_file_has_a_folder_and_variables_of_its_own() {
    let services = good(&[
        ("main.yml", "include: [db/stack.yml]\nservices: {web: {image: \"web:${TAG}\"}}"),
        (
            "db/stack.yml",
            "services:\n  db:\n    image: db:${OWN}-${TAG}\n    env_file: db.env\n    \
             environment: [OWN]\n    volumes: [./data:/data, named:/n, \"~/x:/x\"]\n    \
             configs: [conf, said]\nvolumes: {named: }\n\
             configs: {conf: {file: ../db/conf}, said: {environment: OWN}}\n",
        ),
        ("db/.env", "OWN=inner\nTAG=never\n"),
        ("db/db.env", "A=1\n"),
        ("db/conf", "text"),
    ]);
    let images: Vec<&str> = services.iter().map(|it| it.task.container.image.as_str()).collect();
    assert_eq!(images, ["web:outer", "db:inner-outer"]);
    let db = &services[1].task.container;
    assert_eq!(db.env, ["A=1", "OWN=inner"]);
    let sources: Vec<&str> = db.mounts.iter().map(|mount| mount.source.as_str()).collect();
    assert_eq!(sources, ["/stack/db/data", "st_named", "/x"]);
    assert_eq!(db.configs.len(), 2);
}

#[test]
fn an_inclusion_says_where_its_paths_and_variables_are_from() {
    let services = good(&[
        (
            "main.yml",
            "include:\n  - path: [db/one.yml, db/two.yml]\n    project_directory: .\n    \
             env_file: [db/some.env]\n",
        ),
        ("db/one.yml", "services: {db: {image: \"db:${OWN}\", volumes: [./data:/data]}}"),
        ("db/two.yml", "services: {db: {hostname: two}}"),
        ("db/some.env", "OWN='some'\n"),
    ]);
    let db = &services[0].task.container;
    assert_eq!((db.image.as_str(), db.hostname.as_str()), ("db:some", "two"));
    assert_eq!(db.mounts[0].source, "/stack/data");
}

#[test]
fn what_is_included_is_neither_replaced_nor_lost() {
    let twice = |other: &str| {
        let main = "include: [b.yml]\nservices: {web: {image: a}}";
        read(&[("main.yml", main), ("b.yml", other)], &[])
    };
    assert_eq!(twice("services: {web: {image: a}}").map(|_| ()), Ok(()));
    assert_eq!(
        twice("services: {web: {image: b}}").unwrap_err(),
        "main.yml:2:12: services.web: b.yml, which is included, has another one"
    );
    assert_eq!(
        twice("servics: {}").unwrap_err(),
        "b.yml:1:1: unknown key \"servics\" (did you mean \"services\"?)"
    );
    assert_eq!(twice("plain").unwrap_err(), "b.yml:1:1: this is a string, and should be a mapping");
}

#[test]
fn files_that_lead_nowhere_are_named() {
    assert_eq!(
        why(&[("main.yml", "include: [b.yml]"), ("b.yml", "include: [b.yml]")]),
        "b.yml:1:11: include[0]: /stack/b.yml includes itself"
    );
    assert_eq!(
        why(&[("main.yml", "include: [none.yml, {}]")]),
        "main.yml:1:11: include[0]: cannot read /stack/none.yml: no such file\n\
         main.yml:1:21: include[1]: needs the path of a file"
    );
    let many = format!("include: [{}]", "b.yml, ".repeat(101));
    assert!(why(&[("main.yml", &many), ("b.yml", "services: {}")]).contains("more than 100 files"));
    let wrong = "include: [{path: b.yml, env_file: c.env}]";
    assert_eq!(
        why(&[("main.yml", wrong), ("b.yml", "services: {}"), ("c.env", "A=1\nB C\n")]),
        "main.yml:1:35: include[0].env_file: c.env: line 2: should be written like NAME=VALUE"
    );
}

#[test]
fn a_service_goes_over_the_one_that_it_extends() {
    let services = good(&[
        (
            "main.yml",
            "services:\n  web:\n    extends: {service: base, file: common/base.yml}\n    \
             environment: {B: 2}\n    labels: [l=web]\n  more:\n    extends: web\n    \
             image: other\n    environment: {A: !reset null}\n",
        ),
        (
            "common/base.yml",
            "services:\n  base:\n    extends:\n      service: root\n    environment: {A: 1, B: 1}\n    \
             volumes: [./b:/b]\n  root: {image: \"root:${TAG}\", hostname: h, labels: {l: root}}\n",
        ),
    ]);
    let [web, more] = &services[..] else { panic!("{services:?}") };
    let of = |spec: &ServiceSpec| {
        let container = &spec.task.container;
        (container.image.clone(), container.hostname.clone(), container.env.join(" "))
    };
    assert_eq!(of(web), ("root:outer".into(), "h".into(), "A=1 B=2".into()));
    assert_eq!(web.task.container.labels["l"], "web");
    assert_eq!(web.task.container.mounts[0].source, "/stack/common/b");
    assert_eq!(of(more), ("other".into(), "h".into(), "B=2".into()));
}

#[test]
fn services_that_extend_nothing_are_named() {
    for (services, text) in [
        ("{a: {extends: b}}", "services.a.extends: there is no service \"b\" to extend"),
        ("{a: {extends: a}}", "services.a.extends: a extends itself"),
        ("{a: {extends: b}, b: {extends: a}}", "services.b.extends: a extends itself"),
        ("{a: {extends: {file: b.yml}}}", "services.a.extends: needs the name of a service"),
        (
            "{a: {extends: {file: b.yml, service: x}}}",
            "services.a.extends: cannot read /stack/b.yml: no such file",
        ),
        ("{a: {extends: {servce: x}}}", "services.a.extends: unknown key \"servce\""),
    ] {
        let told = why(&[("main.yml", &format!("services: {services}"))]);
        assert!(told.contains(text), "{told}");
    }
}

#[test]
fn a_later_file_takes_out_and_replaces_what_is_tagged() {
    let env = BTreeMap::new();
    let open = |_: &Path| Err("no such file".to_owned());
    let around =
        Around { stack: "st", folder: Path::new("/stack"), env: &env, profiles: &[], read: &open };
    let file = |name: &str, text: &str| (name.to_owned(), text.to_owned());
    let first = "services: {web: {image: i, ports: [\"80:80\"], hostname: h, \
                 labels: {a: 1, b: 2}, command: !override [x]}}";
    let second = "services: {web: {ports: !reset [], hostname: !reset null, dns: !reset [],\n  \
                  labels: !override {c: 3}}}";
    let loaded = load(&[file("a.yml", first), file("b.yml", second)], &around).unwrap();
    let web = &loaded.project.services[0];
    assert!(web.endpoint.ports.is_empty());
    let container = &web.task.container;
    assert_eq!((container.hostname.as_str(), &container.args[..]), ("", &["x".to_owned()][..]));
    let own: Vec<&String> =
        container.labels.keys().filter(|name| !name.starts_with("com.docker")).collect();
    assert_eq!(own, ["c"]);
    let unknown = load(&[file("a.yml", "services: {web: !mine {image: i}}")], &around);
    let told = unknown.unwrap_err().to_string();
    assert!(told.contains("unknown tag \"!mine\""), "{told}");
}

#[test]
fn what_is_tagged_is_so_also_where_its_service_extends_another() {
    let env = BTreeMap::new();
    let open = |_: &Path| Err("no such file".to_owned());
    let around =
        Around { stack: "st", folder: Path::new("/stack"), env: &env, profiles: &[], read: &open };
    let file = |name: &str, text: &str| (name.to_owned(), text.to_owned());
    let first = "services: {web: {image: i, ports: [\"80:80\"], labels: {a: 1}}}";
    let second = "services: {base: {image: b, ports: [\"81:81\"], labels: {b: 2}},\n  \
                  web: {extends: base, ports: !reset [], labels: !override {c: 3}}}";
    let loaded = load(&[file("a.yml", first), file("b.yml", second)], &around).unwrap();
    let web = &loaded.project.services[0];
    assert_eq!((web.name.as_str(), web.endpoint.ports.len()), ("st_web", 0));
    let labels = web.task.container.labels.keys();
    let own: Vec<&String> = labels.filter(|name| !name.starts_with("com.docker")).collect();
    assert_eq!(own, ["c"]);
}

#[test]
fn no_chain_and_no_text_is_without_end() {
    let links = (1..40).map(|number| format!("  s{number}: {{extends: s{}}}\n", number - 1));
    let chain = format!("services:\n  s0: {{image: i}}\n{}", links.collect::<String>());
    assert!(why(&[("main.yml", &chain)]).contains("more than 32 services extend one another"));
    let long = "include: [{path: b.yml, env_file: c.env}]\nservices: {}";
    let text = format!("services: {{web: {{image: i, command: [\"{}\"]}}}}", "$A".repeat(3_000));
    let told =
        why(&[("main.yml", long), ("b.yml", &text), ("c.env", &format!("A={}", "x".repeat(500)))]);
    assert!(told.contains("its variables make too long a text"), "{told}");
}

#[test]
fn secrets_aliases_and_log_drivers_are_replaced_not_joined() {
    let env = BTreeMap::new();
    let open = |_: &Path| Err("no such file".to_owned());
    let around =
        Around { stack: "st", folder: Path::new("/stack"), env: &env, profiles: &[], read: &open };
    let file = |name: &str, text: &str| (name.to_owned(), text.to_owned());
    let first = "services:\n  web:\n    image: i\n    secrets: [db, key]\n    \
                 networks: {n: {aliases: [a]}}\n    logging: {driver: json-file, options: {labels: a}}\n\
                 secrets: {db: {external: true}, key: {external: true}}\nnetworks: {n: }\n";
    let second = "services: {web: {secrets: [{source: db, target: other}], \
                  networks: {n: {aliases: [b]}}, logging: {driver: local}}}";
    let loaded = load(&[file("a.yml", first), file("b.yml", second)], &around).unwrap();
    let task = &loaded.project.services[0].task;
    let targets: Vec<&str> =
        task.container.secrets.iter().map(|secret| secret.target.name.as_str()).collect();
    assert_eq!(targets, ["other", "key"]);
    assert_eq!(task.networks[0].aliases, ["b", "web"]);
    assert_eq!((task.log_driver.as_str(), task.log_options.len()), ("local", 0));
}

#[test]
fn a_service_is_deployed_when_one_of_its_profiles_is_active() {
    let main =
        "services: {a: {image: i}, b: {image: i, profiles: [x, y]}, c: {image: i, profiles: [z]}}";
    for (profiles, names) in [
        (&[][..], &["st_a"][..]),
        (&["y"], &["st_a", "st_b"]),
        (&["y", "z"], &["st_a", "st_b", "st_c"]),
        (&["*"], &["st_a", "st_b", "st_c"]),
    ] {
        let loaded = read(&[("main.yml", main)], profiles).unwrap();
        let found: Vec<&str> =
            loaded.project.services.iter().map(|spec| spec.name.as_str()).collect();
        assert_eq!(found, names);
        assert_eq!(loaded.warnings.len(), 3 - names.len());
    }
}

#[test]
fn services_come_after_those_that_they_wait_for() {
    let main = "services:\n  web: {image: i, depends_on: [api]}\n  other: {image: i}\n  \
                api:\n    image: i\n    depends_on:\n      db: {condition: service_healthy}\n      \
                init: {condition: service_completed_successfully}\n      \
                gone: {required: false}\n  db: {image: i}\n  init: {image: i}\n";
    let loaded = read(&[("main.yml", main)], &[]).unwrap();
    let names: Vec<&str> = loaded.project.services.iter().map(|spec| spec.name.as_str()).collect();
    assert_eq!(names, ["st_other", "st_db", "st_init", "st_api", "st_web"]);
    let needs = |name: &str| {
        let all = loaded.project.dependencies[name].iter();
        all.map(|it| (it.service.as_str(), it.condition)).collect::<Vec<_>>()
    };
    assert_eq!(needs("st_web"), [("st_api", Condition::Started)]);
    assert_eq!(needs("st_api"), [("st_db", Condition::Healthy), ("st_init", Condition::Completed)]);
}

#[test]
fn what_cannot_be_waited_for_is_said() {
    for (services, text) in [
        (
            "{a: {image: i, depends_on: [b]}}",
            "services.a.depends_on: depends on \"b\", which is not deployed",
        ),
        (
            "{a: {image: i, depends_on: [b]}, b: {image: i, depends_on: [a]}}",
            "services.a.depends_on: services wait for each other in a circle",
        ),
        (
            "{a: {image: i, depends_on: {b: {condition: ready}}}, b: {image: i}}",
            "\"ready\" is no condition: there are service_started, service_healthy and service_completed_successfully",
        ),
        (
            "{a: {image: i, depends_on: [b]}, b: {image: i, profiles: [x]}}",
            "depends on \"b\", which is not deployed",
        ),
    ] {
        let told = why(&[("main.yml", &format!("services: {services}"))]);
        assert!(told.contains(text), "{told}");
    }
}
