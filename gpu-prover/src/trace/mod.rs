//! The execution trace: what a run of the machine leaves behind for the prover.
//!
//! [`Trace`] records less than the triton-vm crate's `AlgebraicExecutionTrace` and records it faster. A clock cycle is
//! one compact record, from which the 39 processor columns follow row by row; a Tip5 permutation is its input, from
//! which its six rows of 67 columns follow; nothing is ever moved to make room ([`blocks`]). Whatever follows row by
//! row is computed when the main table is filled, on all cores. The tables are the same, element by element.

pub mod blocks;
pub mod tip5_calls;

use std::collections::HashMap;
use std::ops::ControlFlow;

use thiserror::Error;
use triton_vm::isa::instruction::Instruction;
use triton_vm::isa::op_stack::{NUM_OP_STACK_REGISTERS, OpStackError};
use triton_vm::prelude::{BFieldElement, Claim, InstructionError, NonDeterminism, Program, PublicInput, VMState, tip5};
use triton_vm::table::op_stack::OpStackTableEntry;
use triton_vm::table::ram::RamTableCall;
use triton_vm::table::u32::U32TableEntry;
use triton_vm::vm::CoProcessorCall;

use blocks::Blocks;
use tip5_calls::{Lookups, Tip5Call, Tip5Kind};

/// Cycles between two calls of a [`Trace::record`]'s observer.
pub const CYCLES_PER_REPORT: u32 = 1 << 16;

/// No helper variables were recorded in this cycle: they follow from the instruction and the stack.
pub(crate) const NO_RECORDED_HELPERS: u32 = u32::MAX;

/// The sixteen stack registers of one clock cycle, `st15` first.
pub(crate) type StackRegisters = [BFieldElement; NUM_OP_STACK_REGISTERS];

/// The other registers of one clock cycle, before its instruction is executed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Registers {
    pub instruction_pointer: u32,
    pub jump_stack_pointer: u32,
    pub jump_stack_origin: u32,
    pub jump_stack_destination: u32,
    pub op_stack_pointer: u32,
    /// Index into [`Trace::helpers`] for instructions whose helper variables come from memory or secret input.
    pub helpers: u32,
}

/// A word that moved between the stack's registers and its memory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OpStackCall {
    pub word: BFieldElement,
    pub clock: u32,
    pub pointer: u32,
    pub shrinks: bool,
}

/// An access to memory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RamCall {
    pub pointer: BFieldElement,
    pub value: BFieldElement,
    pub clock: u32,
    pub is_write: bool,
}

/// The complete record of one execution. It holds the witness: it must never be logged or stored.
pub struct Trace {
    pub(crate) program: Program,
    pub(crate) public_input: Vec<BFieldElement>,
    pub(crate) public_output: Vec<BFieldElement>,
    pub(crate) instruction_multiplicities: Vec<u32>,
    pub(crate) registers: Blocks<Registers>,
    pub(crate) stacks: Blocks<StackRegisters>,
    pub(crate) helpers: Blocks<[BFieldElement; 6]>,
    pub(crate) op_stack: Blocks<OpStackCall>,
    pub(crate) ram: Blocks<RamCall>,
    /// Permutations that hash the program.
    pub(crate) program_hash: Vec<Tip5Call>,
    /// Permutations and sponge resets of the execution, in the order of time.
    pub(crate) tip5: Blocks<Tip5Call>,
    /// Distinct 32-bit operations in the order of their first occurrence, with how often they occur.
    pub(crate) u32_entries: Vec<(U32TableEntry, u64)>,
    pub(crate) lookups: Lookups,
    heights: Heights,
}

impl std::fmt::Debug for Trace {
    /// Sizes only: the content is the witness.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Trace").field("heights", &self.heights).finish_non_exhaustive()
    }
}

