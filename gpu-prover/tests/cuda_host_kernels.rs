//! The kernels' device functions, compiled for the host and held against twenty-first and triton-vm. Needs a C++
//! compiler, no GPU; without one the tests say so and pass.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use gpu_prover::aux_table;
use gpu_prover::main_table::MainTable;
use gpu_prover::matrix::Matrix;
use libloading::{Library, Symbol};
use ndarray::{Array2, ArrayView1, Axis, ShapeBuilder};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rayon::prelude::*;
use triton_vm::challenges::Challenges;
use triton_vm::prelude::{BFieldElement, Claim, Program, Tip5, XFieldElement};
use triton_vm::table::auxiliary_table::Evaluable;
use triton_vm::table::degree_lowering::DegreeLoweringTable;
use triton_vm::table::master_table::{MasterAuxTable, MasterMainTable};
use twenty_first::math::ntt::ntt;
use twenty_first::prelude::Sponge;

const P: u64 = BFieldElement::P;

/// The library with all device functions, compiled once. `None`, with the reason printed, without a compiler.
fn library() -> Option<&'static Library> {
    static LIBRARY: OnceLock<Option<Library>> = OnceLock::new();
    LIBRARY
        .get_or_init(|| {
            let compiler = std::env::var("CXX").unwrap_or_else(|_| "g++".into());
            if Command::new(&compiler).arg("--version").output().is_err() {
                println!("skipped: no C++ compiler ({compiler})");
                return None;
            }
            let path = build(&compiler);
            // SAFETY: our own code, without initializers.
            Some(unsafe { Library::new(path) }.expect("the library that was just linked loads"))
        })
        .as_ref()
}

fn generated() -> &'static Path {
    Path::new(env!("GPU_PROVER_GENERATED"))
}

/// The generated `.cu` files' names without extension.
fn generated_kernels() -> Vec<String> {
    let entries = generated().read_dir().expect("build.rs made the folder");
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut names: Vec<String> = names.filter_map(|name| Some(name.strip_suffix(".cu")?.to_owned())).collect();
    names.sort();
    names
}

