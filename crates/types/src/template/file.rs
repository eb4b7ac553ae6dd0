//! Templates in secrets and configs: they know what all templates know, and other files of the container.

use super::budget::Budget;
use super::{context, expand_text, expand_with};
use crate::{
    Config, ConfigId, FileContent, FileTarget, GivenFile, NodeDescription, NodeId, Payload, Secret,
    SecretId, Task, Templating,
};
use gotmpl::{Template, ToValue, Value};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// No file is longer once its templates are filled.
const FILE_MAX: usize = 4 << 20;

/// A file of a container, as it is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilledFile {
    /// Its place in the container.
    pub path: PathBuf,
    pub target: FileTarget,
    pub data: Payload,
}

/// The files of a task's container, with their templates filled. Says which one is wrong, and how.
pub fn expand_files(
    task: &Task,
    (node, description): (&NodeId, &NodeDescription),
    (secrets, configs): (&BTreeMap<SecretId, FileContent>, &BTreeMap<ConfigId, FileContent>),
) -> Result<Vec<FilledFile>, String> {
    let context = context(task, node, description);
    let known = Known {
        secrets: by_target::<Secret>(task, secrets),
        configs: by_target::<Config>(task, configs),
        env: env(task, &context),
    };
    // What is wrong with a secret's template is a part of the secret.
    let mut files =
        filled::<Secret>(task, secrets, &|content| known.fill(content, &context).map_err(hidden))?;
    files.extend(filled::<Config>(task, configs, &|content| known.fill(content, &context))?);
    Ok(files)
}

fn hidden(_why: String) -> String {
    "its template is wrong (how is not shown, as it is secret)".to_owned()
}

fn filled<T: GivenFile>(
    task: &Task,
    contents: &BTreeMap<T::Id, FileContent>,
    fill: &dyn Fn(&FileContent) -> Result<Payload, String>,
) -> Result<Vec<FilledFile>, String> {
    let one = |reference: &crate::FileReference<T::Id>| {
        let (word, name) = (T::WORD, &reference.name);
        let content = contents.get(&reference.id).ok_or(format!("{word} {name} is not there"))?;
        let path = T::path(&reference.target).ok_or(format!("{word} {name} has no place"))?;
        let data = fill(content).map_err(|why| format!("expanding {word} {name}: {why}"))?;
        Ok(FilledFile { path, target: reference.target.clone(), data })
    };
    T::references(&task.spec.container).iter().map(one).collect()
}

/// What templates may ask for, by the names of targets: made once, however often it is asked for.
struct Known {
    secrets: Texts,
    configs: Texts,
    env: Texts,
}

/// `None`: it is no text.
type Texts = Arc<BTreeMap<String, Option<Value>>>;

fn by_target<T: GivenFile>(task: &Task, contents: &BTreeMap<T::Id, FileContent>) -> Texts {
    let all = T::references(&task.spec.container).iter();
    let known = all.filter_map(|it| Some((it.target.name.clone(), contents.get(&it.id)?)));
    let text =
        |content: &FileContent| Some(str::from_utf8(content.data.as_bytes()).ok()?.to_value());
    Arc::new(known.map(|(name, content)| (name, text(content))).collect())
}

/// As the container has them: with their own templates filled. Docker gives the text of the template;
/// a value without one is the same there.
fn env(task: &Task, context: &Value) -> Texts {
    let all = task.spec.container.env.iter().filter_map(|variable| variable.split_once('='));
    // What is wrong with a variable's template is said by `expand`, which refuses the task.
    let filled =
        |value: &str| expand_text(value, context).unwrap_or_else(|_wrong| value.to_owned());
    Arc::new(all.map(|(name, value)| (name.to_owned(), Some(filled(value).to_value()))).collect())
}

impl Known {
    fn fill(&self, file: &FileContent, context: &Value) -> Result<Payload, String> {
        match file.templating {
            None => Ok(file.data.clone()),
            Some(Templating::Golang) => {
                let text = str::from_utf8(file.data.as_bytes())
                    .map_err(|_binary| "a template has to be a text".to_owned())?;
                let has_read = Arc::new(AtomicBool::new(false));
                let equip = |template, budget: &Budget| self.equip(template, (budget, &has_read));
                // What it has read of a secret may be in what is wrong with it.
                let filled = expand_with(text, context, FILE_MAX, equip).map_err(|why| {
                    if has_read.load(Ordering::Relaxed) { hidden(why) } else { why }
                })?;
                Ok(filled.into_bytes().into())
            }
        }
    }

    /// Notes in `has_read` that a secret was read.
    fn equip(
        &self,
        template: Template,
        (budget, has_read): (&Budget, &Arc<AtomicBool>),
    ) -> Template {
        let (secrets, configs) = (Arc::clone(&self.secrets), Arc::clone(&self.configs));
        let (env, has_read) = (Arc::clone(&self.env), Arc::clone(has_read));
        // The name that is asked for is a text, too.
        let [of_secrets, of_configs, of_env] = [budget.clone(), budget.clone(), budget.clone()];
        template
            .func("secret", move |args| {
                let secret = asked("secret", &secrets, (args, &of_secrets))?;
                has_read.store(true, Ordering::Relaxed);
                Ok(secret)
            })
            .func("config", move |args| asked("config", &configs, (args, &of_configs)))
            .func("env", move |args| {
                let name = name("env", args, &of_env)?;
                Ok(env.get(&*name).cloned().flatten().unwrap_or_else(|| "".to_value()))
            })
    }
}

