//! The server that the demo runs on: a throw-away one with IndexPilot preloaded, or one that the caller names.
//!
//! The settings make a short demo possible, none of them makes it look better: intervals are seconds where a real
//! system has minutes, and verdicts need few calls because the whole history of this server is two runs.

use crate::failure::{Failure, Result};
use crate::options::Options;
use postgres::{Config, NoTls};

/// `postgresql.conf` of the throw-away server.
pub const SETTINGS: &[(&str, &str)] = &[
    ("shared_preload_libraries", "'indexpilot'"),
    ("indexpilot.mode", "advise"),
    ("indexpilot.worker_interval", "'500ms'"),
    ("indexpilot.capture_bucket", "'1s'"),
    ("indexpilot.verify_delay", "'5s'"),
    ("indexpilot.verify_timeout", "'2min'"),
    ("indexpilot.verify_min_calls", "2"),
    // In some hundred calls per table, three are few.
    ("indexpilot.candidate_min_usage", "0.03"),
    ("indexpilot.guard_max_actions_per_hour", "1000"),
    ("shared_buffers", "'512MB'"),
    ("maintenance_work_mem", "'128MB'"),
    ("max_wal_size", "'8GB'"),
    // A bulk load and statistics made once: nothing that a background vacuum would have to do meanwhile.
    ("autovacuum", "off"),
    ("jit", "off"),
    // Durability is of no use to a server that is deleted at the end.
    ("fsync", "off"),
    ("synchronous_commit", "off"),
    ("full_page_writes", "off"),
    ("wal_level", "minimal"),
    ("max_wal_senders", "0"),
];

pub struct Server {
    pub config: Config,
}

impl Server {
    pub fn start(options: &Options) -> Result<Self> {
        let Some(conninfo) = &options.server else {
            return Err(Failure::new("no server: name one with --server"));
        };
        let config: Config = conninfo.parse()?;
        let mut client = config.connect(NoTls)?;
        client.batch_execute("SET client_min_messages = warning; DROP SCHEMA IF EXISTS crm, tpch CASCADE")?;
        Ok(Server { config })
    }
}
