//! The tables of schema indexpilot: the only module that writes them. One file for each table or group of tables.

pub mod action;
pub mod advice;
pub mod analysis;
pub mod comparison;
pub mod control;
pub mod estimate;
pub mod exchange;
pub mod genome;
pub mod guard;
pub mod log;
pub mod managed;
pub mod measure;
pub mod profile;
pub mod protection;
pub mod schema;
pub mod trial;
pub mod verification;
pub mod workload;