/// Numbers of rows of the nine tables before padding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Heights {
    /// Program table, and so words of the program with the padding of its hash.
    pub program: usize,
    /// Processor and jump stack table: clock cycles.
    pub processor: usize,
    /// Op stack table.
    pub op_stack: usize,
    /// RAM table.
    pub ram: usize,
    /// Hash table.
    pub hash: usize,
    /// Cascade table. Known only when the execution is over.
    pub cascade: usize,
    /// U32 table.
    pub u32: usize,
}

impl Heights {
    /// Rows of the lookup table, whatever the program.
    pub const LOOKUP: usize = 256;

    /// The height of the highest table.
    pub fn max(&self) -> usize {
        let Self { program, processor, op_stack, ram, hash, cascade, u32 } = *self;
        [program, processor, op_stack, ram, hash, cascade, u32, Self::LOOKUP].into_iter().fold(0, usize::max)
    }

    /// The padded height of a proof about the execution.
    pub fn padded_height(&self) -> usize {
        self.max().next_power_of_two()
    }
}

/// Why there is no trace. Carries no word of the witness.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TraceError {
    /// The program failed.
    #[error("the program failed in cycle {cycle} at instruction {instruction_pointer}: {reason}")]
    Program {
        /// Clock cycle of the failing instruction.
        cycle: u32,
        /// Its address.
        instruction_pointer: usize,
        /// What went wrong, without values.
        reason: String,
    },

    /// The observer asked to stop, because of the height or because nobody wants the trace any more.
    #[error("tracing was stopped in cycle {cycle}, at padded height 2^{log2_height} so far")]
    Stopped {
        /// Clock cycle reached.
        cycle: u32,
        /// Log2 of the padded height so far.
        log2_height: u32,
    },
}

impl Trace {
    /// Run the program and record its execution.
    ///
    /// # Errors
    /// If the program fails.
    pub fn execute(program: Program, public_input: PublicInput, non_determinism: NonDeterminism) -> Result<Self, TraceError> {
        let state = VMState::new(program, public_input, non_determinism);
        Self::record(state, |_| ControlFlow::Continue(()))
    }

    /// Record the execution that starts in `state`. Every [`CYCLES_PER_REPORT`] cycles `observe` sees how high the
    /// tables are and may stop: a job that is too big for every device, or was cancelled, need not run to its end.
    ///
    /// The program runs on the calling thread and takes none of rayon's: on those it would hold up, for as long as it runs, the
    /// tables whose work waits there, and who waits for a table would be given programs to run.
    ///
    /// # Errors
    /// If the program fails or the observer stops.
    pub fn record(mut state: VMState, mut observe: impl FnMut(&Heights) -> ControlFlow<()>) -> Result<Self, TraceError> {
        let public_input = state.public_input.iter().copied().collect();
        let program = state.program.clone();
        // Hashing the program is sequential, as long as it is; so it runs beside the execution.
        let (recorder, program_hash) = std::thread::scope(|scope| {
            let hash = || tip5_calls::hash_program(&program);
            let hashing = std::thread::Builder::new().name("hash-program".into()).spawn_scoped(scope, hash);
            let mut recorder = Recorder::new(&program);
            let run = recorder.run(&mut state, &mut observe).map(|()| recorder);
            let hashed = match hashing {
                Ok(thread) => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
                Err(_) => hash(),
            };
            (run, hashed)
        });
        let recorder = recorder?;
        let lookups = Lookups::count(&program_hash, &recorder.tip5);
        let heights = Heights {
            hash: recorder.heights.hash + program_hash.len() * Tip5Kind::Program.rows(),
            cascade: lookups.limbs.len(),
            ..recorder.heights
        };
        Ok(Self {
            program,
            public_input,
            public_output: state.public_output,
            instruction_multiplicities: recorder.instruction_multiplicities,
            registers: recorder.registers,
            stacks: recorder.stacks,
            helpers: recorder.helpers,
            op_stack: recorder.op_stack,
            ram: recorder.ram,
            program_hash,
            tip5: recorder.tip5,
            u32_entries: recorder.u32_entries,
            lookups,
            heights,
        })
    }

