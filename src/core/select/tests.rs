//! Selections against brute force, and what holds for every selection: limits, order, reasons, figures.

use super::search::{GAP, LOOSE_GAP};
use super::*;
use crate::fixture;
use crate::model::{IndexDef, Key, PAGE, Reason, RelId};
use crate::size::Size;
use crate::whatif::{self, PlanCost};
use proptest::prelude::*;

/// The cost of reading a table whole, and with each candidate that helps.
type Access = (f64, Vec<(CandidateIdx, f64)>);
/// A table's number, the cost of reading it, and the share of it that each of its candidates leaves.
type Read = (usize, f64, Vec<f64>);

/// A planner whose queries read up to two tables. Each candidate on a table has a cost of access; the cheapest is used; reading
/// without index has a cost too. So the plan with more candidates is never dearer.
#[derive(Clone, Debug)]
struct Additive {
    /// Per query: per table, the cost of reading it whole, and with each candidate that helps.
    access: Vec<Vec<Access>>,
    cancelled: bool,
}

impl Additive {
    fn plan(&self, query: QueryIdx, with: &[CandidateIdx]) -> PlanCost {
        let mut plan = PlanCost::default();
        for ((whole, by), relation) in self.access[query].iter().zip(0..) {
            let best = by.iter().filter(|(c, cost)| with.contains(c) && cost < whole).min_by(|a, b| a.1.total_cmp(&b.1));
            plan.cost += best.map_or(*whole, |b| b.1);
            plan.used.extend(best.map(|b| b.0));
            plan.leaves.push(whatif::Leaf {
                relation: Some(relation),
                indexes: best.iter().map(|b| b.0).collect(),
                outer: 0,
                parallel: false,
                order: Vec::new(),
                times: Some(1.0),
                cost: best.map_or(*whole, |b| b.1),
            });
        }
        plan
    }
}

impl CostOracle for Additive {
    fn cost(&mut self, query: QueryIdx, with: &[CandidateIdx]) -> Result<PlanCost, Unplannable> {
        Ok(self.plan(query, with))
    }

    fn prices(&mut self, query: QueryIdx, with: &[CandidateIdx]) -> Result<Vec<whatif::Access>, Unplannable> {
        let one = |relation, index, cost| whatif::Access { relation, index, outer: 0, parallel: false, order: Vec::new(), cost };
        let mut all = Vec::new();
        for ((whole, by), relation) in self.access[query].iter().zip(0..) {
            all.push(one(relation, None, *whole));
            all.extend(by.iter().filter(|(c, _)| with.contains(c)).map(|(c, cost)| one(relation, Some(*c), *cost)));
        }
        Ok(all)
    }

    fn interrupted(&mut self) -> bool {
        self.cancelled
    }
}

/// A planner that says what a closure says.
struct Says<F>(F);

impl<F: FnMut(QueryIdx, &[CandidateIdx]) -> Result<PlanCost, Unplannable>> CostOracle for Says<F> {
    fn cost(&mut self, query: QueryIdx, with: &[CandidateIdx]) -> Result<PlanCost, Unplannable> {
        (self.0)(query, with)
    }

    fn prices(&mut self, _: QueryIdx, _: &[CandidateIdx]) -> Result<Vec<whatif::Access>, Unplannable> {
        Ok(Vec::new())
    }

    fn interrupted(&mut self) -> bool {
        false
    }
}

/// A solver that never finds anything.
struct Broken;

impl Milp for Broken {
    fn solve(&mut self, _: good_lp::solvers::highs::HighsProblem, _: f64, _: f64) -> Result<MilpResult, String> {
        Err("out of order".into())
    }
}

/// HiGHS, telling how long it takes.
struct Timed;

impl Milp for Timed {
    fn solve(&mut self, problem: good_lp::solvers::highs::HighsProblem, limit: f64, gap: f64) -> Result<MilpResult, String> {
        let start = std::time::Instant::now();
        let result = Uninterruptible.solve(problem, limit, gap);
        let gap = result.as_ref().map(|r| r.gap);
        println!("solver: {:.2} s, gap {gap:?}", start.elapsed().as_secs_f64());
        result
    }
}

#[derive(Clone, Debug)]
struct Case {
    queries: Vec<Query>,
    catalog: Catalog,
    candidates: Vec<Candidate>,
    oracle: Additive,
    config: Config,
}

