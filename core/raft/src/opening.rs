//! Opening a data directory: whose it is, and whether log and state are of one piece.

use std::path::Path;
use std::sync::Arc;

use coracle_store::Program;

use crate::disk::Disk;
use crate::files::Native;
use crate::identity::Identity;
use crate::members::FOUNDERS;
use crate::node::{Options, Start, StartError};
use crate::shared::Applied;
use crate::types::{Member, NodeId};
use crate::wal::{self, Wal};

/// Whose data directory this is; a new one becomes what the options say.
pub fn identify(options: &Options) -> Result<Identity, StartError> {
    let data = &options.data;
    create_private(data)
        .map_err(|error| StartError::Data(format!("cannot create {}: {error}", data.display())))?;
    if let Some(identity) = Identity::read(data).map_err(StartError::Data)? {
        check_same(&identity, options)?;
        return Ok(identity);
    }
    let foreign =
        |entry: &std::fs::DirEntry| entry.file_name() != "LOCK" && entry.file_name() != "IDENTITY.new";
    let entries = std::fs::read_dir(data).map_err(|error| StartError::Data(error.to_string()))?;
    if let Some(entry) = entries.flatten().find(foreign) {
        return Err(StartError::Data(format!(
            "{} holds {} and no IDENTITY: not a Coracle data directory. Choose an empty one with --data.",
            data.display(),
            entry.file_name().display()
        )));
    }
    let identity = match &options.start {
        Start::Found { members, token } => found(members, token, &options.member)?,
        Start::Join { id, cluster, members } => {
            Identity { cluster: *cluster, node: *id, members: members.clone(), founder: false }
        }
    };
    identity
        .write(data)
        .map_err(|error| StartError::Data(format!("cannot write to {}: {error}", data.display())))?;
    Ok(identity)
}

/// A directory that belongs to this cluster and name, whatever else the options say, is used as it is; one that
/// belongs to another is refused.
fn check_same(identity: &Identity, options: &Options) -> Result<(), StartError> {
    let own = identity.members.iter().find(|(id, _)| *id == identity.node);
    if let Some((_, member)) = own
        && member.name != options.member.name
    {
        return Err(StartError::Data(format!(
            "{} belongs to node {:?}, this one is called {:?}: choose another directory with --data, or the name with --name.",
            options.data.display(),
            member.name,
            options.member.name
        )));
    }
    if let Start::Found { members, token } = &options.start
        && members.len() > 1
        && identity.founder
    {
        let wanted = found(members, token, &options.member)?;
        if wanted.cluster != identity.cluster {
            return Err(StartError::Data(format!(
                "{} belongs to another cluster ({:032x}) than the one described by --initial-cluster and --cluster-token ({:032x}).",
                options.data.display(),
                identity.cluster,
                wanted.cluster
            )));
        }
    }
    Ok(())
}

/// The identity of a founder: ids in the order of names, cluster id from what all founders were told.
fn found(members: &[Member], token: &str, own: &Member) -> Result<Identity, StartError> {
    let mut members = members.to_vec();
    members.sort_by(|a, b| a.name.cmp(&b.name));
    let alone = members.len() <= 1;
    if alone {
        members = vec![own.clone()];
    }
    let twice = members.windows(2).any(|pair| pair[0].name == pair[1].name);
    if twice || members.len() as u64 > FOUNDERS {
        return Err(StartError::Refused(
            "--initial-cluster names a member twice, or more than 100 members.".into(),
        ));
    }
    let Some(place) = members.iter().position(|member| member.name == own.name) else {
        return Err(StartError::Refused(format!(
            "--initial-cluster does not name this node ({:?}): set --name to one of its names.",
            own.name
        )));
    };
    let cluster = if alone {
        rand::random::<u128>().max(1)
    } else {
        let text: String = members
            .iter()
            .fold(String::new(), |text, member| text + &member.name + "=" + &member.peer + "\n");
        xxhash_rust::xxh3::xxh3_128(format!("{token}\n{text}").as_bytes()).max(1)
    };
    if !alone {
        // The first log entry is made of this, by each founder for itself: it must be the same everywhere. Where each
        // serves clients is told later (see `introduce`).
        for member in &mut members {
            member.client.clear();
        }
    }
    let members = (1..).zip(members).collect();
    Ok(Identity { cluster, node: place as NodeId + 1, members, founder: true })
}

fn create_private(data: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(data)
}

/// Open log and state, and check that they are of one piece.
pub fn open(
    data: &Path,
    identity: &Identity,
    segment_bytes: u64,
    program: fn() -> Box<dyn Program>,
) -> Result<(Wal, Arc<Disk>, Applied), StartError> {
    let broken = |reason: String| StartError::Data(reason);
    let whose = wal::Identity { cluster: identity.cluster, node: identity.node };
    let mut options = wal::Options::new(whose);
    options.segment_bytes =
        u32::try_from(segment_bytes).map_err(|_| broken("segments are at most 4 GiB".into()))?;
    options.high_water = Some(data.join("HIGH-WATER"));
    let log = data.join("log");
    let (wal, recovered) =
        Wal::open(Arc::new(Native), &log, options).map_err(|error| broken(error.to_string()))?;
    let (disk, store, position) = Disk::open(data, program).map_err(broken)?;
    if position.applied.is_some() && position.cluster != identity.cluster {
        return Err(broken(format!(
            "the checkpoint in {} belongs to cluster {:032x}, this directory to {:032x}: restore the right one.",
            data.display(),
            position.cluster,
            identity.cluster
        )));
    }
    if recovered.stamp.purged > position.applied {
        return Err(broken(format!(
            "the log in {} begins after the checkpoint ends: the checkpoint was lost or is older. Remove the member and join with an empty directory.",
            data.display()
        )));
    }
    tracing::info!(
        revision = store.revision().0,
        applied = position.applied.map(|id| id.index),
        entries = recovered.entries,
        torn = recovered.torn,
        "data directory opened"
    );
    let applied = Applied { store, position: position.applied, membership: position.membership, unsaved: 0 };
    Ok((wal, disk, applied))
}
