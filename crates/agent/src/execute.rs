//! Carries out operations: the only place where the agent touches containers and networks.

use crate::Config;
use crate::container::{attachments, config, has_network, host_ports, memory_files};
use crate::files::Files;
use crate::worker::{Event, Exit, Observed, Operation, Outcome};
use dataplane::{Dataplane, Wanted};
use engine::{
    ContainerState, Credentials, Engine, HealthStatus, MemoryFile, Reference, Status, WaitFor,
};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use types::{
    Fault, FaultKind, MountKind, NodeDescription, NodeId, Protocol, Task, TaskId, template,
};

/// A pull may be long; one that takes longer never ends.
const PULL_MAX: Duration = Duration::from_mins(30);
/// The engine makes and starts a few containers at a time, and many may come at once.
const START_MAX: Duration = Duration::from_mins(10);
/// For everything else that does not wait for the container itself.
const OPERATION_MAX: Duration = Duration::from_mins(2);
/// Between two looks at a container's connections; doubles, since who is still there after long is
/// likely to stay.
const LOOK_FIRST: Duration = Duration::from_millis(20);
const LOOK_LONGEST: Duration = Duration::from_millis(500);
/// What is away for a moment (a runtime that restarts, a registry) is asked so often.
const ATTEMPTS: u32 = 5;
/// The code of a process whose end nobody saw, as containerd has it.
const UNKNOWN_CODE: i32 = 255;
const PAUSE: Duration = Duration::from_secs(1);

/// What operations need.
#[derive(Clone)]
pub(crate) struct Executor {
    pub(crate) config: Arc<Config>,
    pub(crate) engine: Engine,
    pub(crate) dataplane: Dataplane,
}

impl Executor {
    pub(crate) fn new(config: Arc<Config>, engine: Engine, dataplane: Dataplane) -> Self {
        Self { config, engine, dataplane }
    }

    /// Carries out one operation of a task.
    pub(crate) async fn run(self, task: Task, operation: Operation) -> Outcome {
        let made = match &operation {
            Operation::Create { task, .. } => Some((**task).clone()),
            Operation::Pull(_)
            | Operation::Start { .. }
            | Operation::Refresh { .. }
            | Operation::Drain { .. }
            | Operation::Stop { .. }
            | Operation::Remove { .. } => None,
        };
        let limit = match &operation {
            Operation::Pull(_) => PULL_MAX,
            Operation::Create { .. } | Operation::Start { .. } => START_MAX,
            Operation::Refresh { .. } | Operation::Remove { .. } => OPERATION_MAX,
            Operation::Drain { limit, .. } => *limit + OPERATION_MAX,
            Operation::Stop { grace, .. } => *grace + OPERATION_MAX,
        };
        let outcome = async {
            match operation {
                Operation::Pull(task) => {
                    let pulled = patiently(|| self.pull(&task)).await;
                    pulled.map_err(|fault| no_image(&task, fault))
                }
                Operation::Create { task, files } => patiently(|| self.create(&task, &files)).await,
                Operation::Start { container, files } => {
                    self.start(&task, &container, &files).await
                }
                Operation::Refresh { container, files, signal } => {
                    let files = self.files(&task, &files).await;
                    self.refresh(&container, files?, &signal).await
                }
                Operation::Drain { container, limit } => self.drain(&task, &container, limit).await,
                Operation::Stop { container, grace } => self.stop(&container, grace).await,
                Operation::Remove { container } => self.remove(&container).await,
            }
        };
        let reason = match tokio::time::timeout(limit, outcome).await {
            Ok(Ok(outcome)) => return outcome,
            Ok(Err(fault)) => fault.message,
            Err(_late) => format!("the engine did not finish within {}s", limit.as_secs()),
        };
        if let Some(task) = made {
            self.clear_away(&task).await;
        }
        Outcome::Failed(reason)
    }

