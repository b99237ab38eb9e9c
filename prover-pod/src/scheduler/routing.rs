//! CPU or GPU: which kind of prover a job goes to in a pod that has both.

use prover_api::JobKind;

use super::Backend;
use crate::memory::MAX_LOG2_HEIGHT;

/// Number of log2 padded heights that there are.
pub const HEIGHTS: usize = MAX_LOG2_HEIGHT as usize + 1;

/// The greatest log2 height that [`Routing::CollectionsOnCpu`] sends to the CPU when nobody says what a job is: the threshold
/// of earlier upgraders with a GPU.
const LEAF_LOG2_HEIGHT: u8 = 15;

/// Which kind of prover is preferred where both would do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Routing {
    /// By log2 padded height: what was faster when it was measured.
    Heights(Box<[Backend; HEIGHTS]>),
    /// The members of ProofCollections on the CPU, single proofs, merges and updates on the GPU: the rule of earlier upgraders.
    /// A job of unknown kind counts as a member up to 2^15 rows.
    CollectionsOnCpu,
}

impl Default for Routing {
    /// All on the GPU: it won at every height that was measured, by 6 times at 2^10 and by 113 at 2^21 (docs/benchmarks.md).
    fn default() -> Self {
        Self::Heights(Box::new([Backend::Gpu; HEIGHTS]))
    }
}

impl Routing {
    /// The preferred kind of prover for a job of this height.
    pub fn preferred(&self, kind: JobKind, log2_height: u8) -> Backend {
        match self {
            Self::Heights(table) => table.get(usize::from(log2_height)).copied().unwrap_or(Backend::Gpu),
            Self::CollectionsOnCpu => match kind {
                JobKind::Leaf => Backend::Cpu,
                JobKind::Other if log2_height <= LEAF_LOG2_HEIGHT => Backend::Cpu,
                JobKind::Raise | JobKind::Merge | JobKind::Update | JobKind::Block | JobKind::Other => Backend::Gpu,
            },
        }
    }
}

/// The largest log2 padded height that a pod's provers of each kind take; `None` where it has none of that kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Room {
    /// On the CPU.
    pub cpu: Option<u8>,
    /// On a GPU.
    pub gpu: Option<u8>,
}

impl Room {
    /// The largest height that any of them takes.
    pub fn largest(self) -> u8 {
        self.cpu.max(self.gpu).unwrap_or(0)
    }
}

/// What matters of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Traveller {
    /// What it is for.
    pub kind: JobKind,
    /// log2 of its padded height.
    pub log2_height: u8,
    /// Whether its caller wants no GPU.
    pub force_cpu: bool,
    /// Whether the pod's only usable GPU failed to prove it.
    pub gpu_failed: bool,
}

/// Why a job goes where it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// The pod has nothing else.
    OnlyKind,
    /// The caller asked for the CPU.
    Forced,
    /// The routing table says so.
    Table,
    /// It does not fit on the GPU.
    TooBigForGpu,
    /// It does not fit into the host's memory as a CPU proof.
    TooBigForCpu,
    /// The GPU failed it.
    GpuFailed,
}

/// Where a job goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// Kind of prover.
    pub backend: Backend,
    /// Why.
    pub why: Why,
}

