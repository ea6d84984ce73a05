//! Each rule passes, and each can stop an action.

use super::*;

fn config() -> Config {
    Config {
        mode: Mode::Apply,
        apply: true,
        window: None,
        max_actions_per_hour: 30,
        max_actions_per_day: 100,
        breaker_failures: 5,
        breaker_pause_s: 600.0,
        max_load: Some(4.0),
        load_cooldown_s: 60.0,
        max_transaction_age_s: 60.0,
        max_indexes_per_table: 12,
        max_indexes: 50,
        max_index_share: 3.0,
        max_writes_per_read: 1000.0,
        free_disk_factor: 2.0,
        cooldown_s: 3600.0,
        storage_budget: Some(1000),
        max_replica_lag: Some(1000),
        min_server_version: 0,
    }
}

fn verdict_of(rule: &str, facts: &Facts, config: &Config) -> Verdict {
    let findings = review(facts, config);
    findings.iter().find(|f| f.rule == rule).map(|f| f.verdict).unwrap()
}

fn create() -> Facts {
    Facts::new(Kind::Create, 150_020)
}

#[test]
fn nothing_stands_against_a_quiet_server() {
    for kind in [Kind::Create, Kind::Drop, Kind::Reindex] {
        let findings = review(&Facts::new(kind, 150_020), &config());
        assert_eq!(outcome(&findings), Verdict::Pass, "{findings:?}");
        assert_eq!(findings.len(), RULES.len());
        assert!(findings.iter().all(|f| !f.detail.is_empty()));
        assert_eq!(decisive(&findings), None);
    }
}

#[test]
fn rule_codes_are_distinct() {
    let mut codes: Vec<&str> = review(&create(), &config()).iter().map(|f| f.rule).collect();
    codes.sort_unstable();
    codes.dedup();
    assert_eq!(codes.len(), RULES.len());
}

fn bad() -> Past {
    Past { outcome: Outcome::Bad, started_s_ago: 20.0, settled_s_ago: 10.0 }
}

