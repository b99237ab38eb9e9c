//! TVMP version 1: the socket between xnt-core's prover client and a prover server, one job and one answer a connection.
//!
//! All integers are little-endian. A request is the word `TVMP`, the version, a job id of the client's choice, and five JSON
//! texts ([`super::Part::ALL`]), each behind its length as `u32`. An answer is the word `TVMR`, a status, the job id, and what
//! the status calls for. Neither codec reserves memory for what a length declares: buffers grow by what arrives.

use std::io;
use std::ops::Range;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio_util::codec::{Decoder, Encoder};

use super::{FiveTexts, MAX_TEXT_BYTES, MalformedTexts, Part};
use crate::proof::MAX_PROOF_BYTES;

/// First word of a request.
pub const REQUEST_MAGIC: u32 = 0x5456_4D50;
/// First word of an answer.
pub const RESPONSE_MAGIC: u32 = 0x5456_4D52;
/// The version of the protocol.
pub const VERSION: u32 = 1;
/// Longest error message that is read, in bytes: the existing library's limit.
pub const MAX_MESSAGE_BYTES: usize = 1_000_000;

const STATUS_PROOF: u32 = 0;
const STATUS_TOO_BIG: u32 = 1;
const STATUS_ERROR: u32 = 2;
const WORD: usize = size_of::<u32>();

/// The bytes are not of this protocol.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// Another first word: this is no TVMP peer.
    #[error("the first word is {got:#010x}, not {expected:#010x}: the peer does not speak TVMP")]
    Magic {
        /// What came.
        got: u32,
        /// What should have.
        expected: u32,
    },
    /// Another version.
    #[error("TVMP version {0} is not known here, only {VERSION}")]
    Version(u32),
    /// A declared length is over the limit.
    #[error("{what} declares {declared} bytes, more than the {limit} allowed")]
    TooLong {
        /// Which part.
        what: &'static str,
        /// Its declared length.
        declared: u64,
        /// The limit.
        limit: usize,
    },
    /// The peer hung up in the middle.
    #[error("the connection ended after {0} bytes of an unfinished message")]
    Truncated(usize),
    /// Bytes behind the end of the message.
    #[error("bytes follow the message: one connection carries one job")]
    Trailing,
    /// The texts are not those of a job.
    #[error(transparent)]
    Texts(#[from] MalformedTexts),
    /// The connection failed.
    #[error("the connection failed")]
    Io(#[from] io::Error),
}

/// A job on the wire.
#[derive(Clone, PartialEq, Eq)]
pub struct Request {
    /// Chosen by the client (its process id); the answer repeats it. Names nothing outside the connection.
    pub job_id: u32,
    /// The texts in the order of [`Part::ALL`], as they came.
    pub texts: [Bytes; 5],
}

impl Request {
    /// The request that asks for `texts`.
    pub fn new(job_id: u32, texts: &FiveTexts<'_>) -> Self {
        Self { job_id, texts: Part::ALL.map(|part| Bytes::copy_from_slice(texts.text(part).as_bytes())) }
    }

    /// The texts, checked.
    ///
    /// # Errors
    /// [`FrameError::Texts`].
    pub fn five_texts(&self) -> Result<FiveTexts<'_>, FrameError> {
        Ok(FiveTexts::from_parts(self.texts.each_ref().map(AsRef::as_ref))?)
    }
}

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let lengths = self.texts.each_ref().map(Bytes::len);
        f.debug_struct("Request").field("job_id", &self.job_id).field("text_bytes", &lengths).finish()
    }
}

/// The answer to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Response {
    /// `bincode(Proof)`.
    Proof {
        /// The request's.
        job_id: u32,
        /// The encoded proof.
        proof: Bytes,
    },
    /// Over the request's limit.
    PaddedHeightTooBig {
        /// The request's.
        job_id: u32,
        /// The job's exact height.
        log2_padded_height: u32,
    },
    /// No proof. Clients take any unknown status for this one.
    Error {
        /// The request's; 0 when it could not be read.
        job_id: u32,
        /// For people.
        message: String,
    },
}

/// The server's side of the codec: reads [`Request`]s and writes [`Response`]s.
#[derive(Debug, Default)]
pub struct ServerCodec {
    /// Where each complete text lies behind the header, and where the next length stands.
    texts: Vec<Range<usize>>,
    done: bool,
}

