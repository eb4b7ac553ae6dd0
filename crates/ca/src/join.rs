//! How a machine gets a certificate, and a new one before it ends.

use crate::{Error, Identity, JoinToken, connect, root_digest, tls};
use std::time::Duration;
use tonic::transport::Channel;
use tonic::{Response, Status};
use types::{Availability, Fault, FaultKind};
use wire::{IssueReply, IssueRequest, RootRequest, fault_of, membership_client};

/// For the manager to answer.
const CALL_LIMIT: Duration = Duration::from_secs(20);

/// How often managers are tried, and what is waited in between.
const ATTEMPTS: u32 = 3;
const PAUSE: Duration = Duration::from_millis(200);

/// Asks one of these managers for a certificate, with a join token. The new node takes tasks as
/// `availability` says.
///
/// A request that a manager has got makes a node, also where the answer does not come: there is
/// one, to the first manager that answers at all.
pub async fn join(
    managers: &[String],
    token: &str,
    availability: Availability,
) -> Result<Identity, Fault> {
    let token = JoinToken::parse(token)?;
    let channel = reach_one(managers, &token).await?;
    let request = Identity::generate()?;
    let wish = IssueRequest { token: token.render(), csr: request.csr().to_owned(), availability };
    let reply = issue(channel, wish).await?;
    if root_digest(&reply.root)? != token.digest() {
        return Err(Error::Fingerprint { expected: token.digest().to_owned() }.into());
    }
    Ok(request.accept(&reply.certificate, &reply.root)?)
}

/// Strangers who crowd a manager may push a connection out: all are tried again.
async fn reach_one(managers: &[String], token: &JoinToken) -> Result<Channel, Fault> {
    let mut last = Fault::invalid("at least one remote manager is needed");
    for attempt in 0..ATTEMPTS {
        if attempt > 0 {
            tokio::time::sleep(PAUSE).await;
        }
        let mut may_answer = false;
        for address in managers {
            match reach(address, token).await {
                Ok(channel) => return Ok(channel),
                Err(fault) => last = fault,
            }
            may_answer |= last.kind == FaultKind::Unavailable;
        }
        if !may_answer {
            break;
        }
    }
    Err(last)
}

/// Connects, up to a first answer: a TLS client is done before the server has let it in.
async fn reach(address: &str, token: &JoinToken) -> Result<Channel, Fault> {
    let channel = connect(address, tls::bootstrap_client_config(token.digest())?).await?;
    let mut client = membership_client(channel.clone());
    answered(client.root(RootRequest {})).await?;
    Ok(channel)
}

/// Asks a manager for a new certificate for `identity`, which takes it; it is not saved.
pub async fn renew(channel: Channel, identity: &Identity) -> Result<(), Fault> {
    let wish = IssueRequest { csr: identity.renewal()?, ..IssueRequest::default() };
    let reply = issue(channel, wish).await?;
    Ok(identity.renewed(&reply.certificate)?)
}

async fn issue(channel: Channel, wish: IssueRequest) -> Result<IssueReply, Fault> {
    answered(membership_client(channel).issue(wish)).await
}

async fn answered<T>(call: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, Fault> {
    let late = |_| Fault::unavailable("the manager did not answer in time: try again");
    let reply = tokio::time::timeout(CALL_LIMIT, call).await.map_err(late)?;
    Ok(reply.map_err(fault_of)?.into_inner())
}
