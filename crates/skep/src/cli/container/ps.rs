//! `skep ps`.

use crate::cli::query::{filters, labels, list, number, text};
use crate::cli::table::List;
use crate::cli::{Host, Listing, human};
use anyhow::Result;
use clap::Args;
use serde_json::Value;
use time::OffsetDateTime;

/// Characters of a command in a list.
const COMMAND_MAX: usize = 20;

#[derive(Args, Debug)]
pub(crate) struct Ps {
    /// Show containers that do not run, too
    #[arg(short, long)]
    all: bool,
    #[command(flatten)]
    listing: Listing,
    /// Show as many of the last made, running or not
    #[arg(short = 'n', long, value_name = "N")]
    last: Option<u32>,
    #[command(flatten)]
    host: Host,
}

impl Ps {
    pub(crate) async fn run(self) -> Result<()> {
        let query = filters(&self.listing.filter, &[])?;
        let limit = self.last.map(|limit| format!("&limit={limit}")).unwrap_or_default();
        let path = format!("/containers/json?all={}&filters={query}{limit}", self.all);
        let containers: Vec<Value> = self.host.client()?.get(&path).await?;
        self.listing.print(&table(&containers, self.listing.no_trunc, human::now()))
    }
}

fn table(containers: &[Value], whole: bool, now: OffsetDateTime) -> List {
    let mut table = List::new(
        &[
            ("ID", "CONTAINER ID"),
            ("Image", "IMAGE"),
            ("Command", "COMMAND"),
            ("RunningFor", "CREATED"),
            ("Status", "STATUS"),
            ("Ports", "PORTS"),
            ("Names", "NAMES"),
        ],
        &[("State", "STATE"), ("Labels", "LABELS")],
    );
    for container in containers {
        let command = text(container, "/Command");
        let command = if whole { command.to_owned() } else { human::cut(command, COMMAND_MAX) };
        let names: Vec<&str> = list(container, "/Names")
            .iter()
            .map(|name| name.as_str().unwrap_or_default().trim_start_matches('/'))
            .collect();
        table.row([
            human::id(text(container, "/Id"), whole),
            human::image(text(container, "/Image")).to_owned(),
            format!("\"{command}\""),
            human::ago(&container["Created"], now),
            text(container, "/Status").to_owned(),
            ports(list(container, "/Ports")),
            names.join(","),
            text(container, "/State").to_owned(),
            labels(container, "/Labels"),
        ]);
    }
    table
}

fn ports(ports: &[Value]) -> String {
    let mut shown: Vec<String> = ports
        .iter()
        .map(|port| {
            let target = format!("{}/{}", number(port, "/PrivatePort"), text(port, "/Type"));
            match number(port, "/PublicPort") {
                0 => target,
                public => format!("{}:{public}->{target}", text(port, "/IP")),
            }
        })
        .collect();
    shown.sort();
    shown.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;
    use serde_json::json;

    #[test]
    fn containers_are_listed_as_docker_does() {
        let containers = [json!({
            "Id": "0123456789abcdef", "Image": "nginx:latest", "Names": ["/web.1.abc"],
            "Command": "/docker-entrypoint.sh nginx", "Created": 1_767_225_600, "State": "running",
            "Status": "Up 2 minutes",
            "Ports": [{"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"}]})];
        let now = time::macros::datetime!(2026-01-01 00:02:10 UTC);
        expect![[r#"
            CONTAINER ID   IMAGE          COMMAND                  CREATED         STATUS         PORTS                  NAMES
            0123456789ab   nginx:latest   "/docker-entrypoint.…"   2 minutes ago   Up 2 minutes   0.0.0.0:8080->80/tcp   web.1.abc
        "#]].assert_eq(&table(&containers, false, now).render(None).unwrap());
    }
}
