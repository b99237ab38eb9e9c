//! Fuzzing of everything that reads foreign bytes, on the stable toolchain: mutations of a stored corpus (`fuzz/corpus`).
//!
//! There is no coverage to guide it; instead each target tells what became of an input, and inputs with a new fate join the pool.
//! `FUZZ_SECONDS` is the time for each target (default 2), `FUZZ_SEED` repeats a run. `FUZZ_WRITE_CORPUS=1` writes the seeds anew.

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use prover_api::client::JobBody;
use prover_api::framing::tvmp::{ClientCodec, Request, Response, ServerCodec};
use prover_api::framing::{FiveTexts, Shape};
use prover_api::{JobId, ProverJob};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tokio_util::codec::{Decoder, Encoder};
use triton_vm::prelude::*;

/// What became of an input: equal for inputs that took the same way.
type Fate = String;

/// Words that the formats give a meaning.
const DICTIONARY: &[&[u8]] = &[
    b"{",
    b"}",
    b"[",
    b"]",
    b"\"",
    b":",
    b",",
    b"\n",
    b"null",
    b"true",
    b"-1",
    b"0",
    b"18446744069414584321",
    b"1e400",
    b"18446744073709551615",
    b"\\u0000",
    b"\"program\":",
    b"\"claim\":",
    b"\"non_determinism\":",
    b"\"env_vars\":{}",
    b"\"max_log2_padded_height\":255",
    b"\"version\":8",
    b"\"Push\"",
    b"\"Halt\"",
    b"PMVT",
    b"RMVT",
    b"\xff\xff\xff\xff",
    b"\x00\x00\x00\x80",
    b"\x00\xe1\xf5\x05",
    b"\x01\xe1\xf5\x05",
    b"\xff\xff\xff\xff\xff\xff\xff\xff",
];
/// Longer inputs find nothing that shorter ones do not.
const LONGEST: usize = 16 << 10;

fn corpus_folder(target: &str) -> PathBuf {
    // Of this run: a build cache that several checkouts share may hold a binary that was compiled in another one.
    let package = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    PathBuf::from(package).join("fuzz/corpus").join(target)
}

