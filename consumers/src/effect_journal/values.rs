//! Lists of rows in one statement: `VALUES (?, ?), (?, ?)`, padded with rows of nulls to a power of
//! two. So there are few different statements, which a connection keeps prepared.
//!
//! Why bound values, and not JSON that `json_each` takes apart: a row of eight values takes 1 µs of
//! SQLite's time instead of 4 µs.
//!
//! A statement takes the rows with `FROM (VALUES …) WHERE column1 IS NOT NULL`, which leaves the
//! padding out. SQLite names the columns `column1`, `column2` and so on.
//!
//! SQLite accepts 32,766 values in a statement. Callers bound their rows: a batch has at most 500
//! events, and an order at most [`LINES_MAX`](shop_schemas::LINES_MAX) lines.

/// The placeholders of at least `rows` rows, each of `columns` values. [`padded`] has as many rows.
pub fn placeholders(columns: usize, rows: usize) -> String {
    let rows = rows.next_power_of_two();
    let mut list = String::with_capacity(rows * (columns + 1) * ", ?".len());
    for row in 0..rows {
        list.push_str(if row > 0 { ", (" } else { "(" });
        for column in 0..columns {
            list.push_str(if column > 0 { ", ?" } else { "?" });
        }
        list.push(')');
    }
    list
}

/// The rows, then `None` for each row of nulls.
pub fn padded<T>(rows: &[T]) -> impl Iterator<Item = Option<&T>> {
    (0..rows.len().next_power_of_two()).map(|at| rows.get(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_and_placeholders_are_padded_alike() {
        for (rows, expected) in [(0, 1), (1, 1), (2, 2), (3, 4), (500, 512)] {
            let list = vec![7; rows];
            assert_eq!(padded(&list).count(), expected);
            assert_eq!(padded(&list).flatten().count(), rows);
            assert_eq!(placeholders(2, rows).matches("(?, ?)").count(), expected);
        }
        assert_eq!(placeholders(3, 2), "(?, ?, ?), (?, ?, ?)");
    }
}
