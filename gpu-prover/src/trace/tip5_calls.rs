//! Tip5 permutations of an execution, and the look-ups that they make.

use rayon::prelude::*;
use triton_air::table::hash::{MONTGOMERY_MODULUS, PermutationTrace};
use triton_vm::prelude::{BFieldElement, Program, Tip5, tip5};
use twenty_first::prelude::Sponge;

use super::blocks::Blocks;

/// What a permutation was for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tip5Kind {
    /// Hashing the program itself.
    Program,
    /// `sponge_init`: no permutation, but a row of the hash table.
    SpongeInit,
    /// `sponge_absorb` or `sponge_absorb_mem`.
    Absorb,
    /// `sponge_squeeze`.
    Squeeze,
    /// `hash`, `merkle_step` or `merkle_step_mem`.
    Hash,
}

impl Tip5Kind {
    /// Rows of the hash table: the state before each round and at the end.
    pub fn rows(self) -> usize {
        if self == Self::SpongeInit { 1 } else { tip5::NUM_ROUNDS + 1 }
    }
}

/// A permutation by its input.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tip5Call {
    pub kind: Tip5Kind,
    pub state: [BFieldElement; tip5::STATE_SIZE],
}

impl Tip5Call {
    pub fn sponge_init() -> Self {
        Self { kind: Tip5Kind::SpongeInit, state: Tip5::init().state }
    }

    /// The states before each round and at the end.
    pub fn permutation_trace(&self) -> PermutationTrace {
        let mut tip5 = Tip5::init();
        tip5.state = self.state;
        tip5.trace()
    }
}

/// The permutations that hash a program: the sponge overwrites its rate with ten words at a time.
pub(crate) fn hash_program(program: &Program) -> Vec<Tip5Call> {
    let mut words = program.to_bwords();
    words.push(BFieldElement::new(1));
    words.resize(words.len().next_multiple_of(tip5::RATE), BFieldElement::new(0));
    let mut sponge = Tip5::init();
    let absorb = |chunk: &[BFieldElement]| {
        sponge.state[..tip5::RATE].copy_from_slice(chunk);
        let call = Tip5Call { kind: Tip5Kind::Program, state: sponge.state };
        sponge.permutation();
        call
    };
    words.chunks_exact(tip5::RATE).map(absorb).collect()
}

/// The four 16-bit limbs that are looked up for a state element, lowest first: those of its Montgomery form.
pub(crate) fn limbs(element: BFieldElement) -> [u16; 4] {
    let raw = (MONTGOMERY_MODULUS * element).value();
    [0, 16, 32, 48].map(|shift| (raw >> shift) as u16)
}

/// How often each 16-bit limb was looked up.
#[derive(Debug, Clone, Default)]
pub(crate) struct Lookups {
    /// Distinct limbs in the order of their first look-up, with their multiplicities.
    pub limbs: Vec<(u16, u64)>,
}

impl Lookups {
    /// Count over all permutations: first those of the program, then those of the execution in the order of time.
    pub fn count(program: &[Tip5Call], execution: &Blocks<Tip5Call>) -> Self {
        const CALLS_PER_PART: usize = 1 << 13;
        let parts: Vec<&[Tip5Call]> = std::iter::once(program)
            .chain(execution.blocks().iter().map(Vec::as_slice))
            .flat_map(|block| block.chunks(CALLS_PER_PART))
            .collect();
        let counted: Vec<Counts> = parts.into_par_iter().map(Counts::of).collect();
        let mut all = Counts::new();
        for part in counted {
            for limb in part.order {
                all.add(limb, part.multiplicities[usize::from(limb)]);
            }
        }
        let multiplicity = |limb: u16| u64::from(all.multiplicities[usize::from(limb)]);
        Self { limbs: all.order.into_iter().map(|limb| (limb, multiplicity(limb))).collect() }
    }

    /// Look-ups in the 8-bit table: two for each distinct limb.
    pub fn multiplicities_of_bytes(&self) -> [u64; 256] {
        let mut multiplicities = [0; 256];
        for byte in self.limbs.iter().flat_map(|(limb, _)| limb.to_le_bytes()) {
            multiplicities[usize::from(byte)] += 1;
        }
        multiplicities
    }
}

/// Multiplicities of all limbs, and the limbs that occur in the order of their first occurrence.
struct Counts {
    multiplicities: Vec<u32>,
    order: Vec<u16>,
}

impl Counts {
    fn new() -> Self {
        Self { multiplicities: vec![0; 1 << 16], order: vec![] }
    }

    fn of(calls: &[Tip5Call]) -> Self {
        let mut counts = Self::new();
        for call in calls.iter().filter(|call| call.kind != Tip5Kind::SpongeInit) {
            // Nothing is looked up for the permutation's result.
            for state in &call.permutation_trace()[..tip5::NUM_ROUNDS] {
                for &element in &state[..tip5::NUM_SPLIT_AND_LOOKUP] {
                    for limb in limbs(element) {
                        counts.add(limb, 1);
                    }
                }
            }
        }
        counts
    }

    fn add(&mut self, limb: u16, times: u32) {
        let multiplicity = &mut self.multiplicities[usize::from(limb)];
        if *multiplicity == 0 {
            self.order.push(limb);
        }
        *multiplicity += times;
    }
}
