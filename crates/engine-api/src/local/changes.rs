//! Changes to an image that is imported: `docker import --change`, one instruction of a Dockerfile
//! each.

use serde_json::{Map, Value, json};
use types::Fault;

/// What images say about containers made from them, in Docker's form (`Config`).
type Config = Map<String, Value>;

/// Instructions that Docker takes here and Skep does not.
const REFUSED: &[&str] = &["HEALTHCHECK", "ONBUILD"];

/// Reads changes one after the other. A later `CMD`, `ENTRYPOINT`, `USER`, `WORKDIR` or
/// `STOPSIGNAL` takes the place of an earlier one; the others add up.
pub(crate) fn parse(changes: &[String]) -> Result<Value, Fault> {
    let mut config = Config::new();
    let lines = changes.iter().flat_map(|change| change.lines()).map(str::trim);
    for line in lines.filter(|line| !line.is_empty() && !line.starts_with('#')) {
        apply(&mut config, line)?;
    }
    Ok(Value::Object(config))
}

fn apply(config: &mut Config, line: &str) -> Result<(), Fault> {
    let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let (word, rest) = (word.to_uppercase(), rest.trim());
    let invalid = |reason: &str| Fault::invalid(format!("invalid change {line:?}: {reason}"));
    let unsupported = |what: &str| Fault::not_implemented(&format!("changes={line:?} ({what})"));
    if REFUSED.contains(&word.as_str()) {
        return Err(unsupported("say it where the container is made"));
    }
    if rest.is_empty() {
        return Err(invalid("it needs an argument"));
    }
    if rest.ends_with('\\') {
        return Err(unsupported("put the instruction on one line"));
    }
    let command = matches!(word.as_str(), "CMD" | "ENTRYPOINT");
    if rest.contains('$') && !command {
        return Err(unsupported("write the value instead of the variable"));
    }
    match word.as_str() {
        "CMD" => put(config, "Cmd", json!(arguments(rest))),
        "ENTRYPOINT" => put(config, "Entrypoint", json!(arguments(rest))),
        "USER" => put(config, "User", json!(rest)),
        "STOPSIGNAL" => put(config, "StopSignal", json!(rest)),
        "WORKDIR" => {
            let before = config.get("WorkingDir").and_then(Value::as_str).unwrap_or("/");
            let folder = std::path::Path::new(before).join(rest);
            put(config, "WorkingDir", json!(folder));
        }
        "ENV" => {
            let mut env = list(config, "Env");
            for (name, value) in pairs(rest).ok_or_else(|| invalid("use NAME=VALUE"))? {
                let start = format!("{name}=");
                env.retain(|known| !known.as_str().is_some_and(|known| known.starts_with(&start)));
                env.push(json!(format!("{start}{value}")));
            }
            put(config, "Env", Value::Array(env));
        }
        "LABEL" => {
            let labels = pairs(rest).ok_or_else(|| invalid("use NAME=VALUE"))?;
            add(config, "Labels", labels.into_iter().map(|(name, value)| (name, json!(value))));
        }
        "VOLUME" => {
            let folders = json_words(rest).or_else(|| words(rest)).unwrap_or_default();
            add(config, "Volumes", folders.into_iter().map(|folder| (folder, json!({}))));
        }
        "EXPOSE" => {
            let ports = words(rest).unwrap_or_default();
            let ports = ports.iter().map(|text| port(text)).collect::<Option<Vec<_>>>();
            let ports = ports.ok_or_else(|| invalid("use PORT or PORT/PROTOCOL"))?;
            add(config, "ExposedPorts", ports.into_iter().map(|port| (port, json!({}))));
        }
        _ => return Err(Fault::invalid(format!("{word} is not a valid change command"))),
    }
    Ok(())
}

fn put(config: &mut Config, field: &str, value: Value) {
    config.insert(field.to_owned(), value);
}

fn add(config: &mut Config, field: &str, more: impl Iterator<Item = (String, Value)>) {
    let known = config.entry(field).or_insert_with(|| json!({}));
    if let Some(known) = known.as_object_mut() {
        known.extend(more);
    }
}

fn list(config: &Config, field: &str) -> Vec<Value> {
    config.get(field).and_then(Value::as_array).cloned().unwrap_or_default()
}

/// A command as a list in JSON, or as a line for the shell.
fn arguments(text: &str) -> Vec<String> {
    let shell = || vec!["/bin/sh".to_owned(), "-c".to_owned(), text.to_owned()];
    json_words(text).unwrap_or_else(shell)
}

fn json_words(text: &str) -> Option<Vec<String>> {
    serde_json::from_str(text).ok()
}

