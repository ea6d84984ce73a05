//! The builder ends in every phase of its commands: killed, terminated, or with the server. Whatever the moment, the next builder
//! finds out, clears up, and finishes the action: nothing is lost, done twice, or left over.
//!
//! A phase is held from outside, with what holds it on every server: an open transaction, a lock, or code of the index or of an event
//! trigger that waits for a lock of the test. So the server that is tested is the one that is shipped.

use indexpilot_tests::{Cluster, Result, Stop, number, poll_until, text};
use postgres::Client;
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(60);

/// Where a gate is: the lock that a session of the test holds, and that the builder waits for when it gets there.
const BEFORE_COMMAND: i64 = 1;
const AFTER_COMMAND: i64 = 2;
const BUILDING: i64 = 3;
const VALIDATING: i64 = 4;
const RECORDING: i64 = 5;

/// A cluster whose builder acts as soon as it may, with a table of a role that cannot log in and has no other right.
pub fn cluster(name: &str) -> Result<Cluster> {
    let cluster = Cluster::build(name)
        .setting("indexpilot.worker_interval", "100ms")
        .setting("indexpilot.guard_max_transaction_age", "1h")
        .setting("indexpilot.guard_breaker_failures", 0)
        .setting("indexpilot.verify_delay", "1h")
        .setting("indexpilot.select", "off")
        .setting("autovacuum", "off")
        .start()?;
    cluster.connect("postgres", "postgres")?.batch_execute("CREATE ROLE clerk")?;
    connect(&cluster)?.batch_execute(
        "CREATE EXTENSION indexpilot; CREATE EXTENSION amcheck; CREATE SCHEMA crm; GRANT ALL ON SCHEMA crm TO clerk; \
         CREATE FUNCTION crm.gated(i integer) RETURNS integer IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN \
           PERFORM pg_catalog.pg_advisory_xact_lock_shared(CASE WHEN i < 0 THEN 4 ELSE 3 END); RETURN i; END $$; \
         CREATE FUNCTION crm.gate() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN \
           PERFORM pg_catalog.pg_advisory_xact_lock_shared(CASE TG_EVENT WHEN 'ddl_command_start' THEN 1 ELSE 2 END); END $$; \
         CREATE FUNCTION crm.record() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
           PERFORM pg_catalog.pg_advisory_xact_lock_shared(5) FROM pg_catalog.pg_stat_get_activity(pg_catalog.pg_backend_pid()) \
             WHERE backend_type = 'indexpilot builder'; RETURN NEW; END $$; \
         CREATE TRIGGER gate BEFORE INSERT ON indexpilot.mutation_log FOR EACH ROW \
           WHEN (NEW.mutation IN ('create_index', 'drop_index', 'reindex_index')) EXECUTE FUNCTION crm.record(); \
         CREATE TABLE crm.goods (id integer, price integer); \
         INSERT INTO crm.goods SELECT i, i % 100 FROM generate_series(1, 1000) i; \
         ALTER TABLE crm.goods OWNER TO clerk; \
         CREATE EVENT TRIGGER before_command ON ddl_command_start EXECUTE FUNCTION crm.gate(); \
         CREATE EVENT TRIGGER after_command ON ddl_command_end EXECUTE FUNCTION crm.gate()",
    )?;
    Ok(cluster)
}

pub fn connect(cluster: &Cluster) -> Result<Client> {
    cluster.connect("postgres", "postgres")
}

/// What the builder does when it is hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The intent is committed, the command has not begun.
    Intent,
    WritersBeforeBuild,
    Building,
    WritersBeforeValidation,
    Validating,
    OldSnapshots,
    /// Of a drop: the index is not valid, but still maintained. Of a rebuild: the copy has taken its place.
    Readers,
    /// The index is dead, and about to go.
    ReadersOfTheDead,
    /// All is done but the command's last commit.
    AfterCommand,
    /// The command is over, and its outcome is being recorded.
    Recording,
    /// It clears up what an attempt left that was terminated before.
    Removing,
}

impl Phase {
    const CREATE: [Phase; 9] = [
        Phase::Intent,
        Phase::WritersBeforeBuild,
        Phase::Building,
        Phase::WritersBeforeValidation,
        Phase::Validating,
        Phase::OldSnapshots,
        Phase::AfterCommand,
        Phase::Recording,
        Phase::Removing,
    ];
    const DROP: [Phase; 5] = [Phase::Intent, Phase::Readers, Phase::ReadersOfTheDead, Phase::AfterCommand, Phase::Recording];
    /// The server has no event triggers for REINDEX before version 17.
    const REINDEX: [Phase; 9] = [
        Phase::WritersBeforeBuild,
        Phase::Building,
        Phase::WritersBeforeValidation,
        Phase::Validating,
        Phase::OldSnapshots,
        Phase::Readers,
        Phase::ReadersOfTheDead,
        Phase::Recording,
        Phase::Removing,
    ];

