//! guard: may this action start now? Each rule is a pure function with a code that never changes; all are evaluated and all are
//! shown, so that a person sees everything that stands in the way at once, not only the first thing.

mod control;
mod limits;
mod locks;
mod pace;
mod window;

pub use pace::{Breaker, Outcome, Past, SKEW_S, breaker, overloaded};
pub use window::{LocalTime, Window, parse_days, parse_time};

use crate::apply::Kind;
use crate::model::Bytes;
use serde::Serialize;

/// What a rule says. The order is the order of severity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Nothing against it.
    Pass,
    /// Not now: the action stays queued and is looked at again.
    Wait,
    /// Not at all: the action is blocked until somebody changes something.
    Refuse,
}

/// What one rule found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Code of the rule.
    pub rule: &'static str,
    pub verdict: Verdict,
    /// The finding in words, with figures.
    pub detail: String,
}

/// What IndexPilot may do by itself (`indexpilot.mode`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    Off,
    Observe,
    Advise,
    Apply,
}

/// The state of the server, the table and the action, as plain figures.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Facts {
    pub kind: Kind,
    /// A person asked for the action (a function call), rather than the worker.
    pub explicit: bool,
    /// The action takes back an earlier one.
    pub reverts: bool,
    /// `server_version_num`, such as 150020.
    pub server_version: u32,
    /// Why `disable_system()` was called, when it was.
    pub disabled: Option<String>,
    /// The time in the zone of the maintenance window; needed only where there is one.
    pub local_time: Option<LocalTime>,
    /// How long ago actions were started in this database, seconds, those that took something back left out.
    pub started_s_ago: Vec<f64>,
    /// How the latest actions of this database went, those that took something back left out.
    pub history: Vec<Past>,
    /// Load average of the last minute for each processor; `None` when it cannot be told.
    pub load_per_core: Option<f64>,
    /// How long ago an action last waited for the load itself, seconds.
    pub overloaded_s_ago: Option<f64>,
    /// Age of the oldest other transaction in this database, seconds.
    pub oldest_transaction_s: Option<f64>,
    /// Prepared transactions that hold a lock on the table.
    pub prepared_on_table: usize,
    /// Age of the oldest prepared transaction in this database, seconds.
    pub oldest_prepared_s: Option<f64>,
    /// Other DDL or maintenance that runs on the table, in words (`CREATE INDEX by process 4711`).
    pub running_ddl: Option<String>,
    /// An autovacuum against transaction ID wraparound works on the table.
    pub wraparound_vacuum: bool,
    /// Indexes that the table has.
    pub indexes_on_table: usize,
    /// Indexes that IndexPilot made in this database and that are still there.
    pub managed_indexes: usize,
    /// Size of the table without its indexes, bytes.
    pub table_bytes: Bytes,
    /// Size of all indexes of the table, bytes.
    pub index_bytes: Bytes,
    /// Captured statements that read the table; updates and deletes do.
    pub table_reads: u64,
    /// Captured statements that wrote to the table.
    pub table_writes: u64,
    /// Estimated size of the index, bytes.
    pub estimated_bytes: Bytes,
    /// Free space where the index would go, bytes; `None` when it cannot be told.
    pub free_bytes: Option<Bytes>,
    /// Size of all indexes that IndexPilot made and that are still there, bytes.
    pub managed_bytes: Bytes,
    /// How long ago an index of the same definition was taken back, seconds.
    pub reverted_s_ago: Option<f64>,
    /// How often it was.
    pub reverted_times: usize,
    /// Why no index may be made on the table; `None` when one may.
    pub table_refused: Option<String>,
    /// The index is in `protected_indexes`.
    pub protected: bool,
    /// Largest replay lag of a connected replica, bytes; `None` without replicas.
    pub replica_lag_bytes: Option<Bytes>,
}

impl Facts {
    /// Facts against which no rule has anything, for callers to fill in.
    pub fn new(kind: Kind, server_version: u32) -> Self {
        Facts {
            kind,
            explicit: false,
            reverts: false,
            server_version,
            disabled: None,
            local_time: None,
            started_s_ago: Vec::new(),
            history: Vec::new(),
            load_per_core: None,
            overloaded_s_ago: None,
            oldest_transaction_s: None,
            prepared_on_table: 0,
            oldest_prepared_s: None,
            running_ddl: None,
            wraparound_vacuum: false,
            indexes_on_table: 0,
            managed_indexes: 0,
            table_bytes: 0,
            index_bytes: 0,
            table_reads: 0,
            table_writes: 0,
            estimated_bytes: 0,
            free_bytes: None,
            managed_bytes: 0,
            reverted_s_ago: None,
            reverted_times: 0,
            table_refused: None,
            protected: false,
            replica_lag_bytes: None,
        }
    }

