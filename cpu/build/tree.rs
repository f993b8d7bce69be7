//! The decoder's lookup structure: a table on bits [31:21], where a crowded slot has a second table on [15:10].

use crate::table::Row;

/// Slots of the first table; each names a list or a second table.
pub(crate) const FIRST_BITS: u32 = 11;
pub(crate) const FIRST_SHIFT: u32 = 21;
pub(crate) const SECOND_BITS: u32 = 6;
pub(crate) const SECOND_SHIFT: u32 = 10;

/// Lists up to this length are searched as they are.
const CROWDED: usize = 4;

/// Flattened tree. A slot is `start << 8 | length` into `entries`, or `SPLIT | index` of a second table.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    pub first: Vec<u32>,
    pub second: Vec<Vec<u32>>,
    /// Indices into the rows, most specific first within each list.
    pub entries: Vec<usize>,
}

pub(crate) const SPLIT: u32 = 1 << 31;

pub(crate) fn build(rows: &[Row]) -> Tree {
    let mut order: Vec<usize> = (0..rows.len()).collect();
    order.sort_by_key(|&i| std::cmp::Reverse(rows[i].specificity()));
    let mut tree = Tree::default();
    for slot in 0..1u32 << FIRST_BITS {
        let here = matching(rows, &order, slot << FIRST_SHIFT, ((1 << FIRST_BITS) - 1) << FIRST_SHIFT);
        if here.len() <= CROWDED {
            let slot = tree.list(&here);
            tree.first.push(slot);
        } else {
            let mut table = Vec::new();
            for sub in 0..1u32 << SECOND_BITS {
                let list =
                    matching(rows, &here, sub << SECOND_SHIFT, ((1 << SECOND_BITS) - 1) << SECOND_SHIFT);
                table.push(tree.list(&list));
            }
            let index = tree.second.iter().position(|t| *t == table).unwrap_or_else(|| {
                tree.second.push(table);
                tree.second.len() - 1
            });
            tree.first.push(SPLIT | index as u32);
        }
    }
    tree
}

fn matching(rows: &[Row], among: &[usize], bits: u32, mask: u32) -> Vec<usize> {
    among.iter().copied().filter(|&i| (rows[i].value ^ bits) & rows[i].mask & mask == 0).collect()
}

impl Tree {
    fn list(&mut self, list: &[usize]) -> u32 {
        assert!(list.len() < 256, "a decoder slot with {} rows", list.len());
        if list.is_empty() {
            return 0;
        }
        let start = self.entries.windows(list.len()).position(|w| w == list).unwrap_or_else(|| {
            self.entries.extend(list);
            self.entries.len() - list.len()
        });
        (start as u32) << 8 | list.len() as u32
    }
}
