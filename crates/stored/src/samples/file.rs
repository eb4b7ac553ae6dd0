//! What users give containers as files.

use super::{labels, meta};
use types::{Config, FileContent, FileSpec, Secret, Templating};

fn spec(name: &str, data: &[u8], templating: Option<Templating>) -> FileSpec {
    let content = FileContent { data: data.to_vec().into(), templating };
    FileSpec { name: name.to_owned(), labels: labels(name), content, ..FileSpec::default() }
}

pub fn secret() -> Secret {
    let spec = spec("secret1-name", b"key\0", None);
    Secret { id: "secret1".into(), meta: meta(8), spec }
}

pub fn config() -> Config {
    let spec = spec("config1-name", b"{{ .Node.ID }}", Some(Templating::Golang));
    Config { id: "config1".into(), meta: meta(9), spec }
}
