//! Namespaces as the data plane uses them, and what a machine needs.

use crate::support::wait;
use dataplane::{Namespaces as _, Sockets as _};
use linux::Namespaces;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream, UdpSocket};
use std::time::Duration;

const LOCALHOST: SocketAddr = at(0);

#[test]
fn a_namespace_is_made_found_and_removed_and_each_twice() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deeper/ns");
    assert!(!wait(Namespaces.exists(&path)));
    for _ in 0..2 {
        wait(Namespaces.create(&path)).unwrap();
        assert!(wait(Namespaces.exists(&path)));
    }
    let setting = |name: &str| {
        let path = format!("/proc/sys/net/ipv4/{name}");
        linux::run_in(folder.path().join("deeper/ns").as_path(), || {
            std::fs::read_to_string(path).unwrap().trim().to_owned()
        })
        .unwrap()
    };
    assert_eq!(setting("tcp_timestamps"), "2");
    assert_eq!(setting("ip_unprivileged_port_start"), "0");
    assert_eq!(setting("ping_group_range"), "0\t2147483647");
    for _ in 0..2 {
        wait(Namespaces.remove(&path)).unwrap();
        assert!(!wait(Namespaces.exists(&path)));
    }
    // After a reboot, the file alone is left.
    std::fs::write(&path, "").unwrap();
    assert!(!wait(Namespaces.exists(&path)));
    wait(Namespaces.create(&path)).unwrap();
    assert!(wait(Namespaces.exists(&path)));
    wait(Namespaces.remove(&path)).unwrap();
    assert!(!path.exists());
}

#[test]
fn sockets_live_in_the_namespace_that_they_were_bound_in() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ns");
    wait(Namespaces.create(&path)).unwrap();
    let udp = wait(Namespaces.bind_udp(&path, LOCALHOST)).unwrap();
    let tcp = wait(Namespaces.bind_tcp(&path, LOCALHOST)).unwrap();
    assert_eq!(tcp.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
    let (to_udp, to_tcp) = (udp.local_addr().unwrap(), tcp.local_addr().unwrap());
    linux::run_in(&path, || {
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.send_to(b"hello", to_udp).unwrap();
        TcpStream::connect(to_tcp).unwrap().write_all(b"hello").unwrap();
    })
    .unwrap();
    let mut buffer = [0; 10];
    udp.set_nonblocking(false).unwrap();
    udp.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
    assert_eq!(udp.recv(&mut buffer).unwrap(), 5);
    tcp.set_nonblocking(false).unwrap();
    assert_eq!(tcp.accept().unwrap().0.read(&mut buffer).unwrap(), 5);
    let taken = wait(Namespaces.bind_udp(&path, at(to_udp.port()))).unwrap_err();
    assert_eq!(taken.kind(), ErrorKind::AddrInUse);
    wait(Namespaces.remove(&path)).unwrap();
    let missing = wait(Namespaces.bind_udp(&path, LOCALHOST)).unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
}

const fn at(port: u16) -> SocketAddr {
    SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, 11), port))
}

#[test]
fn this_machine_has_what_a_node_needs_and_looking_leaves_nothing() {
    let before = std::fs::read_to_string("/proc/mounts").unwrap();
    for need in linux::check() {
        assert!(need.present, "{}: {} ({})", need.name, need.found, need.remedy);
    }
    assert_eq!(std::fs::read_to_string("/proc/mounts").unwrap(), before);
}
