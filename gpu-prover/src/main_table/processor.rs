//! Processor table: the state of the machine in each clock cycle.

use rayon::prelude::*;
use triton_air::table_column::MasterMainColumn;
use triton_air::table_column::ProcessorMainColumn as Column;
use triton_vm::isa::instruction::{Instruction, InstructionBit};
use triton_vm::isa::op_stack::NUM_OP_STACK_REGISTERS;
use triton_vm::prelude::{BFieldElement, Program};

use super::{ONE, ZERO, element, split_rows, write_columns};
use crate::trace::{NO_RECORDED_HELPERS, Registers, StackRegisters, Trace};

/// Rows that are worked on together: their records stay in the second-level cache while 39 columns are written.
const ROWS_PER_PART: usize = 512;

const NUM_HELPERS: usize = 6;

/// What the program says about the word at an address.
#[derive(Debug, Clone, Copy)]
pub(super) struct Word {
    pub instruction: Instruction,
    pub opcode: BFieldElement,
    /// The next word, the one that the program table has at the next address: argument or next opcode.
    pub next: BFieldElement,
}

/// All words of a program, by address.
pub(super) fn words(program: &Program) -> Vec<Word> {
    let instructions = &program.instructions;
    let word = |(address, &instruction): (usize, &Instruction)| Word {
        instruction,
        opcode: instruction.opcode_b(),
        next: instruction.arg().unwrap_or_else(|| {
            // Behind the last instruction comes the one that pads the program for its hash.
            instructions.get(address + instruction.size()).map_or(ONE, Instruction::opcode_b)
        }),
    };
    instructions.iter().enumerate().map(word).collect()
}

/// Fill from a trace and pad. Helper variables, opcodes and instruction bits follow from the records row by row.
pub(super) fn fill(columns: &mut [&mut [BFieldElement]], trace: &Trace, words: &[Word]) {
    let height = trace.registers.len();
    let targets = columns.iter_mut().map(|column| &mut column[..height]).collect();
    let registers = trace.registers.blocks().par_iter().flat_map(|block| block.par_chunks(ROWS_PER_PART));
    let stacks = trace.stacks.blocks().iter().flat_map(|block| block.chunks(ROWS_PER_PART));
    let parts: Vec<_> = split_rows(targets, ROWS_PER_PART).into_iter().zip(stacks).collect();
    let registers: Vec<_> = registers.collect();
    parts.into_par_iter().zip(registers).enumerate().for_each(|(part, ((mut targets, stacks), registers))| {
        fill_part(&mut targets, part * ROWS_PER_PART, registers, stacks, trace, words);
    });
    pad(columns, height);
}

fn fill_part(
    columns: &mut [&mut [BFieldElement]],
    first_clock: usize,
    registers: &[Registers],
    stacks: &[StackRegisters],
    trace: &Trace,
    words: &[Word],
) {
    let word = |registers: &Registers| words[registers.instruction_pointer as usize];
    let helpers: Vec<_> = registers
        .iter()
        .zip(stacks)
        .map(|(registers, stack)| match registers.helpers {
            NO_RECORDED_HELPERS => helper_variables(word(registers), stack),
            index => *trace.helpers.get(index as usize),
        })
        .collect();
    let mut write = |column: Column, value: &dyn Fn(&Registers) -> BFieldElement| {
        let column = &mut *columns[column.main_index()];
        column.iter_mut().zip(registers).for_each(|(to, registers)| *to = value(registers));
    };
    write(Column::IP, &|r| r.instruction_pointer.into());
    write(Column::CI, &|r| word(r).opcode);
    write(Column::NIA, &|r| word(r).next);
    for (column, bit) in [
        (Column::IB0, InstructionBit::IB0),
        (Column::IB1, InstructionBit::IB1),
        (Column::IB2, InstructionBit::IB2),
        (Column::IB3, InstructionBit::IB3),
        (Column::IB4, InstructionBit::IB4),
        (Column::IB5, InstructionBit::IB5),
        (Column::IB6, InstructionBit::IB6),
    ] {
        write(column, &|r| word(r).instruction.ib(bit));
    }
    write(Column::JSP, &|r| r.jump_stack_pointer.into());
    write(Column::JSO, &|r| r.jump_stack_origin.into());
    write(Column::JSD, &|r| r.jump_stack_destination.into());
    write(Column::OpStackPointer, &|r| r.op_stack_pointer.into());
    let clock = &mut *columns[Column::CLK.main_index()];
    clock.iter_mut().enumerate().for_each(|(row, clock)| *clock = element(first_clock + row));
    let first = Column::ST0.main_index();
    let stack_columns = &mut columns[first..first + NUM_OP_STACK_REGISTERS];
    write_columns(stack_columns, stacks, |index, stack| stack[NUM_OP_STACK_REGISTERS - 1 - index]);
    let first = Column::HV0.main_index();
    write_columns(&mut columns[first..first + NUM_HELPERS], &helpers, |index, helpers| helpers[index]);
}

