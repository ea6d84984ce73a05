//! The servers that the benchmarks of selection run on. Their data takes minutes to make, so they stay in `BENCH_DATA` (below the
//! target directory) and are only started again. Database `plain` has no index of ours; `built` is a copy of it, byte for byte and
//! with the same statistics, for indexes that are really built.

use indexpilot_tests::{Cluster, Result, target_dir};
use postgres::{Client, NoTls};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, channel};

pub const PLAIN: &str = "plain";
pub const BUILT: &str = "built";

/// Default costs, a shared buffer that holds the data, nothing that happens by itself.
const SETTINGS: [(&str, &str); 11] = [
    ("shared_buffers", "2GB"),
    ("effective_cache_size", "4GB"),
    ("work_mem", "4MB"),
    ("maintenance_work_mem", "256MB"),
    ("autovacuum", "off"),
    ("jit", "off"),
    ("wal_level", "minimal"),
    ("max_wal_senders", "0"),
    ("max_wal_size", "8GB"),
    ("synchronous_commit", "off"),
    ("max_worker_processes", "16"),
];

/// A running server with data.
pub struct Data {
    cluster: Cluster,
    schema: String,
}

/// A session, and what the server told it beside results.
pub struct Session {
    pub client: Client,
    notices: Receiver<String>,
}

/// Where the data of a benchmark stays.
fn place(name: &str) -> PathBuf {
    let base = std::env::var_os("BENCH_DATA").map_or_else(|| target_dir().join("bench-data"), PathBuf::from);
    base.join(name)
}

/// Starts the server with the data of this name, which is made when it is not there yet.
///
/// # Errors
/// When it cannot be started or filled.
pub fn start(name: &str, schema: &str, fill: impl FnOnce(&mut Client) -> Result<()>) -> Result<Data> {
    let dir = place(name);
    if let Some(base) = dir.parent() {
        std::fs::create_dir_all(base)?;
    }
    let mut builder = Cluster::build(name).preload(false).keep(&dir);
    for (name, value) in SETTINGS {
        builder = builder.setting(name, value);
    }
    let data = Data { cluster: builder.start()?, schema: schema.to_owned() };
    let mut admin = data.cluster.connect("postgres", "postgres")?;
    let there = |admin: &mut Client, name: &str| -> Result<bool> {
        Ok(admin.query_opt("SELECT FROM pg_database WHERE datname = $1", &[&name])?.is_some())
    };
    if !there(&mut admin, PLAIN)? {
        println!("making the data of {name}; it stays in {}", dir.display());
        // Under another name until it is whole.
        admin.batch_execute("DROP DATABASE IF EXISTS loading")?;
        admin.batch_execute("CREATE DATABASE loading")?;
        let mut client = data.cluster.connect("loading", "postgres")?;
        fill(&mut client)?;
        client.batch_execute("SELECT setseed(0.17)")?;
        client.batch_execute("VACUUM (ANALYZE)")?;
        drop(client);
        admin.batch_execute(&format!("DROP DATABASE IF EXISTS {BUILT}"))?;
        admin.batch_execute(&format!("ALTER DATABASE loading RENAME TO {PLAIN}"))?;
        admin.batch_execute("CHECKPOINT")?;
    }
    if !there(&mut admin, BUILT)? {
        admin.batch_execute(&format!("CREATE DATABASE {BUILT} TEMPLATE {PLAIN} STRATEGY file_copy"))?;
    }
    // The interface may have changed since the last run.
    let mut session = data.session(PLAIN)?;
    session
        .client
        .batch_execute("SET client_min_messages = warning; DROP EXTENSION IF EXISTS indexpilot; CREATE EXTENSION indexpilot")?;
    Ok(data)
}

impl Data {
    pub fn schema(&self) -> &str {
        &self.schema
    }

    /// A session of its own, whose schema is that of the data.
    ///
    /// # Errors
    /// When the server refuses.
    pub fn session(&self, database: &str) -> Result<Session> {
        let (sender, notices) = channel();
        let mut config = self.cluster.config(database, "postgres");
        config.notice_callback(move |notice| {
            // Nobody listens any more when the session is over.
            let _ = sender.send(notice.message().to_owned());
        });
        let mut client = config.connect(NoTls)?;
        client.batch_execute(&format!("SET search_path = {}, public", self.schema))?;
        Ok(Session { client, notices })
    }
}

impl Session {
    /// What the server has said since the last time.
    pub fn notices(&self) -> Vec<String> {
        self.notices.try_iter().collect()
    }

    /// CPU seconds that the session's process has used.
    ///
    /// # Errors
    /// When the process cannot be found.
    pub fn cpu(&mut self) -> Result<f64> {
        let pid: i32 = self.client.query_one("SELECT pg_backend_pid()", &[])?.get(0);
        cpu_of(pid)
    }

    /// Planner cost of a query as the database is.
    ///
    /// # Errors
    /// When the query cannot be planned.
    pub fn cost(&mut self, sql: &str) -> Result<f64> {
        let rows = self.client.query(&format!("EXPLAIN {sql}"), &[])?;
        let line: String = rows.first().map(|r| r.get(0)).unwrap_or_default();
        let cost = line.split_once("..").and_then(|(_, rest)| rest.split(' ').next()?.parse().ok());
        Ok(cost.ok_or_else(|| format!("no cost in the plan: {line}"))?)
    }
}

/// CPU seconds that a process has used.
///
/// # Errors
/// When the process cannot be found.
pub fn cpu_of(pid: i32) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name, in parentheses, may hold spaces; user and system time are the 14th and 15th field, in hundredths of a second.
    let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|f| f.parse::<f64>().ok()).ok_or("/proc does not tell the time of a process");
    Ok((ticks(11)? + ticks(12)?) / 100.0)
}
