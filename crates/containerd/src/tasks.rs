//! Tasks: the processes of containers.

use crate::Containerd;
use crate::client::{QUICK, SPAWNING};
use crate::error::{Error, Gone};
use crate::usage;
use containerd_client::services::v1::{
    CloseIoRequest, CreateTaskRequest, DeleteProcessRequest, DeleteTaskRequest, ExecProcessRequest,
    GetRequest, KillRequest, ListPidsRequest, ListTasksRequest, MetricsRequest, ResizePtyRequest,
    StartRequest, WaitRequest,
};
use containerd_client::types::v1::{Process, Status};
use engine::{Exit, Size, State, Stdio, Usage};
use prost_types::Any;
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;
use tonic::Code;
use types::{Fault, Timestamp};

const PROCESS_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/Process";
const SIGKILL: u32 = 9;
/// What a process ends with when nobody knows how it ended.
const UNKNOWN_CODE: i32 = 255;
/// How long a task may take to end after SIGKILL: the kernel may be writing its memory out.
const KILL_MAX: Duration = Duration::from_secs(30);
const BACK_OFF_FIRST: Duration = Duration::from_millis(50);
const BACK_OFF_MAX: Duration = Duration::from_secs(2);

impl Containerd {
    /// Makes the task of a container and starts it.
    pub(crate) async fn start_task(
        &self,
        id: &str,
        mut spec: Value,
        stdio: &Stdio,
    ) -> Result<u32, Error> {
        match self.task_state(id).await? {
            Some(State::Running { pid }) => return Ok(pid),
            Some(State::Unknown) => return Err(Error::Unknown(id.to_owned())),
            Some(State::Prepared | State::Ended(_)) => self.remove_task(id).await?,
            None => {}
        }
        let rootfs = self.mounts_of(id).await?;
        // In the bundle; the shim mounts the snapshot there.
        spec["root"]["path"] = Value::from("rootfs");
        self.write_container(id, &spec).await?;
        let body = CreateTaskRequest {
            container_id: id.to_owned(),
            rootfs,
            stdin: Stdio::text(stdio.stdin.as_deref()),
            stdout: Stdio::text(stdio.stdout.as_deref()),
            stderr: Stdio::text(stdio.stderr.as_deref()),
            terminal: stdio.terminal,
            ..Default::default()
        };
        let client = self.client();
        let made = client.call("make a task", SPAWNING, body);
        let started = async {
            made.await?;
            self.start_process(id, "").await
        };
        match started.await {
            Ok(pid) => Ok(pid),
            Err(error) => {
                if let Err(left) = self.remove_task(id).await {
                    tracing::warn!(id, %left, "a task that did not start cannot be removed");
                }
                Err(plain(error))
            }
        }
    }

    async fn start_process(&self, id: &str, exec: &str) -> Result<u32, Error> {
        let client = self.client();
        let body = StartRequest { container_id: id.to_owned(), exec_id: exec.to_owned() };
        let started = client.call("start a process", SPAWNING, body);
        Ok(started.await?.pid)
    }