    /// Removes what a creation that failed may have left: nobody knows of it.
    async fn clear_away(&self, task: &Task) {
        let Some(id) = self.made_for(task).await else { return };
        match tokio::time::timeout(OPERATION_MAX, self.engine.remove(&id, true, true)).await {
            Ok(Ok(())) => {}
            Ok(Err(fault)) if fault.kind == FaultKind::NotFound => {}
            Ok(Err(fault)) => tracing::warn!(id, %fault, "container left behind"),
            Err(_late) => tracing::warn!(id, "the engine did not remove a container in time"),
        }
    }

    /// The container that was made for a task, if there is one. A user's may have its name.
    async fn made_for(&self, task: &Task) -> Option<String> {
        let info = self.engine.inspect(&task.name()).await.ok()?;
        (info.config.task().as_ref() == Some(&task.id)).then_some(info.id)
    }

    async fn pull(&self, task: &Task) -> Result<Outcome, Fault> {
        let container = &task.spec.container;
        let credentials = container.pull_credentials.clone().map(Into::into);
        self.engine.ensure_image(&container.image, credentials.clone()).await?;
        if container.mounts.iter().any(|mount| mount.kind == MountKind::Image) {
            self.pull_mounted(task, credentials).await?;
        }
        Ok(Outcome::Pulled)
    }

    /// Pulls the images that a task mounts.
    async fn pull_mounted(
        &self,
        task: &Task,
        credentials: Option<Credentials>,
    ) -> Result<(), Fault> {
        let own = task.clone();
        let fill = move |(node, description): (&NodeId, &NodeDescription)| {
            Ok(template::expand(&own, node, description)?.mounts)
        };
        // What is wrong with its templates is told when it is made.
        let mounts = self.filled(fill).await.unwrap_or_default();
        for mount in mounts.iter().filter(|mount| mount.kind == MountKind::Image) {
            let pulled = self.engine.ensure_image(&mount.source, credentials.clone()).await;
            pulled.map_err(|fault| {
                Fault::new(fault.kind, format!("No such image: {} ({fault})", mount.source))
            })?;
        }
        Ok(())
    }

    async fn create(&self, task: &Task, files: &Files) -> Result<Outcome, Fault> {
        // What is wrong with them is found before anything is made.
        self.files(task, files).await?;
        // One that was made just before the daemon was killed.
        if let Some(left) = self.made_for(task).await {
            self.engine.remove(&left, true, true).await?;
        }
        let (own, id) = (task.clone(), Engine::draw_id());
        let config = self.filled(move |here| config(id, &own, here)).await?;
        let created = self.engine.create(config).await?;
        for warning in created.warnings {
            tracing::warn!(task = %task.id, warning, "container was made with a warning");
        }
        Ok(Outcome::Created { container: created.id })
    }

    /// The files that a task's container gets, with their templates filled.
    async fn files(&self, task: &Task, files: &Files) -> Result<Vec<MemoryFile>, Fault> {
        let (task, files) = (task.clone(), files.clone());
        self.filled(move |here| memory_files(&task, &files, here)).await
    }

