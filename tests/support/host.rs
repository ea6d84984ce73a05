//! Where the programs and directories are, and who runs them.

use crate::Result;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::{env, fs, process};

/// Numbers the clusters of this process.
static NEXT: AtomicU32 = AtomicU32::new(0);

/// The programs of one PostgreSQL, and the user who runs its server.
#[derive(Clone, Debug)]
pub struct Programs {
    bin: PathBuf,
    /// Set when this process is root: user and group of postgres.
    postgres: Option<(u32, u32)>,
}

impl Programs {
    /// The PostgreSQL of `PG_CONFIG`, otherwise the private copy that `tools/setup.sh` made.
    ///
    /// # Errors
    /// When there is none, or when root finds no user postgres to run it.
    pub fn find() -> Result<Self> {
        let default = target_dir().join("pg15/usr/lib/postgresql/15/bin/pg_config");
        let pg_config = env::var_os("PG_CONFIG").map_or(default, PathBuf::from);
        let output = Command::new(&pg_config)
            .arg("--bindir")
            .output()
            .map_err(|e| format!("could not run {}: {e}; run tools/setup.sh, or set PG_CONFIG", pg_config.display()))?;
        let bin = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
        let root = fs::metadata("/proc/self")?.uid() == 0;
        let postgres = if root { Some((id("-u")?, id("-g")?)) } else { None };
        let programs = Programs { bin, postgres };
        if !programs.can_reach(&programs.bin) {
            return Err(format!("user postgres cannot reach {}, and root cannot run a server", programs.bin.display()).into());
        }
        Ok(programs)
    }

    /// Directory of the programs.
    pub fn bin(&self) -> &Path {
        &self.bin
    }

    /// A program of the server side, which must not run as root.
    pub fn server(&self, name: &str) -> Command {
        self.server_under(&[], name)
    }

    /// The same, run by another program, such as valgrind with its options.
    pub fn server_under(&self, under: &[&str], name: &str) -> Command {
        let as_postgres: &[&str] = if self.postgres.is_some() { &["runuser", "-u", "postgres", "--"] } else { &[] };
        let mut words = as_postgres.iter().chain(under).map(Into::into).chain([self.bin.join(name)]);
        let mut command = Command::new(words.next().unwrap_or_default());
        command.args(words);
        // The working directory of a test may be closed to user postgres.
        command.current_dir("/");
        command
    }

    /// A client program, which runs as whoever runs this.
    pub fn client(&self, name: &str) -> Command {
        Command::new(self.bin.join(name))
    }

    /// Runs a command and returns what it printed.
    ///
    /// # Errors
    /// When it does not end with 0; the message has what it printed.
    pub fn run(&self, command: &mut Command) -> Result<String> {
        self.run_with(command, Stdio::null()).map(|(stdout, _)| stdout)
    }

    /// The same with something to read; also returns what it printed as errors.
    ///
    /// # Errors
    /// As [`Programs::run`].
    pub fn run_with(&self, command: &mut Command, stdin: Stdio) -> Result<(String, String)> {
        // A server started by pg_ctl would keep a pipe open; files do not make anybody wait.
        let scratch = env::temp_dir().join(format!("indexpilot-{}-{}", process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
        let (out, err) = (scratch.with_extension("out"), scratch.with_extension("err"));
        let status = command.stdin(stdin).stdout(fs::File::create_new(&out)?).stderr(fs::File::create_new(&err)?).status();
        let read = |path: &Path| fs::read(path).map(|b| String::from_utf8_lossy(&b).into_owned()).unwrap_or_default();
        let (stdout, stderr) = (read(&out), read(&err));
        let _ = (fs::remove_file(&out), fs::remove_file(&err));
        match status {
            Ok(status) if status.success() => Ok((stdout, stderr)),
            Ok(status) => Err(format!("{command:?} ended with {status}\n{stdout}{stderr}").into()),
            Err(e) => Err(format!("could not run {command:?}: {e}").into()),
        }
    }

    /// A new directory for a cluster: below the target directory, or below /tmp when the server's user cannot get there.
    pub(crate) fn cluster_dir(&self, name: &str) -> Result<PathBuf> {
        let below_target = target_dir().join("cluster");
        fs::create_dir_all(&below_target)?;
        let base = if self.can_reach(&below_target) { below_target } else { env::temp_dir() };
        let dir = base.join(format!("{name}-{}-{}", process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
        self.make_dir(&dir, 0o755)?;
        Ok(dir)
    }

    /// A new directory for a socket. The path of a socket has at most 107 characters, so it is not below the target directory.
    pub(crate) fn socket_dir(&self) -> Result<PathBuf> {
        let dir = env::temp_dir().join(format!("ip-{}-{}", process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
        self.make_dir(&dir, 0o711)?;
        Ok(dir)
    }

    /// Makes a directory that belongs to the server's user. Fails when it exists already: somebody else may have put it there.
    pub(crate) fn make_dir(&self, dir: &Path, mode: u32) -> Result<()> {
        fs::DirBuilder::new().mode(mode).create(dir).map_err(|e| format!("could not make {}: {e}", dir.display()))?;
        fs::set_permissions(dir, fs::Permissions::from_mode(mode))?;
        if let Some((uid, gid)) = self.postgres {
            chown(dir, Some(uid), Some(gid))?;
        }
        Ok(())
    }

    /// Whether the server's user can get into a directory.
    fn can_reach(&self, dir: &Path) -> bool {
        match self.postgres {
            None => dir.is_dir(),
            Some(_) => {
                let test = Command::new("runuser").args(["-u", "postgres", "--", "test", "-x"]).arg(dir).current_dir("/").status();
                test.is_ok_and(|s| s.success())
            }
        }
    }
}

/// The workspace's target directory.
pub fn target_dir() -> PathBuf {
    match env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => PathBuf::from(dir),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"),
    }
    .canonicalize()
    .unwrap_or_else(|_| PathBuf::from("target"))
}

/// A number of user postgres.
fn id(which: &str) -> Result<u32> {
    let output = Command::new("id").args([which, "postgres"]).output()?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).trim().parse()?),
        false => Err("there is no user postgres, and root cannot run a server".into()),
    }
}