    /// As pg_stat_progress_create_index calls it.
    fn progress(self) -> Option<&'static str> {
        match self {
            Phase::WritersBeforeBuild => Some("waiting for writers before build"),
            Phase::Building => Some("building index"),
            Phase::WritersBeforeValidation => Some("waiting for writers before validation"),
            Phase::Validating => Some("index validation: scanning table"),
            Phase::OldSnapshots => Some("waiting for old snapshots"),
            Phase::Readers => Some("waiting for readers before marking dead"),
            Phase::ReadersOfTheDead => Some("waiting for readers before dropping"),
            _ => None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Create,
    Drop,
    Reindex,
}

/// What happens to the builder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Kill9,
    Terminate,
    FastStop,
    ImmediateStop,
    KillServer,
}

/// The sessions that hold a phase, and what they hold it with; all is let go when it is dropped.
struct Holder<'a> {
    cluster: &'a Cluster,
    sessions: Vec<Client>,
}

impl<'a> Holder<'a> {
    fn new(cluster: &'a Cluster) -> Self {
        Holder { cluster, sessions: Vec::new() }
    }

    /// A session that has done this and stays.
    fn with(&mut self, sql: &str) -> Result<()> {
        let mut session = connect(self.cluster)?;
        session.batch_execute(sql)?;
        self.sessions.push(session);
        Ok(())
    }

    fn gate(&mut self, gate: i64) -> Result<()> {
        self.with(&format!("SELECT pg_advisory_lock({gate})"))
    }

    /// Ends the first session; its locks are gone when this returns.
    fn let_first_go(&mut self) -> Result<()> {
        Ok(self.sessions.remove(0).batch_execute("ROLLBACK; SELECT pg_advisory_unlock_all()")?)
    }
}

/// Whom to hit.
fn builder(db: &mut Client, where_it_waits: &str) -> Result<i32> {
    let sql = format!(
        "SELECT a.pid FROM pg_stat_activity a LEFT JOIN pg_stat_progress_create_index p USING (pid) \
         WHERE a.backend_type = 'indexpilot builder' AND a.wait_event_type = 'Lock' AND {where_it_waits}"
    );
    let mut pid = 0;
    let waited = poll_until(LIMIT, &format!("the builder, where {where_it_waits}"), || {
        pid = db.query_opt(&sql, &[])?.map_or(0, |r| r.get(0));
        Ok(pid != 0)
    });
    let seen = "SELECT string_agg(concat_ws(' ', a.pid, a.backend_type, a.wait_event, pg_blocking_pids(a.pid), p.phase, a.query), '; ') \
                FROM pg_stat_activity a LEFT JOIN pg_stat_progress_create_index p USING (pid) WHERE a.backend_type LIKE 'indexpilot %'";
    match waited {
        Ok(()) => Ok(pid),
        Err(e) => {
            let actions = "SELECT string_agg(concat_ws(' ', id, kind, state, attempts, blocked_reason, error_message), '; ') FROM indexpilot.actions";
            Err(format!("{e}; there is: {}; actions: {}", text(db, seen)?, text(db, actions)?).into())
        }
    }
}

fn waits_for_gate(db: &mut Client) -> Result<i32> {
    builder(db, "a.wait_event = 'advisory'")
}

const READ: &str = "BEGIN; LOCK TABLE crm.goods IN ACCESS SHARE MODE";
const WRITE: &str = "BEGIN; INSERT INTO crm.goods VALUES (-1, -1)";

