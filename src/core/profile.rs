//! profile: what the statements of a template do to tables and fields, summed up over its samples.

use crate::model::{AttNum, Cost, RelId};
use crate::tenant::TenantSource;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// What a statement uses a field for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Usage {
    /// A condition on the field's table alone.
    Filter,
    /// A condition that ties it to another table.
    Join,
    /// ORDER BY, or the order of a window.
    Order,
    /// GROUP BY or DISTINCT.
    Group,
    /// The result, or what it is computed from.
    Output,
    /// A new row is given a value, the field's default included.
    Insert,
    /// UPDATE, ON CONFLICT DO UPDATE or MERGE sets it.
    Update,
}

/// How a condition compares a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Comparison {
    Equal,
    /// `IN (...)`, `= ANY (...)`
    In,
    /// `<`, `<=`, `>`, `>=`, BETWEEN
    Range,
    /// LIKE, a regular expression or a prefix
    Like,
    /// `IS NULL`, `IS NOT NULL`
    Null,
    /// Any other operator.
    Other,
    /// Not the field is compared but an expression of it.
    Expression,
}

/// One use of a field by one statement.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldUse {
    pub rel: RelId,
    pub column: AttNum,
    pub usage: Usage,
    /// `pg_operator.oid` with the field on its left; 0 where there is none.
    pub operator: u32,
    /// Of conditions only.
    pub comparison: Option<Comparison>,
    /// Share of the rows that pass (0 to 1), as the planner estimated it.
    pub selectivity: Option<f64>,
}

impl FieldUse {
    /// A use that compares nothing.
    pub fn plain(rel: RelId, column: AttNum, usage: Usage) -> Self {
        FieldUse { rel, column, usage, operator: 0, comparison: None, selectivity: None }
    }
}

/// What one sample says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Statement {
    pub cost: Cost,
    pub fields: Vec<FieldUse>,
    /// Tables whose rows are looked for.
    pub read: Vec<RelId>,
    /// Tables whose rows are added, changed or removed.
    pub written: Vec<RelId>,
    pub tenant: Option<TenantSource>,
}

/// A use of a field, over all samples that have it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FieldSummary {
    #[serde(rename = "table_id")]
    pub rel: RelId,
    #[serde(rename = "attnum")]
    pub column: AttNum,
    pub usage: Usage,
    pub operator: u32,
    pub comparison: Option<Comparison>,
    /// Selectivity: mean, smallest and largest; `None` where none was estimated.
    pub selectivity: Option<f64>,
    pub selectivity_min: Option<f64>,
    pub selectivity_max: Option<f64>,
}

/// What tells one kind of use from another.
type Key = (RelId, AttNum, Usage, u32, Option<Comparison>);

/// What a template does.
#[derive(Clone, Debug, PartialEq)]
pub struct Profile {
    /// Mean cost of the samples.
    pub cost: Cost,
    pub fields: Vec<FieldSummary>,
    /// Every table it touches, and whether it writes to it.
    pub tables: BTreeMap<RelId, bool>,
    /// Where its statements name their tenant; `None` too when its samples disagree.
    pub tenant: Option<TenantSource>,
}

/// Sums up what the samples of a template say. `None` when there are none.
pub fn summarise(statements: &[Statement]) -> Option<Profile> {
    let first = statements.first()?;
    let mut fields: BTreeMap<Key, Vec<f64>> = BTreeMap::new();
    for field in statements.iter().flat_map(|s| &s.fields) {
        let key = (field.rel, field.column, field.usage, field.operator, field.comparison);
        let known = field.selectivity.filter(|s| s.is_finite()).map(|s| s.clamp(0.0, 1.0));
        fields.entry(key).or_default().extend(known);
    }
    let fields = fields
        .into_iter()
        .map(|((rel, column, usage, operator, comparison), mut seen)| {
            // Sorted, so that the mean does not depend on the order of the samples.
            seen.sort_by(f64::total_cmp);
            let mean = seen.iter().sum::<f64>() / seen.len() as f64;
            FieldSummary {
                rel,
                column,
                usage,
                operator,
                comparison,
                selectivity: (!seen.is_empty()).then_some(mean),
                selectivity_min: seen.first().copied(),
                selectivity_max: seen.last().copied(),
            }
        })
        .collect();
    let written: BTreeSet<RelId> = statements.iter().flat_map(|s| s.written.iter().copied()).collect();
    let touched = statements.iter().flat_map(|s| s.read.iter().chain(&s.written).copied());
    let mut costs: Vec<f64> = statements.iter().map(|s| s.cost).collect();
    costs.sort_by(f64::total_cmp);
    Some(Profile {
        cost: costs.iter().sum::<f64>() / costs.len() as f64,
        fields,
        tables: touched.map(|rel| (rel, written.contains(&rel))).collect(),
        tenant: first.tenant.filter(|t| statements.iter().all(|s| s.tenant == Some(*t))),
    })
}

/// The class of a failure to plan a statement again, by its SQLSTATE.
pub fn failure_class(sqlstate: &str) -> &'static str {
    match sqlstate {
        // Tables, columns, functions, types, schemas, parameters and roles that are not there (any more), or not under that search path.
        "42P01" | "42703" | "42883" | "42704" | "3F000" | "42P02" => "object_missing",
        "42P18" | "42P22" | "42804" | "42725" | "42702" => "type_unclear",
        "42501" => "no_privilege",
        "57014" | "55P03" => "timeout",
        "0A000" => "not_supported",
        "25006" => "would_write",
        code if code.starts_with("22") => "bad_value",
        code if code.starts_with("53") => "no_resources",
        "42601" => "syntax",
        _ => "other",
    }
}

