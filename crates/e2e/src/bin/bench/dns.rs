//! DNS answers through 127.0.0.11 against a plain UDP echo in the same namespace.

use crate::{CONVERGE_MAX, Figure, in_turn, load, sandbox};
use e2e::Lab;
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A question for `bench-dns`: header, one question, type A, class IN.
fn question() -> Vec<u8> {
    let mut packet = vec![0x12, 0x34, 0x01, 0x00, 0, 1, 0, 0, 0, 0, 0, 0];
    packet.push(9);
    packet.extend_from_slice(b"bench-dns");
    packet.extend_from_slice(&[0, 0, 1, 0, 1]);
    packet
}

fn client(server: &str) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    socket.set_read_timeout(Some(Duration::from_secs(5))).expect("a limit");
    socket.connect(server).expect("loopback is there");
    socket
}

fn ask(socket: &UdpSocket, packet: &[u8]) {
    let mut answer = [0; 512];
    socket.send(packet).expect("the server listens");
    let length = socket.recv(&mut answer).expect("the server answers");
    assert!(length >= packet.len(), "a short answer");
}

pub(crate) fn run(lab: &Lab) -> Figure {
    lab.docker(&[
        "service",
        "create",
        "--detach",
        "--name",
        "bench-dns",
        "--network",
        "bench",
        "busybox:latest",
        "sleep",
        "1000000",
    ])
    .good();
    lab.converged("bench-dns", "1/1", CONVERGE_MAX);
    let (_, _, netns) = sandbox(lab, "bench-dns");
    let echo = linux::run_in(&netns, || UdpSocket::bind("127.0.0.1:0").expect("a socket"))
        .expect("the namespace is there");
    echo.set_read_timeout(Some(Duration::from_millis(100))).expect("a limit");
    let address = echo.local_addr().expect("it is bound").to_string();
    let stop = Arc::new(AtomicBool::new(false));
    let server = {
        let stop = Arc::clone(&stop);
        std::thread::spawn(move || {
            let mut packet = [0; 512];
            while !stop.load(Ordering::Relaxed) {
                if let Ok((length, from)) = echo.recv_from(&mut packet) {
                    echo.send_to(&packet[..length], from).expect("loopback is there");
                }
            }
        })
    };
    let question = question();
    let rate =
        |server: &str| load::rate(&netns, || client(server), |socket| ask(socket, &question));
    let (ours, peer) = in_turn(|| rate("127.0.0.11:53"), || rate(&address));
    stop.store(true, Ordering::Relaxed);
    server.join().expect("the echo ends");
    lab.docker(&["service", "rm", "bench-dns"]).good();
    Figure {
        name: "DNS answers by 127.0.0.11, UDP echo",
        ours: format!("{ours:.0}/s"),
        peer: format!("{peer:.0}/s"),
        ratio: ours / peer,
    }
}
