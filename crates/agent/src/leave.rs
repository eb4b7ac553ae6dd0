//! The last calls of a node.

use crate::leaving::ANSWER_MAX;
use ca::Identity;
use std::sync::Arc;
use types::Fault;
use wire::{LeaveRequest, fault_of, membership_client};

/// Tells one of the managers that this node leaves: that its tasks go first, or for good.
pub(crate) async fn leave(
    identity: &Identity,
    managers: &[String],
    tasks_first: bool,
) -> Result<(), Fault> {
    let config = ca::tls::client_config(identity)?;
    let mut last = Fault::unavailable("no manager is known");
    for address in managers {
        let call = async {
            let channel = ca::connect(address, Arc::clone(&config)).await?;
            membership_client(channel).leave(LeaveRequest { tasks_first }).await.map_err(fault_of)
        };
        match tokio::time::timeout(ANSWER_MAX, call).await {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(fault)) => last = fault,
            Err(_late) => {
                last = Fault::unavailable(format!("the manager {address} did not answer in time"));
            }
        }
    }
    Err(Fault::new(
        last.kind,
        format!("no manager could be told that this node leaves: {last}; remove it there by hand"),
    ))
}
