//! xnt-core's standard input of a prover: claim, program, non-determinism, limit and environment as five JSON texts in this
//! order, separated by line feeds (xnt-core `bin/triton-vm-prover.rs`).

use std::io;

use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use triton_vm::prelude::Claim;

/// Longest single text in bytes: the limit of the existing TVMP servers.
pub const MAX_TEXT_BYTES: usize = 100_000_000;

/// One of the five texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Part {
    /// The claim.
    Claim,
    /// The program.
    Program,
    /// The non-determinism.
    NonDeterminism,
    /// `null`, or the largest log2 padded height that the caller accepts.
    MaxLog2PaddedHeight,
    /// Environment variables by log2 padded height.
    EnvVars,
}

impl Part {
    /// In the order in which they are sent.
    pub const ALL: [Self; 5] = [Self::Claim, Self::Program, Self::NonDeterminism, Self::MaxLog2PaddedHeight, Self::EnvVars];

    /// The name for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Claim => "the claim",
            Self::Program => "the program",
            Self::NonDeterminism => "the non-determinism",
            Self::MaxLog2PaddedHeight => "the limit on the log2 padded height",
            Self::EnvVars => "the environment variables",
        }
    }
}

/// What is wrong with the texts. Says where, never what stands there: it may be a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MalformedTexts {
    /// Fewer than five.
    #[error("{} is missing: five JSON texts are needed (claim, program, non-determinism, limit, environment)", .0.name())]
    Missing(Part),
    /// Not JSON.
    #[error("{} is no JSON text", .0.name())]
    NotJson(Part),
    /// JSON, but not of its kind.
    #[error("{} is JSON of the wrong kind", .0.name())]
    WrongKind(Part),
    /// Something follows.
    #[error("something follows the fifth JSON text")]
    Trailing,
}

/// Which caller stands behind an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// neptune-core: one JSON document, a [`crate::ProverJob`].
    Document,
    /// xnt-core: [`FiveTexts`].
    FiveTexts,
}

impl Shape {
    /// Tells the callers apart: the first JSON text of a document is an object with a field `program`; the first of five is a
    /// claim, which has none. A claim with nothing behind it counts as five texts cut short.
    ///
    /// # Errors
    /// [`MalformedTexts::NotJson`] or [`MalformedTexts::Missing`] when not even one JSON text stands there.
    pub fn of(input: &[u8]) -> Result<Self, MalformedTexts> {
        #[derive(serde::Deserialize)]
        struct HasProgram<'a> {
            #[serde(borrow)]
            #[expect(dead_code, reason = "only its presence matters")]
            program: &'a RawValue,
        }
        match texts_of(input).next() {
            None => Err(MalformedTexts::Missing(Part::Claim)),
            Some(Err(_)) => Err(MalformedTexts::NotJson(Part::Claim)),
            Some(Ok(first)) => {
                let is_document = serde_json::from_str::<HasProgram<'_>>(first.get()).is_ok();
                Ok(if is_document { Self::Document } else { Self::FiveTexts })
            }
        }
    }
}

/// The parts of a job as raw JSON texts, borrowed from the input.
///
/// Each is one complete JSON text and of the right outer kind; the program and the non-determinism are not looked into.
#[derive(Clone, Copy)]
pub struct FiveTexts<'a> {
    claim: &'a RawValue,
    program: &'a RawValue,
    non_determinism: &'a RawValue,
    max_log2_padded_height: &'a RawValue,
    env_vars: &'a RawValue,
}

impl<'a> FiveTexts<'a> {
    /// Splits standard input.
    ///
    /// # Errors
    /// [`MalformedTexts`].
    pub fn parse(input: &'a [u8]) -> Result<Self, MalformedTexts> {
        let mut texts = texts_of(input);
        let mut next = |part| texts.next().ok_or(MalformedTexts::Missing(part))?.map_err(|_| MalformedTexts::NotJson(part));
        let [claim, program, non_determinism, limit, env_vars] = Part::ALL.map(&mut next);
        let texts_read = Self {
            claim: claim?,
            program: program?,
            non_determinism: non_determinism?,
            max_log2_padded_height: limit?,
            env_vars: env_vars?,
        };
        match texts.next() {
            None => texts_read.checked(),
            Some(_) => Err(MalformedTexts::Trailing),
        }
    }

