//! core
#![forbid(unsafe_code)]
pub mod candidate;
pub mod model;
pub mod select;
pub mod size;
pub mod whatif;
