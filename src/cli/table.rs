//! Aligned columns.

/// On which side of its column a cell stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// A table that grows row by row.
#[derive(Debug)]
pub(super) struct Table {
    sides: Vec<Side>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these columns.
    pub(super) fn new(columns: &[(&str, Side)]) -> Self {
        Self {
            sides: columns.iter().map(|(_, side)| *side).collect(),
            rows: vec![columns.iter().map(|(name, _)| (*name).to_owned()).collect()],
        }
    }

    /// Adds a row with a cell for each column.
    pub(super) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// The lines, the heads of the columns first. A column without any content is left out.
    pub(super) fn lines(&self) -> Vec<String> {
        let width = |column: usize| {
            let cells = self.rows.iter().map(|row| row[column].chars().count());
            cells.max().unwrap_or(0)
        };
        let is_used = |column: usize| self.rows[1..].iter().any(|row| !row[column].is_empty());
        let columns: Vec<(usize, Side, usize)> = self
            .sides
            .iter()
            .enumerate()
            .filter(|(column, _)| is_used(*column))
            .map(|(column, side)| (column, *side, width(column)))
            .collect();
        let line = |row: &Vec<String>| {
            let cells = columns.iter().map(|&(column, side, width)| match side {
                Side::Left => format!("{:<width$}", row[column]),
                Side::Right => format!("{:>width$}", row[column]),
            });
            let line = cells.collect::<Vec<_>>().join("  ");
            line.trim_end().to_owned()
        };
        self.rows.iter().map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_empty_ones_left_out() {
        let mut table = Table::new(&[
            ("NAME", Side::Left),
            ("SLOTS", Side::Right),
            ("NOTE", Side::Left),
        ]);
        table.row(vec!["ü".to_owned(), "12".to_owned(), String::new()]);
        table.row(vec![
            "state-a".to_owned(),
            "1234567".to_owned(),
            String::new(),
        ]);
        assert_eq!(
            table.lines(),
            ["NAME       SLOTS", "ü             12", "state-a  1234567"]
        );
    }
}
