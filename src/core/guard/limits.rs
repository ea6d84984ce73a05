//! Rules about size, number, history and fitness: mostly what only a person can change.

use super::{Config, Facts, Finding, mb, pass, refuse, wait};
use crate::model::Bytes;

/// Indexes that take less than this together are no burden, whatever the size of their table.
const SMALL_INDEXES: Bytes = 16 << 20;
/// Fewer writes than these say nothing about how a table is used.
const FEW_WRITES: u64 = 1000;

/// Every index of the table counts, whoever made it.
pub(super) fn index_cap(facts: &Facts, config: &Config) -> Finding {
    let rule = "index_cap";
    let detail = format!("the table has {} indexes, the limit is {}", facts.indexes_on_table, config.max_indexes_per_table);
    match !facts.adds() || facts.indexes_on_table < config.max_indexes_per_table {
        true => pass(rule, detail),
        false => refuse(rule, detail),
    }
}

/// Sort runs and the index stand side by side. Where the free space cannot be told the rule passes and says so.
pub(super) fn free_disk(facts: &Facts, config: &Config) -> Finding {
    let rule = "free_disk";
    if !facts.builds() {
        return pass(rule, "a drop needs no space");
    }
    let needed = (facts.estimated_bytes as f64 * config.free_disk_factor) as u64;
    match facts.free_bytes {
        None => pass(rule, format!("the free space is unknown; {} are needed", mb(needed))),
        Some(free) if free < needed => wait(rule, format!("{} are free, {} are needed", mb(free), mb(needed))),
        Some(free) => pass(rule, format!("{} are free, {} are needed", mb(free), mb(needed))),
    }
}

/// All indexes that IndexPilot made, with this one, stay within the budget. A rebuild replaces what is counted already.
pub(super) fn storage_budget(facts: &Facts, config: &Config) -> Finding {
    let rule = "storage_budget";
    let Some(budget) = config.storage_budget else {
        return pass(rule, "there is no storage budget");
    };
    let detail = format!(
        "{} are taken, {} more are wanted, the budget is {}",
        mb(facts.managed_bytes),
        mb(facts.estimated_bytes),
        mb(budget)
    );
    match !facts.adds() || facts.managed_bytes.saturating_add(facts.estimated_bytes) <= budget {
        true => pass(rule, detail),
        false => refuse(rule, detail),
    }
}

/// A build writes as much log as the index is large; a replica that lags already would lag further.
pub(super) fn replica_lag(facts: &Facts, config: &Config) -> Finding {
    let rule = "replica_lag";
    match (facts.replica_lag_bytes, config.max_replica_lag) {
        (None, _) => pass(rule, "no replica is connected"),
        (Some(lag), None) => pass(rule, format!("a replica lags by {}; there is no limit", mb(lag))),
        (Some(lag), Some(limit)) if lag > limit && facts.builds() => {
            wait(rule, format!("a replica lags by {}, the limit is {}", mb(lag), mb(limit)))
        }
        (Some(lag), Some(limit)) => pass(rule, format!("a replica lags by {}, the limit is {}", mb(lag), mb(limit))),
    }
}

/// The indexes of IndexPilot in this database do not become too many for those who look after them.
pub(super) fn index_total(facts: &Facts, config: &Config) -> Finding {
    let rule = "index_total";
    let detail = format!("IndexPilot has {} indexes in this database, the limit is {}", facts.managed_indexes, config.max_indexes);
    match !facts.adds() || facts.managed_indexes < config.max_indexes {
        true => pass(rule, detail),
        false => refuse(rule, detail),
    }
}

/// Indexes that are together much larger than their table cost more memory than they spare. Small ones cost nothing.
pub(super) fn index_share(facts: &Facts, config: &Config) -> Finding {
    let rule = "index_share";
    let after = facts.index_bytes.saturating_add(facts.estimated_bytes);
    let limit = (facts.table_bytes as f64 * config.max_index_share).max(SMALL_INDEXES as f64);
    let detail = format!(
        "with this one the indexes of the table take {}, the table takes {}, the limit is {} times that",
        mb(after),
        mb(facts.table_bytes),
        config.max_index_share
    );
    match !facts.adds() || (after as f64) <= limit {
        true => pass(rule, detail),
        false => refuse(rule, detail),
    }
}

/// Every index is maintained by every write. Where hardly anybody reads, none pays for long. A person who asks for one has a reason.
pub(super) fn write_overhead(facts: &Facts, config: &Config) -> Finding {
    let rule = "write_overhead";
    let (writes, reads) = (facts.table_writes, facts.table_reads);
    let detail = format!(
        "{writes} statements wrote to the table and {reads} read it, the limit is {} writes for each",
        config.max_writes_per_read
    );
    let too_many = writes >= FEW_WRITES && writes as f64 > config.max_writes_per_read * reads as f64;
    match facts.adds() && too_many {
        true if facts.explicit => pass(rule, format!("{detail}, but somebody asked for it by a call")),
        true => refuse(rule, detail),
        false => pass(rule, detail),
    }
}

/// Tables of a kind that IndexPilot does not index (partitioned, temporary, foreign, of another extension, ...).
pub(super) fn table_refused(facts: &Facts, _config: &Config) -> Finding {
    match &facts.table_refused {
        Some(why) if facts.builds() => refuse("table_refused", format!("no index may be made on the table: {why}")),
        _ => pass("table_refused", "the table may have indexes"),
    }
}

/// `protect(regclass)`: never dropped, never rebuilt.
pub(super) fn protected(facts: &Facts, _config: &Config) -> Finding {
    match facts.protected && !facts.adds() {
        true => refuse("protected", "the index is protected; unprotect() it first"),
        false => pass("protected", "the index is not protected"),
    }
}

/// Minor releases whose concurrent builds can damage an index.
///
/// - 14.0 to 14.3: concurrent builds could silently miss rows.
/// - before 13.6 and 14.2: corruption beside prepared transactions and in rebuilt TOAST indexes.
/// - before 13.7 and 14.3: functions in an index ran with the rights of whoever built it (CVE-2022-1552).
/// - before 13.17, 14.14, 15.9, 16.5 and 17.1: a GRANT on the table at the same moment could undo that the table has an index at
///   all, which then is not maintained. That race is rare, so a person may take it; the worker does not.
///
/// Whoever wants a newer server than these before anything is built says so by `indexpilot.guard_min_server_version`.
pub(super) fn minor_version(facts: &Facts, config: &Config) -> Finding {
    let rule = "minor_version";
    let (major, minor) = (facts.server_version / 10_000, facts.server_version % 10_000);
    if facts.server_version < config.min_server_version && facts.builds() {
        return refuse(
            rule,
            format!("the server is of version {}, the oldest allowed is {}", facts.server_version, config.min_server_version),
        );
    }
    if (major == 13 && minor < 7) || (major == 14 && minor < 4) {
        return refuse(rule, format!("concurrent builds of PostgreSQL {major}.{minor} can damage an index; update the server"));
    }
    let first_good = match major {
        13 => 17,
        14 => 14,
        15 => 9,
        16 => 5,
        17 => 1,
        _ => 0,
    };
    if minor >= first_good {
        return pass(rule, format!("PostgreSQL {major}.{minor} has no known defect of concurrent builds"));
    }
    let detail = format!(
        "in PostgreSQL {major}.{minor} a GRANT during a build can leave the index without maintenance; {major}.{first_good} has the fix"
    );
    if facts.explicit || !facts.builds() { pass(rule, detail) } else { refuse(rule, detail) }
}
