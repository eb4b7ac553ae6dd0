//! `skep service inspect --pretty`.

use crate::cli::human;
use crate::cli::query::{list, number, text};
use crate::cli::show::Pretty;
use serde_json::Value;
use std::time::Duration;

pub(super) fn service(service: &Value) -> String {
    let mut out = Pretty::default();
    out.line("ID", text(service, "/ID"));
    out.line("Name", text(service, "/Spec/Name"));
    out.labels("Labels", service.pointer("/Spec/Labels"));
    if service.pointer("/Spec/Mode/Global").is_some() {
        out.line("Service Mode", "Global");
    } else if service.pointer("/Spec/Mode/GlobalJob").is_some() {
        out.line("Service Mode", "Global job");
    } else if let Some(job) = service.pointer("/Spec/Mode/ReplicatedJob") {
        out.line("Service Mode", "Replicated job");
        out.inner("Max Concurrent", &number(job, "/MaxConcurrent").to_string());
        out.inner("Total Completions", &number(job, "/TotalCompletions").to_string());
    } else {
        out.line("Service Mode", "Replicated");
        out.inner("Replicas", &number(service, "/Spec/Mode/Replicated/Replicas").to_string());
    }
    if let Some(update) = service.get("UpdateStatus").filter(|update| update.is_object()) {
        out.head("UpdateStatus");
        out.inner("State", text(update, "/State"));
        let now = human::now();
        out.inner("Started", &human::ago(&update["StartedAt"], now).to_lowercase());
        if update["CompletedAt"].is_string() {
            out.inner("Completed", &human::ago(&update["CompletedAt"], now).to_lowercase());
        }
        out.inner("Message", text(update, "/Message"));
    }
    placement(&mut out, &service["Spec"]["TaskTemplate"]["Placement"]);
    for (head, verb) in [("UpdateConfig", "update"), ("RollbackConfig", "rollback")] {
        // Jobs have none.
        if service["Spec"][head].is_object() {
            config(&mut out, head, verb, &service["Spec"][head]);
        }
    }
    container(&mut out, &service["Spec"]["TaskTemplate"]["ContainerSpec"]);
    resources(&mut out, &service["Spec"]["TaskTemplate"]["Resources"]);
    let networks: Vec<&str> = list(service, "/Spec/TaskTemplate/Networks")
        .iter()
        .map(|network| text(network, "/Target"))
        .collect();
    out.some("Networks", &networks.join(" "));
    out.line("Endpoint Mode", text(service, "/Endpoint/Spec/Mode"));
    let ports = list(service, "/Endpoint/Ports");
    if !ports.is_empty() {
        out.head("Ports");
    }
    for port in ports {
        out.inner("PublishedPort", &number(port, "/PublishedPort").to_string());
        out.inner("  Protocol", text(port, "/Protocol"));
        out.inner("  TargetPort", &number(port, "/TargetPort").to_string());
        out.inner("  PublishMode", text(port, "/PublishMode"));
    }
    out.finish()
}

fn words(value: &Value, pointer: &str) -> String {
    let words: Vec<&str> =
        list(value, pointer).iter().map(|word| word.as_str().unwrap_or_default()).collect();
    words.join(" ")
}

fn placement(out: &mut Pretty, placement: &Value) {
    let most = number(placement, "/MaxReplicas");
    let constraints = words(placement, "/Constraints");
    if most == 0 && constraints.is_empty() {
        return;
    }
    out.head("Placement");
    out.inner_some("Constraints", &constraints);
    if most > 0 {
        out.inner("Max Replicas Per Node", &most.to_string());
    }
}

/// A duration of the API as Go writes it, e.g. `1m30s`.
fn duration(nanos: i64) -> String {
    as_go(Duration::from_nanos(u64::try_from(nanos).unwrap_or(0)))
}

/// A duration as Go writes it, to the millisecond.
pub(crate) fn as_go(time: Duration) -> String {
    let (seconds, millis) = (time.as_secs(), time.subsec_millis());
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let fraction = if millis > 0 { format!(".{millis:03}") } else { String::new() };
    match (hours, minutes) {
        (0, 0) if seconds == 0 && millis > 0 => format!("{millis}ms"),
        (0, 0) => format!("{seconds}{fraction}s"),
        (0, minutes) => format!("{minutes}m{seconds}{fraction}s"),
        (hours, minutes) => format!("{hours}h{minutes}m{seconds}{fraction}s"),
    }
}

