//! The connection to containerd: one lazy channel, a time limit on every call, and patience while
//! containerd restarts.

use crate::calls::{Call, Written};
use crate::error::Error;
use bytes::Bytes;
use containerd_client::services::v1::content_client::ContentClient;
use containerd_client::services::v1::events_client::EventsClient;
use containerd_client::services::v1::snapshots::snapshots_client::SnapshotsClient;
use containerd_client::services::v1::{Namespace, Plugin, PluginsRequest};
use http::uri::PathAndQuery;
use prost::Message;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tonic::client::Grpc;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status};

/// For calls that only read or write containerd's database.
pub(crate) const QUICK: Duration = Duration::from_secs(10);
/// For calls that start processes.
pub(crate) const SPAWNING: Duration = Duration::from_mins(1);
/// For calls that unpack or move data.
pub(crate) const BULKY: Duration = Duration::from_mins(15);

/// How long a call waits for a containerd that does not listen: a restart takes about a second.
const PATIENCE: Duration = Duration::from_secs(10);
const BACK_OFF_FIRST: Duration = Duration::from_millis(20);
const BACK_OFF_MAX: Duration = Duration::from_millis(500);

/// The largest answer we take. A list of some hundred containers with their specs passes tonic's
/// own limit of 4 MiB.
const MESSAGE_MAX: usize = 64 << 20;

/// A connection to containerd in one of its namespaces. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    channel: Channel,
    namespace: MetadataValue<Ascii>,
    lease: Option<MetadataValue<Ascii>>,
    /// The folder of the content store; `None` where it is not known or not seen from here.
    store: Option<Arc<Path>>,
}

macro_rules! service {
    ($name:ident, $client:ident) => {
        pub(crate) fn $name(&self) -> $client<Channel> {
            $client::new(self.channel.clone()).max_decoding_message_size(MESSAGE_MAX)
        }
    };
}

/// A containerd namespace as the header of a call.
fn header(namespace: &str) -> Result<MetadataValue<Ascii>, Error> {
    namespace.parse().map_err(|_invalid| Error::Namespace { name: namespace.to_owned() })
}

impl Client {
    /// Makes a client that connects at its first call, and again whenever the connection broke.
    pub(crate) fn new(socket: &Path, namespace: &str) -> Result<Self, Error> {
        let namespace = header(namespace)?;
        let socket = socket.to_path_buf();
        // The address is not used: every connection goes to the socket.
        let channel = Endpoint::from_static("http://containerd")
            .connect_timeout(QUICK)
            .connect_with_connector_lazy(tower::service_fn(move |_: http::Uri| {
                let socket = socket.clone();
                async move {
                    let stream = tokio::net::UnixStream::connect(socket).await?;
                    Ok::<_, std::io::Error>(hyper_util::rt::TokioIo::new(stream))
                }
            }));
        Ok(Self { channel, namespace, lease: None, store: None })
    }

    service!(content, ContentClient);
    service!(events, EventsClient);
    service!(snapshots, SnapshotsClient);

    /// The same connection, whose new content and snapshots belong to a lease.
    pub(crate) fn leased(&self, lease: &str) -> Self {
        Self { lease: lease.parse().ok(), ..self.clone() }
    }

    /// The same connection, seen from another namespace.
    pub(crate) fn within(&self, namespace: &str) -> Result<Self, Error> {
        let namespace = header(namespace)?;
        Ok(Self { namespace, ..self.clone() })
    }

    pub(crate) fn store(&self) -> Option<&Path> {
        self.store.as_deref()
    }

    pub(crate) fn namespace(&self) -> &str {
        self.namespace.to_str().unwrap_or_default()
    }

    pub(crate) fn request<T>(&self, body: T) -> Request<T> {
        let mut request = Request::new(body);
        request.metadata_mut().insert("containerd-namespace", self.namespace.clone());
        if let Some(lease) = &self.lease {
            request.metadata_mut().insert("containerd-lease", lease.clone());
        }
        request
    }

    /// Makes a call with a time limit. While containerd does not listen the call is made again:
    /// it has not been sent then.
    pub(crate) async fn call<B: Call>(
        &self,
        call: &'static str,
        limit: Duration,
        body: B,
    ) -> Result<B::Answer, Error> {
        let answer = self.carry(call, limit, B::PATH, body.encode_to_vec().into()).await?;
        read::<B>(answer).map_err(|status| Error::Call { call, status: Box::new(status) })
    }