    /// Takes texts that came one by one, in the order of [`Part::ALL`].
    ///
    /// # Errors
    /// [`MalformedTexts`].
    pub fn from_parts(parts: [&'a [u8]; 5]) -> Result<Self, MalformedTexts> {
        let mut texts = Part::ALL.into_iter().zip(parts).map(|(part, text)| {
            if text.is_empty() {
                return Err(MalformedTexts::Missing(part));
            }
            serde_json::from_slice::<&RawValue>(text).map_err(|_| MalformedTexts::NotJson(part))
        });
        let mut next = |part| texts.next().unwrap_or(Err(MalformedTexts::Missing(part)));
        let [claim, program, non_determinism, max_log2_padded_height, env_vars] = Part::ALL.map(&mut next);
        Self {
            claim: claim?,
            program: program?,
            non_determinism: non_determinism?,
            max_log2_padded_height: max_log2_padded_height?,
            env_vars: env_vars?,
        }
        .checked()
    }

    /// Takes a [`crate::ProverJob`] document apart again, for a prover that wants five texts.
    ///
    /// # Errors
    /// [`MalformedTexts`].
    pub fn of_document(document: &'a [u8]) -> Result<Self, MalformedTexts> {
        #[derive(serde::Deserialize)]
        struct Document<'a> {
            #[serde(borrow)]
            program: &'a RawValue,
            #[serde(borrow)]
            claim: &'a RawValue,
            #[serde(borrow)]
            non_determinism: &'a RawValue,
            #[serde(borrow)]
            max_log2_padded_height: &'a RawValue,
            #[serde(borrow)]
            env_vars: &'a RawValue,
        }
        let Document { program, claim, non_determinism, max_log2_padded_height, env_vars } =
            serde_json::from_slice(document).map_err(|_| MalformedTexts::NotJson(Part::Program))?;
        Self { claim, program, non_determinism, max_log2_padded_height, env_vars }.checked()
    }

    /// Writes the five texts as [`Self::parse`] reads them.
    ///
    /// # Errors
    /// The writer's.
    pub fn write_lines(&self, mut writer: impl io::Write) -> io::Result<()> {
        for (index, part) in Part::ALL.into_iter().enumerate() {
            writer.write_all(if index == 0 { b"" } else { b"\n" })?;
            writer.write_all(self.text(part).as_bytes())?;
        }
        Ok(())
    }

    fn checked(self) -> Result<Self, MalformedTexts> {
        for part in [Part::Claim, Part::Program, Part::NonDeterminism, Part::EnvVars] {
            if !self.text(part).starts_with('{') {
                return Err(MalformedTexts::WrongKind(part));
            }
        }
        self.max_log2_padded_height().map(|_| self)
    }

    /// One text as it came.
    pub fn text(&self, part: Part) -> &'a str {
        match part {
            Part::Claim => self.claim,
            Part::Program => self.program,
            Part::NonDeterminism => self.non_determinism,
            Part::MaxLog2PaddedHeight => self.max_log2_padded_height,
            Part::EnvVars => self.env_vars,
        }
        .get()
    }

    /// The claim: what identifies the job.
    ///
    /// # Errors
    /// [`MalformedTexts::WrongKind`].
    pub fn claim(&self) -> Result<Claim, MalformedTexts> {
        self.decode(Part::Claim)
    }

    /// The caller's limit.
    ///
    /// # Errors
    /// [`MalformedTexts::WrongKind`].
    pub fn max_log2_padded_height(&self) -> Result<Option<u8>, MalformedTexts> {
        self.decode(Part::MaxLog2PaddedHeight)
    }

    fn decode<T: DeserializeOwned>(&self, part: Part) -> Result<T, MalformedTexts> {
        serde_json::from_str(self.text(part)).map_err(|_| MalformedTexts::WrongKind(part))
    }

    /// Size of the document that [`Self::write_document`] writes, in bytes.
    pub fn document_len(&self) -> usize {
        self.pieces().iter().map(|piece| piece.len()).sum()
    }

    /// Writes the job as the one JSON document of [`crate::ProverJob`].
    ///
    /// # Errors
    /// The writer's.
    pub fn write_document(&self, mut writer: impl io::Write) -> io::Result<()> {
        self.pieces().into_iter().try_for_each(|piece| writer.write_all(piece.as_bytes()))
    }

    /// [`Self::write_document`] into memory.
    pub fn document(&self) -> Vec<u8> {
        self.pieces().concat().into_bytes()
    }

    // Each text is a complete JSON value, so nothing in one can reach out of its place. The order is neptune-core's.
    fn pieces(&self) -> [&'a str; 11] {
        [
            r#"{"program":"#,
            self.program.get(),
            r#","claim":"#,
            self.claim.get(),
            r#","non_determinism":"#,
            self.non_determinism.get(),
            r#","max_log2_padded_height":"#,
            self.max_log2_padded_height.get(),
            r#","env_vars":"#,
            self.env_vars.get(),
            "}",
        ]
    }
}

impl std::fmt::Debug for FiveTexts<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FiveTexts").field("bytes", &self.document_len()).finish_non_exhaustive()
    }
}

fn texts_of(input: &[u8]) -> impl Iterator<Item = serde_json::Result<&RawValue>> {
    serde_json::Deserializer::from_slice(input).into_iter::<&RawValue>()
}

