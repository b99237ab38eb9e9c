//! The machine that we run on, as far as proving cares.

use std::fs;

/// Cores and memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Machine {
    /// Cores that this process may use.
    pub cores: usize,
    /// Bytes of memory in all: the host's, or less where a control group says so.
    pub memory: u64,
    /// Bytes of memory that are free to use now.
    pub available: u64,
}

impl Machine {
    /// Looks at `/proc` and the control group.
    pub fn look() -> Self {
        let info = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let limit = fs::read_to_string("/sys/fs/cgroup/memory.max").ok().and_then(|text| text.trim().parse().ok());
        let limit = limit.unwrap_or(u64::MAX);
        Self {
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory: field(&info, "MemTotal:").min(limit),
            available: field(&info, "MemAvailable:").min(limit),
        }
    }
}

fn field(info: &str, name: &str) -> u64 {
    let line = info.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse().map_or(0, |kilobytes: u64| kilobytes * 1024)
}

/// Bytes as people read them.
pub fn gib(bytes: u64) -> String {
    format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_cores_and_memory() {
        let machine = Machine::look();
        assert!(machine.cores > 0);
        assert!(machine.memory >= machine.available && machine.available > 0, "{machine:?}");
        assert_eq!(3 << 10, field("MemFree: 1 kB\nMemAvailable:   3 kB\n", "MemAvailable:"));
        assert_eq!("1.5 GiB", gib(3 << 29));
    }
}