/// Queues the action and returns its number and the builder's process when that has come to the phase.
fn come_to(cluster: &Cluster, db: &mut Client, case: &mut Case, holder: &mut Holder) -> Result<i32> {
    let progress = case.phase.progress().map_or_else(String::new, |p| format!("p.phase LIKE '{p}%'"));
    match case.phase {
        Phase::Intent => {
            holder.gate(BEFORE_COMMAND)?;
            case.enqueue(db)?;
            waits_for_gate(db)
        }
        Phase::WritersBeforeBuild => {
            holder.with(WRITE)?;
            case.enqueue(db)?;
            builder(db, &progress)
        }
        Phase::Building => {
            holder.gate(BUILDING)?;
            case.enqueue(db)?;
            builder(db, &format!("a.wait_event = 'advisory' AND {progress}"))
        }
        Phase::WritersBeforeValidation => {
            holder.gate(BUILDING)?;
            case.enqueue(db)?;
            waits_for_gate(db)?;
            holder.with(WRITE)?;
            holder.let_first_go()?;
            builder(db, &progress)
        }
        Phase::Validating => {
            holder.gate(BUILDING)?;
            case.enqueue(db)?;
            waits_for_gate(db)?;
            // The build does not see this row, so the validation adds it.
            connect(cluster)?.batch_execute("INSERT INTO crm.goods VALUES (-1, -1)")?;
            holder.gate(VALIDATING)?;
            holder.let_first_go()?;
            builder(db, &format!("a.wait_event = 'advisory' AND {progress}"))
        }
        Phase::OldSnapshots => {
            holder.with("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM pg_am")?;
            case.enqueue(db)?;
            builder(db, &progress)
        }
        Phase::Readers if case.kind == Kind::Drop => {
            holder.with(READ)?;
            case.enqueue(db)?;
            builder(db, "a.wait_event = 'virtualxid'")
        }
        Phase::Readers => {
            holder.with(READ)?;
            case.enqueue(db)?;
            builder(db, &progress)
        }
        Phase::ReadersOfTheDead => {
            holder.with(READ)?;
            case.enqueue(db)?;
            let before = if case.kind == Kind::Drop {
                "a.wait_event = 'virtualxid'"
            } else {
                "p.phase = 'waiting for readers before marking dead'"
            };
            builder(db, before)?;
            // Came after the first wait had begun, so only the second waits for it.
            holder.with(READ)?;
            holder.let_first_go()?;
            match case.kind {
                Kind::Drop => builder(db, "a.wait_event = 'virtualxid' AND EXISTS (SELECT 1 FROM pg_index WHERE NOT indislive)"),
                _ => builder(db, &progress),
            }
        }
        Phase::AfterCommand => {
            holder.gate(AFTER_COMMAND)?;
            case.enqueue(db)?;
            waits_for_gate(db)
        }
        Phase::Recording => {
            holder.gate(RECORDING)?;
            case.enqueue(db)?;
            builder(db, "a.wait_event = 'advisory' AND a.query LIKE '%recording the outcome%'")
        }
        Phase::Removing => {
            holder.gate(BUILDING)?;
            case.enqueue(db)?;
            let first = waits_for_gate(db)?;
            holder.with(READ)?;
            db.execute("SELECT pg_terminate_backend($1)", &[&first])?;
            builder(db, &format!("a.pid <> {first} AND a.query LIKE 'DROP INDEX CONCURRENTLY%'"))
        }
    }
}

/// One fault.
struct Case {
    kind: Kind,
    phase: Phase,
    index: String,
    action: i64,
}

impl Case {
    /// What the command is for was committed before the builder was hit, so nobody has to begin again.
    fn took_effect(&self) -> bool {
        let swapped = self.kind == Kind::Reindex && matches!(self.phase, Phase::Readers | Phase::ReadersOfTheDead);
        swapped || self.phase == Phase::Recording
    }

    fn enqueue(&mut self, db: &mut Client) -> Result<()> {
        let name = &self.index;
        let (kind, statement) = match self.kind {
            Kind::Create => ("create", format!("CREATE INDEX CONCURRENTLY {name} ON crm.goods USING btree (crm.gated(price))")),
            Kind::Drop => ("drop", format!("DROP INDEX CONCURRENTLY crm.{name}")),
            Kind::Reindex => ("reindex", format!("REINDEX INDEX CONCURRENTLY crm.{name}")),
        };
        self.action = enqueue(db, kind, name, &statement)?;
        Ok(())
    }
}

/// Queues an action on `crm.goods`.
fn enqueue(db: &mut Client, kind: &str, name: &str, statement: &str) -> Result<i64> {
    indexpilot_tests::enqueue(db, kind, "crm.goods", name, statement)
}

/// Waits until the action has ended, whatever pauses it makes, and returns its state.
fn end(db: &mut Client, action: i64) -> Result<String> {
    let mut state = String::new();
    let waited = poll_until(LIMIT, &format!("the end of action {action}"), || {
        db.execute(
            "UPDATE indexpilot.actions SET not_before = now() WHERE id = $1 AND state = 'queued' AND not_before > now()",
            &[&action],
        )?;
        state = text(db, &format!("SELECT state FROM indexpilot.actions WHERE id = {action}"))?;
        Ok(!matches!(state.as_str(), "queued" | "building" | "blocked"))
    });
    let row = format!(
        "SELECT concat_ws(' ', state, attempts, blocked_reason, error_sqlstate, error_message) FROM indexpilot.actions WHERE id = {action}"
    );
    match waited {
        Ok(()) => Ok(state),
        Err(e) => Err(format!("{e}: {}", text(db, &row)?).into()),
    }
}