/// Compiles and links, several files at a time.
fn build(compiler: &str) -> PathBuf {
    // Of this run: a build cache that several checkouts share may hold a binary that was compiled in another one.
    let package = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    let kernels = Path::new(&package).join("kernels");
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join("host-kernels");
    std::fs::create_dir_all(&out).expect("the target folder is writable");
    let mut sources = vec![(kernels.join("host_tests.cpp"), "-O2")];
    // Straight-line code that runs on a few rows: compile time is what counts.
    sources.extend(generated_kernels().iter().map(|name| (generated().join(format!("{name}.cu")), "-O0")));
    let objects: Vec<PathBuf> = sources
        .par_iter()
        .map(|(source, optimization)| {
            let object = out.join(source.file_stem().expect("sources have names")).with_extension("o");
            let output = Command::new(compiler)
                .args(["-std=c++17", "-fPIC", "-w", "-x", "c++", "-c", optimization, "-I"])
                .arg(&kernels)
                .arg("-I")
                .arg(generated())
                .arg(source)
                .arg("-o")
                .arg(&object)
                .output()
                .expect("the compiler runs");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            object
        })
        .collect();
    let library = out.join("libhost_kernels.so");
    let output = Command::new(compiler).arg("-shared").args(&objects).arg("-o").arg(&library).output();
    let output = output.expect("the compiler runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    library
}

/// A function of the library. The caller names its type.
fn function<T>(library: &'static Library, name: &str) -> Symbol<'static, T> {
    // SAFETY: each caller gives the type that the function is defined with.
    unsafe { library.get(name.as_bytes()) }.expect("the library defines all functions that the tests call")
}

/// Words on every edge of the representation, and random ones.
fn interesting_words(rng: &mut StdRng) -> Vec<u64> {
    let mut words = vec![0, 1, 2, P - 1, P - 2, 0xffff_ffff, 0xffff_fffe, 1 << 32, (1 << 32) + 1, 1 << 63, P >> 1];
    words.extend((0..30).map(|_| rng.random::<u64>()));
    words
}

/// The element of a word that need not be canonical.
fn element(word: u64) -> BFieldElement {
    BFieldElement::from_raw_u64(if word >= P { word - P } else { word })
}

fn raw(x: XFieldElement) -> [u64; 3] {
    x.coefficients.map(|c| c.raw_u64())
}

#[test]
fn base_field_operations_agree_with_twenty_first() {
    let Some(library) = library() else { return };
    let operation = function::<unsafe extern "C" fn(u64, u64, *mut u64)>(library, "host_base");
    let mut rng = StdRng::seed_from_u64(1);
    let mut any = interesting_words(&mut rng);
    any.extend([P, P + 1, u64::MAX, u64::MAX - 1]);
    for &a in &any {
        for &b in &any {
            let b = element(b);
            let mut out = [0; 11];
            // SAFETY: the function writes eleven words.
            unsafe { operation(a, b.raw_u64(), out.as_mut_ptr()) };
            let x = element(a);
            let inverse = if x == BFieldElement::new(0) { x } else { x.inverse() };
            let expected = [x, x + b, x - b, x + b, x - b, -x, -x, x * b, x * b, inverse, x * x];
            assert_eq!(out, expected.map(|e| e.raw_u64()), "{a:#x}, {b}");
        }
    }
}

#[test]
fn inner_products_by_bytes_agree_with_those_of_elements() {
    type InnerProducts = unsafe extern "C" fn(*const u64, u64, *const u64, u64, *mut u64);
    let Some(library) = library() else { return };
    let inner_products = function::<InnerProducts>(library, "host_inner_products");
    let mut rng = StdRng::seed_from_u64(3);
    // The longest sum whose bytes fit, of the greatest words that there are, too.
    for (length, greatest) in [(32, false), (1 << 10, false), (1 << 15, false), (1 << 15, true)] {
        let mut words = |n: usize| -> Vec<u64> { (0..n).map(|_| if greatest { u64::MAX } else { rng.random() }).collect() };
        let (columns, powers) = (words(2 * length), words(length));
        let mut out = [0; 2];
        // SAFETY: two columns and the powers of that length, two words.
        unsafe { inner_products(columns.as_ptr(), length as u64, powers.as_ptr(), length as u64, out.as_mut_ptr()) };
        for (column, got) in columns.chunks_exact(length).zip(out) {
            let expected: BFieldElement = column.iter().zip(&powers).map(|(&a, &b)| element(a) * element(b)).sum();
            assert_eq!(got, expected.raw_u64(), "{length}");
        }
    }
}

#[test]
fn unreduced_sums_agree_with_reduced_ones() {
    type Accumulate = unsafe extern "C" fn(*const u64, *const u64, u64, *const u64, u64, *const u64, u64) -> u64;
    let Some(library) = library() else { return };
    let accumulate = function::<Accumulate>(library, "host_accumulate");
    let sum = function::<unsafe extern "C" fn(*const u64, u64, *const u64, u64) -> u64>(library, "host_sum");
    let mut rng = StdRng::seed_from_u64(2);
    for (products, singles, others) in [(0, 0, 0), (1, 0, 0), (0, 0, 1), (3, 2, 5), (700, 100, 300), (0, 1, 64)] {
        for greatest in [false, true] {
            let mut words = |n: usize| (0..n).map(|_| if greatest { u64::MAX } else { rng.random() }).collect::<Vec<u64>>();
            let (a, b, plus, minus) = (words(products), words(products), words(singles), words(others));
            let total = |words: &[u64]| words.iter().map(|&w| element(w)).sum::<BFieldElement>();
            let expected_products: BFieldElement = a.iter().zip(&b).map(|(&a, &b)| element(a) * element(b)).sum();
            let difference = total(&plus) - total(&minus);
            let (num, num_others) = (plus.len() as u64, minus.len() as u64);
            // SAFETY: pointers and lengths belong together.
            let (got, got_sum) = unsafe {
                (
                    accumulate(a.as_ptr(), b.as_ptr(), a.len() as u64, plus.as_ptr(), num, minus.as_ptr(), num_others),
                    sum(plus.as_ptr(), num, minus.as_ptr(), num_others),
                )
            };
            assert_eq!(got, (expected_products + difference).raw_u64(), "{products} {singles} {others}");
            assert_eq!(got_sum, difference.raw_u64(), "{singles} {others}");
        }
    }
}

#[test]
fn extension_field_operations_agree_with_twenty_first() {
    type Operation = unsafe extern "C" fn(*const u64, *const u64, *mut u64, *mut u64);
    let Some(library) = library() else { return };
    let operation = function::<Operation>(library, "host_extension");
    let mut rng = StdRng::seed_from_u64(3);
    let edges = [[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [P - 1, P - 1, P - 1], [0xffff_ffff, 1 << 32, 0]];
    let mut elements: Vec<XFieldElement> =
        edges.iter().map(|e| XFieldElement::new(e.map(BFieldElement::from_raw_u64))).collect();
    elements.extend((0..40).map(|_| rng.random::<XFieldElement>()));
    for &x in &elements {
        for &y in &elements {
            let (mut product, mut inverse) = ([0; 3], [0; 3]);
            // SAFETY: the function reads and writes three words each.
            unsafe { operation(raw(x).as_ptr(), raw(y).as_ptr(), product.as_mut_ptr(), inverse.as_mut_ptr()) };
            assert_eq!(product, raw(x * y), "{x} * {y}");
            let zero = XFieldElement::new([BFieldElement::new(0); 3]);
            assert_eq!(inverse, raw(if x == zero { zero } else { x.inverse() }), "1 / {x}");
        }
    }
}

#[test]
fn the_permutation_agrees_with_twenty_first() {
    let Some(library) = library() else { return };
    let permutation = function::<unsafe extern "C" fn(*mut u64)>(library, "host_tip5");
    let mut rng = StdRng::seed_from_u64(4);
    let mut state = Tip5::init();
    for round in 0..100 {
        if round % 10 == 0 {
            state.state = std::array::from_fn(|_| rng.random());
            state.state[round / 10] = BFieldElement::from_raw_u64(P - 1);
        }
        let mut ours = state.state.map(|e| e.raw_u64());
        state.permutation();
        // SAFETY: the function permutes sixteen words.
        unsafe { permutation(ours.as_mut_ptr()) };
        assert_eq!(ours, state.state.map(|e| e.raw_u64()));
    }
}

/// The heap of twiddles that `ntt.cuh` describes, from its definition.
fn twiddles(log: u32, offset: BFieldElement, inverse: bool) -> Vec<u64> {
    let mut heap = vec![0; 1 << log];
    for half in (0..log).map(|level| 1_usize << level) {
        let root = gpu_prover::domain::root_of_unity(2 * half);
        let base = offset.mod_pow((1 << log) / (2 * half as u64));
        for i in 0..half {
            let factor = base * root.mod_pow(i as u64);
            heap[half + i] = if inverse { factor.inverse() } else { factor }.raw_u64();
        }
    }
    heap
}

#[test]
fn transforms_agree_with_twenty_first_on_cosets() {
    type Transform = unsafe extern "C" fn(*mut u64, u32, u32, u32, *const u64, u32);
    let Some(library) = library() else { return };
    let transform = function::<Transform>(library, "host_transform");
    let length = function::<unsafe extern "C" fn(u32, u32) -> u64>(library, "host_tile_length");
    let index = function::<unsafe extern "C" fn(u32, u32, u32) -> u64>(library, "host_tile_index");
    let mut rng = StdRng::seed_from_u64(5);
    for log in 1..=12_u32 {
        for (log_width, offset) in [(0, 1), (2, 7), (0, 49)] {
            let (rows, lanes, offset) = (1_u32 << log, 1_u32 << log_width, BFieldElement::new(offset));
            // SAFETY: plain arithmetic.
            let at = |row, lane| unsafe { index(row, lane, log_width) } as usize;
            // SAFETY: plain arithmetic.
            let mut tile = vec![0; unsafe { length(rows, log_width) } as usize];
            let coefficients: Vec<Vec<BFieldElement>> = (0..lanes).map(|_| (0..rows).map(|_| rng.random()).collect()).collect();
            let reversed = |r: u32| (r.reverse_bits() >> (32 - log)) as usize;
            for lane in 0..lanes {
                for row in 0..rows {
                    tile[at(row, lane)] = coefficients[lane as usize][reversed(row)].raw_u64();
                }
            }
            let forward = twiddles(log, offset, false);
            // SAFETY: the tile has as many words as its shape says, the heap 2^log.
            unsafe { transform(tile.as_mut_ptr(), log, rows * lanes, log_width, forward.as_ptr(), 0) };
            for lane in 0..lanes {
                let mut power = BFieldElement::new(1);
                let mut expected = coefficients[lane as usize].clone();
                for coefficient in &mut expected {
                    *coefficient *= power;
                    power *= offset;
                }
                ntt(&mut expected);
                for row in 0..rows {
                    assert_eq!(element(tile[at(row, lane)]), expected[row as usize], "2^{log}, row {row}");
                }
            }
            let backward = twiddles(log, offset, true);
            // SAFETY: as above.
            unsafe { transform(tile.as_mut_ptr(), log, rows * lanes, log_width, backward.as_ptr(), 1) };
            let scale = BFieldElement::new(u64::from(rows));
            for lane in 0..lanes {
                for row in 0..rows {
                    let expected = coefficients[lane as usize][reversed(row)] * scale;
                    assert_eq!(element(tile[at(row, lane)]), expected, "2^{log}, place {row}");
                }
            }
        }
    }
}

#[test]
fn the_rows_pass_transforms_each_lane_on_its_own_coset() {
    type Rows =
        unsafe extern "C" fn(*mut u64, u32, u32, u64, *const u64, *const u64, *const u64, *const u64, *mut u64, *mut u64);
    let Some(library) = library() else { return };
    let rows_pass = function::<Rows>(library, "host_rows");
    let length = function::<unsafe extern "C" fn(u32, u32) -> u64>(library, "host_tile_length");
    let index = function::<unsafe extern "C" fn(u32, u32, u32) -> u64>(library, "host_tile_index");
    let mut rng = StdRng::seed_from_u64(6);
    let log_width = 2;
    let lanes = 1_u32 << log_width;
    for log in 4..=12_u32 {
        let (rows, first_lane, offset) = (1_u32 << log, 8_u64, BFieldElement::new(7));
        let root = gpu_prover::domain::root_of_unity(1 << (log + 6));
        let reversed = |r: u32| (r.reverse_bits() >> (32 - log)) as usize;
        let powers: Vec<u64> = (0..rows).map(|r| offset.mod_pow(reversed(r) as u64).raw_u64()).collect();
        let low: Vec<u64> = (0..1 << 12).map(|i| root.mod_pow(i).raw_u64()).collect();
        let high: Vec<u64> = (0..1 << 6).map(|i| root.mod_pow(i << 12).raw_u64()).collect();
        let twiddles = twiddles(log, BFieldElement::new(1), false);
        // SAFETY: plain arithmetic.
        let at = |row, lane| unsafe { index(row, lane, log_width) } as usize;
        // SAFETY: plain arithmetic.
        let mut tile = vec![0; unsafe { length(rows, log_width) } as usize];
        let coefficients: Vec<Vec<BFieldElement>> = (0..lanes).map(|_| (0..rows).map(|_| rng.random()).collect()).collect();
        for lane in 0..lanes {
            for row in 0..rows {
                tile[at(row, lane)] = coefficients[lane as usize][reversed(row)].raw_u64();
            }
        }
        let (mut heap, mut factors) = (vec![0; 16 << log_width], vec![0; (rows << log_width) as usize]);
        // SAFETY: tile, tables and scratch have the lengths that the function asks for.
        unsafe {
            rows_pass(
                tile.as_mut_ptr(),
                log,
                log_width,
                first_lane,
                twiddles.as_ptr(),
                powers.as_ptr(),
                low.as_ptr(),
                high.as_ptr(),
                heap.as_mut_ptr(),
                factors.as_mut_ptr(),
            );
        };
        for lane in 0..lanes {
            let base = offset * root.mod_pow(first_lane + u64::from(lane));
            let mut power = BFieldElement::new(1);
            let mut expected = coefficients[lane as usize].clone();
            for coefficient in &mut expected {
                *coefficient *= power;
                power *= base;
            }
            ntt(&mut expected);
            for row in 0..rows {
                assert_eq!(element(tile[at(row, lane)]), expected[row as usize], "2^{log}, lane {lane}, row {row}");
            }
        }
    }
}

/// Two random rows of both tables, challenges and weights, as the CPU has them and as kernels read them.
struct Tables {
    main: Array2<BFieldElement>,
    aux: Array2<XFieldElement>,
    challenges: Challenges,
    weights: Vec<XFieldElement>,
}

impl Tables {
    fn random(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let samples = (0..Challenges::SAMPLE_COUNT).map(|_| rng.random()).collect();
        Self {
            main: Array2::from_shape_simple_fn((2, MasterMainTable::NUM_COLUMNS).f(), || rng.random()),
            aux: Array2::from_shape_simple_fn((2, MasterAuxTable::NUM_COLUMNS).f(), || rng.random()),
            challenges: Challenges::new(samples, &Claim::about_program(&Program::new(&[]))),
            weights: (0..MasterAuxTable::NUM_CONSTRAINTS).map(|_| rng.random()).collect(),
        }
    }

    fn set_constants(&self, library: &'static Library) {
        let set = function::<unsafe extern "C" fn(*const u64)>(library, "host_set_air_constants");
        let challenges = self.challenges.challenges;
        let elements = challenges.into_iter().chain(self.weights.iter().copied()).chain(challenges.map(|challenge| -challenge));
        let words: Vec<u64> = elements.flat_map(raw).collect();
        assert_eq!(words.len(), 3 * (63 + 611 + 63));
        // SAFETY: the function reads this many words.
        unsafe { set(words.as_ptr()) };
    }

    /// Columns of two rows each.
    fn main_words(&self) -> Vec<u64> {
        self.main.columns().into_iter().flatten().map(BFieldElement::raw_u64).collect()
    }

    /// Three base columns of two rows for each column.
    fn aux_words(&self) -> Vec<u64> {
        let columns = self.aux.columns();
        columns
            .into_iter()
            .flat_map(|c| [0, 1, 2].into_iter().flat_map(move |k| [0, 1].map(|r| c[r].coefficients[k].raw_u64())))
            .collect()
    }

    fn row(&self, row: usize) -> (ArrayView1<'_, BFieldElement>, ArrayView1<'_, XFieldElement>) {
        (self.main.index_axis(Axis(0), row), self.aux.index_axis(Axis(0), row))
    }

    fn evaluate(&self, kind: &str, row: usize) -> Vec<XFieldElement> {
        let ((main, aux), (next_main, next_aux)) = (self.row(row), self.row(1 - row));
        match kind {
            "initial" => MasterAuxTable::evaluate_initial_constraints(main, aux, &self.challenges),
            "consistency" => MasterAuxTable::evaluate_consistency_constraints(main, aux, &self.challenges),
            "terminal" => MasterAuxTable::evaluate_terminal_constraints(main, aux, &self.challenges),
            _ => MasterAuxTable::evaluate_transition_constraints(main, aux, next_main, next_aux, &self.challenges),
        }
    }
}

/// Which auxiliary columns are running sums, products and maps.
#[allow(clippy::unreadable_literal, dead_code, reason = "generated")]
mod registry {
    include!(concat!(env!("GPU_PROVER_GENERATED"), "/air_registry.rs"));
}

/// Extension field columns as the kernels have them: three base columns each.
struct BaseColumns {
    rows: usize,
    words: Vec<u64>,
}

impl BaseColumns {
    fn zero(rows: usize, columns: usize) -> Self {
        Self { rows, words: vec![0; 3 * rows * columns] }
    }

    fn at(&self, column: usize, row: usize) -> XFieldElement {
        XFieldElement::new([0, 1, 2].map(|k| BFieldElement::from_raw_u64(self.words[(3 * column + k) * self.rows + row])))
    }

    fn set(&mut self, column: usize, row: usize, value: XFieldElement) {
        for (k, word) in raw(value).into_iter().enumerate() {
            self.words[(3 * column + k) * self.rows + row] = word;
        }
    }
}

/// The contributions of `extend.cuh`, added up one row after the other, against the host's own extension.
fn contributions_add_up(library: &'static Library, seed: u64) {
    type Extend = unsafe extern "C" fn(*const u64, *mut u64, *mut u64, u64, u32);
    let extend = function::<Extend>(library, "host_extend");
    let (zero, one) = (XFieldElement::from(0_u64), XFieldElement::from(1_u64));
    for workload in gpu_prover::workloads::small() {
        let tables = Tables::random(seed);
        tables.set_constants(library);
        let (_, aet) = workload.trace().expect("the workload runs");
        let main = MainTable::from_aet(&aet).expect("a small height");
        let rows = main.columns().rows();
        let main_words: Vec<u64> = main.columns().as_slice().iter().map(BFieldElement::raw_u64).collect();
        let mut aux = BaseColumns::zero(rows, triton_air::table::NUM_AUX_COLUMNS);
        let mut factors = BaseColumns::zero(rows, registry::MAPS.len() + registry::LATE_MAPS.len());
        let run = |aux: &mut BaseColumns, factors: &mut BaseColumns, late| {
            let (aux, factors) = (aux.words.as_mut_ptr(), factors.words.as_mut_ptr());
            // SAFETY: all matrices have `rows` rows and as many columns as the kernels know.
            unsafe { extend(main_words.as_ptr(), aux, factors, rows as u64, late) };
        };
        let scan = |aux: &mut BaseColumns, column: u64, initial, apply: &dyn Fn(usize, XFieldElement, XFieldElement) -> _| {
            let mut value = initial;
            for row in 0..rows {
                value = apply(row, value, aux.at(column as usize, row));
                aux.set(column as usize, row, value);
            }
        };
        run(&mut aux, &mut factors, 0);
        for &column in registry::SUMS {
            scan(&mut aux, column, zero, &|_, value, own| value + own);
        }
        for &column in registry::PRODUCTS {
            scan(&mut aux, column, one, &|_, value, own| value * own);
        }
        for (slot, &column) in registry::MAPS.iter().enumerate() {
            scan(&mut aux, column, one, &|row, value, own| value * factors.at(slot, row) + own);
        }
        run(&mut aux, &mut factors, 1);
        for (slot, &column) in registry::LATE_MAPS.iter().enumerate() {
            let slot = registry::MAPS.len() + slot;
            scan(&mut aux, column, one, &|row, value, own| value * factors.at(slot, row) + own);
        }
        let mut expected = Matrix::filled(rows, triton_air::table::NUM_AUX_COLUMNS, zero);
        aux_table::extend_original_columns(main.columns(), &tables.challenges, &mut expected);
        for (column, expected) in expected.iter_columns().enumerate() {
            for (row, &expected) in expected.iter().enumerate() {
                assert_eq!(aux.at(column, row), expected, "{}: column {column}, row {row}", workload.name);
            }
        }
    }
}

/// One test, because all kernels share one table of constants.
#[test]
fn kernels_with_challenges_agree_with_the_crates_evaluators() {
    let Some(library) = library() else { return };
    contributions_add_up(library, 100);
    generated_kernels_agree_with_the_crates_evaluators(library);
}

fn generated_kernels_agree_with_the_crates_evaluators(library: &'static Library) {
    type Constraint = unsafe extern "C" fn(*const u64, *const u64, u64, u64, *mut u64);
    type Fill = unsafe extern "C" fn(*mut u64, *mut u64, u64, u64);
    let kernels = generated_kernels();
    for seed in 0..8 {
        let tables = Tables::random(seed);
        tables.set_constants(library);
        let (mut main, mut aux) = (tables.main_words(), tables.aux_words());
        let mut weights = tables.weights.as_slice();
        let mut sums: BTreeMap<&str, [XFieldElement; 2]> = BTreeMap::new();
        for kind in ["initial", "consistency", "transition", "terminal"] {
            let values = [0, 1].map(|row| tables.evaluate(kind, row));
            let (of_kind, rest) = weights.split_at(values[0].len());
            weights = rest;
            let expected = values.map(|values| values.iter().zip(of_kind).map(|(&v, &w)| v * w).sum::<XFieldElement>());
            sums.insert(kind, expected);
        }
        assert!(weights.is_empty());
        for (kind, expected) in sums {
            let prefix = format!("air_{kind}_");
            for (row, expected) in expected.into_iter().enumerate() {
                let mut sum = XFieldElement::new([BFieldElement::new(0); 3]);
                for name in kernels.iter().filter(|name| name.starts_with(&prefix)) {
                    let kernel = function::<Constraint>(library, name);
                    let mut value = [0; 3];
                    // SAFETY: tables of two rows, and three words for the value.
                    unsafe { kernel(main.as_ptr(), aux.as_ptr(), 2, row as u64, value.as_mut_ptr()) };
                    sum += XFieldElement::new(value.map(BFieldElement::from_raw_u64));
                }
                assert_eq!(sum, expected, "{kind} constraints, row {row}");
            }
        }

        // Degree lowering last: it overwrites derived columns.
        let mut expected_main = tables.main.clone();
        let originals = triton_air::table::NUM_MAIN_COLUMNS;
        expected_main.slice_mut(ndarray::s![.., originals..]).fill(BFieldElement::new(0));
        main[2 * originals..].fill(0);
        DegreeLoweringTable::fill_derived_main_columns(expected_main.view_mut());
        let fill = |name: &str, main: &mut [u64], aux: &mut [u64], row: u64| {
            let fill = function::<Fill>(library, name);
            // SAFETY: tables of two rows.
            unsafe { fill(main.as_mut_ptr(), aux.as_mut_ptr(), 2, row) };
        };
        fill("fill_main_single", &mut main, &mut aux, 0);
        fill("fill_main_single", &mut main, &mut aux, 1);
        fill("fill_main_dual", &mut main, &mut aux, 0);
        let words: Vec<u64> = expected_main.columns().into_iter().flatten().map(BFieldElement::raw_u64).collect();
        assert_eq!(main, words, "derived main columns");

        let mut expected_aux = Tables { aux: tables.aux.clone(), main: expected_main.clone(), ..tables };
        let (first, last) = (triton_air::table::NUM_AUX_COLUMNS, MasterAuxTable::NUM_COLUMNS - 1);
        let zero = XFieldElement::new([BFieldElement::new(0); 3]);
        expected_aux.aux.slice_mut(ndarray::s![.., first..last]).fill(zero);
        aux[6 * first..6 * last].fill(0);
        DegreeLoweringTable::fill_derived_aux_columns(
            expected_main.view(),
            expected_aux.aux.view_mut(),
            &expected_aux.challenges,
        );
        fill("fill_aux_dual", &mut main, &mut aux, 0);
        assert_eq!(aux, expected_aux.aux_words(), "derived auxiliary columns");
    }
}
