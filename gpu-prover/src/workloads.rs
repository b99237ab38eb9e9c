//! Programs to test and to measure provers with. They exercise every table, with known heights.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use triton_vm::aet::AlgebraicExecutionTrace;
use triton_vm::prelude::*;

/// A program with all its inputs.
#[derive(Debug, Clone)]
pub struct Workload {
    /// What it is, for reports.
    pub name: String,
    /// The program.
    pub program: Program,
    /// Its public input.
    pub public_input: PublicInput,
    /// Its secret input.
    pub non_determinism: NonDeterminism,
}

impl Workload {
    fn new(name: impl Into<String>, program: Program) -> Self {
        Self { name: name.into(), program, public_input: PublicInput::default(), non_determinism: NonDeterminism::default() }
    }

    fn with_input(mut self, input: impl IntoIterator<Item = u64>) -> Self {
        self.public_input = PublicInput::new(input.into_iter().map(BFieldElement::new).collect());
        self
    }

    /// The initial state of the machine.
    pub fn state(&self) -> VMState {
        VMState::new(self.program.clone(), self.public_input.clone(), self.non_determinism.clone())
    }

    /// Run the program; the claim about it and its trace.
    ///
    /// # Errors
    /// If the program fails.
    pub fn trace(&self) -> Result<(Claim, AlgebraicExecutionTrace), VMError> {
        let (aet, state) = VM::trace_execution_of_state(self.state())?;
        let claim = Claim::about_program(&self.program)
            .with_input(self.public_input.individual_tokens.clone())
            .with_output(state.public_output);
        Ok((claim, aet))
    }
}

/// A count-down loop that fills a processor table of `2^log2_height` rows: the usual load for timing, cheap to trace,
/// with all other tables short. Proving costs what the padded height costs, whatever the program.
pub fn spin(log2_height: u32) -> Workload {
    let iterations = (1_u64 << log2_height) * 63 / 64 / 6;
    let program = triton_program! {
        read_io 1
        call count_down
        pop 1
        halt
        count_down:
            dup 0 push 0 eq
            skiz return
            addi -1
            recurse
    };
    // An iteration takes seven cycles.
    Workload::new(format!("spin 2^{log2_height}"), program).with_input([iterations * 6 / 7])
}

/// A sponge that is squeezed again and again, for a full hash table: `permutations` times six rows.
pub fn squeeze(permutations: u64) -> Workload {
    let program = triton_program! {
        sponge_init
        read_io 1
        call squeeze
        pop 1
        halt
        squeeze:
            dup 0 push 0 eq
            skiz return
            sponge_squeeze pop 5 pop 5
            addi -1
            recurse
    };
    Workload::new(format!("squeeze {permutations}"), program).with_input([permutations])
}

/// A sponge that absorbs fresh memory, ten words at a time, with a dot product on it: the mix of a program that verifies
/// proofs. An iteration takes 16 cycles, 16 RAM rows on 10 new addresses, and six hash rows.
pub fn absorb(iterations: u64) -> Workload {
    let program = triton_program! {
        sponge_init
        read_io 1
        push 0 push 0 push 0 push 0
        push 1
        call absorb
        pop 5 pop 1
        halt
        // _ i w w w w pointer
        absorb:
            dup 5 push 0 eq
            skiz return
            sponge_absorb_mem
            push 0 push 0 push 0 dup 3 dup 0
            xx_dot_step
            pop 5
            swap 5 addi -1 swap 5
            recurse
    };
    let mut workload = Workload::new(format!("absorb {iterations}"), program).with_input([iterations]);
    let mut rng = StdRng::seed_from_u64(iterations);
    workload.non_determinism.ram = (1..=10 * iterations).map(|address| (BFieldElement::new(address), rng.random())).collect();
    workload
}

/// A loop over about every instruction there is: every table gets rows in each iteration. An iteration takes 148 cycles
/// and 223 u32 rows; below some hundred iterations the cascade table, with a row for each new 16-bit limb that is
/// hashed, is the longest.
pub fn mixed(iterations: u64) -> Workload {
    let program = Program::from_code(MIXED).expect("the code is a constant that the tests run");
    let mut rng = StdRng::seed_from_u64(iterations);
    let mut workload = Workload::new(format!("mixed {iterations}"), program).with_input([iterations]);
    workload.non_determinism.individual_tokens = (0..iterations).map(|_| rng.random()).collect();
    workload.non_determinism.digests = (0..2 * iterations).map(|_| rng.random()).collect();
    workload
}

const MIXED: &str = "
read_io 1
call iterate
write_io 1
halt

// _ i
iterate:
    dup 0 push 0 eq
    skiz return
    call memory
    call bits
    call tip5
    call extension
    addi -1
    recurse