/// The helper variables of an instruction that takes them from the stack and its own argument.
fn helper_variables(word: Word, stack: &StackRegisters) -> [BFieldElement; NUM_HELPERS] {
    let register = |index: usize| stack[NUM_OP_STACK_REGISTERS - 1 - index];
    let first = |value| [value, ZERO, ZERO, ZERO, ZERO, ZERO];
    let bits = |value: u64, shift: u32, mask: u64| BFieldElement::new((value >> shift) & mask);
    match word.instruction {
        Instruction::Pop(_)
        | Instruction::Divine(_)
        | Instruction::Pick(_)
        | Instruction::Place(_)
        | Instruction::Dup(_)
        | Instruction::Swap(_)
        | Instruction::ReadMem(_)
        | Instruction::WriteMem(_)
        | Instruction::ReadIo(_)
        | Instruction::WriteIo(_) => {
            let argument = word.next.value();
            [bits(argument, 0, 1), bits(argument, 1, 1), bits(argument, 2, 1), bits(argument, 3, 1), ZERO, ZERO]
        }
        Instruction::Skiz => {
            let next = word.next.value();
            [
                inverse_or_zero(register(0)),
                bits(next, 0, 1),
                bits(next, 1, 3),
                bits(next, 3, 3),
                bits(next, 5, 3),
                bits(next, 7, u64::MAX),
            ]
        }
        Instruction::RecurseOrReturn => first(inverse_or_zero(register(6) - register(5))),
        Instruction::Eq => first(inverse_or_zero(register(1) - register(0))),
        Instruction::Split => {
            let value = register(0).value();
            let (low, high) = (value & u64::from(u32::MAX), value >> 32);
            let difference = BFieldElement::new(high) - BFieldElement::new(u64::from(u32::MAX));
            first(if low == 0 { ZERO } else { inverse_or_zero(difference) })
        }
        _ => [ZERO; NUM_HELPERS],
    }
}

/// Most inverted differences are 0 or 1, which spares most of the inversions.
fn inverse_or_zero(value: BFieldElement) -> BFieldElement {
    if value == ZERO || value == ONE { value } else { value.inverse() }
}

/// Padding rows for a table whose first `height` rows are filled: they repeat the last row, while the clock goes on. The
/// clock jump multiplicities follow separately, when the three tables sorted by something else than the clock are known.
pub(super) fn pad(columns: &mut [&mut [BFieldElement]], height: usize) {
    columns.par_iter_mut().enumerate().for_each(|(index, column)| {
        let (filled, padding) = column.split_at_mut(height);
        if index == Column::CLK.main_index() {
            padding.iter_mut().enumerate().for_each(|(i, clock)| *clock = element(height + i));
        } else if index == Column::IsPadding.main_index() {
            padding.fill(ONE);
        } else if index != Column::ClockJumpDifferenceLookupMultiplicity.main_index() {
            padding.fill(filled[height - 1]);
        }
    });
}

/// Record how often each clock jump difference occurs in the memory-like tables.
pub(super) fn count_clock_jumps(columns: &mut [&mut [BFieldElement]], height: usize, jumps: impl Iterator<Item = u32>) {
    let mut counts = vec![0_u32; height];
    for jump in jumps {
        counts[jump as usize] += 1;
    }
    // The jump stack table does not mark its padding rows: each is another jump by one cycle.
    let padding_jumps = (columns[0].len() - height) as u32;
    counts.resize(height.max(2), 0);
    let column = &mut *columns[Column::ClockJumpDifferenceLookupMultiplicity.main_index()];
    column.fill(ZERO);
    column.iter_mut().zip(counts).for_each(|(multiplicity, count)| *multiplicity = count.into());
    column[1] += BFieldElement::from(padding_jumps);
}
