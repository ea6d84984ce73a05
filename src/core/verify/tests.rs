//! Verdicts on measured windows.

use super::*;
use proptest::prelude::*;

/// A window of executions that took so many microseconds.
pub(super) fn window(us: &[u64]) -> Window {
    let mut w = Window { calls: us.len() as u64, ..Window::default() };
    for us in us {
        let ms = *us as f64 / 1000.0;
        w.total_ms += ms;
        w.sum_squares_ms += ms * ms;
        w.histogram.add(*us);
    }
    w
}

/// `n` executions around `us`, within a fifth of it, always the same.
fn around(us: u64, n: u64) -> Window {
    window(&(0..n).map(|i| us * (80 + (i * 37) % 41) / 100).collect::<Vec<_>>())
}

fn measured(workload_id: i64, role: Role, before: Window, after: Window) -> Measured {
    Measured { workload_id, role, before, after }
}

fn config() -> Config {
    Config { min_calls: 20, max_regression: 0.1, confidence: 0.99, max_hot_loss: 0.2, timeout_s: 3600.0 }
}

fn verdict(measured: &[Measured], watched_s: f64) -> Verdict {
    judge(measured, &Circumstances::after(watched_s), &config()).verdict
}

#[test]
fn a_cited_query_that_became_faster_keeps_the_index() {
    let j = judge(&[measured(7, Role::Cited, around(31_000, 120), around(400, 40))], &Circumstances::after(60.0), &config());
    assert_eq!(j.verdict, Verdict::Kept);
    assert_eq!(j.rows[0].effect, Effect::Faster);
    assert!(
        j.reason.starts_with("query 7 takes 0.40 ms instead of 31 ms (120 calls before, 40 after, p < 0.0001)"),
        "{}",
        j.reason
    );
    assert!(j.saved_ms > 1000.0 && j.lost_ms == 0.0);
}

#[test]
fn a_cited_query_that_became_slower_alone_reverts() {
    let j = judge(&[measured(7, Role::Cited, around(1_000, 50), around(3_000, 50))], &Circumstances::after(60.0), &config());
    assert_eq!(j.verdict, Verdict::Reverted);
    assert!(j.reason.contains("query 7 takes 3.00 ms instead of 1.00 ms"), "{}", j.reason);
}

#[test]
fn a_slower_write_is_weighed_against_what_is_saved() {
    let cited = measured(1, Role::Cited, around(10_000, 100), around(1_000, 100));
    let little = measured(2, Role::Write, around(1_000, 100), around(1_500, 100));
    assert_eq!(verdict(&[cited.clone(), little], 60.0), Verdict::Kept);
    let much = measured(2, Role::Write, around(1_000, 100), around(1_500, 10_000));
    let j = judge(&[cited, much], &Circumstances::after(60.0), &config());
    assert_eq!(j.verdict, Verdict::Reverted);
    assert!(j.reason.contains("lost since the change"), "{}", j.reason);
}

#[test]
fn another_query_that_became_slower_reverts_when_nothing_was_saved() {
    let cited = measured(1, Role::Cited, around(1_000, 100), around(1_000, 100));
    let other = measured(2, Role::Other, around(1_000, 100), around(2_000, 100));
    assert_eq!(verdict(&[cited, other], 60.0), Verdict::Reverted);
}

#[test]
fn too_small_a_loss_is_noise() {
    // 20 µs become 40 µs: twice as slow, certain, and of no account.
    let j = judge(&[measured(1, Role::Cited, around(20, 1000), around(40, 1000))], &Circumstances::after(60.0), &config());
    assert_eq!((j.verdict, j.rows[0].effect), (Verdict::Pending, Effect::Same));
    // Five percent slower is within what is allowed.
    let j =
        judge(&[measured(1, Role::Cited, around(100_000, 5000), around(105_000, 5000))], &Circumstances::after(60.0), &config());
    assert_eq!(j.rows[0].effect, Effect::Same);
}

