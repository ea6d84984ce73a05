//! Throw-away PostgreSQL clusters: each in its own directory below the target directory, reached by a socket of its own, gone when
//! the value is dropped. As root, the server's programs run as user postgres, because they refuse root.
//!
//! ```no_run
//! # fn main() -> indexpilot_tests::Result<()> {
//! let cluster = indexpilot_tests::Cluster::build("example").setting("indexpilot.mode", "apply").start()?;
//! cluster.connect("postgres", "postgres")?.batch_execute("CREATE EXTENSION indexpilot")?;
//! # Ok(())
//! # }
//! ```

mod host;
mod query;

pub use host::{Programs, target_dir};
pub use query::{enqueue, number, text};

use postgres::{Client, NoTls};
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use std::{fs, thread};

pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Every cluster has its own socket directory, so they can all use the same number.
const PORT: u16 = 5432;

/// What every cluster is given: no network, no waiting for disks, room for a standby, and no heed of what else the machine does.
const SETTINGS: &str = "\
listen_addresses = ''
fsync = off
log_line_prefix = '%m [%p] %b '
max_wal_senders = 4
max_worker_processes = 16
indexpilot.guard_max_load = 0
";

/// A cluster to be.
pub struct Builder {
    name: String,
    kept: Option<PathBuf>,
    preload: bool,
    settings: Vec<(String, String)>,
}

impl Builder {
    /// Whether the library is preloaded; it is unless this says otherwise.
    #[must_use]
    pub fn preload(mut self, preload: bool) -> Self {
        self.preload = preload;
        self
    }

    /// The cluster lies in this directory and stays there, to be started again: its data is worth more than a run. Whoever comes
    /// second waits until the first is gone. The server's user must be able to get there.
    #[must_use]
    pub fn keep(mut self, dir: &Path) -> Self {
        self.kept = Some(dir.to_owned());
        self
    }

    /// A line of `postgresql.conf`; the value is quoted here.
    #[must_use]
    pub fn setting(mut self, name: &str, value: impl Display) -> Self {
        self.settings.push((name.to_owned(), value.to_string()));
        self
    }

    /// Makes the cluster and starts it.
    ///
    /// # Errors
    /// When PostgreSQL is not found, cannot be made to run as an ordinary user, or does not start; the message has the server's log.
    pub fn start(self) -> Result<Cluster> {
        let programs = Programs::find()?;
        let mut cluster = match &self.kept {
            None => Cluster::place(programs, &self.name)?,
            Some(dir) => Cluster::place_in(programs, dir)?,
        };
        let data = cluster.data().to_owned();
        if !data.join("PG_VERSION").exists() {
            cluster.programs.run(&mut cluster.initdb())?;
        }
        if self.preload {
            cluster.configure("shared_preload_libraries", "indexpilot")?;
        }
        for (name, value) in &self.settings {
            cluster.configure(name, value)?;
        }
        cluster.start()?;
        Ok(cluster)
    }
}

/// How a server is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Sessions are ended, everything is written.
    Fast,
    /// As if it had crashed: the next start recovers.
    Immediate,
}

/// A cluster, stopped and removed when it is dropped. A test that panics leaves its directory and prints the end of the log; with
/// `INDEXPILOT_KEEP` in the environment the directory always stays.
pub struct Cluster {
    programs: Programs,
    dir: PathBuf,
    data: PathBuf,
    socket: PathBuf,
    running: bool,
    /// Of a cluster that stays: its lock.
    kept: Option<fs::File>,
}

impl Cluster {
    /// Begins a cluster; the name is for people who look at the directory.
    pub fn build(name: &str) -> Builder {
        Builder { name: name.to_owned(), kept: None, preload: true, settings: Vec::new() }
    }

    /// Directories for a cluster, and a configuration as far as it does not depend on the data.
    fn place(programs: Programs, name: &str) -> Result<Self> {
        let dir = programs.cluster_dir(name)?;
        Self::furnish(programs, dir, None)
    }

