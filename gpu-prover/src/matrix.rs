//! The one matrix layout of this crate: column-major, as the proof system's tables are.

use ndarray::{ArrayView2, ArrayViewMut2, ShapeBuilder};
use rayon::prelude::*;

/// A dense matrix whose columns are contiguous: element `(row, column)` lies at `column * rows + row`.
///
/// Columns are what NTTs run over, and what a device reads coalesced when one thread owns one row.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Matrix<T> {
    rows: usize,
    data: Vec<T>,
}

impl<T: Copy + Send + Sync> Matrix<T> {
    /// A matrix with every element equal to `value`. The memory is written in parallel: the first touch of a page costs
    /// more than the value.
    pub fn filled(rows: usize, columns: usize, value: T) -> Self {
        Self::filled_in(Vec::new(), rows, columns, value)
    }

    /// [`Self::filled`] in memory that was used before, if it is large enough: its pages are there already.
    pub fn filled_in(mut data: Vec<T>, rows: usize, columns: usize, value: T) -> Self {
        let len = rows * columns;
        if data.capacity() < len {
            // Huge pages: a table of 2^22 rows has a million small ones, and each costs a fault.
            data = twenty_first::memory::vec_with_capacity(len);
        }
        (0..len).into_par_iter().with_min_len(1 << 16).map(|_| value).collect_into_vec(&mut data);
        Self { rows, data }
    }

    /// Give the memory back, to be used again.
    pub fn into_memory(self) -> Vec<T> {
        self.data
    }

    /// A matrix of `rows` rows over column-major `data`, or `None` if `data` is no whole number of columns.
    pub fn from_column_major(rows: usize, data: Vec<T>) -> Option<Self> {
        let whole = rows != 0 && data.len().is_multiple_of(rows);
        (whole || data.is_empty()).then_some(Self { rows, data })
    }

    /// Number of rows, the length of each column.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns.
    pub fn columns(&self) -> usize {
        self.data.len().checked_div(self.rows).unwrap_or(0)
    }

    /// All elements, column after column.
    pub fn as_slice(&self) -> &[T] {
        &self.data
    }

    /// All elements, column after column.
    pub fn as_mut_slice(&mut self) -> &mut [T] {
        &mut self.data
    }

    /// One column.
    ///
    /// # Panics
    /// If `index` is not below [`Self::columns`].
    pub fn column(&self, index: usize) -> &[T] {
        &self.data[index * self.rows..(index + 1) * self.rows]
    }

    /// One column.
    ///
    /// # Panics
    /// If `index` is not below [`Self::columns`].
    pub fn column_mut(&mut self, index: usize) -> &mut [T] {
        &mut self.data[index * self.rows..(index + 1) * self.rows]
    }

    /// The columns, in order.
    pub fn iter_columns(&self) -> std::slice::ChunksExact<'_, T> {
        self.data.chunks_exact(self.rows.max(1))
    }

    /// The columns, in order, to be worked on in parallel.
    pub fn par_columns_mut(&mut self) -> rayon::slice::ChunksExactMut<'_, T> {
        self.data.par_chunks_exact_mut(self.rows.max(1))
    }

    /// The columns, in order, to be read in parallel.
    pub fn par_columns(&self) -> rayon::slice::ChunksExact<'_, T> {
        self.data.par_chunks_exact(self.rows.max(1))
    }

    /// The columns as disjoint mutable slices.
    pub fn split_columns_mut(&mut self) -> Vec<&mut [T]> {
        self.data.chunks_exact_mut(self.rows.max(1)).collect()
    }

    /// A copy of row `index`.
    pub fn row(&self, index: usize) -> Vec<T> {
        self.iter_columns().map(|column| column[index]).collect()
    }

    /// Append columns of value `value` until there are `columns` of them.
    pub fn widen(&mut self, columns: usize, value: T) {
        self.data.resize(self.rows * columns, value);
    }

    /// The same memory as an [`ndarray`] view, the type the triton-vm crate's public pieces take.
    pub fn view(&self) -> ArrayView2<'_, T> {
        let shape = (self.rows, self.columns()).f();
        ArrayView2::from_shape(shape, &self.data).expect("the data has exactly rows * columns elements")
    }

    /// The same memory as a mutable [`ndarray`] view.
    pub fn view_mut(&mut self) -> ArrayViewMut2<'_, T> {
        let shape = (self.rows, self.columns()).f();
        ArrayViewMut2::from_shape(shape, &mut self.data).expect("the data has exactly rows * columns elements")
    }
}

#[cfg(test)]
mod tests {
    use super::Matrix;

    #[test]
    fn elements_lie_column_after_column() {
        let matrix = Matrix::from_column_major(3, vec![1, 2, 3, 4, 5, 6]).expect("two whole columns");
        assert_eq!(matrix.columns(), 2);
        assert_eq!(matrix.column(1), [4, 5, 6]);
        assert_eq!(matrix.row(2), [3, 6]);
        assert_eq!(matrix.view()[[2, 1]], 6);
    }

    #[test]
    fn used_memory_serves_again_without_its_content() {
        let first = Matrix::filled(100, 3, 7_u64);
        let address = first.as_slice().as_ptr();
        let second = Matrix::filled_in(first.into_memory(), 50, 4, 1);
        assert_eq!(second.as_slice(), [1; 200]);
        assert_eq!(second.as_slice().as_ptr(), address);
        let larger = Matrix::filled_in(second.into_memory(), 1000, 4, 2);
        assert!(larger.as_slice().iter().all(|&element| element == 2));
        assert_eq!((larger.rows(), larger.columns()), (1000, 4));
    }

    #[test]
    fn a_broken_column_is_refused() {
        assert!(Matrix::from_column_major(3, vec![0; 4]).is_none());
        assert!(Matrix::from_column_major(0, vec![0; 4]).is_none());
    }

    #[test]
    fn widening_keeps_what_is_there() {
        let mut matrix = Matrix::filled(2, 1, 7);
        matrix.widen(3, 0);
        assert_eq!(matrix.as_slice(), [7, 7, 0, 0, 0, 0]);
    }
}
