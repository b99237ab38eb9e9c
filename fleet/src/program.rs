//! From a Triton assembly program and its inputs to a proof job.

use prover_api::ProverJob;
use triton_vm::prelude::{BFieldElement, Claim, InstructionError, NonDeterminism, Program, PublicInput, VMState};

use crate::trace::kind_of_failure;

/// Programs that run longer have no proof: the proof system's largest padded height is 2^29.
const MAX_CYCLES: u32 = 1 << 29;

/// Why a program gives no job.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProgramError {
    /// The text is no Triton assembly.
    #[error("not a Triton assembly program: {0}")]
    Syntax(String),
    /// An input is no field element.
    #[error("`{0}` is no field element: write numbers from 0 to 2^64 - 2^32, separated by commas or spaces")]
    Input(String),
    /// The secret input cannot be read. What stands there is not shown.
    #[error(
        "the secret input is neither a JSON list of numbers nor a JSON object with `individual_tokens`, `digests` and `ram` \
         (line {line}, column {column})"
    )]
    Secret {
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
    },
    /// The program stops with an error.
    #[error("the program does not halt gracefully: {what}, at cycle {cycle}, instruction pointer {instruction_pointer}")]
    Failed {
        /// The kind of failure, without values.
        what: &'static str,
        /// Cycles before it.
        cycle: u32,
        /// Address of the instruction.
        instruction_pointer: usize,
    },
    /// The program runs on and on.
    #[error("the program still runs after 2^29 cycles; no proof is that large")]
    Endless,
}

/// Assembles a program.
///
/// # Errors
///
/// [`ProgramError::Syntax`], with the parser's own words.
pub fn assemble(code: &str) -> Result<Program, ProgramError> {
    Program::from_code(code).map_err(|error| ProgramError::Syntax(error.to_string().trim().to_owned()))
}

/// Reads public input as a person types it: `3, 5` or `3 5`.
///
/// # Errors
///
/// [`ProgramError::Input`] with the first word that is no field element.
pub fn public_input(text: &str) -> Result<PublicInput, ProgramError> {
    let element = |word: &str| {
        let value = word.parse::<u64>().ok().filter(|&value| value < BFieldElement::P);
        value.map(BFieldElement::new).ok_or_else(|| ProgramError::Input(word.chars().take(40).collect()))
    };
    let words = text.split([',', ' ', '\t', '\n']).filter(|word| !word.is_empty());
    words.map(element).collect::<Result<_, _>>().map(PublicInput::new)
}

/// Reads secret input: a JSON list of numbers (what `divine` reads), or the whole non-determinism as neptune-core writes it.
///
/// # Errors
///
/// [`ProgramError::Secret`] with the place and nothing of what stands there.
pub fn secret_input(json: &[u8]) -> Result<NonDeterminism, ProgramError> {
    let at = |error: serde_json::Error| ProgramError::Secret { line: error.line(), column: error.column() };
    // Not an untagged enum: serde loses the place of an error there, and the numbers that are keys of `ram`.
    if json.trim_ascii_start().starts_with(b"[") {
        serde_json::from_slice::<Vec<BFieldElement>>(json).map(NonDeterminism::new).map_err(at)
    } else {
        serde_json::from_slice(json).map_err(at)
    }
}

/// Runs the program to learn its output, and claims just that.
///
/// # Errors
///
/// [`ProgramError::Failed`] or [`ProgramError::Endless`].
pub fn job(program: Program, input: PublicInput, secret: NonDeterminism) -> Result<ProverJob, ProgramError> {
    bounded_job(program, input, secret, MAX_CYCLES)
}

fn bounded_job(program: Program, input: PublicInput, secret: NonDeterminism, cycles: u32) -> Result<ProverJob, ProgramError> {
    let mut state = VMState::new(program.clone(), input.clone(), secret.clone());
    while !state.halting {
        if state.cycle_count >= cycles {
            return Err(ProgramError::Endless);
        }
        state.step().map_err(|error| failed(&error, &state))?;
    }
    let claim = Claim::about_program(&program).with_input(input.individual_tokens).with_output(state.public_output);
    Ok(ProverJob::new(program, claim, secret))
}

fn failed(error: &InstructionError, state: &VMState) -> ProgramError {
    ProgramError::Failed {
        what: kind_of_failure(error),
        cycle: state.cycle_count,
        instruction_pointer: state.instruction_pointer,
    }
}

#[cfg(test)]
mod tests {
    use triton_vm::prelude::{bfe, bfe_vec};

    use super::*;

    const ADD: &str = "read_io 1 divine 1 add write_io 1 halt";

    #[test]
    fn the_claim_says_what_the_program_says() {
        let job = job(
            assemble(ADD).expect("assembles"),
            public_input("40").expect("a number"),
            secret_input(b"[2]").expect("a list"),
        )
        .expect("halts");
        assert_eq!(bfe_vec![40], job.claim.input);
        assert_eq!(bfe_vec![42], job.claim.output);
        assert_eq!(job.program.hash(), job.claim.program_digest);
        assert_eq!(prover_api::PROOF_VERSION, job.claim.version);
    }

    #[test]
    fn inputs_are_field_elements_and_nothing_else() {
        assert_eq!(bfe_vec![1, 2, 3], public_input("1,2, 3").expect("three numbers").individual_tokens);
        assert!(public_input("").expect("none").individual_tokens.is_empty());
        let largest = (BFieldElement::P - 1).to_string();
        assert_eq!(vec![-bfe!(1)], public_input(&largest).expect("the largest").individual_tokens);
        for wrong in ["-1", "x", "1;2", &BFieldElement::P.to_string()] {
            assert!(matches!(public_input(wrong), Err(ProgramError::Input(_))), "{wrong}");
        }
    }

    #[test]
    fn secrets_have_two_forms_and_never_show() {
        let all = br#"{"individual_tokens":[5],"digests":[],"ram":{"7":8}}"#;
        let secret = secret_input(all).expect("a whole non-determinism");
        assert_eq!(bfe_vec![5], secret.individual_tokens);
        assert_eq!(Some(&bfe!(8)), secret.ram.get(&bfe!(7)));
        for wrong in ["[123454321, ", r#"{"tokens":[123454321]}"#, r#"["123454321x"]"#] {
            let error = secret_input(wrong.as_bytes()).expect_err(wrong);
            assert!(!format!("{error}{error:?}").contains("123454321"), "{error}");
        }
    }

    #[test]
    fn a_program_that_fails_or_never_halts_gives_no_job() {
        let of = |code: &str| bounded_job(assemble(code).expect(code), PublicInput::default(), NonDeterminism::default(), 1000);
        assert!(matches!(of("push 0 assert halt"), Err(ProgramError::Failed { cycle: 1, instruction_pointer: 2, .. })));
        assert!(matches!(of("read_io 1 halt"), Err(ProgramError::Failed { .. })));
        assert_eq!(Err(ProgramError::Endless), of("call again again: recurse").map(|job| job.claim));
        assert!(matches!(assemble("push one halt"), Err(ProgramError::Syntax(_))));
    }
}