/// The client's side of the codec: writes [`Request`]s and reads [`Response`]s.
#[derive(Debug, Default)]
pub struct ClientCodec {
    done: bool,
}

const REQUEST_HEADER: usize = 3 * WORD;
const RESPONSE_HEADER: usize = 3 * WORD;

fn word_at(source: &[u8], at: usize) -> Option<u32> {
    source.get(at..)?.first_chunk().copied().map(u32::from_le_bytes)
}

fn check_magic(source: &[u8], expected: u32) -> Result<Option<()>, FrameError> {
    match word_at(source, 0) {
        Some(got) if got != expected => Err(FrameError::Magic { got, expected }),
        found => Ok(found.map(|_| ())),
    }
}

fn check_length(what: &'static str, declared: u64, limit: usize) -> Result<usize, FrameError> {
    match usize::try_from(declared) {
        Ok(length) if length <= limit => Ok(length),
        _ => Err(FrameError::TooLong { what, declared, limit }),
    }
}

impl ServerCodec {
    fn read(&mut self, source: &mut BytesMut) -> Result<Option<Request>, FrameError> {
        if check_magic(source, REQUEST_MAGIC)?.is_none() {
            return Ok(None);
        }
        match word_at(source, WORD) {
            None => return Ok(None),
            Some(VERSION) => (),
            Some(other) => return Err(FrameError::Version(other)),
        }
        let Some(job_id) = word_at(source, 2 * WORD) else { return Ok(None) };
        // What was found complete stays found: a slow client does not make the scan quadratic.
        while let Some(&part) = Part::ALL.get(self.texts.len()) {
            let at = self.texts.last().map_or(REQUEST_HEADER, |text| text.end);
            let Some(declared) = word_at(source, at) else { return Ok(None) };
            let length = check_length(part.name(), declared.into(), MAX_TEXT_BYTES)?;
            let text = at + WORD..at + WORD + length;
            if source.len() < text.end {
                return Ok(None);
            }
            self.texts.push(text);
        }
        let end = self.texts.last().map_or(REQUEST_HEADER, |text| text.end);
        if source.len() > end {
            return Err(FrameError::Trailing);
        }
        let message = source.split_to(end).freeze();
        let mut ranges = self.texts.drain(..);
        let texts = Part::ALL.map(|_| ranges.next().map(|range| message.slice(range)).unwrap_or_default());
        Ok(Some(Request { job_id, texts }))
    }
}

impl Decoder for ServerCodec {
    type Item = Request;
    type Error = FrameError;

    fn decode(&mut self, source: &mut BytesMut) -> Result<Option<Request>, FrameError> {
        if self.done {
            return if source.is_empty() { Ok(None) } else { Err(FrameError::Trailing) };
        }
        let request = self.read(source)?;
        self.done = request.is_some();
        Ok(request)
    }

    fn decode_eof(&mut self, source: &mut BytesMut) -> Result<Option<Request>, FrameError> {
        match self.decode(source)? {
            // A probe that connects and hangs up is no error.
            None if source.is_empty() => Ok(None),
            None => Err(FrameError::Truncated(source.len())),
            request => Ok(request),
        }
    }
}

impl Encoder<Response> for ServerCodec {
    type Error = FrameError;

    fn encode(&mut self, response: Response, target: &mut BytesMut) -> Result<(), FrameError> {
        target.put_u32_le(RESPONSE_MAGIC);
        match response {
            Response::Proof { job_id, proof } => {
                target.put_u32_le(STATUS_PROOF);
                target.put_u32_le(job_id);
                target.put_u64_le(proof.len() as u64);
                target.put(proof);
            }
            Response::PaddedHeightTooBig { job_id, log2_padded_height } => {
                target.put_u32_le(STATUS_TOO_BIG);
                target.put_u32_le(job_id);
                target.put_u32_le(log2_padded_height);
            }
            Response::Error { job_id, mut message } => {
                message.truncate(message.floor_char_boundary(MAX_MESSAGE_BYTES));
                target.put_u32_le(STATUS_ERROR);
                target.put_u32_le(job_id);
                target.put_u32_le(message.len() as u32);
                target.put(message.as_bytes());
            }
        }
        Ok(())
    }
}

