//! Processor table: its side of every argument, decided by the instruction that a row executes.

use rayon::prelude::*;
use triton_air::challenge_id::ChallengeId as Id;
use triton_air::table::ram::{INSTRUCTION_TYPE_READ, INSTRUCTION_TYPE_WRITE};
use triton_air::table_column::ProcessorMainColumn as Main;
use triton_air::table_column::{MasterAuxColumn, MasterMainColumn, ProcessorAuxColumn as Aux};
use triton_vm::isa::instruction::Instruction;
use triton_vm::isa::op_stack::NUM_OP_STACK_REGISTERS;
use triton_vm::prelude::{BFieldElement, XFieldElement};

use super::scan::{Affine, Fraction, running, running_fractions};
use super::{INITIAL_PRODUCT, INITIAL_SUM, ONE, Rows, X_ONE, ZERO};

pub(super) fn extend(rows: Rows<'_>, columns: &mut [&mut [XFieldElement]]) {
    let height = rows.main.rows();
    let instructions: Vec<_> = (0..height).into_par_iter().map(|row| instruction(rows, row)).collect();
    let processor = Processor { rows, instructions: &instructions };
    let mut columns = columns.iter_mut().map(|column| &mut **column);
    let mut next = || columns.next().expect("the processor table has 11 auxiliary columns");
    // In the order of the columns, which the assertion below pins.
    let [input, output, instruction_lookup, op_stack, ram, jump_stack] = std::array::from_fn(|_| next());
    let [hash_input, hash_digest, sponge, u32, clock_jump] = std::array::from_fn(|_| next());
    const { assert!(Aux::ClockJumpDifferenceLookupServerLogDerivative as usize == 10) }
    const { assert!(Aux::HashInputEvalArg as usize == 6) }
    debug_assert_eq!(Aux::SpongeEvalArg.aux_index(), 8);

    rayon::scope(|scope| {
        scope.spawn(|_| processor.input(input));
        scope.spawn(|_| processor.output(output));
        scope.spawn(|_| processor.instruction_lookup(instruction_lookup));
        scope.spawn(|_| {
            running(op_stack, INITIAL_PRODUCT, |row| processor.op_stack_factor(row).map(Affine::product));
        });
        scope.spawn(|_| {
            running(ram, INITIAL_PRODUCT, |row| processor.ram_factor(row).map(Affine::product));
        });
        scope.spawn(|_| processor.jump_stack(jump_stack));
        scope.spawn(|_| processor.hash_input(hash_input));
        scope.spawn(|_| processor.hash_digest(hash_digest));
        scope.spawn(|_| {
            let indeterminate = rows.challenge(Id::SpongeIndeterminate);
            running(sponge, INITIAL_PRODUCT, |row| {
                processor.sponge_symbol(row).map(|symbol| Affine::evaluation(indeterminate, symbol))
            });
        });
        scope.spawn(|_| running_fractions(u32, INITIAL_SUM, |row| processor.u32_fractions(row)));
        scope.spawn(|_| processor.clock_jump(clock_jump));
    });
}

/// The instruction of a row, with its argument.
fn instruction(rows: Rows<'_>, row: usize) -> Option<Instruction> {
    let instruction = Instruction::try_from(rows.at(Main::CI, row)).ok()?;
    match instruction.arg() {
        Some(_) => instruction.change_arg(rows.at(Main::NIA, row)).ok(),
        None => Some(instruction),
    }
}

#[derive(Clone, Copy)]
struct Processor<'a> {
    rows: Rows<'a>,
    instructions: &'a [Option<Instruction>],
}

