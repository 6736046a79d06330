//! CPU time, memory and wall time of this process and of a child.

use std::process::Child;
use std::time::{Duration, Instant};

/// What a piece of work took.
#[derive(Debug, Clone, Copy)]
pub struct Took {
    /// User and system time of all threads.
    pub cpu: Duration,
    /// Time on the wall.
    pub wall: Duration,
    /// Greatest resident set, bytes.
    pub rss: u64,
}

/// Runs `work` in this process and measures it.
pub fn here<T>(work: impl FnOnce() -> T) -> (T, Took) {
    let (cpu, begun) = (own_cpu(), Instant::now());
    let result = work();
    (result, Took { cpu: own_cpu() - cpu, wall: begun.elapsed(), rss: 0 })
}

/// Waits for a child and measures it from `begun` on; panics where it fails.
#[expect(unsafe_code, reason = "wait4 is the one call that gives a child's own CPU time and memory")]
pub fn child(child: &Child, begun: Instant) -> Took {
    let pid = i32::try_from(child.id()).unwrap();
    let mut status = 0;
    // SAFETY: an all-zero rusage is a valid value of the plain struct, and both pointers live through the call.
    let (waited, usage) = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        (libc::wait4(pid, &raw mut status, 0, &raw mut usage), usage)
    };
    assert_eq!((waited, status), (pid, 0), "the process failed, see its log");
    let rss = u64::try_from(usage.ru_maxrss).unwrap() * 1024;
    Took { cpu: time(usage.ru_utime) + time(usage.ru_stime), wall: begun.elapsed(), rss }
}

/// CPU time of all threads of this process.
#[expect(unsafe_code, reason = "getrusage is the one call that gives the CPU time of all threads")]
pub fn own_cpu() -> Duration {
    // SAFETY: an all-zero rusage is a valid value of the plain struct, and the pointer lives through the call.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &raw mut usage);
        usage
    };
    time(usage.ru_utime) + time(usage.ru_stime)
}

fn time(value: libc::timeval) -> Duration {
    Duration::from_secs(value.tv_sec.unsigned_abs()) + Duration::from_micros(value.tv_usec.unsigned_abs())
}

/// Seconds per million.
pub fn per_million(duration: Duration, records: i64) -> f64 {
    duration.as_secs_f64() * 1e6 / records as f64
}
