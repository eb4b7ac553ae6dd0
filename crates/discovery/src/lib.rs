//! From what is known of endpoints to kernel rules and DNS answers.
//!
//! The heart of the system, and pure: no socket, no clock. Start with [`project`].
//!
//! Invariant: balancers and names come out of one pass, so they cannot disagree.

mod model;

pub use model::{
    Desired, Endpoint, Here, Kernel, Knowledge, Mesh, MeshNode, MeshPort, MeshRules, MeshTask,
    NetworkView, Overlay, PortRules, Sandbox, SandboxAttachment, SandboxRules, ServiceView,
};
