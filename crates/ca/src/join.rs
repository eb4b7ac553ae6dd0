//! How a machine gets a certificate, and a new one before it ends.

use crate::{Error, Identity, JoinToken, connect, root_digest, tls};
use std::time::Duration;
use tonic::transport::Channel;
use types::{Availability, Fault, FaultKind};
use wire::{IssueReply, IssueRequest, fault_of, membership_client};

/// For the manager to answer.
const CALL_LIMIT: Duration = Duration::from_secs(20);

/// How often a join is tried, and what is waited in between.
const ATTEMPTS: u32 = 3;
const PAUSE: Duration = Duration::from_millis(200);

/// Asks the manager at `address` for a certificate, with a join token. The new node takes tasks as
/// `availability` says.
pub async fn join(
    address: &str,
    token: &str,
    availability: Availability,
) -> Result<Identity, Fault> {
    let token = JoinToken::parse(token)?;
    let mut attempts = ATTEMPTS;
    loop {
        attempts -= 1;
        match try_join(address, &token, availability).await {
            // Strangers who crowd the manager may have pushed this connection out.
            Err(fault) if fault.kind == FaultKind::Unavailable && attempts > 0 => {
                tokio::time::sleep(PAUSE).await;
            }
            done => return done,
        }
    }
}

async fn try_join(
    address: &str,
    token: &JoinToken,
    availability: Availability,
) -> Result<Identity, Fault> {
    let channel = connect(address, tls::bootstrap_client_config(token.digest())?).await?;
    let request = Identity::generate()?;
    let wish = IssueRequest { token: token.render(), csr: request.csr().to_owned(), availability };
    let reply = issue(channel, wish).await?;
    if root_digest(&reply.root)? != token.digest() {
        return Err(Error::Fingerprint { expected: token.digest().to_owned() }.into());
    }
    Ok(request.accept(&reply.certificate, &reply.root)?)
}

/// Asks a manager for a new certificate for `identity`, which takes it; it is not saved.
pub async fn renew(channel: Channel, identity: &Identity) -> Result<(), Fault> {
    let wish = IssueRequest { csr: identity.renewal()?, ..IssueRequest::default() };
    let reply = issue(channel, wish).await?;
    Ok(identity.renewed(&reply.certificate)?)
}

async fn issue(channel: Channel, wish: IssueRequest) -> Result<IssueReply, Fault> {
    let mut client = membership_client(channel);
    let call = client.issue(wish);
    let late = |_| Fault::unavailable("the manager did not answer in time: try again");
    let reply = tokio::time::timeout(CALL_LIMIT, call).await.map_err(late)?;
    Ok(reply.map_err(fault_of)?.into_inner())
}
