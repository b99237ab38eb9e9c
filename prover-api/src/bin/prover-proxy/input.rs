//! Standard input: which node speaks, and what it wants.

use std::io::{self, Read};

use prover_api::client::JobBody;
use prover_api::framing::{FiveTexts, MalformedTexts, Shape};
use prover_api::{MAX_JOB_BYTES, MalformedJob};

/// Why standard input is no job.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    /// It could not be read.
    #[error("standard input cannot be read: {0}")]
    Io(#[from] io::Error),
    /// It does not end.
    #[error("standard input has more than {MAX_JOB_BYTES} bytes")]
    TooLong,
    /// Not five texts.
    #[error("standard input holds no job: {0}")]
    Texts(#[from] MalformedTexts),
    /// Not a document.
    #[error("standard input holds no job: {0}")]
    Document(#[from] MalformedJob),
}

/// A job and in which form it came.
#[derive(Debug)]
pub struct Input {
    /// The job as one document, whatever form it came in.
    pub body: JobBody,
    /// The form.
    pub shape: Shape,
}

impl Input {
    /// Reads a job to its end.
    ///
    /// # Errors
    /// [`InputError`].
    pub fn read(source: impl Read) -> Result<Self, InputError> {
        // Its length is not known, and a buffer that grows by copying holds the job twice while it does. Memory that is reserved and
        // never touched is none; where even that is refused, growing has to do.
        let mut bytes = Vec::new();
        let _or_grow = bytes.try_reserve_exact(MAX_JOB_BYTES + 1);
        source.take(MAX_JOB_BYTES as u64 + 1).read_to_end(&mut bytes)?;
        if bytes.len() > MAX_JOB_BYTES {
            return Err(InputError::TooLong);
        }
        Self::parse(bytes)
    }

    fn parse(bytes: Vec<u8>) -> Result<Self, InputError> {
        let shape = Shape::of(&bytes)?;
        let document = match shape {
            Shape::Document => bytes,
            Shape::FiveTexts => FiveTexts::parse(&bytes)?.document(),
        };
        Ok(Self { body: JobBody::from_json(document)?, shape })
    }

    /// Writes the job as it came.
    ///
    /// # Errors
    /// The writer's.
    pub fn write_as_it_came(&self, mut writer: impl io::Write) -> io::Result<()> {
        match self.shape {
            Shape::Document => writer.write_all(self.body.json()),
            Shape::FiveTexts => FiveTexts::of_document(self.body.json()).map_err(io::Error::other)?.write_lines(writer),
        }
    }
}