#[test]
fn too_few_calls_wait_and_then_are_neutral() {
    let few = [measured(1, Role::Cited, around(10_000, 100), around(100, 19))];
    let j = judge(&few, &Circumstances::after(3599.0), &config());
    assert_eq!((j.verdict, j.rows[0].effect, j.rows[0].p_value), (Verdict::Pending, Effect::TooFewCalls, None));
    assert!(j.reason.contains("0 of 1 queries"), "{}", j.reason);
    assert_eq!(verdict(&few, 3600.0), Verdict::Neutral);
    assert_eq!(verdict(&[], 0.0), Verdict::Pending);
}

#[test]
fn many_unconcerned_queries_do_not_add_up_to_an_accident() {
    // A shift that 99 % would call significant for one query, but not among fifty.
    let shifted = measured(1, Role::Other, around(1_000, 60), around(1_120, 20));
    let alone = judge(std::slice::from_ref(&shifted), &Circumstances::after(60.0), &Config { max_regression: 0.05, ..config() });
    let mut many = vec![shifted];
    many.extend((2..=5000).map(|id| measured(id, Role::Other, around(1_000, 30), around(1_000, 30))));
    let among = judge(&many, &Circumstances::after(60.0), &Config { max_regression: 0.05, ..config() });
    assert_eq!((alone.rows[0].effect, among.rows[0].effect), (Effect::Slower, Effect::Same), "{:?}", alone.rows[0].p_value);
}

#[test]
fn a_write_that_begins_to_fail_reverts() {
    let cited = measured(1, Role::Cited, around(10_000, 100), around(100, 100));
    let mut write = measured(2, Role::Write, around(1_000, 100), around(1_000, 70));
    write.after.errors = 30;
    let j = judge(&[cited, write], &Circumstances::after(60.0), &config());
    assert_eq!((j.verdict, j.rows[1].effect), (Verdict::Reverted, Effect::Failing));
    assert!(j.reason.starts_with("query 2 fails in 30.0 % of its executions instead of 0.0 %"), "{}", j.reason);
}

#[test]
fn failures_are_not_waited_for_and_nothing_else_is_hurried() {
    let glance = |m: Measured| judge(&[m], &Circumstances { look: 0, ..Circumstances::after(5.0) }, &config()).verdict;
    let failing = |before: u64, errors: u64| {
        let mut write = measured(2, Role::Write, around(1_000, before), around(1_000, 0));
        write.after.errors = errors;
        write
    };
    assert_eq!(glance(failing(30, 30)), Verdict::Reverted, "every write fails");
    assert_eq!(glance(failing(30, 4)), Verdict::Pending, "four say nothing");
    // What a look believes may be an accident among thousands of glances.
    let mut some = measured(2, Role::Write, around(1_000, 200), around(1_000, 190));
    some.after.errors = 10;
    assert_eq!(glance(some.clone()), Verdict::Pending);
    assert_eq!(verdict(&[some], 5.0), Verdict::Reverted);
    assert_eq!(glance(measured(1, Role::Cited, around(1_000, 50), around(3_000, 50))), Verdict::Pending);
    assert_eq!(glance(measured(1, Role::Cited, around(3_000, 50), around(1_000, 50))), Verdict::Pending);
}

#[test]
fn failures_that_are_not_the_index_s_are_not_blamed_on_it() {
    let mut write = measured(2, Role::Write, around(1_000, 100), around(1_000, 70));
    write.after.errors = 30;
    let of = |m: &Measured, seen: Circumstances| judge(std::slice::from_ref(m), &seen, &config()).verdict;
    let seen = Circumstances::after(60.0);
    assert_eq!(of(&write, seen), Verdict::Reverted);
    assert_eq!(of(&write, Circumstances { writes_may_fail: false, ..seen }), Verdict::Pending);
    assert_eq!(of(&write, Circumstances { all_fail: true, ..seen }), Verdict::Pending);
    let read = Measured { role: Role::Other, ..write.clone() };
    assert_eq!(of(&read, Circumstances { scans: Some(3), ..seen }), Verdict::Reverted);
    assert_eq!(of(&read, Circumstances { scans: Some(0), ..seen }), Verdict::Pending);
    let rare = Measured { before: around(1_000, 3), ..write.clone() };
    assert_eq!(of(&rare, seen), Verdict::Pending, "three calls say little of what was before");
    assert!(fails_more_elsewhere(&[(write.before.clone(), write.after.clone())]));
    assert!(!fails_more_elsewhere(&[(write.before.clone(), write.before.clone())]));
    assert!(!fails_more_elsewhere(&[]));
}

