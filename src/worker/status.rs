//! The rows of view status: the truth at this moment.

use super::health;
use crate::pg::error::Result;
use crate::pg::{extension, spi, time};
use crate::{capture, guc, store, worker};
use indexpilot_core::guard::{Breaker, SKEW_S};
use serde::Deserialize;
use serde_json::json;

type Row = (String, Option<String>, String);

#[derive(Deserialize)]
struct Counts {
    templates: i64,
    pruned: i64,
    reported: i64,
    unplannable: i64,
    samples: i64,
    queued: i64,
    building: i64,
    blocked: i64,
    failed: i64,
    verifying: i64,
    managed: i64,
    proposed: i64,
}

/// All figures, each with its meaning.
pub fn rows() -> Result<Vec<Row>> {
    let mut rows: Vec<Row> = Vec::new();
    let mut add = |name: &str, value: Option<String>, what: &str| rows.push((name.into(), value, what.into()));
    let c = capture::status();
    let sql = extension::version();
    // Otherwise it is not known what the tables look like, and what the server says of itself must do.
    let readable = sql.as_deref() == Some(extension::VERSION);
    let control = if readable { Some(store::control::get()?) } else { None };
    add("version", Some(extension::VERSION.into()), "Version of the library");
    add("sql_version", sql, "Version of the extension's objects in this database");
    add("capture", Some(guc::capture().to_string()), "Statements of this session are captured");
    add("mode", Some(guc::mode().as_str().into()), "indexpilot.mode");
    add("preloaded", Some(c.active.to_string()), "The library was preloaded, so capture and workers can run");
    add("disabled", control.as_ref().map(|c| c.disabled.to_string()), "disable_system() was called in this database");
    add("disabled_reason", control.and_then(|c| c.disabled_reason), "Why, as the caller said");
    add(
        "capture_templates",
        Some(format!("{} of {}", c.entries, c.capacity)),
        "Templates in shared memory, of those that it has room for",
    );
    add(
        "capture_databases",
        Some(c.databases.len().to_string()),
        &format!("Databases of the server that are captured, at most {}", c.databases_capacity),
    );
    add(
        "capture_samples",
        Some(format!("{} of {}", c.samples, c.samples_capacity)),
        "Sampled statements that wait for the worker, of the slots that there are",
    );
    add("capture_epoch", Some(c.epoch.to_string()), "Changes whenever shared memory was made anew: at a start, and after a crash");
    add("capture_dropped", Some(c.dropped.to_string()), "Executions that were not counted because shared memory was full or busy");
    add("capture_evicted", Some(c.evicted.to_string()), "Idle templates that made room in shared memory; nothing of them was lost");
    add(
        "capture_without_queryid",
        Some(c.without_queryid.to_string()),
        "Executions without query identifier; set compute_query_id = auto or on",
    );
    add("capture_samples_dropped", Some(c.samples_dropped.to_string()), "Sampled statements dropped because all slots were taken");
    add("capture_samples_too_long", Some(c.samples_too_long.to_string()), "Statements too long to be sampled");
    add(
        "capture_untracked",
        Some(c.untracked.to_string()),
        "Statements not tracked because too many ran or had open cursors in their session",
    );
    add("capture_temporary", Some(c.temporary.to_string()), "Executions on temporary tables, which are not captured");
    add("capture_failures", Some(c.failures.to_string()), "Failures inside capture, which were caught and cost nobody anything");
    add("shared_memory_bytes", Some(c.bytes.to_string()), "Shared memory that IndexPilot takes");
    let w = worker::processes();
    add(
        "capture_databases_left_out",
        w.as_ref().map(|w| health::left_out(&w.registered, &c.databases).to_string()),
        "Databases that have the extension and are not captured, because there is no room for more",
    );
    let pid = |pid: Option<i32>| pid.filter(|p| *p > 0).map(|p| p.to_string());
    add("launcher_pid", pid(w.as_ref().map(|w| w.launcher)), "Process that starts the workers");
    add(
        "workers_refused",
        w.as_ref().map(|w| w.refused.to_string()),
        "Times that no slot was free for a worker; raise max_worker_processes",
    );
    add(
        "workers_retry_at",
        w.as_ref().and_then(|w| w.retry_at).map(|t| format!("{t:.0}")),
        "When a worker is asked for again after that, seconds since 1970",
    );
    add(
        "databases_unserved",
        w.as_ref().map(|w| w.unserved.to_string()),
        "Times that a database was left alone because too many are looked after",
    );
    let here = w.as_ref().and_then(|w| w.database.as_ref());
    add(
        "registered",
        Some(here.is_some_and(|k| k.registered && c.databases.contains(&k.database.to_u32())).to_string()),
        "A worker found the extension in this database, so it is captured; false too where there is no room for more databases",
    );
    add("worker_pid", pid(here.map(|k| k.worker)), "Process that visits this database just now");
    // Not known when the clock was set back since.
    let age = |at: Option<f64>| at.map(|at| time::now() - at).filter(|s| *s >= -SKEW_S).map(|s| format!("{:.0}", s.max(0.0)));
    add("last_visit_s", age(here.and_then(|k| k.visited_at)), "Seconds since the last visit of a worker ended");
    add(
        "last_visit_failures",
        here.map(|k| k.failed_steps.to_string()),
        "Steps of that visit that failed; the server's log says why",
    );
    add("last_flush_s", age(here.and_then(|k| k.flushed_at)), "Seconds since what was captured was last written to the tables");
    add("builder_pid", pid(here.map(|k| k.builder)), "Process that carries out actions in this database");
    if !readable {
        return Ok(rows);
    }
    let counts: Option<Counts> = spi::row(
        "SELECT (SELECT pg_catalog.count(*) FROM indexpilot.workload) AS templates,
                (SELECT templates_pruned FROM indexpilot.control) AS pruned,
                (SELECT pg_catalog.count(*) FROM indexpilot.reported_stats) AS reported,
                (SELECT pg_catalog.count(*) FROM indexpilot.workload WHERE plan_state = 'unplannable') AS unplannable,
                (SELECT pg_catalog.count(*) FROM indexpilot.workload_sample) AS samples,
                pg_catalog.count(*) FILTER (WHERE state = 'queued') AS queued,
                pg_catalog.count(*) FILTER (WHERE state = 'building') AS building,
                pg_catalog.count(*) FILTER (WHERE state = 'blocked') AS blocked,
                pg_catalog.count(*) FILTER (WHERE state = 'failed') AS failed,
                pg_catalog.count(*) FILTER (WHERE state IN ('built', 'verifying')) AS verifying,
                (SELECT pg_catalog.count(*) FROM indexpilot.managed_indexes WHERE dropped_at IS NULL) AS managed,
                (SELECT pg_catalog.count(*) FROM indexpilot.recommendations WHERE state = 'proposed') AS proposed
           FROM indexpilot.actions",
        json!({}),
    )?;
    if let Some(n) = counts {
        add(
            "templates",
            Some(format!("{} of {}", n.templates, guc::capture_max_templates())),
            "Query templates known in this database, of those that are kept",
        );
        for (name, value, what) in [
            ("templates_pruned", n.pruned, "Templates that were given up because there were more than that"),
            ("reports_waiting", n.reported, "Calls of log_query_stat() that wait for the next flush"),
            ("templates_unplannable", n.unplannable, "Templates whose samples could not be planned again"),
            ("samples", n.samples, "Statements kept for what-if planning"),
            ("recommendations_proposed", n.proposed, "Decisions that wait for approve() or reject()"),
            ("actions_queued", n.queued, "Actions that wait to be started"),
            ("actions_building", n.building, "Actions that run"),
            ("actions_blocked", n.blocked, "Actions that a guard rule or a missing right holds back"),
            ("actions_failed", n.failed, "Actions that failed"),
            ("actions_verifying", n.verifying, "Built indexes that wait for their verdict"),
            ("managed_indexes", n.managed, "Living indexes that IndexPilot made"),
        ] {
            add(name, Some(value.to_string()), what);
        }
    }
    let breaker = match health::breaker()? {
        Breaker::Closed(_) => "closed",
        Breaker::Open(..) => "open",
        Breaker::HalfOpen(_) | Breaker::Trying(_) => "half open",
    };
    add("circuit_breaker", Some(breaker.into()), "Whether actions are held back because too many in a row went wrong");
    let figures = health::figures()?;
    let figure = |of: fn(&health::Figures) -> i64| figures.as_ref().map(|f| of(f).to_string());
    add("unusable_indexes", figure(|f| f.unusable_ours), "Unusable indexes of IndexPilot that no action works on");
    add("actions_observing", figure(|f| f.observing), "Drops that wait whether somebody misses their hidden index");
    add("hidden_indexes", figure(|f| f.hidden), "Indexes that no new plan uses (view hidden_indexes)");
    Ok(rows)
}
