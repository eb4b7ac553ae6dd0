//! Former revisions of secrets and configs go when nobody needs them any more.

use std::collections::BTreeSet;
use store::{Record, Tx};
use types::{Config, GivenFile, Secret};

/// Removes former revisions that no service is made from nor may come back to, and no task has that
/// has not ended.
pub fn forget_former_files(tx: &mut Tx) {
    forget::<Secret>(tx);
    forget::<Config>(tx);
}

fn forget<T: GivenFile + Record<Id = <T as GivenFile>::Id>>(tx: &mut Tx) {
    let former = tx.all::<T>().filter(|it| it.spec().former);
    let mut unused: BTreeSet<<T as GivenFile>::Id> =
        former.map(|it| GivenFile::id(it.as_ref()).clone()).collect();
    if unused.is_empty() {
        return;
    }
    let specs = tx.services().flat_map(|service| service.specs()).map(|spec| &spec.task);
    let tasks = tx.tasks().filter(|task| !task.status.state.is_terminal());
    let containers = specs.map(|spec| &spec.container);
    for container in containers.chain(tasks.map(|task| &task.spec.container)) {
        for reference in T::references(container) {
            unused.remove(&reference.id);
        }
        if unused.is_empty() {
            return;
        }
    }
    for id in &unused {
        tx.remove::<T>(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Planner;
    use crate::testing::Count;
    use store::View;
    use types::{FileReference, Service, Timestamp, Version};

    fn secret(id: &str, former: bool) -> Secret {
        let mut secret = Secret { id: id.into(), ..Secret::default() };
        secret.spec.name = "key".into();
        secret.spec.former = former;
        secret
    }

    fn applied(view: &View, tx: Tx) -> View {
        let mut view = view.clone();
        view.apply(&tx.finish(), Version(view.version().0 + 1), Timestamp(1));
        view
    }

    /// A service that was updated from the secret `one` to `two`.
    fn with_service() -> View {
        let mut tx = Tx::new(&View::default());
        tx.put(secret("one", true));
        tx.put(secret("two", false));
        let mut web = Service { id: "web".into(), ..Service::default() };
        let with = |id: &str| {
            let mut spec = types::ServiceSpec::default();
            let reference = FileReference { id: id.into(), ..FileReference::default() };
            spec.task.container.secrets = vec![reference];
            spec
        };
        (web.spec, web.previous_spec) = (with("two"), Some(with("one")));
        tx.put_service(web);
        applied(&View::default(), tx)
    }

    fn planned(view: &View) -> Vec<String> {
        let plan = Planner::default().plan(view, Timestamp(5), &mut Count(0));
        let mut after = view.clone();
        after.apply(&plan.changes, Version(9), Timestamp(5));
        after.all::<Secret>().map(|secret| secret.id.to_string()).collect()
    }

    #[test]
    fn a_former_revision_goes_once_no_service_may_come_back_to_it() {
        let view = with_service();
        assert_eq!(planned(&view), ["one", "two"], "the service may be rolled back");
        let mut tx = Tx::new(&view);
        tx.edit_service(&"web".into(), |web| web.previous_spec = Some(web.spec.clone()));
        // Nor does a task have it any more.
        assert_eq!(planned(&applied(&view, tx)), ["two"]);
        let mut tx = Tx::new(&view);
        tx.remove_service(&"web".into());
        let mut last = secret("three", false);
        last.spec.name = "unused".into();
        tx.put(last);
        assert_eq!(planned(&applied(&view, tx)), ["three", "two"], "the last of a name stays");
    }
}
