//! From what is known of endpoints to kernel rules and DNS answers.
//!
//! The heart of the system, and pure: no socket, no clock. It does not know how knowledge travels
//! nor how rules are written into a kernel. Start with [`project`]; [`answer`] is the name server.
//!
//! Invariants: balancers and names come out of one pass, so they cannot disagree: a task is a back
//! end of its service's VIP exactly if `tasks.<service>` names it, and only while it serves. A name
//! never resolves to a VIP that nobody will serve: a service has its name from the first endpoint
//! on, and while none of them serves its VIP refuses at once. Projecting the same twice gives the
//! same.

mod difference;
mod model;
mod names;
mod project;
mod zone;

pub use difference::{
    Difference, KnowledgeDifference, MeshDifference, MeshSettings, NetworkDifference,
    NetworkSettings, PortDifference, SetDifference,
};
pub use imbl::{OrdMap, OrdSet};
pub use model::{
    Depth, Desired, Endpoint, Here, Interface, Kernel, Knowledge, Mesh, MeshNode, MeshPort,
    MeshRules, MeshTask, NetworkView, Outcome, Overlay, Place, PortRules, Sandbox,
    SandboxAttachment, SandboxRules, ServiceView, Vips,
};
pub use names::{Names, Records};
pub use project::{Projection, desired, in_turn, places, project, zones};
pub use zone::{Answer, Kind, Question, TTL, Upstream, Zone, answer};
