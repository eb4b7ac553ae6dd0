//! `--external-ca`, as Docker's CLI reads it.

use serde_json::{Value, json};

/// Reads `protocol=cfssl,url=URL[,cacert=FILE]`; what else is given goes to the daemon.
pub(super) fn parse(text: &str) -> Result<Value, String> {
    let (mut protocol, mut url, mut certificate) = (None, None, String::new());
    let mut options = serde_json::Map::new();
    for field in text.split(',') {
        let part = field.split_once('=');
        let (key, value) =
            part.ok_or_else(|| format!("invalid field {field:?}: must be a key=value pair"))?;
        match key.to_ascii_lowercase().as_str() {
            "protocol" => protocol = Some(value.to_owned()),
            "url" => url = Some(value.to_owned()),
            "cacert" => {
                certificate = std::fs::read_to_string(value)
                    .map_err(|error| format!("cannot read {value}: {error}"))?;
            }
            _ => drop(options.insert(key.to_owned(), value.into())),
        }
    }
    let protocol = protocol.ok_or("the external-ca option needs a protocol= parameter")?;
    if !protocol.eq_ignore_ascii_case("cfssl") {
        return Err(format!("unrecognized external CA protocol {protocol}"));
    }
    let url = url.ok_or("the external-ca option needs a url= parameter")?;
    Ok(json!({"Protocol": "cfssl", "URL": url, "CACert": certificate, "Options": options}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_external_ca_is_read_as_docker_reads_it() {
        let read = parse("protocol=CFSSL,url=https://ca:1/?a=b,profile=x").unwrap();
        let options = json!({"profile": "x"});
        let all = json!({"Protocol": "cfssl", "URL": "https://ca:1/?a=b", "CACert": "", "Options": options});
        assert_eq!(read, all);
        for (text, why) in [
            ("cfssl", "invalid field \"cfssl\": must be a key=value pair"),
            ("url=https://ca", "the external-ca option needs a protocol= parameter"),
            ("protocol=acme,url=https://ca", "unrecognized external CA protocol acme"),
            ("protocol=cfssl", "the external-ca option needs a url= parameter"),
        ] {
            assert_eq!(parse(text).unwrap_err(), why);
        }
        assert!(parse("protocol=cfssl,url=u,cacert=/none").unwrap_err().contains("/none"));
    }
}