#[cfg(test)]
mod tests {
    use triton_vm::prelude::*;

    use super::*;
    use crate::ProverJob;

    fn job() -> ProverJob {
        let program = triton_program!(read_io 1 divine 1 add write_io 1 halt);
        let claim = Claim::about_program(&program).with_input(bfe_vec![5]).with_output(bfe_vec![7]);
        let mut job = ProverJob::new(program, claim, NonDeterminism::new(bfe_vec![2]));
        job.max_log2_padded_height = Some(20);
        job.env_vars.insert(24, vec![("RAYON_NUM_THREADS".to_owned(), "90".to_owned())]);
        job
    }

    fn texts(job: &ProverJob) -> [String; 5] {
        [
            serde_json::to_string(&job.claim),
            serde_json::to_string(&job.program),
            serde_json::to_string(&job.non_determinism),
            serde_json::to_string(&job.max_log2_padded_height),
            serde_json::to_string(&job.env_vars),
        ]
        .map(|text| text.expect("serializes"))
    }

    #[test]
    fn five_texts_become_the_very_document() {
        let job = job();
        let texts = texts(&job);
        let stdin = texts.join("\n");
        let parsed = FiveTexts::parse(stdin.as_bytes()).expect("parses");
        assert_eq!(parsed.document(), job.to_json().expect("serializes"));
        assert_eq!(parsed.document().len(), parsed.document_len());
        assert_eq!(parsed.claim(), Ok(job.claim));
        assert_eq!(parsed.max_log2_padded_height(), Ok(Some(20)));
        let parts = texts.each_ref().map(String::as_bytes);
        assert_eq!(FiveTexts::from_parts(parts).expect("parses").document(), parsed.document());
        let document = parsed.document();
        let mut lines = Vec::new();
        FiveTexts::of_document(&document).expect("parses").write_lines(&mut lines).expect("writes");
        assert_eq!(lines, stdin.as_bytes(), "and back");
        assert!(FiveTexts::parse(format!("{stdin}\n \n").as_bytes()).is_ok(), "white space may follow");
    }

    #[test]
    fn callers_are_told_apart() {
        let job = job();
        let stdin = texts(&job).join("\n");
        assert_eq!(Shape::of(stdin.as_bytes()), Ok(Shape::FiveTexts));
        assert_eq!(Shape::of(&job.to_json().expect("serializes")), Ok(Shape::Document));
        assert_eq!(Shape::of(texts(&job)[0].as_bytes()), Ok(Shape::FiveTexts));
        assert_eq!(Shape::of(b" \n"), Err(MalformedTexts::Missing(Part::Claim)));
        assert_eq!(Shape::of(b"{\"program\":"), Err(MalformedTexts::NotJson(Part::Claim)));
    }

    #[test]
    fn each_defect_is_named_and_none_quoted() {
        let good = texts(&job());
        for (index, part) in Part::ALL.into_iter().enumerate() {
            let with = |text: &str| {
                let mut texts = good.clone();
                text.clone_into(&mut texts[index]);
                texts
            };
            let parse = |texts: &[String]| FiveTexts::parse(texts.join("\n").as_bytes()).map(|_| ());
            assert_eq!(parse(&with("\"secret\"")), Err(MalformedTexts::WrongKind(part)));
            assert_eq!(parse(&with("{]")), Err(MalformedTexts::NotJson(part)));
            assert_eq!(parse(&good[..index]), Err(MalformedTexts::Missing(part)));
            let parts = with("");
            let parts = parts.each_ref().map(String::as_bytes);
            assert_eq!(FiveTexts::from_parts(parts).map(|_| ()), Err(MalformedTexts::Missing(part)));
        }
        let longer = [good.join("\n"), "1".to_owned()].join("\n");
        assert_eq!(FiveTexts::parse(longer.as_bytes()).map(|_| ()), Err(MalformedTexts::Trailing));
        let two = [good[0].clone(), good[0].clone()].concat();
        let mut parts = good.each_ref().map(String::as_bytes);
        parts[0] = two.as_bytes();
        assert_eq!(FiveTexts::from_parts(parts).map(|_| ()), Err(MalformedTexts::NotJson(Part::Claim)));
    }

    #[test]
    fn nesting_costs_no_stack() {
        let deep = "[".repeat(1 << 20);
        assert_eq!(Shape::of(deep.as_bytes()), Err(MalformedTexts::NotJson(Part::Claim)));
        let closed = format!("{{\"a\":{deep}{}}}", "]".repeat(1 << 20));
        assert_eq!(Shape::of(closed.as_bytes()), Ok(Shape::FiveTexts));
        assert_eq!(FiveTexts::parse(closed.as_bytes()).map(|_| ()), Err(MalformedTexts::Missing(Part::Program)));
    }
}
