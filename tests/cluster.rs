//! Tests on throw-away clusters: what only shows when servers start, stop, crash and stand by.

#[path = "cluster/apply.rs"]
mod apply;
#[path = "cluster/apply_corners.rs"]
mod apply_corners;
#[path = "cluster/apply_gap.rs"]
mod apply_gap;
#[path = "cluster/apply_partitions.rs"]
mod apply_partitions;
#[path = "cluster/apply_tables.rs"]
mod apply_tables;
#[path = "cluster/canary.rs"]
mod canary;
#[path = "cluster/capture.rs"]
mod capture;
#[path = "cluster/capture_corners.rs"]
mod capture_corners;
#[path = "cluster/capture_errors.rs"]
mod capture_errors;
#[path = "cluster/capture_gone.rs"]
mod capture_gone;
#[path = "cluster/capture_limits.rs"]
mod capture_limits;
#[path = "cluster/capture_replan.rs"]
mod capture_replan;
#[path = "cluster/capture_replan_mix.rs"]
mod capture_replan_mix;
#[path = "cluster/capture_restart.rs"]
mod capture_restart;
#[path = "cluster/capture_rights.rs"]
mod capture_rights;
#[path = "cluster/capture_statements.rs"]
mod capture_statements;
#[path = "cluster/capture_texts.rs"]
mod capture_texts;
#[path = "cluster/exchange.rs"]
mod exchange;
#[path = "cluster/fault.rs"]
mod fault;
#[path = "cluster/fault_life.rs"]
mod fault_life;
#[path = "cluster/fault_server.rs"]
mod fault_server;
#[path = "cluster/guard.rs"]
mod guard;
#[path = "cluster/health.rs"]
mod health;
#[path = "cluster/interplay.rs"]
mod interplay;
#[path = "cluster/life.rs"]
mod life;
#[path = "cluster/orders.rs"]
mod orders;
#[path = "cluster/profile.rs"]
mod profile;
#[path = "cluster/security.rs"]
mod security;
#[path = "cluster/smoke.rs"]
mod smoke;
#[path = "cluster/soak.rs"]
mod soak;
#[path = "cluster/trial.rs"]
mod trial;
#[path = "cluster/upgrade.rs"]
mod upgrade;
#[path = "cluster/verify.rs"]
mod verify;
#[path = "cluster/whatif_hypopg.rs"]
mod whatif_hypopg;
