//! Capture: counts executions in shared memory and samples statements; never raises, never waits, never uses SPI.
//!
//! `hooks` sees the statements and calls `backend`, which is the session's own part: what is running now, and in `local` what it has
//! counted and not handed in yet (`sessions` asks for that). `table` has the counters of all sessions, an `entry` for each
//! template, `sample` the statements on their
//! way to the worker, `databases` says where to capture at all, `tenants` what names the tenant; `dump` carries all that over a restart.
//! `uses` remembers between the planning of a function's statement and its execution. Without preload everything here answers with
//! nothing.

mod backend;
mod databases;
mod dump;
mod entry;
mod hooks;
mod local;
mod sample;
mod sessions;
mod table;
pub mod tenants;
#[cfg(any(test, feature = "pg_test"))]
mod tests;
mod uses;

use crate::pg::{encoding, statement, xact};
use indexpilot_core::histogram::BUCKETS;
use indexpilot_core::trial::Arm;
use std::time::Duration;

pub use databases::MAX as MAX_DATABASES;
pub use sample::CapturedSample;

/// Counters of one template since they were last taken.
#[derive(Clone, Debug)]
pub struct Captured {
    /// OID of the role that ran it.
    pub role: u32,
    /// Tenant (`indexpilot.tenant_id`), at most 63 bytes; empty when the session had none.
    pub tenant: String,
    /// The server's, as in pg_stat_statements, where it is computed; else made of the text (`indexpilot_core::template`).
    pub queryid: u64,
    /// Hash of the OIDs of the base tables.
    pub relations_hash: u64,
    /// It ran inside a function, procedure or trigger.
    pub nested: bool,
    /// What its transaction saw of the indexes on trial.
    pub arm: Arm,
    /// OIDs of the base tables, ascending, at most 16; catalogs and views are left out.
    pub relations: Vec<u32>,
    /// There are more base tables than `relations` names.
    pub relations_truncated: bool,
    /// As in `workload.command`.
    pub command: &'static str,
    /// Executions that completed; everything below but the errors is about these.
    pub calls: u64,
    /// Executions that ended in an error or a cancel.
    pub errors: u64,
    /// Time that the failed executions took, milliseconds.
    pub error_ms: f64,
    pub rows: u64,
    pub total_ms: f64,
    /// Sum of the squares of the times in milliseconds.
    pub sum_squares_ms: f64,
    /// Shortest and longest execution, milliseconds; 0 when none completed.
    pub min_ms: f64,
    pub max_ms: f64,
    /// Executions by duration (`indexpilot_core::histogram`).
    pub histogram: [u64; BUCKETS],
    /// Sum of the planner's cost estimates.
    pub planner_cost: f64,
    pub shared_blocks_hit: u64,
    pub shared_blocks_read: u64,
    /// Temporary blocks read and written.
    pub temp_blocks: u64,
    pub wal_bytes: u64,
}

/// How capture is doing.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// The library was preloaded, so there is shared memory.
    pub active: bool,
    /// Templates in the table, and how many it has room for.
    pub entries: u64,
    pub capacity: u64,
    /// Executions that found no room in the table, or its lock busy.
    pub dropped: u64,
    /// Entries freed because they were idle.
    pub evicted: u64,
    /// Samples that wait for the worker, and how many there is room for.
    pub samples: u64,
    pub samples_capacity: u64,
    /// Samples that found no free slot.
    pub samples_dropped: u64,
    /// Statements longer than a slot.
    pub samples_too_long: u64,
    /// Statements without a query identifier (`compute_query_id = off`): they are not captured.
    pub without_queryid: u64,
    /// Statements that were not tracked because too many ran or had open cursors in their session.
    pub untracked: u64,
    /// Statements on temporary tables, which are not captured.
    pub temporary: u64,
    /// Failures of the capture code itself, which were caught.
    pub failures: u64,
    /// Shared memory, bytes.
    pub bytes: u64,
    /// Microseconds since 1970-01-01 when the shared memory was made: it changes when the server starts and after a crash.
    pub epoch: u64,
    /// OIDs of the databases that are captured.
    pub databases: Vec<u32>,
    /// Databases that can be captured at a time.
    pub databases_capacity: usize,
}