fn asked(
    word: &str,
    known: &BTreeMap<String, Option<Value>>,
    (args, budget): (&[Value], &Budget),
) -> gotmpl::Result<Value> {
    let name = name(word, args, budget)?;
    let wrong = |why: &str| gotmpl::TemplateError::Exec(format!("{word} target {name} {why}"));
    let text = known.get(&*name).ok_or_else(|| wrong("not found"))?;
    text.clone().ok_or_else(|| wrong("is no text"))
}

/// The one argument of a function.
fn name(word: &str, args: &[Value], budget: &Budget) -> gotmpl::Result<String> {
    match args {
        [Value::String(name)] => {
            budget.take(name.len())?;
            Ok(name.to_string())
        }
        [_] | [] | [_, _, ..] => Err(gotmpl::TemplateError::Exec(format!("{word} takes one name"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FileReference;
    use std::path::Path;

    fn content(data: &[u8], templating: Option<Templating>) -> FileContent {
        FileContent { data: data.to_vec().into(), templating }
    }

    fn reference<I: for<'a> From<&'a str>>(name: &str) -> FileReference<I> {
        let target = FileTarget { name: name.to_owned(), ..FileTarget::default() };
        FileReference { id: name.into(), name: name.to_owned(), target }
    }

    /// A task with a secret `key`, a config `plain` and one that is this template.
    fn expand(template: &str, as_secret: bool) -> Result<String, String> {
        let mut task = Task { id: "t".into(), service_name: "web".into(), ..Task::default() };
        let container = &mut task.spec.container;
        container.env = vec!["A=1".into(), "B".into(), "T=at {{.Node.Hostname}}".into()];
        let own = content(template.as_bytes(), Some(Templating::Golang));
        let mut secrets = BTreeMap::from([("key".into(), content(b"pass{{.Nope}}", None))]);
        let mut configs = BTreeMap::from([("plain".into(), content(b"text\n", None))]);
        configs.insert("binary".into(), content(b"\xff\0", None));
        container.secrets = vec![reference("key")];
        container.configs = vec![reference("plain"), reference("binary")];
        if as_secret {
            container.secrets.push(reference("own"));
            secrets.insert("own".into(), own);
        } else {
            container.configs.push(reference("own"));
            configs.insert("own".into(), own);
        }
        let description = NodeDescription { hostname: "node-1".into(), ..Default::default() };
        let files = expand_files(&task, (&"n".into(), &description), (&secrets, &configs))?;
        let found = |path: &str| files.iter().find(|file| file.path == Path::new(path)).unwrap();
        assert_eq!(found("/binary").data.as_bytes(), b"\xff\0");
        let own = found(if as_secret { "/run/secrets/own" } else { "/own" });
        Ok(String::from_utf8(own.data.as_bytes().to_vec()).unwrap())
    }

    #[test]
    fn templates_know_the_task_its_other_files_and_its_variables() {
        for (text, filled) in [
            ("plain", "plain"),
            ("{{.Service.Name}}@{{.Node.Hostname}} {{.Task.ID}}", "web@node-1 t"),
            (r#"p={{ secret "key" }} c={{ config "plain" }}"#, "p=pass{{.Nope}} c=text\n"),
            (r#"[{{ env "A" }}{{ env "B" }}{{ env "C" }}]"#, "[1]"),
            // Docker gives the text of the template: `at {{.Node.Hostname}}`.
            (r#"{{ env "T" }}"#, "at node-1"),
        ] {
            assert_eq!(expand(text, false).as_deref(), Ok(filled), "{text}");
            assert_eq!(expand(text, true).as_deref(), Ok(filled), "{text}");
        }
    }

    #[test]
    fn what_a_config_has_read_of_a_secret_is_in_no_error() {
        for text in [
            r#"{{ secret "key" | config }}"#,
            r#"{{ secret (secret "key") }}"#,
            r#"{{ index .Service.Labels (secret "key") 1 }}"#,
            r#"{{ printf 1 (secret "key") }}"#,
            r#"{{ config "plain" }}{{ template "x" (secret "key") }}"#,
        ] {
            let error = expand(text, false).unwrap_err();
            assert!(!error.contains("pass"), "{error}");
        }
    }

    /// A file that is asked for again and again is there once.
    #[test]
    fn templates_ask_for_large_files_as_often_as_they_like_and_make_nothing_larger_of_them() {
        let often = r#"{{range 99999}}{{if config "plain"}}{{end}}{{end}}done"#;
        assert_eq!(expand(often, false).as_deref(), Ok("done"));
        let bomb = r#"{{$x := config "plain"}}{{range 60}}{{$x = print $x $x}}{{end}}"#;
        let error = expand(bomb, false).unwrap_err();
        assert!(error.contains("it makes texts of more than"), "{error}");
    }

    #[test]
    fn what_is_wrong_is_said_of_configs_and_not_of_secrets() {
        for (text, reason) in [
            (r#"{{ secret "lock" }}"#, "secret target lock not found"),
            (r#"{{ config "binary" }}"#, "config target binary is no text"),
            ("{{.Service.Nmae}}", "Nmae"),
            ("{{fly}}", "fly"),
        ] {
            let error = expand(text, false).unwrap_err();
            assert!(
                error.starts_with("expanding config own: ") && error.contains(reason),
                "{error}"
            );
            let error = expand(text, true).unwrap_err();
            assert!(
                error.starts_with("expanding secret own: ") && !error.contains(reason),
                "{error}"
            );
        }
    }
}
