//! core
#![forbid(unsafe_code)]
pub mod histogram;
pub mod model;
