//! Which candidates a workload brings forth, what is rejected and why; and what holds for every workload.

use super::*;
use crate::fixture::{self, usage};
use crate::model::{
    AccessMethod, AttNum, Condition, FIRST_EXPRESSION, ForeignKey, Key, OpClass, Predicate, PredicateKind::*, RelationUse,
};
use proptest::prelude::*;

fn config() -> Config {
    Config { max_columns: 3, min_table_bytes: 0, min_usage: 0.0, min_expression: 0.0 }
}

fn defs(generated: &Generated) -> Vec<String> {
    let show = |d: &IndexDef| {
        let keys: Vec<String> = d.keys.iter().map(|k| format!("{}{}", k.column, if k.descending { "-" } else { "" })).collect();
        format!("{}{}", keys.join(","), if d.include.is_empty() { String::new() } else { format!(" +{:?}", d.include) })
    };
    generated.candidates.iter().map(|c| show(&c.def)).collect()
}

fn run(uses: Vec<RelationUse>) -> Vec<String> {
    let catalog = fixture::catalog([fixture::table(1, "t", 1e6, &["a", "b", "c", "d", "e"])]);
    defs(&generate(&[fixture::query(1, 1.0, 1000.0, uses)], &catalog, &config()))
}

#[test]
fn equalities_come_before_one_range() {
    let found = run(vec![usage(1, &[(1, Range, 0.2), (2, Equal, 0.01), (3, Equal, 0.1)])]);
    assert!(found[0].starts_with("2,3"), "{found:?}");
    for wanted in ["2,3,1", "2,3", "2", "1"] {
        assert!(found.contains(&wanted.into()), "{wanted} in {found:?}");
    }
    assert!(!found.iter().any(|d| d.starts_with("1,2,3")), "nothing follows a range: {found:?}");
}

#[test]
fn order_follows_equalities_but_not_in() {
    let sorted = |kind| RelationUse { order: vec![Key::desc(2), Key::asc(3)], limited: true, ..usage(1, &[(1, kind, 0.01)]) };
    assert!(run(vec![sorted(Equal)]).contains(&"1,2-,3".into()));
    let with_in = run(vec![sorted(In)]);
    assert!(with_in.contains(&"2-,3".into()) && !with_in.iter().any(|d| d.starts_with("1,2")), "{with_in:?}");
    // A wholly descending order is the ascending index read backwards.
    let down = RelationUse { order: vec![Key::desc(2)], limited: true, ..usage(1, &[]) };
    assert_eq!(run(vec![down]), vec!["2"]);
}

#[test]
fn joins_are_combined_with_equalities_in_both_orders() {
    let found = run(vec![usage(1, &[(1, Join, 1e-6), (2, Equal, 0.01)])]);
    for wanted in ["1", "2", "1,2", "2,1"] {
        assert!(found.contains(&wanted.into()), "{wanted} in {found:?}");
    }
}

#[test]
fn costly_queries_do_not_crowd_out_a_cheap_one() {
    let columns = ["a", "b", "c", "d", "e"];
    let names: Vec<String> = (1..=200).map(|i| format!("t{i}")).collect();
    let catalog = fixture::catalog(names.iter().zip(1..).map(|(name, rel)| fixture::table(rel, name, 1e6, &columns)));
    let mut queries: Vec<Query> = (1..200)
        .map(|rel| {
            let reads = usage(rel, &[(1, Equal, 0.01), (2, Equal, 0.02), (3, Range, 0.1)]);
            fixture::query(i64::from(rel), 1e3, 1e6, vec![RelationUse { whole_row: false, needed: vec![1, 2, 3, 4], ..reads }])
        })
        .collect();
    queries.push(fixture::query(200, 1.0, 100.0, vec![usage(200, &[(1, Equal, 0.01), (2, Equal, 1e-5)])]));
    let found = generate(&queries, &catalog, &config());
    assert_eq!(found.candidates.len(), MAX_CANDIDATES, "the test needs more than fit");
    assert!(found.candidates.iter().any(|c| c.def.table == RelId(200)));
}

