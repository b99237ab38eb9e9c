//! A list that grows without moving what it holds.

/// Elements per block: 8 MiB at most for the largest record, so that a growing trace touches fresh memory once and
/// copies nothing.
const LOG2_BLOCK: usize = 15;

/// A list of records in blocks of equal length (the last may be shorter).
#[derive(Debug, Clone)]
pub struct Blocks<T> {
    blocks: Vec<Vec<T>>,
}

impl<T> Default for Blocks<T> {
    fn default() -> Self {
        Self { blocks: vec![] }
    }
}

impl<T> Blocks<T> {
    /// Append a record.
    #[inline]
    pub fn push(&mut self, record: T) {
        match self.blocks.last_mut() {
            Some(block) if block.len() < 1 << LOG2_BLOCK => block.push(record),
            _ => self.push_in_new_block(record),
        }
    }

    #[cold]
    fn push_in_new_block(&mut self, record: T) {
        let mut block = twenty_first::memory::vec_with_capacity(1 << LOG2_BLOCK);
        block.push(record);
        self.blocks.push(block);
    }

    /// Number of records.
    pub fn len(&self) -> usize {
        match self.blocks.split_last() {
            Some((last, full)) => (full.len() << LOG2_BLOCK) + last.len(),
            None => 0,
        }
    }

    /// Whether there is no record.
    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// The record with this number.
    ///
    /// # Panics
    /// If there are not that many.
    #[inline]
    pub fn get(&self, index: usize) -> &T {
        &self.blocks[index >> LOG2_BLOCK][index & ((1 << LOG2_BLOCK) - 1)]
    }

    /// Bytes of memory that the blocks take.
    pub fn bytes(&self) -> usize {
        (self.blocks.len() << LOG2_BLOCK) * size_of::<T>()
    }

    /// All records in order.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.blocks.iter().flatten()
    }

    /// The blocks in order.
    pub fn blocks(&self) -> &[Vec<T>] {
        &self.blocks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_keep_their_numbers_across_blocks() {
        let mut blocks = Blocks::<usize>::default();
        assert_eq!((blocks.len(), blocks.is_empty()), (0, true));
        let count = (2 << LOG2_BLOCK) + 3;
        for record in 0..count {
            blocks.push(record);
        }
        assert_eq!(blocks.len(), count);
        assert_eq!(blocks.blocks().len(), 3);
        assert_eq!(blocks.bytes(), (3 << LOG2_BLOCK) * 8);
        assert!((0..count).all(|index| *blocks.get(index) == index));
        assert!(blocks.iter().copied().eq(0..count));
    }
}
