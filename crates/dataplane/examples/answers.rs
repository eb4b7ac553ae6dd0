//! How many questions a container's name server answers in a second, against a bare UDP echo.
//!
//! `cargo run --release -p dataplane --features fake --example answers`

#![expect(clippy::print_stdout, clippy::disallowed_methods, reason = "a measurement for people")]

use anyhow::{Context, Result, ensure};
use dataplane::{Config, Identity, Names, News, Wanted, fake, start};
use discovery::{Endpoint, Knowledge, NetworkView, SandboxAttachment, ServiceView};
use scope::Scope;
use std::collections::BTreeSet;
use std::net::{Ipv4Addr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};
use types::Subnet;

const CLIENTS: usize = 8;
const FOR: Duration = Duration::from_secs(3);

#[tokio::main]
async fn main() -> Result<()> {
    let echo = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    let echo_port = echo.local_addr()?.port();
    thread::spawn(move || {
        let mut packet = [0; 512];
        while let Ok((len, from)) = echo.recv_from(&mut packet) {
            if echo.send_to(&packet[..len], from).is_err() {
                break;
            }
        }
    });
    let dir = tempfile::tempdir()?;
    let config = Config {
        dir: dir.path().join("dataplane"),
        netns_dir: dir.path().join("netns"),
        gateway_subnet: "172.30.0.0/16".parse()?,
    };
    let mut scope = Scope::new();
    let (kernel, namespaces) = (fake::Kernel::default(), fake::Namespaces::default());
    let resolv_conf = dir.path().join("resolv.conf");
    let names = Names::here(namespaces.clone(), &resolv_conf, &mut scope).await;
    let dataplane = start(config, kernel, namespaces, names, &mut scope).await?;
    let (node, address) = ("n1".into(), [192, 168, 0, 1].into());
    dataplane.identify(Some(Identity { node, address, data_path_port: 4789 })).await?;
    dataplane.learn(News::Whole(knowledge()?), 1).await?;
    let attachment = SandboxAttachment { network: "net".into(), addresses: [10, 0, 1, 9].into() };
    let sandbox = dataplane
        .attach("c1", Wanted { attachments: vec![attachment], ..Wanted::default() })
        .await?;

    for (what, port, name) in [
        ("udp echo", echo_port, "service77"),
        ("one address", sandbox.dns_port, "service77"),
        ("ten addresses", sandbox.dns_port, "tasks.service77"),
        ("unknown name", sandbox.dns_port, "nothing"),
    ] {
        let rate = tokio::task::spawn_blocking(move || measure(port, name)).await??;
        println!("{what:14} {rate:>9.0} answers/s");
    }
    scope.cancel();
    scope.join().await?;
    Ok(())
}

/// A hundred services with ten tasks each.
fn knowledge() -> Result<Knowledge> {
    let subnets = Subnet::new("10.0.0.0/16".parse()?).into_iter().collect();
    let mut view =
        NetworkView { name: "front".to_owned(), vni: 4097, subnets, ..NetworkView::default() };
    for service in 0..100_u8 {
        let name = format!("service{service}");
        let vips = [10, 0, 2, service].into();
        let shown = ServiceView { name: name.clone(), vips, ..ServiceView::default() };
        view.services.insert(name.as_str().into(), shown);
        for slot in 0..10_u8 {
            let task = format!("{name}t{slot}");
            let endpoint = Endpoint {
                addresses: [10, 0, 3 + slot, service].into(),
                node: "n2".into(),
                vtep: [192, 168, 0, 2].into(),
                service: name.as_str().into(),
                name: format!("{name}.{slot}.{task}"),
                aliases: BTreeSet::new(),
                serving: true,
            };
            view.endpoints.insert(task.into(), endpoint);
        }
    }
    let mut known = Knowledge::default();
    known.networks.insert("net".into(), view);
    Ok(known)
}

/// Each client asks again as soon as it has its answer.
fn measure(port: u16, name: &'static str) -> Result<f64> {
    let began = Instant::now();
    let clients: Vec<_> =
        (0..CLIENTS).map(|_| thread::spawn(move || client(port, name, began + FOR))).collect();
    let mut answers = 0_u32;
    for client in clients {
        answers += client.join().ok().context("a client panicked")??;
    }
    Ok(f64::from(answers) / began.elapsed().as_secs_f64())
}

fn client(port: u16, name: &str, until: Instant) -> Result<u32> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket.connect((Ipv4Addr::LOCALHOST, port))?;
    socket.set_read_timeout(Some(Duration::from_secs(2)))?;
    let mut packet = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        packet.push(u8::try_from(label.len())?);
        packet.extend_from_slice(label.as_bytes());
    }
    packet.extend_from_slice(&[0, 0, 1, 0, 1]);
    let mut reply = [0; 512];
    let mut answers = 0;
    while Instant::now() < until {
        socket.send(&packet)?;
        let len = socket.recv(&mut reply)?;
        ensure!(len >= packet.len() && reply[..2] == packet[..2], "a wrong answer");
        answers += 1;
    }
    Ok(answers)
}