#[test]
fn covering_and_index_only() {
    let reads = RelationUse { whole_row: false, needed: vec![1, 4], ..usage(1, &[(1, Equal, 0.1)]) };
    assert!(run(vec![reads.clone()]).contains(&"1,4".into()), "few columns are keys, which are kept once for equal values");
    let wide = RelationUse { needed: vec![1, 2, 3, 4], ..reads.clone() };
    assert!(run(vec![wide]).contains(&"1 +[2, 3, 4]".into()));
    assert_eq!(run(vec![RelationUse { whole_row: true, ..reads }]), vec!["1"]);
    let sum = RelationUse { whole_row: false, needed: vec![4, 5], ..usage(1, &[]) };
    assert_eq!(run(vec![sum]), vec!["4,5"]);
}

#[test]
fn what_exists_is_not_proposed() {
    let mut table = fixture::table(1, "t", 1e6, &["a", "b", "c"]);
    table.indexes.push(fixture::existing(9, IndexDef::new(RelId(1), vec![Key::asc(1), Key::asc(2)], [])));
    let queries = [fixture::query(1, 1.0, 1000.0, vec![usage(1, &[(1, Equal, 0.01), (2, Equal, 0.1)])])];
    let found = generate(&queries, &fixture::catalog([table.clone()]), &config());
    assert_eq!(defs(&found), vec!["2,1", "2"], "only what the index does not lead with");
    assert_eq!(found.rejected.len(), 1);
    assert_eq!((found.rejected[0].reason, found.rejected[0].def.keys.len()), (Reason::AlreadyExists, 2));
    table.indexes[0].valid = false;
    assert!(generate(&queries, &fixture::catalog([table]), &config()).rejected.is_empty());
}

#[test]
fn fields_are_rejected_with_figures() {
    let mut table = fixture::table(1, "t", 1e6, &["a", "b", "c", "d"]);
    table.columns[1].expressed = Some(0.02);
    table.columns[3].sortable = false;
    let queries = [
        fixture::query(1, 999.0, 1000.0, vec![usage(1, &[(1, Equal, 0.01), (2, Equal, 0.01), (4, Equal, 0.1)])]),
        fixture::query(
            2,
            1.0,
            1000.0,
            vec![RelationUse { whole_row: false, needed: vec![1, 2, 3], ..usage(1, &[(3, Equal, 0.01)]) }],
        ),
    ];
    let config = Config { min_usage: 0.01, min_expression: 0.1, ..config() };
    let found = generate(&queries, &fixture::catalog([table.clone()]), &config);
    let reasons: Vec<_> = found.rejected.iter().map(|r| (r.def.keys[0].column, r.reason, r.queries.clone())).collect();
    assert_eq!(
        reasons,
        vec![(2, Reason::NotExpressed, vec![0]), (3, Reason::RarelyUsed, vec![1]), (4, Reason::Unsortable, vec![0])]
    );
    assert!(found.rejected[0].detail.contains("2.0 %") && found.rejected[1].detail.contains("0.1 %"));
    assert!(found.candidates.iter().all(|c| c.def.columns().all(|a| a == 1)), "{:?}", defs(&found));

    let small = Config { min_table_bytes: 1 << 40, ..config.clone() };
    let none = generate(&queries, &fixture::catalog([table.clone()]), &small);
    assert!(none.candidates.is_empty() && none.rejected.len() == 4 && none.rejected.iter().all(|r| r.reason == Reason::TableSmall));
    table.refused = Some("it is partitioned".into());
    assert!(generate(&queries, &fixture::catalog([table]), &config).rejected.iter().all(|r| r.reason == Reason::Refused));
}

#[test]
fn prefixes_of_two_queries_are_merged() {
    let catalog = fixture::catalog([fixture::table(1, "t", 1e6, &["a", "b", "c", "d"])]);
    let reads = |needed: &[AttNum], p: &[_]| RelationUse { whole_row: false, needed: needed.to_vec(), ..usage(1, p) };
    let queries = [
        fixture::query(1, 1.0, 1000.0, vec![reads(&[1, 3], &[(1, Equal, 0.01)])]),
        fixture::query(2, 1.0, 1000.0, vec![reads(&[1, 4], &[(1, Equal, 0.01)])]),
    ];
    let found = generate(&queries, &catalog, &config());
    assert!(defs(&found).contains(&"1,3 +[4]".into()), "{:?}", defs(&found));
    assert!(found.candidates.iter().all(|c| c.queries == vec![0, 1]));
}