fn config() -> Config {
    Config { budget: 1 << 40, time_limit_s: 60.0, min_gain: 0.0, max_regression: 0.1, max_indexes_per_table: 16, hours: 1.0 }
}

fn candidate(table: u32, column: i16, pages: u64) -> Candidate {
    Candidate {
        def: IndexDef::new(RelId(table), vec![Key::asc(column)], []),
        size: Size { pages, bytes: pages * PAGE, tuples: 1.0, height: 1 },
        queries: Vec::new(),
    }
}

impl Case {
    /// `pages[t]` are the sizes of the candidates on table t (numbered through); `reads` are per query calls, and per table number
    /// the cost of reading it and the share of it that each of its candidates leaves.
    fn new(pages: &[Vec<u64>], reads: &[(f64, Vec<Read>)], inserts: f64) -> Case {
        let mut candidates = Vec::new();
        let mut numbers: Vec<Vec<CandidateIdx>> = Vec::new();
        let mut tables = Vec::new();
        for (t, sizes) in pages.iter().enumerate() {
            numbers.push((candidates.len()..candidates.len() + sizes.len()).collect());
            candidates.extend(sizes.iter().enumerate().map(|(i, p)| candidate(t as u32 + 1, i as i16 + 1, *p)));
            let mut table = fixture::table(t as u32 + 1, &format!("t{t}"), 1000.0, &["a", "b", "c", "d", "e"]);
            table.writes.inserts = inserts;
            tables.push(table);
        }
        let mut access = Vec::new();
        let mut queries = Vec::new();
        for (q, (calls, uses)) in reads.iter().enumerate() {
            let one = |(t, whole, shares): &(usize, f64, Vec<f64>)| {
                (*whole, numbers[*t].iter().zip(shares).map(|(c, share)| (*c, whole * share)).collect::<Vec<_>>())
            };
            access.push(uses.iter().map(one).collect::<Vec<_>>());
            let relations = uses.iter().map(|u| fixture::usage(u.0 as u32 + 1, &[])).collect();
            queries.push(fixture::query(q as i64 + 1, *calls, uses.iter().map(|u| u.1).sum(), relations));
            for (t, ..) in uses {
                numbers[*t].iter().for_each(|c| candidates[*c].queries.push(q));
            }
        }
        let oracle = Additive { access, cancelled: false };
        Case { queries, catalog: fixture::catalog(tables), candidates, oracle, config: config() }
    }

    fn solve_with(&self, oracle: &mut dyn CostOracle, milp: &mut dyn Milp) -> Result<Selection, SelectError> {
        let generated = Generated { candidates: self.candidates.clone(), rejected: Vec::new() };
        solve(&self.queries, &self.catalog, generated, oracle, milp, &mut || 0.0, &self.config)
    }

    fn solve(&self) -> Selection {
        self.solve_with(&mut self.oracle.clone(), &mut Uninterruptible).unwrap()
    }

    /// The true objective of a set; `None` when it breaks a limit.
    fn objective(&self, set: &[CandidateIdx]) -> Option<f64> {
        let bytes: u64 = set.iter().map(|c| self.candidates[*c].size.bytes).sum();
        let full =
            self.catalog.tables.keys().any(|rel| {
                set.iter().filter(|c| self.candidates[**c].def.table == *rel).count() > self.config.max_indexes_per_table
            });
        let queries: f64 = (0..self.queries.len()).map(|q| self.queries[q].calls * self.oracle.plan(q, set).cost).sum();
        let write = |c: &CandidateIdx| {
            let candidate = &self.candidates[*c];
            write_cost(&candidate.def, &candidate.size, &self.catalog.tables[&candidate.def.table])
        };
        (bytes <= self.config.budget && !full).then(|| queries + set.iter().map(write).sum::<f64>())
    }

    fn brute_force(&self) -> f64 {
        let n = self.candidates.len();
        let sets = (0_u32..1 << n).map(|bits| (0..n).filter(|c| bits >> c & 1 == 1).collect::<Vec<_>>());
        sets.filter_map(|set| self.objective(&set)).fold(f64::INFINITY, f64::min)
    }
}

fn chosen(selection: &Selection) -> Vec<CandidateIdx> {
    let mut set: Vec<CandidateIdx> = selection.chosen.iter().map(|c| c.candidate).collect();
    set.sort_unstable();
    set
}