    /// The claim that a proof from this trace proves.
    pub fn claim(&self) -> Claim {
        Claim::about_program(&self.program).with_input(self.public_input.clone()).with_output(self.public_output.clone())
    }

    /// What the program wrote.
    pub fn public_output(&self) -> &[BFieldElement] {
        &self.public_output
    }

    /// Bytes of memory the records take, for a bound on how many traces wait for the device at once.
    pub fn bytes(&self) -> usize {
        self.registers.bytes()
            + self.stacks.bytes()
            + self.helpers.bytes()
            + self.op_stack.bytes()
            + self.ram.bytes()
            + self.tip5.bytes()
            + size_of_val(self.program_hash.as_slice())
            + size_of_val(self.u32_entries.as_slice())
    }

    /// Heights of the tables.
    pub fn heights(&self) -> &Heights {
        &self.heights
    }
}

/// A trace in the making.
struct Recorder {
    /// For each word of the program whether helper variables must be recorded there.
    records_helpers: Vec<bool>,
    instruction_multiplicities: Vec<u32>,
    registers: Blocks<Registers>,
    stacks: Blocks<StackRegisters>,
    helpers: Blocks<[BFieldElement; 6]>,
    op_stack: Blocks<OpStackCall>,
    ram: Blocks<RamCall>,
    tip5: Blocks<Tip5Call>,
    u32_entries: Vec<(U32TableEntry, u64)>,
    u32_index: HashMap<U32TableEntry, usize>,
    heights: Heights,
}

impl Recorder {
    fn new(program: &Program) -> Self {
        let needs_record = |instruction: &Instruction| {
            matches!(
                instruction,
                Instruction::SpongeAbsorbMem
                    | Instruction::MerkleStep
                    | Instruction::MerkleStepMem
                    | Instruction::XxDotStep
                    | Instruction::XbDotStep
            )
        };
        let length = program.instructions.len();
        let heights = Heights { program: (length + 1).next_multiple_of(tip5::RATE), ..Heights::default() };
        Self {
            records_helpers: program.instructions.iter().map(needs_record).collect(),
            instruction_multiplicities: vec![0; length],
            registers: Blocks::default(),
            stacks: Blocks::default(),
            helpers: Blocks::default(),
            op_stack: Blocks::default(),
            ram: Blocks::default(),
            tip5: Blocks::default(),
            u32_entries: vec![],
            u32_index: HashMap::new(),
            heights,
        }
    }

    fn run(&mut self, state: &mut VMState, observe: &mut impl FnMut(&Heights) -> ControlFlow<()>) -> Result<(), TraceError> {
        while !state.halting {
            let cycle = state.cycle_count;
            let instruction_pointer = state.instruction_pointer;
            let failed = |error: &InstructionError| TraceError::Program { cycle, instruction_pointer, reason: reason(error) };
            self.record_cycle(state).map_err(|error| failed(&error))?;
            for call in state.step().map_err(|error| failed(&error))? {
                self.record_call(call);
            }
            if state.cycle_count.is_multiple_of(CYCLES_PER_REPORT) {
                self.update_heights();
                if observe(&self.heights).is_break() {
                    let log2_height = self.heights.padded_height().ilog2();
                    return Err(TraceError::Stopped { cycle, log2_height });
                }
            }
        }
        self.update_heights();
        Ok(())
    }

    fn update_heights(&mut self) {
        self.heights.processor = self.registers.len();
        self.heights.op_stack = self.op_stack.len();
        self.heights.ram = self.ram.len();
    }