pub(super) fn statements(generated: &Generated, catalog: &Catalog) -> Vec<String> {
    let show = |c: &Candidate| crate::ddl::describe(&c.def, &catalog.tables[&c.def.table]).split_once(' ').unwrap().1.to_owned();
    generated.candidates.iter().map(show).collect()
}

fn generated(table: TableInfo, uses: Vec<RelationUse>) -> Vec<String> {
    let mut catalog = fixture::catalog([table]);
    let queries = [fixture::query(1, 1.0, 1000.0, uses)];
    note_conditions(&queries, &mut catalog);
    statements(&generate(&queries, &catalog, &config()), &catalog)
}

fn served(column: AttNum, kind: crate::model::PredicateKind, by: &[(AccessMethod, OpClass)]) -> Predicate {
    Predicate { column, kind, selectivity: 0.001, by: by.to_vec() }
}

#[test]
fn beginnings_of_texts_are_ranges_of_their_operator_class() {
    let table = fixture::table(1, "t", 1e6, &["a", "name"]);
    let like = |by: &[_]| RelationUse { predicates: vec![served(2, Prefix, by)], ..usage(1, &[]) };
    assert_eq!(generated(table.clone(), vec![like(&[])]), vec!["(name)"], "the collation is C");
    let pattern = [(AccessMethod::Btree, OpClass::TextPattern)];
    assert_eq!(generated(table.clone(), vec![like(&pattern)]), vec!["(name text_pattern_ops)"]);
    let mut behind = like(&pattern);
    behind.predicates.push(Predicate { column: 1, kind: Equal, selectivity: 0.01, by: Vec::new() });
    let found = generated(table, vec![behind]);
    for wanted in ["(a, name text_pattern_ops)", "(name text_pattern_ops)", "(a)"] {
        assert!(found.contains(&wanted.into()), "{wanted} in {found:?}");
    }
}

#[test]
fn what_a_b_tree_cannot_search_gets_what_can() {
    let mut table = fixture::table(1, "t", 1e6, &["id", "tags", "doc", "place"]);
    for column in &mut table.columns[1..] {
        column.sortable = false;
    }
    let both = [(AccessMethod::Gin, OpClass::Default), (AccessMethod::Gin, OpClass::JsonbPath)];
    let predicates = vec![
        served(2, Search, &[(AccessMethod::Gin, OpClass::Default)]),
        served(3, Search, &both),
        served(4, Search, &[(AccessMethod::Gist, OpClass::Default), (AccessMethod::Spgist, OpClass::Default)]),
    ];
    let found = generated(table.clone(), vec![RelationUse { predicates, ..usage(1, &[]) }]);
    let mut wanted = vec![
        "USING gin (doc)",
        "USING gin (doc jsonb_path_ops)",
        "USING gin (tags)",
        "USING gin (tags, doc)",
        "USING gist (place)",
        "USING spgist (place)",
    ];
    let mut sorted: Vec<&str> = found.iter().map(String::as_str).collect();
    sorted.sort_unstable();
    // Four of them, one of each kind first.
    assert_eq!(sorted.len(), MAX_OTHER_PER_USE);
    wanted.retain(|w| sorted.contains(w));
    assert_eq!(wanted, sorted);
    assert!(sorted.contains(&"USING gist (place)") && sorted.iter().any(|d| d.starts_with("USING gin (doc")));
    // Without anything that serves it, the type is the reason.
    let equal = [fixture::query(1, 1.0, 1000.0, vec![usage(1, &[(2, Equal, 0.1)])])];
    let none = generate(&equal, &fixture::catalog([table]), &config());
    assert_eq!(none.rejected[0].reason, Reason::Unsortable);
}

