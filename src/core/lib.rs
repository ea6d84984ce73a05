//! core
#![forbid(unsafe_code)]
pub mod apply;
pub mod guard;
pub mod histogram;
pub mod model;
pub mod verify;
pub mod workload;