    /// The same for a cluster that stays, in a directory that may hold its data already.
    fn place_in(programs: Programs, dir: &Path) -> Result<Self> {
        if !dir.is_dir() {
            programs.make_dir(dir, 0o755)?;
        }
        let lock = fs::File::options().create(true).truncate(false).write(true).open(dir.join("lock"))?;
        lock.lock()?;
        let data = dir.join("data");
        // Left behind by a run that was killed.
        if data.join("postmaster.pid").exists() {
            let _ = programs.run(programs.server("pg_ctl").arg("-D").arg(&data).args(["-w", "-t", "60", "-m", "fast", "stop"]));
        }
        Self::furnish(programs, dir.to_owned(), Some(lock))
    }

    fn furnish(programs: Programs, dir: PathBuf, kept: Option<fs::File>) -> Result<Self> {
        let socket = programs.socket_dir()?;
        let data = dir.join("data");
        fs::write(dir.join("extra.conf"), format!("{SETTINGS}port = {PORT}\nunix_socket_directories = '{}'\n", socket.display()))?;
        Ok(Cluster { programs, dir, data, socket, running: false, kept })
    }

    /// Starts the server and waits until it takes connections.
    ///
    /// # Errors
    /// When it does not come up within a minute.
    pub fn start(&mut self) -> Result<()> {
        self.include()?;
        let start = self.programs.run(
            self.programs
                .server("pg_ctl")
                .arg("-D")
                .arg(&self.data)
                .arg("-l")
                .arg(self.log_file())
                .args(["-w", "-t", "60", "start"]),
        );
        // A server that came up too late is stopped all the same.
        self.running = true;
        start.map(|_| ()).map_err(|e| format!("{e}\n{}", self.log_tail(40)).into())
    }

    /// Has the server read what was configured here.
    fn include(&self) -> Result<()> {
        let include = format!("include '{}'\n", self.dir.join("extra.conf").display());
        let conf = self.data.join("postgresql.conf");
        let text = fs::read_to_string(&conf)?;
        if !text.contains(&include) {
            fs::write(&conf, text + &include)?;
        }
        Ok(())
    }

    /// Stops the server.
    ///
    /// # Errors
    /// When it does not stop within a minute.
    pub fn stop(&mut self, how: Stop) -> Result<()> {
        let mode = if how == Stop::Fast { "fast" } else { "immediate" };
        self.programs.run(self.programs.server("pg_ctl").arg("-D").arg(&self.data).args(["-w", "-t", "60", "-m", mode, "stop"]))?;
        self.running = false;
        Ok(())
    }

    /// Stops and starts the server.
    ///
    /// # Errors
    /// When it does not stop or start within a minute each.
    pub fn restart(&mut self, how: Stop) -> Result<()> {
        self.stop(how)?;
        self.start()
    }

