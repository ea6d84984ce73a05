//! Taking back everything since a point in time.

use super::decide::{self, Undo};
use crate::pg::error::{Error, Kind, Result};
use crate::pg::{catalog, time};
use crate::store::action::{self, Action};
use crate::store::log::{self, Numbered};
use crate::store::{self, genome, protection};
use indexpilot_core::apply::State;
use indexpilot_core::rollback::{Change, Step, plan};
use std::collections::BTreeMap;

/// A step, before or after it was taken.
pub struct Taken {
    /// The mutation that says so; `None` before, and for what stays.
    pub mutation: Option<i64>,
    /// `None` for what stays.
    pub statement: Option<String>,
    pub effect: String,
}

/// What a step is.
enum Way {
    Cancel(Box<Action>),
    Back(Step),
}

/// What [`to`] would do. `at` is in seconds since the Unix epoch.
pub fn preview(at: f64) -> Result<Vec<Taken>> {
    let since = Since::new(at)?;
    since.steps().iter().filter_map(|way| since.look(way).transpose()).collect()
}

/// Brings everything back to how it was then.
pub fn to(at: f64) -> Result<Vec<Taken>> {
    let since = Since::new(at)?;
    let mut done = Vec::new();
    for way in since.steps() {
        let Some(mut taken) = since.look(&way)? else { continue };
        if taken.statement.is_some() {
            match &way {
                Way::Cancel(a) => {
                    decide::cancel(a.id)?;
                }
                Way::Back(step) => taken.mutation = Some(since.take_back(step)?),
            }
        }
        done.push(taken);
    }
    Ok(done)
}

/// What happened since then.
struct Since {
    at: f64,
    mutations: BTreeMap<i64, Numbered>,
    open: Vec<Action>,
}

impl Since {
    fn new(at: f64) -> Result<Self> {
        if at > time::now() {
            return Err(Error::new(Kind::InvalidParameter, "the time to go back to must not lie in the future"));
        }
        let mutations = log::after(at)?.into_iter().map(|n| (n.id, n)).collect();
        Ok(Since { at, mutations, open: action::open_since(at)? })
    }

    /// First what has not happened yet, then what has.
    fn steps(&self) -> Vec<Way> {
        let changes: Vec<Change> = self.mutations.values().map(change).collect();
        let cancels = self.open.iter().cloned().map(|a| Way::Cancel(Box::new(a)));
        cancels.chain(plan(&changes).into_iter().map(Way::Back)).collect()
    }

    /// What a step would run and mean; `None` when everything is as it was already.
    fn look(&self, way: &Way) -> Result<Option<Taken>> {
        let step = match way {
            Way::Cancel(a) => {
                let doing = if a.state == State::Building { "runs" } else { "waits" };
                let what = format!("{} of index {} on {}.{}", a.kind.as_str(), a.index_name, a.table_schema, a.table_name);
                return Ok(Some(Taken {
                    mutation: None,
                    statement: Some(format!("SELECT indexpilot.cancel({})", a.id)),
                    effect: format!("action {}, {what}, which {doing}, is cancelled", a.id),
                }));
            }
            Way::Back(step) => step,
        };
        let Some(first) = self.mutations.get(&step.first) else { return Ok(None) };
        let seen = match decide::undo(step.first, &first.logged).and_then(|undo| self.needed(first, &undo)) {
            Ok(false) => return Ok(None),
            Ok(true) => decide::preview_of(step.first, &first.logged),
            Err(e) => Err(e),
        };
        Ok(Some(match seen {
            Ok((statement, effect)) => Taken { mutation: None, statement: Some(statement), effect },
            Err(e) => {
                let m = &first.logged.mutation;
                Taken { mutation: None, statement: None, effect: format!("mutation {} ({}) stays: {e}", step.first, m.mutation) }
            }
        }))
    }

    /// Something is not as it was at that time.
    fn needed(&self, first: &Numbered, undo: &Undo) -> Result<bool> {
        let m = &first.logged.mutation;
        let (schema, table) = (m.table_schema.clone().unwrap_or_default(), m.table_name.clone().unwrap_or_default());
        let index = m.index_name.clone().unwrap_or_default();
        Ok(match undo {
            Undo::Drop { .. } => match catalog::oid_of(&schema, &index)? {
                Some(oid) if protection::is_protected(oid)? => {
                    return Err(Error::new(Kind::Prerequisite, format!("index \"{schema}.{index}\" is protected")));
                }
                there => there.is_some(),
            },
            Undo::Create { .. } => {
                if catalog::oid_of(&schema, &table)?.is_none() {
                    let message = format!("table \"{schema}.{table}\" does not exist any more");
                    return Err(Error::new(Kind::UndefinedTable, message));
                }
                catalog::oid_of(&schema, &index)?.is_none()
            }
            Undo::Express { enabled } => {
                let Some(table_id) = catalog::oid_of(&schema, &table)? else { return Ok(false) };
                let (field, tenant) = (m.field_name.clone().unwrap_or_default(), m.tenant_id.clone().unwrap_or_default());
                genome::field(table_id, &field, &tenant)?.is_some_and(|f| f.enabled.unwrap_or(true) != *enabled)
            }
            Undo::Disable { disabled } => store::control::get()?.disabled != *disabled,
            Undo::Visible { index: None, .. } | Undo::Protected { index: None, .. } => false,
            Undo::Protected { index: Some(index), protected } => protection::is_protected(*index)? != *protected,
            Undo::Visible { index: Some(index), visible } => store::trial::get(*index)?.is_some() == *visible,
        })
    }

    fn take_back(&self, step: &Step) -> Result<i64> {
        let first = self.mutations.get(&step.first).ok_or_else(|| Error::internal("mutation vanished"))?;
        let by = decide::take_back(step.first, &first.logged, &format!("rollback to {}", store::log::shown(self.at)?))?;
        for id in &step.all {
            log::mark_undone(*id, by)?;
        }
        Ok(by)
    }
}

fn change(n: &Numbered) -> Change {
    let m = &n.logged.mutation;
    Change {
        id: n.id,
        mutation: m.mutation.clone(),
        schema: m.table_schema.clone().unwrap_or_default(),
        table: m.table_name.clone().unwrap_or_default(),
        index: m.index_name.clone(),
        field: m.field_name.clone(),
        tenant: m.tenant_id.clone(),
    }
}