impl ClientCodec {
    fn read(source: &mut BytesMut) -> Result<Option<Response>, FrameError> {
        if check_magic(source, RESPONSE_MAGIC)?.is_none() {
            return Ok(None);
        }
        let (Some(status), Some(job_id)) = (word_at(source, WORD), word_at(source, 2 * WORD)) else { return Ok(None) };
        let body = &source[RESPONSE_HEADER..];
        if status == STATUS_TOO_BIG {
            let Some(log2_padded_height) = word_at(body, 0) else { return Ok(None) };
            source.advance(RESPONSE_HEADER + WORD);
            return Ok(Some(Response::PaddedHeightTooBig { job_id, log2_padded_height }));
        }
        let (prefix, length) = if status == STATUS_PROOF {
            let Some(declared) = body.first_chunk().copied().map(u64::from_le_bytes) else { return Ok(None) };
            (2 * WORD, check_length("the proof", declared, MAX_PROOF_BYTES)?)
        } else {
            let Some(declared) = word_at(body, 0) else { return Ok(None) };
            (WORD, check_length("the error message", declared.into(), MAX_MESSAGE_BYTES)?)
        };
        if body.len() < prefix + length {
            return Ok(None);
        }
        source.advance(RESPONSE_HEADER + prefix);
        let payload = source.split_to(length).freeze();
        Ok(Some(if status == STATUS_PROOF {
            Response::Proof { job_id, proof: payload }
        } else {
            Response::Error { job_id, message: String::from_utf8_lossy(&payload).into_owned() }
        }))
    }
}

impl Decoder for ClientCodec {
    type Item = Response;
    type Error = FrameError;

    fn decode(&mut self, source: &mut BytesMut) -> Result<Option<Response>, FrameError> {
        if self.done {
            return if source.is_empty() { Ok(None) } else { Err(FrameError::Trailing) };
        }
        let response = Self::read(source)?;
        self.done = response.is_some();
        Ok(response)
    }

    fn decode_eof(&mut self, source: &mut BytesMut) -> Result<Option<Response>, FrameError> {
        match self.decode(source)? {
            None if source.is_empty() => Ok(None),
            None => Err(FrameError::Truncated(source.len())),
            response => Ok(response),
        }
    }
}

impl Encoder<Request> for ClientCodec {
    type Error = FrameError;

