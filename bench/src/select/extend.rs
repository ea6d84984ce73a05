//! The rival: Extend (Schlosser, Kossmann, Boissier, ICDE 2019), the strongest of the greedy algorithms in Kossmann et al., "Magic
//! mirror in my hand, which is the best in the land?" (VLDB 2020), with HypoPG as there.
//!
//! It starts with nothing and adds an index of one column, or a column to the end of an index it has, whichever saves most cost for
//! each byte, until nothing fits or nothing saves 0.3 % of the whole cost. Candidates are the columns that the queries' texts name.

use super::advice::Advice;
use super::built::Workshop;
use super::data::Session;
use super::query::Query;
use indexpilot_tests::Result;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

/// A step must make the whole this many times cheaper.
const LEAST_GAIN: f64 = 1.003;
/// How often it may begin again because what it chose is larger than it thought.
const CORRECTIONS: usize = 5;

/// A B-tree: table and columns, as numbers.
type Index = (usize, Vec<usize>);

/// Whose sizes count.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Sizes {
    /// HypoPG's, which know no deduplication: the figures of the paper's own code.
    Hypopg,
    /// IndexPilot's, put right where the chosen indexes, once built, turn out to be larger or smaller.
    Real,
}

/// The algorithm with the planner at hand.
pub struct Extend<'a> {
    session: &'a mut Session,
    queries: &'a [Query],
    /// By table: name, columns.
    tables: Vec<(String, Vec<String>)>,
    /// Columns that each query names.
    named: Vec<BTreeSet<(usize, usize)>>,
    sizes: Sizes,
    known_sizes: BTreeMap<Index, i64>,
    /// Indexes that HypoPG has now, by their numbers there.
    present: BTreeMap<Index, u32>,
    costs: BTreeMap<(usize, Vec<Index>), f64>,
    calls: u64,
    /// Cost of the queries under the set that was chosen last.
    reached: f64,
}

/// The best step so far.
struct Step {
    ratio: f64,
    set: Vec<Index>,
    cost: f64,
}

impl<'a> Extend<'a> {
    /// `None` when the server has no HypoPG.
    ///
    /// # Errors
    /// When the server refuses.
    pub fn new(session: &'a mut Session, schema: &str, queries: &'a [Query], sizes: Sizes) -> Result<Option<Self>> {
        if session.client.query_opt("SELECT FROM pg_available_extensions WHERE name = 'hypopg'", &[])?.is_none() {
            return Ok(None);
        }
        session
            .client
            .batch_execute("SET client_min_messages = warning; CREATE EXTENSION IF NOT EXISTS hypopg; SELECT hypopg_reset()")?;
        let mut tables: Vec<(String, Vec<String>)> = Vec::new();
        for row in session.client.query(
            "SELECT table_name::text, column_name::text FROM information_schema.columns WHERE table_schema = $1 ORDER BY 1, ordinal_position",
            &[&schema],
        )? {
            let (table, column): (String, String) = (row.get(0), row.get(1));
            match tables.last_mut().filter(|(name, _)| *name == table) {
                Some((_, columns)) => columns.push(column),
                None => tables.push((table, vec![column])),
            }
        }
        let named = queries.iter().map(|q| named(&q.sql, &tables)).collect();
        Ok(Some(Extend {
            session,
            queries,
            tables,
            named,
            sizes,
            known_sizes: BTreeMap::new(),
            present: BTreeMap::new(),
            costs: BTreeMap::new(),
            calls: 0,
            reached: 0.0,
        }))
    }

    /// Chooses under a budget. With [`Sizes::Real`] the workshop says what was too large, and it begins again, knowing that; what it
    /// took is counted the first time only.
    ///
    /// # Errors
    /// When the server refuses.
    pub fn choose(&mut self, budget: i64, width: usize, workshop: &mut Workshop) -> Result<Advice> {
        self.costs.clear();
        self.calls = 0;
        let (start, cpu) = (Instant::now(), self.session.cpu()?);
        let mut took = None;
        for _ in 0..CORRECTIONS {
            let set = self.once(budget, width)?;
            let now = (start.elapsed().as_secs_f64(), self.session.cpu()? - cpu, self.calls);
            let (wall_s, cpu_s, planner_calls) = *took.get_or_insert(now);
            let statements: Vec<String> = set.iter().map(|i| self.statement(i)).collect();
            let foreseen: Vec<i64> = set.iter().map(|i| self.known_sizes.get(i).copied().unwrap_or(0)).collect();
            let advice =
                Advice { indexes: statements.iter().cloned().zip(foreseen).collect(), cpu_s, wall_s, planner_calls, gap: None };
            if self.sizes == Sizes::Hypopg {
                return Ok(advice);
            }
            let real = workshop.build(&statements)?;
            if real.iter().sum::<i64>() <= budget {
                return Ok(advice);
            }
            self.known_sizes.extend(set.into_iter().zip(real));
        }
        Err(format!("Extend found no set that is within {budget} bytes when built").into())
    }

    /// What the queries cost under the set that was chosen last, by HypoPG.
    pub fn last_cost(&self) -> f64 {
        self.reached
    }

