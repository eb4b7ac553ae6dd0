//! `/exec`: further processes in running containers.

use super::containers::SizeQuery;
use super::{attach, detach};
use crate::Api;
use crate::error::ApiError;
#[cfg(test)]
use crate::request::coverage::Served;
use crate::request::{JsonBody, Query};
use axum::body::Body;
use axum::extract::{FromRequest, Path, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use engine::ExecConfig;
use serde::Deserialize;
use serde_json::{Value, json};
use types::Fault;

pub(crate) fn routes() -> Router<Api> {
    Router::new()
        .route("/containers/{id}/exec", post(create))
        .route("/exec/{id}/start", post(start))
        .route("/exec/{id}/json", get(inspect))
        .route("/exec/{id}/resize", post(resize))
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename = "ExecOptions", rename_all = "PascalCase", default)]
#[expect(clippy::struct_excessive_bools, reason = "Docker's JSON has them")]
struct CreateJson {
    attach_stdin: bool,
    attach_stdout: bool,
    attach_stderr: bool,
    tty: bool,
    privileged: bool,
    env: Vec<String>,
    cmd: Vec<String>,
    user: String,
    working_dir: String,
    detach_keys: String,
}

impl CreateJson {
    fn parse(self) -> Result<ExecConfig, Fault> {
        if self.cmd.is_empty() {
            return Err(Fault::invalid("No exec command specified"));
        }
        Ok(ExecConfig {
            command: self.cmd,
            env: self.env,
            dir: self.working_dir,
            user: self.user,
            tty: self.tty,
            stdin: self.attach_stdin,
            stdout: self.attach_stdout,
            stderr: self.attach_stderr,
            privileged: self.privileged,
            detach_keys: detach::parse(&self.detach_keys)?,
        })
    }
}

async fn create(
    State(api): State<Api>,
    Path(id): Path<String>,
    JsonBody(request, _): JsonBody<CreateJson>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let exec = api.engine.exec_create(&id, request.parse()?).await?;
    Ok((StatusCode::CREATED, Json(json!({ "Id": exec }))))
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename = "ExecStartOptions", rename_all = "PascalCase", default)]
struct StartJson {
    detach: bool,
}

async fn start(
    State(api): State<Api>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    // The body is read first; what upgrades the connection is kept aside.
    let (parts, body) = request.into_parts();
    let (mut head, mut given) = (Request::new(Body::empty()), Request::new(body));
    given.headers_mut().clone_from(&parts.headers);
    (*head.headers_mut(), *head.extensions_mut()) = (parts.headers, parts.extensions);
    let JsonBody(options, _) = JsonBody::<StartJson>::from_request(given, &()).await?;
    let config = api.engine.exec_ready(&id)?.config;
    if options.detach {
        api.engine.exec_start(&id, true).await?;
        return Ok(StatusCode::OK.into_response());
    }
    let start = async move { api.engine.exec_start(&id, false).await };
    Ok(attach::answer(head, config.tty, config.detach_keys, start))
}

async fn inspect(State(api): State<Api>, Path(id): Path<String>) -> Result<Json<Value>, ApiError> {
    let info = api.engine.exec_inspect(&id)?;
    let (entrypoint, arguments) =
        info.config.command.split_first().map_or(("", &[][..]), |(head, rest)| (head, rest));
    Ok(Json(json!({
        "ID": info.id,
        "Running": info.running,
        "ExitCode": info.exit_code,
        "ProcessConfig": {
            "tty": info.config.tty,
            "entrypoint": entrypoint,
            "arguments": arguments,
            "privileged": info.config.privileged,
            "user": info.config.user,
        },
        "OpenStdin": info.config.stdin,
        "OpenStdout": info.config.stdout,
        "OpenStderr": info.config.stderr,
        "CanRemove": false,
        "ContainerID": info.container,
        "DetachKeys": STANDARD.encode(&info.config.detach_keys),
        "Pid": info.pid,
    })))
}

async fn resize(
    State(api): State<Api>,
    Path(id): Path<String>,
    Query(query): Query<SizeQuery>,
) -> Result<StatusCode, ApiError> {
    api.engine.exec_resize(&id, query.size()).await?;
    Ok(StatusCode::OK)
}

/// What the operations here read.
#[cfg(test)]
pub(super) fn served() -> Vec<Served> {
    vec![
        Served::new("POST /containers/{id}/exec").body(
            r#"{"AttachStdin":true,"AttachStdout":true,"AttachStderr":true,"Tty":true,
                "Privileged":true,"Env":["A=b"],"Cmd":["a"],"User":"u","WorkingDir":"/w",
                "DetachKeys":"ctrl-x"}"#,
            CreateJson::parse,
        ),
        Served::new("POST /exec/{id}/start").body(r#"{"Detach":true}"#, |it: StartJson| Ok(it)),
        Served::new("GET /exec/{id}/json"),
        Served::new("POST /exec/{id}/resize").query::<SizeQuery>(),
    ]
}
