//! Sizes from samples of made-up tables, against a build of the index as PostgreSQL does it, tuple by tuple.

use super::*;
use crate::fixture;
use crate::model::{AttNum, Key};
use crate::workload::mix;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The value of each row.
type Column<'a> = &'a dyn Fn(usize) -> i64;

const ROWS: usize = 400_000;
const PER_BLOCK: usize = 60;
/// Share of the blocks that is sampled.
const SHARE: f64 = 0.045;

/// A number from 0 to 1 that looks random.
fn u(row: usize, salt: u64) -> f64 {
    mix(row as u64 ^ mix(salt)) as f64 / u64::MAX as f64
}

/// A table with one column per function, of integers of four bytes; values below zero are NULL.
fn sampled(columns: &[Column]) -> TableInfo {
    let names = ["a", "b", "c"];
    let mut table = fixture::table(1, "t", ROWS as f64, &names[..columns.len()]);
    let taken: Vec<usize> = (0..ROWS).filter(|row| u(row / PER_BLOCK, 99) < SHARE).collect();
    let value = |v: i64| if v < 0 { Value::NULL } else { Value { hash: hash(&v.to_ne_bytes()), size: 4 } };
    let values = |f: &Column| Values::new(4, false, taken.iter().map(|row| value(f(*row))).collect());
    let columns: BTreeMap<AttNum, Values> = (1..).zip(columns.iter().map(values)).collect();
    let blocks = taken.iter().map(|row| (row / PER_BLOCK) as u32).collect();
    table.sample = RowSample::new(blocks, false, columns).map(Arc::new);
    table
}

/// Leaf pages of an index whose keys, as they stand in the rows, have so many bytes [nbtsort.c: `_bt_load`, `_bt_buildadd`].
fn built(mut keys: Vec<(Vec<i64>, usize)>) -> f64 {
    keys.sort();
    let mut tuples: Vec<(usize, usize)> = Vec::new();
    let mut last: Option<(Vec<i64>, usize, usize)> = None;
    let aligned = |n: usize| n.next_multiple_of(8);
    let size = |key: usize, rows: usize| if rows == 1 { key } else { aligned(key + 6 * rows) };
    for (key, bytes) in keys {
        last = match last {
            Some((k, b, rows)) if k == key && size(b, rows + 1) <= 812 => Some((k, b, rows + 1)),
            Some((_, b, rows)) => {
                tuples.push((size(b, rows), size(b, rows) - b));
                Some((key, bytes, 1))
            }
            None => Some((key, bytes, 1)),
        };
    }
    let (_, b, rows) = last.unwrap();
    tuples.push((size(b, rows), size(b, rows) - b));
    // Free space before the line pointer of the high key is spoken for; what a page takes over from the last one.
    let (mut pages, mut free, mut carried) = (1.0, 8192 - 24 - 16 - 4, 0);
    let mut before: Option<(usize, usize)> = None;
    for (size, posting) in tuples {
        let room = free - 4;
        let extra = before.map_or(0, |(_, p)| p);
        if room < size + 8 || (room + extra < 819 && carried > 2) {
            pages += 1.0;
            let (moved, _) = before.unwrap();
            free = 8192 - 24 - 16 - 4 - moved - 4;
            carried = 1;
        }
        free -= size + 4;
        carried += 1;
        before = Some((size, posting));
    }
    pages
}

/// How far the estimate is from the build, for an index on all columns.
fn error(columns: &[Column]) -> f64 {
    let table = sampled(columns);
    let def = IndexDef::new(table.rel, (1..=columns.len() as AttNum).map(Key::asc).collect(), []);
    let key = |row: usize| {
        let values: Vec<i64> = columns.iter().map(|f| f(row)).collect();
        let present = values.iter().filter(|v| **v >= 0).count();
        let header = if present == values.len() { 8 } else { 16 };
        (values, (header + 4 * present).next_multiple_of(8))
    };
    let leaves = built((0..ROWS).map(key).collect());
    let foreseen = of(&def, &table).pages as f64;
    // The pages above the leaves, and the first one.
    foreseen / (leaves * 1.0035 + 1.0) - 1.0
}

fn assert_within(limit: f64, cases: &[(&str, &[Column])]) {
    let errors: Vec<(&str, f64)> = cases.iter().map(|(name, columns)| (*name, error(columns))).collect();
    assert!(errors.iter().all(|(_, e)| e.abs() < limit), "{errors:#.3?}");
}

