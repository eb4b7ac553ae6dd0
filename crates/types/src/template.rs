//! Go templates in what a user wants of a service's containers: `{{.Service.Name}}` and the like,
//! in the environment, the host name and mounts, as in Docker; and in secrets and configs that are templates.
//!
//! Pure. What a template writes is not looked at again: one that yields a template is a way to get
//! braces into a text.

use crate::{ContainerSpec, NodeDescription, NodeId, ServiceSpec, Task};
use budget::Budget;
use gotmpl::{MissingKey, Template, ToValue, Value, tmap};
use std::fmt;

mod budget;
mod file;

pub use file::{FilledFile, expand_files};

/// No text is longer once its templates are filled.
const TEXT_MAX: usize = 1 << 20;
/// Rounds of all loops of a template.
const ROUNDS_MAX: u64 = 100_000;

/// Fills the templates of a task's container. Says which one is wrong, and how.
pub fn expand(
    task: &Task,
    node: &NodeId,
    description: &NodeDescription,
) -> Result<ContainerSpec, String> {
    let context = context(task, node, description);
    let fill = |what: &str, text: &str| {
        expand_text(text, &context).map_err(|why| format!("expanding {what} {text:?}: {why}"))
    };
    let mut spec = task.spec.container.clone();
    for variable in &mut spec.env {
        // The name of a variable is no template.
        if let Some((name, value)) = variable.split_once('=') {
            *variable = format!("{name}={}", fill(&format!("env {name}"), value)?);
        }
    }
    spec.hostname = fill("hostname", &spec.hostname)?;
    for mount in &mut spec.mounts {
        mount.source = fill("mount source", &mount.source)?;
        mount.target = fill("mount target", &mount.target)?;
        mount.subpath = fill("mount subpath", &mount.subpath)?;
        for value in mount.labels.values_mut() {
            *value = fill("volume label", value)?;
        }
        for value in mount.driver_options.values_mut() {
            *value = fill("volume driver option", value)?;
        }
    }
    Ok(spec)
}

/// The host name that a task's container is given, where it can be looked up as one.
pub fn hostname(task: &Task, node: &NodeId, description: &NodeDescription) -> Option<String> {
    let text = &task.spec.container.hostname;
    if text.is_empty() {
        return None;
    }
    let name = expand_text(text, &context(task, node, description)).ok()?.to_lowercase();
    let is_label = |label: &str| {
        let known = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        (1..=63).contains(&label.len()) && label.bytes().all(known)
    };
    (name.len() <= 253 && name != "localhost" && name.split('.').all(is_label)).then_some(name)
}

/// Finds what is wrong with the templates of a service before there is a task.
pub fn check(spec: &ServiceSpec) -> Result<ContainerSpec, String> {
    let task = Task {
        id: "taskid".into(),
        service: "serviceid".into(),
        service_name: spec.name.clone(),
        service_labels: spec.labels.clone(),
        slot: 1,
        spec: spec.task.clone(),
        ..Task::default()
    };
    expand(&task, &"nodeid".into(), &NodeDescription::default())
}

fn context(task: &Task, node: &NodeId, description: &NodeDescription) -> Value {
    let labels =
        task.service_labels.iter().map(|(name, value)| (name.as_str().into(), value.to_value()));
    // A task of a global service is told from others by its node.
    let number = task.number();
    let slot = if number == 0 { node.to_string() } else { number.to_string() };
    tmap! {
        "Service" => tmap! {
            "ID" => task.service.as_str(),
            "Name" => task.service_name.as_str(),
            "Labels" => Value::Map(std::sync::Arc::new(labels.collect())),
        },
        "Node" => tmap! {
            "ID" => node.as_str(),
            "Hostname" => description.hostname.as_str(),
            "Platform" => tmap! {
                "Architecture" => description.platform.architecture.as_str(),
                "OS" => description.platform.os.as_str(),
            },
        },
        "Task" => tmap! { "ID" => task.id.as_str(), "Name" => task.name(), "Slot" => slot },
    }
}

fn expand_text(text: &str, context: &Value) -> Result<String, String> {
    expand_with(text, context, TEXT_MAX, |template, _| template)
}