/// Takes shared memory and installs the hooks. From `_PG_init`, and only while the server preloads its libraries.
pub fn init() {
    table::init();
    sample::init();
    databases::init();
    sessions::init();
    tenants::init();
    backend::init();
    dump::init();
    hooks::init();
}

/// Captures a database from now on (until the server stops or crashes); false when there is no shared memory, or as many databases as
/// there is room for are captured already.
pub fn register_database(oid: pgrx::pg_sys::Oid) -> bool {
    databases::register(oid.to_u32())
}

/// Captures a database no longer, and forgets what was not taken yet.
pub fn unregister_database(oid: pgrx::pg_sys::Oid) {
    databases::unregister(oid.to_u32());
    clear(oid);
}

/// Hands in what this session has counted, and asks the other sessions of the database, for at most that long.
pub fn collect(database: pgrx::pg_sys::Oid, patience: Duration) {
    backend::hand_in(false);
    sessions::ask(database.to_u32(), patience);
}

/// Takes what was counted in a database: each count is returned once. Also frees entries that were idle for long, so it is to be
/// called regularly.
pub fn take_stats(database: pgrx::pg_sys::Oid) -> Vec<Captured> {
    let Some(table) = table::Table::get() else { return Vec::new() };
    let taken = table.take(database.to_u32());
    let all = taken.iter().map(captured).collect();
    // Whatever becomes of the transaction that is to keep it, nothing is lost.
    xact::at_end(move |committed| {
        if !committed {
            taken.iter().for_each(|t| table.give_back(t));
            databases::changed();
        }
    });
    all
}

/// Takes the samples that wait for a database.
pub fn take_samples(database: pgrx::pg_sys::Oid) -> Vec<CapturedSample> {
    sample::Ring::get().map_or_else(Vec::new, |ring| ring.take(database.to_u32()))
}

/// Forgets everything of a database: for `capture_reset()` and for databases that are gone.
pub fn clear(database: pgrx::pg_sys::Oid) {
    if let Some(table) = table::Table::get() {
        table.clear(database.to_u32());
    }
    if let Some(ring) = sample::Ring::get() {
        ring.clear(database.to_u32());
    }
    // Sessions remember what samples there are of their templates.
    databases::changed();
}

/// How capture is doing, on the whole server.
pub fn status() -> Status {
    let (Some(table), Some(ring)) = (table::Table::get(), sample::Ring::get()) else { return Status::default() };
    let (table, ring, backends) = (table.usage(), ring.usage(), backend::usage());
    Status {
        active: true,
        entries: table.used,
        capacity: table.capacity,
        dropped: table.dropped,
        evicted: table.evicted,
        samples: ring.waiting,
        samples_capacity: ring.capacity,
        samples_dropped: ring.dropped,
        samples_too_long: ring.too_long,
        without_queryid: backends.without_queryid,
        untracked: backends.untracked,
        temporary: backends.temporary,
        failures: backends.failures,
        bytes: table.bytes + ring.bytes + tenants::bytes() + sessions::bytes(),
        epoch: backends.epoch,
        databases: databases::all(),
        databases_capacity: MAX_DATABASES,
    }
}

fn captured(t: &entry::Taken) -> Captured {
    let ms = |ns: u64| ns as f64 / 1e6;
    let c = t.counts;
    Captured {
        role: t.key.role,
        tenant: encoding::to_utf8(t.key.tenant()),
        queryid: t.key.queryid,
        relations_hash: t.key.relations_hash,
        nested: t.key.nested,
        arm: Arm::of(u32::from(t.key.arm)),
        relations: t.template.relations.into_iter().take(t.template.relation_count as usize).collect(),
        relations_truncated: t.template.truncated,
        command: statement::command_name(t.template.command),
        calls: c.calls,
        errors: c.errors,
        error_ms: ms(c.error_ns),
        rows: c.rows,
        total_ms: ms(c.ns),
        sum_squares_ms: c.sum_squares_us / 1e6,
        min_ms: ms(c.min_ns),
        max_ms: ms(c.max_ns),
        histogram: t.histogram,
        planner_cost: c.planner_cost,
        shared_blocks_hit: c.blocks_hit,
        shared_blocks_read: c.blocks_read,
        temp_blocks: c.blocks_temp,
        wal_bytes: c.wal_bytes,
    }
}
