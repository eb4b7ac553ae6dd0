//! `skep swarm`: create, join, leave and change the cluster.

mod backup;
mod ca;
mod external;
mod lock;

use super::query::text;
use super::say;
use crate::client::Client;
use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};
use std::time::Duration;

#[derive(Subcommand, Debug)]
pub(crate) enum Verb {
    /// Create a cluster, with this node as its first manager
    Init(Init),
    /// Join a cluster
    Join(Join),
    /// Leave the cluster
    Leave(Leave),
    /// Show or rotate the token that lets machines join
    JoinToken(JoinToken),
    /// Change settings of the cluster
    Update(Update),
    /// Show the cluster's root certificate, or put another one in its place
    Ca(ca::Ca),
    /// Save all that the cluster knows to a file
    Backup(backup::Backup),
    /// Make this node the only manager of a cluster that was saved
    Restore(backup::Restore),
    /// Unlock a manager that was started again
    Unlock(lock::Unlock),
    /// Show or rotate the key that unlocks managers
    UnlockKey(lock::UnlockKey),
}

/// Where a node of a cluster is.
#[derive(Args, Debug)]
pub(crate) struct Addresses {
    /// The address that other nodes reach this one at
    #[arg(
        long = "advertise-addr",
        value_name = "IP",
        default_value = "",
        hide_default_value = true
    )]
    advertise: String,
    /// The address or interface for the traffic of overlay networks [default: the advertised one]
    #[arg(
        long = "data-path-addr",
        value_name = "IP",
        default_value = "",
        hide_default_value = true
    )]
    data_path: String,
    /// Where to listen for other nodes
    #[arg(long = "listen-addr", value_name = "IP:PORT", default_value = "0.0.0.0:2377")]
    listen: String,
}

#[derive(Args, Debug)]
pub(crate) struct Init {
    #[command(flatten)]
    addresses: Addresses,
    /// The UDP port of overlay networks
    #[arg(long, value_name = "PORT", default_value_t = 0, hide_default_value = true)]
    data_path_port: u32,
    /// Where subnets of networks come from
    #[arg(long, value_name = "NET", value_delimiter = ',')]
    default_addr_pool: Vec<String>,
    /// The prefix length of a network's subnet
    #[arg(long, value_name = "BITS", default_value_t = 24)]
    default_addr_pool_mask_length: u32,
    /// Whether this node takes tasks
    #[arg(long, default_value = "active")]
    availability: Availability,
    /// Make this node a manager of a cluster of its own, with the state that it has
    #[arg(long)]
    force_new_cluster: bool,
    /// Lock managers: after a start they wait for an unlock key
    #[arg(long)]
    autolock: bool,
    #[command(flatten)]
    settings: Settings,
}

#[derive(Args, Debug)]
pub(crate) struct Join {
    /// A manager, as HOST:PORT
    remote: String,
    /// The token that `skep swarm join-token` shows
    #[arg(long)]
    token: String,
    #[command(flatten)]
    addresses: Addresses,
    /// Whether this node takes tasks
    #[arg(long, default_value = "active")]
    availability: Availability,
}

#[derive(Args, Debug)]
pub(crate) struct Leave {
    /// Leave though this node is a manager
    #[arg(short, long)]
    force: bool,
}

#[derive(Args, Debug)]
pub(crate) struct JoinToken {
    /// As what the machine is to join
    role: Role,
    /// Show the token alone
    #[arg(short, long)]
    quiet: bool,
    /// Make a new token; the old one lets nobody in any more
    #[arg(long)]
    rotate: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Update {
    /// Lock managers: after a start they wait for an unlock key
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    autolock: Option<bool>,
    #[command(flatten)]
    settings: Settings,
}

/// Settings of the cluster.
#[derive(Args, Debug, Default)]
pub(crate) struct Settings {
    /// How often nodes say that they are there
    #[arg(long, value_name = "TIME", value_parser = duration)]
    dispatcher_heartbeat: Option<Duration>,
    /// Ended tasks that are kept for each slot
    #[arg(long, value_name = "N")]
    task_history_limit: Option<i64>,
    /// How long nodes' certificates are valid
    #[arg(long, value_name = "TIME", value_parser = duration)]
    cert_expiry: Option<Duration>,
    /// Log entries between two snapshots
    #[arg(long, value_name = "N")]
    snapshot_interval: Option<u64>,
    /// Snapshots that stay on disk before the newest one
    #[arg(long, value_name = "N")]
    max_snapshots: Option<u64>,
    /// Who signs certificates in the managers' place: protocol=cfssl,url=URL[,cacert=FILE]
    #[arg(long = "external-ca", value_name = "SPEC", value_parser = external::parse)]
    external_cas: Vec<Value>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Availability {
    Active,
    Pause,
    Drain,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Role {
    Worker,
    Manager,
}

impl Availability {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Pause => "pause",
            Self::Drain => "drain",
        }
    }
}

impl Role {
    fn as_str(self) -> &'static str {
        match self {
            Self::Worker => "worker",
            Self::Manager => "manager",
        }
    }
}

/// Reads a duration as docker writes them.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    types::parse_duration(text)
        .ok_or_else(|| "should be a duration such as 1m30s, 500ms or 2h".to_owned())
}