#[test]
fn what_no_plan_uses_is_neither_praised_nor_blamed_for_reads() {
    let slower = [measured(1, Role::Cited, around(1_000, 50), around(3_000, 50))];
    let faster = [measured(1, Role::Cited, around(3_000, 50), around(1_000, 50))];
    let at = |watched_s, scans| Circumstances { scans, observation_s: 600.0, ..Circumstances::after(watched_s) };
    let of = |m: &[Measured], seen: Circumstances| judge(m, &seen, &config()).verdict;
    assert_eq!(of(&slower, at(60.0, Some(0))), Verdict::Pending);
    assert_eq!(of(&slower, at(60.0, Some(1))), Verdict::Reverted);
    assert_eq!(of(&slower, at(600.0, Some(0))), Verdict::Reverted, "of no use, whoever is to blame");
    assert_eq!(of(&faster, at(60.0, Some(1))), Verdict::Kept);
    assert_eq!(of(&faster, at(60.0, Some(0))), Verdict::Pending);
    let j = judge(&faster, &at(600.0, Some(0)), &config());
    assert!(j.verdict == Verdict::Neutral && j.reason.contains("no plan has used the index"), "{}", j.reason);
    let write = [measured(1, Role::Write, around(1_000, 50), around(3_000, 50))];
    assert_eq!(of(&write, at(60.0, Some(0))), Verdict::Reverted, "writes maintain it, used or not");
}

#[test]
fn updates_that_are_no_longer_heap_only_are_weighed() {
    let lost = Updates { before: 1000, hot_before: 950, after: 500, hot_after: 50 };
    let at = |watched_s, updates| Circumstances {
        updates: Some(updates),
        observation_s: 600.0,
        scans: Some(9),
        ..Circumstances::after(watched_s)
    };
    let of = |m: &[Measured], seen: Circumstances| judge(m, &seen, &config());
    // Writes that are slower by five percent: too little to count by itself.
    let write = measured(2, Role::Write, around(1_000, 9000), around(1_050, 9000));
    let idle = measured(1, Role::Cited, around(1_000, 50), around(1_000, 50));
    assert_eq!(of(&[idle.clone(), write.clone()], at(60.0, Updates { hot_after: 480, ..lost })).verdict, Verdict::Pending);
    let j = of(&[idle.clone(), write.clone()], at(60.0, lost));
    assert!(
        j.verdict == Verdict::Reverted && j.reason.starts_with("10 % of the updates are heap-only instead of 95 %"),
        "{}",
        j.reason
    );
    // An index that saves more than that stays.
    let cited = measured(1, Role::Cited, around(50_000, 100), around(500, 100));
    assert_eq!(of(&[cited, write], at(60.0, lost)).verdict, Verdict::Kept);
    // One that saves nothing does not, when its time is over; few updates say nothing.
    assert_eq!(of(std::slice::from_ref(&idle), at(60.0, lost)).verdict, Verdict::Pending);
    assert_eq!(of(std::slice::from_ref(&idle), at(600.0, lost)).verdict, Verdict::Reverted);
    // Few updates say nothing yet: they are waited for, for as long as there is.
    let few = Updates { after: 50, hot_after: 0, ..lost };
    assert_eq!(of(std::slice::from_ref(&idle), at(600.0, few)).verdict, Verdict::Pending);
    assert_eq!(of(std::slice::from_ref(&idle), at(3600.0, few)).verdict, Verdict::Neutral);
    // A table that was hardly updated before either has none to wait for.
    assert_eq!(of(&[idle], at(600.0, Updates { before: 99, ..few })).verdict, Verdict::Neutral);
}