#[test]
fn expressions_are_keys_and_never_included() {
    let mut table = fixture::table(1, "t", 1e6, &["id", "name", "c"]);
    let lower = |n| crate::model::ColumnInfo { reads: vec![2], ..fixture::column(FIRST_EXPRESSION, "lower(name)", n) };
    table.columns.push(lower(9e5));
    let by_lower = RelationUse { whole_row: false, needed: vec![1, 2], ..usage(1, &[(FIRST_EXPRESSION, Equal, 1e-6)]) };
    let by_id =
        RelationUse { whole_row: false, needed: vec![1, 3], ..usage(1, &[(1, Equal, 1e-6), (FIRST_EXPRESSION, Equal, 1e-6)]) };
    let found = generated(table.clone(), vec![by_lower.clone()]);
    assert!(found.contains(&"(lower(name))".into()) && found.contains(&"(lower(name), id, name)".into()), "{found:?}");
    let queries = [fixture::query(1, 1.0, 1e3, vec![by_lower]), fixture::query(2, 1.0, 1e3, vec![by_id])];
    let all = generate(&queries, &fixture::catalog([table.clone()]), &config());
    assert!(all.candidates.iter().all(|c| c.def.include.iter().all(|c| *c < FIRST_EXPRESSION)), "{:?}", defs(&all));
    // An expression over a field that nobody expresses is as little worth.
    table.columns[1].expressed = Some(0.0);
    let none = generate(&queries[..1], &fixture::catalog([table]), &Config { min_expression: 0.1, ..config() });
    assert_eq!((none.candidates.len(), none.rejected[0].reason), (0, Reason::NotExpressed));
}

pub(super) fn conditions(list: &[(&str, AttNum, f64)]) -> Vec<Condition> {
    list.iter().map(|(sql, c, s)| Condition { sql: (*sql).into(), columns: vec![*c], selectivity: *s }).collect()
}

#[test]
fn conditions_make_indexes_of_some_rows() {
    let mut table = fixture::table(1, "t", 1e6, &["id", "status", "created", "live"]);
    table.columns[1].n_distinct = 5.0;
    table.columns[3].n_distinct = 2.0;
    let queue = RelationUse {
        conditions: conditions(&[("(status = 1)", 2, 0.01), ("(live = 1)", 4, 0.5)]),
        order: vec![Key::asc(3)],
        limited: true,
        ..usage(1, &[(2, Equal, 0.01), (4, Equal, 0.5)])
    };
    let found = generated(table.clone(), vec![queue.clone()]);
    let wanted = ["(created) WHERE (status = 1)", "(created) WHERE ((live = 1) AND (status = 1))", "(created) WHERE (live = 1)"];
    for wanted in wanted {
        assert!(found.contains(&wanted.into()), "{wanted} in {found:?}");
    }
    assert!(found.contains(&"(status, created)".into()), "and all rows: {found:?}");
    assert!(!found.iter().any(|d| d.starts_with("(status) WHERE (status")), "{found:?}");
    // Where the condition is all there is, its own column will do; a condition of most rows is none.
    let alone = RelationUse { conditions: conditions(&[("(status = 1)", 2, 0.01)]), ..usage(1, &[(2, Equal, 0.01)]) };
    assert_eq!(generated(table.clone(), vec![alone]), vec!["(status) WHERE (status = 1)", "(status)"]);
    let most =
        RelationUse { conditions: conditions(&[("(status = 1)", 2, 0.95)]), ..usage(1, &[(2, Equal, 0.95), (3, Equal, 0.1)]) };
    assert!(!generated(table.clone(), vec![most]).iter().any(|d| d.contains("WHERE")));
    // Only queries with the condition are planned with it, and its size is that of its rows.
    let other = fixture::query(2, 1.0, 1000.0, vec![usage(1, &[(3, Equal, 0.1)])]);
    let queries = [fixture::query(1, 1.0, 1000.0, vec![queue]), other];
    let mut catalog = fixture::catalog([table]);
    note_conditions(&queries, &mut catalog);
    let all = generate(&queries, &catalog, &config());
    let mut partial = all.candidates.iter().filter(|c| c.def.predicate.is_some()).peekable();
    assert!(partial.peek().is_some() && partial.all(|c| c.queries == [0]), "{all:?}");
    assert_eq!(catalog.tables[&RelId(1)].conditions["((live = 1) AND (status = 1))"], 0.005);
}

