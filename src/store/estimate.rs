//! Figures for estimates: the builds that were finished, and how planning stored statements went.

use crate::pg::error::Result;
use crate::pg::spi;
use indexpilot_core::effort::{Past, Way};
use indexpilot_core::model::AccessMethod;
use serde::Deserialize;
use serde_json::json;

/// Builds that the rate is taken from: the last ones, because servers change.
const RECENT: usize = 20;

#[derive(Deserialize)]
struct Built {
    table_bytes: u64,
    index_bytes: u64,
    method: Option<AccessMethod>,
    concurrently: bool,
    ms: f64,
}

/// The builds that IndexPilot finished last in this database, of tables that still exist.
pub fn builds() -> Result<Vec<Past>> {
    let rows: Vec<Built> = spi::rows(
        "SELECT pg_catalog.pg_relation_size(c.oid) AS table_bytes, a.index_bytes,
                pg_catalog.substring(a.definition, ' USING (btree|hash|gin|gist|spgist|brin) ') AS method,
                a.statement ~ '^CREATE INDEX CONCURRENTLY ' AS concurrently,
                1000 * EXTRACT(epoch FROM a.finished_at - a.started_at)::float8 AS ms
           FROM indexpilot.actions a JOIN pg_catalog.pg_class c ON c.oid = a.table_id
          WHERE a.kind = 'create' AND a.state IN ('built', 'verifying', 'kept', 'reverted') AND a.index_bytes IS NOT NULL
            AND a.finished_at > a.started_at
          ORDER BY a.id DESC LIMIT ($1->>'recent')::bigint",
        json!({ "recent": RECENT }),
    )?;
    Ok(rows
        .into_iter()
        .map(|b| Past {
            table_bytes: b.table_bytes,
            index_bytes: b.index_bytes,
            method: b.method.unwrap_or_default(),
            way: if b.concurrently { Way::Concurrently } else { Way::InTransaction },
            ms: b.ms,
        })
        .collect())
}

/// How planning stored statements went.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Explained {
    /// Templates of statements that have plans.
    pub templates: f64,
    /// Those of which a sample was planned, successfully or not.
    pub tried: f64,
    pub planned: f64,
    /// Executions of all, and of those that were planned.
    pub calls: f64,
    pub calls_planned: f64,
    pub samples: f64,
    pub samples_planned: f64,
    /// Decisions, and those of which every cited query has a cost from the planner.
    pub decisions: f64,
    pub decisions_explained: f64,
    /// Templates that could not be planned, by class of the failure.
    pub failures: std::collections::BTreeMap<String, f64>,
}

/// See [`Explained`]. `class` of a failure is that of the profile, or `other` with the two characters of the SQLSTATE's class.
pub fn explained() -> Result<Explained> {
    Ok(spi::row(
        "SELECT t.*, d.*,
                COALESCE((SELECT pg_catalog.jsonb_object_agg(f.class, f.n) FROM (
                    SELECT COALESCE(p.failure, 'other') || ' (' || pg_catalog.left(w.plan_error, 2) || ')' AS class, pg_catalog.count(*) AS n
                      FROM indexpilot.workload w LEFT JOIN indexpilot.workload_profile p ON p.workload_id = w.id
                     WHERE w.plan_state = 'unplannable' GROUP BY 1) f), '{}') AS failures
           FROM (SELECT pg_catalog.count(*) AS templates, pg_catalog.count(*) FILTER (WHERE w.plan_state <> 'pending') AS tried,
                        pg_catalog.count(*) FILTER (WHERE w.plan_state = 'plannable') AS planned,
                        COALESCE(pg_catalog.sum(q.calls), 0) AS calls,
                        COALESCE(pg_catalog.sum(q.calls) FILTER (WHERE w.plan_state = 'plannable'), 0) AS calls_planned,
                        COALESCE(pg_catalog.sum(p.samples), 0) AS samples, COALESCE(pg_catalog.sum(p.planned), 0) AS samples_planned
                   FROM indexpilot.workload w LEFT JOIN indexpilot.workload_profile p ON p.workload_id = w.id
                        LEFT JOIN LATERAL (SELECT pg_catalog.sum(s.calls + s.errors) AS calls FROM indexpilot.workload_stats s
                                            WHERE s.workload_id = w.id) q ON true
                  WHERE w.command IN ('select', 'insert', 'update', 'delete', 'merge')) t
                CROSS JOIN (
                 SELECT pg_catalog.count(*) AS decisions, pg_catalog.count(*) FILTER (
                            WHERE NOT EXISTS (SELECT FROM pg_catalog.unnest(r.workload_ids) i(id) WHERE NOT EXISTS (
                                SELECT FROM pg_catalog.jsonb_array_elements(r.details->'queries') e
                                 WHERE (e->>'query')::bigint = i.id AND (e->>'cost_before')::float8 > 0))) AS decisions_explained
                   FROM indexpilot.recommendations r) d",
        json!({}),
    )?
    .unwrap_or_default())
}
