//! Locks of our own in the server's lock table: as advisory locks are, but out of the reach of the SQL functions for those, so that no
//! session can take one from us. Shown in `pg_locks` as advisory locks with `objsubid` 3.

use pgrx::pg_sys;

/// The SQL functions use 1 and 2 (lockfuncs.c).
const OURS: u16 = 3;

/// What is locked, in the session's database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Own {
    /// The right to move what was captured to the tables.
    Flush,
    /// Actions on the table with this OID.
    Table(u32),
    /// Who may see the index with this OID.
    Index(u32),
}

fn tag(what: Own) -> pg_sys::LOCKTAG {
    let (class, object) = match what {
        Own::Flush => (1, 0),
        Own::Table(oid) => (2, oid),
        Own::Index(oid) => (3, oid),
    };
    pg_sys::LOCKTAG {
        // SAFETY: reads a variable of the session.
        locktag_field1: unsafe { pg_sys::MyDatabaseId }.to_u32(),
        locktag_field2: class,
        locktag_field3: object,
        locktag_field4: OURS,
        locktag_type: pg_sys::LockTagType::LOCKTAG_ADVISORY as u8,
        locktag_lockmethodid: pg_sys::USER_LOCKMETHOD as u8,
    }
}

fn acquire(what: Own, session: bool, wait: bool) -> bool {
    let tag = tag(what);
    // SAFETY: in a transaction; raises at most what a lock of the server raises. The server gives it back at the end of the transaction
    // or session, whatever happens.
    let got = unsafe { pg_sys::LockAcquire(&tag, pg_sys::ExclusiveLock as pg_sys::LOCKMODE, session, !wait) };
    got != pg_sys::LockAcquireResult::LOCKACQUIRE_NOT_AVAIL
}

/// Takes it until the end of the transaction, after those who have it; the server's lock_timeout and its detector of deadlocks hold.
/// In a transaction.
pub fn for_transaction(what: Own) {
    acquire(what, false, true);
}

/// Takes it until the end of the transaction; `false` when another session has it. In a transaction.
pub fn try_for_transaction(what: Own) -> bool {
    acquire(what, false, false)
}

/// Takes it until [`release`] or the end of the session; `false` when another session has it. In a transaction.
pub fn try_for_session(what: Own) -> bool {
    acquire(what, true, false)
}

/// Keeps others from changing, renaming or dropping a relation until the end of the transaction: the server's own lock, that concurrent
/// builds and drops take. In a transaction; raises when it takes longer than the server's lock_timeout.
pub fn against_ddl(relation: u32) {
    // SAFETY: locks by OID, also one that no relation has, and accepts what was announced about relations meanwhile (lmgr.c).
    unsafe { pg_sys::LockRelationOid(pg_sys::Oid::from(relation), pg_sys::ShareUpdateExclusiveLock as pg_sys::LOCKMODE) };
}

/// As [`against_ddl`], but over commits, until [`allow_ddl`] or an error ends the transaction. The caller has it from [`against_ddl`] too,
/// so this does not wait.
pub fn against_ddl_over_commits(table: u32) {
    let mut relation = relation(table);
    // SAFETY: in a transaction. A rollback and the end of the process give it back (ProcReleaseLocks, proc.c), a commit does not.
    unsafe { pg_sys::LockRelationIdForSession(&mut relation, pg_sys::ShareUpdateExclusiveLock as pg_sys::LOCKMODE) };
}

/// Gives back what [`against_ddl_over_commits`] took.
pub fn allow_ddl(table: u32) {
    let mut relation = relation(table);
    // SAFETY: warns, and does nothing else, when it is not held.
    unsafe { pg_sys::UnlockRelationIdForSession(&mut relation, pg_sys::ShareUpdateExclusiveLock as pg_sys::LOCKMODE) };
}

/// A relation of the session's database that is not shared.
fn relation(oid: u32) -> pg_sys::LockRelId {
    // SAFETY: reads a variable of the session.
    pg_sys::LockRelId { relId: pg_sys::Oid::from(oid), dbId: unsafe { pg_sys::MyDatabaseId } }
}

/// Gives back what [`try_for_session`] took.
pub fn release(what: Own) {
    let tag = tag(what);
    // SAFETY: warns, and does nothing else, when it is not held.
    unsafe { pg_sys::LockRelease(&tag, pg_sys::ExclusiveLock as pg_sys::LOCKMODE, true) };
}
