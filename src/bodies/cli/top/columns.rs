//! Text in columns.

/// How a cell looks, where looks are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    Plain,
    Dim,
    Bold,
    Good,
    Warn,
    Bad,
}

impl Look {
    /// A text that looks so.
    fn on(self, text: &str) -> String {
        let code = match self {
            Self::Plain => return text.to_owned(),
            Self::Dim => 2,
            Self::Bold => 1,
            Self::Good => 32,
            Self::Warn => 33,
            Self::Bad => 31,
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

/// A cell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cell {
    text: String,
    look: Look,
}

impl Cell {
    pub(super) fn new(text: impl AsRef<str>) -> Self {
        Self::looking(Look::Plain, text)
    }

    /// Of what others have written only what can be seen is kept: a control character would be an
    /// order to the terminal.
    pub(super) fn looking(look: Look, text: impl AsRef<str>) -> Self {
        let text = text.as_ref().chars().map(|it| if it.is_control() { '?' } else { it }).collect();
        Self { text, look }
    }

    fn width(&self) -> usize {
        self.text.chars().count()
    }
}

/// A column's heading, and whether its cells stand at its right.
pub(super) type Heading = (&'static str, bool);

/// Cells in a row, cut off at `columns`; with looks only where there are that many.
pub(super) fn joined(row: &[Cell], columns: Option<usize>) -> String {
    let widths: Vec<usize> = row.iter().map(Cell::width).collect();
    line(row, &widths, |_| false, columns)
}

/// Lines of a table, cut off in the same way.
pub(super) fn table(
    headings: &[Heading],
    rows: &[Vec<Cell>],
    columns: Option<usize>,
) -> Vec<String> {
    let heading = headings.iter().map(|(title, _)| Cell::looking(Look::Dim, title)).collect();
    let all: Vec<&Vec<Cell>> = std::iter::once(&heading).chain(rows).collect();
    let width = |at: usize| all.iter().map(|row| row[at].width()).max().unwrap_or_default();
    let widths: Vec<usize> = (0..headings.len()).map(width).collect();
    all.iter().map(|row| line(row, &widths, |at| headings[at].1, columns)).collect()
}

fn line(
    row: &[Cell],
    widths: &[usize],
    is_at_right: impl Fn(usize) -> bool,
    columns: Option<usize>,
) -> String {
    let mut line = String::new();
    let mut used = 0;
    for (at, cell) in row.iter().enumerate() {
        let gap = if at == 0 { 0 } else { 2 };
        let left = columns.unwrap_or(usize::MAX).saturating_sub(used + gap);
        if left == 0 {
            break;
        }
        let text: String = cell.text.chars().take(left).collect();
        let width = widths[at].min(left);
        let padded = match is_at_right(at) {
            true => format!("{text:>width$}"),
            // Nothing stands behind the last.
            false if at + 1 == row.len() => text,
            false => format!("{text:<width$}"),
        };
        line.extend(std::iter::repeat_n(' ', gap));
        line += &if columns.is_some() { cell.look.on(&padded) } else { padded };
        used += gap + width;
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_stand_under_their_heading_and_are_cut_at_the_edge() {
        let headings = [("NAME", false), ("N", true), ("WHY", false)];
        let rows = [
            vec![Cell::new("a"), Cell::looking(Look::Bad, "12"), Cell::new("because")],
            vec![Cell::new("longer"), Cell::new("3"), Cell::new("")],
        ];
        let plain = table(&headings, &rows, None);
        assert_eq!(plain, ["NAME     N  WHY", "a       12  because", "longer   3  "]);
        let narrow = table(&headings, &rows, Some(14));
        assert_eq!(narrow[1], "a       \x1b[31m12\x1b[0m  be");
    }

    #[test]
    fn what_others_have_written_gives_the_terminal_no_orders() {
        let cell = Cell::new("m\x1b]0;taken\x07\r\n\u{9b}2J");
        assert_eq!(cell.text, "m?]0;taken????2J");
    }
}