fn config(out: &mut Pretty, head: &str, word: &str, config: &Value) {
    if !config.is_object() {
        return;
    }
    out.head(head);
    out.inner("Parallelism", &number(config, "/Parallelism").to_string());
    if number(config, "/Delay") > 0 {
        out.inner("Delay", &duration(number(config, "/Delay")));
    }
    out.inner("On failure", text(config, "/FailureAction"));
    out.inner("Monitoring Period", &duration(number(config, "/Monitor")));
    let ratio = config["MaxFailureRatio"].as_f64().unwrap_or(0.0);
    out.inner("Max failure ratio", &ratio.to_string());
    out.inner(&format!("{} order", human::title(word)), text(config, "/Order"));
}

fn container(out: &mut Pretty, spec: &Value) {
    out.head("ContainerSpec");
    out.inner("Image", text(spec, "/Image"));
    out.inner_some("Args", (words(spec, "/Command") + " " + &words(spec, "/Args")).trim());
    out.inner_some("Env", &words(spec, "/Env"));
    out.inner_some("Dir", text(spec, "/Dir"));
    out.inner_some("User", text(spec, "/User"));
    for mount in list(spec, "/Mounts") {
        let text = format!(
            "{} {} -> {}{}",
            text(mount, "/Type"),
            text(mount, "/Source"),
            text(mount, "/Target"),
            if mount["ReadOnly"] == true { " (read-only)" } else { "" }
        );
        out.inner("Mount", &text);
    }
    for (word, all) in [("Secret", "/Secrets"), ("Config", "/Configs")] {
        for file in list(spec, all) {
            let name = text(file, &format!("/{word}Name"));
            out.inner(word, &format!("{name} -> {}", text(file, "/File/Name")));
        }
    }
    if let Some(check) = spec.get("Healthcheck") {
        out.inner("Health check", &words(check, "/Test"));
    }
    if spec["StopGracePeriod"].is_number() {
        out.inner("Stop grace period", &duration(number(spec, "/StopGracePeriod")));
    }
}

fn resources(out: &mut Pretty, resources: &Value) {
    for (key, head) in [("Reservations", "Reservations"), ("Limits", "Limits")] {
        let Some(amounts) = resources.get(key).filter(|amounts| amounts.is_object()) else {
            continue;
        };
        out.head(head);
        #[expect(clippy::cast_precision_loss, reason = "few digits are shown")]
        let cpus = number(amounts, "/NanoCPUs") as f64 / 1e9;
        if cpus > 0.0 {
            out.inner("CPU", &cpus.to_string());
        }
        if number(amounts, "/MemoryBytes") > 0 {
            out.inner("Memory", &human::memory(number(amounts, "/MemoryBytes")));
        }
        if number(amounts, "/Pids") > 0 {
            out.inner("Pids", &number(amounts, "/Pids").to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;
    use serde_json::json;

    #[test]
    fn a_service_is_shown_for_people() {
        let mut spec = types::ServiceSpec { name: "web".into(), ..types::ServiceSpec::default() };
        spec.task.container.image = "nginx:latest".into();
        spec.task.container.args = vec!["sleep".into(), "1".into()];
        spec.task.resources.limit_memory = 50 << 20;
        spec.task.placement.constraints = vec!["node.role==worker".into()];
        spec.labels.insert("a".into(), "b".into());
        let json = json!({"ID": "x", "Spec": engine_api::render_service_spec(&spec),
            "Endpoint": {"Spec": {"Mode": "vip"}, "Ports": [
                {"PublishedPort": 80, "TargetPort": 8080, "Protocol": "tcp", "PublishMode": "ingress"}]}});
        expect![[r"
            ID:                 x
            Name:               web
            Labels:
             - a=b
            Service Mode:       Replicated
             Replicas:          1
            Placement:
             Constraints:       node.role==worker
            UpdateConfig:
             Parallelism:       1
             On failure:        pause
             Monitoring Period: 5s
             Max failure ratio: 0
             Update order:      stop-first
            RollbackConfig:
             Parallelism:       1
             On failure:        pause
             Monitoring Period: 5s
             Max failure ratio: 0
             Rollback order:    stop-first
            ContainerSpec:
             Image:             nginx:latest
             Args:              sleep 1
            Limits:
             Memory:            50MiB
            Endpoint Mode:      vip
            Ports:
             PublishedPort:     80
               Protocol:        tcp
               TargetPort:      8080
               PublishMode:     ingress
        "]]
        .assert_eq(&service(&json));
    }

    #[test]
    fn durations_are_written_as_go_does() {
        for (nanos, text) in [
            (0, "0s"),
            (90_000_000_000, "1m30s"),
            (500_000_000, "500ms"),
            (7_200_000_000_000, "2h0m0s"),
        ] {
            assert_eq!(duration(nanos), text);
        }
    }
}