/// The index is there, as it should be, and right to the last entry.
fn sound(db: &mut Client, name: &str) -> Result<()> {
    let state = "SELECT string_agg(concat_ws(' ', c.relname, indisvalid AND indisready AND indislive, relowner::regrole, \
                   obj_description(c.oid) = 'indexpilot:' || a.tag), ', ') \
                 FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid \
                   LEFT JOIN indexpilot.actions a ON a.kind = 'create' AND a.index_name = c.relname \
                 WHERE i.indrelid = 'crm.goods'::regclass";
    assert_eq!(text(db, state)?, format!("{name} t clerk t"));
    Ok(db.batch_execute(&format!("SELECT bt_index_check('crm.{name}', true)"))?)
}

fn connected_again(cluster: &Cluster) -> Result<Client> {
    poll_until(LIMIT, "the server to recover", || {
        Ok(connect(cluster).and_then(|mut db| number(&mut db, "SELECT 1::bigint")).is_ok())
    })?;
    connect(cluster)
}

/// Hits the builder in each of the phases of one kind of action.
fn strike(name: &str, kind: Kind, phases: &[Phase], fault: Fault) -> Result<()> {
    let mut cluster = cluster(name)?;
    let mut db = connect(&cluster)?;
    for (n, phase) in phases.iter().enumerate() {
        let mut case = Case { kind, phase: *phase, index: format!("ip_{n}"), action: 0 };
        if kind != Kind::Create {
            let statement = format!("CREATE INDEX CONCURRENTLY {} ON crm.goods USING btree (crm.gated(price))", case.index);
            let created = enqueue(&mut db, "create", &case.index, &statement)?;
            let state = end(&mut db, created)?;
            assert!(matches!(state.as_str(), "built" | "verifying"), "{state}");
        }
        db = struck(&mut cluster, db, &mut case, fault).map_err(|e| format!("{fault:?} of {kind:?} in {phase:?}: {e}"))?;
        let state = end(&mut db, case.action).map_err(|e| format!("{fault:?} of {kind:?} in {phase:?}: {e}"))?;
        let done = match kind {
            Kind::Create => matches!(state.as_str(), "built" | "verifying"),
            _ => state == "done",
        };
        assert!(done, "{phase:?}: {state}\n{}", cluster.log_tail(30));
        journal(&mut db, &case, fault)?;
        match kind {
            Kind::Drop => assert_eq!(number(&mut db, "SELECT count(*) FROM pg_index WHERE indrelid = 'crm.goods'::regclass")?, 0),
            _ => {
                sound(&mut db, &case.index).map_err(|e| format!("{phase:?}: {e}"))?;
                db.batch_execute(&format!("DROP INDEX crm.{}", case.index))?;
            }
        }
    }
    Ok(())
}

