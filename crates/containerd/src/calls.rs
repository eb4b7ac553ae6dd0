//! The calls of containerd's API that one message answers. The code that carries them sees bytes
//! alone: it would be made anew for every pair of messages, and that makes a large program.

use bytes::{Buf, BufMut, Bytes};
use containerd_client::services::v1::snapshots::{
    CommitSnapshotRequest, MountsRequest, MountsResponse, PrepareSnapshotRequest,
    PrepareSnapshotResponse, RemoveSnapshotRequest, StatSnapshotRequest, StatSnapshotResponse,
    UsageRequest, UsageResponse, ViewSnapshotRequest, ViewSnapshotResponse,
};
use containerd_client::services::v1::{
    AbortRequest, ApplyRequest, ApplyResponse, CloseIoRequest, CreateContainerRequest,
    CreateContainerResponse, CreateImageRequest, CreateImageResponse, CreateNamespaceRequest,
    CreateNamespaceResponse, CreateRequest, CreateResponse, CreateTaskRequest, CreateTaskResponse,
    DeleteContainerRequest, DeleteImageRequest, DeleteNamespaceRequest, DeleteProcessRequest,
    DeleteRequest, DeleteResponse, DeleteTaskRequest, ExecProcessRequest, GetImageRequest,
    GetImageResponse, GetRequest, GetResponse, KillRequest, ListImagesRequest, ListImagesResponse,
    ListNamespacesRequest, ListNamespacesResponse, ListPidsRequest, ListPidsResponse,
    ListTasksRequest, ListTasksResponse, MetricsRequest, MetricsResponse, PluginsRequest,
    PluginsResponse, PublishRequest, ResizePtyRequest, StartRequest, StartResponse,
    UpdateContainerRequest, UpdateContainerResponse, UpdateImageRequest, UpdateImageResponse,
    UpdateRequest, UpdateResponse, VersionResponse, WaitRequest, WaitResponse,
};
use prost::Message;
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

/// What a call asks. Its type says which call it is.
pub(crate) trait Call: Message {
    const PATH: &str;
    type Answer: Message + Default;
}

macro_rules! calls {
    ($($service:literal { $($method:literal $request:ty => $answer:ty,)* })*) => {
        $($(impl Call for $request {
            const PATH: &str = concat!("/containerd.services.", $service, "/", $method);
            type Answer = $answer;
        })*)*
    };
}

calls! {
    "containers.v1.Containers" {
        "Create" CreateContainerRequest => CreateContainerResponse,
        "Update" UpdateContainerRequest => UpdateContainerResponse,
        "Delete" DeleteContainerRequest => (),
    }
    "content.v1.Content" {
        "Abort" AbortRequest => (),
        "Update" UpdateRequest => UpdateResponse,
    }
    "diff.v1.Diff" {
        "Apply" ApplyRequest => ApplyResponse,
    }
    "events.v1.Events" {
        "Publish" PublishRequest => (),
    }
    "images.v1.Images" {
        "Create" CreateImageRequest => CreateImageResponse,
        "Delete" DeleteImageRequest => (),
        "Get" GetImageRequest => GetImageResponse,
        "List" ListImagesRequest => ListImagesResponse,
        "Update" UpdateImageRequest => UpdateImageResponse,
    }
    "introspection.v1.Introspection" {
        "Plugins" PluginsRequest => PluginsResponse,
    }
    "leases.v1.Leases" {
        "Create" CreateRequest => CreateResponse,
        "Delete" DeleteRequest => (),
    }
    "namespaces.v1.Namespaces" {
        "Create" CreateNamespaceRequest => CreateNamespaceResponse,
        "Delete" DeleteNamespaceRequest => (),
        "List" ListNamespacesRequest => ListNamespacesResponse,
    }
    "snapshots.v1.Snapshots" {
        "Commit" CommitSnapshotRequest => (),
        "Mounts" MountsRequest => MountsResponse,
        "Prepare" PrepareSnapshotRequest => PrepareSnapshotResponse,
        "Remove" RemoveSnapshotRequest => (),
        "Stat" StatSnapshotRequest => StatSnapshotResponse,
        "Usage" UsageRequest => UsageResponse,
        "View" ViewSnapshotRequest => ViewSnapshotResponse,
    }
    "tasks.v1.Tasks" {
        "CloseIO" CloseIoRequest => (),
        "Create" CreateTaskRequest => CreateTaskResponse,
        "Delete" DeleteTaskRequest => DeleteResponse,
        "DeleteProcess" DeleteProcessRequest => DeleteResponse,
        "Exec" ExecProcessRequest => (),
        "Get" GetRequest => GetResponse,
        "Kill" KillRequest => (),
        "List" ListTasksRequest => ListTasksResponse,
        "ListPids" ListPidsRequest => ListPidsResponse,
        "Metrics" MetricsRequest => MetricsResponse,
        "ResizePty" ResizePtyRequest => (),
        "Start" StartRequest => StartResponse,
        "Wait" WaitRequest => WaitResponse,
    }
    "version.v1.Version" {
        "Version" () => VersionResponse,
    }
}

/// Messages as the bytes that they are sent as.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Written;

impl Codec for Written {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Written {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.put(message);
        Ok(())
    }
}

impl Decoder for Written {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}
