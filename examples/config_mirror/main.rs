//! A directory tree, mirrored through Coracle while its leader is killed.
//!
//! One program, two roles: the driver (default) and the follower (`follow`), a process of its own that turns the
//! changes of a prefix into files. README.md tells the story; [`check`] is what makes it a test.

mod check;
mod follow;
mod record;
mod tree;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use coracle_client::Coracle;
use coracle_examples::{Cluster, coracle_binary, flag, options};

/// Everything happens below this prefix; the follower watches it all.
const PREFIX: &str = "mirror/";
/// Where the files are.
const FILES: &str = "mirror/files/";
/// Put last: the follower stops here.
const END: &str = "mirror/end";

#[tokio::main]
async fn main() -> ExitCode {
    let role = std::env::args().nth(1);
    let result = if role.as_deref() == Some("follow") { follow::run().await } else { drive().await };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("FAIL: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn drive() -> Result<()> {
    let short = flag("--short");
    let work = tempfile::Builder::new().prefix("config_mirror-").tempdir()?;
    // Deliberately kept after a failure: logs and trees are what explains it.
    let folder = work.keep();
    let result = mirror(&folder, short).await;
    match &result {
        Ok(()) => std::fs::remove_dir_all(&folder)?,
        Err(_) => eprintln!("kept for inspection: {}", folder.display()),
    }
    result
}

async fn mirror(folder: &Path, short: bool) -> Result<()> {
    let started = Instant::now();
    let source = folder.join("source");
    let files_max = match (short, options("--tree").is_empty()) {
        (true, _) => 400,
        (false, true) => 7000,
        (false, false) => usize::MAX,
    };
    let taken = tree::collect(&trees(), &source, files_max)?;
    println!("tree      {taken}");
    ensure!(taken.binary > 0, "there is no binary file in the tree");
    ensure!(short || taken.files >= 5000, "fewer than 5000 files: name more trees with --tree");

    // History is kept in full, so that the check can replay all of it.
    let flags = ["--history-bytes", "1GiB", "--history-count", "10000000", "--history-age", "24h"];
    let mut cluster = Cluster::start(folder, &flags).await?;
    let client = cluster.client().await?;
    println!("cluster   {}", cluster.urls());
    let before = client.cluster().status().await?.revision;

    let (target, log) = (folder.join("target"), folder.join("events.log"));
    let follower = start_follower(&cluster, &target, &log).await?;
    println!("follower  pid {} writes what it sees into another directory", follower.0.id());

    let import = cli(&cluster, &["kv", "import"], &source)?.spawn().map(Running)?;
    kill_the_leader_midway(&mut cluster, &client, taken.files).await?;
    wait_for(import, "coracle kv import", Duration::from_mins(5)).await?;
    println!("import    done: {} files", taken.files);

    let edits = tree::edit(&source)?;
    apply(&client, &source, &edits).await?;
    println!("edits     {} rewritten, {} deleted", edits.rewritten.len(), edits.deleted.len());

    client.kv().put(END, "").await?;
    wait_for(follower, "follower", Duration::from_mins(2)).await?;
    let export = folder.join("export");
    run_cli(&cluster, &["kv", "export"], &export)?;

    check::equal_trees(&source, &target).context("source and followed tree differ")?;
    check::equal_trees(&source, &export).context("source and exported tree differ")?;
    println!("check     source, followed and exported tree are equal byte for byte");
    let seen = record::read(&log)?;
    let report = check::events(&client, &cluster, &seen, before).await?;
    println!("check     {report}");
    println!("PASS      {:.1?}", started.elapsed());
    Ok(())
}

/// `--tree`s, or this repository and as many system trees as make it real.
fn trees() -> Vec<PathBuf> {
    let named = options("--tree");
    if !named.is_empty() {
        return named.into_iter().map(PathBuf::from).collect();
    }
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let system = ["/usr/share/doc", "/usr/share/zoneinfo", "/usr/include", "/usr/share/perl"];
    std::iter::once(repository).chain(system.map(PathBuf::from)).filter(|tree| tree.is_dir()).collect()
}

async fn start_follower(cluster: &Cluster, target: &Path, log: &Path) -> Result<Running> {
    let child = Command::new(std::env::current_exe()?)
        .args(["follow", "--prefix", PREFIX, "--files", FILES, "--end", END])
        .arg("--into")
        .arg(target)
        .arg("--log")
        .arg(log)
        .env("CORACLE_URL", cluster.urls())
        .spawn()
        .map(Running)?;
    let end = Instant::now() + Duration::from_secs(20);
    while !record::is_synced(log) {
        ensure!(Instant::now() < end, "the follower did not start watching within 20 s");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(child)
}

/// Wait until a third of the files is in, `kill -9` the leader, and start it again.
async fn kill_the_leader_midway(cluster: &mut Cluster, client: &Coracle, files: usize) -> Result<()> {
    let files = u64::try_from(files)?;
    let end = Instant::now() + Duration::from_mins(2);
    let leader = cluster.leader().await?;
    while client.kv().list(FILES).stale().count().await?.0 < files / 3 {
        ensure!(Instant::now() < end, "a third of the import took longer than 120 s");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    leader.kill()?;
    let killed = Instant::now();
    let (there, _) = client.kv().list(FILES).count().await?;
    println!("leader    {} killed with kill -9 when {there} of {files} files were there", leader.name);
    ensure!(there < files, "the import was over before the leader was killed: use a larger tree");
    println!("leader    another one answered after {:.1?}", killed.elapsed());
    leader.start()?;
    let restarted = Instant::now();
    // Generous: the import goes on meanwhile, perhaps with debug builds on a busy machine.
    leader.ready(Duration::from_mins(2)).await?;
    println!("leader    {} restarted and ready again after {:.1?}", leader.name, restarted.elapsed());
    Ok(())
}

/// Make the same edits in the store that were made in the tree.
async fn apply(client: &Coracle, source: &Path, edits: &tree::Edits) -> Result<()> {
    let kv = client.kv();
    for path in &edits.rewritten {
        kv.put(key_of(path), std::fs::read(source.join(path))?).await?;
    }
    for path in &edits.deleted {
        kv.delete(key_of(path)).await?;
    }
    Ok(())
}

fn key_of(path: &Path) -> Vec<u8> {
    [FILES.as_bytes(), path.as_os_str().as_encoded_bytes()].concat()
}

/// A child process that does not outlive its handle.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Best effort: mostly it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn run_cli(cluster: &Cluster, words: &[&str], folder: &Path) -> Result<()> {
    let status = cli(cluster, words, folder)?.status()?;
    ensure!(status.success(), "coracle {}: {status}", words.join(" "));
    Ok(())
}

fn cli(cluster: &Cluster, words: &[&str], folder: &Path) -> Result<Command> {
    let mut command = Command::new(coracle_binary()?);
    command.args(words).arg(folder).args(["--prefix", FILES]).env("CORACLE_URL", cluster.urls());
    command.stdin(Stdio::null()).stdout(Stdio::null());
    Ok(command)
}

async fn wait_for(mut child: Running, name: &str, patience: Duration) -> Result<()> {
    let end = Instant::now() + patience;
    loop {
        match child.0.try_wait()? {
            Some(status) if status.success() => return Ok(()),
            Some(status) => bail!("{name}: {status}"),
            None if Instant::now() > end => bail!("{name} was not done after {patience:?}"),
            None => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}