/// `A=b C="d e"`, or the older `A b`.
fn pairs(text: &str) -> Option<Vec<(String, String)>> {
    let words = words(text)?;
    if !words.first()?.contains('=') {
        let (name, value) = text.split_once(char::is_whitespace)?;
        return Some(vec![(name.to_owned(), value.trim().to_owned())]);
    }
    let pair = |word: &String| {
        let (name, value) = word.split_once('=')?;
        (!name.is_empty()).then(|| (name.to_owned(), value.to_owned()))
    };
    words.iter().map(pair).collect()
}

/// Words between spaces, without their quotes and backslashes; `None` where a quote is not closed.
fn words(text: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match (letter, quote) {
            ('\\', None | Some('"')) => word.get_or_insert_default().push(letters.next()?),
            (_, Some(open)) if letter == open => quote = None,
            ('"' | '\'', None) => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (_, None) if letter.is_whitespace() => words.extend(word.take()),
            _ => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    quote.is_none().then_some(words)
}

/// `80` and `80/TCP` are `80/tcp`.
fn port(text: &str) -> Option<String> {
    let (number, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let (number, protocol) = (number.parse::<u16>().ok()?, protocol.to_lowercase());
    matches!(protocol.as_str(), "tcp" | "udp" | "sctp").then(|| format!("{number}/{protocol}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use types::FaultKind;

    fn config(changes: &[&str]) -> Value {
        parse(&changes.iter().map(|&change| change.to_owned()).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn changes_are_instructions_of_a_dockerfile() {
        for (changes, wanted) in [
            (&[][..], json!({})),
            (&[r#"CMD ["sh", "-c", "echo $HOME"]"#], json!({"Cmd": ["sh", "-c", "echo $HOME"]})),
            (&["cmd echo $HOME"], json!({"Cmd": ["/bin/sh", "-c", "echo $HOME"]})),
            (&["CMD a", "CMD []"], json!({"Cmd": []})),
            (&["ENTRYPOINT [\"/a\"]"], json!({"Entrypoint": ["/a"]})),
            (&["USER 33:33\nSTOPSIGNAL SIGINT"], json!({"User": "33:33", "StopSignal": "SIGINT"})),
            (&["WORKDIR /a", "WORKDIR b", "# no"], json!({"WorkingDir": "/a/b"})),
            (
                &[r#"ENV A=1 B="x y" C=it\'s"#, "ENV A=2", "ENV D  e f"],
                json!({"Env": ["B=x y", "C=it's", "A=2", "D=e f"]}),
            ),
            (&["LABEL a.b='c d'", "LABEL e="], json!({"Labels": {"a.b": "c d", "e": ""}})),
            (&[r#"VOLUME ["/x y"]"#, "VOLUME /a /b"], {
                json!({"Volumes": {"/x y": {}, "/a": {}, "/b": {}}})
            }),
            (&["EXPOSE 80 53/UDP"], json!({"ExposedPorts": {"80/tcp": {}, "53/udp": {}}})),
        ] {
            assert_eq!(config(changes), wanted, "{changes:?}");
        }
    }

    #[test]
    fn what_is_no_change_is_refused_with_its_words() {
        for (change, kind, reason) in [
            ("RUN true", FaultKind::Invalid, "RUN is not a valid change command"),
            ("CMD", FaultKind::Invalid, "invalid change \"CMD\": it needs an argument"),
            ("ENV A", FaultKind::Invalid, "invalid change \"ENV A\": use NAME=VALUE"),
            ("ENV A=\"b", FaultKind::Invalid, "use NAME=VALUE"),
            ("LABEL =b", FaultKind::Invalid, "use NAME=VALUE"),
            ("EXPOSE 80-90", FaultKind::Invalid, "use PORT or PORT/PROTOCOL"),
            ("EXPOSE 80/icmp", FaultKind::Invalid, "use PORT or PORT/PROTOCOL"),
            ("HEALTHCHECK NONE", FaultKind::NotImplemented, "changes=\"HEALTHCHECK NONE\""),
            ("ONBUILD RUN x", FaultKind::NotImplemented, "changes=\"ONBUILD RUN x\""),
            ("ENV A=$B", FaultKind::NotImplemented, "write the value instead of the variable"),
            ("ENV A=b \\", FaultKind::NotImplemented, "put the instruction on one line"),
        ] {
            let fault = parse(&[change.to_owned()]).unwrap_err();
            assert_eq!(fault.kind, kind, "{change}");
            assert!(fault.message.contains(reason), "{change}: {fault}");
        }
    }
}
