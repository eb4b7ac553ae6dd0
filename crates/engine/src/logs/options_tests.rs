use super::*;
use types::Labels;

fn config(driver: &str, options: &[(&str, &str)]) -> LogConfig {
    let options = options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    LogConfig { driver: driver.to_owned(), options }
}

#[test]
fn options_of_the_driver_are_read_and_others_refused_by_name() {
    let limits = |driver, options: &[(&str, &str)]| {
        Options::parse(&config(driver, options)).unwrap().limits.unwrap()
    };
    assert_eq!(limits("", &[]), Limits { size: 10 * MIB, files: 3 });
    assert_eq!(limits("local", &[]), Limits { size: 20 * MIB, files: 5 });
    let small = [("max-size", "4k"), ("max-file", "2"), ("compress", "false")];
    assert_eq!(limits("json-file", &small), Limits { size: 4096, files: 2 });
    for (driver, name, value) in [
        ("json-file", "max-size", "much"),
        ("json-file", "max-size", "0"),
        ("json-file", "max-file", "0"),
        ("json-file", "max-fil", "1"),
        ("json-file", "compress", "true"),
        ("json-file", "labels-regex", "("),
        ("json-file", "mode", "fast"),
        ("json-file", "max-buffer-size", "1m"),
        ("json-file", "tag", "{{.Nope}}"),
        ("json-file", "syslog-address", "udp://1.2.3.4"),
        ("local", "tag", "x"),
    ] {
        let fault = config(driver, &[(name, value)]).check().unwrap_err();
        let named = fault.message.contains(name) || fault.message.contains(driver);
        let compress = name == "compress" && fault.message.contains("compressing");
        assert!(named || compress, "{driver} {name}={value}: {fault}");
    }
    config("none", &[("whatever", "1")]).check().unwrap();
}

/// In Docker's words, where it has any.
#[test]
fn what_is_wrong_with_options_of_remote_drivers_is_said_as_docker_says_it() {
    for (driver, name, value, text) in [
        ("syslog", "x", "", "unknown log opt 'x' for syslog log driver"),
        ("gelf", "x", "", "unknown log opt \"x\" for gelf log driver"),
        ("fluentd", "x", "", "unknown log opt 'x' for fluentd log driver"),
        ("journald", "x", "", "unknown log opt 'x' for journald log driver"),
        ("syslog", "max-size", "1m", "unknown log opt 'max-size' for syslog log driver"),
        ("syslog", "syslog-address", "1.2.3.4", "should be in form proto://address, got 1.2.3.4"),
        ("syslog", "syslog-address", "tls://a", "should be in form proto://address, got tls://a"),
        ("syslog", "syslog-facility", "local8", "invalid syslog facility"),
        ("syslog", "syslog-facility", "24", "invalid syslog facility"),
        ("syslog", "syslog-format", "rfc1", "Invalid syslog format"),
        ("syslog", "syslog-tls-cert", "/a", "syslog-tls-cert and syslog-tls-key go together"),
        ("gelf", "gelf-address", "", "gelf-address is a required parameter"),
        ("gelf", "gelf-address", "1.2.3.4", "should be in form proto://address, got 1.2.3.4"),
        ("gelf", "gelf-address", "unix:///a", "gelf: endpoint needs to be TCP or UDP"),
        ("gelf", "gelf-address", "udp://a", "please provide gelf-address as proto://host:port"),
        ("fluentd", "fluentd-address", "a:b", "invalid fluentd-address a:b"),
        ("fluentd", "fluentd-address", "udp://a", "invalid fluentd-address udp://a"),
        ("fluentd", "fluentd-async", "perhaps", "invalid value for fluentd-async: perhaps"),
        ("fluentd", "fluentd-buffer-limit", "0", "invalid value for fluentd-buffer-limit: 0"),
        ("fluentd", "fluentd-max-retries", "-1", "invalid value for fluentd-max-retries: -1"),
        ("fluentd", "fluentd-retry-wait", "long", "invalid value for fluentd-retry-wait: long"),
        ("fluentd", "fluentd-async-reconnect-interval", "1m", "must be between 100ms and 10s"),
        ("fluentd", "fluentd-write-timeout", "long", "invalid value for fluentd-write-timeout"),
        ("fluentd", "cache-disabled", "no", "invalid value for cache-disabled: no"),
        ("syslog", "cache-max-file", "0", "invalid value for cache-max-file: 0"),
        ("syslog", "mode", "fast", "logger: logging mode not supported: fast"),
        ("syslog", "max-buffer-size", "1m", "only supported with 'mode=non-blocking'"),
        ("awslogs", "a", "b", "logger: no log driver named 'awslogs' is registered"),
        ("splunk", "a", "b", "logger: no log driver named 'splunk' is registered"),
    ] {
        let fault = config(driver, &[(name, value)]).check().unwrap_err();
        assert!(fault.message.contains(text), "{driver} {name}={value}: {fault}");
        assert_eq!(fault.kind, types::FaultKind::Invalid, "{fault}");
    }
    let gelf = |name, value| {
        let options = [("gelf-address", "tcp://a:1"), (name, value)];
        config("gelf", &options).check().map_err(|fault| fault.message)
    };
    assert_eq!(gelf("gelf-tcp-max-reconnect", "5"), Ok(()));
    let compression = gelf("gelf-compression-type", "gzip").unwrap_err();
    assert_eq!(compression, "compression is only supported on UDP");
    let many = gelf("gelf-tcp-max-reconnect", "many").unwrap_err();
    let text = r#"unknown value "many" for log opt "gelf-tcp-max-reconnect" for gelf log driver"#;
    assert_eq!(many, text);
}