// Writes 12 words to 16 i and following, reads them back.
memory:
    push 11 push 7 push 5 push 3 push 2
    dup 5 push 16 mul
    write_mem 5
    push -1 push -2 push -3 pick 3
    write_mem 3
    push 17 dup 2 push 19 divine 1 pick 4
    write_mem 4
    push -1 add
    read_mem 5
    read_mem 4
    pop 5 pop 5
    return

bits:
    dup 0 push 3141592653 xor
    dup 0 pop_count pop 1
    dup 0 addi 1 split pop 1 push 1 add log_2_floor pop 1
    dup 1 push 4294967295 and pop 1
    push 1000003 dup 1 div_mod pop 2
    push 5 dup 1 pow pop 1
    dup 0 dup 2 lt pop 1
    push -2 split pop 2
    push 0 push 0 lt pop 1
    pop 1
    return

tip5:
    sponge_init
    dup 0 dup 1 dup 2 dup 3 dup 4 dup 5 dup 6 dup 7 dup 8 dup 9
    sponge_absorb
    push 0 push 0 push 0 push 0
    dup 4 push 16 mul
    sponge_absorb_mem
    pop 5
    sponge_squeeze
    hash
    push 6 dup 5 dup 5 dup 5 dup 5 dup 5
    merkle_step
    merkle_step
    pop 5 pop 1
    // _ i d4 d3 d2 d1 d0: a step with the sibling in memory
    dup 5 push 16 mul
    push 0 push 3 dup 7 dup 7 dup 7 dup 7 dup 7
    merkle_step_mem
    pop 5 pop 3
    pop 5
    return

extension:
    push 0 push 0 push 1
    dup 3 push 16 mul dup 0 addi 3
    xx_dot_step
    xb_dot_step
    pop 2
    dup 2 dup 2 dup 2
    xx_mul
    push 1 xb_mul
    dup 2 dup 2 dup 2
    x_invert
    xx_add
    pop 3
    return
";

/// A straight-line program of `snippets` randomly chosen pieces, with random constants and secret input.
pub fn random(seed: u64, snippets: usize) -> Workload {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut tokens = vec![];
    let mut digests = vec![];
    let mut code = vec![];
    for _ in 0..snippets {
        let a: BFieldElement = rng.random();
        let b: BFieldElement = rng.random();
        let small: u32 = rng.random();
        let bits = rng.random_range(0..32);
        let other: u32 = rng.random_range(1..=u32::MAX >> bits);
        let address: u32 = rng.random_range(0..64);
        code.extend(match rng.random_range(0..18) {
            0 => triton_asm!(push {a} push {b} mul addi 3 pop 1),
            1 => triton_asm!(push {a} push {b} add push {a} eq pop 1),
            2 => triton_asm!(push {small} push {other} and pop 1),
            3 => triton_asm!(push {small} push {other} xor pop 1),
            4 => triton_asm!(push {small} push {other} lt pop 1),
            5 => triton_asm!(push {other} push {small} div_mod pop 2),
            6 => triton_asm!(push {other} log_2_floor push {small} pop_count pop 2),
            7 => triton_asm!(push {small} push {a} pow pop 1),
            8 => triton_asm!(push {a} split pop 2),
            9 => triton_asm!(push {a} push {b} push {a} push {address} write_mem 3 pop 1),
            10 => triton_asm!(push {address} read_mem 5 pop 5 pop 1),
            11 => {
                tokens.extend([a, b]);
                triton_asm!(divine 2 swap 1 write_io 2)
            }
            12 => triton_asm!(push {a} push {b} push {a} push {b} push {a} dup 4 dup 4 dup 4 dup 4 dup 4 hash pop 5),
            13 => triton_asm!(sponge_init push 0 push 0 push 0 push 0 push {address} sponge_absorb_mem pop 5 sponge_squeeze pop 5 pop 5),
            14 => {
                digests.push(rng.random());
                triton_asm!(push {other} push {a} push {b} push {a} push {b} push 1 merkle_step pop 5 pop 1)
            }
            15 => triton_asm!(push {a} push {b} push 1 push {address} push 7 xx_dot_step xb_dot_step pop 5),
            16 => triton_asm!(push {a} push {b} push 1 x_invert push {b} xb_mul pick 2 place 1 pop 3),
            _ => triton_asm!(push {a} push 0 eq skiz nop push 1 assert nop),
        });
    }
    let program = triton_program!({ &code } halt);
    let mut workload = Workload::new(format!("random {seed}, {snippets} pieces"), program);
    workload.non_determinism = NonDeterminism::new(tokens).with_digests(digests);
    workload.non_determinism.ram = (0..80).map(|address| (BFieldElement::new(address), rng.random())).collect();
    workload
}