/// Decides. The caller's wish for the CPU is respected while there is a CPU prover; then what fits; then whether the GPU failed
/// already; then the table.
///
/// # Errors
/// The largest log2 height that the job could have had, when it fits nowhere it may go.
pub fn route(routing: &Routing, room: Room, job: Traveller) -> Result<Route, u8> {
    let fits = |largest: Option<u8>| largest.is_some_and(|largest| job.log2_height <= largest);
    let to = |backend, why| Ok(Route { backend, why });
    if job.force_cpu
        && let Some(largest) = room.cpu
    {
        return if fits(room.cpu) { to(Backend::Cpu, Why::Forced) } else { Err(largest) };
    }
    match (fits(room.gpu), fits(room.cpu)) {
        (false, false) => Err(room.largest()),
        (true, false) => to(Backend::Gpu, if room.cpu.is_none() { Why::OnlyKind } else { Why::TooBigForCpu }),
        (false, true) => to(Backend::Cpu, if room.gpu.is_none() { Why::OnlyKind } else { Why::TooBigForGpu }),
        (true, true) if job.gpu_failed => to(Backend::Cpu, Why::GpuFailed),
        (true, true) => to(routing.preferred(job.kind, job.log2_height), Why::Table),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn routing() -> impl Strategy<Value = Routing> {
        let backend = prop_oneof![Just(Backend::Cpu), Just(Backend::Gpu)];
        prop_oneof![
            Just(Routing::default()),
            Just(Routing::CollectionsOnCpu),
            prop::collection::vec(backend, HEIGHTS)
                .prop_map(|table| { Routing::Heights(Box::new(std::array::from_fn(|height| table[height]))) }),
        ]
    }

    fn job() -> impl Strategy<Value = Traveller> {
        (0usize..6, 0u8..=40, any::<bool>(), any::<bool>()).prop_map(|(kind, log2_height, force_cpu, gpu_failed)| Traveller {
            kind: JobKind::ALL[kind],
            log2_height,
            force_cpu,
            gpu_failed,
        })
    }

    fn room() -> impl Strategy<Value = Room> {
        (prop::option::of(8u8..30), prop::option::of(8u8..30)).prop_map(|(cpu, gpu)| Room { cpu, gpu })
    }

    proptest! {
        /// A job never goes where it does not fit, and is refused exactly when it fits nowhere it may go.
        #[test]
        fn a_route_is_one_that_fits(routing in routing(), room in room(), job in job()) {
            let of = |backend| if backend == Backend::Cpu { room.cpu } else { room.gpu };
            match route(&routing, room, job) {
                Ok(route) => prop_assert!(of(route.backend).is_some_and(|largest| job.log2_height <= largest)),
                Err(limit) => {
                    prop_assert!(job.log2_height > limit || room == Room::default());
                    // With the limit as its height it would have gone somewhere.
                    let smaller = Traveller { log2_height: limit, ..job };
                    prop_assert!(route(&routing, room, smaller).is_ok() || room == Room::default());
                }
            }
        }

        #[test]
        fn a_wish_for_the_cpu_is_kept_while_there_is_one(routing in routing(), room in room(), job in job()) {
            let job = Traveller { force_cpu: true, ..job };
            let route = route(&routing, room, job);
            match room.cpu {
                Some(largest) if job.log2_height <= largest => {
                    prop_assert_eq!(route, Ok(Route { backend: Backend::Cpu, why: Why::Forced }));
                }
                Some(largest) => prop_assert_eq!(route, Err(largest)),
                None => prop_assert!(route.is_err() || route.is_ok_and(|route| route.backend == Backend::Gpu)),
            }
        }

        /// The table decides when nothing else does, and only then.
        #[test]
        fn the_table_decides_between_equals(routing in routing(), room in room(), job in job()) {
            let route = route(&routing, room, job);
            let both = [room.cpu, room.gpu].iter().all(|largest| largest.is_some_and(|largest| job.log2_height <= largest));
            let open = both && !job.force_cpu && !job.gpu_failed;
            prop_assert_eq!(route.is_ok_and(|route| route.why == Why::Table), open);
            if let (true, Ok(route)) = (open, route) {
                prop_assert_eq!(route.backend, routing.preferred(job.kind, job.log2_height));
            }
        }

        /// More room never makes a job inadmissible that no caller bound to the CPU.
        #[test]
        fn more_room_refuses_nobody(routing in routing(), room in room(), job in job(), cpu in 0u8..9, gpu in 0u8..9) {
            let job = Traveller { force_cpu: false, ..job };
            let larger = Room { cpu: room.cpu.map(|h| h + cpu), gpu: room.gpu.map(|h| h + gpu) };
            prop_assert!(route(&routing, room, job).is_err() || route(&routing, larger, job).is_ok());
        }
    }

    #[test]
    fn the_shipped_table_sends_all_to_the_gpu_and_the_old_rule_splits() {
        for kind in JobKind::ALL {
            for height in 0..=MAX_LOG2_HEIGHT {
                assert_eq!(Routing::default().preferred(kind, height), Backend::Gpu);
            }
        }
        let rule = Routing::CollectionsOnCpu;
        assert_eq!(rule.preferred(JobKind::Leaf, 17), Backend::Cpu);
        assert_eq!(rule.preferred(JobKind::Raise, 12), Backend::Gpu);
        assert_eq!(rule.preferred(JobKind::Other, 15), Backend::Cpu);
        assert_eq!(rule.preferred(JobKind::Other, 16), Backend::Gpu);
    }
}