#[test]
fn a_buffer_that_nothing_uses_is_left_out_where_a_spec_has_it_already() {
    let taken = |options: &[(&str, &str)]| {
        let mut config = config("json-file", options);
        config.drop_unused_buffer();
        config.check().unwrap();
        config.options.contains_key("max-buffer-size")
    };
    assert!(!taken(&[("max-buffer-size", "4m")]));
    assert!(!taken(&[("max-buffer-size", "4m"), ("mode", "blocking")]));
    assert!(taken(&[("max-buffer-size", "4m"), ("mode", "non-blocking")]));
}

#[test]
fn what_a_remote_driver_keeps_here_is_said_with_cache_options() {
    let parse = |options: &[(&str, &str)]| Options::parse(&config("fluentd", options)).unwrap();
    assert_eq!(parse(&[]).limits, Some(Limits { size: 20 * MIB, files: 5 }));
    let small = parse(&[("cache-max-size", "1m"), ("cache-max-file", "2")]);
    assert_eq!(small.limits, Some(Limits { size: MIB, files: 2 }));
    assert_eq!(parse(&[("cache-disabled", "true")]).limits, None);
    assert_eq!(parse(&[]).buffer, None);
    assert_eq!(parse(&[("mode", "non-blocking")]).buffer, Some(MIB));
    let small = parse(&[("mode", "non-blocking"), ("max-buffer-size", "4k")]);
    assert_eq!(small.buffer, Some(4096));
}

#[test]
fn labels_variables_and_a_tag_go_with_each_line() {
    let options = [("labels", "tier, missing"), ("env", "ZONE"), ("tag", "{{.Name}}/{{.ID}}")];
    let shown = |options: &[(&str, &str)]| {
        let options = Options::parse(&config("json-file", options)).unwrap();
        let labels = [("tier", "front"), ("other", "x")];
        let labels: Labels = labels.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        let about = LoggedContainer {
            id: "0123456789abcdef",
            name: "web",
            image: "web:1",
            image_id: "sha256:ff",
            labels: Some(&labels),
            env: &["ZONE=a=b".to_owned(), "HOME=/".to_owned()],
            ..LoggedContainer::default()
        };
        let found = options.selection.attributes(&about).unwrap();
        found.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>()
    };
    assert_eq!(shown(&options), ["ZONE=a=b", "tag=web/0123456789ab", "tier=front"]);
    let regex = [("labels-regex", "^t"), ("env-regex", "^(ZONE|HOME)$")];
    assert_eq!(shown(&regex), ["HOME=/", "ZONE=a=b", "tier=front"]);
    let label = [("tag", r#"{{.ImageName}} {{index .ContainerLabels "tier"}}"#)];
    assert_eq!(shown(&label), ["tag=web:1 front"]);
}

#[test]
fn the_daemons_driver_holds_where_none_is_named_and_its_options_for_it_alone() {
    let daemons = config("syslog", &[("syslog-facility", "user"), ("tag", "t")]);
    let own = |driver, options: &[(&str, &str)]| config(driver, options).or(&daemons);
    assert_eq!(own("", &[]), daemons);
    let both = config("syslog", &[("syslog-facility", "user"), ("tag", "own")]);
    assert_eq!(own("syslog", &[("tag", "own")]), both);
    assert_eq!(own("local", &[]), config("local", &[]));
    // Which driver it will be is not known everywhere.
    config("", &[("syslog-facility", "user")]).check_anywhere().unwrap();
    let fault = config("", &[("syslog-facilty", "user")]).check_anywhere().unwrap_err();
    assert_eq!(fault.message, "unknown log opt 'syslog-facilty' for json-file log driver");
    config("local", &[("syslog-facility", "user")]).check_anywhere().unwrap_err();
}
