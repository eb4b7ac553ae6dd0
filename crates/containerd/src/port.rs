//! The words of the engine's port that are used here.

pub(crate) use engine::{
    Answer, Archive, Credentials, DeviceUse, Distribution, Exit, Happening, Image, Progress,
    Runtime, Size, State, Stdio, Usage,
};
