//! Markdown tables, their columns as wide as they must be: read as often in a terminal as in a browser.

/// Rows of text under a head. The first column is text, the others are figures.
pub struct Table {
    rows: Vec<Vec<String>>,
    /// Columns that are text.
    texts: usize,
}

impl Table {
    pub fn new<'a>(texts: usize, head: impl IntoIterator<Item = &'a str>) -> Table {
        Table { rows: vec![head.into_iter().map(String::from).collect()], texts }
    }

    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    pub fn print(&self) -> String {
        let columns = self.rows[0].len();
        let width = |column: usize| self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0).max(3);
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for (number, row) in self.rows.iter().enumerate() {
            for (column, cell) in row.iter().enumerate() {
                let width = widths[column];
                text += &if column < self.texts { format!("| {cell:<width$} ") } else { format!("| {cell:>width$} ") };
            }
            text += "|\n";
            if number == 0 {
                for (column, width) in widths.iter().enumerate() {
                    let dashes = "-".repeat(width - usize::from(column >= self.texts));
                    text += &if column < self.texts { format!("| {dashes} ") } else { format!("| {dashes}: ") };
                }
                text += "|\n";
            }
        }
        text
    }
}

/// A figure with thousands set apart, and as many decimals as it has meaning in.
pub fn figure(value: f64) -> String {
    if !value.is_finite() {
        return "-".into();
    }
    if value < 10.0 {
        return format!("{value:.2}");
    }
    if value < 100.0 {
        return format!("{value:.1}");
    }
    whole(value)
}

/// The same, rounded to a whole number.
pub fn whole(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// One figure in terms of another.
pub fn ratio(value: f64, base: Option<f64>) -> String {
    match base {
        Some(base) if base > 0.0 && value.is_finite() => format!("{:.2}", value / base),
        _ => "-".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_the_decimals_that_mean_something() {
        let texts = [0.123, 9.876, 98.76, 987.6, 1_234_567.0, f64::NAN].map(figure);
        assert_eq!(texts, ["0.12", "9.88", "98.8", "988", "1,234,567", "-"]);
        assert_eq!(ratio(1.0, Some(2.0)), "0.50");
        assert_eq!(ratio(1.0, Some(0.0)), "-");
    }

    #[test]
    fn columns_are_aligned() {
        let mut table = Table::new(1, ["who", "figure"]);
        table.row(["somebody".into(), "1".into()]);
        assert_eq!(table.print(), "| who      | figure |\n| -------- | -----: |\n| somebody |      1 |\n");
    }
}
