//! The tables of schema indexpilot: the only module that writes them.

pub mod action;
pub mod log;
pub mod managed;
pub mod verification;