#[test]
fn two_bounds_of_a_column_are_one_range() {
    let between = RelationUse {
        conditions: conditions(&[("(created >= 1)", 2, 0.6), ("(created < 2)", 2, 0.5)]),
        ..usage(1, &[(2, Range, 0.1), (1, Join, 1e-6)])
    };
    let mut catalog = fixture::catalog([fixture::table(1, "t", 1e6, &["id", "created"])]);
    note_conditions(&[fixture::query(1, 1.0, 1000.0, vec![between])], &mut catalog);
    assert_eq!(catalog.tables[&RelId(1)].conditions["((created < 2) AND (created >= 1))"], 0.1);
}

#[test]
fn sparse_columns_are_indexed_without_their_nulls() {
    let mut table = fixture::table(1, "t", 1e6, &["id", "user"]);
    table.columns[1].null_frac = 0.95;
    let present = conditions(&[("(\"user\" IS NOT NULL)", 2, 0.05)]);
    let found = generated(table, vec![RelationUse { conditions: present, ..usage(1, &[(2, Equal, 0.001)]) }]);
    assert_eq!(found, vec!["(user) WHERE (\"user\" IS NOT NULL)", "(user)"]);
}

#[test]
fn conditions_that_the_next_query_states_otherwise_are_none() {
    let mut table = fixture::table(1, "t", 1e6, &["id", "email", "created", "a", "b", "state"]);
    table.columns[1].n_distinct = 9e5;
    table.columns[5].n_distinct = 50.0;
    table.columns[2].n_distinct = 1e4;
    let mails =
        RelationUse { conditions: conditions(&[("(email = 'x')", 2, 1e-6)]), ..usage(1, &[(2, Equal, 1e-6), (4, Equal, 0.1)]) };
    let since =
        RelationUse { conditions: conditions(&[("(created > '1994')", 3, 0.1)]), ..usage(1, &[(3, Range, 0.1), (4, Equal, 0.1)]) };
    let state = |share| RelationUse {
        conditions: conditions(&[("(state = 7)", 6, share)]),
        ..usage(1, &[(6, Equal, share), (4, Equal, 0.1)])
    };
    let some = |found: Vec<String>| found.iter().any(|d| d.contains("WHERE"));
    assert!(!some(generated(table.clone(), vec![mails])));
    assert!(!some(generated(table.clone(), vec![since.clone()])));
    assert!(!some(generated(table.clone(), vec![state(0.02)])), "one of many");
    assert!(some(generated(table.clone(), vec![state(0.001)])), "the rare one");
    // Two queries state the range; and a comparison of columns has no constant.
    let queries = [1, 2].map(|id| fixture::query(id, 1.0, 1000.0, vec![since.clone()]));
    let mut catalog = fixture::catalog([table.clone()]);
    note_conditions(&queries, &mut catalog);
    assert!(some(statements(&generate(&queries, &catalog, &config()), &catalog)));
    let late = |selectivity| {
        let columns = Condition { sql: "(a < b)".into(), columns: vec![4, 5], selectivity };
        RelationUse { conditions: vec![columns], ..usage(1, &[(1, Join, 1e-6)]) }
    };
    assert!(generated(table.clone(), vec![late(0.2)]).contains(&"(id) WHERE (a < b)".into()));
    assert!(!some(generated(table, vec![late(1.0 / 3.0)])), "nobody knows how many rows");
}

#[test]
fn tenants_lead_and_the_heaviest_get_indexes_of_their_own() {
    let mut table = fixture::table(1, "t", 1e6, &["id", "tenant_id", "email", "created"]);
    table.columns[1].tenant = true;
    let found = generated(table.clone(), vec![usage(1, &[(2, Equal, 0.01), (3, Equal, 1e-5), (4, Range, 0.1)])]);
    for wanted in ["(tenant_id, email, created)", "(tenant_id, created)", "(tenant_id, email)"] {
        assert!(found.iter().any(|d| d == wanted), "{wanted} in {found:?}");
    }
    let of = |n: usize| {
        let sql = format!("(tenant_id = {n})");
        let usage = usage(1, &[(2, Equal, 0.1), (3, Equal, 1e-5)]);
        fixture::query(n as i64, n as f64, 1000.0, vec![RelationUse { conditions: conditions(&[(&sql, 2, 0.1)]), ..usage }])
    };
    let queries: Vec<Query> = (1..=5).map(of).collect();
    let mut catalog = fixture::catalog([table]);
    note_conditions(&queries, &mut catalog);
    let found = generate(&queries, &catalog, &config());
    let partial: BTreeSet<&str> = found.candidates.iter().filter_map(|c| c.def.predicate.as_deref()).collect();
    assert_eq!(partial, BTreeSet::from(["(tenant_id = 3)", "(tenant_id = 4)", "(tenant_id = 5)"]));
}

