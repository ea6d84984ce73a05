//! The processes: launcher, per-database worker, builder; and the advisor that composes the stages.
