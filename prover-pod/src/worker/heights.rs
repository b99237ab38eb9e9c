//! Exact table heights of a program without keeping its trace.
//!
//! `VM::trace_execution` can only be asked for everything: hundreds of bytes a clock cycle, without end for a program that does
//! not halt. Here the machine is stepped and what it would record is only counted, so that a job that is too big, or endless,
//! costs time and little memory.

use std::collections::HashSet;

use triton_vm::isa::instruction::Instruction;
use triton_vm::prelude::*;
use triton_vm::table::u32::U32TableEntry;
use triton_vm::twenty_first::prelude::{Sponge, Tip5};
use triton_vm::vm::{CoProcessorCall, VMState};

use crate::scheduler::Failure;

/// Limits of an inspection.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Clock cycles after which a program counts as endless.
    pub cycles: u64,
    /// Words of memory after which it is given up as too big.
    pub ram_words: usize,
}

impl Default for Limits {
    fn default() -> Self {
        // Eight times the cycles of the largest transaction proof there is; some seconds of stepping.
        Self { cycles: 1 << 25, ram_words: 1 << 26 }
    }
}

/// What a run of the program comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspection {
    /// log2 of the padded height.
    pub log2_padded_height: u8,
    /// Rows of the processor table: clock cycles.
    pub cycles: u64,
    /// Output of the program.
    pub output: Vec<BFieldElement>,
}

/// Rows of each table that grows with the run.
#[derive(Debug, Clone)]
struct Counts {
    program: u64,
    processor: u64,
    op_stack: u64,
    ram: u64,
    hash: u64,
    u32: u64,
    u32_seen: HashSet<U32TableEntry>,
    cascade: u64,
    cascade_seen: Vec<bool>,
}

/// Rows of the lookup table: one for each byte.
const LOOKUP_ROWS: u64 = 1 << 8;

impl Counts {
    fn new(program: &Program) -> Self {
        let mut counts = Self {
            program: 0,
            processor: 0,
            op_stack: 0,
            ram: 0,
            hash: 0,
            u32: 0,
            u32_seen: HashSet::new(),
            cascade: 0,
            cascade_seen: vec![false; 1 << 16],
        };
        counts.attest(program);
        counts
    }

    /// Program attestation hashes the padded program: one 1, then zeros up to the sponge's rate (specification, "Program
    /// Attestation").
    fn attest(&mut self, program: &Program) {
        let mut words = program.to_bwords();
        words.push(BFieldElement::new(1));
        words.resize(words.len().next_multiple_of(Tip5::RATE), BFieldElement::new(0));
        self.program = words.len() as u64;
        let mut sponge = Tip5::init();
        for chunk in words.chunks_exact(Tip5::RATE) {
            sponge.state[..Tip5::RATE].copy_from_slice(chunk);
            let trace = sponge.trace();
            self.permutation(&trace);
        }
    }

    fn permutation(&mut self, trace: &[[BFieldElement; 16]]) {
        self.hash += trace.len() as u64;
        // The last row is the result: nothing is looked up for it. The S-box splits the first four elements of a state into
        // 16-bit limbs of their Montgomery representation (Tip5 paper, section 3.1).
        for state in trace.iter().rev().skip(1) {
            for element in &state[..4] {
                let raw = element.raw_u64();
                for limb in [0, 16, 32, 48].map(|shift| (raw >> shift) as u16) {
                    let seen = &mut self.cascade_seen[usize::from(limb)];
                    self.cascade += u64::from(!*seen);
                    *seen = true;
                }
            }
        }
    }

    fn call(&mut self, call: CoProcessorCall) {
        match call {
            CoProcessorCall::SpongeStateReset => self.hash += 1,
            CoProcessorCall::Tip5Trace(_, trace) => self.permutation(&trace[..]),
            CoProcessorCall::OpStack(_) => self.op_stack += 1,
            CoProcessorCall::Ram(_) => self.ram += 1,
            CoProcessorCall::U32(entry) => {
                if self.u32_seen.insert(entry) {
                    self.u32 += u32_rows(&entry);
                }
            }
        }
    }