impl Settings {
    fn write(&self, spec: &mut Value) {
        let nanos = |time: Duration| i64::try_from(time.as_nanos()).unwrap_or(i64::MAX);
        if let Some(time) = self.dispatcher_heartbeat {
            spec["Dispatcher"]["HeartbeatPeriod"] = nanos(time).into();
        }
        if let Some(limit) = self.task_history_limit {
            spec["Orchestration"]["TaskHistoryRetentionLimit"] = limit.into();
        }
        if let Some(time) = self.cert_expiry {
            spec["CAConfig"]["NodeCertExpiry"] = nanos(time).into();
        }
        if let Some(interval) = self.snapshot_interval {
            spec["Raft"]["SnapshotInterval"] = interval.into();
        }
        if let Some(count) = self.max_snapshots {
            spec["Raft"]["KeepOldSnapshots"] = count.into();
        }
        if !self.external_cas.is_empty() {
            spec["CAConfig"]["ExternalCAs"] = self.external_cas.clone().into();
        }
    }
}

pub(crate) async fn run(client: &Client, verb: Verb) -> Result<()> {
    match verb {
        Verb::Init(verb) => init(client, verb).await,
        Verb::Join(verb) => join(client, verb).await,
        Verb::Leave(verb) => {
            client.order(&format!("/swarm/leave?force={}", verb.force), &Value::Null).await?;
            say("Node left the swarm.");
            Ok(())
        }
        Verb::Ca(verb) => ca::run(client, &verb).await,
        Verb::Backup(verb) => backup::save(client, &verb).await,
        Verb::Restore(verb) => backup::restore(client, &verb).await,
        Verb::Unlock(_) => lock::unlock(client).await,
        Verb::UnlockKey(verb) => lock::unlock_key(client, &verb).await,
        Verb::JoinToken(verb) => join_token(client, &verb).await,
        Verb::Update(verb) => {
            let swarm: Value = client.get("/swarm").await?;
            let mut spec = swarm["Spec"].clone();
            verb.settings.write(&mut spec);
            if let Some(autolock) = verb.autolock {
                spec["EncryptionConfig"]["AutoLockManagers"] = autolock.into();
            }
            let version = &swarm["Version"]["Index"];
            client.order(&format!("/swarm/update?version={version}"), &spec).await?;
            say("Swarm updated.");
            if verb.autolock == Some(true) { lock::tell_key(client).await } else { Ok(()) }
        }
    }
}

async fn init(client: &Client, verb: Init) -> Result<()> {
    let mut spec = json!({});
    verb.settings.write(&mut spec);
    spec["EncryptionConfig"]["AutoLockManagers"] = verb.autolock.into();
    let request = json!({
        "ListenAddr": verb.addresses.listen,
        "AdvertiseAddr": verb.addresses.advertise,
        "DataPathAddr": verb.addresses.data_path,
        "DataPathPort": verb.data_path_port,
        "DefaultAddrPool": verb.default_addr_pool,
        "SubnetSize": verb.default_addr_pool_mask_length,
        "ForceNewCluster": verb.force_new_cluster,
        "Availability": verb.availability.as_str(),
        "Spec": spec,
    });
    let node: String = client.post("/swarm/init", &request).await?;
    say(&format!("Swarm initialized: current node ({node}) is now a manager.\n"));
    say(&command(client, Role::Worker).await?);
    say(
        "To add a manager to this swarm, run 'skep swarm join-token manager' and follow the instructions.\n",
    );
    if verb.autolock { lock::tell_key(client).await } else { Ok(()) }
}

async fn join(client: &Client, verb: Join) -> Result<()> {
    let request = json!({
        "ListenAddr": verb.addresses.listen,
        "AdvertiseAddr": verb.addresses.advertise,
        "DataPathAddr": verb.addresses.data_path,
        "RemoteAddrs": [verb.remote],
        "JoinToken": verb.token,
        "Availability": verb.availability.as_str(),
    });
    client.order("/swarm/join", &request).await?;
    let info: Value = client.get("/info").await?;
    let manager = info["Swarm"]["ControlAvailable"] == true;
    let role = if manager { Role::Manager } else { Role::Worker };
    say(&format!("This node joined a swarm as a {}.", role.as_str()));
    Ok(())
}

async fn join_token(client: &Client, verb: &JoinToken) -> Result<()> {
    if verb.rotate {
        let swarm: Value = client.get("/swarm").await?;
        let which = match verb.role {
            Role::Worker => "rotateWorkerToken",
            Role::Manager => "rotateManagerToken",
        };
        let version = &swarm["Version"]["Index"];
        let path = format!("/swarm/update?version={version}&{which}=true");
        client.order(&path, &swarm["Spec"]).await?;
        if !verb.quiet {
            say(&format!("Successfully rotated {} join token.\n", verb.role.as_str()));
        }
    }
    if verb.quiet {
        let swarm: Value = client.get("/swarm").await?;
        say(token(&swarm, verb.role));
    } else {
        say(&command(client, verb.role).await?);
    }
    Ok(())
}

fn token(swarm: &Value, role: Role) -> &str {
    match role {
        Role::Worker => text(swarm, "/JoinTokens/Worker"),
        Role::Manager => text(swarm, "/JoinTokens/Manager"),
    }
}

/// What to type on a machine that is to join.
async fn command(client: &Client, role: Role) -> Result<String> {
    let swarm: Value = client.get("/swarm").await?;
    let node: Value = client.get("/nodes/self").await?;
    let address = text(&node, "/ManagerStatus/Addr");
    if address.is_empty() {
        bail!("this node is no manager");
    }
    let token = Some(token(&swarm, role)).filter(|token| !token.is_empty());
    let token = token.context("the cluster has no join token")?;
    Ok(format!(
        "To add a {} to this swarm, run the following command:\n\n    skep swarm join --token {token} {address}\n",
        role.as_str()
    ))
}
