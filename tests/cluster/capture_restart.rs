//! C17: what was counted and not yet in the tables survives a clean stop, in a file. A crash loses no more than that, and a file that
//! is damaged, cut off or somebody else's is put aside with a line in the log.

use crate::capture::{Server, counted, on, text};
use indexpilot_tests::{Result, Stop};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

fn file(server: &Server) -> PathBuf {
    server.cluster.data().join("pg_stat/indexpilot.stat")
}

/// Runs something ten times that is in memory only, and stops.
fn stop_with_ten(server: &mut Server) -> Result<()> {
    server.run(&["SELECT v FROM t WHERE id = 7"; 10])?;
    server.cluster.stop(Stop::Fast)
}

/// Calls that are in the tables once the server has started and its worker has come.
fn calls_after_start(server: &mut Server) -> Result<String> {
    server.cluster.start()?;
    server.reconnect()?;
    server.wait_for_worker()?;
    server.flushed(&counted(&on("t")))
}

#[test]
fn c17_a_clean_restart_keeps_what_was_counted() -> Result<()> {
    let mut server = Server::named("capture-c17")?;
    server.run(&["SET indexpilot.tenant_id = 'äther'", "SELECT v FROM t WHERE id = 8", "UPDATE t SET v = v WHERE id = 9"])?;
    server.run(&["SELECT 1 / (v - v) FROM t WHERE id = 3"]).expect_err("it divides by zero");
    stop_with_ten(&mut server)?;
    let written = file(&server);
    let mode = fs::metadata(&written).map_err(|e| format!("{}: {e}", written.display()))?.permissions().mode();
    assert_eq!(mode & 0o077, 0, "others may read {}", written.display());
    server.cluster.start()?;
    server.reconnect()?;
    assert!(!written.exists(), "the file must be gone once it is read, or a crash would bring it back");
    server.expect_counted("after the restart", &on("t"), "select 0/1, select 11/0, update 1/0")?;
    let tenants = "SELECT string_agg(DISTINCT tenant_id, ',') FROM indexpilot.query_stats s JOIN indexpilot.workload w \
                   ON w.id = s.workload_id AND w.command = 'update' WHERE tenant_id <> ''";
    assert_eq!(text(&mut server.db, tenants)?, "äther");
    // Figures other than calls, and the sample, are there too, or come with the next executions.
    let figures = format!(
        "SELECT bool_and(q.total_ms > 0 AND q.p50_ms > 0 AND q.rows = 11)::text FROM indexpilot.queries q \
         JOIN indexpilot.workload w ON w.id = q.id WHERE q.calls = 11 AND {}",
        on("t")
    );
    assert_eq!(text(&mut server.db, &figures)?, "true");
    server.run(&["SELECT v FROM t WHERE id = 7"; 3])?;
    let sampled = "SELECT (count(*) > 0)::text FROM indexpilot.workload_samples WHERE query LIKE 'SELECT v FROM t WHERE id = %'";
    server.expect("a sample", sampled, "true")?;
    // A second clean restart counts nothing twice, nor does a crash.
    server.cluster.restart(Stop::Fast)?;
    server.reconnect()?;
    server.expect_counted("after the second", &on("t"), "select 0/1, select 14/0, update 1/0")?;
    server.cluster.restart(Stop::Immediate)?;
    server.reconnect()?;
    server.expect_counted("after a crash", &on("t"), "select 0/1, select 14/0, update 1/0")
}

#[test]
fn c17_a_killed_server_loses_what_was_in_memory_and_no_more() -> Result<()> {
    let mut server = Server::named("capture-c17-kill")?;
    server.run(&["SELECT v FROM t WHERE id = 7"; 5])?;
    server.expect_counted("in the tables", &on("t"), "select 5/0")?;
    server.db.batch_execute("CHECKPOINT")?;
    server.run(&["SELECT v FROM t WHERE id = 7"; 3])?;
    server.cluster.kill_server()?;
    assert!(!file(&server).exists(), "a killed server writes no file");
    let after = calls_after_start(&mut server)?;
    assert!(["select 5/0", "select 6/0", "select 7/0", "select 8/0"].contains(&after.as_str()), "{after}");
    server.reset()?;
    server.run(&["SELECT v FROM t WHERE id = 7"; 2])?;
    server.expect_counted("it goes on", &on("t"), "select 2/0")
}