#[test]
fn groups_of_about_one_size() {
    assert_within(
        0.05,
        &[
            ("unique", &[&|r| r as i64]),
            ("scattered pairs", &[&|r| (u(r, 1) * 200_000.0) as i64]),
            ("scattered, 5 rows", &[&|r| (u(r, 1) * 80_000.0) as i64]),
            ("scattered, 40 rows", &[&|r| (u(r, 1) * 10_000.0) as i64]),
            ("scattered, 400 rows", &[&|r| (u(r, 1) * 1000.0) as i64]),
            ("four values", &[&|r| (u(r, 1) * 4.0) as i64]),
            (
                "two columns that go together",
                &[&|r| (u(r, 1) * 20_000.0) as i64, &|r| ((u(r, 1) * 20_000.0) as i64 * 7 + (u(r, 2) * 4.0) as i64) % 1000],
            ),
        ],
    );
}

#[test]
fn equal_keys_side_by_side() {
    assert_within(
        0.08,
        &[
            ("4 rows", &[&|r| (r / 4) as i64]),
            ("7 rows", &[&|r| (r / 7) as i64]),
            ("25 rows", &[&|r| (r / 25) as i64]),
            ("100 rows", &[&|r| (r / 100) as i64]),
            ("3000 rows", &[&|r| (r / 3000) as i64]),
            ("1 to 7 rows", &[&|r| (r / 28 * 7 + [1, 3, 6, 10, 15, 21, 28].iter().filter(|e| r % 28 >= **e).count()) as i64]),
            ("4 rows, not quite in order", &[&|r| (r / 4 + (u(r / 4, 1) * 4.0) as usize) as i64]),
            ("20 rows among one another", &[&|r| (r / 400 * 20 + r % 20) as i64]),
        ],
    );
}

#[test]
fn groups_of_all_sizes() {
    assert_within(
        0.08,
        &[
            ("half unique, half in five", &[&|r| if u(r, 1) < 0.5 { (u(r, 2) * 5.0) as i64 } else { 10 + r as i64 }]),
            (
                "half unique, half in groups of 10",
                &[&|r| {
                    if u(r, 1) < 0.5 { (u(r, 2) * 20_000.0) as i64 } else { 30_000 + r as i64 }
                }],
            ),
            ("Zipf", &[&|r| (u(r, 1) * 11.0).exp() as i64]),
            ("a few names are frequent", &[&|r| (u(r, 1).powi(4) * 50_000.0) as i64]),
            ("a third is NULL", &[&|r| if u(r, 1) < 0.33 { -1 } else { (u(r, 2) * 50_000.0) as i64 }]),
            (
                "NULLs that go together",
                &[&|r| if u(r, 1) < 0.7 { (u(r, 2) * 5000.0) as i64 } else { -1 }, &|r| if u(r, 1) > 0.6 { r as i64 } else { -1 }],
            ),
        ],
    );
}

#[test]
fn a_partial_index_has_a_part_of_each_group() {
    let cases: [(&str, f64, Column); 4] = [
        ("4 rows side by side, a third", 0.33, &|r| (r / 4) as i64),
        ("4 rows side by side, few", 0.05, &|r| (r / 4) as i64),
        ("40 rows, a quarter", 0.25, &|r| (u(r, 1) * 10_000.0) as i64),
        ("400 rows, half", 0.5, &|r| (u(r, 1) * 1000.0) as i64),
    ];
    for (name, share, column) in cases {
        let mut table = sampled(&[column]);
        table.conditions.insert("c".into(), share);
        let def = IndexDef::new(table.rel, vec![Key::asc(1)], []).partial("c");
        let leaves = built((0..ROWS).filter(|r| u(*r, 7) < share).map(|r| (vec![column(r)], 16)).collect());
        let error = of(&def, &table).pages as f64 / (leaves * 1.0035 + 1.0) - 1.0;
        assert!(error.abs() < 0.07, "{name}: {error:.3}");
    }
}

/// A condition, which share of the rows the planner expects to pass it, and which rows do.
type Looked<'a> = (&'a str, f64, &'a dyn Fn(usize) -> bool);

/// A table of which it was looked at which rows pass each condition, and of which the planner expects so many to.
fn with_conditions(columns: &[Column], conditions: &[Looked]) -> TableInfo {
    let mut table = sampled(columns);
    let taken = || (0..ROWS).filter(|row| u(row / PER_BLOCK, 99) < SHARE);
    let looked_at = conditions.iter().map(|(sql, _, passes)| ((*sql).to_owned(), taken().map(*passes).collect()));
    let sample = Arc::into_inner(table.sample.take().unwrap()).unwrap();
    table.sample = Some(Arc::new(sample.with_conditions(looked_at.collect())));
    table.conditions.extend(conditions.iter().map(|(sql, planned, _)| ((*sql).to_owned(), *planned)));
    table
}