    fn height(&self) -> u64 {
        [self.program, self.processor, self.op_stack, self.ram, self.hash, self.cascade, self.u32, LOOKUP_ROWS]
            .into_iter()
            .max()
            .unwrap_or(LOOKUP_ROWS)
    }
}

/// Rows of one u32 instruction: one for each bit of the larger operand, and one more (specification, "U32 Table"). The base of
/// a power does not change from row to row.
fn u32_rows(entry: &U32TableEntry) -> u64 {
    let (left, right) = (entry.left_operand.value(), entry.right_operand.value());
    let dominant = if entry.instruction == Instruction::Pow { right } else { left.max(right) };
    if dominant == 0 { 1 } else { 2 + u64::from(dominant.ilog2()) }
}

/// Runs the program and counts.
///
/// # Errors
/// [`Failure::ProgramFailed`] with the kind of error but no values: they may be secret. [`Failure::Endless`] at the cycle limit.
/// [`Failure::TooBig`] when the memory limit is hit before the program ends.
pub fn inspect(
    program: &Program,
    input: PublicInput,
    non_determinism: NonDeterminism,
    limits: Limits,
) -> Result<Inspection, Failure> {
    let mut counts = Counts::new(program);
    let mut state = VMState::new(program.clone(), input, non_determinism);
    while !state.halting {
        if counts.processor >= limits.cycles {
            return Err(Failure::Endless { cycle_limit: limits.cycles });
        }
        // Checked now and then: the map grows by five words a cycle at the most.
        if counts.processor.is_multiple_of(4096) && state.ram.len() > limits.ram_words {
            let log2_padded_height = ceil_log2(counts.height().max(state.ram.len() as u64));
            return Err(Failure::TooBig { log2_padded_height, limit: ceil_log2(limits.ram_words as u64) });
        }
        counts.processor += 1;
        match state.step() {
            Ok(calls) => calls.into_iter().for_each(|call| counts.call(call)),
            Err(error) => {
                return Err(Failure::ProgramFailed { error: kind_of(&error), cycle: counts.processor - 1 });
            }
        }
    }
    Ok(Inspection { log2_padded_height: ceil_log2(counts.height()), cycles: counts.processor, output: state.public_output })
}

fn ceil_log2(rows: u64) -> u8 {
    rows.max(1).next_power_of_two().ilog2() as u8
}