    /// Adds a line to the configuration, which holds from the next start or [`Cluster::reload`]; later lines win.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn configure(&self, name: &str, value: impl Display) -> Result<()> {
        let file = self.dir.join("extra.conf");
        let line = format!("{name} = '{}'\n", value.to_string().replace('\'', "''"));
        Ok(fs::write(&file, fs::read_to_string(&file)? + &line)?)
    }

    /// Makes the server read its configuration.
    ///
    /// # Errors
    /// When the server cannot be told.
    pub fn reload(&self) -> Result<()> {
        self.programs.run(self.programs.server("pg_ctl").arg("-D").arg(&self.data).arg("reload")).map(|_| ())
    }

    /// Kills a process of the server without warning (SIGKILL). The server then ends all others and recovers.
    ///
    /// # Errors
    /// When there is no such process.
    pub fn kill9(&self, pid: i32) -> Result<()> {
        self.programs.run(Command::new("kill").args(["-9", &pid.to_string()])).map(|_| ())
    }

    /// Kills the server's first process, and with it the cluster: the next start recovers from its log.
    ///
    /// # Errors
    /// When the server does not run.
    pub fn kill_server(&mut self) -> Result<()> {
        let pid: i32 = fs::read_to_string(self.data.join("postmaster.pid"))?.lines().next().unwrap_or_default().trim().parse()?;
        self.kill9(pid)?;
        self.running = false;
        // Its children notice that it is gone; until then their shared memory would keep a new server from starting. Each of them
        // works in the data directory.
        poll_until(Duration::from_secs(30), "the processes of a killed server to end", || {
            let data = self.data.canonicalize()?;
            let processes = fs::read_dir("/proc")?.filter_map(|entry| fs::read_link(entry.ok()?.path().join("cwd")).ok());
            Ok(!processes.into_iter().any(|cwd| cwd == data))
        })?;
        // Where nobody reaps orphans (a container without init) its number stays taken, and a new server would think it alive.
        fs::remove_file(self.data.join("postmaster.pid"))?;
        Ok(fs::remove_file(self.socket.join(format!(".s.PGSQL.{PORT}.lock")))?)
    }

    /// Connects.
    ///
    /// # Errors
    /// When the server refuses.
    pub fn connect(&self, database: &str, user: &str) -> Result<Client> {
        Ok(self.config(database, user).connect(NoTls)?)
    }

    /// How to connect, for callers that connect by themselves.
    pub fn config(&self, database: &str, user: &str) -> postgres::Config {
        let mut config = postgres::Config::new();
        config.host_path(&self.socket).port(PORT).dbname(database).user(user).connect_timeout(Duration::from_secs(20));
        config
    }

    /// The same as text, for psql and people.
    pub fn conninfo(&self, database: &str, user: &str) -> String {
        format!("host={} port={PORT} dbname={database} user={user}", self.socket.display())
    }

    /// A client program (psql, pg_dump, pgbench, ...) that will connect to this cluster as its superuser.
    pub fn client_program(&self, name: &str) -> Command {
        let mut command = self.programs.client(name);
        command.env("PGHOST", &self.socket).env("PGPORT", PORT.to_string()).env("PGUSER", "postgres").env("PGDATABASE", "postgres");
        command
    }

    /// Runs a client program and returns what it printed.
    ///
    /// # Errors
    /// When it does not end with 0; the message has what it printed as errors.
    pub fn run(&self, command: &mut Command) -> Result<String> {
        self.programs.run(command)
    }

    /// Runs statements, each on one line, on the stopped cluster in a single process (`postgres --single`), which another program
    /// such as valgrind may run; returns what was printed, and what was printed as errors.
    ///
    /// # Errors
    /// When it does not end with 0.
    pub fn single(&self, database: &str, under: &[&str], statements: &[String]) -> Result<(String, String)> {
        let input = self.dir.join("single.sql");
        fs::write(&input, statements.iter().map(|s| format!("{s}\n")).collect::<String>())?;
        let mut command = self.programs.server_under(under, "postgres");
        self.programs.run_with(command.arg("--single").arg("-D").arg(&self.data).arg(database), fs::File::open(&input)?.into())
    }

    /// A hot standby of this cluster, streaming from it.
    ///
    /// # Errors
    /// When it cannot be copied or does not start.
    pub fn standby(&self, name: &str) -> Result<Cluster> {
        let mut standby = Cluster::place(self.programs.clone(), name)?;
        let mut copy = self.programs.server("pg_basebackup");
        copy.args(["-c", "fast", "-X", "stream", "--no-sync", "-U", "postgres", "-p", &PORT.to_string(), "-h"]).arg(&self.socket);
        self.programs.run(copy.arg("-D").arg(&standby.data))?;
        self.hand_down(&standby)?;
        standby.configure("primary_conninfo", format!("host={} port={PORT} user=postgres", self.socket.display()))?;
        fs::write(standby.data.join("standby.signal"), "")?;
        standby.start()?;
        Ok(standby)
    }

    /// A copy of this cluster, which must be stopped, and stays so; the copy is not started either.
    ///
    /// # Errors
    /// When it cannot be copied.
    pub fn copy(&self, name: &str) -> Result<Cluster> {
        let copy = Cluster::place(self.programs.clone(), name)?;
        self.programs.run(Command::new("cp").args(["-a", "--reflink=auto"]).args([&self.data, &copy.data]))?;
        self.hand_down(&copy)?;
        Ok(copy)
    }

    /// What pg_upgrade makes of this cluster, which must be stopped: a new one, not started, with copies of its data. Also what it said.
    ///
    /// # Errors
    /// When it fails; the message has what it printed.
    pub fn upgrade(&self, name: &str) -> Result<(Cluster, String)> {
        let new = Cluster::place(self.programs.clone(), name)?;
        self.programs.run(&mut new.initdb())?;
        self.hand_down(&new)?;
        new.include()?;
        let mut upgrade = self.programs.server("pg_upgrade");
        upgrade
            .arg("-b")
            .arg(self.programs.bin())
            .arg("-B")
            .arg(self.programs.bin())
            .arg("-d")
            .arg(&self.data)
            .arg("-D")
            .arg(&new.data);
        upgrade.args(["-U", "postgres", "-s"]).arg(&new.socket);
        // It writes into the directory where it runs.
        let said = self.programs.run(upgrade.current_dir(&new.dir))?;
        Ok((new, said))
    }

    fn initdb(&self) -> Command {
        let mut command = self.programs.server("initdb");
        command.args(["-A", "trust", "-U", "postgres", "-E", "UTF8", "--no-locale", "--no-sync", "-D"]).arg(&self.data);
        command
    }

    /// Gives the settings of this cluster to one with a copy of its data, all but the socket.
    fn hand_down(&self, heir: &Cluster) -> Result<()> {
        let conf = heir.data.join("postgresql.conf");
        let text = fs::read_to_string(&conf)?;
        fs::write(&conf, text.replace(&format!("include '{}'\n", self.dir.join("extra.conf").display()), ""))?;
        let own = fs::read_to_string(self.dir.join("extra.conf"))?;
        let inherited: String =
            own.lines().filter(|l| !l.starts_with("unix_socket_directories")).map(|l| format!("{l}\n")).collect();
        let file = heir.dir.join("extra.conf");
        Ok(fs::write(&file, inherited + &fs::read_to_string(&file)?)?)
    }

    /// The data directory.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// The server's log.
    pub fn log(&self) -> String {
        fs::read(self.log_file()).map(|b| String::from_utf8_lossy(&b).into_owned()).unwrap_or_default()
    }

    fn log_file(&self) -> PathBuf {
        self.dir.join("server.log")
    }

    /// The last lines of the log.
    pub fn log_tail(&self, lines: usize) -> String {
        let log = self.log();
        let all: Vec<&str> = log.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.running
            && let Err(e) = self.stop(if self.kept.is_some() { Stop::Fast } else { Stop::Immediate })
        {
            eprintln!("could not stop the cluster in {}: {e}", self.dir.display());
        }
        if self.kept.is_some() {
            // What it is kept for.
        } else if thread::panicking() {
            eprintln!("the cluster is left in {}; the end of its log:\n{}", self.dir.display(), self.log_tail(40));
        } else if std::env::var_os("INDEXPILOT_KEEP").is_none() {
            let _ = fs::remove_dir_all(&self.dir);
        }
        let _ = fs::remove_dir_all(&self.socket);
    }
}

/// Asks again and again until the answer is yes.
///
/// # Errors
/// When the question fails, or when the time is over; the message says what was waited for.
pub fn poll_until(timeout: Duration, what: &str, mut question: impl FnMut() -> Result<bool>) -> Result<()> {
    let start = Instant::now();
    while !question()? {
        if start.elapsed() >= timeout {
            return Err(format!("waited {} s in vain for {what}", timeout.as_secs()).into());
        }
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}
