//! IndexPilot as its user sees it: every call of the extension's SQL interface that the demo makes, and nothing else.

use crate::crm::Crm;
use crate::failure::{Failure, Result};
use crate::ui::Bar;
use postgres::{Client, Config, NoTls};
use std::time::{Duration, Instant};

/// One row of `analyze_and_create_indexes()`.
#[derive(Clone, Debug)]
pub struct Decision {
    pub table: String,
    pub index: Option<String>,
    pub definition: String,
    pub decision: String,
    pub reason: String,
    pub detail: String,
    pub estimated_bytes: Option<i64>,
    pub saved_ms_per_hour: Option<f64>,
    pub write_ms_per_hour: Option<f64>,
}

impl Decision {
    pub fn creates(&self) -> bool {
        self.decision == "create"
    }
}

/// A row of `indexpilot.actions`.
#[derive(Clone, Debug)]
pub struct Action {
    pub kind: String,
    pub state: String,
    pub index: String,
    pub estimated_bytes: Option<i64>,
    pub built_bytes: Option<i64>,
    /// Why it waits or failed.
    pub trouble: Option<String>,
}

/// A line of the mutation log.
pub struct Mutation {
    pub id: i64,
    pub at: String,
    pub what: String,
    pub cause: String,
    pub actor: String,
    pub index: Option<String>,
}

/// States in which the worker still has something to do with an action.
const UNFINISHED: &str = "('queued', 'building', 'built', 'verifying')";

pub fn create_extension(client: &mut Client) -> Result<String> {
    client.batch_execute("CREATE EXTENSION IF NOT EXISTS indexpilot")?;
    let row = client.query_one("SELECT extversion FROM pg_extension WHERE extname = 'indexpilot'", &[])?;
    Ok(row.get(0))
}

/// Tenants that keep the withdrawn field.
const PILOT_CUSTOMERS: i32 = 2;

/// What the genome was told.
pub struct Genome {
    pub fields: i64,
    /// Tenants that no longer express the channel detail, and those that still do.
    pub withdrawn: i32,
    pub keep: i32,
}

/// Fills the genome, and withdraws the channel detail from all tenants but the pilot customers.
pub fn prepare_genome(client: &mut Client) -> Result<Genome> {
    client.batch_execute("SELECT indexpilot.bootstrap_genome_catalog()")?;
    let switched = client.query(
        "SELECT CASE WHEN tenant_id > $1 \
         THEN indexpilot.disable_field(tenant_id::text, 'crm.interactions', 'custom_channel_detail', 'the feature was withdrawn') \
         ELSE indexpilot.enable_field(tenant_id::text, 'crm.interactions', 'custom_channel_detail', 'pilot customer') END FROM crm.tenants",
        &[&PILOT_CUSTOMERS],
    )?;
    let tenants = switched.len() as i32;
    let without_region: Vec<i32> = (1..=tenants).filter(|&t| !Crm::uses_region(t)).collect();
    client.execute(
        "SELECT indexpilot.disable_field(tenant::text, 'crm.contacts', 'custom_region', 'not booked') FROM unnest($1::int[]) AS tenant",
        &[&without_region],
    )?;
    let fields = client.query_one("SELECT count(*) FROM indexpilot.genome_catalog", &[])?.get(0);
    Ok(Genome { fields, withdrawn: (tenants - PILOT_CUSTOMERS).max(0), keep: tenants.min(PILOT_CUSTOMERS) })
}

/// The main call: analyse, decide, and queue the building.
pub fn analyze(client: &mut Client, budget_bytes: i64) -> Result<Vec<Decision>> {
    let rows = client.query(
        "SELECT table_name, index_name, definition, decision, reason, reason_detail, estimated_bytes, \
         saved_ms_per_hour, write_ms_per_hour FROM indexpilot.analyze_and_create_indexes(storage_budget => $1)",
        &[&budget_bytes],
    )?;
    rows.iter()
        .map(|row| {
            Ok(Decision {
                table: row.try_get::<_, Option<String>>(0)?.unwrap_or_default(),
                index: row.try_get(1)?,
                definition: row.try_get::<_, Option<String>>(2)?.unwrap_or_default(),
                decision: row.try_get(3)?,
                reason: row.try_get(4)?,
                detail: row.try_get::<_, Option<String>>(5)?.unwrap_or_default(),
                estimated_bytes: row.try_get(6)?,
                saved_ms_per_hour: row.try_get(7)?,
                write_ms_per_hour: row.try_get(8)?,
            })
        })
        .collect()
}