    fn record_cycle(&mut self, state: &VMState) -> Result<(), InstructionError> {
        let multiplicity = self
            .instruction_multiplicities
            .get_mut(state.instruction_pointer)
            .ok_or(InstructionError::InstructionPointerOverflow)?;
        *multiplicity += 1;
        let stack = &state.op_stack.stack;
        let top =
            stack.last_chunk::<NUM_OP_STACK_REGISTERS>().ok_or(InstructionError::OpStackError(OpStackError::TooShallow))?;
        let helpers = if self.records_helpers[state.instruction_pointer] {
            self.helpers.push(state.derive_helper_variables());
            self.helpers.len() as u32 - 1
        } else {
            NO_RECORDED_HELPERS
        };
        let (origin, destination) = state.jump_stack.last().copied().unwrap_or_default();
        self.stacks.push(*top);
        self.registers.push(Registers {
            instruction_pointer: state.instruction_pointer as u32,
            jump_stack_pointer: state.jump_stack.len() as u32,
            // Addresses beyond 2^32 end the execution in the next cycle, with an error.
            jump_stack_origin: origin.value() as u32,
            jump_stack_destination: destination.value() as u32,
            op_stack_pointer: stack.len() as u32,
            helpers,
        });
        Ok(())
    }

    fn record_call(&mut self, call: CoProcessorCall) {
        match call {
            CoProcessorCall::OpStack(entry) => self.op_stack.push(entry.into()),
            CoProcessorCall::Ram(call) => self.ram.push(call.into()),
            CoProcessorCall::U32(entry) => self.record_u32(entry),
            CoProcessorCall::SpongeStateReset => self.record_tip5(Tip5Call::sponge_init()),
            CoProcessorCall::Tip5Trace(instruction, trace) => {
                let kind = match instruction {
                    Instruction::SpongeAbsorb => Tip5Kind::Absorb,
                    Instruction::SpongeSqueeze => Tip5Kind::Squeeze,
                    _ => Tip5Kind::Hash,
                };
                self.record_tip5(Tip5Call { kind, state: trace[0] });
            }
        }
    }

    fn record_tip5(&mut self, call: Tip5Call) {
        self.heights.hash += call.kind.rows();
        self.tip5.push(call);
    }

    fn record_u32(&mut self, entry: U32TableEntry) {
        let next = self.u32_entries.len();
        let index = *self.u32_index.entry(entry).or_insert(next);
        if index == next {
            self.heights.u32 += section_height(entry);
            self.u32_entries.push((entry, 0));
        }
        self.u32_entries[index].1 += 1;
    }
}

impl From<OpStackTableEntry> for OpStackCall {
    fn from(entry: OpStackTableEntry) -> Self {
        Self {
            word: entry.underflow_io.payload(),
            clock: entry.clk,
            pointer: entry.op_stack_pointer.value() as u32,
            shrinks: entry.shrinks_stack(),
        }
    }
}

impl From<RamTableCall> for RamCall {
    fn from(call: RamTableCall) -> Self {
        Self { pointer: call.ram_pointer, value: call.ram_value, clock: call.clk, is_write: call.is_write }
    }
}

/// Rows of the u32 table for one operation: one for each bit of the longer operand, and one where none is left. The
/// base of a power is no 32-bit operand.
fn section_height(entry: U32TableEntry) -> usize {
    let right = entry.right_operand.value();
    let longer = match entry.instruction {
        Instruction::Pow => right,
        _ => right.max(entry.left_operand.value()),
    };
    longer.checked_ilog2().map_or(1, |log2| log2 as usize + 2)
}