#[test]
fn ranges_on_ordered_columns_get_block_ranges() {
    let mut table = fixture::table(1, "t", 1e7, &["id", "created"]);
    table.columns[1].correlation = 0.99;
    let brin = "USING brin (created)".to_owned();
    let range = || vec![usage(1, &[(2, Range, 0.01)])];
    assert!(generated(table.clone(), range()).contains(&brin));
    assert!(!generated(TableInfo { bytes: 1 << 20, ..table.clone() }, range()).contains(&brin), "too small");
    table.columns[1].correlation = 0.5;
    assert!(!generated(table, range()).contains(&brin), "no order");
}

#[test]
fn foreign_keys_that_are_looked_for_get_an_index() {
    let mut table = fixture::table(1, "t", 1e6, &["id", "a", "b"]);
    let key = |columns: &[AttNum], checks| ForeignKey { columns: columns.to_vec(), checks };
    table.foreign_keys = vec![key(&[2, 3], 5.0), key(&[3], 0.0)];
    assert_eq!(generated(table, vec![usage(1, &[(1, Equal, 1e-6)])]), vec!["(id)", "(a, b)"]);
}

#[test]
fn further_ranges_filter_within_the_index() {
    let found = run(vec![usage(1, &[(1, Range, 0.02), (2, Range, 0.1), (3, Range, 0.2)])]);
    assert_eq!(found[0], "1,2,3");
    assert!(found.contains(&"2,1,3".into()) && found.contains(&"1".into()), "{found:?}");
}

