//! `--format` templates: Go's, with the functions that docker adds.

use anyhow::{Context, Result};
use gotmpl::{Template, Value, to_value};

/// Fills a template with a JSON value.
pub(crate) fn render(format: &str, data: &serde_json::Value) -> Result<String> {
    let data = to_value(data).context("cannot use this value in a template")?;
    let template = functions(Template::new("format"))
        .parse(format)
        .with_context(|| format!("template parsing error in {format:?}"))?;
    template.execute_to_string(&data).with_context(|| format!("cannot fill template {format:?}"))
}

fn functions(template: Template) -> Template {
    template
        .func("json", |args| Ok(text(json(args.first().unwrap_or(&Value::Nil)).to_string())))
        .func("join", |args| match args {
            [Value::List(items), rest @ ..] => {
                let words: Vec<String> = items.iter().map(ToString::to_string).collect();
                Ok(text(words.join(&word(rest, 0))))
            }
            _ => Ok(text(String::new())),
        })
        .func("split", |args| {
            let (all, sign) = (word(args, 0), word(args, 1));
            Ok(Value::List(all.split(sign.as_str()).map(|part| text(part.to_owned())).collect()))
        })
        .func("lower", |args| Ok(text(word(args, 0).to_lowercase())))
        .func("upper", |args| Ok(text(word(args, 0).to_uppercase())))
        .func("title", |args| Ok(text(super::human::title(&word(args, 0)))))
        .func("pad", |args| {
            let blanks = |at: usize| " ".repeat(number(args, at).min(1000));
            Ok(text(format!("{}{}{}", blanks(1), word(args, 0), blanks(2))))
        })
        .func("truncate", |args| Ok(text(word(args, 0).chars().take(number(args, 1)).collect())))
}

fn text(text: String) -> Value {
    Value::String(text.into())
}

fn word(args: &[Value], at: usize) -> String {
    args.get(at).map(ToString::to_string).unwrap_or_default()
}

fn number(args: &[Value], at: usize) -> usize {
    args.get(at)
        .and_then(Value::as_int)
        .and_then(|number| usize::try_from(number).ok())
        .unwrap_or(0)
}

fn json(value: &Value) -> serde_json::Value {
    match value {
        Value::Bool(value) => (*value).into(),
        Value::Int(value) => (*value).into(),
        Value::Uint(value) => (*value).into(),
        Value::Float(value) => (*value).into(),
        Value::String(value) => value.to_string().into(),
        Value::List(items) => items.iter().map(json).collect(),
        Value::Map(map) => map.iter().map(|(key, value)| (key.to_string(), json(value))).collect(),
        // Values come from JSON, which has nothing else.
        _ => serde_json::Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn templates_reach_into_json_and_have_dockers_functions() {
        let data = json!({"Spec": {"Name": "web", "Env": ["A=1", "B=2"], "N": 3}});
        for (format, wanted) in [
            ("{{.Spec.Name}}", "web"),
            ("{{json .Spec.Env}}", r#"["A=1","B=2"]"#),
            ("{{join .Spec.Env \",\"}}", "A=1,B=2"),
            ("{{range .Spec.Env}}[{{.}}]{{end}}", "[A=1][B=2]"),
            ("{{upper .Spec.Name}} {{.Spec.N}}", "WEB 3"),
            ("{{truncate .Spec.Name 2}}{{pad .Spec.Name 1 1}}|", "we web |"),
            ("{{index .Spec \"Name\"}}", "web"),
        ] {
            assert_eq!(render(format, &data).unwrap(), wanted, "{format}");
        }
        assert!(render("{{.Spec", &data).is_err());
    }
}
