//! The decisions of IndexPilot, without PostgreSQL: owned data in, owned data out.
//!
//! workload → candidate → whatif → select → guard → apply → verify, each a module with one verb: `build`, `generate`, `cost`, `solve`,
//! `review`, `next`, `judge`. Nothing here reads a clock, a setting or a catalog.
#![forbid(unsafe_code)]

pub mod apply;
pub mod cache;
pub mod candidate;
pub mod ddl;
pub mod diff;
pub mod effort;
pub mod exchange;
#[cfg(test)]
mod fixture;
pub mod guard;
pub mod histogram;
pub mod literal;
pub mod model;
pub mod profile;
pub mod rollback;
pub mod select;
pub mod size;
pub mod statement;
pub mod template;
pub mod tenant;
pub mod trial;
pub mod verify;
pub mod whatif;
pub mod why;
pub mod workload;
