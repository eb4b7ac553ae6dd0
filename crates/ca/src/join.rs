//! How a machine gets a certificate, and a new one before it ends.

use crate::digest::digest;
use crate::text::certificates;
use crate::{Error, Identity, JoinToken, connect, tls};
use std::error::Error as _;
use std::time::Duration;
use tonic::transport::Channel;
use tonic::{Response, Status};
use types::{Availability, Fault, FaultKind};
use wire::{
    EnrollReply, EnrollRequest, IssueReply, IssueRequest, MembershipClient, NumberRequest, Release,
    RootRequest, fault_of, membership_client,
};

/// For the manager to answer.
const CALL_LIMIT: Duration = Duration::from_secs(20);

/// How often managers are tried, and what is waited in between.
const ATTEMPTS: u32 = 3;
const PAUSE: Duration = Duration::from_millis(200);

/// Why a manager gave no certificate.
enum Refusal {
    /// It was not reached, or the connection broke: strangers who crowd it may have pushed it out.
    Unheard(Fault),
    /// It has answered, or not in time: then it may yet do what it was asked for.
    Final(Fault),
}

/// Asks one of these managers for a certificate, with a join token. The new node takes tasks as
/// `availability` says. All attempts show the same key, of which managers make one node.
pub async fn join(
    managers: &[String],
    token: &str,
    availability: Availability,
) -> Result<Identity, Fault> {
    let token = JoinToken::parse(token)?;
    let key = Identity::generate()?;
    let (release, csr) = (Release::own(), key.csr().to_owned());
    let request = IssueRequest { release, token: token.render(), csr, availability };
    let reply = ask_one(managers, &token, &request).await?;
    if !knows(&reply.root, &token)? {
        return Err(Error::Fingerprint { expected: token.digest().to_owned() }.into());
    }
    Ok(key.accept(&reply.certificate, &reply.root)?)
}

/// Says whether one of these roots (PEM) is the token's.
fn knows(roots: &str, token: &JoinToken) -> Result<bool, Error> {
    Ok(certificates(roots)?.iter().any(|root| digest(root) == token.digest()))
}

async fn ask_one(
    managers: &[String],
    token: &JoinToken,
    request: &IssueRequest,
) -> Result<IssueReply, Fault> {
    let mut last = Fault::invalid("at least one remote manager is needed");
    for attempt in 0..ATTEMPTS {
        if attempt > 0 {
            tokio::time::sleep(PAUSE).await;
        }
        let mut may_answer = false;
        for address in managers {
            match ask(address, token, request.clone()).await {
                Ok(reply) => return Ok(reply),
                Err(Refusal::Final(fault)) => return Err(fault),
                Err(Refusal::Unheard(fault)) => last = fault,
            }
            may_answer |= last.kind == FaultKind::Unavailable;
        }
        if !may_answer {
            break;
        }
    }
    Err(last)
}

async fn ask(
    address: &str,
    token: &JoinToken,
    request: IssueRequest,
) -> Result<IssueReply, Refusal> {
    let config = tls::bootstrap_client_config(token.digest());
    let config = config.map_err(|error| Refusal::Final(error.into()))?;
    let channel = connect(address, config).await.map_err(Refusal::Unheard)?;
    // Before it makes a node of this machine.
    let mut client = membership_client(channel.clone());
    let root = call(client.root(RootRequest { release: Release::own() })).await?;
    Release::own().check_manager(&root.release).map_err(Refusal::Final)?;
    issue(channel, request).await
}

/// Asks a manager for a certificate for a new key for `identity`, which takes both; they are not
/// saved.
pub async fn renew(channel: Channel, identity: &Identity) -> Result<(), Fault> {
    let key = Identity::generate()?;
    let (release, csr) = (Release::own(), key.csr().to_owned());
    let request = IssueRequest { release, csr, ..IssueRequest::default() };
    let reply = issue(channel, request).await.map_err(|refusal| match refusal {
        Refusal::Unheard(fault) | Refusal::Final(fault) => fault,
    })?;
    Ok(identity.renew(key, &reply.certificate, &reply.root)?)
}

/// Asks the manager that leads for this node's part in the cluster's log, where others will reach it at
/// `address`; returns its number there. Each of these managers is asked until one leads.
pub async fn enroll(managers: &[String], identity: &Identity, address: &str) -> Result<u64, Fault> {
    let request = EnrollRequest { release: Release::own(), address: address.to_owned() };
    let enroll = |mut client: MembershipClient<Channel>| {
        let request = request.clone();
        async move { client.enroll(request).await }
    };
    ask_the_leader(managers, identity, enroll).await
}

/// Asks the manager that leads which number in the cluster's log is this node's, which has `raft_id` and
/// is reached at `address`; 0: it has none any more. A leader of an earlier release does not say.
pub async fn number(
    managers: &[String],
    identity: &Identity,
    (raft_id, address): (u64, &str),
) -> Result<u64, Fault> {
    let (release, address) = (Release::own(), address.to_owned());
    let request = NumberRequest { release, raft_id, address };
    let number = |mut client: MembershipClient<Channel>| {
        let request = request.clone();
        async move { client.number(request).await }
    };
    ask_the_leader(managers, identity, number).await
}

async fn ask_the_leader<F>(
    managers: &[String],
    identity: &Identity,
    ask: impl Fn(MembershipClient<Channel>) -> F,
) -> Result<u64, Fault>
where
    F: Future<Output = Result<Response<EnrollReply>, Status>>,
{
    let mut last = Fault::unavailable("no manager is known");
    for manager in managers {
        let config = tls::client_config(identity)?;
        let attempt = async {
            let channel = connect(manager, config).await.map_err(Refusal::Unheard)?;
            call(ask(membership_client(channel))).await
        };
        match attempt.await {
            Ok(EnrollReply { raft_id, .. }) => return Ok(raft_id),
            Err(Refusal::Unheard(fault) | Refusal::Final(fault)) => last = fault,
        }
    }
    Err(last)
}

async fn issue(channel: Channel, request: IssueRequest) -> Result<IssueReply, Refusal> {
    let mut client = membership_client(channel);
    call(client.issue(request)).await
}

async fn call<T>(call: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, Refusal> {
    let late = |_| {
        let text = "the manager did not answer in time: try again";
        Refusal::Final(Fault::unavailable(text))
    };
    let reply = tokio::time::timeout(CALL_LIMIT, call).await.map_err(late)?;
    reply.map(Response::into_inner).map_err(|status| {
        // What has a cause of its own comes from the connection, not from the manager.
        let refusal = if status.source().is_some() { Refusal::Unheard } else { Refusal::Final };
        refusal(fault_of(status))
    })
}
