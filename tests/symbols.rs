//! libpg_query and the server share no symbol (tools/symcheck.sh says why that matters), and the check can tell.

use indexpilot_tests::{Programs, Result, target_dir};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::{fs, process};

fn symcheck(so: &Path, server: &Path, archive: &Path) -> Result<Output> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tools/symcheck.sh");
    Ok(Command::new("bash").arg(script).args([so, server, archive]).output()?)
}

/// The extension as installed, and the server.
fn installed() -> Result<(PathBuf, PathBuf)> {
    let bin = Programs::find()?.bin().to_owned();
    let lib = Command::new(bin.join("pg_config")).arg("--pkglibdir").output()?;
    let so = Path::new(String::from_utf8_lossy(&lib.stdout).trim()).join("indexpilot.so");
    match so.exists() {
        true => Ok((so, bin.join("postgres"))),
        false => Err(format!("{} is missing; run tools/install.sh", so.display()).into()),
    }
}

/// The libpg_query that was built last.
fn archive() -> Result<PathBuf> {
    let mut found = Vec::new();
    for profile in ["debug", "release"] {
        let Ok(crates) = fs::read_dir(target_dir().join(profile).join("build")) else { continue };
        for path in crates.flatten().map(|c| c.path()).filter(|p| p.display().to_string().contains("pg_query-")) {
            let archive = path.join("out/libpg_query.a");
            if let Ok(changed) = fs::metadata(&archive).and_then(|m| m.modified()) {
                found.push((changed, archive));
            }
        }
    }
    found.into_iter().max().map(|(_, path)| path).ok_or_else(|| "libpg_query.a was not built below the target directory".into())
}

#[test]
fn libpg_query_and_the_server_share_no_symbol() -> Result<()> {
    let (so, server) = installed()?;
    let output = symcheck(&so, &server, &archive()?)?;
    assert!(output.status.success(), "{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    Ok(())
}

#[test]
fn a_shared_symbol_is_noticed() -> Result<()> {
    let (so, server) = installed()?;
    let dir = target_dir().join(format!("symbols-{}", process::id()));
    fs::create_dir_all(&dir)?;
    fs::write(dir.join("bad.c"), "void *palloc(unsigned long n);\nvoid *palloc(unsigned long n) { return (void *) n; }\n")?;
    let made = Command::new("sh").arg("-c").arg("cc -c bad.c && ar rc libbad.a bad.o").current_dir(&dir).status()?;
    assert!(made.success());
    let output = symcheck(&so, &server, &dir.join("libbad.a"))?;
    fs::remove_dir_all(&dir)?;
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stdout).contains("libpg_query defines symbols of the server: palloc"));
    Ok(())
}
