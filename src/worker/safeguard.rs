//! guard, on the side of the server: gathers the facts, asks the rules, counts what they said, and has a build that runs interrupted
//! when a replica falls behind.

use super::outcome;
use crate::apply::facts::{self, Table};
use crate::apply::reconcile::Index;
use crate::pg::bgworker::transaction;
use crate::pg::error::Result;
use crate::pg::load;
use crate::store::action::{self, Action};
use crate::store::analysis::Recommendation;
use crate::store::guard::{self as noted, History};
use crate::store::{managed, protection};
use crate::{guc, pg};
use indexpilot_core::apply::{Kind, State};
use indexpilot_core::guard::{self, Config, Facts, Finding, Verdict};

/// What the rules say of an action now. In a transaction of the builder, which alone counts.
pub fn review(action: &Action, table: &Table, index: Option<&Index>) -> Result<Vec<Finding>> {
    let config = config();
    let facts = facts_of(action, table, index, &config)?;
    let findings = guard::review(&facts, &config);
    noted::count(action.id, &findings, guard::overloaded(&facts, &config))?;
    Ok(findings)
}

fn facts_of(action: &Action, table: &Table, index: Option<&Index>, config: &Config) -> Result<Facts> {
    let history = noted::history(&noted::Subject {
        table_id: action.table_id,
        definition: &action.definition,
        index_id: action.index_id,
        index_schema: &action.index_schema,
        index_name: &action.index_name,
        recommendation_id: action.recommendation_id,
    })?;
    // Found by its tag, it may have another name than the action says.
    let protected = history.protected || index.map(|i| protection::is_protected(i.oid)).transpose()?.unwrap_or(false);
    let around = facts::surroundings(action.table_id)?;
    let managed = managed::sum()?;
    // Whoever works on the table may have it locked, and then the rule for that speaks.
    let sizes = if around.running_ddl.is_none() { facts::sizes(action.table_id)? } else { facts::Sizes::default() };
    // A rebuild needs what the index takes; what is built again, what it took.
    let estimated_bytes = action.estimated_bytes.or(index.map(|i| i.bytes)).or(history.built_bytes).unwrap_or(0);
    Ok(Facts {
        protected,
        explicit: action.explicit(),
        reverts: action.reverts.is_some(),
        local_time: local_time(config)?,
        load_per_core: load::per_core(),
        oldest_transaction_s: around.oldest_transaction_s,
        prepared_on_table: around.prepared_on_table,
        oldest_prepared_s: around.oldest_prepared_s,
        running_ddl: around.running_ddl,
        wraparound_vacuum: around.wraparound_vacuum,
        replica_lag_bytes: around.replica_lag_bytes,
        indexes_on_table: table.indexes,
        managed_indexes: managed.number,
        table_bytes: sizes.table_bytes,
        index_bytes: sizes.index_bytes,
        estimated_bytes,
        free_bytes: facts::free_bytes(action.table_id)?,
        managed_bytes: managed.bytes,
        // Decisions on it are carried out on its partitions, which nothing else may come by.
        table_refused: table.refused.clone().or_else(|| {
            table.partitioned.then(|| "it is partitioned; approve a decision on it, or name its partitions".to_owned())
        }),
        ..from_history(action.kind, around.server_version, history)
    })
}

fn from_history(kind: Kind, server_version: u32, history: History) -> Facts {
    Facts {
        disabled: history.disabled,
        started_s_ago: history.started_s_ago,
        history: history.past,
        overloaded_s_ago: history.overloaded_s_ago,
        reverted_s_ago: history.reverted_s_ago,
        reverted_times: history.reverted_times,
        protected: history.protected,
        table_reads: history.reads,
        table_writes: history.writes,
        ..Facts::new(kind, server_version)
    }
}

/// Only where it matters.
fn local_time(config: &Config) -> Result<Option<guard::LocalTime>> {
    match config.window {
        Some(_) => facts::local_time(guc::guard_window_timezone().as_deref()),
        None => Ok(None),
    }
}

/// What stands against changing the indexes of a table now, apart from any action, because somebody wants it: the time, the load, the
/// locks. In a transaction.
pub fn objection(table_id: u32) -> Result<Option<String>> {
    let config = config();
    let facts = around(table_id, &config)?;
    Ok(guard::decisive(&guard::review(&facts, &config)).map(|f| format!("{}: {}", f.rule, f.detail)))
}

/// The same of a build inside the caller's transaction, which waits for no old transaction and takes so many bytes.
pub fn objection_inline(table_id: u32, estimated_bytes: u64) -> Result<Option<String>> {
    let config = config();
    let free_bytes = facts::free_bytes(table_id)?;
    let facts = Facts { oldest_transaction_s: None, estimated_bytes, free_bytes, ..around(table_id, &config)? };
    Ok(guard::decisive(&guard::review(&facts, &config)).map(|f| format!("{}: {}", f.rule, f.detail)))
}

