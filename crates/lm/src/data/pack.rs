use super::{DataError, Example};

/// Documents that share one row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackedRow {
    /// Indices of the examples, in the order in which they stand in the row.
    pub examples: Vec<usize>,
    /// Tokens in use.
    pub used: usize,
}

/// Free places of the rows in a binary tree of maxima, to find the first row with room in logarithmic time.
struct Rooms {
    leaves: usize,
    tree: Vec<usize>,
}

impl Rooms {
    fn new(rows: usize, len: usize) -> Self {
        let leaves = rows.next_power_of_two();
        Rooms { leaves, tree: vec![len; 2 * leaves] }
    }

    fn first_with(&self, need: usize) -> usize {
        let mut node = 1;
        while node < self.leaves {
            node = if self.tree[2 * node] >= need { 2 * node } else { 2 * node + 1 };
        }
        node - self.leaves
    }

    fn take(&mut self, row: usize, tokens: usize) {
        let mut node = row + self.leaves;
        self.tree[node] -= tokens;
        while node > 1 {
            node /= 2;
            self.tree[node] = self.tree[2 * node].max(self.tree[2 * node + 1]);
        }
    }
}

/// Places documents in rows of `len` tokens, first fit decreasing: longest first, each into the first row
/// that has room. Ties keep the order of the examples, so the result is a function of the lengths alone.
///
/// # Errors
/// A document longer than `len`.
///
/// # Cost
/// `O(n log n)`.
pub fn pack(examples: &[Example], len: usize) -> Result<Vec<PackedRow>, DataError> {
    fits(examples, len)?;
    Ok(pack_lengths(&examples.iter().map(|e| e.ids.len()).collect::<Vec<_>>(), len))
}

/// Places documents of these lengths, none above `len`.
pub(super) fn pack_lengths(lengths: &[usize], len: usize) -> Vec<PackedRow> {
    let mut order: Vec<usize> = (0..lengths.len()).filter(|&i| lengths[i] > 0).collect();
    order.sort_by_key(|&i| std::cmp::Reverse(lengths[i]));
    let mut rooms = Rooms::new(order.len().max(1), len);
    let mut rows: Vec<PackedRow> = Vec::new();
    for i in order {
        let tokens = lengths[i];
        let row = rooms.first_with(tokens);
        rooms.take(row, tokens);
        if row == rows.len() {
            rows.push(PackedRow { examples: Vec::new(), used: 0 });
        }
        rows[row].examples.push(i);
        rows[row].used += tokens;
    }
    rows
}

/// One document per row, in the order of the examples.
///
/// # Errors
/// A document longer than `len`.
pub fn unpacked(examples: &[Example], len: usize) -> Result<Vec<PackedRow>, DataError> {
    fits(examples, len)?;
    Ok(examples.iter().enumerate().map(|(i, e)| PackedRow { examples: vec![i], used: e.ids.len() }).collect())
}

fn fits(examples: &[Example], len: usize) -> Result<(), DataError> {
    match examples.iter().find(|e| e.ids.len() > len) {
        Some(e) => Err(DataError::TooLong { line: e.line, tokens: e.ids.len(), len }),
        None => Ok(()),
    }
}