    async fn find_task(&self, id: &str) -> Result<Option<Process>, Error> {
        let client = self.client();
        let body = GetRequest { container_id: id.to_owned(), ..Default::default() };
        let answer = client.call("look up a task", QUICK, body);
        match answer.await {
            Ok(answer) => Ok(answer.process),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(crate) async fn task_state(&self, id: &str) -> Result<Option<State>, Error> {
        Ok(self.find_task(id).await?.map(|task| state_of(&task)))
    }

    pub(crate) async fn task_states(&self) -> Result<BTreeMap<String, State>, Error> {
        let client = self.client();
        let body = ListTasksRequest::default();
        let answer = client.call("list tasks", QUICK, body);
        let tasks = answer.await?.tasks;
        Ok(tasks.into_iter().map(|task| (task.id.clone(), state_of(&task))).collect())
    }

    /// Sends a signal to a process of a container; that it has ended is fine.
    pub(crate) async fn signal_process(
        &self,
        id: &str,
        exec: &str,
        signal: i32,
        all: bool,
    ) -> Result<(), Error> {
        let signal = u32::try_from(signal)
            .map_err(|_negative| Error::User(format!("there is no signal {signal}")))?;
        let body =
            KillRequest { container_id: id.to_owned(), exec_id: exec.to_owned(), signal, all };
        let client = self.client();
        let sent = client.call("send a signal", QUICK, body);
        match sent.await {
            // "process already finished" and "no such task" have the same code.
            Err(error)
                if error.is_not_found() || error.code() == Some(Code::FailedPrecondition) =>
            {
                match self.container_state(id).await? {
                    Some(State::Running { .. } | State::Unknown) if exec.is_empty() => Err(error),
                    Some(_) => Ok(()),
                    None => Err(Error::NoContainer(id.to_owned())),
                }
            }
            other => other,
        }
    }

    /// Forgets an ended task, once its output is written. None where there is no task.
    pub(crate) async fn reap_task(&self, id: &str) -> Result<Option<Exit>, Error> {
        let client = self.client();
        let body = DeleteTaskRequest { container_id: id.to_owned() };
        let deleted = client.call("remove a task", SPAWNING, body);
        match deleted.await {
            Ok(ended) => Ok(Some(exit(ended.exit_status, ended.exited_at))),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Kills and forgets a task, in whatever state it is.
    pub(crate) async fn remove_task(&self, id: &str) -> Result<(), Error> {
        let Some(task) = self.find_task(id).await? else { return Ok(()) };
        if let State::Ended(_) = state_of(&task) {
            return self.reap_task(id).await.map(|_| ());
        }
        let body = KillRequest {
            container_id: id.to_owned(),
            signal: SIGKILL,
            all: true,
            ..Default::default()
        };
        let client = self.client();
        let killed = client.call("kill a task", QUICK, body);
        killed.await.or_gone()?;
        let body = WaitRequest { container_id: id.to_owned(), ..Default::default() };
        let waited = client.call("wait for a killed task", KILL_MAX, body);
        waited.await.or_gone()?;
        self.reap_task(id).await.map(|_| ())
    }

    /// Starts a further process in a container.
    pub(crate) async fn exec_process(
        &self,
        id: &str,
        exec: &str,
        process: &Value,
        stdio: &Stdio,
    ) -> Result<u32, Error> {
        let value = serde_json::to_vec(process);
        let value = value.map_err(|source| Error::json("the process", source))?;
        let body = ExecProcessRequest {
            container_id: id.to_owned(),
            exec_id: exec.to_owned(),
            stdin: Stdio::text(stdio.stdin.as_deref()),
            stdout: Stdio::text(stdio.stdout.as_deref()),
            stderr: Stdio::text(stdio.stderr.as_deref()),
            terminal: stdio.terminal,
            spec: Some(Any { type_url: PROCESS_TYPE.to_owned(), value }),
        };
        let client = self.client();
        let made = client.call("make a process", SPAWNING, body);
        match made.await {
            Err(error) if error.is_not_found() => return Err(Error::NoContainer(id.to_owned())),
            other => other?,
        }
        let started = {
            let _permit = self.starts().permit(id).await;
            self.start_process(id, exec).await
        };
        match started {
            Ok(pid) => Ok(pid),
            Err(error) => {
                let _gone = self.forget_process(id, exec).await;
                Err(plain(error))
            }
        }
    }

    async fn forget_process(&self, id: &str, exec: &str) -> Result<Exit, Error> {
        let client = self.client();
        let body = DeleteProcessRequest { container_id: id.to_owned(), exec_id: exec.to_owned() };
        let deleted = client.call("remove a process", SPAWNING, body);
        let ended = deleted.await?;
        Ok(exit(ended.exit_status, ended.exited_at))
    }

    /// Waits for the end of such a process, through restarts of containerd, and forgets it.
    pub(crate) async fn wait_process(&self, id: &str, exec: &str) -> Result<Exit, Error> {
        let mut pause = BACK_OFF_FIRST;
        loop {
            let body = WaitRequest { container_id: id.to_owned(), exec_id: exec.to_owned() };
            match self.client().call_once(body).await {
                Ok(_) => break,
                Err(status) if status.code() == Code::NotFound => {
                    return Err(Error::NoContainer(id.to_owned()));
                }
                Err(status) => {
                    tracing::debug!(id, exec, %status, "waiting for a process again");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(BACK_OFF_MAX);
                }
            }
        }
        match self.forget_process(id, exec).await {
            Err(error) if error.is_not_found() => Err(Error::NoContainer(id.to_owned())),
            other => other,
        }
    }

    pub(crate) async fn close_input(&self, id: &str, exec: &str) -> Result<(), Error> {
        let client = self.client();
        let body =
            CloseIoRequest { container_id: id.to_owned(), exec_id: exec.to_owned(), stdin: true };
        let closed = client.call("close standard input", QUICK, body);
        closed.await
    }

    pub(crate) async fn resize_terminal(
        &self,
        id: &str,
        exec: &str,
        size: Size,
    ) -> Result<(), Error> {
        let client = self.client();
        let body = ResizePtyRequest {
            container_id: id.to_owned(),
            exec_id: exec.to_owned(),
            width: size.width.into(),
            height: size.height.into(),
        };
        let resized = client.call("resize a terminal", QUICK, body);
        resized.await
    }

    pub(crate) async fn process_ids(&self, id: &str) -> Result<Vec<u32>, Error> {
        let client = self.client();
        let body = ListPidsRequest { container_id: id.to_owned() };
        let answer = client.call("list processes", QUICK, body);
        Ok(answer.await?.processes.into_iter().map(|process| process.pid).collect())
    }

    pub(crate) async fn measure(&self, id: &str) -> Result<Usage, Error> {
        let client = self.client();
        let body = MetricsRequest { filters: vec![format!("id=={id}")] };
        let answer = client.call("measure a container", QUICK, body);
        let metrics = answer.await?.metrics;
        let data = metrics.into_iter().find(|metric| metric.id == id).and_then(|one| one.data);
        usage::read(&data.ok_or_else(|| Error::NoContainer(id.to_owned()))?)
    }
}

fn state_of(task: &Process) -> State {
    match task.status() {
        Status::Running | Status::Paused | Status::Pausing => State::Running { pid: task.pid },
        // It was made, but whoever made it died before it was started.
        Status::Created => State::Prepared,
        Status::Stopped => State::Ended(exit(task.exit_status, task.exited_at)),
        // The shim did not answer in time, or said something that containerd does not know.
        Status::Unknown => State::Unknown,
    }
}

pub(crate) fn exit(status: u32, at: Option<prost_types::Timestamp>) -> Exit {
    let at = at.map_or(0, |at| {
        at.seconds.saturating_mul(1_000_000_000).saturating_add(i64::from(at.nanos))
    });
    Exit { code: i32::try_from(status).unwrap_or(UNKNOWN_CODE), at: Timestamp(at.max(0)) }
}

/// What the OCI runtime says is the user's business (a program that is not there, a directory that
/// cannot be entered), and reads better without who called whom.
fn plain(error: Error) -> Error {
    let Error::Call { status, .. } = &error else { return error };
    let Some(start) = status.message().find("OCI runtime") else { return error };
    Fault::invalid(status.message()[start..].trim_end_matches(": unknown")).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_containerd_does_not_know_is_no_end() {
        let task = |status: Status| Process { status: status.into(), ..Process::default() };
        assert_eq!(state_of(&task(Status::Unknown)), State::Unknown);
        assert!(matches!(state_of(&task(Status::Stopped)), State::Ended(_)));
    }
}
