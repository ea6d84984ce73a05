//! The decisions of IndexPilot, without PostgreSQL: no unsafe code, no input or output, no clock, no globals.
#![forbid(unsafe_code)]
pub mod candidate;
pub mod ddl;
#[cfg(test)]
mod fixture;
pub mod model;
pub mod select;
pub mod size;
pub mod whatif;
