//! `skep version` and `skep info`.

use super::query::{list, number, text};
use super::show::Pretty;
use super::{Host, human, print, show};
use anyhow::Result;
use clap::Args;
use serde_json::{Value, json};

#[derive(Args, Debug)]
pub(crate) struct Version {
    /// Write it by a template, or as `json`
    #[arg(short, long, value_name = "TEMPLATE")]
    format: Option<String>,
    #[command(flatten)]
    host: Host,
}

#[derive(Args, Debug)]
pub(crate) struct Info {
    /// Write it by a template, or as `json`
    #[arg(short, long, value_name = "TEMPLATE")]
    format: Option<String>,
    #[command(flatten)]
    host: Host,
}

impl Version {
    pub(crate) async fn run(self) -> Result<()> {
        let own = json!({
            "Version": env!("CARGO_PKG_VERSION"),
            "Os": std::env::consts::OS,
            "Arch": std::env::consts::ARCH,
        });
        let server: Result<Value> = self.host.client()?.get("/version").await;
        let (server, error) = match server {
            Ok(server) => (server, None),
            Err(error) => (Value::Null, Some(error)),
        };
        if self.format.is_some() {
            show::write(&[json!({ "Client": own, "Server": server })], self.format.as_deref())?;
        } else {
            let mut out = Pretty::default();
            out.head("Client: Skep");
            out.inner("Version", text(&own, "/Version"));
            out.inner("OS/Arch", &format!("{}/{}", text(&own, "/Os"), text(&own, "/Arch")));
            if error.is_none() {
                out.head(&format!("\nServer: {}", text(&server, "/Platform/Name")));
                out.inner("Version", text(&server, "/Version"));
                let api = text(&server, "/ApiVersion");
                let oldest = text(&server, "/MinAPIVersion");
                out.inner("API version", &format!("{api} (minimum version {oldest})"));
                out.inner(
                    "OS/Arch",
                    &format!("{}/{}", text(&server, "/Os"), text(&server, "/Arch")),
                );
                out.inner("Kernel", text(&server, "/KernelVersion"));
            }
            print(&out.finish());
        }
        error.map_or(Ok(()), Err)
    }
}

impl Info {
    pub(crate) async fn run(self) -> Result<()> {
        let info: Value = self.host.client()?.get("/info").await?;
        if self.format.is_some() {
            return show::write(&[info], self.format.as_deref());
        }
        print(&pretty(&info));
        Ok(())
    }
}

fn pretty(info: &Value) -> String {
    let mut out = Pretty::default();
    out.line("Name", text(info, "/Name"));
    out.line("Server Version", text(info, "/ServerVersion"));
    out.line("Containers", &number(info, "/Containers").to_string());
    out.inner("Running", &number(info, "/ContainersRunning").to_string());
    out.inner("Stopped", &number(info, "/ContainersStopped").to_string());
    out.line("Images", &number(info, "/Images").to_string());
    out.line("Storage Driver", text(info, "/Driver"));
    out.line("Logging Driver", text(info, "/LoggingDriver"));
    out.line("Cgroup Version", text(info, "/CgroupVersion"));
    swarm(&mut out, &info["Swarm"]);
    out.line("Kernel Version", text(info, "/KernelVersion"));
    out.line("Operating System", text(info, "/OperatingSystem"));
    out.line("Architecture", text(info, "/Architecture"));
    out.line("CPUs", &number(info, "/NCPU").to_string());
    out.line("Total Memory", &human::memory(number(info, "/MemTotal")));
    out.line("Root Dir", text(info, "/DockerRootDir"));
    out.finish()
}

fn swarm(out: &mut Pretty, swarm: &Value) {
    let state = text(swarm, "/LocalNodeState");
    out.line("Swarm", state);
    out.inner_some("Error", text(swarm, "/Error"));
    if state != "active" {
        return;
    }
    out.inner("NodeID", text(swarm, "/NodeID"));
    let manager = swarm["ControlAvailable"] == true;
    out.inner("Is Manager", if manager { "true" } else { "false" });
    if manager {
        out.inner("ClusterID", text(swarm, "/Cluster/ID"));
        out.inner("Managers", &number(swarm, "/Managers").to_string());
        out.inner("Nodes", &number(swarm, "/Nodes").to_string());
        let pools: Vec<&str> = list(swarm, "/Cluster/DefaultAddrPool")
            .iter()
            .map(|pool| pool.as_str().unwrap_or_default())
            .collect();
        out.inner("Default Address Pool", &pools.join(" "));
        out.inner("SubnetSize", &number(swarm, "/Cluster/SubnetSize").to_string());
        out.inner("Data Path Port", &number(swarm, "/Cluster/DataPathPort").to_string());
    }
    out.inner("Node Address", text(swarm, "/NodeAddr"));
    let managers: Vec<&str> =
        list(swarm, "/RemoteManagers").iter().map(|manager| text(manager, "/Addr")).collect();
    out.inner("Manager Addresses", &managers.join(" "));
}
