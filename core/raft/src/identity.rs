//! Who this data directory belongs to: written once, checked at every start.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};
use std::path::Path;

use crate::types::{Member, NodeId};

/// Version of the layout of the data directory.
pub const FORMAT: u32 = 1;
const FILE: &str = "IDENTITY";

/// The identity of a data directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// 128 random (or, for founders of several, derived) bits, the same on every member.
    pub cluster: u128,
    pub node: NodeId,
    /// Members known when the directory was made, to be dialled until the log tells better. `(id, name, peer, client)`.
    pub members: Vec<(NodeId, Member)>,
    /// This node may call an election with these members as founders.
    pub founder: bool,
}

impl Identity {
    /// Read the identity of a data directory; `None` if it has none yet.
    ///
    /// # Errors
    /// If the file cannot be read, is damaged, or is of a newer format.
    pub fn read(data: &Path) -> Result<Option<Self>, String> {
        let path = data.join(FILE);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(format!("cannot read {}: {error}", path.display())),
        };
        Self::parse(&text).map(Some).map_err(|reason| format!("{}: {reason}", path.display()))
    }

    /// Write the identity of a new data directory, durably and at once.
    ///
    /// # Errors
    /// As the file system says.
    pub fn write(&self, data: &Path) -> io::Result<()> {
        let temporary = data.join("IDENTITY.new");
        let mut file = fs::File::create(&temporary)?;
        file.write_all(self.print().as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, data.join(FILE))?;
        fs::File::open(data)?.sync_all()
    }

    fn print(&self) -> String {
        let mut text = format!(
            "# Coracle data directory. Do not copy it to another node.\nformat {FORMAT}\ncluster {:032x}\nnode {}\nfounder {}\n",
            self.cluster, self.node, self.founder
        );
        for (id, member) in &self.members {
            let _ = writeln!(text, "member {id}\t{}\t{}\t{}", member.name, member.peer, member.client);
        }
        text
    }

    fn parse(text: &str) -> Result<Self, String> {
        let mut format = None;
        let mut identity = Identity { cluster: 0, node: 0, members: Vec::new(), founder: false };
        for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
            let (word, rest) = line.split_once(' ').ok_or_else(|| format!("damaged line {line:?}"))?;
            let damaged = || format!("damaged line {line:?}");
            match word {
                "format" => format = Some(rest.parse::<u32>().map_err(|_| damaged())?),
                "cluster" => identity.cluster = u128::from_str_radix(rest, 16).map_err(|_| damaged())?,
                "node" => identity.node = rest.parse().map_err(|_| damaged())?,
                "founder" => identity.founder = rest.parse().map_err(|_| damaged())?,
                "member" => {
                    let fields: Vec<&str> = rest.split('\t').collect();
                    let &[id, name, peer, client] = fields.as_slice() else { return Err(damaged()) };
                    let member = Member { name: name.into(), peer: peer.into(), client: client.into() };
                    identity.members.push((id.parse().map_err(|_| damaged())?, member));
                }
                _ => {}
            }
        }
        match format {
            None => Err("no format line: not a Coracle data directory".into()),
            Some(newer) if newer > FORMAT => Err(format!(
                "written by a newer version (format {newer}, this one knows {FORMAT}): start the newer version"
            )),
            Some(_) if identity.node == 0 || identity.cluster == 0 => Err("node or cluster missing".into()),
            Some(_) => Ok(identity),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity {
        let member =
            |n: &str| Member { name: n.into(), peer: format!("{n}:1"), client: format!("http://{n}") };
        Identity { cluster: 7, node: 2, members: vec![(1, member("a")), (2, member("b"))], founder: true }
    }

    #[test]
    fn reads_back_what_it_wrote() {
        assert_eq!(Identity::parse(&identity().print()), Ok(identity()));
    }

    #[test]
    fn refuses_newer_formats_and_damage() {
        let newer = identity().print().replace("format 1", "format 2");
        assert!(Identity::parse(&newer).unwrap_err().contains("newer version"));
        assert!(Identity::parse("").unwrap_err().contains("not a Coracle"));
        assert!(Identity::parse("format 1\nnode x\n").unwrap_err().contains("damaged"));
    }
}
