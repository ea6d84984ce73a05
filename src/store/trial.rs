//! Table index_trial: the indexes that not every transaction may use.

use crate::pg::error::Result;
use crate::pg::spi;
use indexpilot_core::trial::{Arm, Share};
use serde::{Deserialize, Serialize};
use serde_json::json;

/// An index as the catalog has it, and what stands against hiding it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Target {
    pub index_id: u32,
    pub index_schema: String,
    pub index_name: String,
    pub tag: Option<String>,
    pub table_id: u32,
    pub table_schema: String,
    pub table_name: String,
    /// Why it cannot be hidden.
    pub refused: Option<String>,
    /// It is partitioned: its parts are other indexes.
    pub partitioned: bool,
}

/// A row.
#[derive(Clone, Debug, Deserialize)]
pub struct Trial {
    pub index_id: u32,
    pub index_schema: String,
    pub index_name: String,
    pub table_id: u32,
    pub table_schema: String,
    pub table_name: String,
    share_from: u16,
    share_until: u16,
    arm: String,
    pub trial_id: Option<i64>,
    pub action_id: Option<i64>,
    /// The index has another OID now, because it was rebuilt; its own when nothing has changed, `None` when it is gone.
    pub lives_as: Option<u32>,
}

impl Trial {
    pub fn share(&self) -> Share {
        Share { from: self.share_from, until: self.share_until }
    }

    pub fn arm(&self) -> Arm {
        Arm::ALL.into_iter().find(|arm| arm.as_str() == self.arm).unwrap_or(Arm::None)
    }

    /// A share of the transactions uses it.
    pub fn on_trial(&self) -> bool {
        self.trial_id.is_some()
    }
}

/// What the catalog says of an index; `None` when it is no index.
pub fn target(index: u32) -> Result<Option<Target>> {
    let sql = "SELECT c.oid::bigint AS index_id, n.nspname AS index_schema, c.relname AS index_name, \
                 substring(d.description FROM '^indexpilot:([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})$') AS tag, \
                 t.oid::bigint AS table_id, tn.nspname AS table_schema, t.relname AS table_name, c.relkind = 'I' AS partitioned, \
                 CASE WHEN tn.nspname IN ('pg_catalog', 'information_schema', 'pg_toast') THEN 'It belongs to a table of the server.' \
                   WHEN tn.nspname = 'indexpilot' THEN 'It belongs to a table of IndexPilot.' \
                   WHEN t.relpersistence = 't' THEN 'It belongs to a temporary table.' \
                   WHEN c.relkind = 'I' THEN 'It belongs to a partitioned table, whose partitions have indexes of their own.' \
                 END AS refused \
               FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace \
                 JOIN pg_class t ON t.oid = i.indrelid JOIN pg_namespace tn ON tn.oid = t.relnamespace \
                 LEFT JOIN pg_description d ON d.classoid = 'pg_class'::regclass AND d.objoid = c.oid AND d.objsubid = 0 \
               WHERE c.oid = ($1->>'index')::oid";
    spi::row(sql, json!({ "index": index }))
}

fn select(condition: &str, index: Option<u32>) -> Result<Vec<Trial>> {
    // A rebuilt index has another OID; it is known by its tag or by its name.
    let sql = format!(
        "SELECT t.index_id::bigint AS index_id, t.index_schema, t.index_name, t.table_id::bigint AS table_id, t.table_schema, \
                t.table_name, t.share_from, t.share_until, t.arm, t.trial_id, t.action_id, \
                coalesce((SELECT i.indexrelid::bigint FROM pg_index i WHERE i.indexrelid = t.index_id AND i.indrelid = t.table_id), \
                         (SELECT min(i.indexrelid::bigint) FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid \
                            JOIN pg_namespace n ON n.oid = c.relnamespace \
                            LEFT JOIN pg_description d ON d.classoid = 'pg_class'::regclass AND d.objoid = c.oid AND d.objsubid = 0 \
                           WHERE i.indrelid = t.table_id AND i.indisvalid AND CASE WHEN t.tag IS NULL \
                             THEN n.nspname = t.index_schema AND c.relname = t.index_name \
                             ELSE d.description = 'indexpilot:' || t.tag END)) AS lives_as \
           FROM indexpilot.index_trial t WHERE {condition} ORDER BY t.index_id"
    );
    spi::rows(&sql, json!({ "index": index }))
}

/// All rows.
pub fn all() -> Result<Vec<Trial>> {
    select("true", None)
}

/// The row of an index.
pub fn get(index: u32) -> Result<Option<Trial>> {
    Ok(select("t.index_id = ($1->>'index')::oid", Some(index))?.into_iter().next())
}

/// What a row says beside which index it is.
pub struct Terms<'a> {
    pub state: &'a str,
    pub share: Share,
    pub arm: Arm,
    pub trial_id: Option<i64>,
    pub action_id: Option<i64>,
    pub reason: &'a str,
    pub actor: &'a str,
}

impl<'a> Terms<'a> {
    /// Nobody uses the index.
    pub fn hidden(state: &'a str, action_id: Option<i64>, reason: &'a str, actor: &'a str) -> Self {
        Terms { state, share: Share::HIDDEN, arm: Arm::None, trial_id: None, action_id, reason, actor }
    }
}

/// Adds a row, or replaces the one of the same index.
pub fn put(target: &Target, terms: &Terms) -> Result<()> {
    let sql = "INSERT INTO indexpilot.index_trial (index_id, index_schema, index_name, tag, table_id, table_schema, table_name, \
                 state, share_from, share_until, arm, trial_id, action_id, reason, actor) \
               SELECT (x->>'index_id')::oid, x->>'index_schema', x->>'index_name', (x->>'tag')::uuid, (x->>'table_id')::oid, \
                 x->>'table_schema', x->>'table_name', $1->>'state', ($1->>'from')::integer, ($1->>'until')::integer, $1->>'arm', \
                 ($1->>'trial_id')::bigint, ($1->>'action_id')::bigint, $1->>'reason', $1->>'actor' \
               FROM (SELECT $1->'target') AS t(x) \
               ON CONFLICT (index_id) DO UPDATE SET state = excluded.state, share_from = excluded.share_from, \
                 share_until = excluded.share_until, arm = excluded.arm, trial_id = excluded.trial_id, \
                 action_id = excluded.action_id, reason = excluded.reason, actor = excluded.actor, since = excluded.since";
    let args = json!({ "target": target, "state": terms.state, "from": terms.share.from, "until": terms.share.until,
        "arm": terms.arm.as_str(), "trial_id": terms.trial_id, "action_id": terms.action_id, "reason": terms.reason,
        "actor": terms.actor });
    spi::execute(sql, args)?;
    Ok(())
}

/// Whether the index was hidden for the sake of a drop, which is that action.
pub fn hidden_for(action_id: i64) -> Result<Option<Trial>> {
    let all = all()?;
    Ok(all.into_iter().find(|t| t.action_id == Some(action_id)))
}

/// The index has another OID since it was rebuilt.
pub fn follow(index: u32, to: u32) -> Result<()> {
    let sql = "UPDATE indexpilot.index_trial SET index_id = ($1->>'to')::oid WHERE index_id = ($1->>'index')::oid";
    spi::execute(sql, json!({ "index": index, "to": to }))?;
    Ok(())
}

/// Everybody may use the index again, or it is gone.
pub fn remove(index: u32) -> Result<()> {
    spi::execute("DELETE FROM indexpilot.index_trial WHERE index_id = ($1->>'index')::oid", json!({ "index": index }))?;
    Ok(())
}
