//! Indexes that are really built, each once: which of them the planner sees is switched in the catalog. They stay for the next run.

use super::data::{BUILT, Data, Session};
use super::query::Query;
use indexpilot_tests::Result;
use std::collections::BTreeMap;

/// Bytes of indexes that may stay for the next run.
const KEPT: i64 = 1_500_000_000;

/// The database with the indexes, and which there are: what stands after `ON` in their statement, with their relations.
pub struct Workshop {
    pub session: Session,
    there: BTreeMap<String, u32>,
}

/// What counts of a statement: table, method, columns, condition. Its name and how it is built do not.
pub fn essence(statement: &str) -> String {
    let flat = statement.split_whitespace().collect::<Vec<_>>().join(" ");
    let rest = flat.split_once(" ON ").map_or(flat.as_str(), |(_, rest)| rest);
    // The schema is that of the session in all benchmarks.
    let (table, rest) = rest.split_once(' ').unwrap_or((rest, ""));
    format!("{} {rest}", table.rsplit('.').next().unwrap_or(table))
}

impl Workshop {
    /// # Errors
    /// When the server refuses.
    pub fn open(data: &Data) -> Result<Self> {
        let mut session = data.session(BUILT)?;
        let rows = session.client.query(
            "SELECT obj_description(c.oid, 'pg_class'), c.oid, pg_relation_size(c.oid) FROM pg_class c \
              WHERE c.relkind = 'i' AND c.relname LIKE 'bench\\_%' ORDER BY c.oid DESC",
            &[],
        )?;
        let (mut there, mut bytes) = (BTreeMap::new(), 0);
        for row in rows {
            let (what, relation): (Option<String>, u32) = (row.get(0), row.get(1));
            bytes += row.get::<_, i64>(2);
            match what {
                Some(what) if bytes <= KEPT => drop(there.insert(what, relation)),
                _ => session.client.batch_execute(&format!("DO $$ BEGIN EXECUTE 'DROP INDEX ' || {relation}::regclass; END $$"))?,
            }
        }
        Ok(Workshop { session, there })
    }

    /// Builds what is not there yet; returns the size of each index.
    ///
    /// # Errors
    /// When an index cannot be built.
    pub fn build(&mut self, statements: &[String]) -> Result<Vec<i64>> {
        let mut sizes = Vec::new();
        for statement in statements {
            let what = essence(statement);
            if !self.there.contains_key(&what) {
                let next = self.session.client.query_one(
                    "SELECT coalesce(max(substr(relname, 7)::int), 0) + 1 FROM pg_class WHERE relname ~ '^bench_[0-9]+$'",
                    &[],
                )?;
                let name = format!("bench_{}", next.get::<_, i32>(0));
                let literal = what.replace('\'', "''");
                let build = format!("CREATE INDEX {name} ON {what}");
                self.session.client.batch_execute(&build).map_err(|e| said(&build, &e))?;
                // Statistics of an expression come with the next ANALYZE; its sample is another one, so only then.
                let row = self.session.client.query_one(
                    "SELECT c.oid, i.indrelid::regclass::text, i.indexprs IS NOT NULL FROM pg_class c JOIN pg_index i ON i.indexrelid = c.oid \
                      WHERE c.relname = $1",
                    &[&name],
                )?;
                if row.get(2) {
                    self.session.client.batch_execute(&format!("ANALYZE {}", row.get::<_, String>(1)))?;
                }
                let schema: String = self
                    .session
                    .client
                    .query_one("SELECT relnamespace::regnamespace::text FROM pg_class WHERE relname = $1", &[&name])?
                    .get(0);
                self.session.client.batch_execute(&format!("COMMENT ON INDEX {schema}.{name} IS '{literal}'"))?;
                self.there.insert(what.clone(), row.get(0));
            }
            let size = self.session.client.query_one("SELECT pg_relation_size($1::oid)", &[&self.there[&what]])?;
            sizes.push(size.get(0));
        }
        Ok(sizes)
    }

    /// Lets the planner see these indexes and no others of ours.
    ///
    /// # Errors
    /// When one of them was never built.
    pub fn show(&mut self, statements: &[String]) -> Result<()> {
        let wanted: Vec<u32> = statements
            .iter()
            .map(|s| self.there.get(&essence(s)).copied().ok_or("an index was never built"))
            .collect::<std::result::Result<_, _>>()?;
        let all: Vec<u32> = self.there.values().copied().collect();
        self.session.client.execute(
            "UPDATE pg_index SET indisvalid = indexrelid = ANY ($1) WHERE indexrelid = ANY ($2) AND indisvalid <> (indexrelid = ANY ($1))",
            &[&wanted, &all],
        )?;
        Ok(())
    }

    /// Planner cost of each query with these indexes.
    ///
    /// # Errors
    /// When the server refuses.
    pub fn costs(&mut self, queries: &[Query], statements: &[String]) -> Result<Vec<f64>> {
        self.show(statements)?;
        queries.iter().map(|q| self.session.cost(&q.sql)).collect()
    }
}

/// An error of the server with what was asked of it.
pub fn said(statement: &str, error: &postgres::Error) -> String {
    let text = error.as_db_error().map_or_else(|| error.to_string(), |e| e.message().to_owned());
    format!("{statement}: {text}")
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_name_of_an_index_does_not_count() {
        let essence = super::essence("CREATE INDEX CONCURRENTLY a_b ON tpch.a  USING btree (b)");
        assert_eq!(essence, "a USING btree (b)");
        assert_eq!(essence, super::essence("CREATE INDEX x ON tpch.a USING btree (b)"));
    }
}
