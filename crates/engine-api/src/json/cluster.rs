//! The cluster: `SwarmSpec`, `GET /swarm` and the cluster part of `GET /info`.

use super::task_template::LogDriverJson;
use super::{duration, nanos, with_meta};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use types::{Cluster, ClusterSpec, ExternalCa, Fault, Issuer, Labels, LogDriver, RootCa};

#[derive(Debug, Default, Deserialize)]
#[serde(rename = "SwarmSpec", rename_all = "PascalCase", default)]
pub(crate) struct ClusterSpecJson {
    name: String,
    labels: Labels,
    orchestration: OrchestrationJson,
    raft: RaftJson,
    dispatcher: DispatcherJson,
    #[serde(rename = "CAConfig")]
    ca: CaJson,
    encryption_config: EncryptionJson,
    task_defaults: TaskDefaultsJson,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename = "OrchestrationConfig", rename_all = "PascalCase", default)]
struct OrchestrationJson {
    task_history_retention_limit: Option<i64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename = "RaftConfig", rename_all = "PascalCase", default)]
struct RaftJson {
    snapshot_interval: u64,
    keep_old_snapshots: Option<u64>,
    log_entries_for_slow_followers: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename = "DispatcherConfig", rename_all = "PascalCase", default)]
struct DispatcherJson {
    heartbeat_period: i64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename = "CAConfig", rename_all = "PascalCase", default)]
struct CaJson {
    node_cert_expiry: i64,
    force_rotate: u64,
    #[serde(rename = "SigningCACert")]
    signing_cert: String,
    #[serde(rename = "SigningCAKey")]
    signing_key: String,
    #[serde(rename = "ExternalCAs")]
    external: Vec<ExternalCaJson>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(rename = "ExternalCA", rename_all = "PascalCase", default)]
struct ExternalCaJson {
    protocol: String,
    #[serde(rename = "URL")]
    url: String,
    #[serde(rename = "CACert")]
    certificate: String,
}

/// The one protocol that there is, in Docker's words.
const CFSSL: &str = "cfssl";

impl ExternalCaJson {
    fn parse(self) -> Result<ExternalCa, Fault> {
        if !self.protocol.eq_ignore_ascii_case(CFSSL) {
            return Err(Fault::invalid(format!("invalid protocol: {:?}", self.protocol)));
        }
        Ok(ExternalCa { url: self.url, certificate: self.certificate })
    }

    fn render(external: &ExternalCa) -> Self {
        let ExternalCa { url, certificate } = external.clone();
        Self { protocol: CFSSL.to_owned(), url, certificate }
    }
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(rename = "TaskDefaults", rename_all = "PascalCase", default)]
struct TaskDefaultsJson {
    #[serde(skip_serializing_if = "Option::is_none")]
    log_driver: Option<LogDriverJson>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename = "EncryptionConfig", rename_all = "PascalCase", default)]
struct EncryptionJson {
    auto_lock_managers: bool,
}

impl ClusterSpecJson {
    /// Reads a spec, and the root that the user gives. It is the whole spec, as with Docker: what is
    /// zero, empty or missing is as Docker has it by default.
    pub(crate) fn parse(self) -> Result<(ClusterSpec, Option<RootCa>), Fault> {
        let normal = ClusterSpec::default();
        let or = |nanos: i64, usual, reason: &str| match nanos {
            0 => Ok(usual),
            1.. => Ok(duration(nanos)),
            _ => Err(Fault::invalid(format!("{reason}: {nanos}"))),
        };
        let history = match self.orchestration.task_history_retention_limit {
            Some(limit) => u64::try_from(limit).map_err(|_negative| {
                Fault::invalid(format!("the task history limit must not be negative: {limit}"))
            })?,
            None => normal.task_history_limit,
        };
        // One without a name and options says nothing.
        let log_driver = (self.task_defaults.log_driver.map(LogDriverJson::parse).transpose()?)
            .filter(|log| *log != LogDriver::default());
        let root = RootCa { certificate: self.ca.signing_cert, key: self.ca.signing_key };
        let external = self.ca.external.into_iter().map(ExternalCaJson::parse);
        let spec = ClusterSpec {
            name: if self.name.is_empty() { normal.name } else { self.name },
            labels: self.labels,
            task_history_limit: history,
            heartbeat: or(
                self.dispatcher.heartbeat_period,
                normal.heartbeat,
                "heartbeat time period cannot be a negative duration",
            )?,
            certificate_validity: or(
                self.ca.node_cert_expiry,
                normal.certificate_validity,
                "minimum certificate expiry time is: 1h0m0s",
            )?,
            snapshot_interval: match self.raft.snapshot_interval {
                0 => normal.snapshot_interval,
                interval => interval,
            },
            kept_snapshots: self.raft.keep_old_snapshots.unwrap_or_default(),
            kept_entries: match self.raft.log_entries_for_slow_followers {
                0 => normal.kept_entries,
                entries => entries,
            },
            log_driver,
            autolock: self.encryption_config.auto_lock_managers,
            force_rotate: self.ca.force_rotate,
            external_cas: external.collect::<Result<_, Fault>>()?,
        };
        Ok((spec, Some(root).filter(|root| *root != RootCa::default())))
    }
}