/// A rule, what makes it object, and how far.
type Case = (&'static str, fn(&mut Facts, &mut Config), Verdict);

#[test]
fn each_rule_can_stop_an_action() {
    let cases: &[Case] = &[
        ("mode", |_, c| c.mode = Mode::Off, Verdict::Wait),
        ("disabled", |f, _| f.disabled = Some("release day".into()), Verdict::Wait),
        ("apply", |_, c| c.apply = false, Verdict::Wait),
        ("window", |_, c| c.window = Window::new("22:00", "23:00", ""), Verdict::Wait),
        (
            "window",
            |f, c| (f.local_time, c.window) = (Some(LocalTime { day: 1, minute: 720 }), Window::new("22:00", "06:00", "")),
            Verdict::Wait,
        ),
        ("rate_limit", |f, _| f.started_s_ago = vec![10.0; 30], Verdict::Wait),
        ("rate_limit", |_, c| c.max_actions_per_hour = 0, Verdict::Wait),
        ("rate_limit_day", |f, c| (f.started_s_ago, c.max_actions_per_hour) = (vec![10.0; 100], 1000), Verdict::Wait),
        ("circuit_breaker", |f, _| f.history = vec![bad(); 5], Verdict::Wait),
        ("load", |f, _| f.load_per_core = Some(4.1), Verdict::Wait),
        ("load", |f, _| (f.load_per_core, f.overloaded_s_ago) = (Some(0.1), Some(59.0)), Verdict::Wait),
        ("old_transactions", |f, _| f.oldest_transaction_s = Some(61.0), Verdict::Wait),
        ("prepared_transactions", |f, _| f.prepared_on_table = 1, Verdict::Wait),
        ("prepared_transactions", |f, _| f.oldest_prepared_s = Some(90.0), Verdict::Wait),
        ("running_ddl", |f, _| f.running_ddl = Some("CREATE INDEX by process 1".into()), Verdict::Wait),
        ("wraparound_vacuum", |f, _| f.wraparound_vacuum = true, Verdict::Wait),
        ("index_cap", |f, _| f.indexes_on_table = 12, Verdict::Refuse),
        ("index_total", |f, _| f.managed_indexes = 50, Verdict::Refuse),
        (
            "index_share",
            |f, c| (f.table_bytes, f.index_bytes, c.storage_budget) = (10 << 20, (30 << 20) + 1, None),
            Verdict::Refuse,
        ),
        ("write_overhead", |f, _| (f.table_writes, f.table_reads) = (2001, 2), Verdict::Refuse),
        ("free_disk", |f, _| (f.estimated_bytes, f.free_bytes) = (100, Some(199)), Verdict::Wait),
        ("storage_budget", |f, _| (f.managed_bytes, f.estimated_bytes) = (901, 100), Verdict::Refuse),
        ("replica_lag", |f, _| f.replica_lag_bytes = Some(1001), Verdict::Wait),
        ("cooldown", |f, _| f.reverted_s_ago = Some(3599.0), Verdict::Wait),
        ("cooldown", |f, _| (f.reverted_s_ago, f.reverted_times) = (Some(4.0 * 3600.0 - 1.0), 3), Verdict::Wait),
        ("table_refused", |f, _| f.table_refused = Some("it is partitioned".into()), Verdict::Refuse),
        ("protected", |f, _| (f.kind, f.protected) = (Kind::Drop, true), Verdict::Refuse),
        ("minor_version", |f, _| f.server_version = 140_003, Verdict::Refuse),
        ("minor_version", |_, c| c.min_server_version = 150_021, Verdict::Refuse),
    ];
    for (rule, change, expected) in cases {
        let (mut f, mut c) = (create(), config());
        change(&mut f, &mut c);
        let findings = review(&f, &c);
        assert_eq!(verdict_of(rule, &f, &c), *expected, "{rule}");
        assert_eq!(outcome(&findings), *expected, "only {rule} may object: {findings:?}");
        assert_eq!(decisive(&findings).map(|d| d.rule), Some(*rule));
    }
    let covered: std::collections::BTreeSet<&str> = cases.iter().map(|(rule, ..)| *rule).collect();
    assert_eq!(covered.len(), RULES.len(), "a rule has no case");
}

#[test]
fn a_call_acts_below_mode_apply_but_not_when_off() {
    let mut facts = create();
    facts.explicit = true;
    for (mode, expected) in [(Mode::Off, Verdict::Wait), (Mode::Observe, Verdict::Pass), (Mode::Advise, Verdict::Pass)] {
        assert_eq!(verdict_of("mode", &facts, &Config { mode, ..config() }), expected);
    }
    facts.explicit = false;
    assert_eq!(verdict_of("mode", &facts, &Config { mode: Mode::Advise, ..config() }), Verdict::Wait);
    facts.reverts = true;
    for (mode, expected) in [(Mode::Off, Verdict::Wait), (Mode::Observe, Verdict::Pass), (Mode::Advise, Verdict::Pass)] {
        assert_eq!(verdict_of("mode", &facts, &Config { mode, ..config() }), expected, "{mode:?}, taking back");
    }
}

#[test]
fn a_revert_is_not_held_back_by_limits_on_growth() {
    let mut facts = Facts::new(Kind::Drop, 150_001);
    facts.reverts = true;
    facts.started_s_ago = vec![1.0; 1000];
    facts.history = vec![bad(); 9];
    facts.load_per_core = Some(99.0);
    facts.managed_indexes = 1000;
    facts.index_bytes = 1 << 40;
    facts.table_writes = 1 << 40;
    facts.indexes_on_table = 100;
    facts.managed_bytes = 10_000;
    facts.free_bytes = Some(0);
    facts.replica_lag_bytes = Some(1 << 40);
    facts.table_refused = Some("it is partitioned".into());
    let config = Config { window: Window::new("22:00", "23:00", ""), max_actions_per_day: 0, ..config() };
    assert_eq!(outcome(&review(&facts, &config)), Verdict::Pass);
}

#[test]
fn who_asks_by_a_call_is_held_back_by_the_machine_but_not_by_the_past() {
    let mut facts = Facts { explicit: true, reverted_s_ago: Some(1.0), history: vec![bad(); 9], ..create() };
    (facts.table_writes, facts.table_reads) = (1 << 30, 0);
    assert_eq!(outcome(&review(&facts, &config())), Verdict::Pass);
    facts.load_per_core = Some(99.0);
    assert_eq!(outcome(&review(&facts, &config())), Verdict::Wait);
}

#[test]
fn few_writes_and_small_indexes_say_nothing() {
    let mut facts = create();
    (facts.table_writes, facts.table_reads) = (999, 0);
    (facts.table_bytes, facts.index_bytes) = (8192, 1 << 20);
    assert_eq!(outcome(&review(&facts, &config())), Verdict::Pass);
}

#[test]
fn a_clock_that_was_set_back_holds_nothing_back() {
    let facts = Facts {
        reverted_s_ago: Some(-1e8),
        reverted_times: 3,
        started_s_ago: vec![-1e8; 500],
        overloaded_s_ago: Some(-1e8),
        load_per_core: Some(0.1),
        ..create()
    };
    assert_eq!(outcome(&review(&facts, &config())), Verdict::Pass);
}

#[test]
fn unknown_free_space_passes_and_says_so() {
    let findings = review(&create(), &config());
    let disk = findings.iter().find(|f| f.rule == "free_disk").unwrap();
    assert!(disk.verdict == Verdict::Pass && disk.detail.contains("unknown"));
}

#[test]
fn versions_with_defects_are_known() {
    let at = |version, explicit| verdict_of("minor_version", &Facts { server_version: version, explicit, ..create() }, &config());
    for bad in [130_006, 140_000, 140_003] {
        assert_eq!(at(bad, true), Verdict::Refuse, "{bad}");
    }
    for risky in [130_016, 140_013, 150_008, 160_004, 170_000] {
        assert_eq!((at(risky, false), at(risky, true)), (Verdict::Refuse, Verdict::Pass), "{risky}");
    }
    for good in [130_017, 140_014, 150_009, 160_005, 170_001, 180_000] {
        assert_eq!(at(good, false), Verdict::Pass, "{good}");
    }
}

#[test]
fn older_servers_than_wanted_build_nothing() {
    let at = |kind, min| {
        let facts = Facts { explicit: true, ..Facts::new(kind, 150_018) };
        verdict_of("minor_version", &facts, &Config { min_server_version: min, ..config() })
    };
    assert_eq!(at(Kind::Create, 150_018), Verdict::Pass);
    assert_eq!(at(Kind::Create, 150_019), Verdict::Refuse);
    assert_eq!(at(Kind::Reindex, 160_000), Verdict::Refuse);
    assert_eq!(at(Kind::Drop, 160_000), Verdict::Pass, "what is there may go");
}

#[test]
fn each_rule_is_made_to_object_on_a_real_server() {
    let live = include_str!("../../../tests/cluster/guard.rs");
    for finding in review(&create(), &config()) {
        assert!(live.contains(&format!("\"{}\"", finding.rule)), "tests/cluster/guard.rs says nothing of {}", finding.rule);
    }
}

#[test]
fn findings_are_documents() {
    let json = serde_json::to_value(review(&create(), &Config { apply: false, ..config() })).unwrap();
    assert_eq!(json[2], serde_json::json!({"rule": "apply", "verdict": "wait", "detail": "indexpilot.apply is off"}));
}
