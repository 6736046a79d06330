//! What the operating system says of this process. Linux only; elsewhere it says nothing.

/// Use of resources by this process.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct ProcessUse {
    /// Resident memory in bytes.
    pub(super) resident_bytes: u64,
    /// User and system time since the start, in seconds.
    pub(super) cpu_seconds: f64,
}

/// Reads `/proc/self`; `None` where it cannot be read.
#[cfg(target_os = "linux")]
pub(super) fn read() -> Option<ProcessUse> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    Some(ProcessUse { resident_bytes: resident_bytes(&status)?, cpu_seconds: cpu_seconds(&stat)? })
}

/// Nothing is known here.
#[cfg(not(target_os = "linux"))]
pub(super) fn read() -> Option<ProcessUse> {
    None
}

/// From `/proc/self/status`, which counts in kB whatever the page size is.
#[cfg(any(target_os = "linux", test))]
fn resident_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kilobytes * 1024)
}

/// Fields 14 and 15 of `/proc/self/stat` (proc_pid_stat(5)), counted behind the command's name, which may hold spaces
/// and brackets of its own.
#[cfg(any(target_os = "linux", test))]
fn cpu_seconds(stat: &str) -> Option<f64> {
    /// Ticks per second in the kernel's answers to user space (`USER_HZ`): 100 on every architecture Rust builds for.
    const TICKS_PER_SECOND: f64 = 100.0;
    let (_, behind_name) = stat.rsplit_once(") ")?;
    let mut fields = behind_name.split(' ').skip(11);
    let (user, system): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some((user + system) as f64 / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_behind_a_strange_name() {
        let stat = "42 (a) b (c) S 1 42 42 0 -1 4194560 900 0 7 0 150 50 3 4 20 0 9 0 100 1000 200";
        assert_eq!(cpu_seconds(stat), Some(2.0));
        assert_eq!(resident_bytes("VmHWM:\t  900 kB\nVmRSS:\t   12 kB\n"), Some(12 * 1024));
        assert_eq!((cpu_seconds("42 (a"), resident_bytes("Name: a\n")), (None, None));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_uses_memory() {
        assert!(read().unwrap().resident_bytes > 1024 * 1024);
    }
}