/// All example programs of the triton-vm crate, the empty program, and ours at a low height.
pub fn small() -> Vec<Workload> {
    use triton_vm::example_programs as examples;
    vec![
        Workload::new("halt", triton_program!(halt)),
        Workload::new("fibonacci", examples::FIBONACCI_SEQUENCE.clone()).with_input([100]),
        Workload::new("gcd", examples::GREATEST_COMMON_DIVISOR.clone()).with_input([42, 56]),
        Workload::new("u32", examples::PROGRAM_WITH_MANY_U32_INSTRUCTIONS.clone()),
        Workload::new("0 < 0 as the last u32 section", triton_program!(push 0 push 0 lt pop 1 halt)),
        Workload::new("sudoku", examples::VERIFY_SUDOKU.clone()).with_input(SUDOKU),
        Workload::new("MMR append", examples::CALCULATE_NEW_MMR_PEAKS_FROM_APPEND_WITH_SAFE_LISTS.clone()),
        merkle_authentication(),
        merkle_update(),
        spin(9),
        spin(10),
        squeeze(20),
        absorb(5),
        mixed(1),
        random(1, 10),
    ]
}

const SUDOKU: [u64; 81] = [
    8, 5, 9, 7, 6, 1, 4, 2, 3, //
    4, 2, 6, 8, 5, 3, 7, 9, 1, //
    7, 1, 3, 9, 2, 4, 8, 5, 6, //
    9, 6, 1, 5, 3, 7, 2, 8, 4, //
    2, 8, 7, 4, 1, 9, 6, 3, 5, //
    3, 4, 5, 2, 8, 6, 1, 7, 9, //
    5, 3, 4, 6, 7, 8, 9, 1, 2, //
    6, 7, 2, 1, 9, 5, 3, 4, 8, //
    1, 9, 8, 3, 4, 2, 5, 6, 7, //
];

/// A Merkle tree of eight leaves, the index of one of them, and its authentication path from the bottom up.
fn merkle_tree() -> (twenty_first::prelude::MerkleTree, usize, Vec<Digest>) {
    let leaves: Vec<Digest> = (0..8_u64).map(|leaf| Tip5::hash(&leaf)).collect();
    let tree = twenty_first::prelude::MerkleTree::par_new(&leaves).expect("eight is a power of two");
    let index = 5;
    let path = tree.authentication_structure(&[index]).expect("5 is one of the eight leaves");
    (tree, index, path)
}

/// The words of digests as a program reads them, top of the stack last.
fn reversed_words(digests: impl IntoIterator<Item = Digest>) -> impl Iterator<Item = u64> {
    digests.into_iter().flat_map(|digest| digest.reversed().values()).map(|word| word.value())
}

fn merkle_authentication() -> Workload {
    let (tree, index, path) = merkle_tree();
    let leaf = tree.leaf(index).expect("5 is one of the eight leaves");
    let input = [1].into_iter().chain(reversed_words([tree.root()])).chain([8 + index as u64]);
    let program = triton_vm::example_programs::MERKLE_TREE_AUTHENTICATION_PATH_VERIFY.clone();
    let mut workload = Workload::new("Merkle authentication", program).with_input(input.chain(reversed_words([leaf])));
    workload.non_determinism = NonDeterminism::default().with_digests(path);
    workload
}

fn merkle_update() -> Workload {
    let (tree, index, path) = merkle_tree();
    let leaf = tree.leaf(index).expect("5 is one of the eight leaves");
    let address = 1000;
    let digests = [leaf, tree.root(), Tip5::hash(&17_u64)];
    let program = triton_vm::example_programs::MERKLE_TREE_UPDATE.clone();
    let mut workload = Workload::new("Merkle update", program)
        .with_input([address, index as u64, 3].into_iter().chain(reversed_words(digests)));
    let words = path.into_iter().flat_map(Digest::values);
    workload.non_determinism.ram = (address..).map(BFieldElement::new).zip(words).collect();
    workload
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_small_workloads_run() {
        for workload in small() {
            let (_, aet) = workload.trace().unwrap_or_else(|error| panic!("{}: {error}", workload.name));
            assert!(aet.padded_height() <= 1 << 12, "{}: {}", workload.name, aet.padded_height());
        }
    }

    #[test]
    fn random_programs_run_whatever_the_seed() {
        for seed in 0..200 {
            let workload = random(seed, 100);
            if let Err(error) = workload.trace() {
                panic!("{}: {error}", workload.name);
            }
        }
    }

    #[test]
    fn spinning_has_the_height_it_says() {
        for log2_height in 9..16 {
            let (_, aet) = spin(log2_height).trace().expect("the loop runs");
            assert_eq!(aet.padded_height(), 1 << log2_height);
            assert_eq!(aet.height().height, aet.height_of_table(TableId::Processor));
        }
    }

    #[test]
    fn the_mixed_workload_reaches_every_table() {
        let (_, aet) = mixed(40).trace().expect("the loop runs");
        for table in [TableId::OpStack, TableId::Ram, TableId::Hash, TableId::Cascade, TableId::U32] {
            assert!(aet.height_of_table(table) > 1000, "{table}: {}", aet.height_of_table(table));
        }
    }
}