#[test]
fn c17_a_damaged_file_is_reported_and_the_server_starts() -> Result<()> {
    let mut server = Server::named("capture-c17-damage")?;
    stop_with_ten(&mut server)?;
    let path = file(&server);
    let good = fs::read(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    let flipped = |at: usize| {
        let mut bytes = good.clone();
        bytes[at] ^= 0x40;
        bytes
    };
    let mut damages: Vec<(String, Vec<u8>)> = vec![
        ("empty".into(), vec![]),
        ("one byte".into(), vec![good[0]]),
        ("cut in the head".into(), good[..11].to_vec()),
        ("cut in half".into(), good[..good.len() / 2].to_vec()),
        ("one byte short".into(), good[..good.len() - 1].to_vec()),
        ("one byte long".into(), [good.as_slice(), b"x"].concat()),
        ("twice".into(), good.repeat(2)),
        ("a text".into(), b"this is not a file of ours\n".repeat(100)),
        ("zeros".into(), vec![0; good.len()]),
        ("ones".into(), vec![0xff; good.len()]),
    ];
    // The head has the version and the size of things; then somewhere in the middle, and the very end.
    let places = [0, 3, 4, 5, 8, 9, 12, 15, 16, 20, 24, 31, good.len() / 3, good.len() / 2, good.len() - 9, good.len() - 1];
    damages.extend(places.iter().filter(|at| **at < good.len()).map(|at| (format!("byte {at} of {}", good.len()), flipped(*at))));
    for (what, bytes) in damages {
        put(&server, &bytes)?;
        let logged = server.cluster.log().len();
        let counted = calls_after_start(&mut server).map_err(|e| format!("{what}: {e}"))?;
        assert_eq!(counted, "", "{what}: figures of a damaged file");
        let log = server.cluster.log().split_off(logged);
        assert!(log.lines().any(|l| l.contains(" LOG: ") && l.contains("indexpilot.stat")), "{what} is not reported: {log}");
        assert!(!log.contains("PANIC") && !log.contains("FATAL") && !log.contains("terminated by signal"), "{what}: {log}");
        assert!(!path.exists(), "{what}: the file must not be there at the next start");
        server.cluster.stop(Stop::Fast)?;
    }
    // The undamaged file is still good, and capture goes on after all of that.
    put(&server, &good)?;
    assert_eq!(calls_after_start(&mut server)?, "select 10/0");
    server.run(&["SELECT v FROM t WHERE id = 7"; 2])?;
    server.expect_counted("it goes on", &on("t"), "select 12/0")
}

/// Puts a file there for the next start, as the server's user would own it.
fn put(server: &Server, bytes: &[u8]) -> Result<()> {
    let path = file(server);
    fs::write(&path, bytes)?;
    let owner = fs::metadata(server.cluster.data())?;
    use std::os::unix::fs::MetadataExt;
    std::os::unix::fs::chown(&path, Some(owner.uid()), Some(owner.gid()))?;
    Ok(fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?)
}

#[test]
fn c17_a_directory_in_the_place_of_the_file_stops_nobody() -> Result<()> {
    let mut server = Server::named("capture-c17-directory")?;
    server.cluster.stop(Stop::Fast)?;
    let path = file(&server);
    let _ = fs::remove_file(&path);
    fs::create_dir(&path)?;
    server.cluster.start()?;
    server.reconnect()?;
    server.wait_for_capture()?;
    server.run(&["SELECT v FROM t WHERE id = 7"; 2])?;
    server.expect_counted("it goes on", &on("t"), "select 2/0")?;
    // Nothing can be written either, and the server stops all the same.
    server.cluster.stop(Stop::Fast)?;
    assert!(!server.cluster.log().contains("PANIC"), "{}", server.cluster.log_tail(20));
    fs::remove_dir(&path)?;
    server.cluster.start()
}

#[test]
fn c17_a_file_of_other_sizes_is_taken_as_far_as_it_fits() -> Result<()> {
    let mut server = Server::named("capture-c17-sizes")?;
    stop_with_ten(&mut server)?;
    server.cluster.configure("indexpilot.capture_max_queries", 100)?;
    server.cluster.configure("indexpilot.capture_max_samples", 8)?;
    let after = calls_after_start(&mut server)?;
    assert!(["", "select 10/0"].contains(&after.as_str()), "{after}");
    server.reset()?;
    server.run(&["SELECT v FROM t WHERE id = 7"; 2])?;
    server.expect_counted("it goes on", &on("t"), "select 2/0")?;
    server.expect_no_loss()
}
