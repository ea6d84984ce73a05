//! The server that the demo runs on: a throw-away one with IndexPilot preloaded, or one that the caller names.
//!
//! The settings make a short demo possible, none of them makes it look better: intervals are seconds where a real
//! system has minutes, and verdicts need few calls because the whole history of this server is two runs.

use crate::failure::{Failure, Result};
use crate::options::Options;
use postgres::{Config, NoTls};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

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

/// A running server. One that the demo started is stopped and deleted when this is dropped, or when the demo dies.
pub struct Server {
    pub config: Config,
    cleaner: Option<Cleaner>,
}

impl Server {
    /// Starts a throw-away server, or connects to the one that the options name.
    pub fn start(options: &Options) -> Result<Self> {
        let Some(conninfo) = &options.server else { return Self::throw_away(options.by_hand.is_none()) };
        let config: Config = conninfo.parse()?;
        let mut client = config.connect(NoTls)?;
        client.batch_execute("SET client_min_messages = warning; DROP SCHEMA IF EXISTS crm, tpch CASCADE")?;
        Ok(Server { config, cleaner: None })
    }

    /// Where the server lives, for a person who wants to look at it meanwhile.
    pub fn place(&self) -> String {
        match &self.cleaner {
            Some(cleaner) => format!("psql -h {} -U postgres postgres", cleaner.directory.display()),
            None => "the server named by --server".to_owned(),
        }
    }

    fn throw_away(with_extension: bool) -> Result<Self> {
        let bin = bin_directory()?;
        let directory = std::env::temp_dir().join(format!("indexpilot-demo-{}", std::process::id()));
        std::fs::create_dir(&directory)?;
        let data = directory.join("data");
        let cleaner = Cleaner::new(&directory)?;
        let as_user = AsUser::find(&bin, &directory)?;
        as_user
            .run(&bin.join("initdb"), &["-D", text(&data)?, "-U", "postgres", "-A", "trust", "-N", "-E", "UTF8", "--locale=C"])?;
        let mut settings = format!("listen_addresses = ''\nunix_socket_directories = '{}'\n", directory.display());
        for (name, value) in SETTINGS {
            if with_extension || !value.contains("indexpilot") && !name.contains("indexpilot") {
                settings.push_str(&format!("{name} = {value}\n"));
            }
        }
        std::fs::write(data.join("postgresql.auto.conf"), settings)?;
        let log = directory.join("log");
        let started = as_user.run(&bin.join("pg_ctl"), &["-D", text(&data)?, "-l", text(&log)?, "-w", "-t", "60", "start"]);
        if let Err(failure) = started {
            let log = std::fs::read_to_string(&log).unwrap_or_default();
            return Err(failure.during(&format!("the server did not start; its log says: {}", log.trim_end())));
        }
        let mut config = Config::new();
        config.host_path(&directory).user("postgres").dbname("postgres").application_name("indexpilot-demo");
        Ok(Server { config, cleaner: Some(cleaner) })
    }
}

/// The directory of initdb and pg_ctl, as `$PG_CONFIG` says, else the pg_config of the search path.
fn bin_directory() -> Result<PathBuf> {
    let pg_config = std::env::var_os("PG_CONFIG").filter(|p| !p.is_empty()).unwrap_or_else(|| "pg_config".into());
    let output = Command::new(&pg_config)
        .arg("--bindir")
        .output()
        .map_err(|e| Failure::from(e).during(&format!("{} (set PG_CONFIG)", pg_config.to_string_lossy())))?;
    Ok(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()))
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().ok_or_else(|| Failure::new(format!("{} is not UTF-8", path.display())))
}

/// PostgreSQL refuses to run as root; then its programs are run as user postgres.
struct AsUser {
    through: &'static [&'static str],
}

impl AsUser {
    /// Asks pg_ctl itself whether it minds, because some installations wrap their programs to change the user.
    fn find(bin: &Path, directory: &Path) -> Result<Self> {
        let pg_ctl = bin.join("pg_ctl");
        let probe = Command::new(&pg_ctl).env("LC_ALL", "C").args(["-D", text(directory)?, "status"]).output();
        let probe = probe.map_err(|e| Failure::from(e).during(&pg_ctl.display().to_string()))?;
        let refused = String::from_utf8_lossy(&probe.stderr).contains("cannot be run as root");
        let through: &[&str] = if refused { &["runuser", "-u", "postgres", "--"] } else { &[] };
        if refused {
            AsUser { through: &[] }.run(Path::new("chown"), &["postgres", text(directory)?])?;
        }
        Ok(AsUser { through })
    }

    fn run(&self, program: &Path, arguments: &[&str]) -> Result<()> {
        let mut words = self.through.iter().copied().chain([text(program)?]).chain(arguments.iter().copied());
        let mut command = Command::new(words.next().unwrap_or_default());
        // The server inherits these; a pipe would never end.
        let output = command.args(words).current_dir("/").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
        match output {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(Failure::new(format!("{} failed ({status})", program.display()))),
            Err(error) => Err(Failure::from(error).during(&program.display().to_string())),
        }
    }
}

/// A shell that waits for the end of its input, which comes when the demo ends in whatever way, and then cleans up.
struct Cleaner {
    directory: PathBuf,
    shell: Child,
}

impl Cleaner {
    fn new(directory: &Path) -> Result<Self> {
        const SCRIPT: &str = "trap '' INT TERM HUP; cat >/dev/null; \
            pid=$(head -n 1 \"$1/data/postmaster.pid\" 2>/dev/null) && kill -QUIT \"$pid\" && \
            for i in 1 2 3 4 5 6 7 8 9 10; do kill -0 \"$pid\" 2>/dev/null || break; sleep 0.3; done; rm -rf \"$1\"";
        let shell = Command::new("sh").args(["-c", SCRIPT, "sh", text(directory)?]).stdin(Stdio::piped()).spawn()?;
        Ok(Cleaner { directory: directory.to_owned(), shell })
    }
}

impl Drop for Cleaner {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        // Nothing can be done about a failure here: the shell has its own copy of what to do.
        let _ = self.shell.wait();
    }
}
