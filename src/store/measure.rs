//! What workload_stats says of the queries on one table, before and after a moment.

use crate::pg::error::Result;
use crate::pg::spi;
use indexpilot_core::histogram::Histogram;
use indexpilot_core::verify::{Measured, Role, Window};
use serde::Deserialize;
use serde_json::json;

#[derive(Default, Deserialize)]
struct Sums {
    calls: Option<u64>,
    errors: Option<u64>,
    total_ms: Option<f64>,
    sum_squares_ms: Option<f64>,
    histogram: Option<Vec<i64>>,
}

#[derive(Deserialize)]
struct Row {
    id: i64,
    role: String,
    before: Sums,
    after: Sums,
}

impl From<Sums> for Window {
    fn from(s: Sums) -> Self {
        Window {
            calls: s.calls.unwrap_or(0),
            errors: s.errors.unwrap_or(0),
            total_ms: s.total_ms.unwrap_or(0.0),
            sum_squares_ms: s.sum_squares_ms.unwrap_or(0.0),
            histogram: Histogram::from_counts(&s.histogram.unwrap_or_default()),
        }
    }
}

/// The table of an action and those that it is a partition of, under whose names it is queried too.
const NAMES: &str = "(a.table_id || ARRAY(SELECT n.relid::oid FROM pg_catalog.pg_partition_ancestors(a.table_id::regclass) n))";

/// The action, with the names of its table; `cut`: where what was before it ends; `since`: from where on what is measured after it counts.
/// That is since its index appeared (an observed drop has begun and not ended), and since another index of the table, or of the same
/// decision, that did harm is gone; until that is so nothing counts. Worked out once, and not for each row that it is compared with.
fn action() -> String {
    format!(
        "a AS MATERIALIZED (SELECT a.id, a.recommendation_id, {NAMES} AS names, coalesce(a.finished_at, a.started_at) AS cut,
             greatest(coalesce(a.finished_at, a.started_at),
               (SELECT pg_catalog.max(CASE WHEN d.state IN ('queued', 'building', 'blocked') THEN 'infinity'
                                           ELSE coalesce(d.finished_at, r.verified_at) END)
                  FROM indexpilot.actions r LEFT JOIN indexpilot.actions d ON d.reverts = r.id
                 WHERE r.state = 'reverted' AND r.id <> a.id
                   AND (r.table_id = a.table_id OR r.recommendation_id = a.recommendation_id))) AS since
           FROM indexpilot.actions a WHERE a.id = ($1->>'id')::bigint)"
    )
}

/// An entry of the index can be refused: it has code, or values of any length.
pub fn can_make_writes_fail(index: u32) -> Result<bool> {
    let sql = "SELECT i.indexprs IS NOT NULL OR i.indpred IS NOT NULL
                      OR EXISTS (SELECT FROM pg_catalog.pg_attribute c WHERE c.attrelid = i.indexrelid AND c.attlen < 0) AS can
                 FROM pg_catalog.pg_index i WHERE i.indexrelid = ($1->>'index')::oid";
    Ok(spi::value(sql, json!({ "index": index }))?.unwrap_or(true))
}

/// Some statement on the table of an action has failed since its index appeared, and no index is being built there, which writes maintain
/// already.
pub fn failed_since(action_id: i64) -> Result<bool> {
    let sql = format!(
        "WITH {} SELECT EXISTS (SELECT FROM a JOIN indexpilot.workload w ON w.relations && a.names
                          JOIN indexpilot.workload_stats q ON q.workload_id = w.id AND q.bucket_at >= a.since AND q.errors > 0)
                AND NOT EXISTS (SELECT FROM indexpilot.actions b WHERE b.state = 'building' AND b.kind = 'create'
                                   AND b.table_id = ANY (SELECT pg_catalog.unnest(a.names) FROM a)) AS failed",
        action()
    );
    Ok(spi::value(&sql, json!({ "id": action_id }))?.unwrap_or_default())
}

