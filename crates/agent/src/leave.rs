//! The last calls of a node.

use crate::leaving::ANSWER_MAX;
use ca::Identity;
use std::sync::Arc;
use std::time::Duration;
use types::Fault;
use wire::{LeaveRequest, fault_of, membership_client};

/// Rounds through the managers while none of them leads, and the pause between two: longer than an
/// election takes.
const ROUNDS: u32 = 25;
const PAUSE: Duration = Duration::from_millis(200);

/// Tells one of the managers that this node leaves: that its tasks go first, or for good.
pub(crate) async fn leave(
    identity: &Identity,
    managers: &[String],
    tasks_first: bool,
) -> Result<(), Fault> {
    let config = ca::tls::client_config(identity)?;
    let mut last = Fault::unavailable("no manager is known");
    for round in 0..ROUNDS {
        if 0 < round {
            tokio::time::sleep(PAUSE).await;
        }
        let mut is_led = true;
        for address in managers {
            let call = async {
                let channel = ca::connect(address, Arc::clone(&config)).await?;
                membership_client(channel)
                    .leave(LeaveRequest { tasks_first })
                    .await
                    .map_err(fault_of)
            };
            match tokio::time::timeout(ANSWER_MAX, call).await {
                Ok(Ok(_)) => return Ok(()),
                Ok(Err(fault)) => {
                    is_led &= !fault.is_not_leading();
                    last = fault;
                }
                Err(_late) => {
                    last =
                        Fault::unavailable(format!("the manager {address} did not answer in time"));
                }
            }
        }
        if is_led {
            break;
        }
    }
    Err(Fault::new(
        last.kind,
        format!("no manager could be told that this node leaves: {last}; remove it there by hand"),
    ))
}
