//! Which root of trust a user wants.
//!
//! What is asked for, [`wanted`] decides; where somebody else has a root's key, that is asked before
//! anything is written: a cluster whose certificates nobody signs would end with them.

use crate::signing::{CROSS_SIGNING, Signer};
use ca::Authority;
use types::{Cluster, ClusterSpec, Fault, RootCa, RootRotation, Timestamp};

/// The cluster's root, and what takes its place.
pub(crate) type Roots = (RootCa, Option<RootRotation>);

/// What a user wants of the cluster's root.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    AsItIs,
    Roots(Roots),
    /// This one in the place of the cluster's.
    Another(RootCa),
}

/// What a cluster with this spec is to have; `None`: what it has.
pub(crate) async fn change(
    cluster: &Cluster,
    spec: &ClusterSpec,
    given: Option<&RootCa>,
    (signer, now): (&Signer, Timestamp),
) -> Result<Option<Roots>, Fault> {
    let wanted = wanted(cluster, spec, given, now)?;
    let with = |(root_ca, root_rotation): Roots| Cluster {
        root_ca,
        root_rotation,
        spec: spec.clone(),
        ..cluster.clone()
    };
    let is_there = async |roots: Roots, which: &str| {
        let there = signer.check_external(&with(roots), now).await;
        there.map_err(|why| {
            Fault::invalid(format!(
                "there must be at least one valid, reachable external CA corresponding to the \
                 {which} CA certificate: {why}"
            ))
        })
    };
    let own = &cluster.root_ca;
    let gets_key = |wanted: &Wanted| {
        matches!(wanted, Wanted::Roots((root, None))
            if root.certificate == own.certificate && !root.key.is_empty())
    };
    if own.key.is_empty() && !gets_key(&wanted) {
        is_there((own.clone(), None), "current").await?;
    }
    let roots = match wanted {
        Wanted::AsItIs => {
            let next = &cluster.root_rotation;
            if next.as_ref().is_some_and(|next| next.key.is_empty()) {
                is_there((own.clone(), next.clone()), "next").await?;
            }
            return Ok(None);
        }
        Wanted::Roots(roots) => roots,
        Wanted::Another(new) => {
            let rotation = if !own.key.is_empty() {
                ca::rotate(own, new, now)?
            } else if new.key.is_empty() {
                return Err(Fault::invalid(
                    "rotating from one external CA to a different external CA is not supported",
                ));
            } else {
                let crossed = signer.cross_sign(&with((own.clone(), None)), &new).await?;
                ca::rotate_signed(own, new, &crossed, now).map_err(|error| {
                    Fault::internal(format!("{CROSS_SIGNING}: {}", types::chain(&error)))
                })?
            };
            (own.clone(), Some(rotation))
        }
    };
    if roots.1.as_ref().map_or(&roots.0.key, |next| &next.key).is_empty() {
        is_there(roots.clone(), "desired").await?;
    }
    Ok(Some(roots))
}

/// A root that the user gives counts most, then that another one is asked for.
pub(crate) fn wanted(
    cluster: &Cluster,
    spec: &ClusterSpec,
    given: Option<&RootCa>,
    now: Timestamp,
) -> Result<Wanted, Fault> {
    let Some(given) = given else {
        // Clients that do not know the number send none.
        if spec.force_rotate == 0 || spec.force_rotate == cluster.spec.force_rotate {
            return Ok(Wanted::AsItIs);
        }
        return Ok(Wanted::Another(Authority::create(now)?));
    };
    if given.certificate.is_empty() {
        let text = "if a signing CA key is provided, the signing CA cert must also be provided";
        return Err(Fault::invalid(text));
    }
    let new = ca::given(&given.certificate, &given.key, now)?;
    if new.certificate == cluster.root_ca.certificate {
        // What is under way is called off.
        return Ok(Wanted::Roots((new, None)));
    }
    if let Some(next) = &cluster.root_rotation
        && next.certificate == new.certificate
    {
        let next = RootRotation { key: new.key, ..next.clone() };
        return Ok(Wanted::Roots((cluster.root_ca.clone(), Some(next))));
    }
    if ca::issuer(&new.certificate)?.public_key == own_key(cluster)? {
        return Err(Fault::invalid("Cannot update to a cert with an identical key"));
    }
    Ok(Wanted::Another(new))
}

fn own_key(cluster: &Cluster) -> Result<Vec<u8>, Fault> {
    Ok(ca::issuer(&cluster.root_ca.certificate)?.public_key)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_800_000_000_000_000_000);

    fn root() -> RootCa {
        Authority::create(NOW).unwrap()
    }

    fn keyless(root: &RootCa) -> RootCa {
        RootCa { key: String::new(), ..root.clone() }
    }

    #[test]
    fn the_key_of_a_root_comes_and_goes_without_another_root() {
        let (root, next) = (root(), root());
        let mut cluster = Cluster { root_ca: root.clone(), ..Cluster::default() };
        let wants = |cluster: &Cluster, given: &RootCa| {
            wanted(cluster, &cluster.spec, Some(given), NOW).unwrap()
        };
        assert_eq!(wants(&cluster, &keyless(&root)), Wanted::Roots((keyless(&root), None)));
        assert_eq!(wants(&cluster, &keyless(&next)), Wanted::Another(keyless(&next)));
        let rotation = ca::rotate(&root, keyless(&next), NOW).unwrap();
        cluster.root_rotation = Some(rotation.clone());
        let with_key = RootRotation { key: next.key.clone(), ..rotation };
        assert_eq!(wants(&cluster, &next), Wanted::Roots((root.clone(), Some(with_key))));
        assert_eq!(wants(&cluster, &root), Wanted::Roots((root.clone(), None)));
        let as_it_is = wanted(&cluster, &cluster.spec, None, NOW).unwrap();
        assert_eq!(as_it_is, Wanted::AsItIs);
    }
}
