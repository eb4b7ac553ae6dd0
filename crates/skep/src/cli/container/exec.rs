//! `skep exec`: a command in a running container, with its streams and its exit code.

use crate::cli::Host;
use crate::cli::query::text;
use crate::cli::streams::{self, Frames};
use crate::client::{Client, escape};
use anyhow::{Context, Result, bail};
use bytes::Bytes;
use clap::Args;
use http_body_util::Full;
use hyper::upgrade::Upgraded;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use serde_json::{Value, json};
use std::io::{ErrorKind, IsTerminal};
use std::process::ExitCode;
use terminal_size::{Height, Width, terminal_size};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::signal::unix::{SignalKind, signal};

/// Bytes that are read at a time.
const CHUNK: usize = 32 << 10;

#[derive(Args, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of docker's")]
pub(crate) struct Exec {
    #[arg(value_name = "CONTAINER")]
    name: String,
    /// What to run, with its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
    /// Give it our standard input
    #[arg(short, long)]
    interactive: bool,
    /// Give it a terminal
    #[arg(short, long)]
    tty: bool,
    /// Return at once
    #[arg(short, long)]
    detach: bool,
    /// Set a variable
    #[arg(short, long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// Run as this user
    #[arg(short, long, value_name = "USER[:GROUP]", default_value = "", hide_default_value = true)]
    user: String,
    /// Run in this folder
    #[arg(short, long, value_name = "DIR", default_value = "", hide_default_value = true)]
    workdir: String,
    /// Give it every capability
    #[arg(long)]
    privileged: bool,
    #[command(flatten)]
    host: Host,
}

type Stream = TokioIo<Upgraded>;

impl Exec {
    pub(crate) async fn run(self) -> Result<ExitCode> {
        if self.tty && self.interactive && !std::io::stdin().is_terminal() {
            bail!("the input device is not a TTY");
        }
        let client = self.host.client()?;
        let request = json!({
            "AttachStdin": self.interactive,
            "AttachStdout": !self.detach,
            "AttachStderr": !self.detach,
            "Tty": self.tty,
            "Cmd": self.command,
            "Env": self.env,
            "User": self.user,
            "WorkingDir": self.workdir,
            "Privileged": self.privileged,
        });
        let path = format!("/containers/{}/exec", escape(&self.name));
        let created: Value = client.post(&path, &request).await?;
        let id = text(&created, "/Id").to_owned();
        let start = json!({ "Detach": self.detach, "Tty": self.tty });
        if self.detach {
            client.order(&format!("/exec/{id}/start"), &start).await?;
            return Ok(ExitCode::SUCCESS);
        }
        let stream = upgrade(&client, &id, &start).await?;
        // Dropped, it gives the terminal back.
        let raw = if self.tty { Raw::enter() } else { None };
        let carried = self.carry(&client, &id, stream).await;
        drop(raw);
        carried?;
        let ended: Value = client.get(&format!("/exec/{id}/json")).await?;
        let code = ended["ExitCode"].as_i64().unwrap_or(0);
        Ok(ExitCode::from(u8::try_from(code & 0xff).unwrap_or(1)))
    }

    /// Carries streams until the command has ended.
    async fn carry(&self, client: &Client, id: &str, stream: Stream) -> Result<()> {
        let (from, to) = tokio::io::split(stream);
        let input = async {
            if self.interactive {
                let _process_went = feed(to).await;
            } else {
                drop(to);
            }
            std::future::pending::<()>().await;
        };
        let resized = async {
            if self.tty {
                let _not_fatal = follow_size(client, id).await;
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            result = show(from, self.tty) => result,
            () = input => Ok(()),
            () = resized => Ok(()),
        }
    }
}

/// Starts the command and takes the connection over.
async fn upgrade(client: &Client, id: &str, start: &Value) -> Result<Stream> {
    let request = Request::builder()
        .method(Method::POST)
        .uri(format!("/exec/{id}/start"))
        .header("Host", "skep")
        .header("Content-Type", "application/json")
        .header("Connection", "Upgrade")
        .header("Upgrade", "tcp")
        .body(Full::new(Bytes::from(start.to_string())))?;
    let answer: Response<_> = client.request(request).await?;
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        bail!("the daemon did not upgrade the connection: {}", answer.status());
    }
    let stream = hyper::upgrade::on(answer).await.context("the connection was not upgraded")?;
    Ok(TokioIo::new(stream))
}

/// Sends our standard input, and its end.
async fn feed(mut to: WriteHalf<Stream>) -> Result<()> {
    let mut input = tokio::io::stdin();
    tokio::io::copy(&mut input, &mut to).await?;
    to.shutdown().await?;
    Ok(())
}

/// Shows what the command writes.
async fn show(mut from: ReadHalf<Stream>, tty: bool) -> Result<()> {
    let mut chunk = vec![0; CHUNK];
    let mut frames = Frames::default();
    loop {
        let length = match from.read(&mut chunk).await {
            // Input that the command did not read resets the connection when it ends.
            Err(error) if error.kind() == ErrorKind::ConnectionReset => 0,
            read => read?,
        };
        if length == 0 {
            return Ok(());
        }
        if tty {
            streams::emit(false, &chunk[..length])?;
            continue;
        }
        frames.push(&chunk[..length]);
        while let Some((stderr, piece)) = frames.next()? {
            streams::emit(stderr, &piece)?;
        }
    }
}

/// Tells the daemon the size of our terminal, now and when it changes.
async fn follow_size(client: &Client, id: &str) -> Result<()> {
    let mut changes = signal(SignalKind::window_change())?;
    loop {
        if let Some((Width(width), Height(height))) = terminal_size() {
            let path = format!("/exec/{id}/resize?h={height}&w={width}");
            client.order(&path, &Value::Null).await?;
        }
        if changes.recv().await.is_none() {
            return Ok(());
        }
    }
}

/// A terminal that hands every key on; dropped, it is as it was before.
struct Raw(Termios);

impl Raw {
    fn enter() -> Option<Self> {
        let input = std::io::stdin();
        let before = tcgetattr(&input).ok()?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(&input, SetArg::TCSANOW, &raw).ok()?;
        Some(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _terminal_went = tcsetattr(std::io::stdin(), SetArg::TCSANOW, &self.0);
    }
}
