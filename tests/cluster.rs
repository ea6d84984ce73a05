//! Tests on throw-away clusters: what only shows when servers start, stop, crash and stand by.

#[path = "cluster/apply.rs"]
mod apply;
#[path = "cluster/life.rs"]
mod life;
#[path = "cluster/orders.rs"]
mod orders;
#[path = "cluster/profile.rs"]
mod profile;
#[path = "cluster/smoke.rs"]
mod smoke;