/// Hits the builder in the phase, and returns a session of the server that goes on.
fn struck(cluster: &mut Cluster, mut db: Client, case: &mut Case, fault: Fault) -> Result<Client> {
    let mut holder = Holder::new(cluster);
    let pid = come_to(cluster, &mut db, case, &mut holder)?;
    // They stay until the server has ended them with all else.
    let sessions = holder.sessions;
    let since = Instant::now();
    match fault {
        Fault::Terminate => {
            db.execute("SELECT pg_terminate_backend($1)", &[&pid])?;
            poll_until(LIMIT, "the builder to end", || {
                Ok(number(&mut db, &format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}"))? == 0)
            })?;
            // At once, that is; the machine may be busy.
            assert!(since.elapsed() < Duration::from_secs(10), "{:?}: it took {:?} to end", case.phase, since.elapsed());
            return Ok(db);
        }
        Fault::Kill9 => {
            cluster.kill9(pid)?;
            poll_until(LIMIT, "the server to notice", || Ok(db.batch_execute("SELECT 1").is_err()))?;
        }
        Fault::FastStop => {
            cluster.stop(Stop::Fast)?;
            let took = since.elapsed();
            println!("fast shutdown during {:?} of {:?}: {} ms", case.phase, case.kind, took.as_millis());
            assert!(took < Duration::from_secs(10), "{:?}: it took {took:?} to stop", case.phase);
            cluster.start()?;
        }
        Fault::ImmediateStop => cluster.restart(Stop::Immediate)?,
        Fault::KillServer => {
            cluster.kill_server()?;
            cluster.start()?;
        }
    }
    drop(sessions);
    connected_again(cluster)
}

/// What was done was done once, and the log has it all.
fn journal(db: &mut Client, case: &Case, fault: Fault) -> Result<()> {
    let done = match case.kind {
        Kind::Create => "create_index",
        Kind::Drop => "drop_index",
        Kind::Reindex => "reindex_index",
    };
    let id = case.action;
    let rows = db.query("SELECT mutation FROM indexpilot.mutation_log WHERE action_id = $1 ORDER BY id", &[&id])?;
    let log: Vec<String> = rows.iter().map(|r| r.get(0)).collect();
    let times = |what: &str| log.iter().filter(|m| *m == what).count() as i64;
    assert_eq!(times(done), 1, "{:?}: {log:?}", case.phase);
    assert_eq!(log.last().map(String::as_str), Some(done), "{:?}: {log:?}", case.phase);
    let attempts = number(db, &format!("SELECT attempts::bigint FROM indexpilot.actions WHERE id = {id}"))?;
    // With the server end those who hold the phase, and the builder may be done before it is told.
    let hurried = !matches!(fault, Fault::Kill9 | Fault::Terminate) && attempts == 1;
    assert!(hurried || attempts == if case.took_effect() { 1 } else { 2 }, "{:?}, {attempts} attempts: {log:?}", case.phase);
    assert_eq!(times("action_retried"), attempts - 1, "{:?}: {log:?}", case.phase);
    let held = "SELECT count(*) FROM indexpilot.managed_indexes WHERE dropped_at IS NULL AND index_name = '";
    let held = number(db, &format!("{held}{}'", case.index))?;
    assert_eq!(held, i64::from(case.kind != Kind::Drop), "{:?}", case.phase);
    assert_eq!(number(db, "SELECT count(*) FROM pg_index WHERE NOT (indisvalid AND indisready AND indislive)")?, 0);
    Ok(())
}

#[test]
fn w32_a_killed_builder_of_an_index() -> Result<()> {
    strike("fault-kill-create", Kind::Create, &Phase::CREATE, Fault::Kill9)
}

#[test]
fn w32_a_killed_builder_that_drops() -> Result<()> {
    strike("fault-kill-drop", Kind::Drop, &Phase::DROP, Fault::Kill9)
}

#[test]
fn w32_a_killed_builder_that_rebuilds() -> Result<()> {
    strike("fault-kill-reindex", Kind::Reindex, &Phase::REINDEX, Fault::Kill9)
}

#[test]
fn w33_a_terminated_builder_of_an_index() -> Result<()> {
    strike("fault-term-create", Kind::Create, &Phase::CREATE, Fault::Terminate)
}

#[test]
fn w33_a_terminated_builder_that_drops() -> Result<()> {
    strike("fault-term-drop", Kind::Drop, &Phase::DROP, Fault::Terminate)
}

#[test]
fn w33_a_terminated_builder_that_rebuilds() -> Result<()> {
    strike("fault-term-reindex", Kind::Reindex, &Phase::REINDEX, Fault::Terminate)
}

#[test]
fn w32_the_power_goes_off_in_the_middle() -> Result<()> {
    strike("fault-off-create", Kind::Create, &[Phase::Building, Phase::AfterCommand], Fault::ImmediateStop)?;
    strike("fault-off-drop", Kind::Drop, &[Phase::ReadersOfTheDead], Fault::ImmediateStop)?;
    strike("fault-off-reindex", Kind::Reindex, &[Phase::Validating, Phase::Readers], Fault::ImmediateStop)
}

#[test]
fn w32_the_server_is_killed_in_the_middle() -> Result<()> {
    strike("fault-server-create", Kind::Create, &[Phase::Validating, Phase::Recording], Fault::KillServer)?;
    strike("fault-server-drop", Kind::Drop, &[Phase::Readers], Fault::KillServer)
}

#[test]
fn w35_a_fast_shutdown_ends_every_command() -> Result<()> {
    let create = [Phase::WritersBeforeBuild, Phase::Building, Phase::Validating, Phase::OldSnapshots, Phase::Recording];
    strike("fault-fast-create", Kind::Create, &create, Fault::FastStop)?;
    strike("fault-fast-drop", Kind::Drop, &[Phase::Readers], Fault::FastStop)?;
    strike("fault-fast-reindex", Kind::Reindex, &[Phase::Building, Phase::Readers], Fault::FastStop)
}
