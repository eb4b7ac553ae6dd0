//! Lists: docker's columns, `--format` with templates, `--format json`, and `-q`.

use super::template;
use anyhow::Result;
use serde_json::{Map, Value};

/// The narrowest column, and the space between two, as docker has them.
const WIDTH_MIN: usize = 10;
const GAP: usize = 3;

/// A column: the field's name in templates, and its head. Names that begin with `_` are ours.
pub(crate) type Column = (&'static str, &'static str);

/// A list of things that a user asked for.
pub(crate) struct List {
    /// The columns that are shown where the user does not say which.
    shown: Vec<Column>,
    /// Further fields that templates may name.
    hidden: Vec<Column>,
    rows: Vec<Map<String, Value>>,
}

impl List {
    pub(crate) fn new(shown: &[Column], hidden: &[Column]) -> Self {
        Self { shown: shown.to_vec(), hidden: hidden.to_vec(), rows: Vec::new() }
    }

    /// Adds a row: its fields in the order of the columns, shown ones first.
    pub(crate) fn row(&mut self, fields: impl IntoIterator<Item = String>) {
        let names = self.shown.iter().chain(&self.hidden).map(|(name, _)| (*name).to_owned());
        self.rows.push(names.zip(fields.into_iter().map(Value::String)).collect());
    }

    /// Writes the list as `format` says: nothing is the table.
    pub(crate) fn render(&self, format: Option<&str>) -> Result<String> {
        match format {
            None | Some("" | "table") => Ok(self.table()),
            Some("json") => {
                let mut text = String::new();
                for row in &self.rows {
                    let mut row = row.clone();
                    row.retain(|name, _| !name.starts_with('_'));
                    text.push_str(&serde_json::to_string(&row)?);
                    text.push('\n');
                }
                Ok(text)
            }
            Some(format) => {
                if let Some(format) = format.strip_prefix("table ") {
                    return self.own_table(&unescape(format));
                }
                let mut text = String::new();
                for row in &self.rows {
                    text.push_str(&template::render(&unescape(format), &row.clone().into())?);
                    text.push('\n');
                }
                Ok(text)
            }
        }
    }

    /// Writes one field of each row: `-q`.
    pub(crate) fn quiet(&self, field: &str) -> String {
        self.rows
            .iter()
            .map(|row| row[field].as_str().unwrap_or_default().to_owned() + "\n")
            .collect()
    }

    fn table(&self) -> String {
        let head = self.shown.iter().map(|(_, head)| (*head).to_owned()).collect();
        let row = |row: &Map<String, Value>| {
            let cell = |(name, _): &Column| row[*name].as_str().unwrap_or_default().to_owned();
            self.shown.iter().map(cell).collect()
        };
        align(std::iter::once(head).chain(self.rows.iter().map(row)).collect())
    }

    /// A table by the user's template, whose heads are the heads of the fields.
    fn own_table(&self, format: &str) -> Result<String> {
        let heads: Map<String, Value> = self
            .shown
            .iter()
            .chain(&self.hidden)
            .map(|(name, head)| ((*name).to_owned(), Value::from(*head)))
            .collect();
        let mut lines = Vec::new();
        for row in std::iter::once(&heads).chain(&self.rows) {
            let line = template::render(format, &row.clone().into())?;
            lines.push(line.split('\t').map(str::to_owned).collect());
        }
        Ok(align(lines))
    }
}

/// Templates on a command line say `\t` for a tab.
fn unescape(format: &str) -> String {
    format.replace("\\t", "\t").replace("\\n", "\n")
}

/// Writes lines with their cells below each other. The last cell of a line is not padded.
fn align(lines: Vec<Vec<String>>) -> String {
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = lines.iter().filter(|line| column + 1 < line.len()).map(|line| &line[column]);
        cells.map(|cell| cell.chars().count() + GAP).max().unwrap_or(0).max(WIDTH_MIN)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for line in lines {
        for (column, cell) in line.iter().enumerate() {
            text.push_str(cell);
            if column + 1 < line.len() {
                let blanks = widths[column].saturating_sub(cell.chars().count());
                text.extend(std::iter::repeat_n(' ', blanks));
            }
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    fn list() -> List {
        let mut list =
            List::new(&[("ID", "ID"), ("Name", "NAME"), ("Ports", "PORTS")], &[("Mode", "MODE")]);
        list.row(["1", "a-name-that-is-long", "", "global"].map(str::to_owned));
        list.row(["2", "é", "*:80->80/tcp", "replicated"].map(str::to_owned));
        list
    }

    #[test]
    fn columns_are_as_wide_as_dockers() {
        let text = list().render(None).unwrap().replace(' ', "·");
        expect![[r"
            ID········NAME··················PORTS
            1·········a-name-that-is-long···
            2·········é·····················*:80->80/tcp
        "]]
        .assert_eq(&text);
    }

    #[test]
    fn formats_are_templates_tables_of_templates_and_json() {
        let list = list();
        expect![[r"
            a-name-that-is-long global
            é replicated
        "]]
        .assert_eq(&list.render(Some("{{.Name}} {{.Mode}}")).unwrap());
        expect![[r"
            MODE         ID
            global       1
            replicated   2
        "]]
        .assert_eq(&list.render(Some("table {{.Mode}}\\t{{.ID}}")).unwrap());
        expect![[r#"
            {"ID":"1","Name":"a-name-that-is-long","Ports":"","Mode":"global"}
            {"ID":"2","Name":"é","Ports":"*:80->80/tcp","Mode":"replicated"}
        "#]]
        .assert_eq(&list.render(Some("json")).unwrap());
        assert_eq!(list.quiet("ID"), "1\n2\n");
    }
}
