//! Which root of trust a user wants.

use ca::Authority;
use types::{Cluster, ClusterSpec, Fault, RootCa, RootRotation, Timestamp};

/// The cluster's root, and what takes its place.
pub(crate) type Roots = (RootCa, Option<RootRotation>);

/// What a cluster with this spec is to have; `None`: what it has. A root that the user gives counts
/// most, then that another one is asked for.
pub(crate) fn wanted(
    cluster: &Cluster,
    spec: &ClusterSpec,
    given: Option<&RootCa>,
    now: Timestamp,
) -> Result<Option<Roots>, Fault> {
    let Some(given) = given else {
        // Clients that do not know the number send none.
        if spec.force_rotate == 0 || spec.force_rotate == cluster.spec.force_rotate {
            return Ok(None);
        }
        return begin(cluster, Authority::create(now)?, now).map(Some);
    };
    if given.certificate.is_empty() {
        let text = "if a signing CA key is provided, the signing CA cert must also be provided";
        return Err(Fault::invalid(text));
    }
    let new = ca::given(&given.certificate, &given.key, now)?;
    if new.key.is_empty() {
        return Err(Fault::invalid(
            "there must be at least one valid, reachable external CA corresponding to the desired \
             CA certificate",
        ));
    }
    if new.certificate == cluster.root_ca.certificate {
        // What is under way is called off.
        return Ok(Some((new, None)));
    }
    if ca::issuer(&new.certificate)?.public_key == own_key(cluster)? {
        return Err(Fault::invalid("Cannot update to a cert with an identical key"));
    }
    begin(cluster, new, now).map(Some)
}

fn own_key(cluster: &Cluster) -> Result<Vec<u8>, Fault> {
    Ok(ca::issuer(&cluster.root_ca.certificate)?.public_key)
}

/// Takes the place of a rotation that is under way.
fn begin(cluster: &Cluster, new: RootCa, now: Timestamp) -> Result<Roots, Fault> {
    let rotation = ca::rotate(&cluster.root_ca, new, now)?;
    Ok((cluster.root_ca.clone(), Some(rotation)))
}
