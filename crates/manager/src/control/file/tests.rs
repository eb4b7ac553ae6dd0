use super::*;
use types::{
    ConfigId, FileContent, FileReference, FileTarget, SecretId, Service, ServiceSpec, Timestamp,
};

fn spec(name: &str, size: usize) -> FileSpec {
    let content = FileContent { data: vec![7; size].into(), templating: None };
    FileSpec { name: name.to_owned(), content, ..FileSpec::default() }
}

fn applied(mut view: View, changes: Result<Changes, Fault>) -> View {
    let version = Version(view.version().0 + 1);
    view.apply(&changes.unwrap(), version, Timestamp(1));
    view
}

fn with_key() -> View {
    applied(View::default(), with_new::<Secret>(&View::default(), "key-id".into(), spec("key", 1)))
}

#[test]
fn names_and_sizes_are_swarmkits() {
    let refused = |spec| with_new::<Secret>(&with_key(), "x".into(), spec).unwrap_err();
    assert_eq!(refused(spec("", 1)), Fault::invalid("name must be provided"));
    for name in ["-a", "a_", "a b", "a/b", ".", &"a".repeat(65)] {
        assert!(refused(spec(name, 1)).message.starts_with("invalid name, only 64"), "{name}");
    }
    let size = "secret data must be larger than 0 and less than 512000 bytes";
    assert_eq!(refused(spec("a", 0)), Fault::invalid(size));
    assert_eq!(refused(spec("a", 512_000)), Fault::invalid(size));
    assert_eq!(refused(spec("KEY", 1)), Fault::conflict("secret KEY already exists"));
    for name in ["a", "0.a-b_c", &"a".repeat(64)] {
        assert!(with_new::<Secret>(&with_key(), "x".into(), spec(name, 511_999)).is_ok());
    }
    let config = |size| with_new::<Config>(&with_key(), "x".into(), spec("key", size));
    assert!(config(1_023_999).is_ok());
    assert_eq!(
        config(1_024_000).unwrap_err(),
        Fault::invalid("config data must be larger than 0 and less than 1024000 bytes")
    );
}

#[test]
fn labels_alone_are_changed() {
    let (view, id) = (with_key(), SecretId::from("key-id"));
    let update = |version, spec| with_updated::<Secret>(&view, &id, Version(version), spec);
    let late = update(9, spec("key", 0)).unwrap_err();
    assert!(late.message.ends_with("update out of sequence"), "{late}");
    for other in [spec("other", 0), spec("key", 2)] {
        assert_eq!(
            update(1, other).unwrap_err(),
            Fault::invalid("only updates to Labels are allowed")
        );
    }
    for same in [0, 1] {
        let labels = [("a".to_owned(), "b".to_owned())].into();
        let view = applied(view.clone(), update(1, FileSpec { labels, ..spec("key", same) }));
        let secret = view.get::<Secret>(&id).unwrap();
        assert_eq!((secret.spec.labels.len(), secret.spec.content.data.len()), (1, 1));
    }
    let missing = with_updated::<Secret>(&view, &"x".into(), Version(1), spec("key", 0));
    assert_eq!(missing.unwrap_err(), Fault::not_found("secret x not found"));
}

fn reference<I: for<'a> From<&'a str>>(id: &str, name: &str, target: &str) -> FileReference<I> {
    let target = FileTarget { name: target.to_owned(), ..FileTarget::default() };
    FileReference { id: id.into(), name: name.to_owned(), target }
}

fn with_service(view: View, name: &str) -> View {
    let mut service = Service { id: name.into(), ..Service::default() };
    name.clone_into(&mut service.spec.name);
    service.spec.task.container.secrets = vec![reference("key-id", "key", "key")];
    let mut tx = Tx::new(&view);
    tx.put(service);
    let changes = tx.finish();
    applied(view, Ok(changes))
}

#[test]
fn what_a_service_uses_is_kept() {
    let id = SecretId::from("key-id");
    let used = with_service(with_key(), "web");
    let refused = |view: &View| without::<Secret>(view, &id).unwrap_err();
    assert_eq!(
        refused(&used),
        Fault::invalid("secret 'key' is in use by the following service: web")
    );
    let twice = with_service(used.clone(), "api");
    assert_eq!(
        refused(&twice),
        Fault::invalid("secret 'key' is in use by the following services: api, web")
    );
    let mut tx = Tx::new(&used);
    tx.edit::<Service>(&"web".into(), |service| {
        let before = std::mem::take(&mut service.spec);
        service.spec = ServiceSpec { name: before.name.clone(), ..ServiceSpec::default() };
        service.previous_spec = Some(before);
    });
    let changes = tx.finish();
    let view = applied(used, Ok(changes));
    let view = applied(view.clone(), without::<Secret>(&view, &id));
    assert!(view.get::<Secret>(&id).is_none());
    assert_eq!(refused(&view), Fault::not_found("secret key-id not found"));
}

#[test]
fn what_a_service_refers_to_must_be_there_under_its_name() {
    let view = with_key();
    let check = |names: &[(&str, &str)]| {
        let secrets = names.iter().map(|(id, name)| reference(id, name, name)).collect();
        check_existence(&view, &ContainerSpec { secrets, ..ContainerSpec::default() })
    };
    assert_eq!(check(&[("key-id", "key")]), Ok(()));
    assert_eq!(check(&[("key-id", "lock")]), Err(Fault::invalid("secret not found: lock")));
    assert_eq!(
        check(&[("key-id", "key"), ("x", "a"), ("y", "b")]),
        Err(Fault::invalid("secrets not found: a, b"))
    );
    let configs = vec![reference::<ConfigId>("key-id", "key", "key")];
    let config = ContainerSpec { configs, ..ContainerSpec::default() };
    assert_eq!(check_existence(&view, &config), Err(Fault::invalid("config not found: key")));
}

#[test]
fn no_two_files_of_a_container_are_in_one_place() {
    let container = |secrets: &[(&str, &str)], configs: &[(&str, &str)]| ContainerSpec {
        secrets: secrets.iter().map(|(name, target)| reference("s", name, target)).collect(),
        configs: configs.iter().map(|(name, target)| reference("c", name, target)).collect(),
        ..ContainerSpec::default()
    };
    let check =
        |container: &ContainerSpec| check_references(container).map_err(|fault| fault.message);
    assert_eq!(check(&container(&[("a", "x"), ("b", "y")], &[("a", "/x"), ("b", "y")])), Ok(()));
    assert_eq!(
        check(&container(&[("a", "x"), ("b", "/run/secrets/x")], &[])).unwrap_err(),
        "secret references 'a' and 'b' have a conflicting target: '/run/secrets/x'"
    );
    let clash = "ContainerSpec: duplicate mount point: /run/secrets/x";
    assert_eq!(check(&container(&[("a", "x")], &[("b", "run/secrets/x")])).unwrap_err(), clash);
    let mut mounted = container(&[("a", "x")], &[]);
    let target = "/run/secrets/x".to_owned();
    mounted.mounts = vec![types::Mount { target, ..types::Mount::default() }];
    assert_eq!(check(&mounted).unwrap_err(), clash);
    assert_eq!(check(&container(&[("", "x")], &[])).unwrap_err(), "malformed secret reference");
    assert_eq!(
        check(&container(&[], &[("a", "")])).unwrap_err(),
        "malformed file config reference, invalid target file name provided"
    );
    let mut mode = container(&[("a", "x")], &[]);
    mode.secrets[0].target.mode = 0o4555;
    assert!(check(&mode).unwrap_err().contains("invalid mode 4555"));
}