#[test]
fn what_no_plan_uses_saves_nothing() {
    let faster = measured(1, Role::Cited, around(3_000, 50), around(1_000, 50));
    let write = measured(2, Role::Write, around(1_000, 50), around(1_400, 50));
    let lost = Updates { before: 1000, hot_before: 950, after: 500, hot_after: 50 };
    let at = |watched_s, scans, updates| Circumstances {
        scans: Some(scans),
        updates,
        observation_s: 600.0,
        ..Circumstances::after(watched_s)
    };
    let of = |m: &[Measured], seen: Circumstances| judge(m, &seen, &config()).verdict;
    let both = [faster.clone(), write];
    assert_eq!(of(&both, at(60.0, 0, None)), Verdict::Pending, "the server may be late to tell of its use");
    assert_eq!(of(&both, at(600.0, 0, None)), Verdict::Reverted);
    assert_eq!(of(&both, at(600.0, 1, None)), Verdict::Kept);
    let hot = |scans| of(std::slice::from_ref(&faster), at(600.0, scans, Some(lost)));
    assert_eq!((hot(0), hot(1)), (Verdict::Reverted, Verdict::Kept));
}

#[test]
fn what_seems_faster_is_watched_for_as_long_as_there_is() {
    // One outlier hides from the mean what the ranks show.
    let before = window(&[vec![1_300; 99], vec![9_000; 1]].concat());
    let after = window(&[vec![150; 49], vec![20_000; 1]].concat());
    let m = [measured(1, Role::Cited, before, after)];
    let at = |watched_s, scans| Circumstances { observation_s: 600.0, scans, ..Circumstances::after(watched_s) };
    let row = judge(&m, &at(600.0, Some(9)), &config()).rows[0].clone();
    assert!(row.effect == Effect::Same && row.p_value.unwrap() > 0.01, "{row:?}");
    let of = |watched_s, scans| judge(&m, &at(watched_s, scans), &config()).verdict;
    assert_eq!(of(600.0, Some(9)), Verdict::Pending);
    assert_eq!(of(3600.0, Some(9)), Verdict::Neutral);
    assert_eq!(of(600.0, Some(0)), Verdict::Neutral, "nothing can come of it");
}

#[test]
fn slower_than_before_is_not_faster_because_everything_is_slower() {
    let m = [measured(1, Role::Cited, around(1_000, 100), around(1_200, 100))];
    let j = judge(&m, &Circumstances { drift: 2.0, ..Circumstances::after(60.0) }, &config());
    assert_eq!((j.rows[0].effect, j.saved_ms), (Effect::Same, 0.0));
}

#[test]
fn no_slower_than_before_is_not_slower_because_everything_is_faster() {
    for role in [Role::Cited, Role::Other, Role::Write] {
        let m = [measured(1, role, around(1_000, 100), around(990, 100))];
        let j = judge(&m, &Circumstances { drift: 0.5, ..Circumstances::after(60.0) }, &config());
        assert_eq!((j.rows[0].effect, j.lost_ms), (Effect::Same, 0.0));
    }
}

#[test]
fn the_server_as_a_whole_is_not_the_index() {
    let cited = measured(1, Role::Cited, around(10_000, 100), around(1_000, 100));
    let other = measured(2, Role::Other, around(1_000, 100), around(1_600, 20_000));
    let at = |drift| Circumstances { drift, ..Circumstances::after(60.0) };
    let of = |m: &[Measured], drift| judge(m, &at(drift), &config());
    assert_eq!(of(&[cited.clone(), other.clone()], 1.0).verdict, Verdict::Reverted);
    assert_eq!(of(&[cited, other.clone()], 1.6).verdict, Verdict::Kept);
    assert_eq!(of(std::slice::from_ref(&other), 1.2).rows[0].effect, Effect::Slower, "more than the server as a whole");
    // Nor is it praised for what became faster everywhere.
    let faster = measured(1, Role::Cited, around(10_000, 100), around(5_000, 100));
    assert_eq!(of(std::slice::from_ref(&faster), 0.5).rows[0].effect, Effect::Same);
    assert_eq!(of(&[faster], 0.8).rows[0].effect, Effect::Faster);
}

