//! Output in the form asked for: `json`, `ndjson`, `table`, `raw`.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};

use serde::Serialize;

use crate::exit::Failure;

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// One JSON document
    Json,
    /// Columns for people
    Table,
    /// Only what matters most, one a line
    Raw,
    /// One JSON document a line
    Ndjson,
}

#[derive(Debug, Clone, Copy)]
pub struct Output {
    asked: Option<Format>,
}

impl Output {
    pub fn new(asked: Option<Format>) -> Self {
        Self { asked }
    }

    /// What was asked for; otherwise a table on a terminal, JSON elsewhere.
    pub fn format(self) -> Format {
        self.asked.unwrap_or(if io::stdout().is_terminal() { Format::Table } else { Format::Json })
    }

    /// What was asked for, or `default`.
    pub fn format_or(self, default: Format) -> Format {
        self.asked.unwrap_or(default)
    }

    /// One thing, as JSON or as named fields. `fields` come in order of importance: raw is the first value.
    pub fn item(self, item: &impl Serialize, fields: &[(&str, String)]) -> Result<(), Failure> {
        self.write_item(&mut io::stdout().lock(), item, fields)
    }

    fn write_item(
        self,
        out: &mut impl Write,
        item: &impl Serialize,
        fields: &[(&str, String)],
    ) -> Result<(), Failure> {
        match self.format() {
            Format::Json => {
                serde_json::to_writer_pretty(&mut *out, item)?;
                writeln!(out)?;
            }
            Format::Ndjson => line(out, item)?,
            Format::Raw => writeln!(out, "{}", fields.first().map_or("", |(_, value)| value))?,
            Format::Table => {
                let width = fields.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
                for (name, value) in fields {
                    writeln!(out, "{name:width$}  {value}")?;
                }
            }
        }
        Ok(())
    }

    /// Many things, as JSON or as rows. Raw is the first column.
    pub fn list<T: Serialize>(
        self,
        items: &[T],
        header: &[&str],
        row: impl Fn(&T) -> Vec<String>,
    ) -> Result<(), Failure> {
        self.write_list(&mut io::BufWriter::new(io::stdout().lock()), items, header, row)
    }

    fn write_list<T: Serialize>(
        self,
        out: &mut impl Write,
        items: &[T],
        header: &[&str],
        row: impl Fn(&T) -> Vec<String>,
    ) -> Result<(), Failure> {
        match self.format() {
            Format::Json => {
                serde_json::to_writer_pretty(&mut *out, items)?;
                writeln!(out)?;
            }
            Format::Ndjson => {
                for item in items {
                    line(out, item)?;
                }
            }
            Format::Raw => {
                for item in items {
                    writeln!(out, "{}", row(item).first().map_or("", String::as_str))?;
                }
            }
            Format::Table => {
                let head = header.iter().map(ToString::to_string).collect();
                let rows: Vec<Vec<String>> = std::iter::once(head).chain(items.iter().map(row)).collect();
                table(out, &rows)?;
            }
        }
        out.flush()?;
        Ok(())
    }
}

/// One JSON document on one line, at once.
pub fn line(out: &mut impl Write, item: &impl Serialize) -> Result<(), Failure> {
    serde_json::to_writer(&mut *out, item)?;
    writeln!(out)?;
    out.flush()?;
    Ok(())
}

fn table(out: &mut impl Write, rows: &[Vec<String>]) -> io::Result<()> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width =
        |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|c| c.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    for row in rows {
        let mut text = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(text, "{cell:width$}  ");
        }
        writeln!(out, "{}", text.trim_end())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(format: Format) -> String {
        let mut out = Vec::new();
        let row = |item: &(&str, u8)| vec![item.0.to_owned(), item.1.to_string()];
        let items = [("a", 1), ("long", 22)];
        Output::new(Some(format)).write_list(&mut out, &items, &["NAME", "N"], row).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn lists() {
        assert_eq!(list(Format::Table), "NAME  N\na     1\nlong  22\n");
        assert_eq!(list(Format::Raw), "a\nlong\n");
        assert_eq!(list(Format::Ndjson), "[\"a\",1]\n[\"long\",22]\n");
        assert!(list(Format::Json).starts_with("[\n  [\n"));
    }

    #[test]
    fn items() {
        let show = |format| {
            let mut out = Vec::new();
            let fields = [("token", "8".to_owned()), ("valid for", "30s".to_owned())];
            Output::new(Some(format)).write_item(&mut out, &[1], &fields).unwrap();
            String::from_utf8(out).unwrap()
        };
        assert_eq!(show(Format::Table), "token      8\nvalid for  30s\n");
        assert_eq!(show(Format::Raw), "8\n");
        assert_eq!(show(Format::Ndjson), "[1]\n");
    }
}
