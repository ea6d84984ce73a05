//! What a stored query wants of its tables.

use super::Sample;
use super::hooks::Session;
use crate::guc;
use crate::pg::error::Result;
use crate::pg::planner::{self, Parameter};
use crate::pg::shape::{Expressions, Wanted, renumber};
use indexpilot_core::model::{FIRST_EXPRESSION, QueryShape, RelId, RelationUse};
use std::collections::BTreeSet;

/// What one sample of a query wants.
#[derive(Clone, Debug)]
pub struct Shaped {
    pub shape: QueryShape,
    /// Texts of its conditions and expressions that have a constant in them, by table.
    constants: BTreeSet<(RelId, String)>,
    /// Those of conditions that compare with one of many values.
    values: BTreeSet<(RelId, String)>,
    /// What changes from one execution to the next is in parameters.
    parameters: bool,
}

/// What a statement as it stands wants of its tables.
///
/// # Errors
/// As for [`study`].
pub fn shape(sample: &Sample) -> Result<QueryShape> {
    Ok(study(sample, &mut Expressions::default())?.shape)
}

/// Plans the sample with the database as it is and reads from the planner what the query wants of each table, at all levels:
/// subqueries, CTEs and the arms of UNION too. Tables that are only inserted into appear as targets. New expressions get a number
/// in `expressions`.
///
/// # Errors
/// As [`planner::with_statement`]; `Prerequisite` when the hooks are not installed.
pub fn study(sample: &Sample, expressions: &mut Expressions) -> Result<Shaped> {
    let (relations, inserted, base_cost) = record(sample)?;
    let constants = texts(&relations, |w| &w.constants);
    let values = texts(&relations, |w| &w.values);
    // A value of a parameter looks like a constant of the text to the planner. An index must not depend on it.
    let bound = sample.parameters.iter().any(|p| p.known) && !constants.is_empty();
    let written = if bound { of_the_text(sample) } else { constants.clone() };
    let keep = |table: RelId, text: &str| {
        let entry = (table, text.to_owned());
        !constants.contains(&entry) || written.contains(&entry)
    };
    let mut relations: Vec<RelationUse> = relations
        .into_iter()
        .map(|mut wanted| {
            let table = wanted.usage.rel;
            wanted.usage.conditions.retain(|c| keep(table, &c.sql));
            expressions.adopt(wanted, |text| keep(table, text))
        })
        .collect();
    relations.extend(inserted.into_iter().map(inserted_into));
    let constants = constants.intersection(&written).cloned().collect();
    Ok(Shaped { shape: QueryShape { relations, base_cost }, constants, values, parameters: !sample.parameters.is_empty() })
}

/// The shape of a query of which these are samples: that of the first with the mean of the costs. Of expressions and conditions with
/// constants those remain that all samples have. Conditions count only if their constants are categories, such as states. In a statement
/// without parameters the next execution may compare with another one: there samples must agree on it, or `certain` says that there is one
/// sample because there is one statement.
pub fn common(samples: Vec<Shaped>, certain: bool, expressions: &Expressions) -> Option<QueryShape> {
    let mean = samples.iter().map(|s| s.shape.base_cost).sum::<f64>() / samples.len().max(1) as f64;
    let mut rest = samples.into_iter();
    let first = rest.next()?;
    let rest: Vec<Shaped> = rest.collect();
    let certain = certain || !rest.is_empty();
    let agreed = |table: RelId, text: &str| {
        let entry = (table, text.to_owned());
        !first.constants.contains(&entry) || rest.iter().all(|s| s.constants.contains(&entry))
    };
    let proven = |table: RelId, text: &str| {
        let entry = (table, text.to_owned());
        // A day or a number is another one tomorrow, whoever writes it into the statement.
        !(if certain || first.parameters { first.values.contains(&entry) } else { first.constants.contains(&entry) })
    };
    let relations = first.shape.relations.iter().cloned().map(|mut usage| {
        let table = usage.rel;
        usage.conditions.retain(|c| agreed(table, &c.sql) && proven(table, &c.sql));
        renumber(usage, |column| {
            let text = expressions.of(table).iter().find(|e| e.attnum == column).map(|e| e.name.as_str());
            (column < FIRST_EXPRESSION || text.is_some_and(|t| agreed(table, t))).then_some(column)
        })
    });
    Some(QueryShape { relations: relations.collect(), base_cost: mean })
}

fn record(sample: &Sample) -> Result<(Vec<Wanted>, Vec<RelId>, f64)> {
    planner::with_statement(sample, guc::whatif_timeout(), |statement| {
        let session = Session::record()?;
        let base_cost = statement.plan().cost();
        Ok((session.relations(), statement.insert_targets(), base_cost))
    })
}

fn texts(relations: &[Wanted], of: impl Fn(&Wanted) -> &BTreeSet<String>) -> BTreeSet<(RelId, String)> {
    relations.iter().flat_map(|w| of(w).iter().map(|text| (w.usage.rel, text.clone()))).collect()
}

/// What has a constant in it also when no parameter has a value; nothing when the statement cannot be planned so.
fn of_the_text(sample: &Sample) -> BTreeSet<(RelId, String)> {
    let parameters = sample.parameters.iter().map(|p| Parameter { value: None, known: false, ..p.clone() }).collect();
    record(&Sample { parameters, ..sample.clone() }).map(|(relations, ..)| texts(&relations, |w| &w.constants)).unwrap_or_default()
}

/// A table that is only written to: it offers an index nothing but work.
fn inserted_into(rel: RelId) -> RelationUse {
    RelationUse {
        rel,
        predicates: Vec::new(),
        conditions: Vec::new(),
        order: Vec::new(),
        limited: false,
        group: Vec::new(),
        needed: Vec::new(),
        whole_row: true,
        target: true,
        rows: 0.0,
    }
}
