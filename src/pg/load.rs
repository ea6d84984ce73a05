//! How busy the machine is.

/// Load average of the last minute for each processor that is online; `None` where the operating system does not tell.
pub fn per_core() -> Option<f64> {
    let mut averages = [0.0_f64; 1];
    // SAFETY: fills as many as it is asked for and returns how many those are.
    let filled = unsafe { libc::getloadavg(averages.as_mut_ptr(), 1) };
    // SAFETY: reads a figure of the system.
    let cores = unsafe { libc::sysconf(libc::_SC_NPROCESSORS_ONLN) };
    (filled == 1 && cores >= 1).then(|| averages[0] / cores as f64)
}
