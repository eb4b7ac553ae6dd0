//! The manager's own certificate.
//!
//! Its agent renews it in time, as every node's does. That takes a connection, which nobody makes
//! with a certificate that has expired, or that does not hold yet since the clock was ahead when it
//! was signed: a manager signs itself a new one then, as it has the root's key. Where an external CA has
//! it, that is asked.

use crate::clock::now;
use crate::signing::Signer;
use ca::Identity;
use raft::Sequencer;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use store::View;
use tokio_util::sync::CancellationToken;
use types::{Fault, Timestamp};

/// Between two looks.
const LOOK: Duration = Duration::from_mins(1);
/// What its agent did not renew by then, it does not renew.
const LEFT: Duration = Duration::from_mins(5);

/// Signs a new certificate where the present one is about to end, has ended, or does not hold yet.
pub(crate) async fn renew(
    view: &View,
    (identity, signer): (&Identity, &Signer),
    now: Timestamp,
) -> Result<(), Fault> {
    if identity.starts_at() <= now && now.after(LEFT) < identity.expires_at() {
        return Ok(());
    }
    let id = identity.node_id();
    let Some(node) = view.node(&id) else {
        return Err(Fault::not_found(format!("node {id} not found")));
    };
    let key = Identity::generate()?;
    let reply = signer.sign(view, key.csr(), (&id, node.role), now).await?;
    // A log that lags behind knows older roots: what others trust is not learned from it.
    identity.renew(key, &reply.certificate, &identity.roots())?;
    tracing::info!("this manager has signed itself a new certificate: the old one did not hold");
    Ok(())
}

/// Looks after the certificate until the token is cancelled.
pub(crate) async fn keep(
    sequencer: Sequencer,
    (identity, signer): (Arc<Identity>, Signer),
    token: CancellationToken,
) -> Result<(), Infallible> {
    loop {
        tokio::select! {
            () = token.cancelled() => return Ok(()),
            () = tokio::time::sleep(LOOK) => {}
        }
        if let Err(fault) = renew(&sequencer.view(), (&identity, &signer), now()).await {
            tracing::error!(%fault, "cannot renew this manager's certificate");
        }
    }
}