    /// The action adds an index (rather than removing or rebuilding one).
    fn adds(&self) -> bool {
        self.kind == Kind::Create
    }

    /// The action needs room for a new index.
    fn builds(&self) -> bool {
        self.kind != Kind::Drop
    }
}

/// The limits, from the settings.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    pub mode: Mode,
    /// `indexpilot.apply`
    pub apply: bool,
    /// `None`: at any time.
    pub window: Option<Window>,
    pub max_actions_per_hour: usize,
    pub max_actions_per_day: usize,
    /// Bad outcomes in a row that open the circuit breaker; 0 = never.
    pub breaker_failures: usize,
    /// Seconds.
    pub breaker_pause_s: f64,
    /// Load average for each processor; `None` = the load does not matter.
    pub max_load: Option<f64>,
    /// Seconds.
    pub load_cooldown_s: f64,
    /// Seconds.
    pub max_transaction_age_s: f64,
    pub max_indexes_per_table: usize,
    /// Indexes of IndexPilot in a database.
    pub max_indexes: usize,
    /// Size of all indexes of a table, as a multiple of the table's.
    pub max_index_share: f64,
    pub max_writes_per_read: f64,
    /// Multiple of the estimated size that must be free.
    pub free_disk_factor: f64,
    /// Seconds.
    pub cooldown_s: f64,
    /// Bytes that all indexes of IndexPilot may take together; `None` = no limit.
    pub storage_budget: Option<Bytes>,
    /// Bytes; `None` = replicas are not looked at.
    pub max_replica_lag: Option<Bytes>,
    /// Oldest server on which indexes are built, such as 150009; 0 = any without a known defect.
    pub min_server_version: u32,
}

type Rule = fn(&Facts, &Config) -> Finding;

/// All rules, in the order in which they are shown: switches first, then what time alone cures, then what needs a person.
const RULES: &[Rule] = &[
    control::mode,
    control::disabled,
    control::apply,
    window::window,
    pace::rate_limit,
    pace::rate_limit_day,
    pace::circuit_breaker,
    pace::load,
    locks::old_transactions,
    locks::prepared_transactions,
    locks::running_ddl,
    locks::wraparound_vacuum,
    limits::index_cap,
    limits::index_total,
    limits::index_share,
    limits::write_overhead,
    limits::free_disk,
    limits::storage_budget,
    limits::replica_lag,
    pace::cooldown,
    limits::table_refused,
    limits::protected,
    limits::minor_version,
];

/// The findings of all rules, those that pass included.
pub fn review(facts: &Facts, config: &Config) -> Vec<Finding> {
    RULES.iter().map(|rule| rule(facts, config)).collect()
}

/// The gravest verdict of all; no findings pass.
pub fn outcome(findings: &[Finding]) -> Verdict {
    findings.iter().map(|f| f.verdict).max().unwrap_or(Verdict::Pass)
}

/// The finding that decides: the first of the gravest verdict, unless everything passes.
pub fn decisive(findings: &[Finding]) -> Option<&Finding> {
    let worst = outcome(findings);
    findings.iter().find(|f| f.verdict == worst && worst != Verdict::Pass)
}

fn pass(rule: &'static str, detail: impl Into<String>) -> Finding {
    Finding { rule, verdict: Verdict::Pass, detail: detail.into() }
}

fn wait(rule: &'static str, detail: impl Into<String>) -> Finding {
    Finding { rule, verdict: Verdict::Wait, detail: detail.into() }
}

fn refuse(rule: &'static str, detail: impl Into<String>) -> Finding {
    Finding { rule, verdict: Verdict::Refuse, detail: detail.into() }
}

/// Bytes in megabytes, for details.
fn mb(bytes: Bytes) -> String {
    format!("{:.1} MB", bytes as f64 / (1024.0 * 1024.0))
}

#[cfg(test)]
mod tests;