/// With what `equip` gives the template besides.
fn expand_with(
    text: &str,
    context: &Value,
    limit: usize,
    equip: impl FnOnce(Template, &Budget) -> Template,
) -> Result<String, String> {
    if !text.contains("{{") {
        return Ok(text.to_owned());
    }
    let budget = Budget::new();
    let template = equip(budget.bound(Template::new("expansion")), &budget)
        .missing_key(MissingKey::Error)
        .max_range_iters(ROUNDS_MAX)
        .parse(text)
        .map_err(|error| error.to_string())?;
    let mut filled = Bounded { text: String::new(), limit };
    template.execute_fmt(&mut filled, context).map_err(|error| error.to_string())?;
    Ok(filled.text)
}

/// A text that does not become too long.
struct Bounded {
    text: String,
    limit: usize,
}

impl fmt::Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.limit < self.text.len() + text.len() {
            return Err(fmt::Error);
        }
        self.text.push_str(text);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Mount;

    fn task() -> Task {
        let mut task = Task { id: "t".into(), service_name: "web".into(), ..Task::default() };
        task.slot = 2;
        for (name, value) in [("tier", "front"), ("com.example.zone", "a")] {
            task.service_labels.insert(name.to_owned(), value.to_owned());
        }
        task
    }

    #[test]
    fn a_host_name_can_be_looked_up_where_it_is_one() {
        let mut task = task();
        let mut of = |text: &str| {
            task.spec.container.hostname = text.into();
            let description = NodeDescription { hostname: "Node-1".into(), ..Default::default() };
            hostname(&task, &"n".into(), &description)
        };
        assert_eq!(of("{{.Service.Name}}-{{.Task.Slot}}").as_deref(), Some("web-2"));
        assert_eq!(of("db.{{.Node.Hostname}}").as_deref(), Some("db.node-1"));
        let long = "a".repeat(64);
        for odd in ["", "a b", "a..b", "localhost", "{{.Nope}}", "é", &long, "a/b", "."] {
            assert_eq!(of(odd), None, "{odd}");
        }
    }

    fn expand_env(value: &str) -> Result<String, String> {
        let mut task = task();
        task.spec.container.env = vec![format!("X={value}")];
        let description = NodeDescription { hostname: "node-1".into(), ..Default::default() };
        let spec = expand(&task, &"n".into(), &description)?;
        Ok(spec.env[0].strip_prefix("X=").unwrap().to_owned())
    }

    #[test]
    fn templates_are_gos_whole() {
        for (text, filled) in [
            ("plain $HOME }", "plain $HOME }"),
            ("{{.Service.Name}}-{{ .Task.Slot }}@{{.Node.Hostname}}", "web-2@node-1"),
            ("{{.Task.Name}} {{.Task.ID}} {{.Node.ID}}", "web.2.t t n"),
            ("{{.Service.Labels.tier}}", "front"),
            (r#"{{index .Service.Labels "com.example.zone"}}"#, "a"),
            (r#"{{"{{"}}.Service.Name}}"#, "{{.Service.Name}}"),
            ("info -f '{{`{{.Swarm.NodeAddr}}`}}'", "info -f '{{.Swarm.NodeAddr}}'"),
            (r#"{{if eq .Task.Slot "2"}}second{{else}}other{{end}}"#, "second"),
            (r#"{{printf "%s:%5s" .Service.Name .Task.Slot | printf "<%s>"}}"#, "<web:    2>"),
            (r#"{{join "-" .Service.Name .Task.Slot "x"}}"#, "web-2-x"),
            (
                r#"{{print "a" 1 2 "b"}}|{{println 1 "x"}}|{{html "<"}}{{urlquery "a b"}}"#,
                "a1 2b|1 x\n|&lt;a+b",
            ),
            (
                r#"{{slice "abcd" 1 3}}{{js "'"}}{{"%d" | printf "%s%v" 1.5}}"#,
                "bc\\'%!s(float64=1.5)%d",
            ),
            (
                "{{range $name, $value := .Service.Labels}}{{$name}}={{$value}};{{end}}",
                "com.example.zone=a;tier=front;",
            ),
            ("{{with $n := .Service.Name}}{{len $n}}{{end}}", "3"),
            ("a {{- /* nothing */ -}} b", "ab"),
        ] {
            assert_eq!(expand_env(text).as_deref(), Ok(filled), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_with_the_template() {
        for (text, reason) in [
            ("{{.Service.Nmae}}", "Nmae"),
            ("{{.Nope}}", "Nope"),
            ("{{.Service.Labels.missing}}", "missing"),
            ("{{.Task.ID", "unclosed action"),
            ("{{fly}}", "fly"),
        ] {
            let error = expand_env(text).unwrap_err();
            assert!(error.contains(reason) && error.contains("env X"), "{text}: {error}");
        }
    }

    #[test]
    fn a_template_cannot_write_without_end() {
        let bomb = "{{range $i := 90000}}0123456789012345678901234567890123456789{{end}}";
        assert!(expand_env(bomb).is_err());
        assert!(expand_env("{{range $i := 1000000000}}{{end}}").is_err());
    }

    #[test]
    fn a_template_cannot_make_texts_without_end() {
        let big = "{{$x := \"0123456789\"}}";
        for (text, made) in [
            ("{{range 60}}{{$x = print $x $x}}{{end}}", "doubled"),
            ("{{range 60}}{{$x = println $x $x}}{{end}}", "doubled"),
            ("{{range 60}}{{$x = printf `%s%s` $x $x}}{{end}}", "doubled"),
            ("{{range 60}}{{$x = printf `%[1]s%[1]s` $x}}{{end}}", "doubled"),
            ("{{range 60}}{{$x = join $x $x $x $x}}{{end}}", "tripled"),
            ("{{range 90000}}{{$x = printf `%q` $x | js | html | urlquery}}{{end}}", "escaped"),
            ("{{range 90000}}{{$x = printf `%60000s` `a`}}{{end}}", "padded"),
            ("{{$x = printf `%60000s` `a`}}{{range 90000}}{{$y := slice $x 1}}{{end}}", "cut"),
        ] {
            let error = expand_env(&format!("{big}{text}")).expect_err(made);
            assert!(error.contains("it makes texts of more than"), "{made}: {error}");
        }
        // What is usual has place, also a thousand times.
        let usual = "{{range $i := 1000}}{{printf `%d:%s ` $i (slice `abc` 1)}}{{end}}";
        let filled = expand_env(usual).unwrap();
        assert!(filled.starts_with("0:bc 1:bc ") && filled.ends_with("999:bc "), "{filled}");
    }

    #[test]
    fn names_of_variables_are_no_templates_and_mounts_are() {
        let mut task = task();
        let container = &mut task.spec.container;
        container.env = vec!["{{.Nope}}=1".to_owned(), "{{ALONE".to_owned()];
        container.hostname = "{{.Service.Name}}".to_owned();
        container.mounts = vec![Mount {
            source: "data-{{.Task.Slot}}".to_owned(),
            target: "/{{.Service.Name}}".to_owned(),
            labels: [("of".to_owned(), "{{.Task.ID}}".to_owned())].into(),
            driver_options: [("device".to_owned(), ":/{{.Task.Slot}}".to_owned())].into(),
            subpath: "{{.Node.ID}}".to_owned(),
            ..Mount::default()
        }];
        let spec = expand(&task, &"n".into(), &NodeDescription::default()).unwrap();
        assert_eq!(spec.env, task.spec.container.env);
        let mount = &spec.mounts[0];
        assert_eq!((spec.hostname.as_str(), mount.source.as_str()), ("web", "data-2"));
        assert_eq!((mount.target.as_str(), mount.labels["of"].as_str()), ("/web", "t"));
        assert_eq!((mount.driver_options["device"].as_str(), mount.subpath.as_str()), (":/2", "n"));
    }

    #[test]
    fn a_global_tasks_slot_is_its_node() {
        let mut task = Task { slot: 0, ..task() };
        task.spec.container.hostname = "{{.Task.Slot}}".to_owned();
        let spec = expand(&task, &"n".into(), &NodeDescription::default()).unwrap();
        assert_eq!(spec.hostname, "n");
    }

    #[test]
    fn a_service_is_checked_with_its_own_labels() {
        let mut spec = ServiceSpec { name: "web".into(), ..ServiceSpec::default() };
        spec.task.container.env = vec!["T={{.Service.Labels.tier}}".to_owned()];
        assert!(check(&spec).unwrap_err().contains("tier"));
        spec.labels.insert("tier".to_owned(), "front".to_owned());
        assert_eq!(check(&spec).unwrap().env, ["T=front"]);
    }
}