    fn encode(&mut self, request: Request, target: &mut BytesMut) -> Result<(), FrameError> {
        for (part, text) in Part::ALL.into_iter().zip(&request.texts) {
            check_length(part.name(), text.len() as u64, MAX_TEXT_BYTES)?;
        }
        target.put_u32_le(REQUEST_MAGIC);
        target.put_u32_le(VERSION);
        target.put_u32_le(request.job_id);
        for text in request.texts {
            target.put_u32_le(text.len() as u32);
            target.put(text);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> Request {
        let texts = ["{\"claim\":1}", "{\"program\":2}", "{}", "null", "{}"];
        Request { job_id: 4711, texts: texts.map(|text| Bytes::from_static(text.as_bytes())) }
    }

    fn wire_of_request() -> BytesMut {
        let mut wire = BytesMut::new();
        ClientCodec::default().encode(request(), &mut wire).expect("encodes");
        wire
    }

    fn responses() -> [Response; 4] {
        [
            Response::Proof { job_id: 7, proof: Bytes::from_static(&[1, 2, 3]) },
            Response::Proof { job_id: 7, proof: Bytes::new() },
            Response::PaddedHeightTooBig { job_id: 7, log2_padded_height: 22 },
            Response::Error { job_id: 0, message: "no device is ready".to_owned() },
        ]
    }

    #[test]
    fn the_bytes_are_those_of_the_description() {
        let wire = wire_of_request();
        assert_eq!(&wire[..12], b"PMVT\x01\0\0\0\x67\x12\0\0");
        assert_eq!(&wire[12..16], b"\x0b\0\0\0");
        assert_eq!(&wire[16..27], b"{\"claim\":1}");
        let mut wire = BytesMut::new();
        ServerCodec::default().encode(responses()[0].clone(), &mut wire).expect("encodes");
        assert_eq!(&wire[..], b"RMVT\0\0\0\0\x07\0\0\0\x03\0\0\0\0\0\0\0\x01\x02\x03");
        let mut wire = BytesMut::new();
        ServerCodec::default().encode(responses()[2].clone(), &mut wire).expect("encodes");
        assert_eq!(&wire[..], b"RMVT\x01\0\0\0\x07\0\0\0\x16\0\0\0");
    }

    #[test]
    fn messages_arrive_in_any_pieces() {
        let whole = wire_of_request();
        for step in [1, 2, 5, 13, whole.len()] {
            let (mut codec, mut source, mut got) = (ServerCodec::default(), BytesMut::new(), None);
            for piece in whole.chunks(step) {
                assert!(got.is_none());
                source.extend_from_slice(piece);
                got = codec.decode(&mut source).expect("decodes");
            }
            assert_eq!(got, Some(request()));
            assert!(matches!(codec.decode_eof(&mut source), Ok(None)));
        }
        for response in responses() {
            let mut wire = BytesMut::new();
            ServerCodec::default().encode(response.clone(), &mut wire).expect("encodes");
            let (mut codec, mut source, mut got) = (ClientCodec::default(), BytesMut::new(), None);
            for byte in wire {
                source.put_u8(byte);
                got = codec.decode(&mut source).expect("decodes");
            }
            assert_eq!(got, Some(response));
        }
    }

    #[test]
    fn hang_ups_are_told_from_probes() {
        assert!(matches!(ServerCodec::default().decode_eof(&mut BytesMut::new()), Ok(None)));
        let whole = wire_of_request();
        for cut in 1..whole.len() {
            let mut source = BytesMut::from(&whole[..cut]);
            let got = ServerCodec::default().decode_eof(&mut source);
            assert!(matches!(got, Err(FrameError::Truncated(bytes)) if bytes == cut), "{got:?}");
        }
    }

    #[test]
    fn foreign_words_and_lengths_are_refused_at_once() {
        let decode = |bytes: &[u8]| ServerCodec::default().decode(&mut BytesMut::from(bytes));
        assert!(matches!(decode(b"GET / HTTP/1.1\r\n"), Err(FrameError::Magic { .. })));
        assert!(matches!(decode(b"PMVT\x02\0\0\0"), Err(FrameError::Version(2))));
        let declares = |length: u32| [b"PMVT\x01\0\0\0\0\0\0\0".as_slice(), &length.to_le_bytes()].concat();
        assert!(matches!(decode(&declares(u32::MAX)), Err(FrameError::TooLong { declared: 0xFFFF_FFFF, .. })));
        let mut source = BytesMut::from(declares(MAX_TEXT_BYTES as u32).as_slice());
        let before = source.capacity();
        assert!(matches!(ServerCodec::default().decode(&mut source), Ok(None)));
        assert_eq!(source.capacity(), before, "nothing is reserved for a declared length");
        let mut longer = wire_of_request();
        longer.put_u8(0);
        assert!(matches!(decode(&longer), Err(FrameError::Trailing)));
        let proof = [b"RMVT\0\0\0\0\0\0\0\0".as_slice(), &u64::MAX.to_le_bytes()].concat();
        let got = ClientCodec::default().decode(&mut BytesMut::from(proof.as_slice()));
        assert!(matches!(got, Err(FrameError::TooLong { .. })));
    }

    #[test]
    fn unknown_statuses_are_errors_and_long_messages_are_cut() {
        let wire = b"RMVT\x63\0\0\0\x07\0\0\0\x02\0\0\0no";
        let got = ClientCodec::default().decode(&mut BytesMut::from(wire.as_slice())).expect("decodes");
        assert_eq!(got, Some(Response::Error { job_id: 7, message: "no".to_owned() }));
        let long = Response::Error { job_id: 1, message: "é".repeat(MAX_MESSAGE_BYTES) };
        let mut wire = BytesMut::new();
        ServerCodec::default().encode(long, &mut wire).expect("encodes");
        let got = ClientCodec::default().decode(&mut wire).expect("decodes");
        let Some(Response::Error { message, .. }) = got else { panic!("no error but {got:?}") };
        assert_eq!(message.len(), MAX_MESSAGE_BYTES);
    }
}