    fn once(&mut self, budget: i64, width: usize) -> Result<Vec<Index>> {
        let mut single: BTreeSet<Index> = self.named.iter().flatten().map(|&(table, column)| (table, vec![column])).collect();
        let columns: Vec<(usize, usize)> = self.named.iter().flatten().copied().collect::<BTreeSet<_>>().into_iter().collect();
        let mut set: Vec<Index> = Vec::new();
        let mut current = self.cost(&set)?;
        loop {
            let used = self.bytes(&set)?;
            let mut best = Step { ratio: 0.0, set: Vec::new(), cost: current };
            let mut fitting = BTreeSet::new();
            for index in &single {
                if used + self.size(index)? <= budget {
                    fitting.insert(index.clone());
                }
            }
            single = fitting;
            for index in single.iter().filter(|i| !set.contains(i)) {
                let mut with = set.clone();
                with.push(index.clone());
                let size = self.size(index)?;
                self.weigh(with, current, size, budget, &mut best)?;
            }
            for &(table, column) in &columns {
                for (at, index) in set.iter().enumerate() {
                    if index.0 != table || index.1.len() >= width || index.1.contains(&column) {
                        continue;
                    }
                    let mut longer = index.clone();
                    longer.1.push(column);
                    if set.contains(&longer) {
                        continue;
                    }
                    let more = self.size(&longer)? - self.size(index)?;
                    let mut with = set.clone();
                    with.remove(at);
                    with.push(longer);
                    self.weigh(with, current, more, budget, &mut best)?;
                }
            }
            if best.ratio <= 0.0 {
                self.reached = current;
                return Ok(set);
            }
            (set, current) = (best.set, best.cost);
        }
    }

    /// Takes the set as the next step when it is the best so far.
    fn weigh(&mut self, set: Vec<Index>, current: f64, more: i64, budget: i64, best: &mut Step) -> Result<()> {
        let cost = self.cost(&set)?;
        if cost * LEAST_GAIN >= current {
            return Ok(());
        }
        let ratio = (current - cost) / more.max(1) as f64;
        if ratio > best.ratio && self.bytes(&set)? <= budget {
            *best = Step { ratio, set, cost };
        }
        Ok(())
    }

    /// Cost of all queries with exactly these indexes.
    fn cost(&mut self, set: &[Index]) -> Result<f64> {
        let mut sum = 0.0;
        for at in 0..self.queries.len() {
            // Only indexes with a column that the query names can matter to it.
            let mut relevant: Vec<Index> = set
                .iter()
                .filter(|(table, columns)| columns.iter().any(|c| self.named[at].contains(&(*table, *c))))
                .cloned()
                .collect();
            relevant.sort();
            let key = (at, relevant);
            if let Some(cost) = self.costs.get(&key) {
                sum += cost;
                continue;
            }
            self.provide(set)?;
            self.calls += 1;
            let cost = self.session.cost(&self.queries[at].sql)?;
            self.costs.insert(key, cost);
            sum += cost;
        }
        Ok(sum)
    }

    /// Lets HypoPG have exactly these indexes.
    fn provide(&mut self, set: &[Index]) -> Result<()> {
        let gone: Vec<Index> = self.present.keys().filter(|i| !set.contains(i)).cloned().collect();
        for index in gone {
            if let Some(number) = self.present.remove(&index) {
                self.session.client.execute("SELECT hypopg_drop_index($1)", &[&number])?;
            }
        }
        for index in set.iter().filter(|i| !self.present.contains_key(i)).cloned().collect::<Vec<_>>() {
            let number: u32 =
                self.session.client.query_one("SELECT indexrelid FROM hypopg_create_index($1)", &[&self.statement(&index)])?.get(0);
            self.present.insert(index, number);
        }
        Ok(())
    }

    fn bytes(&mut self, set: &[Index]) -> Result<i64> {
        let mut sum = 0;
        for index in set {
            sum += self.size(index)?;
        }
        Ok(sum)
    }

    fn size(&mut self, index: &Index) -> Result<i64> {
        if let Some(size) = self.known_sizes.get(index) {
            return Ok(*size);
        }
        let statement = self.statement(index);
        let size = match self.sizes {
            Sizes::Real => {
                let ask = "SELECT estimated_bytes FROM indexpilot.what_if('SELECT 1', ARRAY[$1])";
                self.session.client.query_one(ask, &[&statement])?.get(0)
            }
            Sizes::Hypopg => {
                let ask = "WITH made AS MATERIALIZED (SELECT indexrelid FROM hypopg_create_index($1)) \
                    SELECT hypopg_relation_size(indexrelid), indexrelid FROM made";
                let row = self.session.client.query_one(ask, &[&statement])?;
                self.session.client.execute("SELECT hypopg_drop_index($1)", &[&row.get::<_, u32>(1)])?;
                row.get(0)
            }
        };
        self.known_sizes.insert(index.clone(), size);
        Ok(size)
    }

    fn statement(&self, (table, columns): &Index) -> String {
        let (name, of_table) = &self.tables[*table];
        let columns: Vec<&str> = columns.iter().map(|c| of_table[*c].as_str()).collect();
        format!("CREATE INDEX ON {name} USING btree ({})", columns.join(", "))
    }
}

/// The columns of which a query has the names of both column and table as words.
fn named(sql: &str, tables: &[(String, Vec<String>)]) -> BTreeSet<(usize, usize)> {
    let lower = sql.to_lowercase();
    let words: BTreeSet<&str> = lower.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
    let in_query = tables.iter().enumerate().filter(|(_, (table, _))| words.contains(table.as_str()));
    in_query
        .flat_map(|(t, (_, columns))| {
            columns.iter().enumerate().filter(|(_, c)| words.contains(c.as_str())).map(move |(c, _)| (t, c)).collect::<Vec<_>>()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidates_are_the_columns_that_a_query_names() {
        let tables = vec![("a".to_owned(), vec!["x".to_owned(), "y".to_owned()]), ("b".to_owned(), vec!["x".to_owned()])];
        assert_eq!(named("SELECT a.X FROM a WHERE xy = 1", &tables), BTreeSet::from([(0, 0)]));
    }
}