#[test]
fn time_is_over_when_all_were_seen_or_when_there_is_no_more() {
    let same = measured(1, Role::Cited, around(1_000, 50), around(1_000, 50));
    let rare = measured(2, Role::Cited, around(1_000, 50), around(1_000, 3));
    let at = |watched_s| Circumstances { observation_s: 600.0, ..Circumstances::after(watched_s) };
    let of = |m: &[Measured], watched_s| judge(m, &at(watched_s), &config()).verdict;
    assert_eq!(of(std::slice::from_ref(&same), 599.0), Verdict::Pending);
    assert_eq!(of(std::slice::from_ref(&same), 600.0), Verdict::Neutral);
    assert_eq!(of(&[same.clone(), rare.clone()], 600.0), Verdict::Pending);
    assert_eq!(of(&[same, rare.clone()], 3600.0), Verdict::Neutral);
    // One that became faster waits for the others, but not for ever.
    let faster = measured(1, Role::Cited, around(10_000, 50), around(1_000, 50));
    assert_eq!(of(&[faster.clone(), rare.clone()], 60.0), Verdict::Pending);
    assert_eq!(of(&[faster, rare], 600.0), Verdict::Kept);
}

#[test]
fn what_speaks_against_an_index_must_convince_more_at_each_look() {
    let m = [measured(1, Role::Cited, around(1_000, 60), around(1_120, 25))];
    let of = |look| judge(&m, &Circumstances { look, ..Circumstances::after(60.0) }, &config()).rows[0].clone();
    let p = of(1).p_value.unwrap();
    let mut last = Effect::Slower;
    for look in 1..=60 {
        let row = of(look);
        let significant = p < 0.01 / f64::from(look * (look + 1));
        assert_eq!(row.effect == Effect::Slower, significant, "look {look}");
        assert!(last == Effect::Slower || row.effect == Effect::Same);
        last = row.effect;
    }
    assert_eq!((of(1).effect, last), (Effect::Slower, Effect::Same));
}

#[test]
fn names_are_those_of_the_table() {
    let sql = include_str!("../../../sql/install/10_tables.sql");
    for name in [Verdict::Kept, Verdict::Neutral, Verdict::Reverted, Verdict::Pending].map(Verdict::as_str) {
        assert!(sql.contains(&format!("'{name}'")));
    }
    for name in [Role::Cited, Role::Other, Role::Write].map(Role::as_str) {
        assert!(sql.contains(&format!("'{name}'")));
    }
}

proptest! {
    #[test]
    fn windows_of_equal_figures_never_revert(us in 1u64..1_000_000, n in 2u64..500, watched in 0.0..1e6f64) {
        let j = judge(&[measured(1, Role::Cited, around(us, n), around(us, n))], &Circumstances::after(watched), &config());
        prop_assert!(matches!(j.verdict, Verdict::Pending | Verdict::Neutral));
    }

    #[test]
    fn figures_stay_sane_whatever_was_stored(
        calls in 0u64..1000, total in 0.0..1e9f64, squares in 0.0..1e12f64, counts in prop::collection::vec(-5i64..1000, 0..130), errors in 0u64..100,
    ) {
        let odd = Window { calls, errors, total_ms: total, sum_squares_ms: squares, histogram: Histogram::from_counts(&counts) };
        let j = judge(&[measured(1, Role::Cited, around(500, 50), odd.clone()), measured(2, Role::Write, odd, around(500, 50))], &Circumstances::after(60.0), &config());
        for row in &j.rows {
            prop_assert!(row.p_value.is_none_or(|p| (0.0..=1.0).contains(&p)));
        }
        prop_assert!(j.saved_ms >= 0.0 && j.lost_ms >= 0.0);
    }

    #[test]
    fn merging_windows_is_measuring_longer(a in prop::collection::vec(1u64..1_000_000, 0..40), b in prop::collection::vec(1u64..1_000_000, 0..40)) {
        let mut merged = window(&a);
        merged.merge(&window(&b));
        let whole = window(&[a, b].concat());
        prop_assert_eq!((merged.calls, &merged.histogram), (whole.calls, &whole.histogram));
        prop_assert!((merged.total_ms - whole.total_ms).abs() < 1e-6 * (1.0 + whole.total_ms));
    }
}