impl Processor<'_> {
    fn stack(&self, index: usize, row: usize) -> BFieldElement {
        self.rows.main.column(Main::ST0.master_main_index() + index)[row]
    }

    fn helper(&self, index: usize, row: usize) -> BFieldElement {
        self.rows.main.column(Main::HV0.master_main_index() + index)[row]
    }

    /// The row before, its instruction: what led to `row`.
    fn previous(&self, row: usize) -> Option<(usize, Instruction)> {
        let previous = row.checked_sub(1)?;
        Some((previous, self.instructions[previous]?))
    }

    fn is_padding(&self, row: usize) -> bool {
        self.rows.at(Main::IsPadding, row) == ONE
    }

    /// Words read from public input lie on the stack of the next row, the first one deepest.
    fn input(&self, column: &mut [XFieldElement]) {
        let indeterminate = self.rows.challenge(Id::StandardInputIndeterminate);
        running(column, INITIAL_PRODUCT, |row| match self.previous(row)? {
            (_, Instruction::ReadIo(n)) => Some(absorb(indeterminate, (0..n.num_words()).rev().map(|i| self.stack(i, row)))),
            _ => None,
        });
    }

    fn output(&self, column: &mut [XFieldElement]) {
        let indeterminate = self.rows.challenge(Id::StandardOutputIndeterminate);
        running(column, INITIAL_PRODUCT, |row| match self.previous(row)? {
            (previous, Instruction::WriteIo(n)) => {
                Some(absorb(indeterminate, (0..n.num_words()).map(|i| self.stack(i, previous))))
            }
            _ => None,
        });
    }

    fn instruction_lookup(&self, column: &mut [XFieldElement]) {
        let weighted = [
            (Main::IP, Id::ProgramAddressWeight),
            (Main::CI, Id::ProgramInstructionWeight),
            (Main::NIA, Id::ProgramNextInstructionWeight),
        ];
        running_fractions(column, INITIAL_SUM, |row| {
            let denominator = || self.rows.compress(Id::InstructionLookupIndeterminate, weighted, row);
            [(!self.is_padding(row)).then(|| Fraction::inverse_of(denominator()))]
        });
    }

    /// Each word that moves between the registers and the stack's memory below them. It is visible in st15 and up of
    /// whichever of the two rows has the shorter stack.
    fn op_stack_factor(&self, row: usize) -> Option<XFieldElement> {
        let (previous, instruction) = self.previous(row)?;
        let delta = instruction.op_stack_size_influence();
        if self.is_padding(row) || delta == 0 {
            return None;
        }
        let shorter = if delta > 0 { previous } else { row };
        let rows = self.rows;
        let common = rows.challenge(Id::OpStackIndeterminate)
            - rows.challenge(Id::OpStackClkWeight) * rows.at(Main::CLK, previous)
            - rows.challenge(Id::OpStackIb1Weight) * rows.at(Main::IB1, previous);
        let pointer = rows.at(Main::OpStackPointer, shorter);
        let factor = |offset: u32| {
            let word = self.stack(NUM_OP_STACK_REGISTERS - 1 - offset as usize, shorter);
            common
                - rows.challenge(Id::OpStackPointerWeight) * (pointer + BFieldElement::from(offset))
                - rows.challenge(Id::OpStackFirstUnderflowElementWeight) * word
        };
        (0..delta.unsigned_abs()).map(factor).reduce(|product, factor| product * factor)
    }

    /// Each access to memory by the previous row's instruction.
    fn ram_factor(&self, row: usize) -> Option<XFieldElement> {
        let (previous, instruction) = self.previous(row)?;
        if self.is_padding(row) {
            return None;
        }
        let rows = self.rows;
        let instruction_type = match instruction {
            Instruction::WriteMem(_) => INSTRUCTION_TYPE_WRITE,
            _ => INSTRUCTION_TYPE_READ,
        };
        let common = rows.challenge(Id::RamIndeterminate)
            - rows.challenge(Id::RamClkWeight) * rows.at(Main::CLK, previous)
            - rows.challenge(Id::RamInstructionTypeWeight) * instruction_type;
        let factor = |pointer: BFieldElement, offset: usize, value: BFieldElement| {
            common
                - rows.challenge(Id::RamPointerWeight) * (pointer + BFieldElement::new(offset as u64))
                - rows.challenge(Id::RamValueWeight) * value
        };
        let product = |pointer, values: &[BFieldElement]| {
            values.iter().enumerate().map(|(offset, &value)| factor(pointer, offset, value)).fold(X_ONE, |p, f| p * f)
        };
        let helpers: [_; 6] = std::array::from_fn(|i| self.helper(i, previous));
        let top: [_; 6] = std::array::from_fn(|i| self.stack(1 + i, row));
        let top_before: [_; 6] = std::array::from_fn(|i| self.stack(1 + i, previous));
        match instruction {
            // Reading leaves the pointer just below the first word it read.
            Instruction::ReadMem(n) => Some(product(self.stack(0, row) + ONE, &top[..n.num_words()])),
            Instruction::WriteMem(n) => Some(product(self.stack(0, previous), &top_before[..n.num_words()])),
            Instruction::SpongeAbsorbMem => {
                let values: [_; 10] = std::array::from_fn(|i| if i < 4 { top[i] } else { helpers[i - 4] });
                Some(product(self.stack(0, previous), &values))
            }
            Instruction::MerkleStepMem => Some(product(self.stack(7, previous), &helpers[..5])),
            Instruction::XxDotStep => {
                let right = product(self.stack(0, previous), &helpers[..3]);
                Some(right * product(self.stack(1, previous), &helpers[3..]))
            }
            Instruction::XbDotStep => {
                let right = product(self.stack(0, previous), &helpers[..1]);
                Some(right * product(self.stack(1, previous), &helpers[1..4]))
            }
            _ => None,
        }
    }

    fn jump_stack(&self, column: &mut [XFieldElement]) {
        let weighted = [
            (Main::CLK, Id::JumpStackClkWeight),
            (Main::CI, Id::JumpStackCiWeight),
            (Main::JSP, Id::JumpStackJspWeight),
            (Main::JSO, Id::JumpStackJsoWeight),
            (Main::JSD, Id::JumpStackJsdWeight),
        ];
        running(column, INITIAL_PRODUCT, |row| {
            Some(Affine::product(self.rows.compress(Id::JumpStackIndeterminate, weighted, row)))
        });
    }

    fn hash_input(&self, column: &mut [XFieldElement]) {
        let indeterminate = self.rows.challenge(Id::HashInputIndeterminate);
        running(column, INITIAL_PRODUCT, |row| {
            let node: [_; 5] = std::array::from_fn(|i| self.stack(i, row));
            let sibling: [_; 5] = std::array::from_fn(|i| self.helper(i, row));
            let input: [_; 10] = match self.instructions[row]? {
                Instruction::Hash => std::array::from_fn(|i| self.stack(i, row)),
                Instruction::MerkleStep | Instruction::MerkleStepMem => {
                    let is_left = self.stack(5, row).value().is_multiple_of(2);
                    let (left, right) = if is_left { (node, sibling) } else { (sibling, node) };
                    std::array::from_fn(|i| if i < 5 { left[i] } else { right[i - 5] })
                }
                _ => return None,
            };
            Some(Affine::evaluation(indeterminate, self.rows.compress_state(input)))
        });
    }

    fn hash_digest(&self, column: &mut [XFieldElement]) {
        let indeterminate = self.rows.challenge(Id::HashDigestIndeterminate);
        running(column, INITIAL_PRODUCT, |row| match self.previous(row)?.1 {
            Instruction::Hash | Instruction::MerkleStep | Instruction::MerkleStepMem => {
                let digest: [_; 5] = std::array::from_fn(|i| self.stack(i, row));
                Some(Affine::evaluation(indeterminate, self.rows.compress_state(digest)))
            }
            _ => None,
        });
    }

    fn sponge_symbol(&self, row: usize) -> Option<XFieldElement> {
        let (previous, instruction) = self.previous(row)?;
        let stack = |row| -> [_; 10] { std::array::from_fn(|i| self.stack(i, row)) };
        let (opcode, state) = match instruction {
            Instruction::SpongeInit => (Instruction::SpongeInit, [ZERO; 10]),
            Instruction::SpongeAbsorb => (instruction, stack(previous)),
            Instruction::SpongeAbsorbMem => {
                // Four of the words read stay on the stack, the other six are helper variables.
                let words = |i| {
                    if i < 4 { self.stack(1 + i, row) } else { self.helper(i - 4, previous) }
                };
                (Instruction::SpongeAbsorb, std::array::from_fn(words))
            }
            Instruction::SpongeSqueeze => (instruction, stack(row)),
            _ => return None,
        };
        Some(self.rows.challenge(Id::HashCIWeight) * opcode.opcode_b() + self.rows.compress_state(state))
    }

    fn u32_fractions(&self, row: usize) -> [Option<Fraction>; 2] {
        let Some((previous, instruction)) = self.previous(row) else {
            return [None; 2];
        };
        let rows = self.rows;
        let ask = |instruction: Instruction, left, right, result| {
            let compressed = rows.challenge(Id::U32LhsWeight) * left
                + rows.challenge(Id::U32RhsWeight) * right
                + rows.challenge(Id::U32CiWeight) * instruction.opcode_b()
                + rows.challenge(Id::U32ResultWeight) * result;
            Some(Fraction::inverse_of(rows.challenge(Id::U32Indeterminate) - compressed))
        };
        let (before_0, before_1) = (self.stack(0, previous), self.stack(1, previous));
        let (now_0, now_1) = (self.stack(0, row), self.stack(1, row));
        match instruction {
            Instruction::Split => [ask(Instruction::Split, now_0, now_1, ZERO), None],
            Instruction::Lt | Instruction::And | Instruction::Pow => [ask(instruction, before_0, before_1, now_0), None],
            Instruction::Xor => {
                // a ^ b = a + b - 2 (a & b)
                let and = (before_0 + before_1 - now_0) / BFieldElement::new(2);
                [ask(Instruction::And, before_0, before_1, and), None]
            }
            Instruction::Log2Floor | Instruction::PopCount => [ask(instruction, before_0, ZERO, now_0), None],
            // The remainder is less than the divisor, and numerator and quotient are 32-bit numbers.
            Instruction::DivMod => [ask(Instruction::Lt, now_0, before_1, ONE), ask(Instruction::Split, before_0, now_1, ZERO)],
            Instruction::MerkleStep | Instruction::MerkleStepMem => {
                [ask(Instruction::Split, self.stack(5, previous), self.stack(5, row), ZERO), None]
            }
            _ => [None; 2],
        }
    }

    fn clock_jump(&self, column: &mut [XFieldElement]) {
        let indeterminate = self.rows.challenge(Id::ClockJumpDifferenceLookupIndeterminate);
        let multiplicity = self.rows.column(Main::ClockJumpDifferenceLookupMultiplicity);
        let clock = self.rows.column(Main::CLK);
        running_fractions(column, INITIAL_SUM, |row| {
            let occurs = multiplicity[row] != ZERO;
            [occurs.then(|| Fraction { numerator: multiplicity[row].lift(), denominator: indeterminate - clock[row] })]
        });
    }
}

/// The effect of several symbols on a running evaluation, in order.
fn absorb(indeterminate: XFieldElement, symbols: impl Iterator<Item = BFieldElement>) -> Affine {
    symbols.map(|symbol| Affine::evaluation(indeterminate, symbol.lift())).fold(Affine::IDENTITY, Affine::then)
}
