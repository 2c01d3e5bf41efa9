//! The columns of a table: their alignment, and which are shortened if the terminal is too narrow.
//! Pure.

/// A column: its title and the kind of its content.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Column {
    /// The title in lower case; the table prints it in capitals.
    pub(super) title: &'static str,
    /// How the column is aligned, and whether it may be shortened.
    pub(super) kind: Kind,
}

/// The kind of a column's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A number: aligned to the right, never elided.
    Number,
    /// A value to copy, such as a key, an id or a position: never elided.
    Id,
    /// A name or a time: elided after the texts have their minimum width.
    Name,
    /// A reason or a description: elided first.
    Text,
}

/// A column of numbers.
pub(crate) const fn number(title: &'static str) -> Column {
    let kind = Kind::Number;
    Column { title, kind }
}

/// A column of keys, ids or positions.
pub(crate) const fn id(title: &'static str) -> Column {
    let kind = Kind::Id;
    Column { title, kind }
}

/// A column of names or times.
pub(crate) const fn name(title: &'static str) -> Column {
    let kind = Kind::Name;
    Column { title, kind }
}

/// A column of free text.
pub(crate) const fn text(title: &'static str) -> Column {
    let kind = Kind::Text;
    Column { title, kind }
}

/// Blanks between two columns.
pub(super) const GAP: u16 = 2;

/// Minimum width of columns of names and texts.
const NAME_WIDTH_MIN: u16 = 12;
const TEXT_WIDTH_MIN: u16 = 10;

/// Reduces the widths of the widest texts, and then of the widest names, until all columns fit into
/// `screen`, or all have their minimum. The table is then wider than the screen, and values to copy
/// are complete.
pub(super) fn fit(widths: &mut [u16], columns: &[Column], screen: u16) {
    let gaps = usize::from(GAP) * columns.len().saturating_sub(1);
    for (kind, min) in [(Kind::Text, TEXT_WIDTH_MIN), (Kind::Name, NAME_WIDTH_MIN)] {
        loop {
            let total: usize = widths.iter().map(|width| usize::from(*width)).sum();
            if total + gaps <= usize::from(screen) {
                return;
            }
            let giving = widths.iter_mut().zip(columns).filter(|(width, column)| {
                let title = u16::try_from(column.title.len()).unwrap_or(u16::MAX);
                column.kind == kind && **width > min.max(title)
            });
            let Some((widest, _)) = giving.max_by_key(|(width, _)| **width) else {
                break;
            };
            *widest -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_give_way_first_then_names_and_ids_never() {
        let columns = [name("topic"), number("offset"), id("key"), text("why")];
        let check = |screen, expected: [u16; 4]| {
            let mut widths = [20, 6, 36, 50];
            fit(&mut widths, &columns, screen);
            assert_eq!(widths, expected, "{screen} columns");
        };
        check(200, [20, 6, 36, 50]);
        check(118, [20, 6, 36, 50]);
        check(100, [20, 6, 36, 32]);
        check(78, [20, 6, 36, 10]);
        check(72, [14, 6, 36, 10]);
        check(40, [12, 6, 36, 10]);
    }

    #[test]
    fn the_widest_of_a_kind_gives_way() {
        let mut widths = [30, 60];
        fit(&mut widths, &[text("a"), text("b")], 62);
        assert_eq!(widths, [30, 30]);
    }
}
