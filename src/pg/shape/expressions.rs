//! The expressions that the queries of one analysis compare, sort and group by, each with its number.

use super::Wanted;
use indexpilot_core::model::{AttNum, ColumnInfo, FIRST_EXPRESSION, RelId, RelationUse};
use std::collections::BTreeMap;

/// Expressions of one table that are numbered at most.
const MAX_PER_TABLE: usize = 1000;

/// Numbers of expressions by table. The mapping holds for one analysis: the same text has the same number in all its queries.
#[derive(Clone, Debug, Default)]
pub struct Expressions(BTreeMap<RelId, Vec<ColumnInfo>>);

impl Expressions {
    /// The expressions of a table as columns, ascending by number.
    pub fn of(&self, table: RelId) -> &[ColumnInfo] {
        self.0.get(&table).map_or(&[], Vec::as_slice)
    }

    /// Number of the expression with that text, if it has one.
    pub fn find(&self, table: RelId, text: &str) -> Option<AttNum> {
        self.of(table).iter().find(|e| e.name == text).map(|e| e.attnum)
    }

    /// Number of an expression of a table, a new one for a new text; `None` when there are too many.
    fn number(&mut self, table: RelId, expression: ColumnInfo) -> Option<AttNum> {
        if let Some(known) = self.find(table, &expression.name) {
            return Some(known);
        }
        let all = self.0.entry(table).or_default();
        let attnum = FIRST_EXPRESSION + AttNum::try_from(all.len()).ok()?;
        if all.len() >= MAX_PER_TABLE {
            return None;
        }
        all.push(ColumnInfo { attnum, ..expression });
        Some(attnum)
    }

    /// The use of a relation with the numbers of this analysis. Expressions for which `keep` is false are left out, with what is said
    /// of them.
    pub fn adopt(&mut self, wanted: Wanted, keep: impl Fn(&str) -> bool) -> RelationUse {
        let Wanted { usage, expressions, .. } = wanted;
        let table = usage.rel;
        let numbers: Vec<Option<AttNum>> =
            expressions.into_iter().map(|e| if keep(&e.name) { self.number(table, e) } else { None }).collect();
        let number = |column: AttNum| match usize::try_from(column - FIRST_EXPRESSION) {
            Ok(place) => numbers.get(place).copied().flatten(),
            Err(_) => Some(column),
        };
        renumber(usage, number)
    }
}

/// The use with other column numbers; what is said of a column without one is left out.
pub fn renumber(mut usage: RelationUse, number: impl Fn(AttNum) -> Option<AttNum>) -> RelationUse {
    usage.predicates.retain_mut(|p| number(p.column).map(|n| p.column = n).is_some());
    // An order holds as far as all that comes before in it.
    let order = usage.order.iter().map_while(|k| number(k.column).map(|column| indexpilot_core::model::Key { column, ..*k }));
    usage.order = order.collect();
    usage.limited &= !usage.order.is_empty();
    usage.group = usage.group.iter().filter_map(|c| number(*c)).collect();
    usage
}
