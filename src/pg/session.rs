//! This server process among the others: its number, its end, and a knock at another's door.

use super::compat;
use pgrx::pg_sys;

/// Number of sessions and workers that the server can have. For sizing shared memory, while the server starts.
pub fn count() -> usize {
    // SAFETY: computed before shared memory is requested (postmaster.c; since 15 before shmem_request_hook).
    usize::try_from(unsafe { pg_sys::MaxBackends }).unwrap_or(0)
}

/// Position of this process among them; `None` for what is neither session nor worker.
pub fn index() -> Option<usize> {
    usize::try_from(compat::process_number().checked_sub(compat::FIRST_PROCESS)?).ok()
}

/// Makes the process at that position run an empty transaction if it is idle. Nothing happens when it is gone.
pub fn ask_to_catch_up(pid: i32, index: usize) {
    // SAFETY: SendProcSignal checks under its own protocol that the slot still belongs to the process (procsignal.c); the interrupt is
    // the one that SICleanupQueue sends to processes that are behind (sinvaladt.c).
    unsafe {
        pg_sys::SendProcSignal(pid, pg_sys::ProcSignalReason::PROCSIG_CATCHUP_INTERRUPT, index as i32 + compat::FIRST_PROCESS);
    }
}

/// Has `callback` called when this process ends, while shared memory and locks can still be used.
pub fn at_exit(callback: unsafe extern "C-unwind" fn(i32, pg_sys::Datum)) {
    // SAFETY: the list of callbacks has room for twenty; the callback is a function of a library that is never unloaded.
    unsafe { pg_sys::before_shmem_exit(Some(callback), pg_sys::Datum::from(0usize)) };
}

/// Has `callback` called when the postmaster, or a single-user server, ends; with the exit code.
pub fn at_server_exit(callback: unsafe extern "C-unwind" fn(i32, pg_sys::Datum)) {
    // SAFETY: as above; children forget the postmaster's callbacks (on_exit_reset).
    unsafe {
        if !pg_sys::IsUnderPostmaster {
            pg_sys::on_shmem_exit(Some(callback), pg_sys::Datum::from(0usize));
        }
    }
}

/// The process is on its way out.
pub fn exiting() -> bool {
    // SAFETY: reads a variable of the process.
    unsafe { pg_sys::proc_exit_inprogress }
}

/// `maintenance_work_mem` of this session in kilobytes.
pub fn maintenance_work_mem_kb() -> u64 {
    // SAFETY: reads a variable of the process.
    u64::try_from(unsafe { pg_sys::maintenance_work_mem }).unwrap_or(0)
}