/// Waits until the worker has carried out what is queued, and shows what it is at.
pub fn wait(server: &Config, bar: &Bar) -> Result<()> {
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| -> Result<()> {
            let mut client = server.connect(NoTls)?;
            Ok(client.batch_execute("CALL indexpilot.wait_for_actions('5 minutes')")?)
        });
        let mut client = server.connect(NoTls)?;
        while !waiting.is_finished() {
            let row = client.query_one(
                "SELECT (SELECT count(*) FROM indexpilot.actions WHERE state NOT IN ('queued', 'building')), \
                 (SELECT count(*) FROM indexpilot.actions), \
                 (SELECT string_agg(format('%s: %s %s %%', relid::regclass, phase, \
                    100 * greatest(blocks_done::numeric / nullif(blocks_total, 0), tuples_done::numeric / nullif(tuples_total, 0), 0)::int), \
                    ', ') FROM pg_stat_progress_create_index)",
                &[],
            )?;
            let (done, all, phase): (i64, i64, Option<String>) = (row.get(0), row.get(1), row.get(2));
            bar.note(&format!("{done} of {all} done  {}", phase.unwrap_or_default()));
            std::thread::sleep(Duration::from_millis(150));
        }
        waiting.join().unwrap_or_else(|_| Err(Failure::new("the waiting thread panicked")))
    })
}

/// Waits until every built index has its verdict, or the time is over; returns how many still lack it.
pub fn wait_for_verdicts(client: &mut Client, timeout: Duration, bar: &Bar) -> Result<i64> {
    let deadline = Instant::now() + timeout;
    loop {
        let row = client.query_one(&format!("SELECT count(*) FROM indexpilot.actions WHERE state IN {UNFINISHED}"), &[])?;
        let missing: i64 = row.get(0);
        bar.note(&format!("{missing} without a verdict"));
        if missing == 0 || Instant::now() > deadline {
            return Ok(missing);
        }
        std::thread::sleep(Duration::from_millis(300));
    }
}

pub fn actions(client: &mut Client) -> Result<Vec<Action>> {
    let rows = client.query(
        "SELECT kind, state, index_name::text, estimated_bytes, index_bytes, coalesce(error_message, blocked_reason) \
         FROM indexpilot.actions ORDER BY id",
        &[],
    )?;
    rows.iter()
        .map(|row| {
            Ok(Action {
                kind: row.try_get(0)?,
                state: row.try_get(1)?,
                index: row.try_get(2)?,
                estimated_bytes: row.try_get(3)?,
                built_bytes: row.try_get(4)?,
                trouble: row.try_get(5)?,
            })
        })
        .collect()
}

/// The latest verdict on each index: its name, the verdict and the reason.
pub fn verdicts(client: &mut Client) -> Result<Vec<(String, String, String)>> {
    let rows = client.query(
        "SELECT DISTINCT ON (v.action_id) a.index_name::text, v.verdict, v.reason FROM indexpilot.verifications v \
         JOIN indexpilot.actions a ON a.id = v.action_id WHERE v.role = 'summary' ORDER BY v.action_id, v.id DESC",
        &[],
    )?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?))).collect()
}

/// The latest index mutations, oldest first.
pub fn log(client: &mut Client, limit: i64) -> Result<Vec<Mutation>> {
    let rows = client.query(
        "SELECT * FROM (SELECT id, to_char(logged_at, 'HH24:MI:SS'), mutation, cause, actor::text, index_name::text \
         FROM indexpilot.mutation_log WHERE index_name IS NOT NULL ORDER BY id DESC LIMIT $1) latest ORDER BY id",
        &[&limit],
    )?;
    rows.iter()
        .map(|row| {
            Ok(Mutation {
                id: row.try_get(0)?,
                at: row.try_get(1)?,
                what: row.try_get(2)?,
                cause: row.try_get(3)?,
                actor: row.try_get(4)?,
                index: row.try_get(5)?,
            })
        })
        .collect()
}

/// The mutation that made an index and can be taken back.
pub fn undoable(client: &mut Client, index: &str) -> Result<Option<i64>> {
    let row = client.query_opt(
        "SELECT id FROM indexpilot.mutation_log WHERE index_name = $1::text AND mutation = 'create_index' AND undone_by IS NULL \
         ORDER BY id DESC LIMIT 1",
        &[&index],
    )?;
    Ok(row.map(|r| r.get(0)))
}

/// What a rollback would run, and what that would mean.
pub fn rollback_preview(client: &mut Client, mutation: i64) -> Result<Vec<(String, String)>> {
    let rows = client.query("SELECT statement, effect FROM indexpilot.rollback_preview($1)", &[&mutation])?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}

pub fn rollback(client: &mut Client, mutation: i64) -> Result<()> {
    client.execute("SELECT indexpilot.rollback($1)", &[&mutation])?;
    Ok(())
}

/// Whether an index of that name exists in the demo's schemas.
pub fn index_exists(client: &mut Client, index: &str) -> Result<bool> {
    let row = client.query_one(
        "SELECT EXISTS (SELECT FROM pg_class WHERE relname = $1::text AND relkind = 'i' \
         AND relnamespace IN ('crm'::regnamespace, 'tpch'::regnamespace))",
        &[&index],
    )?;
    Ok(row.get(0))
}

/// Indexes of the CRM that mention a column, as key or INCLUDE.
pub fn indexes_on(client: &mut Client, table: &str, column: &str) -> Result<Vec<String>> {
    let rows = client.query(
        "SELECT i.indexrelid::regclass::text FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey) \
         JOIN pg_class c ON c.oid = i.indrelid \
         WHERE c.relnamespace = 'crm'::regnamespace AND c.relname = $1::text AND a.attname = $2::text",
        &[&table, &column],
    )?;
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}
