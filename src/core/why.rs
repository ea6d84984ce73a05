//! For every query one answer: which index is proposed for it, or why none is.
//!
//! A selection has reasons by index. A query asks the other way round, so the reasons of all indexes that were thought of for it are
//! looked through, and the one that weighs most speaks: on its largest table, and there what the user could change (budget, limits,
//! the genome) before what lies in the query and the data.

use crate::candidate::Rejected;
use crate::ddl;
use crate::model::{Catalog, Query, QueryIdx, Reason, RelId, RelationUse, TableInfo};
use crate::select::Selection;

/// Conditions that let at least this share of a table pass are no case for an index: reading the table is as cheap.
const UNSELECTIVE: f64 = 0.1;

/// A query that wants at most so many rows is served well by any index that finds them.
const FEW_ROWS: f64 = 10.0;

/// What has at least this share of the time can be felt.
const FELT: f64 = 0.05;

/// The answer's code. The text is what users see in `query_advice.reason`; it never changes once released.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// An index is proposed.
    Gain,
    /// Nothing that was tried is cheaper than the plan it has.
    AlreadyBest,
    TableSmall,
    /// It wants too large a part of its table, or has no condition, order or grouping that an index could serve.
    NotSelective,
    /// An index would pay for the query and cost more in writes.
    WriteHeavy,
    Budget,
    TableCap,
    NotExpressed,
    RarelyUsed,
    /// No index may be made on its tables.
    Refused,
    /// It only adds rows.
    WritesOnly,
    /// It reads no table of a user.
    NoTable,
    /// An index would pay, and a guard rule forbids it.
    Guard,
    /// It takes too little of the time to be looked at.
    Negligible,
    /// There are more heavy queries than an analysis looks at.
    BeyondLimit,
}

impl Why {
    pub fn code(self) -> &'static str {
        match self {
            Why::Gain => "gain",
            Why::AlreadyBest => "already_best",
            Why::TableSmall => "table_small",
            Why::NotSelective => "not_selective",
            Why::WriteHeavy => "write_heavy",
            Why::Budget => "budget",
            Why::TableCap => "table_cap",
            Why::NotExpressed => "not_expressed",
            Why::RarelyUsed => "rarely_used",
            Why::Refused => "refused",
            Why::WritesOnly => "writes_only",
            Why::NoTable => "no_table",
            Why::Guard => "guard",
            Why::Negligible => "negligible",
            Why::BeyondLimit => "beyond_limit",
        }
    }
}

/// Why an index is proposed for a query, or none.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    pub why: Why,
    /// In a sentence, with figures.
    pub detail: String,
}

fn verdict(why: Why, detail: impl Into<String>) -> Verdict {
    Verdict { why, detail: detail.into() }
}

/// The answer for the queries that were not looked at, when the `looked_at` heaviest have a share of the time.
pub fn not_looked_at(looked_at: usize, covered: f64) -> Verdict {
    // Rounded down, so that the share is not said to be larger than it is.
    let share = (covered.clamp(0.0, 1.0) * 1000.0).floor() / 10.0;
    let heaviest = format!("The {looked_at} heaviest templates, which were looked at, have {share:.1} % of the execution time");
    if 1.0 - covered < FELT {
        return verdict(Why::Negligible, format!("{heaviest}; what an index could save here would hardly be felt."));
    }
    verdict(Why::BeyondLimit, format!("{heaviest}; this one is beyond what one analysis looks at, so an index might pay here."))
}

/// The answer for one query of a selection. What the guard says of the chosen indexes is not known here.
pub fn of_query(q: QueryIdx, queries: &[Query], catalog: &Catalog, selection: &Selection) -> Verdict {
    answer(q, None, queries, catalog, selection)
}

/// The answer for one query as far as one of its tables goes.
pub fn of_query_on(q: QueryIdx, table: RelId, queries: &[Query], catalog: &Catalog, selection: &Selection) -> Verdict {
    answer(q, Some(table), queries, catalog, selection)
}

