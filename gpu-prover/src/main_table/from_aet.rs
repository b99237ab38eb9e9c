//! Reading the triton-vm crate's execution trace, whose rows are table rows already.

use triton_air::table::hash::HashTableMode;
use triton_air::table::ram::INSTRUCTION_TYPE_WRITE;
use triton_air::table_column::{MasterMainColumn, OpStackMainColumn, ProcessorMainColumn, RamMainColumn};
use triton_vm::aet::AlgebraicExecutionTrace;
use triton_vm::prelude::BFieldElement;

use super::{ONE, hash, jump_stack, transpose_into};
use crate::trace::{OpStackCall, RamCall};

pub(super) fn ram_call(aet: &AlgebraicExecutionTrace, index: usize) -> RamCall {
    let at = |column: RamMainColumn| aet.ram_trace[[index, column.main_index()]];
    RamCall {
        pointer: at(RamMainColumn::RamPointer),
        value: at(RamMainColumn::RamValue),
        clock: at(RamMainColumn::CLK).value() as u32,
        is_write: at(RamMainColumn::InstructionType) == INSTRUCTION_TYPE_WRITE,
    }
}

pub(super) fn op_stack_call(aet: &AlgebraicExecutionTrace, index: usize) -> OpStackCall {
    let at = |column: OpStackMainColumn| aet.op_stack_underflow_trace[[index, column.main_index()]];
    OpStackCall {
        word: at(OpStackMainColumn::FirstUnderflowElement),
        clock: at(OpStackMainColumn::CLK).value() as u32,
        pointer: at(OpStackMainColumn::StackPointer).value() as u32,
        shrinks: at(OpStackMainColumn::IB1ShrinkStack) == ONE,
    }
}

pub(super) fn jump_stack_row(aet: &AlgebraicExecutionTrace, clock: usize) -> jump_stack::Row {
    let at = |column: ProcessorMainColumn| aet.processor_trace[[clock, column.main_index()]];
    jump_stack::Row {
        clock: clock as u32,
        opcode: at(ProcessorMainColumn::CI),
        pointer: at(ProcessorMainColumn::JSP).value() as u32,
        origin: at(ProcessorMainColumn::JSO),
        destination: at(ProcessorMainColumn::JSD),
    }
}

pub(super) fn fill_hash(columns: &mut [&mut [BFieldElement]], aet: &AlgebraicExecutionTrace) {
    let parts = [
        (HashTableMode::ProgramHashing, &aet.program_hash_trace),
        (HashTableMode::Sponge, &aet.sponge_trace),
        (HashTableMode::Hash, &aet.hash_trace),
    ];
    let mut row = 0;
    for (mode, trace) in parts {
        transpose_into(columns, row, &trace.view());
        hash::fill_mode(columns, row, trace.nrows(), mode);
        row += trace.nrows();
    }
    hash::pad(columns, row);
}
