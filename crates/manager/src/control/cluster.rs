//! The cluster's settings, join tokens and root of trust.

use super::{check_version, root};
use crate::clock;
use crate::membership::cluster;
use crate::signing::Signer;
use ca::{JoinToken, UnlockKey};
use raft::Sequencer;
use std::time::Duration;
use store::{Tx, View};
use types::{Cluster, ClusterSpec, Fault, RootCa, SecretText, Version};
use wire::Rotate;

/// swarmkit's shortest life of a certificate.
const VALIDITY_MIN: Duration = Duration::from_hours(1);

/// For all that was decided before to be known here.
const NEWEST_MAX: Duration = Duration::from_secs(5);

pub(crate) async fn update(
    sequencer: &Sequencer,
    signer: &Signer,
    (version, mut spec): (Version, ClusterSpec),
    rotate: Rotate,
) -> Result<(), Fault> {
    check(&spec)?;
    // Others may have to be asked for certificates. The version says whether the cluster is still the same
    // then.
    let newest = sequencer.barrier(NEWEST_MAX).await?;
    sequencer.reach(newest, NEWEST_MAX).await?;
    let now = cluster(&sequencer.view())?;
    check_version(&now.meta, version)?;
    if spec.name != now.spec.name {
        return Err(Fault::invalid("modification of cluster name is not allowed"));
    }
    pin_external_cas(&mut spec, &now.root_ca)?;
    let by = (signer, clock::now());
    let roots = root::change(&now, &spec, rotate.root.as_ref(), by).await?;
    sequencer
        .sequence(move |view: &View, _| {
            let mut cluster = Cluster::clone(&*cluster(view)?);
            check_version(&cluster.meta, version)?;
            if let Some((root_ca, rotation)) = roots {
                (cluster.root_ca, cluster.root_rotation) = (root_ca, rotation);
            }
            let force_rotate = spec.force_rotate.max(cluster.spec.force_rotate);
            cluster.spec = ClusterSpec { force_rotate, ..spec };
            keep_unlock_key(&mut cluster, rotate.unlock_key);
            if rotate.worker {
                cluster.tokens.worker = JoinToken::draw(&cluster.root_ca)?.render();
            }
            if rotate.manager {
                cluster.tokens.manager = JoinToken::draw(&cluster.root_ca)?.render();
            }
            let mut tx = Tx::new(view);
            tx.put_cluster(cluster);
            Ok(tx.finish())
        })
        .await?;
    Ok(())
}

/// Checks who is to sign. Whoever does not say by which root signs by this one, and it stays so: after a
/// rotation nobody is asked to sign by a root that it does not have.
pub fn pin_external_cas(spec: &mut ClusterSpec, own: &RootCa) -> Result<(), Fault> {
    for external in &mut spec.external_cas {
        ca::check_url(&external.url)?;
        let given = &external.certificate;
        external.certificate = if given.is_empty() {
            own.certificate.clone()
        } else {
            ca::canonical(given).map_err(|error| {
                let why = types::chain(&error);
                Fault::invalid(format!("the CA certificate of {}: {why}", external.url))
            })?
        };
    }
    Ok(())
}

/// There is an unlock key while managers are to be locked, and then alone.
pub(crate) fn keep_unlock_key(cluster: &mut Cluster, rotate: bool) {
    if !cluster.spec.autolock {
        cluster.unlock_key = SecretText::default();
    } else if cluster.unlock_key.is_empty() || rotate {
        cluster.unlock_key = SecretText(UnlockKey::draw().render());
    }
}

fn check(spec: &ClusterSpec) -> Result<(), Fault> {
    if spec.certificate_validity < VALIDITY_MIN {
        return Err(Fault::invalid("minimum certificate expiry time is: 1h0m0s"));
    }
    if spec.heartbeat.is_zero() {
        return Err(Fault::invalid("heartbeat time period cannot be a negative duration or zero"));
    }
    if spec.snapshot_interval == 0 {
        return Err(Fault::invalid("the snapshot interval must be at least 1"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use types::ExternalCa;

    #[test]
    fn an_external_ca_signs_by_the_root_that_it_was_given_for() {
        let [own, other] = [0, 1].map(|_| ca::Authority::create(clock::now()).unwrap());
        let external = |url: &str, certificate: &str| ExternalCa {
            url: url.to_owned(),
            certificate: certificate.to_owned(),
        };
        let pinned = |given: ExternalCa| {
            let mut spec = ClusterSpec { external_cas: vec![given], ..ClusterSpec::default() };
            pin_external_cas(&mut spec, &own).map(|()| spec.external_cas.remove(0).certificate)
        };
        let url = "https://ca:8888/api/v1/cfssl/sign";
        assert_eq!(pinned(external(url, "")), Ok(own.certificate.clone()));
        let crlf = other.certificate.replace('\n', "\r\n");
        assert_eq!(pinned(external(url, &crlf)), Ok(other.certificate));
        for (url, root, why) in [
            ("http://ca", "", "invalid external CA URL \"http://ca\": it must begin with https://"),
            ("https://", "", "invalid external CA URL \"https://\": empty host"),
            (url, "x", "could not parse the desired CA certificate"),
        ] {
            let refused = pinned(external(url, root)).unwrap_err();
            assert_eq!(refused.kind, types::FaultKind::Invalid);
            assert!(refused.message.contains(why), "{refused}");
        }
    }

    #[test]
    fn there_is_an_unlock_key_while_managers_are_locked_and_it_changes_when_it_is_rotated() {
        let mut cluster = Cluster::default();
        keep_unlock_key(&mut cluster, true);
        assert!(cluster.unlock_key.is_empty(), "nothing is locked");
        cluster.spec.autolock = true;
        keep_unlock_key(&mut cluster, false);
        let first = cluster.unlock_key.clone();
        assert!(UnlockKey::parse(&first.0).is_some());
        keep_unlock_key(&mut cluster, false);
        assert_eq!(cluster.unlock_key, first);
        keep_unlock_key(&mut cluster, true);
        assert_ne!(cluster.unlock_key, first);
        cluster.spec.autolock = false;
        keep_unlock_key(&mut cluster, false);
        assert!(cluster.unlock_key.is_empty());
        assert!(!format!("{:?}", SecretText(first.0.clone())).contains(&first.0));
    }
}
