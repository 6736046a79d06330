//! CPU time, memory and wall time of this process and of a child.

use std::process::Child;
use std::time::{Duration, Instant};

/// How often a child's memory is looked at; the greatest so far is what is read.
const POLL: Duration = Duration::from_millis(20);

/// What a piece of work took.
#[derive(Debug, Clone, Copy)]
pub struct Took {
    /// User and system time of all threads.
    pub cpu: Duration,
    /// Time on the wall.
    pub wall: Duration,
    /// Greatest resident set of a child, bytes.
    pub rss: u64,
}

/// Runs `work` in this process and measures it.
pub fn here<T>(work: impl FnOnce() -> T) -> (T, Took) {
    let (cpu, begun) = (own_cpu(), Instant::now());
    let result = work();
    (result, Took { cpu: own_cpu() - cpu, wall: begun.elapsed(), rss: 0 })
}

/// Waits for a child and measures it from `begun` on; panics where it fails.
#[expect(unsafe_code, reason = "wait4 is the one call that gives a child's own CPU time")]
pub fn child(child: &Child, begun: Instant) -> Took {
    let pid = i32::try_from(child.id()).unwrap();
    let mut rss = 0;
    loop {
        let mut status = 0;
        // SAFETY: an all-zero rusage is a valid value of the plain struct, and both pointers live through the call.
        let (waited, usage) = unsafe {
            let mut usage: libc::rusage = std::mem::zeroed();
            (libc::wait4(pid, &raw mut status, libc::WNOHANG, &raw mut usage), usage)
        };
        if waited != 0 {
            assert_eq!((waited, status), (pid, 0), "the process failed, see its log");
            return Took { cpu: time(usage.ru_utime) + time(usage.ru_stime), wall: begun.elapsed(), rss };
        }
        rss = rss.max(greatest_rss(child.id()).unwrap_or(0));
        std::thread::sleep(POLL);
    }
}

/// The greatest resident set of a process so far, bytes. What `ru_maxrss` does not say: on Linux that begins with what
/// the parent had when it started the child.
pub fn greatest_rss(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let kib = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?.trim().strip_suffix(" kB")?;
    kib.parse::<u64>().ok().map(|kib| kib * 1024)
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
