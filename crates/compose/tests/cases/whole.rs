//! The parts of a file beside its services, several files, and what is refused.

use crate::{run, service, show};
use expect_test::expect;
use std::fmt::Write;

#[test]
fn networks_of_the_nodes_own_are_there_for_services() {
    for network in ["host: {external: true}", "bridge: {external: {name: bridge}}"] {
        let name = network.split(':').next().unwrap();
        let text = format!(
            "services:\n  web:\n    image: i\n    networks: [{name}]\nnetworks:\n  {network}\n"
        );
        let project = run(&[("f.yml", &text)]).unwrap().project;
        assert!(project.networks[0].external);
        assert_eq!(project.services[0].task.networks[0].target.as_str(), name);
    }
    let own = "services:\n  web:\n    image: i\n    networks: [host]\nnetworks:\n  host:\n";
    assert_eq!(run(&[("f.yml", own)]).unwrap().project.networks[0].spec.name, "st_host");
}

#[test]
fn what_is_not_honoured_is_said_with_its_place() {
    service(
        "build: .\nrestart: \"no\"\nlinks: [db]\ncontainer_name: x",
        &expect![[r#"
            warning: f.yml:4:5: services.web.build: ignored: skep runs images, it does not build them
            warning: f.yml:5:14: services.web.restart: ignored: tasks are restarted; set deploy.restart_policy.condition to none instead
            warning: f.yml:6:5: services.web.links: ignored: services of one network find each other by name
            warning: f.yml:7:5: services.web.container_name: ignored: a task's container is named after its service
        "#]],
    );
    service(
        "cpus: 2\nimagee: x\ndeploy: {replica: 2}",
        &expect![[r#"
            f.yml:4:5: services.web.cpus: set resource limits with deploy.resources
            f.yml:5:5: services.web: unknown key "imagee" (did you mean "image"?)
            f.yml:6:14: services.web.deploy: unknown key "replica" (did you mean "replicas"?)
        "#]],
    );
}

#[test]
fn networks_are_the_stacks_own_or_external() {
    let text = "services:\n  web:\n    image: i\n    networks:\n      front: {aliases: [w]}\n      back:\n      shared:\n  plain:\n    image: i\n  wrong:\n    image: i\n    networks: [front]\nnetworks:\n  front:\n    attachable: true\n    labels: {a: b}\n    ipam: {config: [{subnet: 10.9.0.0/24}]}\n  back: {name: the-back, internal: true}\n  shared: {external: true}\n  unused:\n";
    let loaded = run(&[("f.yml", text)]).unwrap();
    let mut out = String::new();
    for network in &loaded.project.networks {
        writeln!(out, "{} {}", network.external, serde_json::to_string(&network.spec).unwrap())
            .unwrap();
    }
    for service in &loaded.project.services {
        let networks = serde_json::to_string(&service.task.networks).unwrap();
        writeln!(out, "{}: {networks}", service.name).unwrap();
    }
    expect![[r#"
        false {"name":"the-back","labels":{"com.docker.stack.namespace":"st"},"driver":"overlay","driver_options":{},"attachable":false,"internal":true,"ingress":false,"subnets":[],"ip_ranges":[],"aux_addresses":{}}
        false {"name":"st_default","labels":{"com.docker.stack.namespace":"st"},"driver":"overlay","driver_options":{},"attachable":false,"internal":false,"ingress":false,"subnets":[],"ip_ranges":[],"aux_addresses":{}}
        false {"name":"st_front","labels":{"a":"b","com.docker.stack.namespace":"st"},"driver":"overlay","driver_options":{},"attachable":true,"internal":false,"ingress":false,"subnets":[{"net":"10.9.0.0/24","gateway":"10.9.0.1"}],"ip_ranges":[],"aux_addresses":{}}
        true {"name":"shared","labels":{},"driver":"overlay","driver_options":{},"attachable":false,"internal":false,"ingress":false,"subnets":[],"ip_ranges":[],"aux_addresses":{}}
        st_web: [{"target":"shared","aliases":["web"]},{"target":"st_front","aliases":["w","web"]},{"target":"the-back","aliases":["web"]}]
        st_plain: [{"target":"st_default","aliases":["plain"]}]
        st_wrong: [{"target":"st_front","aliases":["wrong"]}]
    "#]].assert_eq(&out);
    expect![[r#"
        f.yml:4:16: services.web.networks[0]: the network "lost" is not in the file's top-level networks
    "#]].assert_eq(&show(&[(
        "f.yml",
        "services:\n  web:\n    image: i\n    networks: [lost]\n",
    )]));
}

#[test]
fn later_files_override_earlier_ones() {
    let base = "services:\n  web:\n    image: a\n    command: [x, y]\n    environment: [A=1, B=2]\n    ports: [\"80:80\", \"81:81\"]\n    networks: [one]\n    deploy: {replicas: 1}\nnetworks: {one: , two: }\n";
    let over = "services:\n  web:\n    image: b\n    command: [z]\n    environment: {B: 3, C: 4}\n    ports: [\"80:8080\"]\n    networks: {two: {aliases: [t]}}\n    deploy: {replicas: 5}\n  more:\n    image: m\n";
    let loaded = run(&[("a.yml", base), ("b.yml", over)]).unwrap();
    let web = &loaded.project.services[0];
    expect![[r#"
        b ["z"] ["A=1", "B=3", "C=4"]
        [(80, 8080), (81, 81)]
        [NetworkAttachment { target: NetworkId("st_one"), aliases: ["web"] }, NetworkAttachment { target: NetworkId("st_two"), aliases: ["t", "web"] }]
        Replicated { replicas: 5 } st_more"#]].assert_eq(&format!(
        "{} {:?} {:?}\n{:?}\n{:?}\n{:?} {}",
        web.task.container.image,
        web.task.container.args,
        web.task.container.env,
        web.endpoint.ports.iter().map(|port| (port.published, port.target)).collect::<Vec<_>>(),
        web.task.networks,
        web.mode,
        loaded.project.services[1].name,
    ));
}

#[test]
fn errors_say_where_they_are() {
    for (text, wanted) in [
        (
            "services:\n  web:\n    image: [\n",
            expect![[r#"
            f.yml:3:12: unclosed bracket '['
        "#]],
        ),
        (
            "services:\n  web:\n    image: a\n    image: b\n",
            expect![[r#"
                f.yml:4:5: duplicate mapping key: image
            "#]],
        ),
        (
            "version: '2.1'\nservices: []\n",
            expect![[r#"
            f.yml:1:10: version: unsupported Compose file version "2.1": use 3.x, or none
            f.yml:2:11: services: this is a list, and should be a mapping
        "#]],
        ),
        (
            "- a\n",
            expect![[r#"
            f.yml:1:1: this is a list, and should be a mapping
        "#]],
        ),
        (
            "",
            expect![[r#"
            f.yml:1:1: the file is empty
        "#]],
        ),
        (
            "services:\n  web:\n    image: ${A b}\n    user: ${NO:?needed}\n",
            expect![[r#"
            f.yml:3:12: services.web.image: invalid interpolation format: write $$ for a dollar that is meant as such
            f.yml:4:11: services.web.user: required variable NO is missing a value: needed
        "#]],
        ),
        (
            "services:\n  web:\n    image: a:${NOPE}\n    tty: maybe\n",
            expect![[r#"
            f.yml:4:10: services.web.tty: should be true or false
        "#]],
        ),
        (
            "servics: {}\n",
            expect![[r#"
                f.yml:1:1: unknown key "servics" (did you mean "services"?)
            "#]],
        ),
        (
            "services:\n  web:\n    ports: x\n    stop_grace_period: 10\n",
            expect![[r#"
                f.yml:2:3: services.web: a service needs an image
                f.yml:3:12: services.web.ports: this is a string, and should be a list
                f.yml:4:24: services.web.stop_grace_period: should be a duration such as 1m30s, 500ms or 2h
            "#]],
        ),
        (
            "a: 1\n---\nb: 2\n",
            expect![[r#"
                f.yml:3:1: multiple YAML documents detected
            "#]],
        ),
    ] {
        wanted.assert_eq(&show(&[("f.yml", text)]));
    }
}

#[test]
fn the_order_of_keys_and_the_spelling_of_values_change_nothing() {
    let one = r#"
services:
  web:
    image: i
    command: sleep 100000
    stop_grace_period: 1s
    environment: {A: "1", B: "2", C: "3"}
    labels: {z: "1", y: "2"}
    ports: ["22160:80", "22161:81"]
    networks: [front, back, aaa]
    volumes: ["v1:/v1", "v2:/v2"]
    ulimits: {nofile: 1024, nproc: 512}
    deploy: {replicas: 2, labels: [k=v, m=n], resources: {limits: {memory: 64M, cpus: "0.50"}}}
networks: {front: , back: , aaa: }
volumes: {v1: , v2: }
"#;
    let other = r#"
volumes: {v2: , v1: }
networks: {aaa: , front: , back: }
services:
  web:
    deploy: {resources: {limits: {cpus: "0.5", memory: 65536K}}, labels: {m: n, k: v}, replicas: 2}
    ulimits: {nproc: 512, nofile: {hard: 1024, soft: 1024}}
    volumes: ["v1:/v1", {type: volume, source: v2, target: /v2}]
    networks: {aaa: {}, front: , back: {aliases: []}}
    ports: [{target: 81, published: 22161}, "22160:80/tcp"]
    labels: [y=2, z=1]
    environment: [C=3, A=1, B=2]
    stop_grace_period: 1000ms
    command: [sleep, "100000"]
    image: i
"#;
    let [one, other] = [one, other].map(|text| run(&[("f.yml", text)]).unwrap().project);
    assert_eq!(one, other);
}

#[test]
fn a_name_that_is_too_long_with_its_stack_is_refused_at_its_place() {
    let name = "x".repeat(61);
    let text = format!("services:\n  {name}: {{image: i}}\n");
    let said = run(&[("f.yml", &text)]).unwrap_err();
    assert!(said.starts_with("f.yml:2:3: ") && said.contains("63 characters or fewer"), "{said}");
    assert!(run(&[("f.yml", &text.replacen('x', "", 1))]).is_ok());
}

#[test]
fn anchors_and_merge_keys_are_followed() {
    let text = "x-base: &base\n  image: i:${TAG}\n  environment: {A: 1}\n  tmpfs: ${NO}\nservices:\n  one:\n    <<: *base\n    tmpfs: /x\n    hostname: h\n  two:\n    <<: *base\n";
    let loaded = run(&[("f.yml", text)]).unwrap_err();
    expect!["f.yml:4:10: services.two.tmpfs: the path of a tmpfs should be absolute"]
        .assert_eq(&loaded);
    let loaded = run(&[("f.yml", &text.replace("${NO}", "/tmp"))]).unwrap();
    let names: Vec<String> = loaded
        .project
        .services
        .iter()
        .map(|service| {
            let container = &service.task.container;
            format!("{} {:?} {}", container.image, container.env, container.mounts[0].target)
        })
        .collect();
    expect![[r#"
        i:1.25 ["A=1"] /x
        i:1.25 ["A=1"] /tmp"#]]
    .assert_eq(&names.join("\n"));
}

#[test]
fn secrets_and_configs_are_read_with_what_is_in_them() {
    let text = r#"
services:
  web:
    image: i
    secrets:
      - word
      - source: key
        target: /etc/key
        uid: "7"
        gid: 8
        mode: 0440
    configs:
      - source: page
        mode: "0400"
      - shared
secrets:
  word:
    environment: TAG
  key:
    file: ./key
    name: own-key
    labels: [a=b]
configs:
  page:
    content: "n = ${N}"
    template_driver: golang
  shared:
    external: true
    name: everybodys
"#;
    let project = run(&[("f.yml", text)]).unwrap().project;
    let mut out = String::new();
    for file in project.secrets.iter().chain(&project.configs) {
        let (spec, external) = (&file.spec, if file.external { "external " } else { "" });
        let data = spec.content.data.as_bytes().escape_ascii();
        let templating = spec.content.templating;
        writeln!(out, "{external}{}: {data} {templating:?} {:?}", spec.name, spec.labels).unwrap();
    }
    let container = &project.services[0].task.container;
    let mut show = |name: &str, target: &types::FileTarget| {
        let types::FileTarget { name: to, uid, gid, mode } = target;
        writeln!(out, "{name} -> {to} {uid}:{gid} {mode:o}").unwrap();
    };
    container.secrets.iter().for_each(|it| show(&it.name, &it.target));
    container.configs.iter().for_each(|it| show(&it.name, &it.target));
    expect![[r#"
        own-key: k\xff None {"a": "b", "com.docker.stack.namespace": "st"}
        st_word: 1.25 None {"com.docker.stack.namespace": "st"}
        st_page: n = 3 Some(Golang) {"com.docker.stack.namespace": "st"}
        external everybodys:  None {}
        own-key -> /etc/key 7:8 440
        st_word -> word 0:0 444
        everybodys -> shared 0:0 444
        st_page -> page 0:0 400
    "#]]
    .assert_eq(&out);
}

#[test]
fn what_is_wrong_with_secrets_is_said_with_its_place_and_not_what_is_in_them() {
    let text = "
services:
  web:
    image: i
    secrets: [lost, {target: /x}, {source: both, mode: rw}]
secrets:
  both: {file: ./key, environment: TAG}
  gone: {file: ./gone}
  none: {}
  unset: {environment: NOT_SET}
  far: {file: ./key, driver: vault}
  strange: {file: ./key, template_driver: jinja}
";
    expect![[r#"
        f.yml:5:15: services.web.secrets[0]: the secret "lost" is not in the file's top-level secrets
        f.yml:5:21: services.web.secrets[1]: needs a source
        f.yml:5:21: services.web.secrets[1]: the secret "" is not in the file's top-level secrets
        f.yml:5:56: services.web.secrets[2].mode: should be an octal number such as 0440
        f.yml:7:36: secrets.both.environment: there is something else already that says what is in it
        f.yml:8:16: secrets.gone.file: cannot read /stack/gone: no such file
        f.yml:9:3: secrets.none: a secret needs a file, an environment, a content or to be external
        f.yml:10:24: secrets.unset.environment: the variable "NOT_SET" is not set
        f.yml:11:22: secrets.far.driver: drivers of secrets are not supported by skep yet
        f.yml:12:43: secrets.strange.template_driver: "jinja" is none of golang
    "#]]
    .assert_eq(&(run(&[("f.yml", text)]).unwrap_err() + "\n"));
}