/// All templates on the table of an action, measured before and after its index appeared. Those that the decision named are cited.
pub fn around_action(action_id: i64) -> Result<Vec<Measured>> {
    let sums = "pg_catalog.jsonb_build_object('calls', pg_catalog.sum(q.calls), 'errors', pg_catalog.sum(q.errors),
                    'total_ms', pg_catalog.sum(q.total_ms), 'sum_squares_ms', pg_catalog.sum(q.sum_squares_ms),
                    'histogram', indexpilot.histogram_sum(q.histogram))";
    read(
        &format!(
            "WITH {}
             SELECT w.id,
                    CASE WHEN w.id = ANY (COALESCE(r.workload_ids, '{{}}')) THEN 'cited'
                         WHEN w.command IN ('insert', 'update', 'delete', 'merge') THEN 'write' ELSE 'other' END AS role,
                    (SELECT {sums} FROM indexpilot.workload_stats q WHERE q.workload_id = w.id AND q.bucket_at < a.cut) AS before,
                    (SELECT {sums} FROM indexpilot.workload_stats q WHERE q.workload_id = w.id AND q.bucket_at >= a.since) AS after
               FROM a LEFT JOIN indexpilot.recommendations r ON r.id = a.recommendation_id
                    JOIN indexpilot.workload w ON w.relations && a.names
              ORDER BY w.id",
            action()
        ),
        json!({ "id": action_id }),
    )
}

/// Rows `id, role, before, after` of a query as what was measured.
pub fn read(sql: &str, args: serde_json::Value) -> Result<Vec<Measured>> {
    let rows: Vec<Row> = spi::rows(sql, args)?;
    Ok(rows
        .into_iter()
        .map(|row| Measured {
            workload_id: row.id,
            role: match row.role.as_str() {
                "cited" => Role::Cited,
                "write" => Role::Write,
                _ => Role::Other,
            },
            before: row.before.into(),
            after: row.after.into(),
        })
        .collect())
}

/// Queries that are compared to tell how the server as a whole changed.
const CONTROLS: usize = 30;

/// The most frequent queries that have nothing to do with the table of an action, before and after.
pub fn controls(action_id: i64) -> Result<Vec<(Window, Window)>> {
    let sums = "pg_catalog.jsonb_build_object('calls', pg_catalog.sum(q.calls), 'errors', pg_catalog.sum(q.errors),
                    'total_ms', pg_catalog.sum(q.total_ms), 'sum_squares_ms', pg_catalog.sum(q.sum_squares_ms),
                    'histogram', indexpilot.histogram_sum(q.histogram))";
    #[derive(Deserialize)]
    struct Pair {
        before: Sums,
        after: Sums,
    }
    let rows: Vec<Pair> = spi::rows(
        &format!(
            "WITH {}
             SELECT (SELECT {sums} FROM indexpilot.workload_stats q WHERE q.workload_id = c.id AND q.bucket_at < a.cut) AS before,
                    (SELECT {sums} FROM indexpilot.workload_stats q WHERE q.workload_id = c.id AND q.bucket_at >= a.since) AS after
               FROM a, LATERAL (
                    SELECT w.id FROM indexpilot.workload w JOIN indexpilot.workload_stats q ON q.workload_id = w.id
                     WHERE w.command = 'select' AND w.relations <> '{{}}' AND NOT w.relations && a.names
                       AND q.bucket_at >= a.since
                     GROUP BY w.id ORDER BY pg_catalog.sum(q.calls) DESC, w.id LIMIT ($1->>'most')::integer) c",
            action()
        ),
        json!({ "id": action_id, "most": CONTROLS }),
    )?;
    Ok(rows.into_iter().map(|r| (r.before.into(), r.after.into())).collect())
}

/// Calls a second, before the change, of each query that the decision on an action named.
pub fn rates(action_id: i64) -> Result<Vec<f64>> {
    #[derive(Deserialize)]
    struct Rate {
        rate: f64,
    }
    let rows: Vec<Rate> = spi::rows(
        "SELECT COALESCE((SELECT (pg_catalog.sum(q.calls) / GREATEST(EXTRACT(epoch FROM a.finished_at - pg_catalog.min(q.bucket_at)), 1))::float8
                            FROM indexpilot.workload_stats q WHERE q.workload_id = c.id AND q.bucket_at < a.finished_at), 0) AS rate
           FROM indexpilot.actions a JOIN indexpilot.recommendations r ON r.id = a.recommendation_id,
                pg_catalog.unnest(r.workload_ids) AS c(id)
          WHERE a.id = ($1->>'id')::bigint AND EXISTS (SELECT FROM indexpilot.workload w WHERE w.id = c.id)",
        json!({ "id": action_id }),
    )?;
    Ok(rows.into_iter().map(|r| r.rate).collect())
}
