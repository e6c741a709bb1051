//! The ledger: sections as the file shows them, and what must be true of them.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};

/// One hold's lines.
#[derive(Debug)]
pub struct Section {
    pub token: u64,
    worker: String,
    lines: usize,
    ended: bool,
}

pub struct Ledger {
    pub sections: Vec<Section>,
}

/// Read the file, line by line; an error where two sections are interleaved or a line is out of place.
pub fn parse(text: &str) -> Result<Ledger> {
    let mut sections: Vec<Section> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let at = || format!("line {}: {line:?}", number + 1);
        let mut words = line.split(' ');
        let token = words.next().and_then(|word| word.parse().ok()).with_context(at)?;
        let worker = words.next().with_context(at)?.to_owned();
        match (words.next().with_context(at)?, sections.last_mut()) {
            ("begin", last) => {
                ensure!(last.is_none_or(|last| last.token < token), "tokens do not rise at {}", at());
                sections.push(Section { token, worker, lines: 0, ended: false });
            }
            (word, Some(open)) if open.token == token && open.worker == worker && !open.ended => match word {
                "line" => {
                    let place = words.next().and_then(|word| word.parse().ok());
                    ensure!(place == Some(open.lines + 1), "a line is missing or doubled at {}", at());
                    open.lines += 1;
                }
                _ => open.ended = true,
            },
            _ => anyhow::bail!("interleaved at {}", at()),
        }
    }
    Ok(Ledger { sections })
}

impl Ledger {
    /// Only those who were killed or paused may have left their section unfinished.
    pub fn check(&self, interrupted: &BTreeSet<u64>) -> Result<()> {
        for section in self.sections.iter().filter(|section| !section.ended) {
            ensure!(
                interrupted.contains(&section.token),
                "nobody disturbed it, yet it has no end: {section:?}"
            );
        }
        Ok(())
    }

    /// Sections that have their end.
    pub fn whole(&self) -> usize {
        self.sections.iter().filter(|section| section.ended).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interleaving_is_found() {
        assert_eq!(parse("4 a begin\n4 a line 1 of 1\n4 a end\n9 b begin\n").unwrap().whole(), 1);
        for bad in [
            "4 a begin\n9 b begin\n4 a line 1 of 2\n",
            "4 a begin\n4 b line 1 of 1\n",
            "4 a begin\n4 a line 2 of 2\n",
            "4 a begin\n4 a end\n4 a line 1 of 1\n",
            "9 a begin\n4 b begin\n",
            "9 a begin\n9 b begin\n",
            "4 a line 1 of 1\n",
            "nonsense\n",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_end_may_be_missing_only_after_a_fault() {
        let ledger = parse("4 a begin\n9 b begin\n9 b end\n").unwrap();
        assert!(ledger.check(&BTreeSet::from([4])).is_ok());
        assert!(ledger.check(&BTreeSet::new()).is_err());
    }
}