fn around(table_id: u32, config: &Config) -> Result<Facts> {
    let history = noted::history(&noted::Subject { table_id, ..noted::Subject::default() })?;
    let around = facts::surroundings(table_id)?;
    Ok(Facts {
        explicit: true,
        disabled: history.disabled,
        overloaded_s_ago: history.overloaded_s_ago,
        local_time: local_time(config)?,
        load_per_core: load::per_core(),
        oldest_transaction_s: around.oldest_transaction_s,
        prepared_on_table: around.prepared_on_table,
        oldest_prepared_s: around.oldest_prepared_s,
        running_ddl: around.running_ddl,
        wraparound_vacuum: around.wraparound_vacuum,
        replica_lag_bytes: around.replica_lag_bytes,
        ..Facts::new(Kind::Create, around.server_version)
    })
}

/// Indexes that the same decision adds.
#[derive(Clone, Copy, Default)]
pub struct Added {
    number: usize,
    bytes: u64,
}

impl Added {
    pub fn add(&mut self, bytes: i64) {
        self.number += 1;
        self.bytes += bytes.max(0) as u64;
    }
}

/// What stands for or against proposing an index, whatever the server is doing just now.
pub fn lasting(r: &Recommendation, table: &Table, on_table: &Added, in_all: &Added) -> Result<Facts> {
    let name = r.index_name.clone().unwrap_or_default();
    let history = noted::history(&noted::Subject {
        table_id: r.table_id,
        definition: &r.definition,
        index_id: None,
        index_schema: &r.table_schema,
        index_name: &name,
        recommendation_id: None,
    })?;
    let around = facts::surroundings(r.table_id)?;
    let managed = managed::sum()?;
    let sizes = if around.running_ddl.is_none() { facts::sizes(r.table_id)? } else { facts::Sizes::default() };
    Ok(Facts {
        // Actions come and go until this one's turn; what it is told of them is for its turn.
        started_s_ago: Vec::new(),
        history: Vec::new(),
        overloaded_s_ago: None,
        indexes_on_table: table.indexes + on_table.number,
        managed_indexes: managed.number + in_all.number,
        table_bytes: sizes.table_bytes,
        index_bytes: sizes.index_bytes + on_table.bytes,
        estimated_bytes: r.estimated_bytes.max(0) as u64,
        free_bytes: facts::free_bytes(r.table_id)?,
        managed_bytes: managed.bytes,
        table_refused: table.refused.clone(),
        local_time: local_time(&config())?,
        ..from_history(Kind::Create, around.server_version, history)
    })
}

/// The limits of the guard, from the settings.
pub fn config() -> Config {
    Config {
        mode: match guc::mode() {
            guc::Mode::Off => guard::Mode::Off,
            guc::Mode::Observe => guard::Mode::Observe,
            guc::Mode::Advise => guard::Mode::Advise,
            guc::Mode::Apply => guard::Mode::Apply,
        },
        apply: guc::apply(),
        window: guc::guard_window(),
        max_actions_per_hour: guc::guard_max_actions_per_hour(),
        max_actions_per_day: guc::guard_max_actions_per_day(),
        breaker_failures: guc::guard_breaker_failures(),
        breaker_pause_s: guc::guard_breaker_pause().as_secs_f64(),
        max_load: guc::guard_max_load(),
        load_cooldown_s: guc::guard_load_cooldown().as_secs_f64(),
        max_transaction_age_s: guc::guard_max_transaction_age().as_secs_f64(),
        max_indexes_per_table: guc::guard_max_indexes_per_table(),
        max_indexes: guc::guard_max_indexes(),
        max_index_share: guc::guard_max_index_share(),
        max_writes_per_read: guc::guard_max_writes_per_read(),
        free_disk_factor: guc::guard_free_disk_factor(),
        cooldown_s: guc::guard_cooldown().as_secs_f64(),
        storage_budget: guc::select_storage_budget(),
        max_replica_lag: guc::guard_max_replica_lag(),
        min_server_version: guc::guard_min_server_version(),
    }
}

/// Has builds that run interrupted when a replica lags beyond the limit. The builder cannot look by itself while it builds, so the
/// worker does, outside a transaction: what it wants is committed before the builder is told, which then finds it there.
pub fn watch() -> Result<()> {
    let config = config();
    if config.max_replica_lag.is_none() {
        return Ok(());
    }
    let stopped = transaction("indexpilot: watching running builds", || {
        let running = action::in_states(&[State::Building])?;
        if running.is_empty() {
            return Ok(Vec::new());
        }
        let lag = facts::replica_lag_bytes()?;
        let version = pg::startup::server_version();
        let mut stopped = Vec::new();
        for action in running {
            let findings = guard::review(&Facts { replica_lag_bytes: lag, ..Facts::new(action.kind, version) }, &config);
            let objection = findings.into_iter().find(|f| f.rule == "replica_lag" && f.verdict != Verdict::Pass);
            if let Some(f) = objection.filter(|_| action.worker_pid.is_some()) {
                if noted::note_stop(action.id, action.attempts, f.rule, &f.detail)? {
                    pgrx::log!("indexpilot: guard: interrupts action {}: {}: {}", action.id, f.rule, f.detail);
                }
                // Also when it was noted before: the builder was not at it yet.
                stopped.push(action);
            }
        }
        Ok(stopped)
    })?;
    for action in stopped {
        transaction("indexpilot: interrupting a build", || outcome::interrupt_build(action.worker_pid))?;
    }
    Ok(())
}
