//! Declares the services that nodes offer each other and generates their traits and clients.

use tonic_build::manual::{Builder, Method, MethodBuilder, Service};

fn method(name: &str, route: &str, input: &str, output: &str) -> MethodBuilder {
    Method::builder()
        .name(name)
        .route_name(route)
        .input_type(format!("crate::{input}"))
        .output_type(format!("crate::{output}"))
        .codec_path("crate::MessagePack")
}

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let membership = Service::builder()
        .package("skep")
        .name("Membership")
        .comment("How a machine becomes a node, stays one and leaves.")
        .method(method("root", "Root", "RootRequest", "RootReply").build())
        .method(method("issue", "Issue", "IssueRequest", "IssueReply").build())
        .method(method("leave", "Leave", "LeaveRequest", "Done").build())
        .method(method("enroll", "Enroll", "EnrollRequest", "EnrollReply").build())
        .method(method("number", "Number", "NumberRequest", "EnrollReply").build())
        .build();
    let dispatcher = Service::builder()
        .package("skep")
        .name("Dispatcher")
        .comment("What a manager tells its nodes, and what they tell it.")
        .method(
            method("session", "Session", "SessionRequest", "SessionMessage")
                .server_streaming()
                .build(),
        )
        .method(method("heartbeat", "Heartbeat", "Heartbeat", "HeartbeatReply").build())
        .method(method("acknowledge", "Acknowledge", "Acknowledge", "Done").build())
        .method(method("report", "Report", "Report", "Done").build())
        .method(
            method("publish_logs", "PublishLogs", "LogChunk", "Done").client_streaming().build(),
        )
        .build();
    let managers = Service::builder()
        .package("skep")
        .name("Managers")
        .comment("What managers tell each other.")
        .method(method("raft", "Raft", "RaftMessage", "RaftMessage").build())
        .method(method("order", "Order", "OrderRequest", "OrderReply").build())
        .method(method("barrier", "Barrier", "BarrierRequest", "BarrierReply").build())
        .method(method("logs", "Logs", "LogsRequest", "LogItem").server_streaming().build())
        .build();
    Builder::new().compile(&[membership, dispatcher, managers]);
}
