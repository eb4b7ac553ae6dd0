//! `skep node`: the machines of the cluster.

use super::query::{filters, labels, list, number, text};
use super::swarm::Availability;
use super::table::List;
use super::{Listing, human, say, show, tasks};
use crate::client::{Client, escape};
use anyhow::{Result, bail};
use clap::{Args, Subcommand, ValueEnum};
use serde_json::Value;
use types::{DRAIN_LABEL, DRAIN_PACED};

#[derive(Subcommand, Debug)]
pub(crate) enum Verb {
    /// List nodes
    #[command(visible_alias = "list")]
    Ls(Listing),
    /// Show nodes as JSON, or for people
    Inspect(Inspect),
    /// List the tasks on nodes
    Ps(Ps),
    /// Change a node
    Update(Update),
    /// Remove nodes from the cluster
    #[command(visible_alias = "remove")]
    Rm(Rm),
    /// Make nodes managers
    Promote(Names),
    /// Make managers workers
    Demote(Names),
}

#[derive(Args, Debug)]
pub(crate) struct Inspect {
    #[arg(required = true, value_name = "NODE")]
    names: Vec<String>,
    #[command(flatten)]
    show: show::Show,
}

#[derive(Args, Debug)]
pub(crate) struct Ps {
    #[arg(value_name = "NODE", default_value = "self")]
    names: Vec<String>,
    #[command(flatten)]
    tasks: tasks::Tasks,
}

#[derive(Args, Debug)]
pub(crate) struct Update {
    name: String,
    /// Take tasks, keep those it has, or give them away
    #[arg(long)]
    availability: Option<Availability>,
    /// With `--availability drain`: its tasks move a few at a time, as updates of their services
    /// would replace them
    #[arg(long, requires = "availability")]
    paced: bool,
    /// Be a manager or a worker
    #[arg(long)]
    role: Option<Role>,
    /// Add a label, KEY=VALUE
    #[arg(long, value_name = "LABEL")]
    label_add: Vec<String>,
    /// Remove a label
    #[arg(long, value_name = "KEY")]
    label_rm: Vec<String>,
}

