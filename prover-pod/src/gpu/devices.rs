//! Which devices a pod uses: one worker process for each entry, told by `CUDA_VISIBLE_DEVICES`.

use std::fmt;

/// One device as `CUDA_VISIBLE_DEVICES` names it: an ordinal, `GPU-…`, or `MIG-…`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct VisibleDevice(pub String);

impl fmt::Display for VisibleDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Reads `CUDA_VISIBLE_DEVICES` as the driver does: entries up to the first that cannot be one. An empty list hides all devices;
/// so does an entry that stands there twice, for the driver refuses that.
pub fn parse_visible(text: &str) -> Vec<VisibleDevice> {
    let entries: Vec<VisibleDevice> = text
        .split(',')
        .map(str::trim)
        .take_while(|entry| is_entry(entry))
        .map(|entry| VisibleDevice(entry.to_owned()))
        .collect();
    let twice = entries.iter().enumerate().any(|(index, entry)| entries[..index].contains(entry));
    if twice { Vec::new() } else { entries }
}

fn is_entry(entry: &str) -> bool {
    let is_number = !entry.is_empty() && entry.bytes().all(|byte| byte.is_ascii_digit());
    is_number || ["GPU-", "MIG-"].iter().any(|prefix| entry.len() > prefix.len() && entry.starts_with(prefix))
}

/// The devices of a pod: what `CUDA_VISIBLE_DEVICES` shows, or all that there are, and no more than `at_most`.
///
/// `parts` are the names of MIG devices, where the host's GPUs are cut up. Without `CUDA_VISIBLE_DEVICES` the driver would show
/// only the first of them.
pub fn choose(visible: Option<&str>, count: usize, parts: &[String], at_most: Option<u16>) -> Vec<VisibleDevice> {
    let all = || (0..count).map(|ordinal| VisibleDevice(ordinal.to_string())).collect();
    let mut devices = match visible {
        Some(text) => parse_visible(text),
        None if !parts.is_empty() => parts.iter().cloned().map(VisibleDevice).collect(),
        None => all(),
    };
    devices.truncate(at_most.map_or(usize::MAX, usize::from));
    devices
}

/// Jobs at once for each of `devices`, out of `jobs` in all: as even as can be, the first ones more. A device that gets none is
/// not used.
pub fn share_jobs(jobs: usize, devices: usize) -> Vec<usize> {
    let (each, more) = (jobs / devices.max(1), jobs % devices.max(1));
    (0..devices).map(|index| each + usize::from(index < more)).filter(|&jobs| jobs > 0).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn texts(devices: &[VisibleDevice]) -> Vec<&str> {
        devices.iter().map(|device| device.0.as_str()).collect()
    }

    #[test]
    fn the_variable_is_read_as_the_driver_reads_it() {
        for (text, expected) in [
            ("", vec![]),
            ("0", vec!["0"]),
            (" 2, 0 ", vec!["2", "0"]),
            ("0,-1,1", vec!["0"]),
            ("NoDevFiles", vec![]),
            ("0,0", vec![]),
            ("GPU-1f2e,1", vec!["GPU-1f2e", "1"]),
            ("MIG-1f2e3d4c-5b6a-7988-97a6-b5c4d3e2f100", vec!["MIG-1f2e3d4c-5b6a-7988-97a6-b5c4d3e2f100"]),
            ("MIG-GPU-1f2e/7/0,MIG-GPU-1f2e/8/0", vec!["MIG-GPU-1f2e/7/0", "MIG-GPU-1f2e/8/0"]),
            ("GPU-,1", vec![]),
        ] {
            assert_eq!(texts(&parse_visible(text)), expected, "{text:?}");
        }
    }

    #[test]
    fn limits_and_parts_are_respected() {
        let parts = ["MIG-a".to_owned(), "MIG-b".to_owned()];
        assert_eq!(texts(&choose(None, 3, &[], None)), ["0", "1", "2"]);
        assert_eq!(texts(&choose(None, 3, &[], Some(2))), ["0", "1"]);
        assert_eq!(texts(&choose(None, 1, &parts, None)), ["MIG-a", "MIG-b"]);
        assert_eq!(texts(&choose(Some("MIG-b"), 1, &parts, None)), ["MIG-b"]);
        assert_eq!(texts(&choose(Some(""), 3, &[], None)), [""; 0]);
    }

    proptest! {
        #[test]
        fn jobs_are_shared_evenly(jobs in 0usize..100, devices in 0usize..20) {
            let shares = share_jobs(jobs, devices);
            prop_assert_eq!(shares.iter().sum::<usize>(), if devices == 0 { 0 } else { jobs });
            prop_assert!(shares.len() == devices.min(jobs));
            prop_assert!(shares.iter().max().unwrap_or(&0) - shares.iter().min().unwrap_or(&0) <= 1);
            prop_assert!(shares.is_sorted_by(|a, b| a >= b));
        }
    }
}
