//! Hashes of table rows: the leaves of the three table trees.

use rayon::prelude::*;
use triton_vm::prelude::{Digest, Tip5};
use twenty_first::tip5::ColumnElement;

use crate::domain::NUM_COSETS;
use crate::matrix::Matrix;

/// Rows hashed by one task: columns are read in contiguous pieces, and all pieces of a task fit the second-level cache.
const ROWS_PER_TASK: usize = 64;

/// `Tip5::hash_varlen` of each row; an extension field element counts as its three coefficients.
pub fn hash_rows<T: ColumnElement + Send + Sync>(table: &Matrix<T>) -> Vec<Digest> {
    let columns: Vec<&[T]> = table.iter_columns().collect();
    let starts = (0..table.rows()).into_par_iter().step_by(ROWS_PER_TASK);
    starts
        .flat_map_iter(|start| {
            let end = (start + ROWS_PER_TASK).min(table.rows());
            let rows: Vec<&[T]> = columns.iter().map(|column| &column[start..end]).collect();
            Tip5::hash_rows_of_columns(&rows)
        })
        .collect()
}

/// Hashes of the rows of all cosets, in the natural order of the FRI domain.
pub fn hash_rows_of_cosets<T: ColumnElement + Send + Sync>(cosets: &[Matrix<T>; NUM_COSETS]) -> Vec<Digest> {
    let hashes: [_; NUM_COSETS] = std::array::from_fn(|coset| hash_rows(&cosets[coset]));
    crate::lde::interleave_cosets(&hashes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::randomness;
    use triton_vm::prelude::{BFieldElement, XFieldElement};

    #[test]
    fn a_row_is_hashed_as_its_base_field_elements() {
        for columns in [1, 9, 10, 11, 91] {
            let data: Vec<XFieldElement> = randomness::column([3; 32], 70 * columns);
            let table = Matrix::from_column_major(70, data).expect("whole columns");
            for (row, digest) in hash_rows(&table).into_iter().enumerate() {
                let flat: Vec<BFieldElement> = table.row(row).iter().flat_map(|x| x.coefficients).collect();
                assert_eq!(digest, Tip5::hash_varlen(&flat), "row {row} of {columns} columns");
            }
        }
    }
}
