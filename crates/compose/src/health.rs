//! Health checks.

use crate::fields::Fields;
use crate::remark::Log;
use crate::scalar::{boolean, duration, integer, strings};
use crate::tree::{Node, Value};
use types::HealthCheck;

/// Reads `healthcheck`.
pub(crate) fn health(node: &Node, log: &mut Log) -> HealthCheck {
    let mut fields = Fields::of(node, log);
    let mut check = HealthCheck::default();
    let test_node = fields.take("test");
    if let Some(test_node) = test_node {
        check.test = test(test_node, log);
    }
    for (key, field) in [
        ("interval", &mut check.interval),
        ("timeout", &mut check.timeout),
        ("start_period", &mut check.start_period),
        ("start_interval", &mut check.start_interval),
    ] {
        if let Some(node) = fields.take(key) {
            *field = duration(node, log);
        }
    }
    if let Some(retries) = fields.take("retries") {
        check.retries = integer(retries, log);
    }
    if let Some(disable) = fields.take("disable")
        && boolean(disable, log)
    {
        if let Some(test_node) = test_node {
            log.error(test_node, "test and disable cannot both be set");
        }
        check = HealthCheck { test: vec!["NONE".into()], ..HealthCheck::default() };
    }
    fields.finish(log);
    check
}

fn test(node: &Node, log: &mut Log) -> Vec<String> {
    if let Value::Text(line) = &node.value {
        return vec!["CMD-SHELL".into(), line.clone()];
    }
    let test = strings(node, log);
    let known =
        test.first().is_none_or(|word| ["NONE", "CMD", "CMD-SHELL"].contains(&word.as_str()));
    if !known {
        log.error(node, "the first item should be one of NONE, CMD, CMD-SHELL");
    }
    test
}
