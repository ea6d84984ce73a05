//! Which candidates a workload brings forth, what is rejected and why; and what holds for every workload.

use super::*;
use crate::fixture::{self, usage};
use crate::model::{AttNum, Key, PredicateKind::*, RelationUse};
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
    let names: Vec<String> = (1..=100).map(|i| format!("t{i}")).collect();
    let catalog = fixture::catalog(names.iter().zip(1..).map(|(name, rel)| fixture::table(rel, name, 1e6, &columns)));
    let mut queries: Vec<Query> = (1..100)
        .map(|rel| {
            let reads = usage(rel, &[(1, Equal, 0.01), (2, Equal, 0.02), (3, Range, 0.1)]);
            fixture::query(i64::from(rel), 1e3, 1e6, vec![RelationUse { whole_row: false, needed: vec![1, 2, 3, 4], ..reads }])
        })
        .collect();
    queries.push(fixture::query(100, 1.0, 100.0, vec![usage(100, &[(1, Equal, 0.01), (2, Equal, 1e-5)])]));
    let found = generate(&queries, &catalog, &config());
    assert_eq!(found.candidates.len(), MAX_CANDIDATES, "the test needs more than fit");
    assert!(found.candidates.iter().any(|c| c.def.table == RelId(100)));
}

#[test]
fn covering_and_index_only() {
    let reads = RelationUse { whole_row: false, needed: vec![1, 4], ..usage(1, &[(1, Equal, 0.1)]) };
    assert!(run(vec![reads.clone()]).contains(&"1 +[4]".into()));
    assert!(!run(vec![RelationUse { whole_row: true, ..reads }]).iter().any(|d| d.contains('+')));
    let sum = RelationUse { whole_row: false, needed: vec![4, 5], ..usage(1, &[]) };
    assert_eq!(run(vec![sum]), vec!["4 +[5]"]);
}

#[test]
fn what_exists_is_not_proposed() {
    let mut table = fixture::table(1, "t", 1e6, &["a", "b", "c"]);
    table.indexes.push(fixture::existing(9, IndexDef::new(RelId(1), vec![Key::asc(1), Key::asc(2)], [])));
    let queries = [fixture::query(1, 1.0, 1000.0, vec![usage(1, &[(1, Equal, 0.01), (2, Equal, 0.1)])])];
    let found = generate(&queries, &fixture::catalog([table.clone()]), &config());
    assert_eq!(defs(&found), vec!["2"], "only what the index does not lead with");
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
    assert!(defs(&found).contains(&"1 +[3, 4]".into()), "{:?}", defs(&found));
    assert!(found.candidates.iter().all(|c| c.queries == vec![0, 1]));
}

fn any_use() -> impl Strategy<Value = RelationUse> {
    let kind = prop_oneof![Just(Equal), Just(In), Just(Range), Just(Join)];
    let key = (1..7_i16, any::<bool>(), any::<bool>()).prop_map(|(column, descending, nulls_first)| Key {
        column,
        descending,
        nulls_first,
        opclass: crate::model::OpClass::Default,
    });
    (
        (1..3_u32, prop::collection::vec((1..7_i16, kind, 1e-6..1.0_f64), 0..5), prop::collection::vec(key, 0..3)),
        (any::<bool>(), prop::collection::vec(1..7_i16, 0..3), prop::collection::btree_set(1..7_i16, 0..5), any::<bool>()),
    )
        .prop_map(|((rel, predicates, order), (limited, group, needed, whole_row))| RelationUse {
            order,
            limited,
            group,
            needed: needed.into_iter().collect(),
            whole_row,
            ..usage(rel, &predicates)
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
        let catalog = fixture::catalog([first, fixture::table(2, "two", 1e5, &["a", "b", "c", "d", "e", "f"])]);
        let config = Config { min_usage, min_expression: 0.1, ..config() };
        let found = generate(&queries, &catalog, &config);

        prop_assert!(found.candidates.len() <= MAX_CANDIDATES);
        let mut seen = BTreeSet::new();
        for c in &found.candidates {
            prop_assert!(seen.insert(c.def.clone()), "twice: {:?}", c.def);
            prop_assert_eq!(&IndexDef::new(c.def.table, c.def.keys.clone(), c.def.include.clone()), &c.def);
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