#[test]
fn a_partial_index_has_whole_groups_where_its_condition_goes_with_the_key() {
    type Case<'a> = (&'a str, f64, Column<'a>, &'a dyn Fn(usize) -> bool);
    // Orders of one to seven rows.
    let order = |r: usize| r / 28 * 7 + [1, 3, 6, 10, 15, 21, 28].iter().filter(|e| r % 28 >= **e).count();
    let cases: [Case; 8] = [
        ("1 to 7 rows side by side, all or none", 0.15, &|r| order(r) as i64, &|r| u(order(r), 5) < 0.15),
        ("1 to 7 rows side by side, half or none", 0.25, &|r| order(r) as i64, &|r| u(order(r), 5) < 0.5 && u(r, 6) < 0.5),
        ("4 rows side by side, all or none", 0.25, &|r| (r / 4) as i64, &|r| u(r / 4, 5) < 0.25),
        ("4 rows side by side, any of them", 0.25, &|r| (r / 4) as i64, &|r| u(r, 5) < 0.25),
        ("scattered, all or none of 40", 0.1, &|r| (u(r, 1) * 10_000.0) as i64, &|r| u((u(r, 1) * 10_000.0) as usize, 5) < 0.1),
        ("the first rows of the table", 0.2, &|r| (u(r, 1) * 10_000.0) as i64, &|r| r < ROWS / 5),
        ("all rows", 1.0, &|r| (r / 4) as i64, &|_| true),
        ("NULLs", 0.3, &|r| if u(r, 5) < 0.3 { -1 } else { r as i64 }, &|r| u(r, 5) < 0.3),
    ];
    for (name, planned, column, passes) in cases {
        let table = with_conditions(&[column], &[("c", planned, passes)]);
        let def = IndexDef::new(table.rel, vec![Key::asc(1)], []).partial("c");
        let leaves = built((0..ROWS).filter(|r| passes(*r)).map(|r| (vec![column(r)], 16)).collect());
        let error = of(&def, &table).pages as f64 / (leaves * 1.0035 + 1.0) - 1.0;
        assert!(error.abs() < 0.07, "{name}: {error:.3}");
    }
}

#[test]
fn the_planner_is_believed_unless_the_sample_contradicts_it() {
    let half = |r: usize| u(r, 5) < 0.5;
    let first = |r: usize| r < ROWS / 5;
    let few = |r: usize| r.is_multiple_of(3000);
    let table = with_conditions(
        &[&|r| r as i64],
        &[("a", 0.502, &half), ("b", 0.4, &half), ("c", 0.25, &first), ("(d)", 0.5, &half), ("few", 0.2, &few), ("x", 0.01, &half)],
    );
    let share = |sql: &str, planned: f64| {
        let mut table = table.clone();
        table.conditions.insert(sql.into(), planned);
        of(&IndexDef::new(table.rel, vec![Key::asc(1)], []).partial(sql), &table).tuples / ROWS as f64
    };
    assert_eq!(share("a", 0.502), 0.502, "within what a sample may be off");
    assert!((share("b", 0.4) - 0.5).abs() < 0.02);
    assert_eq!(share("c", 0.25), 0.25, "rows of one place are in few blocks of the sample");
    assert!((share("c", 0.9) - 0.2).abs() < 0.06);
    assert!((share("(a AND (d))", 0.25) - 0.5).abs() < 0.02, "two conditions that are one");
    assert_eq!(share("(a AND e)", 0.25), 0.25);
    assert_eq!(share("few", 0.2), 0.2, "too few rows to tell");
    assert_eq!(share("never looked at", 0.2), 0.2);
    let whole = RowSample::new(vec![0, 0, 1], true, BTreeMap::new()).unwrap();
    let whole = whole.with_conditions(BTreeMap::from([("a".into(), vec![false; 3]), ("b".into(), vec![true])]));
    assert_eq!((whole.share("a", 0.5), whole.share("b", 0.5)), (Some(0.0), None), "nothing is missing; not of all rows");
}

#[test]
fn a_whole_table_is_counted() {
    let rows = 9000_usize;
    let values = (0..rows).map(|r| Value { hash: hash(&[(r % 70) as u8]), size: 4 }).collect();
    let columns = BTreeMap::from([(2, Values::new(4, false, values))]);
    let mut table = fixture::table(1, "t", rows as f64, &["a", "b"]);
    table.sample = RowSample::new((0..rows).map(|r| (r / 50) as u32).collect(), true, columns).map(Arc::new);
    let leaves = built((0..rows).map(|r| (vec![(r % 70) as i64], 16)).collect());
    let size = of(&IndexDef::new(table.rel, vec![Key::asc(2)], []), &table);
    assert!((size.pages as f64 - leaves - 2.0).abs() <= 1.0, "{} for {leaves} leaves", size.pages);
}