/// The name of an error's variant, of nested ones too, without the values that the virtual machine puts beside it: an assertion
/// that failed on secret data would otherwise tell it.
pub(super) fn kind_of(error: &impl std::fmt::Debug) -> String {
    let text = format!("{error:?}");
    let names = text.split(['(', '{', ',', ' ']).take_while(|name| name.starts_with(|c: char| c.is_ascii_uppercase()));
    let kind = names.take(3).map(|name| name.trim_end_matches(')')).collect::<Vec<_>>().join("::");
    if kind.is_empty() { "Unknown".to_owned() } else { kind }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn aet_log2(program: &Program, input: &[u64], non_determinism: NonDeterminism) -> u8 {
        let input = PublicInput::new(input.iter().copied().map(BFieldElement::new).collect());
        let (aet, _) = VM::trace_execution(program.clone(), input, non_determinism).expect("runs");
        aet.padded_height().ilog2() as u8
    }

    fn counted(program: &Program, input: &[u64], non_determinism: NonDeterminism) -> u8 {
        let input = PublicInput::new(input.iter().copied().map(BFieldElement::new).collect());
        inspect(program, input, non_determinism, Limits::default()).expect("runs").log2_padded_height
    }

    #[test]
    fn each_table_can_dominate() {
        let hashing = vec![triton_asm!(push 1 push 2 push 3 push 4 push 5 hash); 200].concat();
        let storing = vec![triton_asm!(push 1 push 2 push 3 push 4 push 5 push 77 write_mem 5 pop 1); 150].concat();
        let squeezing = vec![triton_asm!(sponge_squeeze pop 5 pop 5); 300].concat();
        let logs: Vec<_> = (0..100).flat_map(|i| triton_asm!(push {(1u64 << 31) + i} log_2_floor pop 1)).collect();
        let powers: Vec<_> = (0..90).flat_map(|i| triton_asm!(push {(1u64 << 31) + i} push 3 pow pop 1)).collect();
        let nops = triton_asm![nop; 3000];
        for program in [
            triton_program!(halt),
            triton_program!({&hashing} halt),
            triton_program!({&storing} halt),
            triton_program!(sponge_init {&squeezing} halt),
            triton_program!({&logs} halt),
            triton_program!({&powers} halt),
            triton_program!({&nops} halt),
        ] {
            let secret = NonDeterminism::default();
            assert_eq!(counted(&program, &[], secret.clone()), aet_log2(&program, &[], secret));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

        /// Random straight-line programs: the counted height is the trace's.
        #[test]
        fn counts_equal_the_trace(choices in prop::collection::vec((0usize..8, 1u32..u32::MAX), 1..400)) {
            let code: Vec<_> = choices.iter().flat_map(|&(choice, n)| match choice {
                0 => triton_asm!(push {n} push 3 pow pop 1),
                1 => triton_asm!(push {n} push 17 div_mod pop 2),
                2 => triton_asm!(push {n} push 255 and pop 1),
                3 => triton_asm!(push 1 push 2 push 3 push 4 push {n} hash),
                4 => triton_asm!(push {n} read_mem 3 pop 4),
                5 => triton_asm!(push 1 push {n} write_mem 1 pop 1),
                6 => triton_asm!(push {n} split pop 2),
                _ => triton_asm!(sponge_init sponge_squeeze sponge_absorb),
            }).collect();
            let program = triton_program!({&code} halt);
            let secret = NonDeterminism::default();
            prop_assert_eq!(counted(&program, &[], secret.clone()), aet_log2(&program, &[], secret));
        }
    }

    #[test]
    fn endless_programs_end_typed() {
        let program = triton_program!(call spin halt spin: recurse);
        let limits = Limits { cycles: 10_000, ..Limits::default() };
        let result = inspect(&program, PublicInput::default(), NonDeterminism::default(), limits);
        assert_eq!(result, Err(Failure::Endless { cycle_limit: 10_000 }));
    }

    #[test]
    fn a_memory_hog_is_too_big() {
        // Writes ever further words.
        let program = triton_program!(
            push 0 call fill halt
            fill: push 1 push 2 push 3 push 4 push 5 dup 5 write_mem 5 swap 1 pop 1 recurse
        );
        let limits = Limits { cycles: 1 << 20, ram_words: 20_000 };
        let result = inspect(&program, PublicInput::default(), NonDeterminism::default(), limits);
        assert!(matches!(result, Err(Failure::TooBig { log2_padded_height: 15.., .. })), "{result:?}");
    }

    #[test]
    fn crashes_tell_their_kind_and_no_secret() {
        let program = triton_program!(divine 1 push 1 eq assert halt);
        let secret = 987_654_321_u64;
        let non_determinism = NonDeterminism::new(vec![BFieldElement::new(secret)]);
        let result = inspect(&program, PublicInput::default(), non_determinism, Limits::default());
        let Err(Failure::ProgramFailed { error, cycle }) = result else { panic!("{result:?}") };
        assert!(error.contains("Assertion"), "{error}");
        assert!(!error.contains("987"), "{error}");
        assert_eq!(cycle, 3);

        let program = triton_program!(divine 5 push 1 push 2 push 3 push 4 push 5 assert_vector halt);
        let non_determinism = NonDeterminism::new(vec![BFieldElement::new(secret); 5]);
        let result = inspect(&program, PublicInput::default(), non_determinism, Limits::default());
        assert!(!format!("{result:?}").contains("987"), "{result:?}");
    }
}