    /// Fills templates, beside the loops: they may have much to do.
    async fn filled<T: Send + 'static>(
        &self,
        fill: impl FnOnce((&NodeId, &NodeDescription)) -> Result<T, String> + Send + 'static,
    ) -> Result<T, Fault> {
        let config = Arc::clone(&self.config);
        let work = move || fill((&config.identity.node_id(), &config.description));
        let filled = tokio::task::spawn_blocking(work).await;
        let filled = filled.map_err(|panic| Fault::internal(format!("templates: {panic}")))?;
        filled.map_err(Fault::invalid)
    }

    async fn start(&self, task: &Task, container: &str, files: &Files) -> Result<Outcome, Fault> {
        let files = self.files(task, files).await?;
        if has_network(task) {
            self.attach(task, container).await?;
        }
        if let Err(fault) = self.engine.start_with(container, files).await {
            self.detach(container).await;
            return Err(fault);
        }
        let state = self.engine.inspect(container).await?.state;
        Ok(Outcome::Started { pid: state.pid, has_health_check: state.health.is_some() })
    }

    async fn attach(&self, task: &Task, container: &str) -> Result<(), Fault> {
        let wanted = Wanted {
            task: Some(task.id.clone()),
            attachments: attachments(task),
            host_ports: host_ports(task),
            nameservers: task.spec.container.dns.nameservers.clone(),
        };
        let attached = self.dataplane.attach(container, wanted).await;
        attached.map_err(|error| Fault::internal(format!("cannot attach its network: {error}")))?;
        Ok(())
    }

    async fn refresh(
        &self,
        container: &str,
        files: Vec<MemoryFile>,
        signal: &str,
    ) -> Result<Outcome, Fault> {
        self.engine.replace_files(container, files).await?;
        if !signal.is_empty() {
            self.engine.kill(container, signal).await?;
        }
        Ok(Outcome::Refreshed)
    }

    /// Waits until nobody is connected, or the time is up.
    async fn drain(&self, task: &Task, container: &str, limit: Duration) -> Result<Outcome, Fault> {
        let published = connection_ports(task);
        let mut pause = LOOK_FIRST;
        let nobody = async {
            while self.engine.has_client(container, &published).await? {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LOOK_LONGEST);
            }
            Ok::<(), Fault>(())
        };
        match tokio::time::timeout(limit, nobody).await {
            Ok(Ok(())) | Err(_) => {}
            // It has ended meanwhile, or cannot be looked at: nothing to wait for.
            Ok(Err(fault)) => tracing::debug!(container, %fault, "cannot see connections"),
        }
        Ok(Outcome::Drained)
    }

    async fn stop(&self, container: &str, grace: Duration) -> Result<Outcome, Fault> {
        let stopped = if grace.is_zero() {
            match self.engine.kill(container, "SIGKILL").await {
                Ok(()) => self.engine.wait(container, WaitFor::NotRunning).await.map(|_| ()),
                Err(fault) => Err(fault),
            }
        } else {
            self.engine.stop(container, None, Some(grace)).await.map(|_| ())
        };
        let state = match self.engine.inspect(container).await {
            Ok(info) => info.state,
            Err(fault) if fault.kind == FaultKind::NotFound => ContainerState::default(),
            Err(fault) => return Err(fault),
        };
        // Whatever was answered, what counts is that it does not run.
        match (stopped, state.status) {
            (Err(fault), Status::Running) => Err(fault),
            (_, Status::Created | Status::Running | Status::Exited | Status::Removing) => {
                Ok(Outcome::Stopped(exit_of(&state)))
            }
        }
    }

    async fn remove(&self, container: &str) -> Result<Outcome, Fault> {
        match self.engine.remove(container, true, true).await {
            Ok(()) => {}
            Err(fault) if fault.kind == FaultKind::NotFound => {}
            Err(fault) => return Err(fault),
        }
        self.detach(container).await;
        Ok(Outcome::Removed)
    }

    /// Takes a container's network down. What fails is tried again when the container is removed.
    pub(crate) async fn detach(&self, container: &str) {
        if let Err(error) = self.dataplane.detach(container).await {
            tracing::warn!(container, %error, "cannot take the network down");
        }
    }

    pub(crate) async fn withdraw(&self, task: TaskId) {
        if let Err(error) = self.dataplane.withdraw(task.clone()).await {
            tracing::warn!(%task, %error, "cannot take the task out of names and balancers");
        }
    }

    /// What is there of our tasks' containers, by container id.
    pub(crate) async fn observe(&self) -> BTreeMap<String, (Option<TaskId>, Observed)> {
        let containers = self.engine.list(true).await.into_iter().filter_map(|info| {
            let task = info.config.task()?;
            let running = match info.state.status {
                Status::Running => true,
                Status::Created | Status::Exited | Status::Removing => false,
            };
            let ended = info.state.starts > 0 && !running;
            let health = info.state.health.as_ref();
            let observed = Observed {
                pid: info.state.pid,
                exit: ended.then(|| exit_of(&info.state)),
                running,
                has_health_check: health.is_some(),
                healthy: health.is_some_and(|health| health.status == HealthStatus::Healthy),
            };
            Some((info.id, (Some(task), observed)))
        });
        containers.collect()
    }

    /// Tells of a container's beginning, its health and its end. Ends with it.
    pub(crate) async fn watch(self, task: TaskId, container: String, events: mpsc::Sender<Event>) {
        let states = self.engine.watch(&container).ok();
        follow(states, task, events).await;
    }
}

