//! Which pod gets which GPUs. A GPU belongs to one pod: two on one device would each plan for all of its memory.

use std::fmt;

use fleet_api::v1alpha1::{Network, ProverSpec};

use super::fit::wants_gpu;
use super::machine::Machine;

/// How the pods of a kind prove.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Share {
    /// Each on GPUs of its own: entries of `CUDA_VISIBLE_DEVICES`, pod by pod.
    Gpu(Vec<Vec<String>>),
    /// On the host's cores.
    Cpu,
    /// Not at all.
    Mock,
}

/// More GPUs are asked for than there are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TooFewGpus {
    /// The kind's place in the manifest.
    pub path: String,
    /// Its pods.
    pub pods: usize,
    /// GPUs of each.
    pub each: usize,
    /// GPUs that no kind before it has.
    pub left: usize,
    /// GPUs of the machine.
    pub of: usize,
    /// Why there are none, if so.
    pub why: Option<String>,
    /// Whether the manifest asks for GPUs in so many words.
    pub is_asked: bool,
}

impl fmt::Display for TooFewGpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, pods, each, left, of, why, is_asked } = self;
        let why = why.as_ref().map(|why| format!(" ({why})")).unwrap_or_default();
        let instead = if *is_asked { "backend: Cpu" } else { "backend: Cpu for some of them" };
        write!(
            f,
            "{path}: {pods} pod(s) with {each} GPU(s) each need {}, and of this machine's {of} GPU(s) {left} are left{why}; write \
             fewer replicas, or {instead}",
            pods * each
        )
    }
}

impl std::error::Error for TooFewGpus {}

/// Shares the machine's GPUs out among the kinds of pods, in their order.
///
/// Pods of a kind that asks for nothing take a GPU each, or all of them the CPU on a machine without any; that is the second
/// part of the answer, a line for each such kind.
///
/// # Errors
/// [`TooFewGpus`] for the first kind that does not get what it asks for.
pub fn share(
    kinds: &[(String, &ProverSpec)],
    network: Network,
    machine: &Machine,
) -> Result<(Vec<Share>, Vec<String>), TooFewGpus> {
    let (mut shares, mut notes) = (Vec::new(), Vec::new());
    let mut left = machine.gpus.as_slice();
    for (path, provers) in kinds {
        let pods = usize::try_from(provers.replicas).unwrap_or(0);
        let wants = wants_gpu(provers, network);
        if network.is_mock() {
            shares.push(Share::Mock);
        } else if wants == Some(false) {
            shares.push(Share::Cpu);
        } else if wants.is_none() && machine.gpus.is_empty() {
            let why = machine.no_gpu.as_deref().unwrap_or("there is none");
            notes.push(format!("{path}: its {pods} pod(s) prove on the CPU, as no GPU is usable: {why}"));
            shares.push(Share::Cpu);
        } else {
            let count = provers.gpu.as_ref().and_then(|gpu| gpu.count).unwrap_or(1);
            let each = usize::try_from(count).unwrap_or(1).max(1);
            let Some((taken, rest)) = left.split_at_checked(pods * each) else {
                return Err(TooFewGpus {
                    path: path.clone(),
                    pods,
                    each,
                    left: left.len(),
                    of: machine.gpus.len(),
                    why: machine.no_gpu.clone(),
                    is_asked: wants.is_some(),
                });
            };
            left = rest;
            shares.push(Share::Gpu(taken.chunks(each).map(<[String]>::to_vec).collect()));
        }
    }
    Ok((shares, notes))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use fleet_api::v1alpha1::{Backend, Gpu};
    use proptest::prelude::*;

    use super::*;

    fn machine(gpus: usize) -> Machine {
        let no_gpu = (gpus == 0).then(|| "no CUDA driver was found".to_owned());
        Machine { gpus: (0..gpus).map(|ordinal| ordinal.to_string()).collect(), no_gpu, free_memory_bytes: None }
    }

    fn asking(replicas: i32, count: i32) -> ProverSpec {
        ProverSpec { replicas, gpu: Some(Gpu { count: Some(count), ..Gpu::default() }), ..ProverSpec::default() }
    }

    fn kinds(specs: &[ProverSpec]) -> Vec<(String, &ProverSpec)> {
        specs.iter().enumerate().map(|(index, spec)| (format!("kind {index}"), spec)).collect()
    }

    #[test]
    fn who_asks_for_nothing_gets_a_gpu_or_the_cpu_and_is_told() {
        let specs = [ProverSpec { replicas: 2, ..ProverSpec::default() }];
        let (shares, notes) = share(&kinds(&specs), Network::Main, &machine(3)).expect("enough");
        assert_eq!(shares, [Share::Gpu(vec![vec!["0".to_owned()], vec!["1".to_owned()]])]);
        assert!(notes.is_empty());
        let (shares, notes) = share(&kinds(&specs), Network::Main, &machine(0)).expect("the CPU will do");
        assert_eq!(shares, [Share::Cpu]);
        assert_eq!(notes, ["kind 0: its 2 pod(s) prove on the CPU, as no GPU is usable: no CUDA driver was found"]);
        let error = share(&kinds(&specs), Network::Main, &machine(1)).expect_err("one too few").to_string();
        assert!(error.contains("2 pod(s) with 1 GPU(s) each need 2, and of this machine's 1 GPU(s) 1 are left"), "{error}");
    }

    #[test]
    fn who_asks_for_gpus_does_not_get_the_cpu() {
        let specs = [asking(1, 1), asking(1, 2)];
        let error = share(&kinds(&specs), Network::Main, &machine(0)).expect_err("has none");
        assert!(error.to_string().contains("(no CUDA driver was found); write fewer replicas, or backend: Cpu"), "{error}");
        let error = share(&kinds(&specs), Network::Main, &machine(2)).expect_err("one is taken");
        assert_eq!((error.path.as_str(), error.left, error.of), ("kind 1", 1, 2));
    }

    #[test]
    fn mock_networks_and_the_cpu_take_none() {
        let on_cpu = [ProverSpec { backend: Some(Backend::Cpu), ..ProverSpec::default() }];
        assert_eq!(share(&kinds(&on_cpu), Network::Main, &machine(0)).expect("takes none").0, [Share::Cpu]);
        let mock = [ProverSpec::default()];
        assert_eq!(share(&kinds(&mock), Network::Regtest, &machine(1)).expect("takes none").0, [Share::Mock]);
    }

    proptest! {
        #[test]
        fn no_gpu_has_two_pods_and_each_pod_has_its_number(
            asked in proptest::collection::vec((0_i32..5, 1_i32..5), 1..4),
            gpus in 0_usize..40,
        ) {
            let specs: Vec<ProverSpec> = asked.iter().map(|&(replicas, count)| asking(replicas, count)).collect();
            let needed: i32 = asked.iter().map(|(replicas, count)| replicas * count).sum();
            match share(&kinds(&specs), Network::Main, &machine(gpus)) {
                Ok((shares, _)) => {
                    let mut seen = HashSet::new();
                    for (share, (replicas, count)) in shares.iter().zip(&asked) {
                        let Share::Gpu(pods) = share else { panic!("asked for GPUs") };
                        prop_assert_eq!(pods.len(), *replicas as usize);
                        for pod in pods {
                            prop_assert_eq!(pod.len(), *count as usize);
                            prop_assert!(pod.iter().all(|gpu| seen.insert(gpu.clone())), "{:?} twice", pod);
                        }
                    }
                    prop_assert_eq!(seen.len(), needed as usize);
                }
                Err(_) => prop_assert!(needed as usize > gpus),
            }
        }
    }
}