#[derive(Args, Debug)]
pub(crate) struct Rm {
    #[arg(required = true, value_name = "NODE")]
    names: Vec<String>,
    /// Remove nodes that are not down, too
    #[arg(short, long)]
    force: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Names {
    #[arg(required = true, value_name = "NODE")]
    names: Vec<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Role {
    Worker,
    Manager,
}

impl Role {
    fn as_str(self) -> &'static str {
        match self {
            Role::Worker => "worker",
            Role::Manager => "manager",
        }
    }
}

pub(crate) async fn run(client: &Client, verb: Verb) -> Result<()> {
    match verb {
        Verb::Ls(verb) => ls(client, &verb).await,
        Verb::Inspect(verb) => {
            let several = super::several(&verb.names, async |name| read(client, name).await).await;
            verb.show.print(&several.found, pretty)?;
            several.end()
        }
        Verb::Ps(verb) => {
            let several = super::several(&verb.names, async |name| read(client, name).await).await;
            tasks::ls_of(client, &verb.tasks, "node", several).await
        }
        Verb::Update(verb) => update(client, &verb).await,
        Verb::Rm(verb) => {
            let one = async |name: &str| {
                client.delete(&format!("/nodes/{}?force={}", escape(name), verb.force)).await?;
                say(name);
                Ok(())
            };
            super::each(&verb.names, one).await
        }
        Verb::Promote(verb) => turn_all(client, &verb.names, Role::Manager).await,
        Verb::Demote(verb) => turn_all(client, &verb.names, Role::Worker).await,
    }
}

async fn ls(client: &Client, verb: &Listing) -> Result<()> {
    let query = filters(&verb.filter, &[])?;
    let mut nodes: Vec<Value> = client.get(&format!("/nodes?filters={query}")).await?;
    let info: Value = client.get("/info").await?;
    nodes.sort_by_key(|node| human::natural(text(node, "/Description/Hostname")));
    verb.print(&table(&nodes, text(&info, "/Swarm/NodeID")))
}

fn table(nodes: &[Value], own: &str) -> List {
    let mut table = List::new(
        &[
            // The node that is asked is marked, in the table alone.
            ("_ID", "ID"),
            ("Hostname", "HOSTNAME"),
            ("Status", "STATUS"),
            ("Availability", "AVAILABILITY"),
            ("ManagerStatus", "MANAGER STATUS"),
            ("EngineVersion", "ENGINE VERSION"),
        ],
        &[("ID", "ID"), ("Self", "SELF"), ("TLSStatus", "TLS STATUS")],
    );
    for node in nodes {
        let id = text(node, "/ID");
        let manager = if node["ManagerStatus"]["Leader"] == true {
            "Leader".to_owned()
        } else {
            human::title(text(node, "/ManagerStatus/Reachability"))
        };
        let own = id == own;
        table.row([
            format!("{id} {}", if own { "*" } else { " " }),
            text(node, "/Description/Hostname").to_owned(),
            human::title(text(node, "/Status/State")),
            human::title(text(node, "/Spec/Availability")),
            manager,
            text(node, "/Description/Engine/EngineVersion").to_owned(),
            id.to_owned(),
            own.to_string(),
            "Ready".to_owned(),
        ]);
    }
    table
}

async fn update(client: &Client, verb: &Update) -> Result<()> {
    let mut node = read(client, &verb.name).await?;
    verb.write(&mut node["Spec"])?;
    write(client, &node).await?;
    say(&verb.name);
    Ok(())
}

impl Update {
    fn write(&self, spec: &mut Value) -> Result<()> {
        if let Some(availability) = self.availability {
            spec["Availability"] = availability.as_str().into();
        }
        if let Some(role) = self.role {
            spec["Role"] = role.as_str().into();
        }
        let mut labels = spec["Labels"].as_object().cloned().unwrap_or_default();
        if self.paced {
            if spec["Availability"] != "drain" {
                bail!("--paced is for --availability drain");
            }
            labels.insert(DRAIN_LABEL.into(), DRAIN_PACED.into());
        }
        for label in &self.label_add {
            let (key, value) = label.split_once('=').unwrap_or((label, ""));
            labels.insert(key.into(), value.into());
        }
        for key in &self.label_rm {
            if labels.remove(key).is_none() {
                bail!("key {key} doesn't exist in node's labels");
            }
        }
        spec["Labels"] = labels.into();
        Ok(())
    }
}

/// Gives nodes a role; says so where a node has it already.
async fn turn_all(client: &Client, names: &[String], role: Role) -> Result<()> {
    let one = async |name: &str| {
        let mut node = read(client, name).await?;
        if !turn(&mut node["Spec"], role) {
            say(&format!("Node {name} is already a {}.", role.as_str()));
            return Ok(());
        }
        write(client, &node).await?;
        let done = match role {
            Role::Manager => "promoted to a manager",
            Role::Worker => "demoted",
        };
        say(&format!("Node {name} {done} in the swarm."));
        Ok(())
    };
    super::each(names, one).await
}

/// Sets the role that is wanted; says whether that is another one.
fn turn(spec: &mut Value, role: Role) -> bool {
    let other = spec["Role"] != role.as_str();
    spec["Role"] = role.as_str().into();
    other
}

async fn read(client: &Client, name: &str) -> Result<Value> {
    client.get(&format!("/nodes/{}", escape(name))).await
}

/// Writes a node's spec back, unless somebody else has changed it since it was read.
async fn write(client: &Client, node: &Value) -> Result<()> {
    let (id, version) = (text(node, "/ID"), &node["Version"]["Index"]);
    client.order(&format!("/nodes/{id}/update?version={version}"), &node["Spec"]).await
}

fn pretty(node: &Value) -> String {
    let mut out = show::Pretty::default();
    out.line("ID", text(node, "/ID"));
    out.some("Name", text(node, "/Spec/Name"));
    out.labels("Labels", node.pointer("/Spec/Labels"));
    out.line("Hostname", text(node, "/Description/Hostname"));
    out.line("Joined at", text(node, "/CreatedAt"));
    out.head("Status");
    out.inner("State", &human::title(text(node, "/Status/State")));
    out.inner_some("Message", text(node, "/Status/Message"));
    out.inner("Availability", &human::title(text(node, "/Spec/Availability")));
    out.inner("Address", text(node, "/Status/Addr"));
    if node["ManagerStatus"].is_object() {
        out.head("Manager Status");
        out.inner("Address", text(node, "/ManagerStatus/Addr"));
        out.inner("Raft Status", &human::title(text(node, "/ManagerStatus/Reachability")));
        let leader = node["ManagerStatus"]["Leader"] == true;
        out.inner("Leader", if leader { "Yes" } else { "No" });
    }
    out.head("Platform");
    out.inner("Operating System", text(node, "/Description/Platform/OS"));
    out.inner("Architecture", text(node, "/Description/Platform/Architecture"));
    out.head("Resources");
    let cpus = number(node, "/Description/Resources/NanoCPUs") / 1_000_000_000;
    out.inner("CPUs", &cpus.to_string());
    out.inner("Memory", &human::memory(number(node, "/Description/Resources/MemoryBytes")));
    let plugins = list(node, "/Description/Engine/Plugins");
    out.head("Plugins");
    for kind in ["Log", "Network", "Volume"] {
        let names: Vec<&str> = plugins
            .iter()
            .filter(|plugin| plugin["Type"] == kind)
            .map(|plugin| text(plugin, "/Name"))
            .collect();
        out.inner(kind, &names.join(", "));
    }
    out.line("Engine Version", text(node, "/Description/Engine/EngineVersion"));
    out.some("Engine Labels", &labels(node, "/Description/Engine/Labels"));
    out.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;
    use serde_json::json;

    #[test]
    fn a_role_that_a_node_has_is_no_change() {
        let mut spec = json!({"Role": "worker"});
        assert!(!turn(&mut spec, Role::Worker));
        assert!(turn(&mut spec, Role::Manager) && !turn(&mut spec, Role::Manager));
        assert_eq!(spec["Role"], "manager");
    }

    #[test]
    fn nodes_are_listed_as_docker_does() {
        let node = |id: &str, name: &str, manager: Value| {
            json!({"ID": id, "Spec": {"Availability": "active"}, "Status": {"State": "ready"},
                "Description": {"Hostname": name, "Engine": {"EngineVersion": "0.1.0"}},
                "ManagerStatus": manager})
        };
        let nodes = [
            node(
                "a".repeat(25).as_str(),
                "node-1",
                json!({"Leader": true, "Reachability": "reachable"}),
            ),
            node("b".repeat(25).as_str(), "node-2", Value::Null),
        ];
        let text = table(&nodes, &"a".repeat(25)).render(None).unwrap();
        expect![[r"
            ID                            HOSTNAME   STATUS    AVAILABILITY   MANAGER STATUS   ENGINE VERSION
            aaaaaaaaaaaaaaaaaaaaaaaaa *   node-1     Ready     Active         Leader           0.1.0
            bbbbbbbbbbbbbbbbbbbbbbbbb     node-2     Ready     Active                          0.1.0
        "]].assert_eq(&text);
    }
}
