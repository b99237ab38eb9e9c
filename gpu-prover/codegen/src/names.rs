//! Names of columns, challenges, opcodes and constants as a header, so that hand-written kernels type none of them in.

use std::fmt::{Display, Write};

use strum::IntoEnumIterator;
use triton_air::challenge_id::ChallengeId;
use triton_air::table::hash::{HashTableMode, MONTGOMERY_MODULUS};
use triton_air::table::{op_stack, ram};
use triton_air::table_column::{
    CascadeAuxColumn, CascadeMainColumn, HashAuxColumn, HashMainColumn, JumpStackAuxColumn, JumpStackMainColumn,
    LookupAuxColumn, LookupMainColumn, MasterAuxColumn, MasterMainColumn, OpStackAuxColumn, OpStackMainColumn,
    ProcessorAuxColumn, ProcessorMainColumn, ProgramAuxColumn, ProgramMainColumn, RamAuxColumn, RamMainColumn, U32AuxColumn,
    U32MainColumn,
};
use triton_isa::instruction::{ALL_INSTRUCTIONS, Instruction};
use triton_isa::op_stack::NumberOfWords;
use twenty_first::prelude::BFieldElement;
use twenty_first::tip5::NUM_ROUNDS;

/// Auxiliary columns by how a device makes them: running sums, running products, running affine maps, and those maps that
/// are made from other, complete columns. Each column with its name.
fn columns_by_kind() -> [(&'static str, Vec<(String, usize)>); 4] {
    fn named(table: &str, columns: &[&(impl MasterAuxColumn + Display)]) -> Vec<(String, usize)> {
        columns.iter().map(|column| (format!("{table}Aux_{column}"), column.master_aux_index())).collect()
    }
    fn all<C: IntoEnumIterator + MasterAuxColumn + Display>(table: &str) -> Vec<(String, usize)> {
        C::iter().map(|column| (format!("{table}Aux_{column}"), column.master_aux_index())).collect()
    }
    use {
        HashAuxColumn as Hash, JumpStackAuxColumn as JumpStack, LookupAuxColumn as Lookup, OpStackAuxColumn as OpStack,
        ProcessorAuxColumn as Processor, ProgramAuxColumn as Program, RamAuxColumn as Ram,
    };
    let maps = [
        named("Program", &[&Program::PrepareChunkRunningEvaluation]),
        named(
            "Processor",
            &[
                &Processor::InputTableEvalArg,
                &Processor::OutputTableEvalArg,
                &Processor::HashInputEvalArg,
                &Processor::HashDigestEvalArg,
                &Processor::SpongeEvalArg,
            ],
        ),
        named("Ram", &[&Ram::BezoutCoefficient0, &Ram::BezoutCoefficient1]),
        named(
            "Hash",
            &[
                &Hash::ReceiveChunkRunningEvaluation,
                &Hash::HashInputRunningEvaluation,
                &Hash::HashDigestRunningEvaluation,
                &Hash::SpongeRunningEvaluation,
            ],
        ),
        named("Lookup", &[&Lookup::PublicEvaluationArgument]),
    ]
    .concat();
    let late_maps =
        [named("Program", &[&Program::SendChunkRunningEvaluation]), named("Ram", &[&Ram::FormalDerivative])].concat();
    let products = [
        named("Processor", &[&Processor::OpStackTablePermArg, &Processor::RamTablePermArg, &Processor::JumpStackTablePermArg]),
        named("OpStack", &[&OpStack::RunningProductPermArg]),
        named("Ram", &[&Ram::RunningProductOfRAMP, &Ram::RunningProductPermArg]),
        named("JumpStack", &[&JumpStack::RunningProductPermArg]),
    ]
    .concat();
    // All others are log-derivatives.
    let every = [
        all::<ProgramAuxColumn>("Program"),
        all::<ProcessorAuxColumn>("Processor"),
        all::<OpStackAuxColumn>("OpStack"),
        all::<RamAuxColumn>("Ram"),
        all::<JumpStackAuxColumn>("JumpStack"),
        all::<HashAuxColumn>("Hash"),
        all::<CascadeAuxColumn>("Cascade"),
        all::<LookupAuxColumn>("Lookup"),
        all::<U32AuxColumn>("U32"),
    ]
    .concat();
    let other = |column: &(String, usize)| ![&maps, &late_maps, &products].iter().any(|list| list.contains(column));
    let sums = every.into_iter().filter(other).collect();
    [("SUMS", sums), ("PRODUCTS", products), ("MAPS", maps), ("LATE_MAPS", late_maps)]
}

/// The lists of [`columns_by_kind`] as Rust, for the host.
pub fn column_registry() -> String {
    let mut text = String::new();
    for (name, columns) in columns_by_kind() {
        let places: Vec<String> = columns.iter().map(|(_, place)| place.to_string()).collect();
        writeln!(text, "/// Auxiliary columns that are running {}.", name.to_lowercase().replace('_', " "))
            .expect("writing to a string does not fail");
        writeln!(text, "pub const {name}: &[u64] = &[{}];", places.join(", ")).expect("writing to a string does not fail");
    }
    text
}

/// Writes one name and its number.
struct Header(String);

impl Header {
    fn define(&mut self, name: &str, value: impl Display) {
        writeln!(self.0, "#define {name} {value}").expect("writing to a string does not fail");
    }

    /// A field element in Montgomery form.
    fn element(&mut self, name: &str, value: BFieldElement) {
        self.define(name, format_args!("{:#x}ull", value.raw_u64()));
    }

    fn main<C: IntoEnumIterator + MasterMainColumn + Display>(&mut self, table: &str) {
        for column in C::iter() {
            self.define(&format!("{table}Main_{column}"), column.master_main_index());
        }
    }

    fn aux<C: IntoEnumIterator + MasterAuxColumn + Display>(&mut self, table: &str) {
        for column in C::iter() {
            self.define(&format!("{table}Aux_{column}"), column.master_aux_index());
        }
    }
}

/// `air_names.cuh`: columns by their place in the master tables, challenges by their index.
pub fn air_names() -> String {
    let mut header = Header("// Generated from triton-air and triton-isa: their own names.\n#pragma once\n".into());
    header.main::<ProgramMainColumn>("Program");
    header.main::<ProcessorMainColumn>("Processor");
    header.main::<OpStackMainColumn>("OpStack");
    header.main::<RamMainColumn>("Ram");
    header.main::<JumpStackMainColumn>("JumpStack");
    header.main::<HashMainColumn>("Hash");
    header.main::<CascadeMainColumn>("Cascade");
    header.main::<LookupMainColumn>("Lookup");
    header.main::<U32MainColumn>("U32");
    header.aux::<ProgramAuxColumn>("Program");
    header.aux::<ProcessorAuxColumn>("Processor");
    header.aux::<OpStackAuxColumn>("OpStack");
    header.aux::<RamAuxColumn>("Ram");
    header.aux::<JumpStackAuxColumn>("JumpStack");
    header.aux::<HashAuxColumn>("Hash");
    header.aux::<CascadeAuxColumn>("Cascade");
    header.aux::<LookupAuxColumn>("Lookup");
    header.aux::<U32AuxColumn>("U32");
    let [_, _, (_, maps), (_, late_maps)] = columns_by_kind();
    for (slot, (name, _)) in maps.iter().chain(&late_maps).enumerate() {
        header.define(&format!("Slot_{name}"), slot);
    }
    for challenge in ChallengeId::iter() {
        header.define(&format!("Challenge_{challenge}"), challenge.index());
    }
    for instruction in ALL_INSTRUCTIONS {
        header.define(&format!("OP_{}", instruction.name().to_uppercase()), instruction.opcode());
    }
    header.define("TIP5_LAST_ROUND", NUM_ROUNDS);
    header.element("HASH_MONTGOMERY_INVERSE", MONTGOMERY_MODULUS.inverse());
    for (name, mode) in [
        ("PROGRAM", HashTableMode::ProgramHashing),
        ("SPONGE", HashTableMode::Sponge),
        ("HASH", HashTableMode::Hash),
        ("PAD", HashTableMode::Pad),
    ] {
        header.element(&format!("HASH_MODE_{name}"), mode.into());
    }
    header.element("OP_STACK_PADDING", op_stack::PADDING_VALUE);
    header.element("RAM_PADDING", ram::PADDING_INDICATOR);
    header.element("RAM_WRITE", ram::INSTRUCTION_TYPE_WRITE);
    header.element("RAM_READ", ram::INSTRUCTION_TYPE_READ);
    header.0.push_str(&op_stack_influence());
    header.0
}

/// By how many words an instruction changes the op stack: `words` is its argument, if it has one that counts words.
fn op_stack_influence() -> String {
    let with_words = |instruction: Instruction, n: NumberOfWords| match instruction {
        Instruction::Pop(_) => Instruction::Pop(n),
        Instruction::Divine(_) => Instruction::Divine(n),
        Instruction::ReadMem(_) => Instruction::ReadMem(n),
        Instruction::WriteMem(_) => Instruction::WriteMem(n),
        Instruction::ReadIo(_) => Instruction::ReadIo(n),
        Instruction::WriteIo(_) => Instruction::WriteIo(n),
        other => other,
    };
    let mut text = String::from("FN int op_stack_influence(u32 opcode, int words) {\n    switch (opcode) {\n");
    for instruction in ALL_INSTRUCTIONS {
        let influence = |n| with_words(instruction, n).op_stack_size_influence();
        let one = influence(NumberOfWords::N1);
        let per_word = influence(NumberOfWords::N2) - one;
        if one != 0 || per_word != 0 {
            writeln!(text, "    case {}: return {} + ({per_word}) * words;", instruction.opcode(), one - per_word)
                .expect("writing to a string does not fail");
        }
    }
    text.push_str("    default: return 0;\n    }\n}\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_for_the_crates_numbers() {
        let names = air_names();
        assert!(names.contains(&format!("#define ProcessorMain_CLK {}\n", ProcessorMainColumn::CLK.master_main_index())));
        assert!(names.contains("#define OP_MERKLE_STEP_MEM 44\n"));
        assert!(names.contains("case 57: return 0 + (1) * words;"), "read_mem pushes its argument");
        assert!(names.contains("case 34: return -10 + (0) * words;"), "sponge_absorb pops ten");
    }

    #[test]
    fn every_column_has_one_kind() {
        let mut places: Vec<usize> =
            columns_by_kind().into_iter().flat_map(|(_, columns)| columns).map(|(_, place)| place).collect();
        places.sort_unstable();
        assert_eq!(places, (0..triton_air::table::NUM_AUX_COLUMNS).collect::<Vec<_>>());
    }

    #[test]
    fn no_name_is_defined_twice() {
        let names = air_names();
        let mut defined: Vec<&str> = names.lines().filter_map(|l| l.strip_prefix("#define ")?.split(' ').next()).collect();
        let number = defined.len();
        defined.sort_unstable();
        defined.dedup();
        assert_eq!(defined.len(), number);
    }
}
