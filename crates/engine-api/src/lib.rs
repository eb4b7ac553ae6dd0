//! The Docker Engine HTTP API: parse, call, render.
mod json;
