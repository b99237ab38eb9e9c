//! Rendezvous (highest random weight) hashing: which pods to ask for a job, in which order.
//!
//! Each client computes the same order from the same pods without talking to anybody, and a pod that comes or goes moves only
//! the jobs that it wins or had. Thaler and Ravishankar, "A name-based mapping scheme for rendezvous", 1996.

use crate::JobId;

/// Weight of a pod for a job. Part of the protocol between clients: duplicates meet only while all compute it alike.
fn weight(pod: &str, id: JobId) -> u64 {
    // FNV-1a over the name and the id, then the finalizer of MurmurHash3: FNV alone leaves names that differ in their last
    // character, as pod names do, with related high bits.
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in pod.bytes().chain([0xff]).chain(id.bytes()) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

/// Indices of `pods` in the order in which to ask them for the job: heaviest first, equal weights by name.
pub fn order<S: AsRef<str>>(pods: &[S], id: JobId) -> Vec<usize> {
    let mut order: Vec<_> = (0..pods.len()).collect();
    order.sort_by_cached_key(|&index| {
        let pod = pods[index].as_ref();
        (std::cmp::Reverse(weight(pod, id)), pod.to_owned())
    });
    order
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use triton_vm::prelude::*;

    use super::*;

    fn id(number: u64) -> JobId {
        JobId::of(&Claim::new(Digest::default()).with_input(bfe_vec![number]))
    }

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|pod| format!("http://10.1.{}.{}:8080", pod / 250, pod % 250)).collect()
    }

    fn ordered(pods: &[String], id: JobId) -> Vec<&str> {
        order(pods, id).into_iter().map(|index| pods[index].as_str()).collect()
    }

    #[test]
    fn the_order_is_the_same_in_every_release() {
        let pods: Vec<String> = ["a", "b", "c", "d"].map(str::to_owned).into();
        assert_eq!(ordered(&pods, id(1)), FIXED_ORDER);
    }
    const FIXED_ORDER: [&str; 4] = ["b", "a", "d", "c"];

    proptest! {
        #[test]
        fn a_pod_that_leaves_moves_nothing_else(count in 1_usize..24, leaves in any::<prop::sample::Index>(), job in any::<u64>()) {
            let mut pods = names(count);
            let before: Vec<_> = ordered(&pods, id(job)).into_iter().map(str::to_owned).collect();
            let gone = pods.remove(leaves.index(count));
            let expected: Vec<_> = before.into_iter().filter(|pod| *pod != gone).collect();
            prop_assert_eq!(ordered(&pods, id(job)), expected);
        }

        #[test]
        fn the_order_of_the_list_does_not_count(mut pods in Just(names(12)).prop_shuffle(), job in any::<u64>()) {
            let shuffled: Vec<_> = ordered(&pods, id(job)).into_iter().map(str::to_owned).collect();
            pods.sort();
            prop_assert_eq!(ordered(&pods, id(job)), shuffled);
        }
    }

    #[test]
    fn pods_get_equal_shares() {
        for count in [2, 3, 7, 16] {
            let pods = names(count);
            let jobs = 4_000;
            let mut first = vec![0_usize; count];
            let mut second = vec![0_usize; count];
            for job in 0..jobs {
                let order = order(&pods, id(job));
                first[order[0]] += 1;
                second[order[1]] += 1;
            }
            // Binomial: six standard deviations around the mean.
            let mean = jobs as f64 / count as f64;
            let slack = 6.0 * (mean * (1.0 - 1.0 / count as f64)).sqrt();
            for share in first.into_iter().chain(second) {
                assert!((share as f64 - mean).abs() < slack, "{share} of {jobs} jobs on one of {count} pods");
            }
        }
    }
}