/// Tells of a container what its states say, and of one that is not there that it has ended: nobody
/// knows how.
async fn follow(
    states: Option<watch::Receiver<ContainerState>>,
    task: TaskId,
    events: mpsc::Sender<Event>,
) {
    let Some(mut states) = states else {
        let exit = Exit { code: UNKNOWN_CODE, error: "its container is gone".to_owned() };
        return tell(&events, Event::Exited { task, exit }).await;
    };
    let (mut told, mut begun) = (None, false);
    loop {
        let state = states.borrow_and_update().clone();
        let health = state.health.as_ref().map(|health| health.status);
        match state.status {
            Status::Created => {}
            Status::Running => {
                if !std::mem::replace(&mut begun, true) {
                    tell(&events, Event::Begun { task: task.clone() }).await;
                }
                if let Some(status) = health.filter(|status| told != Some(*status)) {
                    told = Some(status);
                    let task = task.clone();
                    match status {
                        HealthStatus::Starting => {}
                        HealthStatus::Healthy => {
                            tell(&events, Event::Health { task, healthy: true }).await;
                        }
                        HealthStatus::Unhealthy => {
                            tell(&events, Event::Health { task, healthy: false }).await;
                        }
                    }
                }
            }
            Status::Exited | Status::Removing => {
                let exit = exit_of(&state);
                return tell(&events, Event::Exited { task, exit }).await;
            }
        }
        if states.changed().await.is_err() {
            let exit = exit_of(&states.borrow());
            return tell(&events, Event::Exited { task, exit }).await;
        }
    }
}

/// Docker's text, and why.
fn no_image(task: &Task, fault: Fault) -> Fault {
    if fault.message.starts_with("No such image") {
        return fault;
    }
    let image = &task.spec.container.image;
    let name = Reference::parse(image);
    let name = name.as_ref().map_or(image.as_str(), Reference::familiar);
    Fault::not_found(format!("No such image: {name} ({fault})"))
}

/// Tries again while the fault says that it may help.
async fn patiently<F>(attempt: impl Fn() -> F) -> Result<Outcome, Fault>
where
    F: Future<Output = Result<Outcome, Fault>>,
{
    for _ in 1..ATTEMPTS {
        match attempt().await {
            Err(fault) if fault.kind == FaultKind::Unavailable => {
                tracing::debug!(%fault, "trying again");
                tokio::time::sleep(PAUSE).await;
            }
            outcome => return outcome,
        }
    }
    attempt().await
}

async fn tell(events: &mpsc::Sender<Event>, event: Event) {
    // Nobody listens only when the agent ends.
    events.send(event).await.ok();
}

/// The published ports of a task whose clients have connections that end: those of TCP.
fn connection_ports(task: &Task) -> Vec<u16> {
    let tcp = task.ports.iter().filter(|port| port.protocol == Protocol::Tcp);
    tcp.map(|port| port.target).collect()
}

fn exit_of(state: &ContainerState) -> Exit {
    let error = if state.oom_killed { "OOM killed".to_owned() } else { state.error.clone() };
    Exit { code: state.exit_code, error }
}

#[cfg(test)]
mod tests {
    use super::*;
    use types::PublishedPort;

    #[tokio::test]
    async fn a_container_that_is_gone_has_not_ended_well() {
        let (events, mut told) = mpsc::channel(1);
        follow(None, "t".into(), events).await;
        let Some(Event::Exited { exit, .. }) = told.recv().await else { panic!("no end") };
        assert_ne!(exit.code, 0);
    }

    #[test]
    fn a_port_without_connections_keeps_nobody_from_looking_at_all_others() {
        let port =
            |protocol, target| PublishedPort { protocol, target, ..PublishedPort::default() };
        let udp = Task { ports: vec![port(Protocol::Udp, 53)], ..Task::default() };
        assert_eq!(connection_ports(&udp), [0; 0]);
        let both = vec![port(Protocol::Udp, 53), port(Protocol::Tcp, 80)];
        assert_eq!(connection_ports(&Task { ports: both, ..Task::default() }), [80]);
    }
}
