//! Which task runs on which node.
//!
//! Start with [`schedule`]: [`filter`] says which nodes can run a task ([`beside`]: because of other services there), [`spread`] which of them it
//! goes to, and [`explain`] why there is none.

mod beside;
mod explain;
mod filter;
#[cfg(test)]
mod oracle;
mod place;
mod spread;

pub(crate) use place::{any_fits, schedule};