/// What may be kept of a failure to plan a statement, for others to read. Messages about values and of users' functions quote data, so
/// of those only SQLSTATE and class are kept.
pub fn failure_text(sqlstate: &str, message: &str) -> String {
    format!("{sqlstate}: {}", if quotes_no_values(sqlstate) { message } else { failure_class(sqlstate) })
}

/// Messages of that SQLSTATE are about names, limits and the server, not about values in tables.
pub fn quotes_no_values(sqlstate: &str) -> bool {
    const CLASSES: [&str; 9] = ["42", "0A", "53", "54", "55", "57", "58", "3F", "40"];
    CLASSES.iter().any(|class| sqlstate.starts_with(class))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn filter(column: AttNum, selectivity: f64) -> FieldUse {
        FieldUse {
            operator: 96,
            comparison: Some(Comparison::Equal),
            selectivity: Some(selectivity),
            ..FieldUse::plain(RelId(1), column, Usage::Filter)
        }
    }

    #[test]
    fn messages_about_values_are_not_kept() {
        for (state, kept) in [
            ("42P01", "42P01: m"),
            ("0A000", "0A000: m"),
            ("57014", "57014: m"),
            ("54000", "54000: m"),
            ("55P03", "55P03: m"),
            ("22P02", "22P02: bad_value"),
            ("22012", "22012: bad_value"),
            ("P0001", "P0001: other"),
            ("23514", "23514: other"),
            ("XX000", "XX000: other"),
        ] {
            assert_eq!(failure_text(state, "m"), kept);
        }
    }

    #[test]
    fn samples_are_averaged_by_field_and_operator() {
        let sample = |cost, fields| Statement { cost, fields, read: vec![RelId(1)], ..Statement::default() };
        let a = sample(10.0, vec![filter(1, 0.1), FieldUse::plain(RelId(1), 2, Usage::Output)]);
        let b = sample(30.0, vec![filter(1, 0.3), FieldUse { operator: 521, ..filter(1, 0.9) }]);
        let profile = summarise(&[a, b]).unwrap();
        assert_eq!(profile.cost, 20.0);
        let seen: Vec<_> = profile.fields.iter().map(|f| (f.column, f.usage, f.operator, f.selectivity)).collect();
        assert_eq!(seen, vec![(1, Usage::Filter, 96, Some(0.2)), (1, Usage::Filter, 521, Some(0.9)), (2, Usage::Output, 0, None)]);
        assert_eq!((profile.fields[0].selectivity_min, profile.fields[0].selectivity_max), (Some(0.1), Some(0.3)));
        assert_eq!(summarise(&[]), None);
    }

    #[test]
    fn a_table_is_written_when_any_sample_writes_to_it() {
        let read = Statement { read: vec![RelId(1), RelId(2)], ..Statement::default() };
        let write = Statement { read: vec![RelId(1)], written: vec![RelId(1), RelId(3)], ..Statement::default() };
        let tables = summarise(&[read, write]).unwrap().tables;
        assert_eq!(tables, BTreeMap::from([(RelId(1), true), (RelId(2), false), (RelId(3), true)]));
    }

    #[test]
    fn a_tenant_is_known_when_all_samples_agree() {
        let with = |tenant| Statement { tenant, ..Statement::default() };
        let (one, two) = (Some(TenantSource::Parameter(1)), Some(TenantSource::Literal(1)));
        assert_eq!(summarise(&[with(one), with(one)]).unwrap().tenant, one);
        assert_eq!(summarise(&[with(one), with(two)]).unwrap().tenant, None);
        assert_eq!(summarise(&[with(one), with(None)]).unwrap().tenant, None);
        assert_eq!(summarise(&[with(None), with(one)]).unwrap().tenant, None);
    }

    #[test]
    fn failures_have_classes() {
        let classes = ["42P01", "42501", "57014", "22P02", "53200", "XX000"].map(failure_class);
        assert_eq!(classes, ["object_missing", "no_privilege", "timeout", "bad_value", "no_resources", "other"]);
    }

    proptest! {
        #[test]
        fn the_order_of_the_samples_is_of_no_account(
            samples in prop::collection::vec((0.0f64..1e6, prop::collection::vec((1i16..4, 0.0f64..1.0), 0..5)), 1..6)) {
            let all: Vec<Statement> = samples.iter().map(|(cost, fields)| Statement {
                cost: *cost,
                fields: fields.iter().map(|(column, selectivity)| filter(*column, *selectivity)).collect(),
                ..Statement::default()
            }).collect();
            let reversed: Vec<Statement> = all.iter().rev().cloned().collect();
            let profile = summarise(&all).unwrap();
            for f in &profile.fields {
                prop_assert!(f.selectivity_min <= f.selectivity.map(|s| s + 1e-9) && f.selectivity <= f.selectivity_max.map(|s| s + 1e-9));
            }
            prop_assert_eq!(profile, summarise(&reversed).unwrap());
        }
    }
}