/// What went wrong, without the values that the crate's messages quote: they may be secret.
fn reason(error: &InstructionError) -> String {
    let with_id = |text: String, id: Option<i128>| id.map_or(text.clone(), |id| format!("{text} [{id}]"));
    match error {
        InstructionError::AssertionFailed(error) => with_id("assertion failed".to_owned(), error.id),
        InstructionError::VectorAssertionFailed(index, error) => {
            with_id(format!("vector assertion failed at element {index}"), error.id)
        }
        InstructionError::OpStackError(OpStackError::FailedU32Conversion(_)) => "an operand is no 32-bit number".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workloads;
    use triton_vm::prelude::{Digest, TableId, triton_program};

    #[test]
    fn heights_and_claims_are_those_of_the_crate() {
        for workload in workloads::small() {
            let (claim, aet) = workload.trace().expect("the workload runs");
            let trace = Trace::record(workload.state(), |_| ControlFlow::Continue(())).expect("it runs");
            assert_eq!(trace.claim(), claim, "{}", workload.name);
            let heights = trace.heights();
            let expected = [
                (TableId::Program, heights.program),
                (TableId::Processor, heights.processor),
                (TableId::OpStack, heights.op_stack),
                (TableId::Ram, heights.ram),
                (TableId::Hash, heights.hash),
                (TableId::Cascade, heights.cascade),
                (TableId::U32, heights.u32),
            ];
            for (table, height) in expected {
                assert_eq!(height, aet.height_of_table(table), "{}: {table}", workload.name);
            }
            assert_eq!(heights.padded_height(), aet.padded_height());
        }
    }

    #[test]
    fn failures_say_where_but_not_what_was_secret() {
        let execute = |program| Trace::execute(program, PublicInput::default(), NonDeterminism::new(vec![4242_u64.into()]));
        let error = execute(triton_program!(divine 1 assert error_id 7 halt)).expect_err("4242 is not 1");
        let message = error.to_string();
        assert_eq!(message, "the program failed in cycle 1 at instruction 2: assertion failed [7]");
        let error = execute(triton_program!(divine 1 push -1 lt halt)).expect_err("-1 is no u32");
        assert!(!error.to_string().contains("4242"), "{error}");
        let error = execute(triton_program!(push 1)).expect_err("no halt");
        assert!(error.to_string().contains("instruction pointer"), "{error}");
    }

    #[test]
    fn an_observer_sees_the_height_grow_and_can_stop() {
        let state = workloads::spin(18).state();
        let mut seen = vec![];
        let observe = |heights: &Heights| {
            seen.push(heights.processor);
            if heights.padded_height() > 1 << 16 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let error = Trace::record(state, observe).expect_err("the observer stops");
        assert!(matches!(error, TraceError::Stopped { log2_height: 17, .. }), "{error}");
        assert_eq!(seen, [1 << 16, 2 << 16]);
    }

    #[test]
    fn programs_that_run_hold_up_no_work_of_rayon() {
        let programs = rayon::current_num_threads() + 2;
        let (all_run, end) = (std::sync::Barrier::new(programs + 1), std::sync::atomic::AtomicBool::new(false));
        std::thread::scope(|scope| {
            for _ in 0..programs {
                scope.spawn(|| {
                    let endless = VMState::new(
                        triton_program!(call spin halt spin: nop recurse),
                        PublicInput::default(),
                        NonDeterminism::default(),
                    );
                    let mut reports = 0;
                    let observe = |_: &Heights| {
                        reports += 1;
                        if reports == 1 {
                            all_run.wait();
                        }
                        let ended = end.load(std::sync::atomic::Ordering::Relaxed) || reports > 100;
                        if ended { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
                    };
                    assert!(matches!(Trace::record(endless, observe), Err(TraceError::Stopped { .. })));
                });
            }
            // With programs on rayon's threads they would never run all at once.
            all_run.wait();
            assert_eq!(rayon::join(|| 1, || 2), (1, 2));
            end.store(true, std::sync::atomic::Ordering::Relaxed);
        });
    }

    #[test]
    fn debug_output_is_free_of_the_witness() {
        let secret = Digest::new([987_654_321_u64.into(); 5]);
        let non_determinism = NonDeterminism::new(secret.values().to_vec());
        let trace = Trace::execute(triton_program!(divine 5 pop 5 halt), PublicInput::default(), non_determinism);
        assert!(!format!("{trace:?}").contains("987654321"));
    }
}