fn render_spec(spec: &ClusterSpec) -> Value {
    let log_driver = spec.log_driver.clone().map(LogDriverJson::render);
    let mut ca = json!({
        "NodeCertExpiry": nanos(spec.certificate_validity),
        "ForceRotate": spec.force_rotate,
    });
    if !spec.external_cas.is_empty() {
        let external: Vec<_> = spec.external_cas.iter().map(ExternalCaJson::render).collect();
        ca["ExternalCAs"] = json!(external);
    }
    json!({
        "Name": spec.name,
        "Labels": spec.labels,
        "Orchestration": { "TaskHistoryRetentionLimit": spec.task_history_limit },
        "Raft": {
            "SnapshotInterval": spec.snapshot_interval,
            "KeepOldSnapshots": spec.kept_snapshots,
            "LogEntriesForSlowFollowers": spec.kept_entries,
            "ElectionTick": 10,
            "HeartbeatTick": 1,
        },
        "Dispatcher": { "HeartbeatPeriod": nanos(spec.heartbeat) },
        "CAConfig": ca,
        "TaskDefaults": TaskDefaultsJson { log_driver },
        "EncryptionConfig": { "AutoLockManagers": spec.autolock },
    })
}

/// The root that is trusted, and who signs certificates: Docker's clients compare what the cluster
/// has with what a node says. A node trusts more than one root in a rotation; the first is the
/// cluster's.
pub(crate) fn tls_info(roots: &str, issuer: &Issuer) -> Value {
    let end = "-----END CERTIFICATE-----\n";
    let first = roots.split_inclusive(end).next().unwrap_or_default();
    json!({
        "TrustRoot": first,
        "CertIssuerSubject": STANDARD.encode(&issuer.subject),
        "CertIssuerPublicKey": STANDARD.encode(&issuer.public_key),
    })
}

/// Renders what `GET /info` shows of the cluster.
pub(crate) fn render_info(cluster: &Cluster) -> Value {
    with_meta(
        json!({
            "ID": cluster.id,
            "Spec": render_spec(&cluster.spec),
            "TLSInfo": tls_info(
                &cluster.root_ca.certificate,
                &ca::issuer(cluster.wanted_root()).unwrap_or_default(),
            ),
            "RootRotationInProgress": cluster.root_rotation.is_some(),
            "DataPathPort": cluster.data_path_port,
            "DefaultAddrPool": cluster.address_pools,
            "SubnetSize": cluster.subnet_prefix,
        }),
        &cluster.meta,
    )
}

/// Renders `GET /swarm`, which has the join tokens too.
pub(crate) fn render(cluster: &Cluster) -> Value {
    let mut object = render_info(cluster);
    object["JoinTokens"] =
        json!({ "Worker": cluster.tokens.worker, "Manager": cluster.tokens.manager });
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spec_is_whole_and_nothing_in_it_is_negative() {
        let parse = |text: &str| {
            let read = crate::request::read::<ClusterSpecJson>(text.as_bytes())?;
            Ok::<_, Fault>(read.value.parse()?.0)
        };
        assert_eq!(parse("{}").unwrap(), ClusterSpec::default());
        let text = r#"{"Raft":{"SnapshotInterval":5},"TaskDefaults":{"LogDriver":{}}}"#;
        let changed = ClusterSpec { snapshot_interval: 5, ..ClusterSpec::default() };
        assert_eq!(parse(text).unwrap(), changed);
        for (text, reason) in [
            (
                r#"{"Dispatcher":{"HeartbeatPeriod":-1}}"#,
                "heartbeat time period cannot be a negative duration: -1",
            ),
            (
                r#"{"CAConfig":{"NodeCertExpiry":-1}}"#,
                "minimum certificate expiry time is: 1h0m0s: -1",
            ),
            (r#"{"CAConfig":{"ExternalCAs":[{"Protocol":"acme"}]}}"#, "invalid protocol: \"acme\""),
        ] {
            assert_eq!(parse(text).unwrap_err(), Fault::invalid(reason));
        }
    }
}