fn any_case() -> impl Strategy<Value = Case> {
    let pages = prop::collection::vec(prop::collection::vec(1..100_u64, 1..=4), 2..=3);
    (pages, 1..8_usize, 0.0..200.0_f64).prop_flat_map(|(pages, n, inserts)| {
        let tables = pages.len();
        let shares = prop::collection::vec(0.01..1.3_f64, 4);
        let uses = prop::collection::btree_map(0..tables, (10.0..1000.0_f64, shares), 1..=2);
        let query =
            (1.0..100.0_f64, uses).prop_map(|(calls, uses)| (calls, uses.into_iter().map(|(t, (w, s))| (t, w, s)).collect()));
        let all: u64 = pages.iter().flatten().sum();
        (Just(pages), prop::collection::vec(query, n), Just(inserts), 0..=all, 1..=4_usize).prop_map(
            |(pages, reads, inserts, budget, cap)| {
                let mut case = Case::new(&pages, &reads, inserts);
                case.config.budget = budget * PAGE;
                case.config.max_indexes_per_table = cap;
                case
            },
        )
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn the_optimum_is_that_of_brute_force(case in any_case()) {
        let selection = case.solve();
        let set = chosen(&selection);
        let found = case.objective(&set);
        prop_assert!(found.is_some(), "breaks a limit");
        let (found, best) = (found.unwrap_or_default(), case.brute_force());
        prop_assert!(found <= best * (1.0 + 2.0 * GAP), "{found} for {best}, {selection:?}");
        // The figures are those of the planner.
        let before = case.objective(&[]).unwrap_or_default();
        prop_assert!((selection.objective_before - before).abs() <= 1e-6 * before);
        prop_assert!((selection.objective_after - found).abs() <= 1e-6 * before);
        prop_assert!(selection.gap <= LOOSE_GAP + 1e-9, "gap {}", selection.gap);
        for (q, (cost_before, cost_after)) in selection.costs.iter().enumerate() {
            prop_assert_eq!(*cost_before, case.oracle.plan(q, &[]).cost);
            prop_assert_eq!(*cost_after, case.oracle.plan(q, &set).cost);
        }
        for c in &selection.chosen {
            prop_assert!(!c.queries.is_empty() && c.saved >= c.write_cost);
        }
        let leading: Vec<_> = selection.rejected.iter().map(|r| (r.def.table, r.def.keys[0].column)).collect();
        prop_assert_eq!(leading.iter().collect::<std::collections::BTreeSet<_>>().len(), leading.len());
    }

    #[test]
    fn greedy_keeps_the_limits_and_is_never_better(case in any_case()) {
        let exact = case.solve();
        let greedy = case.solve_with(&mut case.oracle.clone(), &mut Broken).unwrap();
        prop_assert!(case.objective(&chosen(&greedy)).is_some());
        prop_assert!(greedy.objective_after >= exact.objective_after * (1.0 - GAP));
        prop_assert!(greedy.objective_after <= greedy.objective_before);
        prop_assert!(greedy.chosen.is_empty() || greedy.method == Method::Greedy);
    }

    #[test]
    fn more_budget_is_never_worse(case in any_case(), more in 0..200_u64) {
        let mut richer = case.clone();
        richer.config.budget += more * PAGE;
        prop_assert!(richer.solve().objective_after <= case.solve().objective_after * (1.0 + GAP));
    }

    #[test]
    fn every_point_of_the_frontier_is_the_optimum_of_its_budget(case in any_case(), more in 0..200_u64) {
        let budgets = [case.config.budget + more * PAGE, case.config.budget];
        let elapsed = &mut || 0.0;
        let points = frontier(
            &case.queries, &case.catalog, &case.candidates, &mut case.oracle.clone(), &mut Uninterruptible, elapsed, &case.config, &budgets,
        ).unwrap();
        for point in &points {
            let alone = Case { config: Config { budget: point.budget, ..case.config.clone() }, ..case.clone() }.solve();
            // Both are proven to be that close to the optimum, and no closer.
            let slack = LOOSE_GAP * alone.objective_after + 1e-6;
            prop_assert!((point.objective_after - alone.objective_after).abs() <= slack, "{} {}", point.objective_after, alone.objective_after);
            prop_assert!(point.bytes <= point.budget);
        }
        prop_assert!(points.windows(2).all(|p| p[1].objective_after <= p[0].objective_after + 1e-9));
    }

    #[test]
    fn the_order_of_the_queries_does_not_matter(case in any_case()) {
        let mut turned = case.clone();
        let n = case.queries.len();
        turned.queries.reverse();
        turned.oracle.access.reverse();
        for c in &mut turned.candidates {
            c.queries = c.queries.iter().rev().map(|q| n - 1 - q).collect();
        }
        let (one, two) = (case.solve(), turned.solve());
        prop_assert_eq!(chosen(&one), chosen(&two));
        prop_assert_eq!(one.objective_after, two.objective_after);
        prop_assert_eq!(one.costs, two.costs.into_iter().rev().collect::<Vec<_>>());
        prop_assert_eq!(&case.solve().rejected, &one.rejected);
    }
}

/// One table with two candidates; the first halves the query, the second leaves a tenth.
fn two() -> Case {
    Case::new(&[vec![10, 50]], &[(1.0, vec![(0, 1000.0, vec![0.5, 0.1])])], 0.0)
}

#[test]
fn questions_that_took_longer_than_the_limit_still_end_in_a_choice() {
    let case = two();
    let generated = Generated { candidates: case.candidates.clone(), rejected: Vec::new() };
    let mut late = || 1000.0;
    let s = solve(&case.queries, &case.catalog, generated, &mut case.oracle.clone(), &mut Uninterruptible, &mut late, &case.config)
        .unwrap();
    assert_eq!((chosen(&s), s.method), (vec![1], Method::Greedy));
}

fn reason(selection: &Selection, column: i16) -> Option<(Reason, &str)> {
    selection.rejected.iter().find(|r| r.def.keys[0].column == column).map(|r| (r.reason, r.detail.as_str()))
}

#[test]
fn reasons_are_told() {
    let mut case = two();
    let both = case.solve();
    assert_eq!(chosen(&both), vec![1]);
    assert_eq!((both.chosen[0].saved, both.bytes), (900.0, 50 * PAGE));
    assert_eq!(reason(&both, 1).unwrap().0, Reason::Covered);

    case.config.budget = 20 * PAGE;
    let tight = case.solve();
    assert_eq!(chosen(&tight), vec![0]);
    assert_eq!(reason(&tight, 2).unwrap().0, Reason::Budget);

    case.config.budget = 1 << 30;
    case.catalog.tables.get_mut(&RelId(1)).unwrap().writes.inserts = 1e6;
    let written = case.solve();
    assert!(written.chosen.is_empty());
    assert_eq!(reason(&written, 1).unwrap().0, Reason::WriteCost);

    let mut capped = two();
    capped.config.max_indexes_per_table = 0;
    assert_eq!(reason(&capped.solve(), 2).unwrap().0, Reason::TableCap);

    let useless = Case::new(&[vec![10]], &[(1.0, vec![(0, 1000.0, vec![1.5])])], 0.0).solve();
    assert_eq!(reason(&useless, 1).unwrap().0, Reason::NoGain);
    let mut little = Case::new(&[vec![10]], &[(1.0, vec![(0, 1000.0, vec![0.95])])], 0.0);
    little.config.min_gain = 0.1;
    let little = little.solve();
    let (why, detail) = reason(&little, 1).unwrap();
    assert!(why == Reason::NoGain && detail.contains("5.0 %") && detail.contains("10.0 %"), "{detail}");
}

#[test]
fn figures_are_per_hour() {
    let mut case = two();
    case.config.hours = 10.0;
    let selection = case.solve();
    assert_eq!((selection.objective_before, selection.chosen[0].saved), (100.0, 90.0));
}

#[test]
fn a_set_that_makes_a_query_dearer_is_forbidden() {
    // Each candidate helps the first query; with both, the second gets dearer.
    let case =
        Case::new(&[vec![10, 10]], &[(100.0, vec![(0, 1000.0, vec![0.9, 0.8])]), (1.0, vec![(0, 100.0, vec![1.0, 1.0])])], 0.0);
    let planner = |first_alone: f64| {
        move |query: QueryIdx, with: &[CandidateIdx]| {
            let cost = match (query, with) {
                (0, []) => 1000.0,
                (0, [0]) => 900.0,
                (0, [1]) => first_alone,
                (0, _) => 100.0,
                (_, [0, 1]) => 150.0,
                _ => 100.0,
            };
            Ok(PlanCost { cost, used: with.to_vec(), ..PlanCost::default() })
        }
    };
    let selection = case.solve_with(&mut Says(planner(800.0)), &mut Uninterruptible).unwrap();
    assert_eq!(chosen(&selection), vec![1]);
    assert!(selection.costs.iter().all(|(before, after)| *after <= before * 1.1));
}

#[test]
fn a_query_that_cannot_be_planned_has_no_say() {
    let case = Case::new(&[vec![10]], &[(1.0, vec![(0, 1000.0, vec![0.5])]), (1.0, vec![(0, 1000.0, vec![0.5])])], 0.0);
    let oracle = case.oracle.clone();
    let mut says = Says(move |q: QueryIdx, with: &[CandidateIdx]| match q {
        0 => Ok(oracle.plan(q, with)),
        _ => Err(Unplannable { sqlstate: "42P01".into(), message: "relation is gone".into() }),
    });
    let selection = case.solve_with(&mut says, &mut Uninterruptible).unwrap();
    assert_eq!(selection.unplannable.iter().map(|u| u.0).collect::<Vec<_>>(), vec![1]);
    assert_eq!(selection.costs, vec![(1000.0, 500.0), (1000.0, 1000.0)]);
}

#[test]
fn indexes_that_help_only_together_are_found() {
    let case = Case::new(&[vec![10], vec![10]], &[(1.0, vec![(0, 500.0, vec![1.0]), (1, 500.0, vec![1.0])])], 0.0);
    let together = |_: QueryIdx, with: &[CandidateIdx]| match with {
        [0, 1] => Ok(PlanCost { cost: 10.0, used: vec![0, 1], ..PlanCost::default() }),
        _ => Ok(PlanCost { cost: 1000.0, ..PlanCost::default() }),
    };
    for milp in [&mut Uninterruptible as &mut dyn Milp, &mut Broken] {
        let selection = case.solve_with(&mut Says(together), milp).unwrap();
        assert_eq!(chosen(&selection), vec![0, 1]);
        assert!(selection.chosen.iter().all(|c| c.queries == vec![0] && c.saved == 990.0));
    }
}

#[test]
fn what_others_make_superfluous_is_taken_out() {
    // Alone the first leaves half of the cost; beside the second, which leaves a tenth, it saves a hundredth of what is left.
    let mut case = Case::new(&[vec![10], vec![50]], &[(1.0, vec![(0, 500.0, vec![1.0]), (1, 500.0, vec![1.0])])], 0.0);
    let saves = |_: QueryIdx, with: &[CandidateIdx]| {
        let cost = match with {
            [0] => 500.0,
            [1] => 100.0,
            [0, 1] => 99.0,
            _ => 1000.0,
        };
        Ok(PlanCost { cost, used: with.to_vec(), ..PlanCost::default() })
    };
    case.config.min_gain = 0.2;
    assert_eq!(chosen(&case.solve_with(&mut Says(saves), &mut Uninterruptible).unwrap()), vec![1]);
    case.config.min_gain = 0.05;
    assert_eq!(chosen(&case.solve_with(&mut Says(saves), &mut Uninterruptible).unwrap()), vec![0, 1]);
}

#[test]
fn one_wrong_inference_does_not_keep_all_that_is_superfluous() {
    // The first query needs the presence of 2, which its plan does not use; the second can do with any.
    let case = Case::new(&[vec![10, 10, 20, 30]], &vec![(1.0, vec![(0, 1000.0, vec![1.0; 4])]); 2], 0.0);
    let odd = |q: QueryIdx, with: &[CandidateIdx]| {
        let (cost, used) = match (q, with) {
            (0, [0, 1, 2, ..]) => (10.0, vec![0, 1]),
            (0, [0, 1, ..]) => (300.0, vec![0, 1]),
            (1, [.., last]) => (100.0, vec![*last]),
            _ => (1000.0, Vec::new()),
        };
        Ok(PlanCost { cost, used, ..PlanCost::default() })
    };
    let mut oracle = Says(odd);
    let mut search = search::Search::new(&case.queries, &case.catalog, &case.candidates, &mut oracle, &case.config);
    search.explore(&case.candidates, &mut || 0.0).unwrap();
    let all = validate::set(&search.problem, &mut search.memo, &[0, 1, 2, 3], validate::Ask::Exact).unwrap();
    let tidied = validate::tidy(&search.problem, &mut search.memo, &all).unwrap();
    assert_eq!((tidied.set, tidied.plans[0].cost), (vec![0, 1, 2], 10.0));
}

#[test]
fn one_query_that_would_cost_more_than_all_does_not_drown_the_others() {
    let mut reads: Vec<(f64, Vec<Read>)> = vec![(1.0, vec![(0, 1e12, vec![1e-9, 1e-10])])];
    reads.extend((1..4).map(|t| (1.0, vec![(t, 1000.0, vec![0.5, 0.3])])));
    let mut case = Case::new(&[vec![10, 30], vec![10, 25], vec![10, 25], vec![10, 25]], &reads, 0.0);
    case.config.budget = 75 * PAGE;
    let selection = case.solve();
    assert!(selection.method == Method::Milp && selection.gap <= GAP, "{selection:?}");
    assert!(selection.objective_after <= case.brute_force() * (1.0 + GAP), "{}", selection.objective_after);
}

#[test]
fn a_set_whose_answers_are_known_can_be_cancelled_too() {
    struct Stopped(Additive, std::cell::Cell<bool>);
    impl CostOracle for &Stopped {
        fn cost(&mut self, query: QueryIdx, with: &[CandidateIdx]) -> Result<PlanCost, Unplannable> {
            Ok(self.0.plan(query, with))
        }
        fn prices(&mut self, _: QueryIdx, _: &[CandidateIdx]) -> Result<Vec<whatif::Access>, Unplannable> {
            Ok(Vec::new())
        }
        fn interrupted(&mut self) -> bool {
            self.1.get()
        }
    }
    let case = two();
    let oracle = Stopped(case.oracle.clone(), std::cell::Cell::new(false));
    let mut asked = &oracle;
    let mut search = search::Search::new(&case.queries, &case.catalog, &case.candidates, &mut asked, &case.config);
    let mut known = || validate::set(&search.problem, &mut search.memo, &[0, 1], validate::Ask::Near).map(|v| v.set);
    assert_eq!(known(), Ok(vec![0, 1]));
    oracle.1.set(true);
    assert_eq!(known(), Err(Cancelled));
}

#[test]
fn cancelling_and_running_out_of_time() {
    let case = two();
    let mut cancelled = Additive { cancelled: true, ..case.oracle.clone() };
    assert_eq!(case.solve_with(&mut cancelled, &mut Uninterruptible).unwrap_err(), SelectError::Cancelled);
    let generated = Generated { candidates: case.candidates.clone(), rejected: Vec::new() };
    let late =
        solve(&case.queries, &case.catalog, generated, &mut case.oracle.clone(), &mut Uninterruptible, &mut || 60.5, &case.config);
    let late = late.unwrap();
    assert_eq!((late.method, chosen(&late)), (Method::Greedy, vec![1]));
}

#[test]
fn nothing_to_do() {
    let empty = Case::new(&[vec![]], &[], 0.0).solve();
    assert!(empty.chosen.is_empty() && empty.rejected.is_empty() && empty.gap == 0.0);
}

/// How long a large workload takes: `cargo test --release -p indexpilot-core large -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement, not a check"]
fn a_large_workload() {
    let mut state = 7_u64;
    let mut random = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 11) as f64 / (1_u64 << 53) as f64
    };
    let pages: Vec<Vec<u64>> = (0..40).map(|_| (0..10).map(|_| 10 + (random() * 1000.0) as u64).collect()).collect();
    let reads: Vec<_> = (0..200)
        .map(|_| {
            let mut tables: Vec<usize> = (0..1 + (random() * 3.0) as usize).map(|_| (random() * 40.0) as usize).collect();
            tables.sort_unstable();
            tables.dedup();
            let uses =
                tables.into_iter().map(|t| (t, 10.0 + random() * 1e4, (0..10).map(|_| 0.02 + random() * 1.5).collect())).collect();
            (1.0 + random() * 100.0, uses)
        })
        .collect();
    let mut case = Case::new(&pages, &reads, 10.0);
    case.config.budget = pages.iter().flatten().sum::<u64>() * PAGE / 10;
    for milp in [&mut Broken as &mut dyn Milp, &mut Timed] {
        let start = std::time::Instant::now();
        let generated = Generated { candidates: case.candidates.clone(), rejected: Vec::new() };
        let mut elapsed = || start.elapsed().as_secs_f64();
        let s = solve(&case.queries, &case.catalog, generated, &mut case.oracle.clone(), milp, &mut elapsed, &case.config).unwrap();
        println!(
            "{:?}: {:.3} to {:.3}, gap {:.4}, {} indexes, {} calls, {:.2} s",
            s.method,
            s.objective_before,
            s.objective_after,
            s.gap,
            s.chosen.len(),
            s.planner_calls,
            start.elapsed().as_secs_f64()
        );
    }
}
