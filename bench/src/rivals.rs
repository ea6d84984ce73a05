//! The servers that are compared: the same PostgreSQL with the same data, each with other libraries preloaded.

use crate::options::Options;
use indexpilot_tests::{Cluster, Programs, Result, Stop, poll_until};
use std::time::Duration;

/// What distinguishes one of the servers.
pub struct Kind {
    pub name: &'static str,
    libraries: &'static str,
    settings: &'static [(&'static str, &'static str)],
    extensions: &'static [&'static str],
    /// A query whose one column `counted` is the number of statements on pgbench_accounts that it has counted so far.
    pub counted: Option<&'static str>,
}

const PG_STAT_STATEMENTS: &str =
    "SELECT coalesce(sum(calls), 0)::bigint AS counted FROM pg_stat_statements WHERE query ILIKE '%from pgbench_accounts%'";

/// All of them; the first is what the others are compared with. Every one captures all that it can capture of every execution.
static KINDS: [Kind; 5] = [
    Kind { name: "none", libraries: "", settings: &[], extensions: &[], counted: None },
    // What everybody pays who wants to know which query it was.
    Kind { name: "query_id", libraries: "", settings: &[("compute_query_id", "on")], extensions: &[], counted: None },
    Kind {
        name: "pg_stat_statements",
        libraries: "pg_stat_statements",
        settings: &[],
        extensions: &["pg_stat_statements"],
        counted: Some(PG_STAT_STATEMENTS),
    },
    Kind {
        name: "pg_qualstats",
        libraries: "pg_stat_statements,pg_qualstats",
        settings: &[("pg_qualstats.sample_rate", "1")],
        extensions: &["pg_stat_statements", "pg_qualstats"],
        counted: Some(PG_STAT_STATEMENTS),
    },
    Kind {
        name: "indexpilot",
        libraries: "indexpilot",
        settings: &[],
        extensions: &["indexpilot"],
        counted: Some(
            "SELECT coalesce(sum(calls), 0)::bigint AS counted FROM indexpilot.queries \
             WHERE 'pgbench_accounts'::regclass = ANY (tables)",
        ),
    },
];

/// What all have in common: nothing happens by itself while something is measured, and nothing waits for a disk.
const SETTINGS: [(&str, &str); 11] = [
    ("shared_buffers", "512MB"),
    ("max_connections", "20"),
    ("synchronous_commit", "off"),
    ("autovacuum", "off"),
    ("bgwriter_delay", "10s"),
    ("checkpoint_timeout", "1h"),
    ("max_wal_size", "4GB"),
    ("jit", "off"),
    ("compute_query_id", "auto"),
    ("log_min_messages", "error"),
    ("max_parallel_workers_per_gather", "0"),
];

/// One of the servers, running.
pub struct Rival {
    pub kind: &'static Kind,
    pub cluster: Cluster,
}

/// Makes and fills all servers that were asked for and can be had.
pub fn start(options: &Options) -> Result<Vec<Rival>> {
    for name in &options.rivals {
        if !KINDS.iter().any(|kind| kind.name == name) {
            return Err(format!("there is no rival {name}; --help lists them").into());
        }
    }
    let wanted = |kind: &Kind| kind.name == "none" || options.rivals.is_empty() || options.rivals.iter().any(|r| r == kind.name);
    let mut rivals = Vec::new();
    let base = base(options.scale)?;
    for kind in KINDS.iter().filter(|kind| wanted(kind)) {
        if !available(kind)? {
            println!("{} is left out: its package is not installed", kind.name);
            continue;
        }
        rivals.push(Rival::start(kind, &base)?);
    }
    let cluster = &rivals[0].cluster;
    let version = cluster.run(cluster.client_program("postgres").arg("--version"))?;
    println!("{}; {} processors; pgbench at scale {}", version.trim(), std::thread::available_parallelism()?, options.scale);
    Ok(rivals)
}

/// The data that all have, byte for byte: even the statistics, which are a random sample, so that the plans are the same.
fn base(scale: usize) -> Result<Cluster> {
    let mut builder = Cluster::build("bench-base").preload(false);
    for (name, value) in SETTINGS {
        builder = builder.setting(name, value);
    }
    let mut base = builder.start()?;
    base.run(base.client_program("pgbench").args(["-i", "-q", "-s", &scale.to_string()]))?;
    let mut client = base.connect("postgres", "postgres")?;
    client.batch_execute("CREATE EXTENSION pg_prewarm")?;
    client.batch_execute("VACUUM (FREEZE, ANALYZE)")?;
    drop(client);
    base.stop(Stop::Fast)?;
    Ok(base)
}

/// Whether the server has the files of all extensions.
fn available(kind: &Kind) -> Result<bool> {
    let programs = Programs::find()?;
    let share = programs.run(programs.client("pg_config").arg("--sharedir"))?;
    let control = |extension: &&str| format!("{}/extension/{extension}.control", share.trim());
    Ok(kind.extensions.iter().map(control).all(|file| std::path::Path::new(&file).exists()))
}

impl Rival {
    fn start(kind: &'static Kind, base: &Cluster) -> Result<Self> {
        let mut cluster = base.copy(&format!("bench-{}", kind.name))?;
        for (name, value) in kind.settings.iter().chain(&[("shared_preload_libraries", kind.libraries)]) {
            cluster.configure(name, value)?;
        }
        cluster.start()?;
        let mut client = cluster.connect("postgres", "postgres")?;
        for extension in kind.extensions {
            client.batch_execute(&format!("CREATE EXTENSION {extension}"))?;
        }
        if kind.name == "indexpilot" {
            poll_until(Duration::from_secs(60), "the database to be captured", || {
                let captured = "SELECT value <> '0' FROM indexpilot.status WHERE name = 'capture_databases'";
                Ok(client.query_one(captured, &[])?.get(0))
            })?;
        }
        Ok(Rival { kind, cluster })
    }

    /// Reads the tables into the server's memory.
    pub fn warm(&self) -> Result<()> {
        let mut client = self.cluster.connect("postgres", "postgres")?;
        Ok(client.batch_execute("SELECT pg_prewarm('pgbench_accounts'), pg_prewarm('pgbench_accounts_pkey')")?)
    }

    /// Statements on pgbench_accounts that the server's extension has counted; `None` when it has none.
    pub fn counted(&self) -> Result<Option<i64>> {
        let Some(counted) = self.kind.counted else { return Ok(None) };
        let mut client = self.cluster.connect("postgres", "postgres")?;
        if let Some(flush) = self.kind.flush() {
            client.batch_execute(flush)?;
        }
        Ok(Some(client.query_one(counted, &[])?.get(0)))
    }
}

impl Kind {
    /// What brings the counts up to date.
    pub fn flush(&self) -> Option<&'static str> {
        (self.name == "indexpilot").then_some("SELECT indexpilot.capture_flush()")
    }
}