fn answer(q: QueryIdx, only: Option<RelId>, queries: &[Query], catalog: &Catalog, selection: &Selection) -> Verdict {
    let Some(query) = queries.get(q) else { return verdict(Why::NoTable, "There is no such query.") };
    let (before, after) = selection.costs.get(q).copied().unwrap_or((query.shape.base_cost, query.shape.base_cost));
    let chosen: Vec<String> = selection
        .chosen
        .iter()
        .filter(|c| c.queries.contains(&q))
        .filter_map(|c| selection.candidates.get(c.candidate))
        .filter(|c| only.is_none_or(|table| c.def.table == table))
        .filter_map(|c| Some(ddl::outline(&c.def, catalog.table(c.def.table)?)))
        .collect();
    if !chosen.is_empty() {
        let share = if before > 0.0 { (1.0 - after / before) * 100.0 } else { 0.0 };
        let detail =
            format!("Proposed: {}. The planner's cost falls by {share:.0} %, from {before:.0} to {after:.0}.", chosen.join("; "));
        return verdict(Why::Gain, detail);
    }
    let Some((usage, table)) = largest(query, only, catalog) else {
        return verdict(Why::NoTable, "It reads no table that an index could be made on.");
    };
    if query.shape.relations.iter().all(|r| r.target && r.predicates.is_empty() && r.order.is_empty()) {
        return verdict(Why::WritesOnly, "It only adds rows or changes all of them: an index could only make it slower.");
    }
    if let Some(served) = served(q, usage, table, selection) {
        return verdict(Why::AlreadyBest, served.detail.clone());
    }
    if let Some(rejected) = telling(q, table, selection) {
        let why = match rejected.reason {
            Reason::Budget => Some(Why::Budget),
            Reason::WriteCost => Some(Why::WriteHeavy),
            Reason::TableCap => Some(Why::TableCap),
            Reason::NotExpressed => Some(Why::NotExpressed),
            Reason::RarelyUsed => Some(Why::RarelyUsed),
            Reason::Refused => Some(Why::Refused),
            Reason::TableSmall => Some(Why::TableSmall),
            Reason::AlreadyExists => Some(Why::AlreadyBest),
            Reason::Gain | Reason::NoGain | Reason::Covered | Reason::Unsortable => None,
        };
        if let Some(why) = why {
            return verdict(why, rejected.detail.clone());
        }
    }
    nothing_gains(q, usage, table, before, selection)
}

/// The use of the largest table that the query has, or of the only one that is asked for.
fn largest<'a>(query: &'a Query, only: Option<RelId>, catalog: &'a Catalog) -> Option<(&'a RelationUse, &'a TableInfo)> {
    let asked = query.shape.relations.iter().filter(|r| only.is_none_or(|table| r.rel == table));
    let known = asked.filter_map(|r| Some((r, catalog.table(r.rel)?)));
    known.max_by_key(|(r, t)| (t.bytes, !r.predicates.is_empty(), std::cmp::Reverse(t.rel)))
}

/// The rejection of an index that exists, for a query that gets a few rows by it: whatever else might be built hardly matters.
fn served<'a>(q: QueryIdx, usage: &RelationUse, table: &TableInfo, selection: &'a Selection) -> Option<&'a Rejected> {
    let exists = |r: &&Rejected| r.reason == Reason::AlreadyExists && r.def.table == table.rel && r.queries.contains(&q);
    selection.rejected.iter().find(exists).filter(|_| usage.rows <= FEW_ROWS)
}

/// The rejection that says most to this query: on its largest table, by what could be changed.
fn telling<'a>(q: QueryIdx, table: &TableInfo, selection: &'a Selection) -> Option<&'a Rejected> {
    let rank = |reason: Reason| match reason {
        Reason::Budget => 0,
        Reason::WriteCost => 1,
        Reason::TableCap => 2,
        Reason::NotExpressed => 3,
        Reason::Refused => 4,
        Reason::TableSmall => 5,
        Reason::AlreadyExists => 6,
        Reason::RarelyUsed => 7,
        Reason::NoGain | Reason::Covered | Reason::Unsortable | Reason::Gain => 8,
    };
    selection
        .rejected
        .iter()
        .filter(|r| r.def.table == table.rel && r.queries.contains(&q))
        .min_by_key(|r| (rank(r.reason), &r.def))
}

