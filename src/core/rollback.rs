//! rollback to a point in time: what was changed since, object by object. The state of an object at that time is the one before the
//! first change since, so taking that one back brings it back, whatever came after; changes that undid one another need nothing.

use std::collections::BTreeMap;

/// Every kind of mutation that IndexPilot logs itself. What it logged is read again, to take it back among other things, so nobody
/// else may log under these names.
pub const MUTATIONS: [&str; 29] = [
    "action_blocked",
    "action_cancelled",
    "action_failed",
    "action_interrupted",
    "action_retried",
    "analyze_table",
    "attach_index",
    "attach_index_failed",
    "bootstrap_genome",
    "create_index",
    "disable_field",
    "disable_system",
    "drop_index",
    "enable_field",
    "enable_system",
    "end_trial",
    "hide_index",
    "initialize_tenant",
    "keep_index",
    "protect_index",
    "reindex_index",
    "reject_recommendation",
    "remove_unusable_index",
    "reset_workload",
    "revert_index",
    "rollback",
    "show_index",
    "start_trial",
    "unprotect_index",
];

/// A change in the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    pub id: i64,
    /// `create_index`, `rollback`, ...
    pub mutation: String,
    pub schema: String,
    pub table: String,
    pub index: Option<String>,
    pub field: Option<String>,
    pub tenant: Option<String>,
}

/// What a change is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Object {
    /// Whether an index is there.
    Index(String, String),
    /// Whether plans use an index.
    Visibility(String, String),
    /// Whether a tenant expresses a field.
    Field(String, String, String, String),
    /// Whether the database is switched off.
    Switch,
}

/// One object that was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The change to take back: the first.
    pub first: i64,
    /// All changes of the object, the first included, oldest first.
    pub all: Vec<i64>,
}

fn object(c: &Change) -> Option<Object> {
    let index = || Some((c.schema.clone(), c.index.clone()?));
    match c.mutation.as_str() {
        "create_index" | "drop_index" => index().map(|(s, i)| Object::Index(s, i)),
        "hide_index" | "show_index" => index().map(|(s, i)| Object::Visibility(s, i)),
        "enable_field" | "disable_field" | "rollback" if c.field.is_some() => {
            let part = |p: &Option<String>| p.clone().unwrap_or_default();
            Some(Object::Field(c.schema.clone(), c.table.clone(), part(&c.field), part(&c.tenant)))
        }
        // A rollback of an index is an order; what came of it is a change of its own.
        "disable_system" | "enable_system" | "rollback" if c.index.is_none() => Some(Object::Switch),
        // Protections among them: going back in time must not take away what a person has forbidden.
        _ => None,
    }
}

/// The steps that lead back to the time before all of these changes, given oldest first: those whose last change is the newest come
/// first.
pub fn plan(changes: &[Change]) -> Vec<Step> {
    let mut steps: BTreeMap<Object, (Step, &Change)> = BTreeMap::new();
    for c in changes {
        if let Some(object) = object(c) {
            let entry = steps.entry(object).or_insert_with(|| (Step { first: c.id, all: Vec::new() }, c));
            entry.0.all.push(c.id);
        }
    }
    // An index that was not there at that time will not be there again: who sees it is no matter.
    let made: Vec<Object> = steps
        .iter()
        .filter_map(|(object, (_, first))| match object {
            Object::Index(s, i) if first.mutation == "create_index" => Some(Object::Visibility(s.clone(), i.clone())),
            _ => None,
        })
        .collect();
    let mut steps: Vec<Step> = steps.into_iter().filter(|(object, _)| !made.contains(object)).map(|(_, (step, _))| step).collect();
    steps.sort_by_key(|s| std::cmp::Reverse(s.all.last().copied()));
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(id: i64, mutation: &str, index: &str) -> Change {
        Change { id, mutation: mutation.into(), schema: "crm".into(), index: Some(index.into()), ..Change::default() }
    }

    fn field(id: i64, mutation: &str, field: &str) -> Change {
        Change { id, mutation: mutation.into(), schema: "crm".into(), field: Some(field.into()), ..Change::default() }
    }

    fn switch(id: i64, mutation: &str) -> Change {
        Change { id, mutation: mutation.into(), ..Change::default() }
    }

    fn step(all: &[i64]) -> Step {
        Step { first: all[0], all: all.to_vec() }
    }

    #[test]
    fn the_newest_comes_first() {
        let steps = plan(&[
            change(1, "create_index", "a"),
            field(2, "disable_field", "x"),
            change(3, "create_index", "b"),
            switch(4, "disable_system"),
        ]);
        assert_eq!(steps, [step(&[4]), step(&[3]), step(&[2]), step(&[1])]);
    }

    #[test]
    fn each_object_goes_back_to_its_first_change() {
        let steps = plan(&[
            change(1, "create_index", "a"),
            change(2, "rollback", "a"),
            change(3, "drop_index", "a"),
            change(4, "drop_index", "b"),
            change(5, "create_index", "a"),
            field(6, "disable_field", "x"),
            field(7, "rollback", "x"),
            switch(8, "disable_system"),
            switch(9, "rollback"),
        ]);
        assert_eq!(steps, [step(&[8, 9]), step(&[6, 7]), step(&[1, 3, 5]), step(&[4])]);
    }

    #[test]
    fn who_sees_an_index_matters_only_where_it_was_there() {
        let steps = plan(&[
            change(1, "create_index", "a"),
            change(2, "hide_index", "a"),
            change(3, "hide_index", "b"),
            change(4, "drop_index", "b"),
            change(5, "hide_index", "c"),
        ]);
        assert_eq!(steps, [step(&[5]), step(&[4]), step(&[3]), step(&[1])]);
    }

    #[test]
    fn what_is_taken_back_is_ours_alone() {
        for kind in
            ["create_index", "drop_index", "hide_index", "show_index", "enable_field", "disable_field", "enable_system", "rollback"]
        {
            assert!(MUTATIONS.contains(&kind), "{kind}");
        }
        assert!(MUTATIONS.is_sorted());
    }

    #[test]
    fn what_changed_nothing_is_left_out() {
        let said = [
            "action_failed",
            "keep_index",
            "revert_index",
            "deploy",
            "remove_unusable_index",
            "reindex_index",
            "protect_index",
            "unprotect_index",
        ];
        let changes: Vec<Change> = said.iter().zip(1..).map(|(m, id)| change(id, m, "a")).collect();
        assert_eq!(plan(&changes), []);
        // A person's own event is no switch.
        assert_eq!(plan(&[switch(1, "deploy")]), []);
    }
}
