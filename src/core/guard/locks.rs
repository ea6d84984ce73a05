//! Rules about what runs beside the action. A concurrent build waits for writers of its table and for every older snapshot of the
//! database, so starting beside a long one gains nothing and holds back VACUUM meanwhile. All of these pass with time.

use super::{Config, Facts, Finding, pass, wait};

/// No other transaction in the database older than `indexpilot.guard_max_transaction_age`.
pub(super) fn old_transactions(facts: &Facts, config: &Config) -> Finding {
    let rule = "old_transactions";
    let limit = config.max_transaction_age_s;
    match facts.oldest_transaction_s {
        None => pass(rule, "no other transaction is open"),
        Some(age) if age > limit => wait(
            rule,
            format!("a transaction has been open for {age:.0} s, more than {limit:.0} s; a concurrent build would wait for it"),
        ),
        Some(age) => pass(rule, format!("the oldest open transaction is {age:.0} s old, the limit is {limit:.0} s")),
    }
}

/// A prepared transaction on the table blocks the build until somebody finishes it; one elsewhere only when it is old.
pub(super) fn prepared_transactions(facts: &Facts, config: &Config) -> Finding {
    let rule = "prepared_transactions";
    let limit = config.max_transaction_age_s;
    if facts.prepared_on_table > 0 {
        return wait(rule, format!("{} prepared transactions hold locks on the table", facts.prepared_on_table));
    }
    match facts.oldest_prepared_s {
        Some(age) if age > limit => wait(rule, format!("a prepared transaction is {age:.0} s old, more than {limit:.0} s")),
        Some(age) => pass(rule, format!("the oldest prepared transaction is {age:.0} s old, the limit is {limit:.0} s")),
        None => pass(rule, "there are no prepared transactions"),
    }
}

/// Two concurrent builds on one table would wait for each other's snapshot and deadlock.
pub(super) fn running_ddl(facts: &Facts, _config: &Config) -> Finding {
    match &facts.running_ddl {
        Some(what) => wait("running_ddl", format!("other work on the table is running: {what}")),
        None => pass("running_ddl", "no other DDL or VACUUM runs on the table"),
    }
}

/// An autovacuum against wraparound does not give way: the action would wait behind it, and everybody behind the action.
pub(super) fn wraparound_vacuum(facts: &Facts, _config: &Config) -> Finding {
    match facts.wraparound_vacuum {
        true => wait("wraparound_vacuum", "an autovacuum against transaction ID wraparound works on the table"),
        false => pass("wraparound_vacuum", "no autovacuum against transaction ID wraparound works on the table"),
    }
}