/// The planner was asked, and nothing made the query cheaper.
fn nothing_gains(q: QueryIdx, usage: &RelationUse, table: &TableInfo, cost: f64, selection: &Selection) -> Verdict {
    let name = format!("{}.{}", table.schema, table.name);
    if usage.predicates.is_empty() && usage.order.is_empty() && usage.group.is_empty() {
        let detail = format!(
            "It has no condition, order or grouping on {name} that an index could serve: all {:.0} rows are read.",
            table.rows
        );
        return verdict(Why::NotSelective, detail);
    }
    let passes: f64 = usage.predicates.iter().map(|p| p.selectivity.clamp(0.0, 1.0)).product();
    if passes >= UNSELECTIVE && !usage.limited {
        let detail = format!(
            "Its conditions let {:.0} % of the {:.0} rows of {name} pass, so reading the whole table is as cheap as an index.",
            passes * 100.0,
            table.rows
        );
        return verdict(Why::NotSelective, detail);
    }
    let tried = selection.candidates.iter().filter(|c| c.queries.contains(&q)).count();
    let detail = match tried {
        0 => format!("No index that is not there could serve it; its cost is {cost:.0}."),
        1 => format!("The planner found no better plan with the index that was tried; its cost stays {cost:.0}."),
        n => format!("The planner found no plan worth an index with the {n} indexes that were tried; its cost stays {cost:.0}."),
    };
    verdict(Why::AlreadyBest, detail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::candidate::Candidate;
    use crate::fixture;
    use crate::model::{IndexDef, Key, PredicateKind};
    use crate::select::{Choice, Method};
    use crate::size;

    fn nothing(queries: &[Query]) -> Selection {
        Selection {
            chosen: Vec::new(),
            candidates: Vec::new(),
            rejected: Vec::new(),
            costs: queries.iter().map(|q| (q.shape.base_cost, q.shape.base_cost)).collect(),
            objective_before: 0.0,
            objective_after: 0.0,
            gap: 0.0,
            method: Method::Milp,
            planner_calls: 0,
            bytes: 0,
            unplannable: Vec::new(),
        }
    }

    fn on(rel: u32, selectivity: f64) -> Query {
        fixture::query(1, 1.0, 1000.0, vec![fixture::usage(rel, &[(2, PredicateKind::Equal, selectivity)])])
    }

    fn rejected(rel: u32, reason: Reason) -> Rejected {
        let def = IndexDef::new(RelId(rel), vec![Key::asc(2)], []);
        Rejected { def, reason, detail: reason.code().into(), queries: vec![0] }
    }

    #[test]
    fn the_reason_on_the_largest_table_speaks_and_there_what_can_be_changed() {
        let catalog = fixture::catalog([fixture::table(1, "big", 1e6, &["a", "b"]), fixture::table(2, "small", 10.0, &["a", "b"])]);
        let mut query = on(1, 0.001);
        query.shape.relations.push(fixture::usage(2, &[(2, PredicateKind::Join, 0.1)]));
        let queries = [query];
        let mut selection = nothing(&queries);
        selection.rejected = vec![rejected(2, Reason::TableSmall), rejected(1, Reason::NoGain), rejected(1, Reason::Budget)];
        assert_eq!(of_query(0, &queries, &catalog, &selection).why, Why::Budget);
        selection.rejected.push(rejected(1, Reason::AlreadyExists));
        assert_eq!(of_query(0, &queries, &catalog, &selection).why, Why::AlreadyBest, "it wants one row, and an index finds it");
        selection.rejected.truncate(2);
        assert_eq!(of_query(0, &queries, &catalog, &selection).why, Why::AlreadyBest);
        selection.rejected = vec![rejected(2, Reason::TableSmall), rejected(1, Reason::Refused)];
        assert_eq!(of_query(0, &queries, &catalog, &selection).why, Why::Refused);
        assert_eq!(of_query_on(0, RelId(2), &queries, &catalog, &selection).why, Why::TableSmall);
        let small = [on(2, 0.1)];
        assert_eq!(of_query(0, &small, &catalog, &selection).why, Why::TableSmall);
    }

    #[test]
    fn what_was_not_looked_at_is_negligible_only_with_little_of_the_time() {
        let little = not_looked_at(500, 0.9519);
        assert_eq!(little.why, Why::Negligible);
        assert!(little.detail.contains("The 500 heaviest") && little.detail.contains("95.1 %"), "{}", little.detail);
        let much = not_looked_at(500, 0.95 - 1e-9);
        assert_eq!(much.why, Why::BeyondLimit);
        assert!(much.detail.contains("94.9 %"), "{}", much.detail);
    }

    #[test]
    fn without_a_rejection_the_query_itself_tells() {
        let catalog = fixture::catalog([fixture::table(1, "t", 1e6, &["a", "b"])]);
        let why = |query: Query| {
            let queries = [query];
            of_query(0, &queries, &catalog, &nothing(&queries)).why
        };
        assert_eq!(why(on(1, 0.5)), Why::NotSelective);
        assert_eq!(why(on(1, 0.001)), Why::AlreadyBest);
        assert_eq!(why(fixture::query(1, 1.0, 10.0, vec![fixture::usage(1, &[])])), Why::NotSelective);
        assert_eq!(why(fixture::query(1, 1.0, 10.0, Vec::new())), Why::NoTable);
        assert_eq!(why(on(9, 0.1)), Why::NoTable);
        let mut insert = fixture::usage(1, &[]);
        insert.target = true;
        assert_eq!(why(fixture::query(1, 1.0, 10.0, vec![insert])), Why::WritesOnly);
    }

    #[test]
    fn a_chosen_index_is_named_with_its_gain() {
        let table = fixture::table(1, "t", 1e6, &["a", "b"]);
        let def = IndexDef::new(RelId(1), vec![Key::asc(2)], []);
        let queries = [on(1, 0.001)];
        let mut selection = nothing(&queries);
        selection.candidates = vec![Candidate { size: size::of(&def, &table), def, queries: vec![0] }];
        selection.chosen = vec![Choice { candidate: 0, queries: vec![0], saved: 1.0, write_cost: 0.0 }];
        selection.costs = vec![(1000.0, 100.0)];
        let answer = of_query(0, &queries, &fixture::catalog([table]), &selection);
        assert_eq!(answer.why, Why::Gain);
        assert!(answer.detail.contains("public.t (b)") && answer.detail.contains("90 %"), "{}", answer.detail);
    }
}