    /// Makes a call once, for as long as it takes.
    pub(crate) async fn call_once<B: Call>(&self, body: B) -> Result<B::Answer, Status> {
        let body = self.request(body.encode_to_vec().into());
        read::<B>(self.send(B::PATH, body).await?.into_inner())
    }

    async fn carry(
        &self,
        call: &'static str,
        limit: Duration,
        path: &'static str,
        body: Bytes,
    ) -> Result<Bytes, Error> {
        self.stream(call, limit, body, |body| self.send(path, body)).await
    }

    async fn send(
        &self,
        path: &'static str,
        body: Request<Bytes>,
    ) -> Result<Response<Bytes>, Status> {
        let grpc = Grpc::new(self.channel.clone());
        let mut grpc = grpc.max_decoding_message_size(MESSAGE_MAX);
        let unready = |error| Status::unknown(format!("not ready: {error}"));
        grpc.ready().await.map_err(unready)?;
        grpc.unary(body, PathAndQuery::from_static(path), Written).await
    }

    /// Makes a call whose answer may be a stream, as [`Self::call`] makes others.
    pub(crate) async fn stream<B, T, F>(
        &self,
        call: &'static str,
        limit: Duration,
        body: B,
        send: impl Fn(Request<B>) -> F,
    ) -> Result<T, Error>
    where
        B: Clone,
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let attempts = async {
            let mut waited = Duration::ZERO;
            let mut pause = BACK_OFF_FIRST;
            loop {
                match send(self.request(body.clone())).await {
                    Err(status) if waited < PATIENCE && was_not_sent(&status) => {
                        tokio::time::sleep(pause).await;
                        waited += pause;
                        pause = (pause * 2).min(BACK_OFF_MAX);
                    }
                    answer => return answer,
                }
            }
        };
        match tokio::time::timeout(limit, attempts).await {
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            Ok(Err(status)) => Err(Error::Call { call, status: Box::new(status) }),
            Err(_elapsed) => Err(Error::TimedOut { call, limit }),
        }
    }

    /// The version of containerd; also a way to ask whether it is there.
    pub(crate) async fn ask_version(&self) -> Result<String, Error> {
        let answer = self.call("ask containerd for its version", QUICK, ());
        Ok(answer.await?.version)
    }

    /// Makes the namespace. Calls in a namespace that is not there would fail.
    pub(crate) async fn make_namespace(&self) -> Result<(), Error> {
        let namespace = Namespace { name: self.namespace().to_owned(), ..Default::default() };
        let body =
            containerd_client::services::v1::CreateNamespaceRequest { namespace: Some(namespace) };
        let answer = self.call("make the containerd namespace", QUICK, body);
        match answer.await {
            Err(error) if !error.is_taken() => Err(error),
            _ => Ok(()),
        }
    }

    /// Finds out where the content store is.
    pub(crate) async fn find_store(mut self) -> Result<Self, Error> {
        let plugins = self.plugins("io.containerd.content.v1").await?;
        let root = plugins.into_iter().find_map(|mut plugin| plugin.exports.remove("root"));
        let root = root.map(PathBuf::from).filter(|root| root.is_absolute());
        if let Some(root) = root
            && tokio::fs::metadata(&root).await.is_ok()
        {
            self.store = Some(root.into());
        }
        Ok(self)
    }

    /// Picks overlayfs where this machine's containerd can use it, plain copies otherwise.
    pub(crate) async fn choose_snapshotter(&self) -> Result<String, Error> {
        let plugins = self.plugins("io.containerd.snapshotter.v1").await?;
        let works = |name: &str| {
            plugins.iter().any(|plugin| plugin.id == name && plugin.init_err.is_none())
        };
        let chosen = ["overlayfs", "native"].into_iter().find(|name| works(name));
        chosen.map(str::to_owned).ok_or(Error::NoSnapshotter)
    }

    async fn plugins(&self, kind: &str) -> Result<Vec<Plugin>, Error> {
        let body = PluginsRequest { filters: vec![format!("type=={kind}")] };
        let answer = self.call("list containerd's plugins", QUICK, body);
        Ok(answer.await?.plugins)
    }
}

fn read<B: Call>(answer: Bytes) -> Result<B::Answer, Status> {
    B::Answer::decode(answer).map_err(|error| Status::internal(error.to_string()))
}

/// Says whether a call failed before anything was sent, so that it may be made again whatever it
/// does.
pub(crate) fn was_not_sent(status: &Status) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = std::error::Error::source(status);
    while let Some(error) = cause {
        if error.is::<tonic::ConnectError>() {
            return status.code() == Code::Unavailable;
        }
        cause = error.source();
    }
    false
}