#[test]
fn one_query_is_never_planned_with_hundreds() {
    let names: Vec<String> = (0..12).map(|i| format!("c{i}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let queries: Vec<Query> = (0..150)
        .map(|i: i16| {
            let column = |n: i16| (i / n + n) % 12 + 1;
            let reads = usage(1, &[(column(1), Equal, 0.01), (column(3), Range, 0.1), (column(7), Join, 0.1)]);
            fixture::query(i.into(), 1.0, 1e4, vec![RelationUse { whole_row: false, needed: vec![column(1), column(5)], ..reads }])
        })
        .collect();
    let found = generate(&queries, &fixture::catalog([fixture::table(1, "t", 1e6, &names)]), &config());
    assert!(found.candidates.len() <= MAX_PER_TABLE);
    let made = MAX_PLAIN_PER_USE + MAX_COVERING_PER_USE + MAX_PARTIAL_PER_USE + MAX_OTHER_PER_USE;
    for q in 0..queries.len() {
        let asked = found.candidates.iter().filter(|c| c.queries.contains(&q)).count();
        assert!((1..=MAX_ASKED_PER_USE + made).contains(&asked), "{asked}");
    }
}

fn any_use() -> impl Strategy<Value = RelationUse> {
    let kind = prop_oneof![Just(Equal), Just(In), Just(Range), Just(Join), Just(Prefix), Just(Search)];
    let condition = (1..7_i16, 0.01..1.0_f64).prop_map(|(c, selectivity)| Condition {
        sql: format!("(c{c} = 1)"),
        columns: vec![c],
        selectivity,
    });
    let key = (1..7_i16, any::<bool>(), any::<bool>()).prop_map(|(column, descending, nulls_first)| Key {
        column,
        descending,
        nulls_first,
        opclass: crate::model::OpClass::Default,
    });
    (
        (1..3_u32, prop::collection::vec((1..7_i16, kind, 1e-6..1.0_f64), 0..5), prop::collection::vec(key, 0..3)),
        (any::<bool>(), prop::collection::vec(1..7_i16, 0..3), prop::collection::btree_set(1..7_i16, 0..5), any::<bool>()),
        prop::collection::vec(condition, 0..3),
    )
        .prop_map(|((rel, predicates, order), (limited, group, needed, whole_row), conditions)| {
            let mut usage = usage(rel, &predicates);
            for p in &mut usage.predicates {
                p.by = match p.kind {
                    Prefix => vec![(AccessMethod::Btree, OpClass::TextPattern)],
                    Search => vec![(AccessMethod::Gin, OpClass::Default), (AccessMethod::Gist, OpClass::GistTrigram)],
                    _ => Vec::new(),
                };
            }
            RelationUse { order, limited, group, needed: needed.into_iter().collect(), whole_row, conditions, ..usage }
        })
}

fn any_queries() -> impl Strategy<Value = Vec<Query>> {
    let query = (1.0..1e4_f64, 1.0..1e6_f64, prop::collection::vec(any_use(), 0..3));
    prop::collection::vec(query, 1..8).prop_map(|queries| {
        queries.into_iter().enumerate().map(|(i, (calls, cost, uses))| fixture::query(i as i64 + 1, calls, cost, uses)).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn candidates_are_lawful_and_do_not_depend_on_the_order(queries in any_queries(), min_usage in 0.0..0.5_f64) {
        let mut first = fixture::table(1, "one", 1e6, &["a", "b", "c", "d", "e", "f"]);
        first.columns[2].expressed = Some(0.0);
        first.columns[4].sortable = false;
        first.indexes.push(fixture::existing(9, IndexDef::new(RelId(1), vec![Key::asc(1), Key::asc(2)], [4])));
        first.columns[3].correlation = -1.0;
        first.columns[0].tenant = true;
        let mut catalog = fixture::catalog([first, fixture::table(2, "two", 1e5, &["a", "b", "c", "d", "e", "f"])]);
        note_conditions(&queries, &mut catalog);
        let config = Config { min_usage, min_expression: 0.1, ..config() };
        let found = generate(&queries, &catalog, &config);

        prop_assert!(found.candidates.len() <= 2 * MAX_PER_TABLE);
        let mut seen = BTreeSet::new();
        for c in &found.candidates {
            prop_assert!(seen.insert(c.def.clone()), "twice: {:?}", c.def);
            prop_assert_eq!(&IndexDef::new(c.def.table, c.def.keys.clone(), c.def.include.clone()).include, &c.def.include);
            prop_assert!(c.def.include.is_empty() || c.def.method == AccessMethod::Btree);
            let known = |p: &String| catalog.tables[&c.def.table].conditions.contains_key(p);
            prop_assert!(c.def.predicate.as_ref().is_none_or(known), "{:?}", c.def);
            prop_assert!(!c.def.keys.is_empty() && c.def.keys.len() <= 3);
            let keys: BTreeSet<_> = c.def.keys.iter().map(|k| k.column).collect();
            prop_assert_eq!(keys.len(), c.def.keys.len(), "a column twice: {:?}", c.def);
            prop_assert!(prune::serving(&c.def, &catalog).is_none());
            for r in found.rejected.iter().filter(|r| matches!(r.reason, Reason::NotExpressed | Reason::RarelyUsed)) {
                prop_assert!(r.def.table != c.def.table || c.def.columns().all(|a| a != r.def.keys[0].column));
            }
        }
        let fields: Vec<_> = found.rejected.iter().filter(|r| r.reason != Reason::AlreadyExists).map(|r| r.def.clone()).collect();
        prop_assert_eq!(fields.iter().collect::<BTreeSet<_>>().len(), fields.len());

        let n = queries.len();
        let reversed: Vec<Query> = queries.iter().rev().cloned().collect();
        let mut again = generate(&reversed, &catalog, &config);
        let map = |list: &mut Vec<QueryIdx>| {
            list.iter_mut().for_each(|q| *q = n - 1 - *q);
            list.sort_unstable();
        };
        again.candidates.iter_mut().for_each(|c| map(&mut c.queries));
        again.rejected.iter_mut().for_each(|r| map(&mut r.queries));
        prop_assert_eq!(found, again);
    }
}
