//! Column-major matrices on the device.

use super::arena::Region;

/// Base field columns of equal length, contiguous one after the other. An extension field column is three of them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Columns {
    region: Region<u64>,
    rows: usize,
    count: usize,
}

impl Columns {
    /// The whole region as columns of `rows` rows.
    ///
    /// # Panics
    /// If that is not a whole number of columns.
    pub(crate) fn new(region: Region<u64>, rows: usize) -> Self {
        assert!(rows > 0 && region.len().is_multiple_of(rows), "{} elements in rows of {rows}", region.len());
        Self { region, rows, count: region.len() / rows }
    }

    pub(crate) fn region(self) -> Region<u64> {
        self.region
    }

    pub(crate) fn address(self) -> u64 {
        self.region.address()
    }

    pub(crate) fn rows(self) -> usize {
        self.rows
    }

    pub(crate) fn columns(self) -> usize {
        self.count
    }

    /// Distance of neighbouring columns, in elements, as kernels take it.
    pub(crate) fn stride(self) -> u64 {
        self.rows as u64
    }

    /// Columns `first .. first + count`.
    pub(crate) fn part(self, first: usize, count: usize) -> Self {
        Self { region: self.region.slice(first * self.rows, count * self.rows), rows: self.rows, count }
    }
}