#[test]
fn widths_are_aligned_as_in_an_index() {
    let text = |sizes: &[u16]| Values::new(4, true, sizes.iter().map(|s| Value { hash: u64::from(*s), size: *s }).collect());
    let int = Values::new(4, false, vec![Value { hash: 1, size: 4 }; 3]);
    let sample = RowSample::new(vec![0; 3], true, BTreeMap::from([(1, text(&[5, 0, 300])), (2, int)])).unwrap();
    let mean = |columns: &[AttNum]| {
        let columns: Vec<_> = columns.iter().map(|c| sample.column(*c).unwrap()).collect();
        sample.widths(&columns, None).mean
    };
    // 8 + 5 is 16, an all-NULL tuple is 16, 8 + 300 is 312.
    assert!((mean(&[1]) - (16.0 + 16.0 + 312.0) / 3.0).abs() < 1e-9);
    // The number after five bytes begins at eight; where the text is NULL the header is longer.
    assert!((mean(&[1, 2]) - (24.0 + 24.0 + 312.0) / 3.0).abs() < 1e-9);
    assert!(sample.column(3).is_none(), "a column that was not sampled");
}

#[test]
fn an_expression_beside_sampled_columns_is_as_long_as_on_average() {
    let rows = 6000_usize;
    let mut table = fixture::table(1, "t", rows as f64, &["expression", "amount", "id", "phone"]);
    for (column, (name, width)) in table.columns.iter_mut().zip([("text", 3), ("numeric", 8), ("integer", 4), ("text", 16)]) {
        (column.type_name, column.avg_width, column.dedup) = (name.into(), width, false);
    }
    let values = |varying, size: &dyn Fn(usize) -> u16| {
        Values::new(4, varying, (0..rows).map(|r| Value { hash: r as u64, size: size(r) }).collect())
    };
    let columns = BTreeMap::from([
        (2, values(true, &|r| if r % 10 == 0 { 7 } else { 9 })),
        (3, values(false, &|_| 4)),
        (4, values(true, &|_| 16)),
    ]);
    table.sample = RowSample::new((0..rows).map(|r| (r / 50) as u32).collect(), true, columns).map(Arc::new);
    // 8 + 3 + 9, aligned to 4, + 4 + 16 is 40; so is 8 + 3 + 7.
    let leaves = built((0..rows).map(|r| (vec![r as i64], 40)).collect());
    let size = of(&IndexDef::new(table.rel, vec![Key::asc(1), Key::asc(2)], [3, 4]), &table);
    assert!((size.pages as f64 - leaves - 2.0).abs() <= 1.0, "{} for {leaves} leaves", size.pages);
    table.columns[0].null_frac = 0.5;
    assert!(
        of(&IndexDef::new(table.rel, vec![Key::asc(1), Key::asc(2)], [3, 4]), &table).pages > size.pages,
        "from the statistics"
    );
}

#[test]
fn samples_that_do_not_fit_together_are_none() {
    assert_eq!(RowSample::new(Vec::new(), true, BTreeMap::new()), None);
    let short = Values::new(4, false, Vec::new());
    assert_eq!(RowSample::new(vec![0], true, BTreeMap::from([(1, short)])), None);
}

#[test]
fn an_index_of_a_partitioned_table_is_as_large_as_those_of_its_partitions() {
    let whole = fixture::table(1, "whole", 1_000_000.0, &["id", "state"]);
    for (column, distinct) in [(1, 100_000.0), (2, 100.0)] {
        for method in [AccessMethod::Btree, AccessMethod::Gin, AccessMethod::Brin, AccessMethod::Hash] {
            let def = IndexDef::new(whole.rel, vec![Key::asc(column)], []).by(method);
            let mut parted = whole.clone();
            parted.parts = 10;
            let mut part = fixture::table(1, "part", 100_000.0, &["id", "state"]);
            part.bytes = whole.bytes / 10;
            part.columns[column as usize - 1].n_distinct = distinct;
            let (all, one) = (of(&def, &parted), of(&def, &part));
            assert_eq!((all.bytes, all.height), (one.bytes * 10, one.height), "{method:?} on {column}");
            assert_eq!(entry_pages(&def, &parted), entry_pages(&def, &part).map(|pages| pages * 10.0));
        }
    }
}