fn seconds() -> f64 {
    std::env::var("FUZZ_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(2.0)
}

fn corpus(target: &str, seeds: &[(&str, Vec<u8>)]) -> Vec<Vec<u8>> {
    let folder = corpus_folder(target);
    if std::env::var_os("FUZZ_WRITE_CORPUS").is_some() {
        std::fs::create_dir_all(&folder).expect("makes the folder");
        for (name, bytes) in seeds {
            std::fs::write(folder.join(name), bytes).expect("writes");
        }
    }
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(&folder).expect("has a folder").map(|entry| entry.expect("is readable").path()).collect();
    files.sort();
    assert!(files.len() >= seeds.len(), "{}: the stored corpus is not complete", folder.display());
    files.iter().map(|path| std::fs::read(path).expect("is readable")).collect()
}

fn fuzz(target: &str, seeds: &[(&str, Vec<u8>)], check: impl Fn(&[u8]) -> Fate) {
    let mut pool = corpus(target, seeds);
    let seed = std::env::var("FUZZ_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or_else(rand::random::<u64>);
    let mut rng = SmallRng::seed_from_u64(seed);
    let run = |input: &[u8]| {
        catch_unwind(AssertUnwindSafe(|| check(input))).unwrap_or_else(|_| {
            let path = std::env::temp_dir().join(format!("fuzz-{target}-{seed}"));
            drop(std::fs::write(&path, input));
            panic!("FUZZ_SEED={seed}: {target} fails on {}; keep it in fuzz/corpus/{target}", path.display());
        })
    };
    let mut fates: HashSet<Fate> = pool.iter().map(|input| run(input)).collect();
    let end = Instant::now() + Duration::from_secs_f64(seconds());
    let mut runs = 0_u64;
    while Instant::now() < end {
        for _ in 0..64 {
            let input = mutated(&pool, &mut rng);
            runs += 1;
            if fates.insert(run(&input)) && pool.len() < 4_096 {
                pool.push(input);
            }
        }
    }
    println!("{target}: {runs} inputs, {} fates, seed {seed}", fates.len());
    assert!(fates.len() > 3, "{target}: mutations reach nothing: {fates:?}");
}

fn mutated(pool: &[Vec<u8>], rng: &mut SmallRng) -> Vec<u8> {
    let mut bytes = pool[rng.random_range(..pool.len())].clone();
    for _ in 0..rng.random_range(1..=4) {
        let at = rng.random_range(..=bytes.len());
        let to = rng.random_range(at..=bytes.len().min(at + 64));
        match rng.random_range(0..8) {
            0 if at < bytes.len() => bytes[at] ^= 1 << rng.random_range(0..8),
            1 if at < bytes.len() => bytes[at] = rng.random(),
            2 => drop(bytes.drain(at..to)),
            3 => {
                let copy = bytes[at..to].to_vec();
                let target = rng.random_range(..=bytes.len());
                bytes.splice(target..target, copy);
            }
            4 => {
                let word = DICTIONARY[rng.random_range(..DICTIONARY.len())];
                bytes.splice(at..at, word.iter().copied());
            }
            5 => {
                let word = DICTIONARY[rng.random_range(..DICTIONARY.len())];
                let end = bytes.len().min(at + word.len());
                bytes.splice(at..end, word.iter().copied());
            }
            6 => bytes.truncate(at),
            _ => {
                let other = &pool[rng.random_range(..pool.len())];
                let from = rng.random_range(..=other.len());
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
        }
    }
    bytes.truncate(LONGEST);
    bytes
}

fn jobs() -> Vec<ProverJob> {
    let small = {
        let program = triton_program!(halt);
        ProverJob::new(program.clone(), Claim::about_program(&program), NonDeterminism::default())
    };
    let rich = {
        let program = triton_program!(read_io 1 divine 1 add push 3 call double write_io 1 halt double: push 2 mul return);
        let claim = Claim::about_program(&program).with_input(bfe_vec![5]).with_output(bfe_vec![7]);
        let witness = NonDeterminism::new(bfe_vec![2]).with_ram([(bfe!(1), bfe!(2)), (bfe!(3), bfe!(4))]);
        let witness = witness.with_digests([Digest::default(), Digest::new(bfe_array![1, 2, 3, 4, 5])]);
        let mut job = ProverJob::new(program, claim, witness);
        job.max_log2_padded_height = Some(20);
        job.env_vars.insert(24, vec![("TVM_LDE_TRACE".to_owned(), "cache".to_owned())]);
        job
    };
    vec![small, rich]
}

fn documents() -> Vec<Vec<u8>> {
    jobs().iter().map(|job| job.to_json().expect("encodes")).collect()
}

fn lines(document: &[u8]) -> Vec<u8> {
    let mut lines = Vec::new();
    FiveTexts::of_document(document).expect("parses").write_lines(&mut lines).expect("writes");
    lines
}

#[test]
fn job_documents() {
    let documents = documents();
    let seeds = [("small", documents[0].clone()), ("rich", documents[1].clone())];
    fuzz("job", &seeds, |input| match ProverJob::from_json(input) {
        Ok(job) => {
            let again = job.to_json().expect("encodes");
            let back = ProverJob::from_json(&again).expect("what was written is read");
            assert_eq!(back.claim, job.claim);
            // Who only looks at the claim sees the same job. It also insists on UTF-8 in what it does not look at.
            match JobBody::from_json(input.to_vec()) {
                Ok(body) => {
                    let seen = (body.id(), body.max_log2_padded_height());
                    assert_eq!(seen, (job.id(), job.max_log2_padded_height));
                }
                Err(error) => assert!(str::from_utf8(input).is_err(), "the envelope of a job is not read: {error}"),
            }
            assert_eq!(JobBody::from_json(again).expect("reads").id(), job.id());
            format!("job {:?} {}", job.max_log2_padded_height, job.program.len_bwords().min(32))
        }
        Err(error) => {
            let text = error.to_string();
            let kind = text.split(" at line").next().unwrap_or_default();
            format!("{kind} {}", JobBody::from_json(input.to_vec()).is_ok())
        }
    });
}

#[test]
fn five_texts() {
    let documents = documents();
    let seeds = [("small", lines(&documents[0])), ("rich", lines(&documents[1])), ("document", documents[1].clone())];
    fuzz("five_texts", &seeds, |input| {
        let shape = Shape::of(input);
        match FiveTexts::parse(input) {
            Ok(texts) => {
                assert!(shape.is_ok(), "five texts have a shape");
                let document = texts.document();
                assert_eq!(document.len(), texts.document_len());
                let apart = FiveTexts::of_document(&document).expect("a document comes apart again");
                assert_eq!(apart.document(), document);
                let mut lines = Vec::new();
                apart.write_lines(&mut lines).expect("writes");
                assert_eq!(FiveTexts::parse(&lines).expect("parses").document(), document);
                let claim = texts.claim();
                if let Ok(claim) = &claim {
                    let body = JobBody::from_json(document).expect("the envelope of a job is read");
                    assert_eq!(body.id(), JobId::of(claim));
                }
                format!("{shape:?} {:?} {}", texts.max_log2_padded_height(), claim.is_ok())
            }
            Err(error) => format!("{shape:?} {error}"),
        }
    });
}

fn request(job_id: u32, document: &[u8]) -> Vec<u8> {
    let mut wire = BytesMut::new();
    let texts = FiveTexts::of_document(document).expect("parses");
    ClientCodec::default().encode(Request::new(job_id, &texts), &mut wire).expect("encodes");
    wire.to_vec()
}

fn response(response: Response) -> Vec<u8> {
    let mut wire = BytesMut::new();
    ServerCodec::default().encode(response, &mut wire).expect("encodes");
    wire.to_vec()
}

/// Decodes in pieces, whose sizes the input itself decides, up to the first message or error.
fn decode<D: Decoder>(mut codec: D, input: &[u8]) -> Result<Option<D::Item>, D::Error> {
    let mut source = BytesMut::new();
    let mut rest = input;
    while !rest.is_empty() {
        let (piece, behind) = rest.split_at(rest.len().min(1 + usize::from(rest[0])));
        source.extend_from_slice(piece);
        rest = behind;
        let message = codec.decode(&mut source)?;
        assert!(source.capacity() <= 4 * LONGEST, "a declared length was reserved");
        if message.is_some() {
            // What follows one message is refused.
            source.extend_from_slice(rest);
            return codec.decode(&mut source).map(|_| message);
        }
    }
    codec.decode_eof(&mut source)
}

#[test]
fn tvmp_requests() {
    let documents = documents();
    let seeds = [("small", request(1, &documents[0])), ("rich", request(u32::MAX, &documents[1])), ("probe", Vec::new())];
    fuzz("tvmp_request", &seeds, |input| match decode(ServerCodec::default(), input) {
        Ok(Some(request)) => {
            let mut wire = BytesMut::new();
            ClientCodec::default().encode(request.clone(), &mut wire).expect("encodes");
            assert_eq!(wire, input, "one message has one encoding");
            match request.five_texts() {
                Ok(texts) => format!("texts {:?}", texts.claim().is_ok()),
                Err(error) => error.to_string(),
            }
        }
        Ok(None) => "nothing".to_owned(),
        Err(error) => error.to_string().chars().filter(|c| !c.is_ascii_hexdigit()).take(60).collect(),
    });
}

#[test]
fn tvmp_responses() {
    let seeds = [
        ("proof", response(Response::Proof { job_id: 7, proof: bytes::Bytes::from_static(&[2, 0, 0, 0, 0, 0, 0, 0, 1, 2]) })),
        ("too_big", response(Response::PaddedHeightTooBig { job_id: 7, log2_padded_height: 23 })),
        ("error", response(Response::Error { job_id: 0, message: "no device is ready".to_owned() })),
    ];
    fuzz("tvmp_response", &seeds, |input| match decode(ClientCodec::default(), input) {
        Ok(Some(message)) => {
            let kind = std::mem::discriminant(&message);
            let again = response(message.clone());
            assert_eq!(decode(ClientCodec::default(), &again).expect("decodes"), Some(message));
            format!("{kind:?} {}", again.len().min(40))
        }
        Ok(None) => "nothing".to_owned(),
        Err(error) => error.to_string().chars().filter(|c| !c.is_ascii_hexdigit()).take(60).collect(),
    });
}
