//! The server that the demo runs on: a throw-away one with IndexPilot preloaded, or one that the caller names.
//!
//! The settings make a short demo possible, none of them makes it look better: intervals are seconds where a real
//! system has minutes, and verdicts need few calls because the whole history of this server is two runs.

use crate::failure::{Failure, Result};
use crate::options::Options;
use indexpilot_tests::Cluster;
use postgres::config::Host;
use postgres::{Config, NoTls};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// `postgresql.conf` of the throw-away server, besides what every throw-away cluster has.
const SETTINGS: &[(&str, &str)] = &[
    ("shared_buffers", "512MB"),
    ("maintenance_work_mem", "128MB"),
    ("max_wal_size", "8GB"),
    // A bulk load and statistics made once: nothing that a background vacuum would have to do meanwhile.
    ("autovacuum", "off"),
    ("jit", "off"),
    // Parallel queries and IndexPilot's workers draw from one pool; parallel queries may take 8.
    ("max_worker_processes", "24"),
    // Durability is of no use to a server that is deleted at the end.
    ("synchronous_commit", "off"),
    ("full_page_writes", "off"),
    ("wal_level", "minimal"),
    ("max_wal_senders", "0"),
];

/// The same for the extension.
const EXTENSION_SETTINGS: &[(&str, &str)] = &[
    ("indexpilot.mode", "advise"),
    ("indexpilot.worker_interval", "500ms"),
    ("indexpilot.capture_bucket", "1s"),
    ("indexpilot.verify_delay", "5s"),
    ("indexpilot.verify_timeout", "1min"),
    ("indexpilot.verify_min_calls", "5"),
    // In some hundred calls per table, three are few.
    ("indexpilot.candidate_min_usage", "0.04"),
    ("indexpilot.guard_max_actions_per_hour", "1000"),
    // The demo itself keeps the machine busy.
    ("indexpilot.guard_max_load", "0"),
];

/// A running server. One that the demo started is stopped and deleted when this is dropped, or when the demo dies.
pub struct Server {
    pub config: Config,
    /// How a person can look at it meanwhile.
    pub place: String,
    _cluster: Option<(Cluster, Cleaner)>,
}

impl Server {
    /// Starts a throw-away server, or connects to the one that the options name.
    pub fn start(options: &Options) -> Result<Self> {
        let Some(conninfo) = &options.server else { return Self::throw_away(options.by_hand.is_none()) };
        let config: Config = conninfo.parse()?;
        let mut client = config.connect(NoTls)?;
        client.batch_execute("SET client_min_messages = warning; DROP SCHEMA IF EXISTS crm, tpch CASCADE")?;
        Ok(Server { config, place: format!("psql \"{conninfo}\""), _cluster: None })
    }

    fn throw_away(with_extension: bool) -> Result<Self> {
        let extension = if with_extension { EXTENSION_SETTINGS } else { &[] };
        let mut builder = Cluster::build("demo").preload(with_extension);
        for (name, value) in SETTINGS.iter().chain(extension) {
            builder = builder.setting(name, value);
        }
        let cluster = builder.start().map_err(|e| Failure::new(e.to_string()))?;
        let config = cluster.config("postgres", "postgres");
        let cleaner = Cleaner::new(&cluster, &config)?;
        let place = format!("psql \"{}\"", cluster.conninfo("postgres", "postgres"));
        Ok(Server { config, place, _cluster: Some((cluster, cleaner)) })
    }
}

/// A shell that waits for the end of its input, which comes when the demo ends in whatever way, and cleans up what is left then:
/// nothing after an ordinary end, a running server after an interrupt.
struct Cleaner(Child);

impl Cleaner {
    fn new(cluster: &Cluster, config: &Config) -> Result<Self> {
        const SCRIPT: &str = "trap '' INT TERM HUP; cat >/dev/null; \
            pid=$(head -n 1 \"$1/data/postmaster.pid\" 2>/dev/null) && kill -QUIT \"$pid\" && \
            for i in 1 2 3 4 5 6 7 8 9 10; do kill -0 \"$pid\" 2>/dev/null || break; sleep 0.3; done; rm -rf \"$@\"";
        let directory = cluster.data().parent().unwrap_or(cluster.data());
        let sockets =
            config.get_hosts().iter().filter_map(|host| if let Host::Unix(path) = host { Some(path.as_path()) } else { None });
        let directories = std::iter::once(directory).chain(sockets).collect::<Vec<&Path>>();
        let shell = Command::new("sh").args(["-c", SCRIPT, "sh"]).args(directories).stdin(Stdio::piped()).spawn()?;
        Ok(Cleaner(shell))
    }
}

impl Drop for Cleaner {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        // Nothing can be done about a failure here: the shell has its own copy of what to do.
        let _ = self.0.wait();
    }
}
