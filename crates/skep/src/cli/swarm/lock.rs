//! The key that unlocks managers.

use super::super::query::text;
use super::super::say;
use crate::client::Client;
use anyhow::{Context, Result, bail};
use clap::Args;
use nix::sys::termios::{LocalFlags, SetArg, tcgetattr, tcsetattr};
use serde_json::{Value, json};
use std::io::{IsTerminal, Write, stderr, stdin};

#[derive(Args, Debug)]
pub(crate) struct Unlock {}

#[derive(Args, Debug)]
pub(crate) struct UnlockKey {
    /// Show the key alone
    #[arg(short, long)]
    quiet: bool,
    /// Make a new key; the old one opens nothing any more
    #[arg(long)]
    rotate: bool,
}

pub(super) async fn unlock(client: &Client) -> Result<()> {
    let info: Value = client.get("/info").await?;
    match text(&info, "/Swarm/LocalNodeState") {
        "locked" => {}
        "inactive" => bail!("this node is not part of a swarm"),
        _ => bail!("swarm is not locked"),
    }
    let key = read_key()?;
    client.order("/swarm/unlock", &json!({ "UnlockKey": key })).await
}

pub(super) async fn unlock_key(client: &Client, verb: &UnlockKey) -> Result<()> {
    if verb.rotate {
        let swarm: Value = client.get("/swarm").await?;
        if swarm["Spec"]["EncryptionConfig"]["AutoLockManagers"] != true {
            bail!("cannot rotate because autolock is not turned on");
        }
        let version = &swarm["Version"]["Index"];
        let path = format!("/swarm/update?version={version}&rotateManagerUnlockKey=true");
        client.order(&path, &swarm["Spec"]).await?;
        if !verb.quiet {
            say("Successfully rotated manager unlock key.\n");
        }
    }
    if !verb.quiet {
        return tell_key(client).await;
    }
    say(&key(client).await?);
    Ok(())
}

/// Says the key and what it is for.
pub(super) async fn tell_key(client: &Client) -> Result<()> {
    say(&format!(
        "To unlock a swarm manager after it restarts, run the 'skep swarm unlock'\ncommand and \
         provide the following key:\n\n    {}\n\nRemember to store this key in a password manager, \
         since without it you\nwill not be able to restart the manager.",
        key(client).await?
    ));
    Ok(())
}

async fn key(client: &Client) -> Result<String> {
    let answer: Value = client.get("/swarm/unlockkey").await?;
    match text(&answer, "/UnlockKey") {
        "" => bail!("no unlock key is set"),
        key => Ok(key.to_owned()),
    }
}

/// Asks for the key; a terminal does not show it.
pub(super) fn read_key() -> Result<String> {
    let mut line = String::new();
    if !stdin().is_terminal() {
        stdin().read_line(&mut line).context("cannot read the key")?;
        return Ok(line.trim().to_owned());
    }
    let shown = tcgetattr(stdin())?;
    let mut hidden = shown.clone();
    hidden.local_flags.remove(LocalFlags::ECHO);
    write!(stderr(), "Enter unlock key: ")?;
    tcsetattr(stdin(), SetArg::TCSAFLUSH, &hidden)?;
    let read = stdin().read_line(&mut line);
    tcsetattr(stdin(), SetArg::TCSAFLUSH, &shown)?;
    writeln!(stderr())?;
    read.context("cannot read the key")?;
    Ok(line.trim().to_owned())
}
